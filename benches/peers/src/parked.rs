//! Memory of those that wait. Each measure is taken in a process of its own.

use std::fs;
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::figure::Figure;
use crate::peers::{self, PEERS};

/// A process that takes longer is ended.
const AT_MOST: Duration = Duration::from_secs(120);

/// What waiting costs a process.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Resident and in page tables.
    pub bytes: f64,
    pub mappings: f64,
}

impl Cost {
    fn now() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let kib = |name: &str| -> Option<f64> {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let mappings = fs::read_to_string("/proc/self/maps").ok()?.lines().count();
        Some(Self { bytes: (kib("VmRSS:")? + kib("VmPTE:")?) * 1024.0, mappings: mappings as f64 })
    }

    /// From two numbers in a line.
    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some(Self { bytes: numbers.next()?.ok()?, mappings: numbers.next()?.ok()? })
    }
}

/// What `--child FIGURE PEER` does: parks them, and prints what it cost.
pub fn child(figure: &str, peer: &str) -> ExitCode {
    match measure(figure, peer) {
        Ok(Cost { bytes, mappings }) => {
            println!("{bytes} {mappings}");
            // Not by `main`'s end: unwinding a million takes a while.
            std::process::exit(0)
        }
        Err(reason) => {
            eprintln!("{reason}");
            std::process::exit(1)
        }
    }
}

/// Makes so many that wait.
type Park = fn(usize) -> Result<(), String>;

fn measure(figure: &str, peer: &str) -> Result<Cost, String> {
    let nobody = || format!("nobody is called {peer}");
    let (park, count) = match Figure::parse(figure) {
        Some(Figure::Parked(count)) if peer == "stolon" => (peers::stolon::park as Park, count),
        Some(Figure::Parked(count)) => {
            let peer = PEERS.iter().find(|other| other.name == peer);
            (peer.ok_or_else(nobody)?.park, count)
        }
        Some(Figure::TimerBytes(count)) => {
            let peer = peers::TIMERS.iter().find(|(name, _)| *name == peer);
            (peer.ok_or_else(nobody)?.1, count)
        }
        _ => return Err(format!("{figure} is not measured in a process of its own")),
    };
    let no_proc = || String::from("/proc/self cannot be read");
    let before = Cost::now().ok_or_else(no_proc)?;
    park(count)?;
    let after = Cost::now().ok_or_else(no_proc)?;
    Ok(Cost { bytes: after.bytes - before.bytes, mappings: after.mappings - before.mappings })
}

/// The cost of all of a peer's that wait in a figure, measured by this program in another process.
pub fn cost(figure: Figure, peer: &str) -> Result<Cost, String> {
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let figure = figure.to_string();
    cost_by(Command::new(this).args(["--child", &figure, peer]))
}

/// The cost that a command measures and prints.
pub fn cost_by(command: &mut Command) -> Result<Cost, String> {
    let output = output(command)?;
    Cost::parse(&output).ok_or_else(|| format!("it printed {output:?}"))
}

/// What a command prints; or its last words, if it fails.
pub fn output(command: &mut Command) -> Result<String, String> {
    let spawned =
        command.env("RUST_BACKTRACE", "0").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let no_program = |e| format!("{}: {e}", command.get_program().display());
    let mut child = spawned.map_err(no_program)?;
    let deadline = Instant::now() + AT_MOST;
    // It writes little, so nothing of it has to be read while it runs.
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no end after {} s", AT_MOST.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let (mut printed, mut complained) = (String::new(), String::new());
    if let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) {
        let _ = stdout.read_to_string(&mut printed);
        let _ = stderr.read_to_string(&mut complained);
    }
    if status.success() {
        return Ok(printed);
    }
    let notable = |line: &&str| !line.trim().is_empty() && !line.starts_with("note: ");
    Err(match complained.lines().rfind(notable) {
        Some(line) => line.to_owned(),
        None => status.to_string(),
    })
}
