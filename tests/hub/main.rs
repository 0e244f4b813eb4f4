//! What the hub promises: turns, timers, descriptors, other threads.

#[path = "../util/mod.rs"]
mod util;

mod calls;
mod channel;
mod fairness;
mod fd;
mod handle;
mod simulated;
mod starvation;
mod timer_order;
mod timers;
mod turns;
