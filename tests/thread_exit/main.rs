//! The end of a thread or of the process while green threads are alive.

#[path = "../util/mod.rs"]
mod util;

mod ends;
mod references;
mod sealed;
