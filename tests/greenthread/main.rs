//! What green threads promise: when they run, how they end, who is told.

#[path = "../util/mod.rs"]
mod util;

mod kill;
mod later;
mod link;
mod turns;
