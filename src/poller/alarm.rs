//! The timer that ends a poller's wait at its very moment.
//!
//! Layer 4, sources. The kernel ends system calls late by the thread's timer slack, some 50 us, to
//! have several wake-ups in one; the timer of a descriptor it does not. So a poller watches one. To
//! arm it is a system call, which is saved where it can be:
//!
//! - a timeout that is far off is waited for roughly at first, up to shortly before its end
//!   ([`stretch`]): most are cancelled long before;
//! - what is armed for an earlier moment is left so. It ends a wait that lasts longer, once, and is
//!   armed anew for the next.
//!
//! The wait has its timeout all the same: where no descriptor is to be had, or another thread that
//! waits has armed the timer for itself, it ends as late as the kernel likes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Token;
use crate::sys::{epoll, timerfd};

const MS: u64 = 1_000_000;

/// A wait that is longer is rough at first.
const NEAR_NS: u64 = 20 * MS;

/// A rough wait ends before its time by a part of it that is larger than what the kernel adds (a
/// thousandth, or two hundredth in a process that is `nice`), and at least by so much: rounding to
/// milliseconds, and the slack.
const MARGIN: u64 = 128;
const LEAST_MARGIN_NS: u64 = 2 * MS;

/// A timer of the kernel's, made when it is first armed.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    timer: OnceLock<OwnedFd>,
    /// What it was last armed for, on the monotonic clock.
    armed_ns: AtomicU64,
}

impl Alarm {
    /// The token that it is watched under.
    pub(super) const TOKEN: Token = Token::new(Token::RESERVED.slot(), 0);

    /// Sees to it that `epoll` has an event at `end_ns` or before.
    pub(super) fn set(&self, epoll: BorrowedFd<'_>, now_ns: u64, end_ns: u64) {
        let armed_ns = self.armed_ns.load(Ordering::Relaxed);
        let will_fire = now_ns < armed_ns && armed_ns <= end_ns;
        // If it cannot be armed the wait is less exact, and that is all.
        if !will_fire && self.arm(epoll, end_ns).is_ok() {
            self.armed_ns.store(end_ns, Ordering::Relaxed);
        }
    }

    fn arm(&self, epoll: BorrowedFd<'_>, end_ns: u64) -> io::Result<()> {
        let timer = match self.timer.get() {
            Some(timer) => timer,
            None => {
                let timer = timerfd::create()?;
                let data = Self::TOKEN.to_data();
                // Each time that it fires is a change, so nobody has to read it.
                epoll::add(epoll, timer.as_fd(), epoll::IN | epoll::EDGE, data)?;
                // If another thread was faster, its timer stays, and this one is closed.
                self.timer.get_or_init(|| timer)
            }
        };
        timerfd::arm(timer.as_fd(), end_ns)
    }
}

/// How much of what is left is waited for at once; all of it if it is near.
pub(super) fn stretch(left_ns: u64) -> u64 {
    if left_ns <= NEAR_NS { left_ns } else { left_ns - (left_ns / MARGIN).max(LEAST_MARGIN_NS) }
}

#[cfg(test)]
mod tests {
    use super::{LEAST_MARGIN_NS, MS, NEAR_NS, stretch};

    #[test]
    fn a_near_end_is_waited_for_at_once_and_a_far_one_in_few_stretches() {
        assert_eq!(stretch(1), 1);
        assert_eq!(stretch(NEAR_NS), NEAR_NS);
        assert_eq!(stretch(NEAR_NS + 1), NEAR_NS + 1 - LEAST_MARGIN_NS);
        let (mut left, mut stretches) = (30_000 * MS, 0);
        while left > 0 {
            left -= stretch(left);
            stretches += 1;
        }
        assert_eq!(stretches, 3);
    }

    #[test]
    fn a_rough_wait_that_the_kernel_prolongs_ends_before_its_time() {
        for left in [NEAR_NS + 1, 100 * MS, 1_000 * MS, 3_600_000 * MS, u64::MAX] {
            let rough = stretch(left);
            // 0.5 %, but 100 ms at the most; and one to round up.
            assert!(rough + (rough / 200).min(100 * MS) + MS < left, "{left}");
        }
    }
}
