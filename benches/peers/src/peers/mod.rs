//! Who is measured.

mod context;
mod corosensei;
mod external;
mod fiber;
mod generator;
mod machine;
pub mod may;
pub mod monoio;
pub mod raw;
mod sleep;
pub mod stolon;
pub mod timers;
pub mod tokio;

use crate::coroutine;
use crate::figure::{Figure, Ours};
use crate::measure::Contender;

pub use external::External;

/// A contender, or why there is none.
pub type Made = Result<Contender, String>;

/// Somebody who is compared with stolon.
pub struct Peer {
    pub name: &'static str,
    /// Whether it has a scheduler: then it is compared with green threads.
    pub schedules: bool,
    pub contender: fn(Figure) -> Made,
    /// Makes so many that wait, and leaves them so.
    pub park: Park,
}

/// Those that are linked into this program.
pub const PEERS: [Peer; 11] = [
    Peer {
        name: "corosensei",
        schedules: false,
        contender: coroutine::contender::<corosensei::Corosensei>,
        park: coroutine::park::<corosensei::Corosensei>,
    },
    Peer {
        name: "generator",
        schedules: false,
        contender: coroutine::contender::<generator::Generator>,
        park: coroutine::park::<generator::Generator>,
    },
    Peer {
        name: "context",
        schedules: false,
        contender: coroutine::contender::<context::Context>,
        park: coroutine::park::<context::Context>,
    },
    Peer {
        name: "wasmtime-fiber",
        schedules: false,
        contender: coroutine::contender::<fiber::Fiber>,
        park: coroutine::park::<fiber::Fiber>,
    },
    Peer { name: "may", schedules: true, contender: may::contender, park: may::park },
    Peer { name: "tokio", schedules: true, contender: tokio::contender, park: tokio::park },
    Peer { name: "tokio Sleep", schedules: true, contender: sleep::contender, park: no_greenlets },
    Peer {
        name: "DelayQueue",
        schedules: true,
        contender: sleep::queue_contender,
        park: no_greenlets,
    },
    Peer { name: "raw epoll", schedules: true, contender: raw::contender, park: no_greenlets },
    Peer {
        name: "raw epoll, own buffers",
        schedules: true,
        contender: raw::with_own_buffers,
        park: no_greenlets,
    },
    Peer { name: "raw timerfd", schedules: true, contender: raw::timerfd, park: no_greenlets },
];

fn no_greenlets(_: usize) -> Result<(), String> {
    Err(String::from("has nothing of the kind"))
}

/// Makes so many that wait.
type Park = fn(usize) -> Result<(), String>;

/// Those whose pending timers are counted in bytes, stolon first.
pub const TIMERS: [(&str, Park); 3] =
    [("stolon", timers::park), ("tokio Sleep", sleep::park), ("DelayQueue", sleep::queue_park)];

/// The stacks of the machine layer begin at so many different cache lines of a page, as stolon's do.
const COLOURS: usize = 16;

/// stolon's own contender.
pub fn ours(figure: Figure, ours: Ours) -> Made {
    match (figure, ours) {
        (Figure::Machine, Ours::Machine) => {
            coroutine::echo::<machine::Machine>(crate::bodies::Body::Flat)
        }
        (Figure::Stagger(count), Ours::Machine) => machine::ring(figure, count, true, COLOURS),
        (Figure::Ring { count, shuffled }, Ours::Machine) => {
            machine::ring(figure, count, shuffled, COLOURS)
        }
        (_, Ours::HandOver) => stolon::hand_over(figure),
        (_, Ours::Timers) => timers::contender(figure),
        (_, Ours::Call) => stolon::calls(figure),
        (_, Ours::GreenThread) => stolon::green_threads(figure),
        _ => coroutine::contender::<stolon::Coroutine>(figure),
    }
}

/// A ring on stacks whose tops are all page-aligned: the other side of `stagger`.
pub fn aligned(count: usize) -> Made {
    machine::ring(Figure::Stagger(count), count, true, 1)
}
