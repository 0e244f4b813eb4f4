//! Green connections, listening and serving, beside what std's do.

#[path = "../util/mod.rs"]
mod util;

mod blocking;
mod convenience;
mod load;
mod memory_stream;
mod server;
mod short;
mod tcp;
mod timeout;
mod wait;
