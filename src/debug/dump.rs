//! The dump of everything that a thread's green threads do.

use std::backtrace::Backtrace;
use std::fmt::{self, Write};
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::thread;
use std::time::Duration;

use crate::greenlet::Greenlet;
use crate::hub::{self, PendingTimer, Snapshot, State, Stats, Waiting, WaitsFor, What};
use crate::sys::net;

/// All greenlets of a thread at one moment: what each is doing, and where. Made by [`dump()`]; its
/// [`Display`](fmt::Display) is the report.
#[derive(Debug)]
pub struct Dump {
    thread: Option<String>,
    stats: Stats,
    greenlets: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    state: State,
    /// What is at the other end of the descriptor that it waits for.
    descriptor: Option<String>,
    backtrace: Option<Backtrace>,
}

/// Looks at all greenlets of this thread: each one's name and number, where it was spawned, what it
/// waits for (the descriptor and its peer, the time that is left), and a backtrace of where it does.
///
/// How long it has waited is told, too, to within a pass of the hub's loop, of waits that began while
/// [`dump_on_sigquit`](super::dump_on_sigquit) or
/// [`hub_blocking_detection`](super::hub_blocking_detection) was on: else nobody has looked at the
/// clock.
///
/// The look itself is quick. To print it names all functions, which may take seconds, and needs more
/// stack than a small greenlet has.
///
/// ```
/// let sleeper = stolon::greenthread::Builder::new();
/// let sleeper = sleeper.name("sleeper").spawn(|| stolon::sleep(std::time::Duration::MAX))?;
/// stolon::sleep(std::time::Duration::ZERO);
/// let text = stolon::debug::dump()?.to_string();
/// assert!(text.contains("greenlet 'sleeper' (#2)") && text.contains("waits for a sleep to end"));
/// # sleeper.kill();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// When the thread's hub cannot be made, and when the thread is exiting.
pub fn dump() -> io::Result<Dump> {
    let Snapshot { greenlets, .. } = hub::try_current()?.snapshot();
    let entry = |(greenlet, state): &(Greenlet, State)| Entry {
        name: name_of(greenlet),
        state: *state,
        descriptor: match state {
            State::Parked(waiting) => descriptor_of(waiting.waits_for).map(describe),
            _ => None,
        },
        backtrace: greenlet.backtrace(),
    };
    Ok(Dump {
        thread: thread::current().name().map(str::to_owned),
        stats: hub::stats(),
        greenlets: greenlets.iter().map(entry).collect(),
    })
}

/// The greenlets of this thread that wait for descriptors, mirroring eventlet's function: those that
/// read under `READERS:`, those that write under `WRITERS:`, and those that wait for either under both.
///
/// # Errors
///
/// As [`dump()`].
pub fn format_hub_listeners() -> io::Result<String> {
    let Snapshot { greenlets, .. } = hub::try_current()?.snapshot();
    let (mut readers, mut writers) = (String::from("READERS:\n"), String::from("WRITERS:\n"));
    for (greenlet, state) in &greenlets {
        let State::Parked(waiting) = state else { continue };
        let Some(fd) = descriptor_of(waiting.waits_for) else { continue };
        let line = format!("  descriptor {fd} ({}): {}\n", describe(fd), name_of(greenlet));
        if !matches!(waiting.waits_for, WaitsFor::Writable(_)) {
            readers += &line;
        }
        if !matches!(waiting.waits_for, WaitsFor::Readable(_)) {
            writers += &line;
        }
    }
    Ok(readers + &writers)
}

/// The timers of this thread that are set, the next first, and whom each wakes, under `TIMERS:`.
/// Mirrors eventlet's function.
///
/// # Errors
///
/// As [`dump()`].
pub fn format_hub_timers() -> io::Result<String> {
    let Snapshot { greenlets, timers } = hub::try_current()?.snapshot();
    let mut text = String::from("TIMERS:\n");
    for PendingTimer { left, what } in &timers {
        let what = match what {
            What::Wake(None) => "nobody any more".to_owned(),
            What::Wake(Some(whom)) => {
                match greenlets.iter().find(|(greenlet, _)| greenlet == whom) {
                    Some((_, State::Parked(Waiting { waits_for, .. }))) => {
                        format!("{}, {waits_for}", name_of(whom))
                    }
                    _ => name_of(whom),
                }
            }
            What::Call(Some(place)) => format!("a call, scheduled at {place}"),
            What::Call(None) => "a call".to_owned(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "  in {}: {what}", Time(*left));
    }
    Ok(text)
}

/// What to call a greenlet, and where it was made.
fn name_of(greenlet: &Greenlet) -> String {
    let mut text = match (greenlet.name(), greenlet.id()) {
        (Some(name), id) => format!("greenlet '{name}' (#{id})"),
        (None, 0) => "the main greenlet".to_owned(),
        (None, id) => format!("greenlet #{id}"),
    };
    if let Some(place) = greenlet.made_at() {
        // Writing to a string does not fail.
        let _ = write!(text, ", made at {place}");
    }
    text
}

fn descriptor_of(waits_for: WaitsFor) -> Option<RawFd> {
    match waits_for {
        WaitsFor::Readable(fd) | WaitsFor::Writable(fd) | WaitsFor::Either(fd) => Some(fd),
        _ => None,
    }
}

/// What is behind a descriptor.
fn describe(fd: RawFd) -> String {
    match net::addresses(fd) {
        [Some(own), Some(peer)] => format!("{own} to {peer}"),
        [Some(own), None] => format!("{own}"),
        [None, _] => match fs::read_link(format!("/proc/self/fd/{fd}")) {
            Ok(file) => file.display().to_string(),
            Err(_) => "closed".to_owned(),
        },
    }
}

/// A duration in a unit that fits it.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{:.1} ms", self.0.as_secs_f64() * 1e3)
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { ready, parked, timers, .. } = self.stats;
        let thread = self.thread.as_deref().unwrap_or("<unnamed>");
        let lag = [self.stats.lag_last, self.stats.lag_max].map(Time);
        writeln!(
            f,
            "thread '{thread}': {} greenlets, {ready} ready, {parked} parked,",
            self.greenlets.len()
        )?;
        writeln!(f, "{timers} timers, lag {} now and {} at most", lag[0], lag[1])?;
        self.greenlets.iter().try_for_each(|entry| write!(f, "\n{entry}"))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match self.state {
            State::Current => writeln!(f, "runs")?,
            State::Ready => writeln!(f, "can run, and waits for its turn")?,
            State::Unstarted => writeln!(f, "has not started")?,
            State::Switched => writeln!(f, "waits to be switched to")?,
            State::Parked(Waiting { waits_for, left, lasted }) => {
                write!(f, "waits for {waits_for}")?;
                if let Some(descriptor) = &self.descriptor {
                    write!(f, " ({descriptor})")?;
                }
                if let Some(left) = left {
                    write!(f, ", {} left", Time(left))?;
                }
                if let Some(lasted) = lasted {
                    write!(f, ", for {} so far", Time(lasted))?;
                }
                writeln!(f)?;
            }
        }
        match &self.backtrace {
            Some(backtrace) => writeln!(f, "{}", beyond_visit(&backtrace.to_string())),
            None => Ok(()),
        }
    }
}

/// A backtrace's text without the frames of who took it on the greenlet's stack.
fn beyond_visit(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let is_place = |line: &str| line.trim_start().starts_with("at ");
    let last = lines.iter().rposition(|line| !is_place(line) && line.contains("::introspect::"));
    let from = last.map_or(0, |last| last + 1);
    let skipped = lines[from..].iter().take_while(|line| is_place(line)).count();
    lines[from + skipped..].join("\n")
}
