//! Looking into a running hub, and bending its rules, after eventlet's module of this name.
//!
//! Layer 8.

use crate::hub;

/// Whether a greenlet that would wait for a descriptor in a direction in which another one waits
/// already gets an error, mirroring eventlet's function of this name. It is so from the beginning,
/// as two that read from one stream have each other's bytes.
///
/// With `false`, on this thread, they line up instead: when the descriptor becomes ready, the first
/// in line runs, and it alone; when it has done its operation, was killed or ran out of time, the
/// next one is first, and runs if there may be something left. Greenlets that wait in line stay there
/// whatever is set later.
pub fn hub_prevent_multiple_readers(state: bool) {
    hub::prevent_multiple_readers(state);
}
