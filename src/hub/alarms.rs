//! Alarms: deadlines of a greenlet that hold over all its waits, for timeouts.
//!
//! A greenlet has a list of its own with the alarms that it has set, and a note that there are some.
//! Without that note nothing of this is looked at. With it:
//!
//! | the greenlet | when an alarm's moment has come |
//! |---|---|
//! | is parked, or parks afterwards | it is woken, and the payload raised, of several that of the earliest |
//! | yields | the payload is raised when its turn comes |
//! | was woken already | it goes on; the next time that it parks or yields the payload is raised |
//! | unwinds | waits in its destructors as if there were none |
//!
//! Where it cannot be told which greenlet of the thread unwinds ([`greenlet::is_unwinding`]), the alarm of
//! one that parks meanwhile is *late*: it gets its timer when nobody unwinds any more. A greenlet that
//! does not unwind when it parks does not before it is resumed, whatever others do.
//!
//! A greenlet sets its own alarms only, but others may cancel them.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::resume_unwind;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::{Due, Hub, Wait, WaitId, WaitsFor, Wake};
use crate::clock::Deadline;
use crate::greenlet::{self, Local};
use crate::timers::TimerId;

/// How long a destructor may wait for a descriptor while a kill or a timeout unwinds its greenlet.
const GRACE: Duration = Duration::from_secs(1);

/// Makes what an alarm raises. It is the user's code.
pub(crate) type MakePayload = dyn Fn() -> Box<dyn Any + Send>;

/// The current greenlet's list.
static OWN: Local<Rc<List>> = Local::new(Rc::default);

/// An alarm that was set, until it is cancelled or raised.
pub(crate) struct Alarm {
    entry: Rc<Entry>,
    list: Weak<List>,
}

struct Entry {
    deadline: Deadline,
    payload: Rc<MakePayload>,
    is_pending: Cell<bool>,
}

/// The alarms of one greenlet.
#[derive(Default)]
struct List {
    /// In the order in which they were set.
    entries: RefCell<Vec<Rc<Entry>>>,
    /// While the greenlet is parked, if an alarm may end that.
    parked: RefCell<Option<Rc<Parked>>>,
}

/// A parked greenlet's next alarm.
pub(super) struct Parked {
    wait: WaitId,
    /// That of the wait itself. The alarm's is no later, or there is no timer for it.
    deadline: Deadline,
    alarm: Cell<Deadline>,
    /// None while the alarm is late.
    timer: Cell<Option<TimerId>>,
}

impl Alarm {
    /// Has what `payload` makes raised in the current greenlet when it waits and `duration` has
    /// passed. Sets nothing on a thread that is exiting, where nobody waits.
    ///
    /// # Panics
    ///
    /// In the destructor of a greenlet-local value, if those of alarms are gone already; and when no
    /// hub can be made.
    pub(crate) fn set(duration: Duration, payload: &Rc<MakePayload>) -> Option<Self> {
        let hub = super::current()?;
        let deadline = hub.deadline_after(Some(duration));
        let (payload, is_pending) = (Rc::clone(payload), Cell::new(true));
        let entry = Rc::new(Entry { deadline, payload, is_pending });
        let list = OWN.with(Rc::clone);
        list.entries.borrow_mut().push(Rc::clone(&entry));
        greenlet::set_has_timeouts(true);
        Some(Self { entry, list: Rc::downgrade(&list) })
    }

    /// Whether it was neither raised nor cancelled.
    pub(crate) fn is_pending(&self) -> bool {
        self.entry.is_pending.get() && self.list.strong_count() > 0
    }

    /// Sees to it that it is not raised, unless its greenlet has been woken for that already.
    pub(crate) fn cancel(&self) {
        if !self.entry.is_pending.replace(false) {
            return;
        }
        if let Some(list) = self.list.upgrade() {
            list.cancel(&self.entry);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("deadline", &self.entry.deadline).finish_non_exhaustive()
    }
}

impl List {
    /// The current greenlet's, if it has alarms. Takes the note away from one that has no more.
    fn own() -> Option<Rc<Self>> {
        if !greenlet::has_timeouts() {
            return None;
        }
        let list = OWN.with(Rc::clone);
        let is_empty = list.entries.borrow().is_empty();
        if is_empty {
            greenlet::set_has_timeouts(false);
        }
        (!is_empty).then_some(list)
    }

    /// Not of those that were cancelled too late, if a kill came before they were raised.
    fn earliest(&self) -> Deadline {
        let entries = self.entries.borrow();
        let pending = entries.iter().filter(|entry| entry.is_pending.get());
        pending.map(|entry| entry.deadline).min().unwrap_or(Deadline::NEVER)
    }

    fn remove(&self, entry: &Rc<Entry>) {
        let mut entries = self.entries.borrow_mut();
        // Scopes end in the reverse order in which they began.
        let at = entries.iter().rposition(|other| Rc::ptr_eq(other, entry));
        let removed = at.map(|at| entries.remove(at));
        drop(entries);
        // Its destructor may be the user's.
        drop(removed);
    }

    fn cancel(&self, entry: &Rc<Entry>) {
        let parked = self.parked.borrow().clone();
        let (Some(parked), Some(hub)) = (parked, super::current()) else {
            return self.remove(entry);
        };
        // By another greenlet, as the list's own is parked.
        if parked.has_fired(&hub) && entry.deadline <= parked.alarm.get() {
            return;
        }
        self.remove(entry);
        parked.set_alarm(&hub, self.earliest());
    }

    /// Raises the first alarm with this deadline, one that was cancelled too late if there is no other.
    fn raise_first(&self, deadline: Deadline) {
        let entries = self.entries.borrow();
        let due = || entries.iter().filter(|entry| entry.deadline == deadline);
        let pending = due().find(|entry| entry.is_pending.get());
        let entry = pending.or_else(|| due().next()).cloned();
        drop(entries);
        let Some(entry) = entry else { return };
        self.remove(&entry);
        entry.is_pending.set(false);
        if cfg!(panic = "abort") {
            panic!("a timeout cannot be raised: panics abort here");
        }
        greenlet::settle();
        greenlet::set_raised();
        resume_unwind((entry.payload)());
    }

    /// Forgets what was cancelled too late, and was not raised after all.
    fn forget_cancelled(&self) {
        let is_pending = |entry: &Rc<Entry>| entry.is_pending.get();
        if !self.entries.borrow().iter().all(is_pending) {
            let (pending, cancelled) = self.entries.take().into_iter().partition(is_pending);
            *self.entries.borrow_mut() = pending;
            // Here, as its destructor may be the user's.
            drop::<Vec<_>>(cancelled);
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // On the stack of its greenlet, which ends.
        greenlet::set_has_timeouts(false);
    }
}

impl Parked {
    /// Whether the greenlet has been woken for its alarm.
    fn has_fired(&self, hub: &Hub) -> bool {
        self.timer.get().is_some_and(|timer| !hub.timers.borrow().is_pending(timer))
    }

    /// Changes the alarm of a parked greenlet to a later one.
    fn set_alarm(&self, hub: &Hub, alarm: Deadline) {
        self.alarm.set(alarm);
        if let Some(timer) = self.timer.take() {
            hub.timers.borrow_mut().cancel(timer);
            self.set_timer(hub);
        }
    }

    pub(super) fn set_timer(&self, hub: &Hub) {
        let alarm = self.alarm.get();
        if !alarm.is_never() && alarm <= self.deadline {
            self.timer.set(Some(hub.timers.borrow_mut().insert(alarm, Due::wake(self.wait))));
        }
    }
}

/// While the current greenlet is parked.
struct Parking<'a> {
    hub: &'a Rc<Hub>,
    list: &'a List,
    parked: &'a Rc<Parked>,
}

impl Drop for Parking<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.parked.timer.get() {
            self.hub.timers.borrow_mut().cancel(timer);
        }
        self.list.parked.take();
        self.hub.late.remove_alarm(self.parked);
    }
}

impl Hub {
    /// Raises the current greenlet's earliest alarm, if it is due and this greenlet does not unwind.
    /// Others have had their turns by now, so who sets alarms that are due at once starves nobody.
    pub(super) fn raise_due_alarm(&self) {
        if let Some(list) = List::own() {
            let due = list.earliest();
            if due.is_past(self.clock.now()) && !greenlet::is_unwinding() {
                list.raise_first(due);
            }
        }
    }

    /// The deadline of a wait: of one for a descriptor a short one, where a kill or a timeout unwinds the
    /// greenlet.
    fn least_deadline(&self, waits_for: WaitsFor, deadline: Deadline) -> Deadline {
        let is_ending = greenlet::is_being_ended();
        if is_ending && waits_for.is_io() {
            deadline.min(self.deadline_after(Some(GRACE)))
        } else {
            deadline
        }
    }

    /// Parks the current greenlet, which may have alarms, or a late kill.
    #[cold]
    #[inline(never)]
    pub(super) fn park_disturbed(self: &Rc<Self>, wait: Wait, deadline: Deadline) -> Wake {
        self.may_block();
        let _away = self.note_unwinding();
        let deadline = self.least_deadline(wait.waits_for(), deadline);
        match List::own() {
            Some(list) if list.earliest() <= deadline => {
                self.park_with_alarm(&list, wait, deadline)
            }
            _ => self.park_until(wait, deadline),
        }
    }

    fn park_with_alarm(self: &Rc<Self>, list: &Rc<List>, wait: Wait, deadline: Deadline) -> Wake {
        let may_raise = !greenlet::is_unwinding();
        let (id, alarm) = (wait.id(), list.earliest());
        let (alarm, timer) = (Cell::new(alarm), Cell::new(None));
        let parked = Rc::new(Parked { wait: id, deadline, alarm, timer });
        *list.parked.borrow_mut() = Some(Rc::clone(&parked));
        let parking = Parking { hub: self, list, parked: &parked };
        if may_raise {
            parked.set_timer(self);
        } else {
            self.late.add_alarm(&parked);
        }
        let wake = self.park_beside_timers(wait, deadline);
        let has_fired = wake == Wake::Expired && parked.has_fired(self);
        drop(parking);
        if has_fired {
            list.raise_first(parked.alarm.get());
        }
        list.forget_cancelled();
        wake
    }
}
