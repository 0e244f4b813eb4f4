//! The hub: one per thread, made on first use, it runs green threads and waits for the world on
//! their behalf.
//!
//! Layer 5. Knows greenlets, timers and the poller. Its loop is a greenlet of its own, the
//! *mainloop*, a child of the thread's root and the parent of all green threads. A greenlet that
//! [parks](waiter) hands control to the next runnable one directly. The mainloop runs when none is
//! runnable, when one is to be started, and at the latest after [`BUDGET`] hand-overs: then due
//! timers fire and the poller is asked, so that no crowd of runnable greenlets keeps timers or
//! sockets waiting.
//!
//! ```text
//!         wake                     next               switch
//!   timer ----.                 .-------- run queue <-------- park (deadline, descriptor, green thread, ...)
//!   event ----+--> run queue ---+                       |
//!   green ----'                 '--> mainloop <---------'  queue empty, budget spent, one to be started
//! ```

mod current;
mod fd;
mod run_queue;
pub(crate) mod waiter;

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use crate::clock::{Clock, Deadline};
use crate::greenlet::{self, Greenlet, GreenletExit, SwitchError};
use crate::poller::{Events, Poller};
use crate::timers::Timers;
pub(crate) use current::{current, try_current};
use fd::FdTable;
pub(crate) use fd::{Direction, Drained, Source};
use run_queue::{Next, RunQueue};
pub(crate) use run_queue::{WaitId, WaitsFor};
pub(crate) use waiter::Wait;

/// So many times control is handed on before the mainloop looks at timers and descriptors again.
const BUDGET: u32 = 128;

/// So many operations on descriptors are tried without waiting before their greenlet has to let
/// others run.
const IO_BUDGET: u32 = 64;

/// Why a parked greenlet runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    timers: RefCell<Timers<WaitId>>,
    poller: Poller,
    events: RefCell<Events>,
    fds: RefCell<FdTable>,
    mainloop: RefCell<Option<Greenlet<Wake>>>,
    /// Whether the mainloop is the current greenlet.
    in_mainloop: Cell<bool>,
    /// Who was killed and could not unwind.
    late_kills: RefCell<Vec<Greenlet<Wake>>>,
    /// Hand-overs that are left before the mainloop's turn.
    budget: Cell<u32>,
    /// Operations that are left before the current greenlet has to yield.
    io_budget: Cell<u32>,
    /// Whether the thread is exiting: nobody parks any more.
    closed: Cell<bool>,
}

impl Hub {
    fn new(clock: Clock) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            clock,
            run_queue: RefCell::default(),
            timers: RefCell::new(Timers::new()),
            poller: Poller::new()?,
            events: RefCell::new(Events::new()),
            fds: RefCell::default(),
            mainloop: RefCell::new(None),
            in_mainloop: Cell::new(false),
            late_kills: RefCell::default(),
            budget: Cell::new(BUDGET),
            io_budget: Cell::new(IO_BUDGET),
            closed: Cell::new(false),
        }))
    }

    /// The deadline that is `timeout` from now; never if there is none.
    pub(crate) fn deadline_after(&self, timeout: Option<Duration>) -> Deadline {
        match timeout {
            Some(timeout) => Deadline::after(self.clock.now(), timeout),
            None => Deadline::NEVER,
        }
    }

    /// Ends a wait, and makes its greenlet runnable. False if that wait was over.
    pub(crate) fn wake(&self, id: WaitId, wake: Wake) -> bool {
        self.run_queue.borrow_mut().wake(id, wake)
    }

    /// Makes a new greenlet runnable for the first time.
    pub(crate) fn start(&self, greenlet: Greenlet<Wake>) {
        self.run_queue.borrow_mut().push(greenlet, Wake::Start, None);
    }

    /// The greenlet that runs the loop; made when there is none yet or the last one died of a
    /// panic.
    pub(crate) fn mainloop(self: &Rc<Self>) -> io::Result<Greenlet<Wake>> {
        let existing = self.mainloop.borrow().clone();
        match existing {
            Some(mainloop) if !mainloop.is_dead() => Ok(mainloop),
            existing => {
                let (hub, creator) = (Rc::clone(self), greenlet::current());
                let mainloop = Greenlet::builder()
                    .name("mainloop")
                    .parent(&greenlet::root::<()>())
                    .build(move |_| hub.run(creator))?;
                mainloop.end_with_thread();
                // Up to its first line, so that it waits like any other from here on.
                let _ = mainloop.switch(Wake::Start);
                if let Some(dead) = existing {
                    // Green threads that are its children end in a living loop all the same.
                    dead.inherit(&mainloop);
                }
                *self.mainloop.borrow_mut() = Some(mainloop.clone());
                Ok(mainloop)
            }
        }
    }

    /// Called before the current greenlet parks.
    fn may_block(&self) {
        greenlet::raise_pending_kill();
        let in_mainloop = self.in_mainloop.get();
        assert!(!in_mainloop, "do not call blocking functions from the mainloop");
    }

    /// Leaves the current greenlet, which is parked or stands in the queue; returns why it runs
    /// again.
    fn switch_away(self: &Rc<Self>) -> Wake {
        self.io_budget.set(IO_BUDGET);
        loop {
            let resumed = match self.next_for_hand_over() {
                Some((greenlet, wake)) => greenlet.switch_into(wake),
                None => match self.mainloop() {
                    Ok(mainloop) => mainloop.switch_into(Wake::Turn),
                    Err(e) => panic!("the hub's mainloop could not be started: {e}"),
                },
            };
            match resumed {
                // A green thread ended whose mainloop has died, and this greenlet is next of kin.
                Ok(Wake::Ended) => {}
                Ok(wake) => return wake,
                // A child that the greenlet made for itself was killed. That is not what it waits
                // for.
                Err(SwitchError::Exited) => {}
                Err(e) => panic!("the hub lost its greenlet: {e}"),
            }
        }
    }

    /// Makes a greenlet that is not the current one unwind now. The current one goes on at its next
    /// turn.
    pub(crate) fn exit_greenlet(self: &Rc<Self>, victim: &Greenlet<Wake>) {
        let wait = Wait::begin(self, WaitsFor::Turn);
        wait.stand_in_queue();
        // Else it was dead already, or this greenlet's turn has come.
        let ended_here = matches!(victim.exit_now::<Wake>(), Some(Ok(Wake::Ended) | Err(_)));
        if victim.has_pending_kill() {
            self.late_kills.borrow_mut().push(victim.clone());
        }
        if ended_here {
            self.switch_away();
        }
    }

    /// Kills again those who could not unwind when they were killed, as they or another greenlet of
    /// the thread was unwinding.
    fn kill_late(&self) {
        if self.late_kills.borrow().is_empty() || thread::panicking() {
            return;
        }
        for victim in self.late_kills.take() {
            if victim.has_pending_kill() && !victim.is_dead() {
                self.leave_for(|| victim.exit_now());
            }
        }
    }

    /// The next runnable greenlet, if the current one may hand over to it directly: it has started,
    /// it is not the current one itself, and it is not the mainloop's turn.
    fn next_for_hand_over(&self) -> Option<(Greenlet<Wake>, Wake)> {
        let left = self.budget.get().checked_sub(1)?;
        let next = self.next_if(|next| next.is_started() && !next.is_current())?;
        self.budget.set(left);
        Some(next)
    }

    /// The first in the queue that waits for its turn, if `accept` takes it.
    #[inline]
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

    /// The mainloop.
    fn run(self: &Rc<Self>, creator: Greenlet<Wake>) -> Wake {
        let _leaves = LeavesMainloop(self);
        self.let_run(creator, Wake::Start);
        loop {
            self.fire_timers();
            self.run_ready();
            self.kill_late();
            if self.closed.get() {
                // Told to end when it could not unwind, as a destructor waits that never ends.
                return Wake::Ended;
            }
            self.poll();
        }
    }

    /// Runs who can run, up to the budget.
    fn run_ready(&self) {
        self.budget.set(BUDGET);
        while let Some(left) = self.budget.get().checked_sub(1) {
            self.budget.set(left);
            let Some((greenlet, wake)) = self.next_if(|_| true) else { break };
            self.let_run(greenlet, wake);
            if self.closed.get() {
                break;
            }
        }
    }

    fn fire_timers(&self) {
        let mut timers = self.timers.borrow_mut();
        if timers.is_empty() {
            return;
        }
        let now = self.clock.now();
        timers.begin_pass();
        while let Some(wait) = timers.pop_due(now) {
            self.wake(wait, Wake::Expired);
        }
        timers.end_pass();
    }

    /// Waits for descriptors: not at all if someone can run, else until the next deadline.
    fn poll(&self) {
        let timeout = if self.run_queue.borrow().is_empty() {
            let next = self.timers.borrow().next_deadline();
            if next.is_never() && !self.fds.borrow().anyone_waits() {
                panic!("{}", self.deadlock_report());
            }
            if next.is_never() { None } else { next.remaining(self.clock.now()) }
        } else {
            Some(Duration::ZERO)
        };
        let mut events = self.events.borrow_mut();
        if let Err(e) = self.poller.wait(&mut events, timeout) {
            panic!("the hub cannot wait for descriptors: {e}");
        }
        let mut fds = self.fds.borrow_mut();
        for event in events.iter() {
            for wait in fds.dispatch(&event).into_iter().flatten() {
                self.wake(wait, Wake::Ready);
            }
        }
    }

    /// What to say when nothing can wake anyone any more.
    fn deadlock_report(&self) -> String {
        let mut report = String::from("this operation would block forever: nothing can wake");
        for (greenlet, waits_for) in self.run_queue.borrow().parked() {
            // Writing to a string does not fail.
            let _ = write!(report, "\n  {greenlet:?}, which waits for {waits_for}");
        }
        report
    }

    /// Counts an operation that is about to be tried; too many in a row without waiting give others
    /// a turn.
    pub(crate) fn spend_io(self: &Rc<Self>) {
        match self.io_budget.get().checked_sub(1) {
            Some(left) => self.io_budget.set(left),
            None => {
                Wait::begin(self, WaitsFor::Turn).yield_now();
            }
        }
    }

    /// Leaves the mainloop for a greenlet whose turn has come.
    fn let_run(&self, greenlet: Greenlet<Wake>, wake: Wake) {
        // A new one is held until it first comes back: often that is its end, and then its block is
        // freed right here.
        self.leave_for(|| match wake {
            Wake::Start => Some(greenlet.switch(wake)),
            _ => Some(greenlet.switch_into(wake)),
        });
    }

    /// Leaves the mainloop by `switch`. What ends here as a child of the mainloop disturbs nobody.
    fn leave_for(&self, switch: impl FnOnce() -> Option<Result<Wake, SwitchError<Wake>>>) {
        self.in_mainloop.set(false);
        let back = catch_unwind(AssertUnwindSafe(switch));
        self.in_mainloop.set(true);
        match back {
            // A green thread has ended, or hands over; or there was nobody to run, as it ended or
            // was abandoned when its turn came.
            Ok(_) => {}
            // The mainloop itself has to end.
            Err(payload) if payload.is::<GreenletExit>() => resume_unwind(payload),
            // A child's panic, which the panic hook has reported: of a destructor after the end of
            // a green thread, or of a greenlet that outlived the green thread which made it. Its
            // own destructor might panic.
            Err(payload) => std::mem::forget(payload),
        }
    }
}

/// Notes that the mainloop is not the current greenlet any more when it ends, by a panic too.
struct LeavesMainloop<'a>(&'a Hub);

impl Drop for LeavesMainloop<'_> {
    fn drop(&mut self) {
        self.0.in_mainloop.set(false);
    }
}
