//! Exit: how greenlets are made to end by those who let go of them.
//!
//! A greenlet that waits when its last handle is dropped is resumed by an unwinding
//! [`GreenletExit`], so that its destructors run, and the dropper goes on when it is dead. The
//! rules:
//!
//! | the greenlet | when its last handle is dropped |
//! |---|---|
//! | never started | its closure is dropped, on the greenlet's own stack; it does not run |
//! | suspended | unwinds from its pending switch; the dropper waits until it is dead |
//! | running | goes on; if it is suspended later, with no handle, it is killed when the thread next makes a greenlet or exits |
//! | dead | only its control block is freed |
//!
//! A panic out of it meanwhile is reported by the panic hook and ends there. If it catches the exit
//! and switches to another greenlet, its dropper waits on; to the dropper it cannot switch, as that
//! awaits no value. Where panics abort nothing can unwind: a suspended greenlet is leaked then, its
//! stack with it.

use std::panic::resume_unwind;
use std::rc::Rc;

use super::block::{Block, Handle, Stage};
use super::thread;
use super::transfer::{self, Arrival, Payload};

/// What unwinds a greenlet that is made to end, mirroring greenlet's exception of this name.
///
/// It is the payload of an unwinding that calls no panic hook. A `catch_unwind` that gets it should
/// pass it on with [`resume_unwind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GreenletExit;

/// What a killer awaits: that its victim has ended.
pub(super) struct Death;

/// How often a victim is told to die when something else wakes its killer first.
const MAX_KILL_ATTEMPTS: usize = 4;

/// Called with the last handle to a greenlet before it is dropped. Afterwards the greenlet is dead
/// or abandoned, or there is another handle.
pub(super) fn last_handle(last: &Handle) {
    if last.is_current() {
        last.thread.adopt_orphan(last.clone());
    } else if last.waits() {
        end(last.block());
    }
}

/// Kills a greenlet that waits, or abandons it if it cannot be killed.
pub(super) fn end(victim: &Rc<Block>) {
    if cfg!(panic = "abort") && victim.stage.get() == Stage::Started {
        return abandon(victim);
    }
    let raised = kill_and_wait(victim);
    if !victim.is_dead() {
        eprintln!("{victim:?} does not end when it is told to; its stack is leaked");
        abandon(victim);
    }
    // What was meant for this greenlet while it waited. One that is unwinding already is on its way
    // out.
    if let Some(payload) = raised {
        if !std::thread::panicking() {
            resume_unwind(payload);
        }
    }
}

/// Makes sure that a greenlet is never resumed again and that its memory stays as it is.
pub(super) fn abandon(victim: &Rc<Block>) {
    victim.set_takes_nothing();
    std::mem::forget(Rc::clone(victim));
}

/// Resumes `victim` with an exit and waits for its death. Returns what was thrown at the current
/// greenlet meanwhile.
fn kill_and_wait(victim: &Rc<Block>) -> Option<Payload> {
    let mut raised: Option<Payload> = None;
    for _ in 0..MAX_KILL_ATTEMPTS {
        victim.killer.set(Some(thread::current()));
        match transfer::kill::<Death>(victim) {
            Arrival::Value(Death) => {}
            Arrival::Throw(payload) => {
                raised.get_or_insert(payload);
            }
            Arrival::Kill => {
                raised.get_or_insert_with(|| Box::new(GreenletExit));
            }
            Arrival::Exit => {}
        }
        if !victim.waits() {
            break;
        }
    }
    raised
}
