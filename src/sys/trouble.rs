//! The kernel as it seldom is: a test double that has system calls fail, and move less than they
//! could. There is one with `--cfg stolon_faults` only.
//!
//! Each thread has a double of its own, which does nothing until it is [started](start). What it
//! does follows from its seed and from the calls that are made, so a failure that depends on nothing
//! else can be had again.
//!
//! It tells no lies that the kernel would not tell:
//!
//! | it says | and does |
//! |---|---|
//! | `EINTR` | nothing; for `connect`, which goes on meanwhile, when that is under way |
//! | `EAGAIN` | has epoll report anew what the descriptor is ready for, as an edge would follow |
//! | `EMFILE` | nothing |
//! | `ECONNRESET` | shuts the connection down, so that the peer sees an end, too |
//! | less than was asked for | asks the kernel for as much: "drained" is told by what it says to that |

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// A kind of system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    Accept,
    Socket,
    Wait,
}

/// How many of a thousand calls go wrong in each way, of those that can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// `EINTR`: of all but those that make a socket.
    pub interrupted: u32,
    /// `EAGAIN`: of reading, writing and accepting.
    pub would_block: u32,
    /// `EMFILE`: of accepting and making a socket.
    pub no_descriptor: u32,
    /// `ECONNRESET`: of reading and writing.
    pub reset: u32,
    /// Less than could be moved: of reading and writing.
    pub short: u32,
}

/// How often something went wrong in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `EINTR`.
    pub interrupted: u64,
    /// `EAGAIN`.
    pub would_block: u64,
    /// `EMFILE`.
    pub no_descriptor: u64,
    /// `ECONNRESET`.
    pub reset: u64,
    /// Less than was asked for.
    pub short: u64,
}

struct Double {
    random: u64,
    rates: Rates,
    counts: Counts,
}

/// What an epoll instance of this thread watches a descriptor for.
#[derive(Clone, Copy)]
struct Watch {
    epoll: RawFd,
    flags: u32,
    data: u64,
}

thread_local! {
    static DOUBLE: RefCell<Option<Double>> = const { RefCell::new(None) };
    static WATCHED: RefCell<BTreeMap<RawFd, Watch>> = const { RefCell::new(BTreeMap::new()) };
}

/// Starts this thread's double, or starts it anew.
pub fn start(seed: u64, rates: Rates) {
    let double = Double { random: seed, rates, counts: Counts::default() };
    DOUBLE.with(|it| *it.borrow_mut() = Some(double));
}

/// Stops this thread's double, and returns what it did.
pub fn stop() -> Counts {
    DOUBLE.with(|it| it.take()).map_or_else(Counts::default, |double| double.counts)
}

impl Double {
    /// The next of a row of numbers (SplitMix64).
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Whether something goes wrong that does so at this rate.
    fn strikes(&mut self, rate: u32) -> bool {
        self.next() % 1000 < u64::from(rate)
    }

    /// The error of a call, if it is to fail.
    fn error(&mut self, call: Call) -> Option<i32> {
        let moves = matches!(call, Call::Read | Call::Write);
        let (rates, accepts) = (self.rates, call == Call::Accept);
        if call != Call::Socket && self.strikes(rates.interrupted) {
            self.counts.interrupted += 1;
            return Some(libc::EINTR);
        }
        if (moves || accepts) && self.strikes(rates.would_block) {
            self.counts.would_block += 1;
            return Some(libc::EAGAIN);
        }
        if (accepts || call == Call::Socket) && self.strikes(rates.no_descriptor) {
            self.counts.no_descriptor += 1;
            return Some(libc::EMFILE);
        }
        if moves && self.strikes(rates.reset) {
            self.counts.reset += 1;
            return Some(libc::ECONNRESET);
        }
        None
    }
}

/// Asks this thread's double, if it was started. None when the thread is exiting, too.
fn ask<R>(question: impl FnOnce(&mut Double) -> Option<R>) -> Option<R> {
    DOUBLE.try_with(|it| it.borrow_mut().as_mut().and_then(question)).ok().flatten()
}

/// Whether a call fails before it is made.
pub(crate) fn fails(call: Call, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let Some(error) = ask(|double| double.error(call)) else { return Ok(()) };
    match (error, fd) {
        (libc::EAGAIN, Some(fd)) => report_anew(fd.as_raw_fd()),
        (libc::ECONNRESET, Some(fd)) => {
            // SAFETY: no pointers. That the connection is gone already does no harm.
            unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) };
        }
        _ => {}
    }
    Err(io::Error::from_raw_os_error(error))
}

/// How much of `len` bytes a call may move: all, or some, but one at least.
pub(crate) fn at_most(call: Call, fd: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    fails(call, Some(fd))?;
    let some = |double: &mut Double| {
        if len < 2 || !double.strikes(double.rates.short) {
            return None;
        }
        double.counts.short += 1;
        Some(1 + double.next() as usize % (len - 1))
    };
    Ok(ask(some).unwrap_or(len))
}

/// What a `connect` that went so returns.
pub(crate) fn connected(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {
            let is_struck = |double: &mut Double| {
                let is_struck = double.strikes(double.rates.interrupted);
                double.counts.interrupted += u64::from(is_struck);
                is_struck.then_some(())
            };
            match ask(is_struck) {
                Some(()) => Err(io::Error::from_raw_os_error(libc::EINTR)),
                None => Err(e),
            }
        }
        result => result,
    }
}

/// Notes what an epoll instance watches a descriptor for.
pub(crate) fn watches(epoll: BorrowedFd<'_>, fd: RawFd, flags: u32, data: u64) {
    let watch = Watch { epoll: epoll.as_raw_fd(), flags, data };
    let _ = WATCHED.try_with(|watched| watched.borrow_mut().insert(fd, watch));
}

/// Notes that a descriptor is watched no more.
pub(crate) fn watches_no_more(fd: RawFd) {
    let _ = WATCHED.try_with(|watched| watched.borrow_mut().remove(&fd));
}

/// Has epoll report what a descriptor is ready for, if it is watched.
fn report_anew(fd: RawFd) {
    let watch = WATCHED.try_with(|watched| watched.borrow().get(&fd).copied()).ok().flatten();
    if let Some(Watch { epoll, flags, data }) = watch {
        let mut event = libc::epoll_event { events: flags, u64: data };
        // SAFETY: the pointer is valid for reading one event, and is not kept after the call. If the
        // number is another file's meanwhile, that one is not watched, and the call changes nothing.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_MOD, fd, &raw mut event) };
    }
}
