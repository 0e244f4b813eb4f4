//! How long the poller waits: to the end of its timeout, not less, and hardly more.
#![allow(unsafe_code)]

mod util;

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use stolon::poller::{Events, Poller, Token};
use util::{child, leak};

const TOKEN: Token = Token::new(1, 1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A poller, a descriptor that it watches, and the other end, which wakes it.
struct Watched {
    poller: Poller,
    far: UnixStream,
    _near: UnixStream,
}

impl Watched {
    fn new() -> Self {
        let (near, far) = UnixStream::pair().unwrap();
        let poller = Poller::new().unwrap();
        poller.add(near.as_fd(), TOKEN).unwrap();
        let watched = Self { poller, far, _near: near };
        // That there is room to write.
        assert_eq!(watched.wait(Duration::ZERO).len(), 1);
        watched
    }

    fn wait(&self, timeout: Duration) -> Events {
        let mut events = Events::with_capacity(4);
        self.poller.wait(&mut events, Some(timeout)).unwrap();
        events
    }

    /// Begins a wait that something else than its timeout ends.
    fn cut_short(&self, timeout: Duration) {
        (&self.far).write_all(b"x").unwrap();
        assert_eq!(self.wait(timeout).len(), 1);
    }

    /// What is left of the alarm that this poller watches, if it has one.
    fn alarm(&self) -> Option<Duration> {
        let info = |fd: i32| fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let own = info(self.poller.as_raw_fd());
        let field = |line: &str, name: &str| -> Option<u64> {
            u64::from_str_radix(line.split_once(name)?.1.split_whitespace().next()?, 16).ok()
        };
        let alarm = |line: &&str| field(line, "data:") == Some(u64::from(u32::MAX));
        let line = own.lines().find(alarm)?;
        let fd = line.split_once("tfd:")?.1.split_whitespace().next()?.parse().ok()?;
        let timer = info(fd);
        let value = timer.lines().find_map(|line| line.strip_prefix("it_value: ("))?;
        let (s, ns) = value.trim_end_matches(')').split_once(',')?;
        Some(Duration::new(s.trim().parse().ok()?, ns.trim().parse().ok()?))
    }
}

// Rounding and waiting in stretches make no wait shorter than was asked for.
#[test]
fn a_wait_lasts_at_least_as_long_as_its_timeout_near_or_far() {
    leak::guarded(|| {
        let watched = Watched::new();
        for timeout in [Duration::from_nanos(1), Duration::from_micros(300), ms(3), ms(25), ms(60)]
        {
            let start = Instant::now();
            assert!(watched.wait(timeout).is_empty());
            let took = start.elapsed();
            assert!(took >= timeout, "{took:?} for {timeout:?}");
        }
    });
}

// The kernel's timeouts are late by the timer slack; an alarm of one's own is not.
#[test]
fn a_near_timeout_is_watched_by_an_alarm_of_the_pollers_own() {
    leak::guarded(|| {
        let watched = Watched::new();
        assert_eq!(watched.alarm(), None, "before it was first needed");
        // It may have gone off before it is looked at, on a machine with much else to do.
        let armed = (0..1_000).find_map(|_| {
            watched.cut_short(ms(15));
            watched.alarm().filter(|left| !left.is_zero())
        });
        assert!(armed.expect("an alarm that is armed") <= ms(15));
    });
}

#[test]
fn a_far_timeout_arms_no_alarm_until_it_is_near() {
    leak::guarded(|| {
        let watched = Watched::new();
        for _ in 0..10 {
            watched.cut_short(Duration::from_secs(30));
        }
        assert_eq!(watched.alarm(), None);
        // On a machine with much else to do, what is left may be over when it is looked at.
        let armed = (0..1_000).any(|_| {
            let start = Instant::now();
            assert!(watched.wait(ms(40)).is_empty());
            assert!(start.elapsed() >= ms(40));
            watched.alarm().is_some()
        });
        assert!(armed, "an alarm for the end");
    });
}

// A timeout that is over before its time leaves an alarm that the next wait may find going off.
#[test]
fn the_alarm_of_an_earlier_wait_does_not_end_a_later_one() {
    leak::guarded(|| {
        let watched = Watched::new();
        for later in [ms(15), ms(40)] {
            watched.cut_short(ms(5));
            let start = Instant::now();
            assert!(watched.wait(later).is_empty());
            let took = start.elapsed();
            assert!(took >= later, "{took:?} for {later:?}");
        }
    });
}

#[test]
fn an_alarm_is_no_event_and_no_notification() {
    leak::guarded(|| {
        let watched = Watched::new();
        watched.cut_short(Duration::from_micros(100));
        std::thread::sleep(ms(1));
        let events = watched.wait(Duration::ZERO);
        assert!(events.is_empty() && !events.is_notified());

        watched.cut_short(Duration::from_micros(100));
        std::thread::sleep(ms(1));
        watched.poller.notify().unwrap();
        let events = watched.wait(Duration::ZERO);
        assert!(events.is_empty() && events.is_notified());
    });
}

#[test]
fn without_a_descriptor_for_the_alarm_a_wait_ends_all_the_same() {
    if child::is_child() {
        let watched = Watched::new();
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is valid for reading one limit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) }, 0);
        let start = Instant::now();
        assert!(watched.wait(ms(3)).is_empty());
        assert!(start.elapsed() >= ms(3));
        assert!(fs::read_to_string("/proc/self/fdinfo/0").is_err(), "descriptors were to be had");
        return;
    }
    leak::alone(|| {
        let output = child::run("without_a_descriptor_for_the_alarm_a_wait_ends_all_the_same");
        assert!(output.status.success(), "{}", child::text_of(&output));
    });
}

#[test]
fn the_tokens_of_the_pollers_own_descriptors_are_refused() {
    leak::guarded(|| {
        let poller = Poller::new().unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        for token in [Token::RESERVED, Token::new(u32::MAX, 0), Token::new(u32::MAX, 7)] {
            let error = poller.add(near.as_fd(), token).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        }
    });
}
