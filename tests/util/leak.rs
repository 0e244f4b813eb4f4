//! Runs a test's body by itself, and looks afterwards at what it has left behind.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use stolon::stack::stack_counts;

use super::server::PATIENCE;

/// The tests of a program run in threads of one process, and descriptors are the process's: so one
/// at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `body` on a new OS thread with a hub of its own, for a bounded time. Afterwards as many
/// stacks must be in use as before, and when the thread has ended, the same descriptors must be
/// open: so each test of the program that opens any must be guarded.
///
/// # Panics
///
/// With the panic of `body`; and if it leaves something behind or does not end.
#[track_caller]
pub fn guarded(body: impl FnOnce() + Send + 'static) {
    guarded_for(PATIENCE, body);
}

/// [`guarded`] for a body that takes long.
#[track_caller]
pub fn guarded_for(limit: Duration, body: impl FnOnce() + Send + 'static) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let open_before = open_descriptors();
    counting_stacks_for(limit, body);
    assert_eq!(open_descriptors(), open_before, "descriptors after the test and before it");
}

/// [`guarded`] without a look at descriptors: for programs in which other tests have hubs meanwhile.
#[track_caller]
pub fn counting_stacks(body: impl FnOnce() + Send + 'static) {
    counting_stacks_for(PATIENCE, body);
}

#[track_caller]
fn counting_stacks_for(limit: Duration, body: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let run = move || {
        // The mainloop takes a stack when it is first used, and keeps it.
        stolon::sleep(Duration::ZERO);
        let in_use_before = stack_counts().in_use;
        body();
        // Whoever is about to end may do so.
        stolon::sleep(Duration::ZERO);
        sender.send((in_use_before, stack_counts().in_use)).expect("the guard waits");
    };
    let thread = thread::Builder::new().name(name).spawn(run).expect("a thread");
    let stacks = receiver.recv_timeout(limit);
    if stacks == Err(RecvTimeoutError::Timeout) {
        panic!("the test does not end");
    }
    if let Err(payload) = thread.join() {
        resume_unwind(payload);
    }
    let (in_use_before, in_use) = stacks.expect("a thread that does not panic sends its counts");
    assert_eq!(in_use, in_use_before, "stacks in use after the test and before it");
}

/// Runs `body` while no guarded test runs: for one that leaks descriptors on purpose.
pub fn alone(body: impl FnOnce()) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    body();
}

/// The open descriptors of this process, each with what it refers to.
fn open_descriptors() -> BTreeSet<String> {
    let entries = fs::read_dir("/proc/self/fd").expect("this process's descriptors");
    let describe = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some(format!("{} -> {}", entry.file_name().to_string_lossy(), target.display()))
    };
    // The directory is closed again by the time that its own entry is looked at, or names itself.
    let described = entries.filter_map(|entry| describe(entry.ok()?));
    described.filter(|text| !text.ends_with("/fd")).collect()
}

/// How many mappings this process has. Nothing is allocated, as there may be no memory.
pub fn mappings() -> usize {
    let mut maps = File::open("/proc/self/maps").expect("this process's mappings");
    let (mut bytes, mut count) = ([0; 4096], 0);
    loop {
        let filled = maps.read(&mut bytes).expect("this process's mappings");
        if filled == 0 {
            return count;
        }
        count += bytes[..filled].iter().filter(|&&byte| byte == b'\n').count();
    }
}

/// As [`guarded`], but on a simulated hub, where green threads have their turns in order and time
/// jumps. A program that has ended takes no more of its own stacks than before, either.
#[track_caller]
pub fn simulated(body: impl FnOnce() + Send + 'static) {
    guarded(|| {
        stolon::hub::simulated(0).in_order().run(|| {
            stolon::sleep(Duration::ZERO);
            let in_use_before = stack_counts().in_use;
            body();
            stolon::sleep(Duration::ZERO);
            assert_eq!(stack_counts().in_use, in_use_before, "stacks of the simulated program");
        });
    });
}
