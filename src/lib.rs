//! Greenlets and green threads for Linux.

mod arch;
#[doc(hidden)]
pub mod clock;
pub mod greenlet;
pub mod poller;
pub mod stack;
mod sys;
