//! What the tests share. Each test program uses its part of it, and the rest is dead code there.
#![allow(dead_code, unreachable_pub)]

pub mod child;
pub mod crash;
pub mod leak;
pub mod on_drop;
pub mod planted;
pub mod server;
pub mod sockets;
