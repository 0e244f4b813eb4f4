//! What the contenders of `timer.*` and `sleep.*` have in common.

use std::time::{Duration, Instant};

/// How many are set, and not cancelled yet, beside those that stay; and how many sleep in turn.
pub const IN_FLIGHT: usize = 1_000;

/// What is set and cancelled is due after all that stay; or, if early, before.
pub fn timeout(early: bool) -> Duration {
    Duration::from_secs(if early { 10 } else { 172_800 })
}

/// A little later.
pub const STEP: Duration = Duration::from_micros(1);

/// A short sleep.
pub const NAP: Duration = Duration::from_millis(1);

/// When those that stay are due: between one and two days from now, in no order, the same each time
/// (xorshift).
pub fn far() -> impl Iterator<Item = Duration> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Duration::from_millis(86_400_000 + state % 86_400_000)
    })
}

/// The processor time that this thread has used.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for writing one `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// By how much a nap was too long.
pub fn overshoot(nap: impl FnOnce()) -> Duration {
    let start = Instant::now();
    nap();
    start.elapsed().saturating_sub(NAP)
}

/// As if each had been as long as the one in the middle.
pub fn all_as_median(mut overshoots: Vec<Duration>) -> Duration {
    overshoots.sort_unstable();
    overshoots[overshoots.len() / 2] * overshoots.len() as u32
}
