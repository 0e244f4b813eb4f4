//! No library at all: epoll by hand, edge-triggered. Each descriptor is added once, in both directions,
//! and a read that is short means drained, so a message costs one read and one write.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{COLOURS, Made};
use crate::figure::{Figure, Ours};
use crate::measure::{Contender, time};
use crate::slab::CACHE_LINE_BYTES;
use crate::timer::{NAP, all_as_median, overshoot};
use crate::wake::{MESSAGE, PAIRS, pair};

const PAGE_BYTES: usize = 4096;

/// An epoll instance, and room for what a wait brings.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } as isize)?;
        // SAFETY: the descriptor is new, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; 1024] })
    }

    /// Watches `fd`, whose events carry `data`.
    pub fn add(&self, fd: RawFd, data: u64) -> io::Result<()> {
        let flags = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: flags as u32, u64: data };
        // SAFETY: the pointer is valid for reading one event.
        let added =
            unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
        checked(added as isize).map(drop)
    }

    /// Waits for a nap, with a timeout in nanoseconds.
    fn nap(&self) {
        let timeout = libc::timespec { tv_sec: 0, tv_nsec: NAP.subsec_nanos().into() };
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let none = std::ptr::null::<libc::sigset_t>();
        let fd = self.fd.as_raw_fd();
        // SAFETY: the pointers are valid for writing one event and reading one `timespec`; a null
        // signal mask is allowed.
        unsafe { libc::syscall(libc::SYS_epoll_pwait2, fd, &raw mut event, 1, &timeout, none, 0) };
    }

    /// Waits at most so many milliseconds, and returns the data and flags of what has happened.
    pub fn wait(&mut self, ms: i32) -> io::Result<impl Iterator<Item = (u64, u32)> + '_> {
        let room = self.events.len() as i32;
        // SAFETY: the pointer is valid for writing as many events as the number after it says.
        let count =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, ms) };
        let count = match checked(count as isize) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            count => count? as usize,
        };
        Ok(self.events[..count].iter().map(|event| (event.u64, event.events)))
    }
}

fn checked(returned: isize) -> io::Result<isize> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// As `recv`: what came, or an error.
pub fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer is valid for writing as many bytes as the number after it says.
    checked(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) })
        .map(|bytes| bytes as usize)
}

/// As `send`: how much went.
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer is valid for reading as many bytes as the number after it says.
    checked(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) })
        .map(|bytes| bytes as usize)
}

pub fn contender(figure: Figure) -> Made {
    match figure {
        Figure::Overshoot => overshoots().map_err(|e| e.to_string()),
        Figure::ParkWake => park_wake(false).map_err(|e| e.to_string()),
        _ => Err(String::from("nothing but descriptors")),
    }
}

/// The same, with a buffer for each descriptor, on a page of its own: what it costs to keep anything for
/// each at all.
pub fn with_own_buffers(figure: Figure) -> Made {
    match figure {
        Figure::ParkWake => park_wake(true).map_err(|e| e.to_string()),
        _ => Err(String::from("makes no difference")),
    }
}

/// A timer of the kernel's instead of a timeout: what waking up costs at least.
pub fn timerfd(figure: Figure) -> Made {
    match figure {
        Figure::Overshoot => alarms().map_err(|e| e.to_string()),
        _ => Err(String::from("timers only")),
    }
}

/// Waits for an epoll instance in which nothing happens.
fn overshoots() -> io::Result<Contender> {
    let epoll = Epoll::new()?;
    let batch = move |iterations| {
        Ok(all_as_median((0..iterations).map(|_| overshoot(|| epoll.nap())).collect()))
    };
    Ok(Contender::new(Figure::Overshoot.per_iteration(Ours::GreenThread), Box::new(batch)))
}

/// Waits for a timer's descriptor, which is watched as in a hub.
fn alarms() -> io::Result<Contender> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK) };
    // SAFETY: the descriptor is new, and nobody else's.
    let timer = unsafe { OwnedFd::from_raw_fd(checked(fd as isize)? as RawFd) };
    let mut epoll = Epoll::new()?;
    epoll.add(timer.as_raw_fd(), 0)?;
    let mut nap = move || {
        // SAFETY: all zeroes are a valid `itimerspec`: one that never goes off.
        let mut once: libc::itimerspec = unsafe { std::mem::zeroed() };
        once.it_value.tv_nsec = NAP.subsec_nanos().into();
        // SAFETY: the first pointer is valid for reading, and the other may be null.
        unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &once, std::ptr::null_mut()) };
        while epoll.wait(-1).is_ok_and(|events| events.count() == 0) {}
    };
    let batch =
        move |iterations| Ok(all_as_median((0..iterations).map(|_| overshoot(&mut nap)).collect()));
    Ok(Contender::new(Figure::Overshoot.per_iteration(Ours::GreenThread), Box::new(batch)))
}

/// A message to each of the pairs, and a wait until all have come.
fn park_wake(own_buffers: bool) -> io::Result<Contender> {
    let mut buffers = vec![0; if own_buffers { PAIRS * PAGE_BYTES } else { PAGE_BYTES }];
    let pairs = (0..PAIRS).map(|_| pair()).collect::<io::Result<Vec<_>>>()?;
    let mut epoll = Epoll::new()?;
    for (index, (_, far)) in pairs.iter().enumerate() {
        epoll.add(far.as_raw_fd(), index as u64)?;
    }
    // That there is room to write.
    assert_eq!(epoll.wait(0)?.count(), PAIRS);
    let mut round = move || {
        for (near, _) in &pairs {
            send(near.as_raw_fd(), &MESSAGE)?;
        }
        let mut left = PAIRS;
        while left > 0 {
            for (index, flags) in epoll.wait(-1)? {
                if flags & libc::EPOLLIN as u32 != 0 {
                    let index = index as usize;
                    // Like stacks, at different cache lines of their pages.
                    let own = index * PAGE_BYTES + index % COLOURS * CACHE_LINE_BYTES;
                    let start = if own_buffers { own } else { 0 };
                    let buffer = &mut buffers[start..][..1024];
                    let bytes = receive(pairs[index].1.as_raw_fd(), buffer)?;
                    assert_eq!(bytes, MESSAGE.len());
                    left -= 1;
                }
            }
        }
        io::Result::Ok(())
    };
    let batch = move |rounds: u64| -> Result<Duration, String> {
        let mut done = Ok(());
        let took = time(|| done = (0..rounds).try_for_each(|_| round()));
        done.map(|()| took).map_err(|e| e.to_string())
    };
    Ok(Contender::new(Figure::ParkWake.per_iteration(Ours::GreenThread), Box::new(batch)))
}

/// The listener's events carry this.
const LISTENER: u64 = u64::MAX;

/// Echoes for ever.
pub fn serve(listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let (mut epoll, mut buffer) = (Epoll::new()?, [0; 1024]);
    epoll.add(listener.as_raw_fd(), LISTENER)?;
    let mut accepted = Vec::new();
    loop {
        for (data, flags) in epoll.wait(-1)? {
            if data == LISTENER {
                while let Ok((connection, _)) = listener.accept() {
                    connection.set_nonblocking(true)?;
                    connection.set_nodelay(true)?;
                    accepted.push(connection.into_raw_fd());
                }
            } else if flags & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP) as u32 != 0 {
                echo(data as RawFd, &mut buffer);
            }
        }
        for fd in accepted.drain(..) {
            epoll.add(fd, fd as u64)?;
        }
    }
}

/// Answers until nothing is left. The load sends one message at a time, so there is room to write.
fn echo(fd: RawFd, buffer: &mut [u8]) {
    loop {
        match receive(fd, buffer) {
            Ok(bytes @ 1..) => {
                let sent = send(fd, &buffer[..bytes]);
                assert!(sent.is_ok_and(|sent| sent == bytes), "there is room to write");
                if bytes < buffer.len() {
                    return;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            // The end, or an error.
            _ => {
                // SAFETY: the descriptor was taken from its owner when it was accepted, and is not
                // used again.
                drop(unsafe { TcpStream::from_raw_fd(fd) });
                return;
            }
        }
    }
}
