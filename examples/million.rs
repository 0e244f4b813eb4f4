//! A million green threads that wait, on one OS thread.
//!
//! ```text
//! cargo run --release --example million [HOW_MANY]
//! ```
//!
//! Makes them, each with a stack of 64 KiB, lets each wait, wakes all, and says what that took. A
//! million need about 5 GB of memory. It needs a kernel with guard markers (Linux 6.13): elsewhere
//! the limit on mappings is hit, and it says so.

use std::cell::Cell;
use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stolon::GreenThread;
use stolon::greenthread::Builder;

const STACK_BYTES: usize = 64 * 1024;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("million: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let count = env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse::<usize>())?;
    let before = Memory::now()?;
    let woken = Rc::new(Cell::new(0));

    let start = Instant::now();
    // Ends when it is told to: what all the others wait for.
    let signal = Rc::new(Cell::new(false));
    let gate = Rc::new(spawn(gate(Rc::clone(&signal)))?);
    let mut threads = Vec::with_capacity(count);
    for made in 1..=count {
        let (gate, woken) = (Rc::clone(&gate), Rc::clone(&woken));
        let thread = spawn(move || {
            gate.wait();
            woken.set(woken.get() + 1);
            // They are all awake before the first one ends.
            stolon::sleep(Duration::ZERO);
        });
        threads.push(thread.map_err(|e| format!("number {made} of {count}: {e}"))?);
        if made % 100_000 == 0 {
            println!("{made} made");
        }
    }
    // Up to where they wait.
    stolon::sleep(Duration::ZERO);
    let made = start.elapsed();
    let parked = Memory::now()?;
    assert_eq!(woken.get(), 0, "all of them wait");

    let start = Instant::now();
    signal.set(true);
    while woken.get() < count {
        stolon::sleep(Duration::from_millis(1));
    }
    let wakened = start.elapsed();

    let start = Instant::now();
    for thread in threads {
        thread.join().map_err(|_| "a green thread panicked")?;
    }
    let finished = start.elapsed();

    let bytes = parked.bytes.saturating_sub(before.bytes);
    println!("{count} green threads waited at once, on {STACK_BYTES} bytes of stack each");
    println!("{} bytes each, resident and in page tables", bytes / count.max(1));
    println!("{} mappings added", parked.mappings.saturating_sub(before.mappings));
    println!("{:.2} s to make them and let each wait", made.as_secs_f64());
    println!("{:.2} s to wake them", wakened.as_secs_f64());
    println!("{:.2} s to let them end", finished.as_secs_f64());
    Ok(())
}

fn gate(signal: Rc<Cell<bool>>) -> impl FnOnce() {
    move || {
        while !signal.get() {
            stolon::sleep(Duration::from_millis(1));
        }
    }
}

fn spawn(f: impl FnOnce() + 'static) -> io::Result<GreenThread<()>> {
    Builder::new().stack_bytes(STACK_BYTES).spawn(f)
}

/// What this process takes.
struct Memory {
    /// Resident and in page tables.
    bytes: usize,
    mappings: usize,
}

impl Memory {
    fn now() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let kib = |name: &str| -> usize {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let bytes = (kib("VmRSS:") + kib("VmPTE:")) * 1024;
        Ok(Self { bytes, mappings: fs::read_to_string("/proc/self/maps")?.lines().count() })
    }
}
