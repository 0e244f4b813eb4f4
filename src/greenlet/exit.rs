//! Exit: how greenlets are made to end by those who let go of them.
//!
//! A greenlet that waits when its last handle is dropped is resumed by an unwinding
//! [`GreenletExit`], so that its destructors run, and the dropper goes on when it is dead. The rules:
//!
//! | the greenlet | when its last handle is dropped |
//! |---|---|
//! | never started | its closure is dropped, on the greenlet's own stack; it does not run |
//! | suspended | unwinds from its pending switch; the dropper waits until it is dead, but the hub's loop goes on when it waits again |
//! | running | goes on; if it waits later, it is killed when the thread next makes a greenlet |
//! | dead | only its control block is freed |
//!
//! A panic out of it meanwhile is reported by the panic hook and ends there. It may outlive the
//! drop: if it catches the exit, or a destructor of its switches away, and something else wakes the
//! dropper first, then the dropper goes on, and the greenlet belongs to its thread until it ends.
//! Where panics abort nothing can unwind: a suspended greenlet is leaked then, its stack with it.

use std::panic::resume_unwind;

use super::Greenlet;
use super::block::Stage;
use super::handle::{Handle, Link};
use super::pending::Pending;
use super::thread;
use super::transfer::{self, Arrival, Signal};
use super::unwinding::{self, is_unwinding};
use crate::quietly::dispose;
pub(super) use crate::quietly::quietly;

/// What unwinds a greenlet that is made to end, mirroring greenlet's exception of this name.
///
/// It is the payload of an unwinding that calls no panic hook. A `catch_unwind` that gets it should
/// pass it on with [`resume_unwind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GreenletExit;

/// What a killer awaits: that its victim has ended.
pub(super) struct Death;

/// Called with the last handle to a greenlet before it is dropped. Afterwards the greenlet is dead
/// or abandoned, or there is another handle.
pub(super) fn last_handle(last: &Handle) {
    if last.is_current() {
        last.thread.adopt_orphan(last.clone());
    } else if last.waits() {
        end(&last.link());
    }
}

/// Kills a greenlet that waits, and waits for its death; but the loop of a scheduler, which does not
/// block, goes on when the victim waits again.
pub(super) fn end(victim: &Link) {
    if cfg!(panic = "abort") && victim.stage.get() == Stage::Started {
        return abandon(victim);
    }
    if victim.thread.is_sealed() && victim.stage.get() == Stage::Started {
        // It is the greenlet in which the thread exits, or a destructor of a function that never started:
        // it waits for one on another stack, and goes on.
        return std::mem::forget(victim.handle());
    }
    if unwinding::is_in_hook() {
        // It is killed when that is over.
        return victim.thread.adopt_orphan(victim.handle());
    }
    if transfer::is_pending(Pending::is_loop) && !victim.thread.is_sealed() {
        if let Some(scheduler) = victim.thread.scheduler.get() {
            return (scheduler.kill)(&Greenlet::from_handle(victim.handle()));
        }
    }
    // Asked before, as the victim's unwinding may count for the whole thread.
    let can_unwind = !is_unwinding();
    let arrival = kill_for(victim);
    // What was meant for this greenlet while it waited is not lost, except to one that cannot
    // unwind, as it does already. A child that has ended by an exit is nobody's business here.
    match arrival {
        Arrival::Value(Death) | Arrival::Exit => {}
        Arrival::Throw(payload) if can_unwind => resume_unwind(payload),
        // The panic hook has reported it.
        Arrival::Throw(payload) => dispose(payload),
        Arrival::Kill if can_unwind => resume_unwind(Box::new(GreenletExit)),
        Arrival::Kill => thread::current().pending.set_kill(true),
    }
}

/// Kills a greenlet that waits, and returns what reaches the current one next: most likely that it
/// is dead. If not, it belongs to its thread until it is.
pub(super) fn kill_for(victim: &Link) -> Arrival<Death> {
    let arrival = end_here(victim, || transfer::signal(victim, Signal::Kill));
    unwinding::came_from_who_notes();
    arrival
}

/// Ends a greenlet that waits, by what `send` sends it. As long as the current greenlet waits in `send`, it
/// is told of the end in place of the parent: by [`Death`], if it awaits that, and else by an exit.
pub(super) fn end_here<R>(victim: &Link, send: impl FnOnce() -> R) -> R {
    let _settled = Settled(victim);
    victim.killer.set(Some(thread::current().link()));
    send()
}

/// On every way out of the killing, an unwinding included, the victim knows of no killer any more,
/// and is dead or has an owner: its block may be freed next, and a stack in use must not go with it.
struct Settled<'a>(&'a Link);

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        let victim = self.0;
        // Unless another greenlet kills it by now.
        let killer = victim.killer.take().filter(|killer| !killer.is_current());
        victim.killer.set(killer);
        if !victim.is_dead() {
            victim.thread.adopt_survivor(victim.handle());
        }
    }
}

/// Makes sure that nothing reaches a greenlet again, and that its memory stays as it is. What its
/// children end with goes to its parent, as if it had ended.
pub(super) fn abandon(victim: &Link) {
    victim.stage.set(Stage::Dead);
    victim.set_takes_nothing();
    std::mem::forget(victim.clone());
}
