//! Entry: how a greenlet's closure gets onto its stack, is run, and how its end is delivered.
#![allow(unsafe_code)]

use std::any::type_name;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit, forget, replace};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use super::GreenletExit;
use super::block::{Block, Stage};
use super::exit::Death;
use super::handle::{Handle, Link};
use super::transfer::{self, Arrival, Event, Payload};
use super::tree::nearest_living_ancestor;
use super::{Greenlet, local, thread, tracing, unwinding};
use crate::arch::{Context, Departure, STACK_ALIGNMENT, Word};
use crate::quietly::quietly;
use crate::stack::{MIN_STACK_BYTES, Stack};

/// Closures larger than this, in bytes, go to the heap and not onto the new stack.
const MAX_CLOSURE_BYTES: usize = 2048;

/// So many copies of a value may lie on a greenlet's stack at once on its way in or out, where the
/// compiler does not optimise.
const VALUE_COPIES: usize = 24;

/// So many bytes fit onto any stack.
const FITS_ALWAYS: usize = MIN_STACK_BYTES / 2;

/// For whom a greenlet leaves that has ended with a value.
pub(crate) trait Successor<T: 'static>: Copy {
    /// Told the place of its parent, it says for whom it leaves instead, if for anybody, and makes the
    /// value what that one gets; who awaits a `T`, and to whom somebody else refers, too. It runs no
    /// code of the user's and does not switch.
    fn succeed(self, parent: u32, value: &mut T) -> Option<Greenlet<T>>;
}

/// For its parent.
#[derive(Clone, Copy)]
pub(super) struct Parent;

impl<T: 'static> Successor<T> for Parent {
    #[inline(always)]
    fn succeed(self, _: u32, _: &mut T) -> Option<Greenlet<T>> {
        None
    }
}

/// What a greenlet's closure came to.
enum Outcome {
    /// The value lies in its record.
    Value,
    Panic(Payload),
    Exit,
}

/// Lies at the top of a greenlet's stack, above everything that is ever pushed there.
#[repr(C)]
struct Record<T, F, S> {
    /// Filled in at the very end, and read by the first frame when all Rust frames are gone.
    departure: Departure,
    block: *const Block,
    run: ManuallyDrop<F>,
    successor: S,
    /// What the closure returned. If that does not fit into a word it stays until its receiver takes it.
    result: MaybeUninit<T>,
}

/// Gives an unstarted block a stack with `run` on it: the first switch to it calls `run`, and when it
/// has ended `successor`.
///
/// # Errors
///
/// When the stack is too small for the closure and its result.
#[inline(always)]
pub(super) fn prepare<T: 'static, F>(
    block: &Link,
    stack: Stack,
    run: F,
    successor: impl Successor<T>,
) -> io::Result<()>
where
    F: FnOnce(T) -> T + 'static,
{
    if const { size_of::<F>() > MAX_CLOSURE_BYTES } {
        let on_heap: Box<dyn FnOnce(T) -> T> = Box::new(run);
        place(block, stack, on_heap, successor)
    } else {
        place(block, stack, run, successor)
    }
}

#[inline(always)]
fn place<T: 'static, F, S>(block: &Link, stack: Stack, run: F, successor: S) -> io::Result<()>
where
    F: FnOnce(T) -> T + 'static,
    S: Successor<T>,
{
    let alignment = const {
        if align_of::<Record<T, F, S>>() > STACK_ALIGNMENT {
            align_of::<Record<T, F, S>>()
        } else {
            STACK_ALIGNMENT
        }
    };
    let record_bytes = size_of::<Record<T, F, S>>() + alignment;
    // An over-aligned value may take up to its alignment more, each time.
    let copies_bytes = (size_of::<T>() + align_of::<T>()).saturating_mul(VALUE_COPIES);
    let needed_bytes = record_bytes.saturating_add(copies_bytes);
    if needed_bytes > FITS_ALWAYS && needed_bytes > stack.usable_bytes() / 4 * 3 {
        return Err(too_small(stack, size_of::<T>(), needed_bytes));
    }
    let record = stack.top().wrapping_sub(size_of::<Record<T, F, S>>());
    let record = record.map_addr(|address| address & !(alignment - 1));
    let departure = Departure { to: ptr::null(), value: Word::uninit(), event: 0 };
    let content = Record::<T, F, S> {
        departure,
        block: block.as_ptr(),
        run: ManuallyDrop::new(run),
        successor,
        result: MaybeUninit::uninit(),
    };
    // SAFETY: the stack is ours and unused; the record was checked to fit below its top, and is
    // aligned.
    unsafe { record.cast::<Record<T, F, S>>().write(content) };
    // SAFETY: an unstarted block's context is nobody else's.
    unsafe { (*block.context.get()).prepare(record, entry::<T, F, S>, record.cast()) };
    #[cfg(stolon_asan)]
    // SAFETY: as above; it stays in the block.
    unsafe {
        (*block.context.get()).announce(stack.span().bottom())
    };
    block.set_stack(stack);
    block.set_takes::<T>();
    Ok(())
}

#[cold]
#[inline(never)]
fn too_small(stack: Stack, value_bytes: usize, needed_bytes: usize) -> io::Error {
    let text = format!(
        "a stack of {} bytes is too small for values of {value_bytes} bytes: box them, or ask for a \
         stack of {} bytes",
        stack.usable_bytes(),
        needed_bytes / 3 * 4 + 4
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The first Rust function on a greenlet's stack: runs the closure, and says where to go when it is
/// over.
///
/// # Safety
///
/// Called by the first frame, once, with the record that [`place`] wrote and with what the first
/// switch sent.
unsafe extern "C" fn entry<T: 'static, F, S>(
    argument: *mut (),
    word: Word,
    event: usize,
) -> *const Departure
where
    F: FnOnce(T) -> T + 'static,
    S: Successor<T>,
{
    let record = argument.cast::<Record<T, F, S>>();
    // SAFETY: the record was written by `place` for these `T`, `F` and `S`; its block is current, hence
    // alive.
    let block = unsafe { &*(*record).block };
    // SAFETY: the closure is taken out once, here.
    let run = unsafe { ptr::read(&raw const (*record).run) };
    block.stage.set(Stage::Started);
    let run = ManuallyDrop::into_inner(run);
    let argument = if event == Event::Value as usize {
        // SAFETY: an unstarted block awaits a `T` (`place`), and this is its first arrival.
        Ok(unsafe { transfer::unpack(word) })
    } else {
        // SAFETY: as above.
        match unsafe { Arrival::<T>::receive_other(word, event) } {
            Arrival::Value(argument) => Ok(argument),
            other => Err(other),
        }
    };
    // SAFETY: the record is valid, and its result slot free, until this greenlet's stack is used
    // again.
    let (departure, result, successor) = unsafe {
        let record = &mut *record;
        (&raw mut record.departure, &mut record.result, record.successor)
    };
    let outcome = match argument {
        Ok(argument) => run_to_end(run, argument, result),
        Err(other) => end_unstarted(run, other),
    };
    local::end(block);
    unwinding::ends(block);
    // SAFETY: `run_to_end` has written the result if it says so.
    let (to, value, event, own) = unsafe { deliver(block, outcome, result, successor) };
    // SAFETY: as above; the departure lies above every frame of this stack.
    unsafe { departure.write(Departure { to, value, event: event as usize }) };
    // Last of all, as the block may go with it.
    if let Some(own) = own {
        own.drop_of_dead();
    }
    departure
}

/// Calls the closure with what has arrived.
#[inline(always)]
fn run_to_end<T, F: FnOnce(T) -> T>(run: F, argument: T, result: &mut MaybeUninit<T>) -> Outcome {
    // Not returned through `catch_unwind`: to copy what was just written in parts stalls the processor.
    match catch_unwind(AssertUnwindSafe(|| result.write(run(argument)))) {
        Ok(_) => Outcome::Value,
        Err(payload) => unwound(payload),
    }
}

/// Does not call it, as no value has arrived before it started.
#[cold]
#[inline(never)]
fn end_unstarted<T, F: FnOnce(T) -> T>(run: F, arrival: Arrival<T>) -> Outcome {
    let thrown = if let Arrival::Throw(payload) = arrival { Some(payload) } else { None };
    match (catch_unwind(AssertUnwindSafe(|| drop(run))), thrown) {
        (Err(payload), _) => unwound(payload),
        (Ok(()), Some(thrown)) => Outcome::Panic(thrown),
        (Ok(()), None) => Outcome::Exit,
    }
}

#[cold]
#[inline(never)]
fn unwound(payload: Payload) -> Outcome {
    if payload.is::<GreenletExit>() { Outcome::Exit } else { Outcome::Panic(payload) }
}

/// Makes the current greenlet dead and its receiver current, and packs what the receiver gets. With that
/// comes the greenlet's handle to itself.
///
/// # Safety
///
/// If the outcome is a value, that is in `result`.
#[inline(always)]
unsafe fn deliver<T: 'static>(
    block: &Block,
    outcome: Outcome,
    result: &mut MaybeUninit<T>,
    successor: impl Successor<T>,
) -> (*const Context, Word, Event, Option<Handle>) {
    let parent = if matches!(outcome, Outcome::Value) { usual_receiver::<T>(block) } else { None };
    let (to, value, event) = match parent {
        Some(parent) => {
            forget(outcome);
            die(block);
            // SAFETY: the caller's promise.
            let next = successor.succeed(parent.place, unsafe { result.assume_init_mut() });
            let to = next.map_or(ptr::from_ref(parent), let_go);
            (to, transfer::pack(result.as_ptr()), Event::Value)
        }
        None => {
            // SAFETY: the caller's promise.
            let (to, value, event) = unsafe { receiver(block, outcome, result) };
            die(block);
            (to.as_ptr(), value, tracing::departs(&block.thread, event))
        }
    };
    // SAFETY: it is not dead, so another refers to it, and is there until it has run. The caller
    // returns the departure to the first frame, which leaves for it; nothing since it was chosen runs
    // the user's code or switches.
    let context = unsafe { transfer::depart_for(to) };
    // A stack taken from here on could be this one, and none is before we are off it. The arenas
    // stay, as the root's block refers to its thread.
    if let Some(stack) = block.take_stack() {
        block.thread.arenas.give(stack);
    }
    (context, value, event, block.own.take())
}

#[inline(always)]
fn die(block: &Block) {
    block.stage.set(Stage::Dead);
    block.set_takes_nothing();
}

/// Lets go of a greenlet that waits, as the current one does of whom it switches into.
#[inline(always)]
fn let_go<T: 'static>(next: Greenlet<T>) -> *const Block {
    debug_assert!(next.handle.takes::<T>() && !next.is_current());
    let block = next.handle.as_ptr();
    next.handle.let_go(thread::adopt_orphan);
    block
}

/// Whom a result reaches, if there is nothing out of the ordinary about it.
#[inline(always)]
fn usual_receiver<T: 'static>(block: &Block) -> Option<&Block> {
    // SAFETY: the only caller uses it for as long as nobody else runs.
    let parent = unsafe { block.parent_ref() }?;
    // One that is dead takes nothing.
    (!block.has_killer() && parent.takes::<T>()).then_some(parent)
}

/// Whom the end of a greenlet reaches, and as what.
///
/// No code of the user's (a destructor, the panic hook) runs between choosing the receiver and
/// returning: it could switch, and the receiver be dead or wait for something else afterwards.
///
/// # Safety
///
/// If the outcome is a value, that is in `result`.
#[cold]
#[inline(never)]
unsafe fn receiver<T: 'static>(
    block: &Block,
    mut outcome: Outcome,
    result: &mut MaybeUninit<T>,
) -> (Link, Word, Event) {
    // SAFETY: the caller's promise. It is taken out where the outcome is made another.
    let take = |result: &MaybeUninit<T>| unsafe { result.assume_init_read() };
    loop {
        if let Some(killer) = block.killer.take() {
            // Else it is abandoned, and this greenlet ends like any other.
            if killer.waits() {
                if matches!(outcome, Outcome::Exit) {
                    return if killer.accepts::<Death>() {
                        (killer, transfer::pack(&Death), Event::Value)
                    } else {
                        (killer, Word::uninit(), Event::Exit)
                    };
                }
                block.killer.set(Some(killer));
                match replace(&mut outcome, Outcome::Exit) {
                    Outcome::Value => quietly(|| drop(take(result))),
                    unwanted => quietly(|| drop(unwanted)),
                }
            }
            continue;
        }
        let to = nearest_living_ancestor(block).expect("a running greenlet has a living root");
        match outcome {
            Outcome::Value if to.accepts::<T>() => {
                return (to, transfer::pack(result.as_ptr()), Event::Value);
            }
            Outcome::Value => {
                let payload = mismatch(block, &to, type_name::<T>());
                outcome = Outcome::Panic(payload);
                quietly(|| drop(take(result)));
            }
            Outcome::Panic(payload) => return (to, transfer::pack_payload(payload), Event::Throw),
            Outcome::Exit => return (to, Word::uninit(), Event::Exit),
        }
    }
}

/// The panic that a parent gets instead of a result that it cannot take.
fn mismatch(block: &Block, to: &Block, sent: &str) -> Payload {
    let outcome: Result<(), Payload> = catch_unwind(AssertUnwindSafe(|| {
        panic!("{block:?} ended with a value of type {sent}, but {to:?} waits for another type")
    }));
    outcome.expect_err("the closure panics")
}
