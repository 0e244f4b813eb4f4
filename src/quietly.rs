//! Code that must not unwind into its caller.
//!
//! Layer 0, ground. The destructor of a panic's payload is the user's code: what is called here may
//! only be called where such code may run.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f` and ends a panic of it, which the panic hook has reported.
#[inline]
pub(crate) fn quietly(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        dispose(payload);
    }
}

/// Drops the payload of a panic. If its destructor panics in turn, the payload of that is leaked: each
/// could have another.
#[cold]
#[inline(never)]
pub(crate) fn dispose(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}
