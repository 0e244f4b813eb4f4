//! What a thread knows of its greenlets: the root, who is alive, who was let go of while it ran.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::block::{AtExit, Block, Stage};
use super::handle::{Handle, Link, Registry, Spare};
use super::place::Nursery;
use super::scheduling::Scheduler;
use super::tracing::{self, Tracing};
use super::unwinding::Unwindings;
use super::{Greenlet, about, exit, local, transfer, unwinding};
use crate::stack::Arenas;
use crate::stack::overflow::SignalStack;
use crate::sys::panic_count;

/// How often [`killall`] looks for greenlets that destructors have made meanwhile.
const MAX_KILL_ROUNDS: u32 = 4;

/// So many blocks are kept for greenlets to come.
const MAX_SPARE: usize = 1024;

/// One thread's greenlets. All blocks of the thread share it, so it lives as long as any reference.
pub(super) struct Thread {
    /// Where its stacks come from. Kept here because a greenlet gives its stack back while it still
    /// stands on it; the root's block, which refers to this, outlives that.
    pub(super) arenas: Rc<Arenas>,
    next_id: Cell<u64>,
    pub(super) registry: Registry,
    /// Where its blocks lie.
    pub(super) nursery: Nursery,
    /// Blocks to be used again, and how many may be kept: none when the thread exits.
    spare: RefCell<Vec<Spare>>,
    max_spare: Cell<usize>,
    /// Greenlets whose last handle was dropped while they ran.
    orphans: RefCell<Vec<Handle>>,
    /// Greenlets that were killed for want of handles, and have not ended yet.
    survivors: RefCell<Vec<Handle>>,
    /// Whether there are any orphans or survivors.
    has_wards: Cell<bool>,
    pub(super) tracing: Tracing,
    /// Whether the thread exits: no greenlet of it is resumed or unwound any more.
    sealed: Cell<bool>,
    /// Whether a new greenlet is to be disguised or sealed.
    new_are_special: Cell<bool>,
    pub(super) unwindings: Unwindings,
    /// What the thread's scheduler has told of itself.
    pub(super) scheduler: Cell<Option<Scheduler>>,
}

impl Thread {
    fn new(arenas: Rc<Arenas>) -> Self {
        Self {
            arenas,
            next_id: Cell::new(0),
            registry: Registry::default(),
            nursery: Nursery::default(),
            spare: RefCell::default(),
            max_spare: Cell::new(MAX_SPARE),
            orphans: RefCell::default(),
            survivors: RefCell::default(),
            has_wards: Cell::new(false),
            tracing: Tracing::default(),
            sealed: Cell::new(false),
            new_are_special: Cell::new(false),
            unwindings: Unwindings::default(),
            scheduler: Cell::new(None),
        }
    }

    /// Whether the thread exits.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.get()
    }

    /// Whether a new greenlet is to be disguised or sealed.
    #[inline(always)]
    pub(super) fn new_are_special(&self) -> bool {
        self.new_are_special.get()
    }

    /// Called when that may have changed.
    pub(super) fn set_new_are_special(&self) {
        self.new_are_special.set(self.tracing.is_on() || self.sealed.get());
    }

    pub(super) fn next_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    /// A block to be used again.
    #[inline(always)]
    pub(super) fn spare(&self) -> Option<Spare> {
        self.spare.borrow_mut().pop()
    }

    /// Keeps a block to be used again, if there is room for it.
    #[inline(always)]
    pub(super) fn keep(&self, block: Spare) -> Option<Spare> {
        match self.spare.try_borrow_mut() {
            Ok(mut spare) if spare.len() < spare.capacity() => spare.push(block),
            _ => return Some(block),
        }
        None
    }

    /// Keeps one for which there was no room, or gives it back if there are enough.
    #[cold]
    #[inline(never)]
    pub(super) fn keep_more(&self, block: Spare) -> Option<Spare> {
        self.make_room(&mut self.spare.borrow_mut());
        self.keep(block)
    }

    /// Makes room for more blocks, if more may be kept.
    fn make_room(&self, spare: &mut Vec<Spare>) {
        let more = spare.len().max(16).min(self.max_spare.get().saturating_sub(spare.len()));
        spare.reserve_exact(more);
    }

    /// Keeps no blocks any more: each refers to this.
    fn drop_spare(&self) {
        self.max_spare.set(0);
        drop(self.spare.take());
    }

    /// Keeps the current greenlet, whose last handle is being dropped, until [`reap`](Self::reap)
    /// finds it waiting.
    pub(super) fn adopt_orphan(&self, orphan: Handle) {
        self.has_wards.set(true);
        self.orphans.borrow_mut().push(orphan);
    }

    /// Keeps a greenlet that was killed but has not ended, until it has.
    pub(super) fn adopt_survivor(&self, survivor: Handle) {
        self.has_wards.set(true);
        self.survivors.borrow_mut().push(survivor);
    }

    /// Lets go of orphans that run no more, so that those that wait are killed, and of survivors
    /// that have ended after all.
    #[inline]
    pub(super) fn reap(&self) {
        if self.has_wards.get() {
            self.reap_wards();
        }
    }

    #[cold]
    #[inline(never)]
    fn reap_wards(&self) {
        if unwinding::is_in_hook() {
            return;
        }
        drop_unless(&self.orphans, |orphan| orphan.is_current());
        drop_unless(&self.survivors, |survivor| !survivor.is_dead());
        let none_left = self.orphans.borrow().is_empty() && self.survivors.borrow().is_empty();
        self.has_wards.set(!none_left);
    }
}

/// Keeps a greenlet that loses its last handle while it runs, or is about to.
#[cold]
#[inline(never)]
pub(super) fn adopt_orphan(last: Handle) {
    let thread = Rc::clone(&last.thread);
    thread.adopt_orphan(last);
}

/// Drops the handles that are not to be kept, one by one: what is dropped may add others.
fn drop_unless(handles: &RefCell<Vec<Handle>>, keep: impl Fn(&Handle) -> bool) {
    loop {
        let found = handles.borrow().iter().position(|handle| !keep(handle));
        let Some(index) = found else { break };
        let handle = handles.borrow_mut().swap_remove(index);
        drop(handle);
    }
}

thread_local! {
    static GUARD: Guard = Guard::new();
}

/// Owns the thread's root, and lets go of the thread's greenlets when it exits.
struct Guard {
    /// A handle, so that the root is never without one.
    root: Handle,
    /// Where a greenlet that runs over its stack is reported from. Given back last.
    _signal_stack: Option<SignalStack>,
}

impl Guard {
    fn new() -> Self {
        let arenas = Arenas::of_thread().expect("no greenlets here: this thread is exiting");
        let thread = Rc::new(Thread::new(arenas));
        let root = Link::new(&thread, None, None);
        root.stage.set(Stage::Started);
        let handle = root.handle();
        transfer::enter_root(root);
        // So that it is known when the thread runs the panic hook.
        panic_count::word();
        about::report_overflows();
        Self { root: handle, _signal_stack: SignalStack::ensure() }
    }
}

impl Drop for Guard {
    /// Frees what can be freed when the thread's own destructors run already: greenlets that have not
    /// started, and the root.
    fn drop(&mut self) {
        let root = &self.root;
        // First of all: from here on destructors of the user's run.
        seal(None);
        if !root.is_current() {
            // The process exits from inside a greenlet. What waits is forgotten.
            return std::mem::forget(root.clone());
        }
        // std has taken its own back by now, and destructors are about to run.
        let _signal_stack = SignalStack::ensure();
        tracing::end(&root.thread);
        // A panic that left a thread-local destructor would abort the process.
        for greenlet in root.thread.registry.living() {
            if greenlet.waits() {
                exit::quietly(|| exit::end(&greenlet));
            }
        }
        local::end(root);
        exit::quietly(|| root.thread.reap());
        root.thread.registry.living().iter().for_each(exit::abandon);
        root.stage.set(Stage::Dead);
        // Without this its last handle would kill it.
        root.set_takes_nothing();
        root.thread.drop_spare();
        transfer::leave_root(root);
    }
}

/// Sees to it that no greenlet of this thread is resumed or unwound any more, as the thread exits, or the
/// process does. Runs no code of the user's. Later calls do nothing.
///
/// Called by the first of the crate's own thread-local destructors. The thread's other thread-local
/// values are being destroyed, and a suspended stack may hold references into them, as from
/// `LocalKey::with`.
///
/// | a greenlet | from now on |
/// |---|---|
/// | has started, and does not run | is abandoned: it counts as dead, and its stack is leaked |
/// | has not started | cannot start; when it is dropped its function is, on its own stack |
/// | has not started, and is of a scope | is abandoned as well, as its function borrows |
/// | is made from now on | as one that has not started |
/// | is current | goes on: it is what runs the destructors |
/// | is `ours` | can still be resumed by its handle; only the caller does, and lets it end |
///
/// So what runs on a greenlet's stack after this is the destructor of a function that never started. It
/// can switch to nobody, and returns before its dropper goes on.
pub(super) fn seal(ours: Option<&Handle>) {
    let Some(current) = transfer::try_current() else { return };
    if current.thread.sealed.replace(true) {
        return;
    }
    tracing::stop(&current);
    current.thread.set_new_are_special();
    let root = root_of(&current);
    for greenlet in current.thread.registry.living().iter().chain([&root]) {
        let is_ours = ours.is_some_and(|ours| ours.as_ptr() == greenlet.as_ptr());
        if greenlet.is_current() || is_ours || greenlet.is_dead() {
            continue;
        }
        if greenlet.stage.get() == Stage::Unstarted && greenlet.at_exit.get() == AtExit::Dropped {
            greenlet.seal();
        } else {
            exit::abandon(greenlet);
        }
    }
}

/// Kills all greenlets of this thread, the youngest first. With a scheduler, those that wait in a destructor
/// or catch the exit have time to end.
pub(super) fn killall() {
    let root = current();
    assert!(root.parent().is_none(), "killall is for a thread's root: this is {:?}", *root);
    let rounds = root.thread.scheduler.get().map_or(MAX_KILL_ROUNDS, |scheduler| scheduler.rounds);
    for round in 0..rounds {
        root.thread.reap();
        let living = root.thread.registry.living();
        let mut waiting = living.iter().filter(|greenlet| greenlet.waits()).peekable();
        if waiting.peek().is_none() {
            break;
        }
        // It ends with the others.
        let scheduler = root.thread.scheduler.get();
        for greenlet in waiting {
            match scheduler {
                Some(scheduler) => (scheduler.kill)(&Greenlet::from_handle(greenlet.handle())),
                None => exit::end(greenlet),
            }
        }
        if unwinding::is_in_hook() {
            // They are killed when that is over.
            break;
        }
        if let Some(scheduler) =
            scheduler.filter(|_| living.iter().any(|greenlet| greenlet.waits()))
        {
            (scheduler.pause)(round);
        }
    }
}

/// The current greenlet; on a thread that has none yet, its root is made.
///
/// # Panics
///
/// When the thread is past the point in its exit at which its greenlets ended.
#[inline]
pub(super) fn current() -> Handle {
    transfer::try_current().unwrap_or_else(make_root)
}

/// Lets `f` see the current greenlet; as [`current`], but without another reference to it.
///
/// # Panics
///
/// As there.
#[inline(always)]
pub(super) fn with_current<R>(f: impl FnOnce(&Block) -> R) -> R {
    if transfer::current_ptr().is_null() {
        make_root();
    }
    transfer::with_current(|current| f(current.expect("the root was made")))
}

/// The root of a greenlet's thread.
pub(super) fn root_of(greenlet: &Handle) -> Link {
    let mut root = greenlet.link();
    while let Some(parent) = root.parent() {
        root = parent;
    }
    root
}

#[cold]
#[inline(never)]
fn make_root() -> Handle {
    let root = GUARD.try_with(|guard| guard.root.clone());
    root.expect("no greenlets here: this thread is exiting")
}

/// Whether the thread has, or can still have, a current greenlet.
pub(super) fn is_alive() -> bool {
    !transfer::current_ptr().is_null() || GUARD.try_with(|_| ()).is_ok()
}
