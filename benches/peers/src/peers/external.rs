//! Peers in other languages: small programs in `c/`, `go/` and `python/`, which are built when the
//! tools for it are there.
//!
//! Each is called with a figure and a number of iterations, and prints how many nanoseconds they
//! took; for `parked_bytes`, with the figure alone, and prints bytes and mappings. It leaves with a
//! message if it cannot do the figure.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Made;
use crate::figure::{Figure, Ours};
use crate::measure::Contender;
use crate::parked::{self, Cost};

/// A peer that is a program.
pub struct External {
    pub name: &'static str,
    pub schedules: bool,
    command: Vec<PathBuf>,
}

impl External {
    /// Those whose tools are there; and why the others are missing.
    pub fn all() -> Vec<Result<Self, (&'static str, String)>> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let built = match std::env::current_exe() {
            Ok(this) => this.with_file_name("peers-external"),
            Err(e) => return vec![Err(("other languages", e.to_string()))],
        };
        if let Err(e) = std::fs::create_dir_all(&built) {
            return vec![Err(("other languages", e.to_string()))];
        }
        vec![
            ucontext(&here.join("c/switch.c"), built.join("c")),
            go(&here.join("go/switch.go"), built.join("go")),
            greenlet(here.join("python/switch.py")),
            Err(("libaco, boost", String::from("no packages of them are looked for"))),
        ]
    }

    pub fn contender(&self, figure: Figure) -> Made {
        let ours = if self.schedules { Ours::GreenThread } else { Ours::Greenlet };
        let command = self.command.clone();
        let batch = move |iterations: u64| {
            let mut program = program(&command);
            program.arg(figure.to_string()).arg(iterations.to_string());
            let printed = parked::output(&mut program)?;
            let nanoseconds = printed.trim().parse().map_err(|_| format!("it said {printed:?}"))?;
            Ok(Duration::from_nanos(nanoseconds))
        };
        Ok(Contender::new(figure.per_iteration(ours), Box::new(batch)))
    }

    pub fn cost(&self, count: usize) -> Result<Cost, String> {
        parked::cost_by(program(&self.command).arg(Figure::Parked(count).to_string()))
    }
}

fn program(command: &[PathBuf]) -> Command {
    let mut program = Command::new(&command[0]);
    program.args(&command[1..]);
    program
}

fn ucontext(source: &Path, binary: PathBuf) -> Result<External, (&'static str, String)> {
    let name = "ucontext (C)";
    build(name, Command::new("cc").args(["-O2", "-o"]).arg(&binary).arg(source))?;
    Ok(External { name, schedules: false, command: vec![binary] })
}

fn go(source: &Path, binary: PathBuf) -> Result<External, (&'static str, String)> {
    let name = "Go";
    build(name, Command::new("go").args(["build", "-o"]).arg(&binary).arg(source))?;
    Ok(External { name, schedules: true, command: vec![binary] })
}

fn greenlet(script: PathBuf) -> Result<External, (&'static str, String)> {
    let name = "greenlet (Python)";
    build(name, Command::new("python3").args(["-c", "import greenlet"]))?;
    Ok(External { name, schedules: false, command: vec!["python3".into(), script] })
}

fn build(name: &'static str, command: &mut Command) -> Result<(), (&'static str, String)> {
    match parked::output(command) {
        Ok(_) => Ok(()),
        Err(reason) => Err((name, reason)),
    }
}
