//! Tracing: a function of the user's that sees each transfer of control of its thread.
//!
//! A switch asks nobody whether it is traced. While a thread is, each of its greenlets that waits
//! is *disguised*: it seems to await a type that nobody sends, so that every switch to it takes the
//! way of switches that do not fit. There the disguise is seen through, and what is sent arrives as
//! [`Event::Traced`], which the receiver does not take for a plain value either. It calls the tracer
//! before it goes on. Who leaves is disguised again in `transfer`, where the event tells apart what
//! is traced while the program is compiled.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::block::Block;
use super::handle::Handle;
use super::pending::Pending;
use super::thread::{self, Thread};
use super::transfer::{self, Arrival, Event};
use super::{Greenlet, GreenletExit, SwitchError, throw};
use crate::quietly::quietly;

/// How control came to the target, mirroring the first argument of greenlet's trace functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceEvent {
    /// With a value, or with the news that a child has ended by
    /// [`GreenletExit`].
    Switch,
    /// With something that is raised there: a panic, a throw, a kill.
    Throw,
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Switch => "switch",
            Self::Throw => "throw",
        })
    }
}

/// What [`settrace`] takes: it is called with what happened, who gave up control, and who got it.
pub type Tracer = Rc<dyn Fn(TraceEvent, &Greenlet, &Greenlet)>;

/// What a thread knows of its tracing.
#[derive(Default)]
pub(super) struct Tracing {
    tracer: Cell<Option<Tracer>>,
    is_on: Cell<bool>,
    /// Who gave up control, between its leaving and the arrival.
    origin: Cell<Option<Handle>>,
}

impl Tracing {
    /// Whether there is a tracer.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on.get()
    }

    fn tracer(&self) -> Option<Tracer> {
        let tracer = self.tracer.take();
        let copy = tracer.clone();
        self.tracer.set(tracer);
        copy
    }
}

/// Has `tracer` called at each transfer of control between greenlets of this thread, and returns
/// what was called so far. Mirrors greenlet's `settrace`.
///
/// It runs in the target, before that goes on: so the target is the current greenlet. A switch to
/// the current greenlet counts, and one to a dead greenlet does with who gets the value in its
/// place. The switches of green threads and of the hub count as well.
///
/// The tracer may switch; those switches are traced, too, so one that always does never ends. If it
/// panics, it is removed, and its panic is raised in the target in place of what was to arrive,
/// which is dropped. A target that is killed while the tracer waits in it ends as if it had waited
/// there itself.
///
/// While there is no tracer a switch costs nothing for that; with one it is several times slower.
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use stolon::greenlet::{self, Greenlet};
///
/// let log = Rc::new(RefCell::new(Vec::new()));
/// let child = Greenlet::builder().name("child").build(|()| ())?;
/// let tracer = {
///     let log = Rc::clone(&log);
///     move |event, origin: &Greenlet, target: &Greenlet| {
///         let [origin, target] = [origin, target].map(|g| g.name().unwrap_or("main").to_owned());
///         log.borrow_mut().push(format!("{event} {origin} -> {target}"));
///     }
/// };
/// greenlet::settrace(tracer);
/// child.switch(())?;
/// greenlet::cleartrace();
/// assert_eq!(*log.borrow(), ["switch main -> child", "switch child -> main"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// When the thread is past the point in its exit at which its greenlets ended.
pub fn settrace(tracer: impl Fn(TraceEvent, &Greenlet, &Greenlet) + 'static) -> Option<Tracer> {
    replace(Some(Rc::new(tracer)))
}

/// What is called at each transfer of control on this thread, mirroring greenlet's `gettrace`.
pub fn gettrace() -> Option<Tracer> {
    transfer::try_current().and_then(|current| current.thread.tracing.tracer())
}

/// Ends what [`settrace`] began, and returns what was called so far. Mirrors `settrace(None)`.
pub fn cleartrace() -> Option<Tracer> {
    transfer::try_current()?;
    replace(None)
}

fn replace(tracer: Option<Tracer>) -> Option<Tracer> {
    let current = thread::current();
    let tracing = &current.thread.tracing;
    // Nobody is switched to any more on a thread that exits.
    let is_on = tracer.is_some() && !current.thread.is_sealed();
    set_on(&current, is_on);
    tracing.tracer.replace(tracer)
}

/// Has the thread's greenlets traced from now on, or not any more.
fn set_on(current: &Handle, is_on: bool) {
    if current.thread.tracing.is_on.replace(is_on) || is_on {
        current.thread.set_new_are_special();
        disguise_all(current);
    }
}

/// Ends the tracing of a thread that exits. The tracer stays, as dropping it runs the user's code.
pub(super) fn stop(current: &Handle) {
    set_on(current, false);
}

/// Disguises all greenlets of the thread, or none any more.
fn disguise_all(current: &Handle) {
    let is_on = current.thread.tracing.is_on();
    for greenlet in current.thread.registry.living().iter().chain([&thread::root_of(current)]) {
        if is_on { greenlet.disguise() } else { greenlet.undisguise() }
    }
}

/// Takes the tracer away from a thread that exits.
pub(super) fn end(thread: &Thread) {
    // What it captured is the user's.
    quietly(|| drop(thread.tracing.tracer.take()));
}

/// Called by the current greenlet as it leaves, by anything but a plain value, and will be back.
#[cold]
#[inline(never)]
pub(super) fn leaves(event: Event) {
    if let Some(current) = transfer::try_current() {
        if current.thread.tracing.is_on() {
            current.disguise();
            if event != Event::Visit {
                current.thread.tracing.origin.set(Some(current.clone()));
            }
        }
    }
}

/// Called when a greenlet has been made.
#[inline(always)]
pub(super) fn begins(block: &Block) {
    if block.thread.new_are_special() {
        begins_specially(block);
    }
}

#[cold]
#[inline(never)]
fn begins_specially(block: &Block) {
    if block.thread.is_sealed() {
        block.seal();
    } else {
        block.disguise();
    }
}

/// Called by the current greenlet as it leaves for ever: what the event that it sends becomes.
#[inline]
pub(super) fn departs(thread: &Thread, event: Event) -> Event {
    if thread.tracing.is_on() { departs_traced(thread, event) } else { event }
}

#[cold]
#[inline(never)]
fn departs_traced(thread: &Thread, event: Event) -> Event {
    thread.tracing.origin.set(transfer::try_current());
    if event == Event::Value { Event::Traced } else { event }
}

/// Shows the tracer what has reached the current greenlet, if its sender was traced; returns what
/// it goes on with.
pub(super) fn arrives<T>(arrival: Arrival<T>) -> Arrival<T> {
    let Some(target) = transfer::try_current() else { return arrival };
    match target.thread.tracing.origin.take() {
        Some(origin) => show(origin, target, arrival),
        None => arrival,
    }
}

/// What the current greenlet sends to itself.
pub(super) fn stays<T>(arrival: Arrival<T>) -> Result<T, SwitchError<T>> {
    match transfer::try_current() {
        Some(current) if current.thread.tracing.is_on() => {
            throw::raise(show(current.clone(), current, arrival))
        }
        _ => throw::raise(arrival),
    }
}

/// While a tracer is under way on the stack of the current greenlet, with what it leaves to be dropped.
struct Traced {
    /// Whether another one is, further up.
    before: bool,
}

impl Traced {
    fn begin() -> Self {
        let before = transfer::is_pending(Pending::traced);
        transfer::with_pending(|pending| pending.set_traced(true));
        Self { before }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        transfer::with_pending(|pending| pending.set_traced(self.before));
    }
}

fn show<T>(origin: Handle, target: Handle, arrival: Arrival<T>) -> Arrival<T> {
    let thread = Rc::clone(&target.thread);
    let Some(tracer) = thread.tracing.tracer() else { return arrival };
    let _traced = Traced::begin();
    let event = match &arrival {
        Arrival::Value(_) | Arrival::Exit => TraceEvent::Switch,
        Arrival::Throw(_) | Arrival::Kill => TraceEvent::Throw,
    };
    // The references are dropped in there, too: they may be the last ones by now.
    let shown = catch_unwind(AssertUnwindSafe(|| {
        tracer(event, &Greenlet::from_handle(origin), &Greenlet::from_handle(target));
        drop(tracer);
    }));
    let Err(payload) = shown else { return arrival };
    quietly(|| drop(arrival));
    if payload.is::<GreenletExit>() {
        // The target was killed while the tracer waited in it.
        return Arrival::Kill;
    }
    quietly(|| drop(cleartrace()));
    Arrival::Throw(payload)
}
