//! Greenlets and green threads for Linux.

mod arch;
#[doc(hidden)]
pub mod clock;
pub mod convenience;
pub mod green;
pub mod greenlet;
pub mod greenthread;
mod hub;
pub mod poller;
pub mod stack;
mod sys;
#[doc(hidden)]
pub mod timers;

pub use greenthread::{GreenThread, sleep, spawn};
