//! Greenlets and green threads for Linux: ordinary blocking code, made concurrent on one OS thread.
//!
//! ```
//! use std::io::{Read, Write};
//! use stolon::green::net::{TcpListener, TcpStream};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let addr = listener.local_addr()?;
//! let server = stolon::spawn(move || -> std::io::Result<()> {
//!     let (mut connection, _) = listener.accept()?;
//!     let mut name = [0; 5];
//!     connection.read_exact(&mut name)?;
//!     connection.write_all(b"hello, ")?;
//!     connection.write_all(&name)
//! });
//!
//! let mut client = TcpStream::connect(addr)?;
//! client.write_all(b"world")?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer)?;
//! assert_eq!(answer, "hello, world");
//! server.join().unwrap()?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! There is no runtime to start: any thread may call [`spawn`] or [`sleep`], and its hub appears on
//! first use.
//!
//! | to | see |
//! |---|---|
//! | run functions concurrently, wait for them, sleep | [`greenthread`] |
//! | run many of them, but not too many at once | [`greenpool`] |
//! | run them in the order in which one needs the results of others | [`dagpool`] |
//! | share connections, or other things that are few | [`pools`] |
//! | have a value for each green thread | [`corolocal`] |
//! | do blocking I/O that blocks only the green thread | [`green`] |
//! | have calls made later; test on a virtual clock | [`hub`] |
//! | reach green threads from other threads and signal handlers | [`hub`] |
//! | switch between stacks by hand | [`greenlet`] |
//! | size and count stacks | [`stack`] |
//! | wait for any descriptor | [`hub::trampoline`] |
//! | wait for descriptors without any of this | [`poller`] |
//! | look into a process that is stuck or slow | [`debug`], [`hub`] |
//!
//! # What to know before
//!
//! Safe code that uses this crate has no undefined behaviour, with three exceptions that no library which
//! switches stacks can rule out, as `std` and other crates count on one stack for a thread: do not block
//! in the initialiser of a `thread_local!` value; do not drop or resume a greenlet in the destructor of
//! one; and do not block in a function that sets a thread-local pointer and sets it back when it returns.
//! [`greenlet`] has the exact rules, with a program for each.
//!
//! A green thread stays on the OS thread that made it, and only one of a thread runs at a time,
//! until it blocks. So `Rc` and `Cell` may be shared among them, and none of the handles is
//! [`Send`]. What blocks in any other way than through this crate (a file, a `std` lock, a long
//! computation) blocks all green threads of its OS thread. A `std` lock that is held while its
//! green thread waits can block the OS thread for good.

// The layers, low to high. A module uses those above it in this list and no others;
// `tests/layers.rs` sees to it.
mod quietly;
mod sys;
#[doc(hidden)]
pub mod clock;
mod arch;
pub mod stack;
pub mod greenlet;
#[doc(hidden)]
pub mod timers;
pub mod poller;
pub mod hub;
pub mod corolocal;
pub mod timeout;
pub mod event;
pub mod semaphore;
pub mod coros;
pub mod queue;
pub mod greenthread;
pub mod greenpool;
pub mod dagpool;
pub mod pools;
pub mod tpool;
pub mod green;
pub mod convenience;
pub mod debug;

#[cfg(stolon_faults)]
#[doc(hidden)]
pub use sys::trouble as faults;

pub use greenpool::{GreenPile, GreenPool};
pub use greenthread::{GreenThread, sleep, spawn, spawn_after, spawn_after_local, spawn_n};

/// The examples in the README are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
