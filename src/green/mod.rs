//! The green world: what std has for blocking I/O, blocking only the green thread.
//!
//! Layer 7. Names and signatures are std's; where something differs, the item says so.

pub mod net;
pub mod signal;
