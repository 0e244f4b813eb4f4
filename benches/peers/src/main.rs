//! Runs stolon and its peers side by side, in one process and in turns, and prints what each took,
//! as a table of ratios in Markdown.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- [--json] [FIGURE...]
//! ```
//!
//! Without figures it runs all of the list below, with some only those. With `--json` it prints one
//! line per row, an object with `name`, `ours`, `peer`, `theirs`, `ratio` and `unit`; what was
//! skipped, and why, then goes to stderr. A peer that cannot do a figure gives such a line and is
//! no failure.
//!
//! | figure | measures, in ns unless said otherwise |
//! |---|---|
//! | `switch.machine` | one way between two contexts, by the fragment in `asm/` alone |
//! | `switch.flat` | one way, with a word, between a driver and a body that is one loop |
//! | `switch.depth2`, `switch.depth8` | the same, suspended 2 and 8 frames below the body, each a function of its own that is not inlined |
//! | `ring.N` | one way, N of them resumed one after the other |
//! | `ring_shuffled.N` | the same in an order that has nothing to do with where they lie |
//! | `stagger.N` | `ring_shuffled.N` by the fragment alone: tops staggered by cache lines (ours) and page-aligned (theirs) |
//! | `spawn_join.one` | make one with an empty body, run it, end it |
//! | `spawn_join.batchN` | the same, N at a time |
//! | `yield.N` | one turn through the scheduler, N runnable |
//! | `parked_bytes.N` | bytes of each of N that wait: RSS and page tables; and mappings added |
//!
//! # What is compared with what
//!
//! *Coroutines* (corosensei, generator, context, wasmtime's fiber, C's ucontext, Python's greenlet)
//! are resumed by a driver and suspend to it. So is stolon when it is compared with them: a ring is
//! N greenlets that the driver's loop resumes in turn, two switches for each. A ring's row
//! "hand-over" has stolon's greenlets switch to each other without a driver, which coroutines
//! cannot: N cold stacks in N switches there, N cold and N hot ones in 2N with a driver.
//! *Schedulers* (tokio, may, Go) are compared with stolon's green threads, which yield by
//! `stolon::sleep(Duration::ZERO)`; a switch is one turn there.
//!
//! In the rings each body reads and writes a frame of its own on every resume. All stacks are of
//! 64 KiB (may: its default). In rings of more than 1,000, peers that can run on stacks of somebody
//! else's get them, cut from one mapping, unguarded, page-aligned and as far apart as their own
//! are: their own end at `vm.max_map_count`, at some 32,000. In `spawn_join` corosensei, context
//! and the fiber reuse their stacks, which is for their caller to arrange; generator cannot. In
//! `parked_bytes` all have stacks of their own, and tokio's tasks wait without a timer.
//!
//! The members of a crowd that yields count their turns, so a scheduler that does not run all of
//! them in turn is found out, and not measured.
//!
//! A round runs each contender once, for some 30 ms; the figure is the median over all rounds, the
//! ratio that of medians, and *noise* the middle half of the rounds as a part of the median. The
//! process is pinned to one core, except for may's worker, and memory is measured in processes of
//! its own.

mod bodies;
mod coroutine;
mod crowd;
mod echo;
mod figure;
mod measure;
mod parked;
mod peers;
mod report;
mod run;
mod slab;
mod timer;
mod wake;

use std::process::ExitCode;

use figure::Figure;
use report::Report;

/// What runs when no figure is named.
const ALL: [&str; 28] = [
    "switch.machine",
    "switch.flat",
    "switch.depth2",
    "switch.depth8",
    "ring.1000",
    "ring.10000",
    "ring.100000",
    "ring_shuffled.1000",
    "ring_shuffled.10000",
    "ring_shuffled.100000",
    "stagger.1000",
    "stagger.10000",
    "stagger.100000",
    "spawn_join.one",
    "spawn_join.batch1000",
    "yield.2",
    "yield.1000",
    "timer.insert_cancel.1000000",
    "timer.insert_cancel_early.1000000",
    "timer.insert_fire.1000000",
    "timer.bytes.1000000",
    "sleep.overshoot_1ms",
    "park_wake.socketpair",
    "echo.50",
    "echo.1000",
    "parked_bytes.10000",
    "parked_bytes.100000",
    "parked_bytes.1000000",
];

fn main() -> ExitCode {
    if cfg!(debug_assertions) {
        return fail("measures nothing without --release");
    }
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.first().is_some_and(|name| name == "--child") {
        return match &names[1..] {
            [figure, peer] => parked::child(figure, peer),
            _ => fail("--child FIGURE PEER"),
        };
    }
    if names.first().is_some_and(|name| name == "--serve") {
        return match &names[1..] {
            [server, core] => echo::child(server, core),
            _ => fail("--serve NAME CORE"),
        };
    }
    let json = names.iter().any(|name| name == "--json");
    names.retain(|name| name != "--json");
    if names.is_empty() {
        names = ALL.map(String::from).to_vec();
    }
    let Some(figures) = names.iter().map(|name| Figure::parse(name)).collect::<Option<Vec<_>>>()
    else {
        return fail(&format!("[--json] [FIGURE...], of these, or with other numbers: {ALL:?}"));
    };
    let mut report = Report::new(json);
    run::all(&figures, &mut report);
    report.finish();
    ExitCode::SUCCESS
}

fn fail(text: &str) -> ExitCode {
    eprintln!("peers: {text}");
    ExitCode::FAILURE
}
