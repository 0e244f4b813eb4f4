//! What greenlets promise, by themselves and on a hub.

#[path = "../util/mod.rs"]
mod util;

mod adverse;
mod corolocal;
mod end;
mod fate;
mod generator;
mod hub;
mod introspect;
mod local;
mod parent;
mod properties;
mod scope;
mod switch;
mod throw;
mod trace;
