//! Many that yield in turn through a scheduler, until they are told to stop.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::bodies::Frame;

/// What the members of a crowd and its leader share. The leader is one of those that take turns: it
/// counts the rounds.
pub struct Crowd {
    /// With the leader.
    count: u64,
    stop: AtomicBool,
    turns: AtomicU64,
}

impl Crowd {
    pub fn new(count: usize) -> Arc<Self> {
        let count = count as u64;
        Arc::new(Self { count, stop: AtomicBool::new(false), turns: AtomicU64::new(0) })
    }

    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// A member's turn: whether it has more of them.
    #[inline(always)]
    pub fn goes_on<const FRAME: bool>(&self, frame: &mut Frame) -> bool {
        if FRAME {
            black_box(frame.touch(1));
        }
        // They all run on one thread.
        self.turns.store(self.turns.load(Relaxed) + 1, Relaxed);
        !self.stop.load(Relaxed)
    }

    /// Begins to count and to measure; all members have had a turn.
    pub fn begin(&self) -> Lap {
        Lap { start: Instant::now(), turns: self.turns.load(Relaxed) }
    }

    /// How long so many rounds took; or that they were none, as not all had a turn in each.
    pub fn end(&self, lap: &Lap, rounds: u64) -> Result<Duration, String> {
        let took = lap.start.elapsed();
        let turns = self.turns.load(Relaxed) - lap.turns;
        let due = (self.count - 1) * rounds;
        if turns < due / 10 * 9 {
            return Err(format!("{turns} turns where {due} were due: not all run in turn"));
        }
        Ok(took)
    }
}

/// Where a measurement began.
pub struct Lap {
    start: Instant,
    turns: u64,
}
