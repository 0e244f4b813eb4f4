//! The figures by name, and the targets that they are judged by.

use std::fmt;

use crate::wake::PAIRS;

/// One thing that is measured of stolon and of its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    Machine,
    /// Suspended so many frames below the body: 0, 2 or 8.
    Switch(usize),
    Ring {
        count: usize,
        shuffled: bool,
    },
    Stagger(usize),
    SpawnJoin(usize),
    Yield(usize),
    Pool(usize),
    Parked(usize),
    /// With so many connections.
    Echo(usize),
    ParkWake,
    /// Beside so many that are pending.
    TimerCancel {
        count: usize,
        early: bool,
    },
    TimerFire(usize),
    TimerBytes(usize),
    Overshoot,
    /// From one green thread to another by a queue that holds one item.
    HandOver,
    /// The same by a queue that holds none.
    Rendezvous,
    /// Uncontended.
    Semaphore,
}

/// What of stolon a peer is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    /// The switch in `asm/`, without a library around it.
    Machine,
    /// Greenlets, resumed by a driver.
    Greenlet,
    /// Greenlets that switch to each other.
    HandOver,
    /// Green threads.
    GreenThread,
    /// What the hub keeps its timers in, by itself.
    Timers,
    /// Calls that are scheduled on the hub.
    Call,
}

impl fmt::Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "machine layer",
            Self::Greenlet => "greenlet",
            Self::HandOver => "greenlet, hand-over",
            Self::GreenThread => "green thread",
            Self::Timers => "timers",
            Self::Call => "call",
        })
    }
}

impl Figure {
    pub fn parse(name: &str) -> Option<Self> {
        let (kind, detail) = name.split_once('.')?;
        let count = || detail.parse().ok().filter(|&count| count > 0);
        Some(match (kind, detail) {
            ("switch", "machine") => Self::Machine,
            ("switch", "flat") => Self::Switch(0),
            ("switch", "depth2") => Self::Switch(2),
            ("switch", "depth8") => Self::Switch(8),
            ("ring", _) => Self::Ring { count: count()?, shuffled: false },
            ("ring_shuffled", _) => Self::Ring { count: count()?, shuffled: true },
            ("stagger", _) => Self::Stagger(count()?),
            ("spawn_join", "one") => Self::SpawnJoin(1),
            ("spawn_join", _) => Self::SpawnJoin(detail.strip_prefix("batch")?.parse().ok()?),
            ("yield", _) => Self::Yield(count()?),
            ("echo", _) => Self::Echo(count()?),
            ("sleep", "overshoot_1ms") => Self::Overshoot,
            ("timer", _) => {
                let (what, count) = detail.split_once('.')?;
                let count = count.parse().ok().filter(|&count| count > 0)?;
                match what {
                    "insert_cancel" => Self::TimerCancel { count, early: false },
                    "insert_cancel_early" => Self::TimerCancel { count, early: true },
                    "insert_fire" => Self::TimerFire(count),
                    "bytes" => Self::TimerBytes(count),
                    _ => return None,
                }
            }
            ("queue", "handover") => Self::HandOver,
            ("queue", "rendezvous") => Self::Rendezvous,
            ("semaphore", "uncontended") => Self::Semaphore,
            ("park_wake", "socketpair") => Self::ParkWake,
            ("pool", _) => Self::Pool(count()?),
            ("parked_bytes", _) => Self::Parked(count()?),
            _ => return None,
        })
    }

    /// How often what is measured happens in one iteration of a coroutine's or scheduler's
    /// contender.
    pub fn per_iteration(self, ours: Ours) -> usize {
        match (self, ours) {
            (Self::Machine | Self::Switch(_), _) => 2,
            (Self::Ring { count, .. }, Ours::GreenThread | Ours::HandOver) => count,
            (Self::Ring { count, .. } | Self::Stagger(count), _) => 2 * count,
            (Self::ParkWake, _) => PAIRS,
            (Self::Echo(_) | Self::Overshoot | Self::Semaphore, _) => 1,
            (Self::HandOver | Self::Rendezvous, _) => 1,
            (Self::TimerCancel { .. } | Self::TimerFire(_) | Self::TimerBytes(_), _) => 1,
            (
                Self::SpawnJoin(count)
                | Self::Yield(count)
                | Self::Pool(count)
                | Self::Parked(count),
                _,
            ) => count,
        }
    }

    /// The most that the ratio to a peer may be.
    pub fn target(self, ours: Ours, peer: &str) -> Option<f64> {
        Some(match (self, ours, peer) {
            (Self::Machine, Ours::Machine, "corosensei") => 1.0,
            (Self::Switch(0), _, "corosensei") => 1.5,
            (Self::Switch(2), _, "corosensei") => 0.4,
            (Self::Switch(8), _, "corosensei") => 0.5,
            (Self::Ring { count: 1_000, shuffled: false }, Ours::Greenlet, "corosensei") => 0.5,
            (Self::Ring { count: 100_000, .. }, Ours::Greenlet, "corosensei") => 0.5,
            (Self::SpawnJoin(1), Ours::GreenThread, "tokio") => 0.25,
            (Self::Pool(10_000), _, "tokio") => 0.3,
            (Self::Yield(2), _, "tokio") => 0.1,
            (Self::Yield(2), _, "may") => 0.2,
            (Self::TimerCancel { count: 1_000_000, early: false }, Ours::Timers, "tokio Sleep") => {
                0.15
            }
            (Self::TimerCancel { count: 1_000_000, early: false }, Ours::Timers, "DelayQueue") => {
                0.5
            }
            (Self::TimerFire(1_000_000), _, "tokio Sleep") => 0.5,
            (Self::HandOver | Self::Rendezvous, _, "tokio" | "Go") => 0.15,
            (Self::Semaphore, _, "tokio") => 0.5,
            (Self::ParkWake, _, "raw epoll") => 1.05,
            (Self::Echo(50), _, "raw epoll") => 1.04,
            (Self::Echo(1_000), _, "raw epoll") => 1.05,
            (Self::Echo(50), _, "tokio") => 1.02,
            (Self::Echo(_), _, "tokio" | "may" | "monoio (epoll)") => 1.0,
            _ => return None,
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => write!(f, "switch.machine"),
            Self::Switch(0) => write!(f, "switch.flat"),
            Self::Switch(depth) => write!(f, "switch.depth{depth}"),
            Self::Ring { count, shuffled: false } => write!(f, "ring.{count}"),
            Self::Ring { count, shuffled: true } => write!(f, "ring_shuffled.{count}"),
            Self::Stagger(count) => write!(f, "stagger.{count}"),
            Self::SpawnJoin(1) => write!(f, "spawn_join.one"),
            Self::SpawnJoin(count) => write!(f, "spawn_join.batch{count}"),
            Self::Yield(count) => write!(f, "yield.{count}"),
            Self::Echo(count) => write!(f, "echo.{count}"),
            Self::TimerCancel { count, early } => {
                let early = if *early { "_early" } else { "" };
                write!(f, "timer.insert_cancel{early}.{count}")
            }
            Self::TimerFire(count) => write!(f, "timer.insert_fire.{count}"),
            Self::TimerBytes(count) => write!(f, "timer.bytes.{count}"),
            Self::Overshoot => write!(f, "sleep.overshoot_1ms"),
            Self::HandOver => write!(f, "queue.handover"),
            Self::Rendezvous => write!(f, "queue.rendezvous"),
            Self::Semaphore => write!(f, "semaphore.uncontended"),
            Self::ParkWake => write!(f, "park_wake.socketpair"),
            Self::Pool(count) => write!(f, "pool.{count}"),
            Self::Parked(count) => write!(f, "parked_bytes.{count}"),
        }
    }
}
