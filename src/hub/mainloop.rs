//! The mainloop: the greenlet that fires timers, waits for descriptors, and starts green threads.

use std::fmt::Write;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::call_table::Deed;
use super::{BUDGET, Hub, IO_BUDGET, ROUND_IS_OVER, Wake, interrupt};
use crate::clock::Time;
use crate::greenlet::{self, Greenlet, GreenletExit};
use crate::quietly::dispose;

impl Hub {
    /// The greenlet that runs the loop; made when there is none yet or the last one died of a
    /// panic.
    #[inline]
    pub(crate) fn mainloop(self: &Rc<Self>) -> io::Result<Greenlet<Wake>> {
        match self.living_mainloop(Greenlet::clone) {
            Some(mainloop) => Ok(mainloop),
            None => self.make_mainloop(),
        }
    }

    /// What `f`, which does no more than that, copies of the mainloop, if there is one.
    #[inline(always)]
    pub(super) fn living_mainloop<R>(&self, f: impl FnOnce(&Greenlet<Wake>) -> R) -> Option<R> {
        let mainloop = self.mainloop.take();
        let copy = mainloop.as_ref().filter(|mainloop| !mainloop.is_dead()).map(f);
        // There was none meanwhile: nothing to drop.
        mem::forget(self.mainloop.replace(mainloop));
        copy
    }

    /// The mainloop, dead or alive, if there was ever one.
    pub(super) fn last_mainloop(&self) -> Option<Greenlet<Wake>> {
        let mainloop = self.mainloop.take();
        self.mainloop.set(mainloop.clone());
        mainloop
    }

    #[cold]
    #[inline(never)]
    fn make_mainloop(self: &Rc<Self>) -> io::Result<Greenlet<Wake>> {
        let dead = self.last_mainloop();
        let (hub, creator) = (Rc::clone(self), greenlet::current());
        let mainloop = Greenlet::builder().name("mainloop").parent(&greenlet::root::<()>()).build(
            move |_| match hub.simulation {
                None => hub.run::<false>(creator),
                Some(_) => hub.run::<true>(creator),
            },
        )?;
        mainloop.becomes_loop(interrupt::scheduler(self));
        // Up to its first line, so that it waits like any other from here on.
        mainloop.start_aside(Wake::Start);
        if let Some(dead) = dead {
            // Green threads that are its children end in a living loop all the same.
            dead.inherit(&mainloop);
        }
        self.place_of_mainloop.set(mainloop.place());
        drop(self.mainloop.replace(Some(mainloop.clone())));
        Ok(mainloop)
    }

    /// The mainloop, of the real world or of a simulated one.
    fn run<const SIMULATED: bool>(self: &Rc<Self>, creator: Greenlet<Wake>) -> Wake {
        self.undisturbed(|| self.let_run(creator, Wake::Start));
        if self.closed.get() {
            return Wake::Ended;
        }
        loop {
            self.note_time();
            self.fire_timers();
            self.turn_begins();
            self.take_mail();
            if SIMULATED {
                self.run_ready_simulated();
            } else {
                self.run_ready();
            }
            if self.closed.get() {
                return Wake::Ended;
            }
            if self.do_what_is_late() {
                return Wake::Ended;
            }
            if SIMULATED {
                self.poll_simulated();
            } else {
                self.poll();
            }
        }
    }

    /// Runs who can run, up to the budget. Returns how many turns that took.
    pub(super) fn run_ready(&self) -> u32 {
        if self.has_to_watch() {
            return self.run_ready_watched();
        }
        self.budget.set(BUDGET);
        self.floor.set(BUDGET - self.round());
        self.observed.counts.turns_begin(BUDGET);
        while !self.undisturbed(|| self.hand_out_turns()) {}
        // In a call that the mainloop makes next, nobody hands over to another.
        let left = self.budget.replace(0);
        self.observed.counts.turns_end(left);
        BUDGET - left
    }

    /// The next one, for a green thread to leave for that has ended; if its parent is the mainloop, and
    /// would do no more than that.
    #[inline(always)]
    pub(super) fn successor(&self, parent: u32) -> Option<(Greenlet<Wake>, Wake)> {
        let left = self.budget.get().checked_sub(1)?;
        if parent != self.place_of_mainloop.get() {
            return None;
        }
        let next = self.run_queue.borrow_mut().next_for_ended()?;
        self.budget.set(left);
        self.io_budget.set(IO_BUDGET);
        Some(next)
    }

    fn hand_out_turns(&self) {
        while let Some(left) = self.budget.get().checked_sub(1) {
            let Some((greenlet, wake)) = self.next_if(|_| true) else { break };
            self.budget.set(left);
            self.let_run(greenlet, wake);
            if self.closed.get() || self.floor.get() == ROUND_IS_OVER {
                break;
            }
        }
    }

    /// Fires all timers that are due now. What is set meanwhile waits for the next time, so that a
    /// callback which schedules itself anew keeps nobody from running.
    fn fire_timers(&self) {
        let Some(now) = self.look_at_timers() else { return };
        self.timers.borrow_mut().begin_pass();
        while let Some(call) = self.wake_until_call(now) {
            self.turn_begins();
            self.run_call(call);
        }
        self.timers.borrow_mut().end_pass();
    }

    /// The time, if there are timers; how late the first is counts.
    pub(super) fn look_at_timers(&self) -> Option<Time> {
        let timers = self.timers.borrow();
        if timers.is_empty() {
            return None;
        }
        let now = self.clock.now();
        self.observed.counts.look_at_lag(timers.next_deadline(), now);
        Some(now)
    }

    /// Wakes those whose time has come, up to the first call that is due among them: to be run when
    /// nothing is borrowed.
    fn wake_until_call(&self, now: Time) -> Option<u32> {
        self.wake_due(now);
        match self.timers.borrow_mut().pop_due(now)?.deed() {
            Deed::Call(call) => Some(call),
            Deed::Wake(_) => unreachable!("all up to the first call were woken"),
        }
    }

    /// Wakes those whose time has come, up to the first call that is due among them.
    pub(super) fn wake_due(&self, now: Time) {
        let (mut timers, mut queue) = (self.timers.borrow_mut(), self.run_queue.borrow_mut());
        while let Some(Deed::Wake(wait)) = timers.first_due(now).map(|due| due.deed()) {
            timers.pop_due(now);
            queue.wake(wait, Wake::Expired);
        }
    }

    /// Waits for descriptors: not at all if someone can run, else until the next deadline.
    fn poll(&self) {
        let timeout = if self.run_queue.borrow().is_empty() {
            let next = self.timers.borrow().next_deadline();
            if next.is_never() && !self.hears_of_others() {
                panic!("{}", self.deadlock_report());
            }
            if next.is_never() { None } else { next.remaining(self.clock.now()) }
        } else if self.fds.anyone_waits() {
            Some(Duration::ZERO)
        } else {
            self.run_queue.borrow_mut().do_io = false;
            return;
        };
        self.ask_poller(timeout);
    }

    /// Whether what happens outside may wake someone.
    pub(super) fn hears_of_others(&self) -> bool {
        self.fds.anyone_waits() || self.remote.may_come()
    }

    /// Waits for descriptors, and wakes those who waited for what has happened.
    pub(super) fn ask_poller(&self, timeout: Option<Duration>) {
        let mut events = self.events.borrow_mut();
        self.observed.counts.polled();
        self.turn_is_nobodys();
        if let Err(e) =
            self.with_poller(|poller| poller.wait(&mut events, timeout)).and_then(|waited| waited)
        {
            panic!("the hub cannot wait for descriptors: {e}");
        }
        self.turn_begins();
        let mut queue = self.run_queue.borrow_mut();
        queue.do_io = !events.is_empty();
        self.fds.dispatch(events.iter(), |wait| {
            queue.wake(wait, Wake::Ready);
        });
    }

    /// What to say when nothing can wake anyone any more.
    pub(super) fn deadlock_report(&self) -> String {
        let mut report = String::from("this operation would block forever: nothing can wake");
        for (greenlet, waits_for, _) in self.run_queue.borrow().parked() {
            // Writing to a string does not fail.
            let _ = write!(report, "\n  {greenlet:?}, which waits for {waits_for}");
        }
        report
    }

    /// Leaves the mainloop for a greenlet whose turn has come, and returns when a green thread has
    /// ended, or hands over; or at once if there was nobody to run, as it ended or was abandoned when
    /// its turn came.
    #[inline]
    pub(super) fn let_run(&self, greenlet: Greenlet<Wake>, wake: Wake) {
        let _turn = BetweenTurns::new(self);
        greenlet.switch_into_and(wake, |_| ());
    }

    /// Runs `f`, which leaves the mainloop, and says whether it came to its end: what ends here as a
    /// child of the mainloop disturbs nobody.
    pub(super) fn undisturbed(&self, f: impl FnOnce()) -> bool {
        let Err(payload) = catch_unwind(AssertUnwindSafe(f)) else { return true };
        if payload.is::<GreenletExit>() {
            // The mainloop itself has to end.
            resume_unwind(payload);
        }
        // A child's panic, which the panic hook has reported: of a destructor after the end of a green
        // thread, or of a greenlet that outlived the green thread which made it.
        dispose(payload);
        false
    }
}

/// While the mainloop is suspended for somebody's turn, with only its own frames on its stack.
pub(super) struct BetweenTurns<'a>(&'a Hub);

impl<'a> BetweenTurns<'a> {
    #[inline(always)]
    pub(super) fn new(hub: &'a Hub) -> Self {
        hub.is_between_turns.set(true);
        Self(hub)
    }
}

impl Drop for BetweenTurns<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.is_between_turns.set(false);
    }
}
