//! Dumps when the operator asks for them.

use std::cell::RefCell;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::dump::dump;
use crate::green::signal::{SIGQUIT, Signals};
use crate::greenthread::{Builder, GreenThread};
use crate::hub::{self, HubHandle};

/// Stack for the green thread that prints: to name functions takes much.
const STACK_BYTES: usize = 1024 * 1024;

thread_local! {
    static LISTENER: RefCell<Option<GreenThread<()>>> = const { RefCell::new(None) };
}

/// The hubs of all threads that listen.
static HUBS: Mutex<Vec<HubHandle>> = Mutex::new(Vec::new());

/// Changes the list of those that listen, which those leave that have ended.
fn change_hubs(change: impl FnOnce(&mut Vec<HubHandle>)) {
    let mut hubs = HUBS.lock().unwrap_or_else(PoisonError::into_inner);
    hubs.retain(|hub| !hub.is_gone());
    change(&mut hubs);
}

/// Prints what this thread's greenlets do.
fn print_dump() {
    match dump() {
        Ok(dump) => eprintln!("{dump}"),
        Err(e) => eprintln!("no dump can be made: {e}"),
    }
}

/// Prints a [`dump()`] of this thread to stderr whenever the process gets `SIGQUIT` (`Ctrl-\` on a
/// terminal), instead of ending by it; or not any more. Each thread that has called it does so, one
/// after the other.
///
/// A green thread waits for the signal and prints, so this works while the hub is idle or busy, but
/// not while a green thread holds it:
/// [`hub_blocking_detection`](super::hub_blocking_detection) reports that. As with
/// [`Signals`], the signal is blocked on this thread and those that it starts; one that was running
/// before would still take it and end the process, so call this early. While it is on, someone waits for a descriptor: so a main
/// greenlet that nothing can ever wake waits on, where else it would be told.
///
/// From now on, too, each wait notes when it began.
///
/// # Errors
///
/// When the hub, the descriptor or the green thread cannot be made.
pub fn dump_on_sigquit(on: bool) -> io::Result<()> {
    let hub = hub::try_current()?;
    let listens = LISTENER.with_borrow(|listener| listener.as_ref().is_some_and(|l| !l.is_dead()));
    if on == listens {
        return Ok(());
    }
    hub.set_notes_time(on);
    if !on {
        if let Some(listener) = LISTENER.take() {
            listener.kill();
        }
        change_hubs(|hubs| hubs.retain(|hub| !hub.is_current()));
        return Ok(());
    }
    let signals = Signals::new(&[SIGQUIT])?;
    let listen = move || {
        // The process's signal is read by one of the threads.
        while signals.wait().is_ok() {
            print_dump();
            let mut others = Vec::new();
            change_hubs(|hubs| others.extend(hubs.iter().filter(|hub| !hub.is_current()).cloned()));
            for other in others {
                // One that is gone by now has nothing to tell.
                let _ = other.spawn(print_dump);
            }
        }
    };
    let builder = Builder::new().name("dump on SIGQUIT").stack_bytes(STACK_BYTES);
    LISTENER.set(Some(builder.spawn(listen)?));
    change_hubs(|hubs| hubs.push(hub::handle()));
    Ok(())
}
