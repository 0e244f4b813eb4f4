//! What is built from park and wake: who gets what, and that nothing is lost.

#[path = "../util/mod.rs"]
mod util;

mod all;
mod coros;
mod dagpool;
mod event;
mod greenpool;
mod pools;
mod queue;
mod semaphore;
mod timeout;
mod unwinding;
