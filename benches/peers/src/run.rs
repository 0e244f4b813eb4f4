//! Runs a figure, with all who take part.

use std::process::ExitCode;

use crate::echo;
use crate::figure::{Figure, Ours};
use crate::measure::{self, Contender, Measured, ROUNDS};
use crate::parked::{self, Cost};
use crate::peers::{self, External, Made, PEERS};
use crate::report::{Report, Row};

/// What one of those that wait may cost, in bytes, and all of them in mappings.
const PARKED_BYTES: f64 = 4.7 * 1024.0;
const PARKED_MAPPINGS: f64 = 99.0;

/// What a pending timer may take, in bytes.
const TIMER_BYTES: f64 = 64.0;

/// By how much a sleep of 1 ms may be too long, in nanoseconds.
const OVERSHOOT_NS: f64 = 45_000.0;

/// The load takes part in what is measured here, and much else may: more rounds than elsewhere.
const ECHO_ROUNDS: usize = 3 * ROUNDS;

/// Runs a figure, in a process that has run no other.
pub fn alone(figure: Figure, report: &mut Report) -> ExitCode {
    let mut externals = Vec::new();
    for external in External::all() {
        match external {
            Ok(external) => externals.push(external),
            Err((name, reason)) => report.skipped("all", name, &reason),
        }
    }
    if !matches!(figure, Figure::Parked(_) | Figure::TimerBytes(_)) {
        peers::may::start();
        measure::pin();
    }
    eprintln!("{figure} ...");
    match figure {
        Figure::Parked(count) => memory(count, &externals, report),
        Figure::TimerBytes(count) => timer_memory(count, report),
        Figure::Echo(count) => echoes(count, report),
        _ => duration(figure, &externals, report),
    }
    ExitCode::SUCCESS
}

/// Somebody who takes part in a figure: a peer, or stolon in one of its forms.
struct Entry {
    ours: Ours,
    /// None: stolon.
    peer: Option<&'static str>,
    contender: Contender,
}

fn duration(figure: Figure, externals: &[External], report: &mut Report) {
    let mut entries = Vec::new();
    for (ours, peer, made) in entrants(figure, externals) {
        let made = made.and_then(|mut contender| {
            contender.calibrate()?;
            Ok(contender)
        });
        match made {
            Ok(contender) => entries.push(Entry { ours, peer, contender }),
            Err(reason) => skip(figure, peer, &reason, report),
        }
    }
    for _ in 0..ROUNDS {
        entries.retain_mut(|entry| {
            let done = entry.contender.round();
            if let Err(reason) = &done {
                skip(figure, entry.peer, reason, report);
            }
            done.is_ok()
        });
    }
    rows(figure, &entries, report);
    if let (Figure::Overshoot, Some(first)) = (figure, entries.first()) {
        let ours = first.contender.measured();
        let target = Measured { median: OVERSHOOT_NS, noise: 0.0 };
        let mut row = Row::of_time(figure, Ours::GreenThread, ours, "(target)", target);
        row.target = Some(1.0);
        report.row(&row);
    }
}

fn skip(figure: Figure, peer: Option<&str>, reason: &str, report: &mut Report) {
    report.skipped(&figure.to_string(), peer.unwrap_or("stolon"), reason);
}

/// All who could take part in a figure: stolon in the forms that it has there, then the peers.
fn entrants(figure: Figure, externals: &[External]) -> Vec<(Ours, Option<&'static str>, Made)> {
    let forms: &[Ours] = match figure {
        Figure::Machine | Figure::Stagger(_) => &[Ours::Machine],
        Figure::Switch(_) => &[Ours::Greenlet],
        Figure::Ring { shuffled: true, .. } => &[Ours::Greenlet, Ours::HandOver, Ours::Machine],
        Figure::Ring { .. } => &[Ours::Greenlet, Ours::HandOver, Ours::Machine, Ours::GreenThread],
        Figure::SpawnJoin(_) => &[Ours::Greenlet, Ours::GreenThread],
        Figure::TimerCancel { .. } => &[Ours::Timers, Ours::Call],
        Figure::TimerBytes(_) => &[Ours::Timers],
        Figure::TimerFire(_) => &[Ours::Timers, Ours::GreenThread],
        Figure::HandOver
        | Figure::Rendezvous
        | Figure::Semaphore
        | Figure::Overshoot
        | Figure::Yield(_)
        | Figure::Pool(_)
        | Figure::Parked(_)
        | Figure::ParkWake
        | Figure::Echo(_) => &[Ours::GreenThread],
    };
    let mut all: Vec<_> =
        forms.iter().map(|&ours| (ours, None, peers::ours(figure, ours))).collect();
    if let Figure::Stagger(count) = figure {
        all.push((Ours::Machine, Some("page-aligned"), peers::aligned(count)));
        return all;
    }
    let form = |schedules| match figure {
        Figure::Machine => Ours::Machine,
        Figure::TimerCancel { .. } | Figure::TimerFire(_) => Ours::Timers,
        _ if schedules => Ours::GreenThread,
        _ => Ours::Greenlet,
    };
    for peer in &PEERS {
        all.push((form(peer.schedules), Some(peer.name), (peer.contender)(figure)));
    }
    for external in externals {
        all.push((form(external.schedules), Some(external.name), external.contender(figure)));
    }
    all
}

fn rows(figure: Figure, entries: &[Entry], report: &mut Report) {
    let measured = |ours: Ours| {
        let entry = entries.iter().find(|entry| entry.peer.is_none() && entry.ours == ours);
        entry.map(|entry| entry.contender.measured())
    };
    for entry in entries {
        let Some(peer) = entry.peer else { continue };
        let theirs = entry.contender.measured();
        let mut forms = vec![entry.ours];
        if peer == "corosensei" && matches!(figure, Figure::Ring { .. }) {
            forms.extend([Ours::HandOver, Ours::Machine]);
        }
        if peer == "tokio Sleep" && matches!(figure, Figure::TimerFire(_)) {
            forms.push(Ours::GreenThread);
        }
        if matches!(figure, Figure::TimerCancel { .. }) {
            forms.push(Ours::Call);
        }
        for form in forms {
            if let Some(ours) = measured(form) {
                report.row(&Row::of_time(figure, form, ours, peer, theirs));
            }
        }
    }
}

/// Compares what a pending timer takes.
fn timer_memory(count: usize, report: &mut Report) {
    let figure = Figure::TimerBytes(count);
    let row = |ours, peer: &str, theirs, target| Row {
        name: figure.to_string(),
        what: Ours::Timers.to_string(),
        ours,
        peer: peer.to_owned(),
        theirs,
        unit: "bytes",
        target,
    };
    let mut ours = None;
    for (name, _) in peers::TIMERS {
        let costs = (0..ROUNDS).map(|_| parked::cost(figure, name));
        let bytes = costs.map(|cost| cost.map(|cost| cost.bytes / count as f64)).collect();
        match (bytes, ours) {
            (Err(reason), _) => skip(figure, Some(name), &reason, report),
            (Ok(bytes), None) => {
                let measured = Measured::of(bytes);
                ours = Some(measured);
                let target = Measured { median: TIMER_BYTES, noise: 0.0 };
                report.row(&row(measured, "(target)", target, Some(1.0)));
            }
            (Ok(bytes), Some(ours)) => report.row(&row(ours, name, Measured::of(bytes), None)),
        }
    }
}

/// Compares stolon's server with the others by processor time and by latency.
fn echoes(count: usize, report: &mut Report) {
    let figure = Figure::Echo(count);
    let (standings, failed) = echo::standings(count, ECHO_ROUNDS);
    for (name, reason) in failed {
        skip(figure, Some(name), &reason, report);
    }
    let Some(ours) = standings.iter().find(|standing| standing.name == "stolon") else { return };
    for theirs in standings.iter().filter(|standing| standing.name != "stolon") {
        let row = |name: String, ours, measured, target| Row {
            name,
            what: Ours::GreenThread.to_string(),
            ours,
            peer: theirs.name.to_owned(),
            theirs: measured,
            unit: "us",
            target,
        };
        let target = figure.target(Ours::GreenThread, theirs.name);
        report.row(&row(figure.to_string(), ours.cpu_us, theirs.cpu_us, target));
        let target = (theirs.name == "raw epoll").then_some(1.1);
        report.row(&row(format!("echo_p99.{count}"), ours.p99_us, theirs.p99_us, target));
    }
}

/// Somebody whose memory is measured.
struct Parker<'a> {
    peer: &'static str,
    cost: Box<dyn Fn() -> Result<Cost, String> + 'a>,
    samples: Vec<Cost>,
}

fn memory(count: usize, externals: &[External], report: &mut Report) {
    let figure = Figure::Parked(count);
    if let Some(reason) = too_much(count) {
        report.skipped(&figure.to_string(), "all", &reason);
        return;
    }
    let names = std::iter::once("stolon").chain(PEERS.iter().map(|peer| peer.name));
    let mut parkers: Vec<Parker<'_>> = names
        .map(|peer| Parker {
            peer,
            cost: Box::new(move || parked::cost(figure, peer)),
            samples: Vec::new(),
        })
        .collect();
    parkers.extend(externals.iter().map(|external| Parker {
        peer: external.name,
        cost: Box::new(move || external.cost(count)),
        samples: Vec::new(),
    }));
    for _ in 0..ROUNDS {
        parkers.retain_mut(|parker| match (parker.cost)() {
            Ok(cost) => {
                parker.samples.push(cost);
                true
            }
            Err(reason) => {
                skip(figure, Some(parker.peer), &reason, report);
                false
            }
        });
    }
    if parkers.first().is_some_and(|first| first.peer == "stolon") {
        memory_rows(count, &parkers, report);
    }
}

/// Compares the first with the targets and with the others.
fn memory_rows(count: usize, parkers: &[Parker<'_>], report: &mut Report) {
    let bytes = |parker: &Parker<'_>| {
        Measured::of(parker.samples.iter().map(|cost| cost.bytes / count as f64).collect())
    };
    let mappings = |parker: &Parker<'_>| {
        Measured::of(parker.samples.iter().map(|cost| cost.mappings).collect())
    };
    let exactly = |median| Measured { median, noise: 0.0 };
    let row = |name: &str, ours, peer: &str, theirs, unit, target| Row {
        name: format!("{name}.{count}"),
        what: Ours::GreenThread.to_string(),
        ours,
        peer: peer.to_owned(),
        theirs,
        unit,
        target,
    };
    let (ours, others) = (&parkers[0], &parkers[1..]);
    let target = exactly(PARKED_BYTES);
    report.row(&row("parked_bytes", bytes(ours), "(target)", target, "bytes", Some(1.0)));
    for other in others {
        report.row(&row("parked_bytes", bytes(ours), other.peer, bytes(other), "bytes", None));
    }
    let target = exactly(PARKED_MAPPINGS);
    report.row(&row("parked_mappings", mappings(ours), "(target)", target, "mappings", Some(1.0)));
    for other in others {
        let theirs = mappings(other);
        report.row(&row("parked_mappings", mappings(ours), other.peer, theirs, "mappings", None));
    }
}

/// Why not to try: the machine has not enough memory for so many.
pub fn too_much(count: usize) -> Option<String> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let available = line.split_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0;
    // The worst of them takes some 10,000 bytes for each, but ends before it has so many.
    let wanted = count as f64 * PARKED_BYTES * 1.3;
    (wanted > available).then(|| format!("wants {:.1} GB of free memory", wanted / 1e9))
}
