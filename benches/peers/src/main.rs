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
//! | `pool.N` | spawn N with an empty body into a pool of 1000, or tokio's `JoinSet`, and wait for all: for one of them |
//! | `yield.N` | one turn through the scheduler, N runnable |
//! | `queue.handover` | one item from a green thread to another by a queue of size 1; by tokio's channel of 1, and one of Go's |
//! | `queue.rendezvous` | the same by a queue of size 0, where the putter goes on when its item was taken; by an unbuffered channel of Go's, and by two of tokio's channels of 1, the second of which tells the sender that its item was received |
//! | `semaphore.uncontended` | a permit acquired and released by a guard, with nobody else there |
//! | `timer.insert_cancel.N` | set a timeout and cancel the one that was set 1,000 before, beside N that are pending and due earlier: requests that are answered in time, beside idle connections with the same limit |
//! | `timer.insert_cancel_early.N` | the same, due before the N: a short limit beside long ones |
//! | `timer.insert_fire.N` | a timer that is set and fires in 1 ms, of 1,000 that do, beside N that are due much later |
//! | `timer.bytes.N` | bytes of each of N pending timers, beside what waits for them |
//! | `sleep.overshoot_1ms` | by how much a sleep of 1 ms is too long, with nothing else to do; the median |
//! | `park_wake.socketpair` | a message of 64 bytes to one of 512 descriptors that are waited for, its sending included |
//! | `echo.N` | the server's processor time for a request of 64 bytes over loopback TCP, by N connections, in us |
//! | `echo_p99.N` | of the same run: the time that 99 of 100 answers took at most, in us |
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
//! *Timers* are those of `stolon::timers`, which the hub has one set of, and a *call* is one of
//! `stolon::hub::schedule_call_global`: what a timeout is made of, the reading of the clock included. In
//! `timer.insert_cancel` the timers and both peers are told moments, and no clock is read. tokio's
//! `Sleep` is made in a place that is there, polled once, and dropped; it is a millisecond exact, stolon
//! a nanosecond. In `timer.insert_fire` the timers have a clock that is set by hand, and the others'
//! figure is processor time, the waiting not counted: green threads and tokio's tasks that sleep for
//! 1 ms again and again, turns included, and a `DelayQueue` whose items are put in again. There are as
//! many green threads that sleep for long as timers stay pending, if there is the memory.
//!
//! `sleep.overshoot_1ms` has beside it a bare `epoll_pwait2` with the thread's timer slack as it is, and a
//! bare timer's descriptor in an epoll instance: what the kernel and the machine need to wake somebody up.
//!
//! In `echo` every server is a process bound to the first core, all of them are there at the same time,
//! and they take turns of 0.4 s under load from this process, which is bound to the last core. Each
//! connection has one request under way. *raw epoll* is a loop by hand: edge-triggered, each descriptor
//! added once, a short read means drained. So are the loops of `park_wake.socketpair`, where stolon has
//! a green thread for each descriptor, and the last of them to have its message wakes the sender by one
//! more; the loop with own buffers shows what it costs there that each descriptor has some memory of its
//! own, as whoever serves connections has. To count stolon's system calls:
//!
//! ```text
//! strace -c -f target/release/peers --serve stolon 0
//! ```
//!
//! prints the port, and counts what it is sent.
//!
//! Each figure has a process of its own. A round runs each contender once, for some 30 ms; the figure is the median over all rounds, the
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
mod pool;
mod report;
mod run;
mod slab;
mod timer;
mod vocabulary;
mod wake;

use std::io::{self, BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use figure::Figure;
use report::{Form, Report};

/// What runs when no figure is named.
const ALL: [&str; 32] = [
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
    "pool.10000",
    "yield.2",
    "yield.1000",
    "queue.handover",
    "queue.rendezvous",
    "semaphore.uncontended",
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
    if let [flag, name] = &names[..]
        && let Some(form) = form_of(flag)
    {
        return match Figure::parse(name) {
            Some(figure) => run::alone(figure, &mut Report::new(form)),
            None => fail(&format!("no figure {name}")),
        };
    }
    let is_json = |name: &String| name == "--json";
    let form = if names.iter().any(is_json) { Form::Json } else { Form::Table };
    names.retain(|name| !is_json(name));
    if names.is_empty() {
        names = ALL.map(String::from).to_vec();
    }
    if !names.iter().all(|name| Figure::parse(name).is_some()) {
        return fail(&format!("[--json] [FIGURE...], of these, or with other numbers: {ALL:?}"));
    }
    let mut report = Report::new(form);
    for name in &names {
        if let Err(e) = in_a_process_of_its_own(name, &mut report) {
            return fail(&format!("{name}: {e}"));
        }
    }
    report.finish();
    ExitCode::SUCCESS
}

/// What the flag of a process that runs one figure stands for.
fn form_of(flag: &str) -> Option<Form> {
    match flag {
        "--part" => Some(Form::Part),
        "--part-json" => Some(Form::Json),
        _ => None,
    }
}

/// Runs a figure where no other has been: what one leaves behind, as memory that is no longer in
/// order, would slow down the next.
fn in_a_process_of_its_own(name: &str, report: &mut Report) -> io::Result<()> {
    let flag = if report.is_json() { "--part-json" } else { "--part" };
    let mut command = Command::new(std::env::current_exe()?);
    let mut process = command.args([flag, name]).stdout(Stdio::piped()).spawn()?;
    let printed = process.stdout.take().expect("it is piped");
    for line in BufReader::new(printed).lines() {
        report.include(&line?);
    }
    let status = process.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("peers: {text}");
    ExitCode::FAILURE
}
