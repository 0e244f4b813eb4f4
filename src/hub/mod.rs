//! The hub: one per thread, made on first use, it runs green threads and waits for the world on
//! their behalf.
//!
//! | to | see |
//! |---|---|
//! | wait for a descriptor of any kind, or tell of its end | [`trampoline`()], [`notify_close`] |
//! | have a function called later, without a green thread for it | [`schedule_call_global`], [`schedule_call_local`] |
//! | reach a hub from other threads, and from signal handlers | [`handle`](handle()), [`Waiter`] |
//! | send messages between green threads of several hubs | [`channel`] |
//! | test a program on a virtual clock, under orders that can be replayed | [`simulated`] |
//!
//! # How it works
//!
//! Layer 5. Knows greenlets, timers and the poller. Its loop is a greenlet of its own, the
//! *mainloop*, a child of the thread's root and the parent of all green threads. A greenlet that
//! parks hands control to the next runnable one directly. The mainloop runs when none is
//! runnable and when one has ended, and it starts those that come next when the root parks, or anyone
//! yields; if somebody waits for time or for a descriptor, it runs when as
//! many have yielded as were runnable; and at the latest after 128 hand-overs. Then due timers fire
//! and the poller is asked, so that no crowd of runnable greenlets keeps timers or sockets waiting:
//! of those that yield all the time, each runs about once before a reader whose data have come.
//!
//! ```text
//!         wake                     next               switch
//!   timer ----.                 .-------- run queue <-------- park (deadline, descriptor, green thread, ...)
//!   event ----+--> run queue ---+                       |
//!   green ----'                 '--> mainloop <---------'  queue empty, budget spent, one has ended
//! ```

mod alarms;
mod blocked;
mod blocking;
mod call_table;
mod calls;
pub mod channel;
mod close;
mod current;
mod entry;
mod fairness;
mod fd;
mod fd_table;
mod fork;
mod in_hook;
mod interrupt;
mod late;
mod line;
mod mainloop;
mod registration;
mod remote;
mod ring;
mod run_queue;
mod simulation;
mod snapshot;
mod stats;
mod trampoline;
mod turnstile;
pub(crate) mod wait;
mod waiter;
mod watchdog;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Deadline, Time};
use crate::greenlet::{self, Greenlet, SwitchError};
use crate::poller::{Events, Poller};
use crate::sys::panic_count;
use crate::timers::Timers;
pub(crate) use alarms::{Alarm, MakePayload};
pub use blocked::{Blocked, set_blocking_hook, take_blocking_hook};
use call_table::{Calls, Due};
use calls::ErrorHook;
pub use calls::{
    CallPanic, Timer, abort, clear_error_hook, schedule_call_global, schedule_call_local,
    set_error_hook,
};
pub(crate) use current::{
    NextOne, current, deadline_after, existing, mainloop_as_parent, start, try_current, wake,
    yield_now,
};
pub(crate) use entry::Direction;
pub(crate) use fd::{Drained, Short, Source};
use fd_table::FdTable;
use late::Late;
pub(crate) use line::{Line, Ticket};
use remote::Remote;
pub(crate) use remote::job;
pub use remote::{HubGone, HubHandle, JoinHandle, Waiter, Waker, handle};
use run_queue::{Next, RunQueue};
use simulation::Simulation;
pub use simulation::{Simulated, advance, now, simulate_seeds, simulated};
pub(crate) use snapshot::{PendingTimer, Snapshot, State, Waiting, What};
use stats::Observed;
pub use stats::{Stats, stats};
pub(crate) use trampoline::prevent_multiple_readers;
pub use trampoline::{notify_close, trampoline};
pub(crate) use turnstile::{Turn, Turnstile};
pub(crate) use wait::{WaitId, WaitsFor};
pub(crate) use waiter::Wait;

/// So many times control is handed on before the mainloop looks at timers and descriptors again.
const BUDGET: u32 = 128;

/// So many events are asked for at once: those whose greenlets have their turns before the poller is
/// asked again. With more, what the kernel and the hub touch on behalf of the first is out of the
/// processor's caches when the turn of the last comes.
const EVENTS: usize = BUDGET as usize;

/// A floor above any number of hand-overs that are left: nobody has a turn before the mainloop.
const ROUND_IS_OVER: u32 = u32::MAX;

/// So many operations on descriptors are tried without waiting before their greenlet has to let
/// others run.
const IO_BUDGET: u32 = 64;

/// Why a parked greenlet runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Wake {
    /// It runs for the first time.
    Start,
    /// What it waited for has come.
    Ready,
    /// Its deadline has passed.
    Expired,
    /// Nothing: the thread is exiting, and there is nobody left to wait for.
    Closed,
    /// To the mainloop only: it is its turn.
    Turn,
    /// To the mainloop only: a green thread has ended.
    Ended,
}

/// One thread's scheduler, timers and descriptors.
pub(crate) struct Hub {
    clock: Clock,
    run_queue: RefCell<RunQueue>,
    timers: RefCell<Timers<Due>>,
    calls: RefCell<Calls>,
    error_hook: RefCell<Option<ErrorHook>>,
    /// None when the thread is exiting.
    poller: RefCell<Option<Poller>>,
    events: RefCell<Events>,
    fds: FdTable,
    mainloop: Cell<Option<Greenlet<Wake>>>,
    /// The mainloop's place among the greenlets; the root's while there is none.
    place_of_mainloop: Cell<u32>,
    /// Whether the mainloop is suspended with only its own frames on its stack: it has left for somebody's
    /// turn, and not in a call or a hook of the user's.
    is_between_turns: Cell<bool>,
    /// What has to wait until nobody unwinds.
    late: Late,
    /// Hand-overs that are left before the mainloop's turn.
    budget: Cell<u32>,
    /// With no more hand-overs left than this, whoever yields has the mainloop run.
    floor: Cell<u32>,
    /// Operations that are left before the current greenlet has to yield.
    io_budget: Cell<u32>,
    /// What other threads ask for.
    remote: Remote,
    /// How many forks had been when the poller was made.
    forks: Cell<u32>,
    /// Whether the thread is exiting: nobody parks any more.
    closed: Cell<bool>,
    observed: Observed,
    /// How many unwindings are under way on the thread; one, if that cannot be told.
    unwindings: Cell<&'static AtomicUsize>,
    /// Only if it is simulated.
    simulation: Option<Box<Simulation>>,
}

impl Hub {
    fn new(simulation: Option<Box<Simulation>>) -> io::Result<Rc<Self>> {
        fork::watch()?;
        let poller = Poller::new()?;
        let remote = Remote::new(&poller)?;
        let is_shuffled = simulation.as_ref().is_some_and(|simulation| simulation.is_shuffled());
        Ok(Rc::new(Self {
            clock: if simulation.is_some() { Clock::simulated() } else { Clock::monotonic() },
            run_queue: RefCell::default(),
            timers: RefCell::new(Timers::new()),
            calls: RefCell::default(),
            error_hook: RefCell::default(),
            poller: RefCell::new(Some(poller)),
            events: RefCell::new(Events::with_capacity(EVENTS)),
            fds: FdTable::default(),
            mainloop: Cell::new(None),
            place_of_mainloop: Cell::new(0),
            is_between_turns: Cell::new(false),
            late: Late::new(),
            // Without one, each hand-over goes through the mainloop.
            budget: Cell::new(if is_shuffled { 0 } else { BUDGET }),
            floor: Cell::new(0),
            io_budget: Cell::new(IO_BUDGET),
            remote,
            forks: Cell::new(fork::count()),
            closed: Cell::new(false),
            observed: Observed::default(),
            unwindings: Cell::new(panic_count::word()),
            simulation,
        }))
    }

    /// The time on its clock.
    #[inline]
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// The deadline that is `timeout` from now; never if there is none.
    #[inline(always)]
    pub(crate) fn deadline_after(&self, timeout: Option<Duration>) -> Deadline {
        timeout.map_or(Deadline::NEVER, |timeout| self.deadline_after_some(timeout))
    }

    #[inline(never)]
    fn deadline_after_some(&self, timeout: Duration) -> Deadline {
        Deadline::after(self.clock.now(), timeout)
    }

    /// Ends a wait, and makes its greenlet runnable. False if that wait was over.
    #[inline(always)]
    pub(crate) fn wake(&self, id: WaitId, wake: Wake) -> bool {
        self.run_queue.borrow_mut().wake(id, wake)
    }

    /// Makes a new greenlet runnable for the first time.
    #[inline(always)]
    fn start(&self, greenlet: Greenlet<Wake>) {
        let id = WaitId::begin(&greenlet);
        self.run_queue.borrow_mut().push(greenlet, id, Wake::Start);
    }

    /// Whether a greenlet of this thread may be unwinding: whoever leaves then has to note whether it is the
    /// one.
    #[inline(always)]
    fn somebody_unwinds(&self) -> bool {
        self.unwindings.get().load(Ordering::Relaxed) != 0
    }

    /// Lets every other runnable greenlet run once.
    ///
    /// The hub may be gone when this greenlet is resumed: `self` is not used from then on.
    #[inline(always)]
    fn yield_now(&self) {
        match self.rotate() {
            Some((next, wake)) => next.switch_into_and(wake, |resumed| match resumed {
                Ok(Wake::Ready) => {}
                Ok(wake) => after_wake(wake),
                Err(e) => after_interruption(Err(e)),
            }),
            None => current::yield_through_mainloop(),
        }
    }

    /// The next greenlet, for which the current one has made room by standing in the queue: if
    /// nothing needs the mainloop, or another second thought.
    #[inline(always)]
    fn rotate(&self) -> Option<(Greenlet<Wake>, Wake)> {
        let left = self.budget.get();
        if left <= self.floor.get() || self.somebody_unwinds() {
            return None;
        }
        let next = self.run_queue.borrow_mut().rotate()?;
        self.budget.set(left - 1);
        self.io_budget.set(IO_BUDGET);
        Some(next)
    }

    /// Leaves the current greenlet, which is parked or stands in the queue; returns why it runs
    /// again.
    #[inline(never)]
    fn switch_away(self: &Rc<Self>) -> Wake {
        self.io_budget.set(IO_BUDGET);
        loop {
            let resumed = match self.next_for_hand_over() {
                Some((greenlet, wake)) => greenlet.switch_into(wake),
                None => self.switch_into_mainloop(),
            };
            if let Some(wake) = waited_for(resumed) {
                return wake;
            }
            self.note_late_kill(&greenlet::current());
        }
    }

    #[inline(always)]
    fn switch_into_mainloop(self: &Rc<Self>) -> Result<Wake, SwitchError<Wake>> {
        match self.mainloop() {
            Ok(mainloop) => {
                if !mainloop.takes_its_type() {
                    self.refuse_in_call();
                }
                mainloop.switch_into(Wake::Turn)
            }
            Err(e) => panic!("the hub's mainloop could not be started: {e}"),
        }
    }

    /// The next runnable greenlet, if the current one may hand over to it directly: it has started,
    /// it is not the current one itself, and it is not the mainloop's turn.
    #[inline(always)]
    fn next_for_hand_over(&self) -> Option<(Greenlet<Wake>, Wake)> {
        let left = self.budget.get().checked_sub(1)?;
        let next = self.next_if(|next| next.is_started() && !next.is_current())?;
        self.budget.set(left);
        Some(next)
    }

    /// The first in the queue that waits for its turn, if `accept` takes it.
    #[inline(always)]
    fn next_if(&self, accept: impl Fn(&Greenlet<Wake>) -> bool) -> Option<(Greenlet<Wake>, Wake)> {
        loop {
            let next = self.run_queue.borrow_mut().next_if(&accept);
            match next {
                Next::Run(greenlet, wake) => return Some((greenlet, wake)),
                Next::Stale(greenlet) => drop(greenlet),
                Next::Nothing => return None,
            }
        }
    }
}

#[cold]
#[inline(never)]
fn after_wake(wake: Wake) {
    after_interruption(Ok(wake));
}

/// Goes on waiting for a turn after something else has come; the greenlet still stands in the queue.
/// Without a hub nobody waits.
#[cold]
#[inline(never)]
fn after_interruption(resumed: Result<Wake, SwitchError<Wake>>) {
    if waited_for(resumed).is_none() {
        if let Some(hub) = current() {
            hub.switch_away();
        }
    }
}

/// What a greenlet was resumed with, if it is what it waited for.
#[inline]
fn waited_for(resumed: Result<Wake, SwitchError<Wake>>) -> Option<Wake> {
    match resumed {
        // A green thread ended whose mainloop has died, and this greenlet is next of kin.
        Ok(Wake::Ended) => None,
        Ok(wake) => Some(wake),
        // A child that the greenlet made for itself was killed. That is not what it waits for.
        Err(SwitchError::Exited) => None,
        // Who was to run was thrown out of its wait, caught that, and waits for something else.
        Err(SwitchError::TypeMismatch { .. }) => None,
        Err(e) => panic!("the hub lost its greenlet: {e}"),
    }
}
