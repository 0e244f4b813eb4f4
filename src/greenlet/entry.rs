//! Entry: how a greenlet's closure gets onto its stack, is run, and how its end is delivered.
#![allow(unsafe_code)]

use std::any::type_name;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use super::GreenletExit;
use super::block::{Block, Stage};
use super::exit::{Death, quietly};
use super::handle::{Handle, Link};
use super::transfer::{self, Arrival, Event, Payload};
use super::tree::nearest_living_ancestor;
use super::{local, tracing};
use crate::arch::{Context, Departure, STACK_ALIGNMENT, Word};
use crate::stack::{MIN_STACK_BYTES, Stack};

/// Closures larger than this, in bytes, go to the heap and not onto the new stack.
const MAX_CLOSURE_BYTES: usize = 2048;

/// So many copies of a value may lie on a greenlet's stack at once on its way in or out, where the
/// compiler does not optimise.
const VALUE_COPIES: usize = 24;

/// So many bytes fit onto any stack.
const FITS_ALWAYS: usize = MIN_STACK_BYTES / 2;

/// What a greenlet's closure came to.
enum Outcome<T> {
    Value(T),
    Panic(Payload),
    Exit,
}

/// Lies at the top of a greenlet's stack, above everything that is ever pushed there.
#[repr(C)]
struct Record<T, F> {
    /// Filled in at the very end, and read by the first frame when all Rust frames are gone.
    departure: Departure,
    block: *const Block,
    run: ManuallyDrop<F>,
    /// A result that does not fit into a word, until its receiver takes it.
    result: MaybeUninit<T>,
}

/// Gives an unstarted block a stack with `run` on it: the first switch to it calls `run`.
///
/// # Errors
///
/// When the stack is too small for the closure and its result.
#[inline(always)]
pub(super) fn prepare<T: 'static, F>(block: &Link, stack: Stack, run: F) -> io::Result<()>
where
    F: FnOnce(T) -> T + 'static,
{
    if const { size_of::<F>() > MAX_CLOSURE_BYTES } {
        let on_heap: Box<dyn FnOnce(T) -> T> = Box::new(run);
        place(block, stack, on_heap)
    } else {
        place(block, stack, run)
    }
}

#[inline(always)]
fn place<T: 'static, F>(block: &Link, stack: Stack, run: F) -> io::Result<()>
where
    F: FnOnce(T) -> T + 'static,
{
    let alignment = const {
        if align_of::<Record<T, F>>() > STACK_ALIGNMENT {
            align_of::<Record<T, F>>()
        } else {
            STACK_ALIGNMENT
        }
    };
    let record_bytes = size_of::<Record<T, F>>() + alignment;
    // An over-aligned value may take up to its alignment more, each time.
    let copies_bytes = (size_of::<T>() + align_of::<T>()).saturating_mul(VALUE_COPIES);
    let needed_bytes = record_bytes.saturating_add(copies_bytes);
    if needed_bytes > FITS_ALWAYS && needed_bytes > stack.usable_bytes() / 4 * 3 {
        return Err(too_small(stack, size_of::<T>(), needed_bytes));
    }
    let record = stack.top().wrapping_sub(size_of::<Record<T, F>>());
    let record = record.map_addr(|address| address & !(alignment - 1));
    let departure = Departure { to: ptr::null(), value: Word::uninit(), event: 0 };
    let content = Record::<T, F> {
        departure,
        block: block.as_ptr(),
        run: ManuallyDrop::new(run),
        result: MaybeUninit::uninit(),
    };
    // SAFETY: the stack is ours and unused; the record was checked to fit below its top, and is
    // aligned.
    unsafe { record.cast::<Record<T, F>>().write(content) };
    // SAFETY: an unstarted block's context is nobody else's.
    unsafe { (*block.context.get()).prepare(record, entry::<T, F>, record.cast()) };
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
unsafe extern "C" fn entry<T: 'static, F>(
    argument: *mut (),
    word: Word,
    event: usize,
) -> *const Departure
where
    F: FnOnce(T) -> T + 'static,
{
    let record = argument.cast::<Record<T, F>>();
    // SAFETY: the record was written by `place` for these `T` and `F`; its block is current, hence
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
    let outcome = match argument {
        Ok(argument) => run_to_end(run, argument),
        Err(other) => end_unstarted(run, other),
    };
    local::end(block);
    // SAFETY: the record is valid, and its result slot free, until this greenlet's stack is used
    // again.
    let (departure, result) = unsafe { (&raw mut (*record).departure, &raw mut (*record).result) };
    let (to, value, event, own) = deliver(block, outcome, result.cast());
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
fn run_to_end<T, F: FnOnce(T) -> T>(run: F, argument: T) -> Outcome<T> {
    // Not returned through `catch_unwind`: to copy what was just written in parts stalls the processor.
    let mut value = None;
    let caught = catch_unwind(AssertUnwindSafe(|| value = Some(run(argument))));
    match (value, caught) {
        (Some(value), _) => Outcome::Value(value),
        (None, Err(payload)) => unwound(payload),
        (None, Ok(())) => Outcome::Exit,
    }
}

/// Does not call it, as no value has arrived before it started.
#[cold]
#[inline(never)]
fn end_unstarted<T, F: FnOnce(T) -> T>(run: F, arrival: Arrival<T>) -> Outcome<T> {
    let thrown = if let Arrival::Throw(payload) = arrival { Some(payload) } else { None };
    match (catch_unwind(AssertUnwindSafe(|| drop(run))), thrown) {
        (Err(payload), _) => unwound(payload),
        (Ok(()), Some(thrown)) => Outcome::Panic(thrown),
        (Ok(()), None) => Outcome::Exit,
    }
}

#[cold]
#[inline(never)]
fn unwound<T>(payload: Payload) -> Outcome<T> {
    if payload.is::<GreenletExit>() { Outcome::Exit } else { Outcome::Panic(payload) }
}

/// Makes the current greenlet dead and its receiver current, and packs what the receiver gets.
///
/// `result` has room for a value that does not fit a word. With the rest comes the greenlet's
/// handle to itself.
#[inline(always)]
fn deliver<T: 'static>(
    block: &Block,
    outcome: Outcome<T>,
    result: *mut T,
) -> (*const Context, Word, Event, Option<Handle>) {
    let (to, value, event) = match (outcome, usual_receiver::<T>(block)) {
        (Outcome::Value(value), Some(to)) => {
            // SAFETY: `result` is the record's slot for a `T`, empty so far.
            unsafe { result.write(value) };
            (to, transfer::pack(result), Event::Value)
        }
        (outcome, _) => receiver(block, outcome, result),
    };
    block.stage.set(Stage::Dead);
    block.set_takes_nothing();
    let event = tracing::departs(&block.thread, event);
    // SAFETY: the caller returns the departure to the first frame, which leaves for `to`; nothing
    // since `to` was chosen runs the user's code or switches.
    unsafe { transfer::depart_for(&to) };
    let context = to.context.get();
    drop(to);
    // A stack taken from here on could be this one, and none is before we are off it. The arenas
    // stay, as the root's block refers to its thread.
    if let Some(stack) = block.take_stack() {
        block.thread.arenas.give(stack);
    }
    (context, value, event, block.own.take())
}

/// Whom a result reaches, if there is nothing out of the ordinary about it.
#[inline(always)]
fn usual_receiver<T: 'static>(block: &Block) -> Option<Link> {
    let parent = block.parent()?;
    let is_usual = !block.has_killer() && !parent.is_dead() && parent.takes::<T>();
    is_usual.then_some(parent)
}

/// Whom the end of a greenlet reaches, and as what.
///
/// No code of the user's (a destructor, the panic hook) runs between choosing the receiver and
/// returning: it could switch, and the receiver be dead or wait for something else afterwards.
#[cold]
#[inline(never)]
fn receiver<T: 'static>(
    block: &Block,
    mut outcome: Outcome<T>,
    result: *mut T,
) -> (Link, Word, Event) {
    loop {
        if let Some(killer) = block.killer.take() {
            // Else it has given up on this greenlet, which ends like any other then.
            if killer.accepts::<Death>() {
                if matches!(outcome, Outcome::Exit) {
                    return (killer, transfer::pack(&Death), Event::Value);
                }
                block.killer.set(Some(killer));
                let unwanted = std::mem::replace(&mut outcome, Outcome::Exit);
                quietly(|| drop(unwanted));
            }
            continue;
        }
        let to = nearest_living_ancestor(block).expect("a running greenlet has a living root");
        match outcome {
            Outcome::Value(value) if to.accepts::<T>() => {
                // SAFETY: `result` is the record's slot for a `T`, empty so far.
                unsafe { result.write(value) };
                return (to, transfer::pack(result), Event::Value);
            }
            Outcome::Value(value) => {
                let payload = mismatch(block, &to, type_name::<T>());
                quietly(|| drop(value));
                outcome = Outcome::Panic(payload);
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
