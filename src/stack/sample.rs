//! Samples: where a thread is that does not say so itself, as it is stuck.
//!
//! A backtrace cannot be taken in a signal handler: to find the unwinding tables, and to name
//! functions, takes locks and memory that the interrupted code may hold. So the handler copies: the
//! registers, and the stack from the innermost frame to the top, which is mapped, as the thread
//! stands on it. The thread goes on at once. Whoever asked moves the copied words that are addresses
//! in that stack, so that they are addresses in the copy, and takes a backtrace of the copy, in
//! peace.
//!
//! ```text
//!   the thread's stack      | free ... | frames |       copied by the handler
//!                                          |
//!   a copy                    | frames, moved |         unwound by the thread that asked
//! ```
//!
//! A word that only looks like an address in the stack is moved, too: that does no harm.
//!
//! What the copy holds is not trusted. The thread may have been interrupted where an unwinder would
//! read memory that is not there. So the copy is walked first, with every step checked, and cut
//! where a step fails (`walk.rs`): the backtrace takes the same steps over the same words.
#![allow(unsafe_code)]

mod reader;
mod row;
#[cfg(test)]
mod tests;
mod trace;
mod walk;

use std::backtrace::Backtrace;
use std::cell::UnsafeCell;
use std::io;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use self::walk::Extent;
use super::Span;
use crate::arch::{self, Registers};
use crate::sys::fork::PerProcess;
use crate::sys::interrupt;

/// A name is cut to so many bytes.
const NAME_BYTES: usize = 64;

/// Number of bytes that are copied below the stack pointer: what was popped, which unwinding tables
/// may still name.
const POPPED_BYTES: usize = 128;

/// Pages are at least as large, and aligned to it.
const PAGE_BYTES: usize = 4096;

/// The most that is copied of a stack.
const MAX_WORDS: usize = 64 * 1024 * 1024 / size_of::<usize>();

/// How often a thread is asked that was just switching, whose stack was larger than expected, or
/// which was in code that cannot be unwound.
const MAX_TRIES: usize = 8;

/// A backtrace of as many frames is enough, where the copy had to be cut.
const ENOUGH_FRAMES: usize = 16;

/// The longest wait for an answer: a thread may be in the kernel, or have blocked the signal.
const PATIENCE: Duration = Duration::from_millis(500);

// Whose turn it is with the request.
const IDLE: u32 = 0;
const ASKED: u32 = 1;
const TAKEN: u32 = 2;
const ANSWERED: u32 = 3;

/// What is known of the current greenlet of an interrupted thread.
pub(crate) struct About<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) id: u64,
    pub(crate) made_at: Option<&'static Location<'static>>,
    /// None if it runs on the thread's own.
    pub(crate) stack: Option<Span>,
    /// The address of its context.
    pub(crate) context: usize,
    /// The stack pointer that it was last resumed with.
    pub(crate) last_stack_pointer: usize,
}

/// Calls its argument for the current greenlet, if there is one.
pub(crate) type Tell = fn(&mut dyn FnMut(&About<'_>));

/// Where a thread was when it was asked.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: Option<String>,
    pub(crate) id: u64,
    pub(crate) made_at: Option<&'static Location<'static>>,
    /// None if it was not on the stack of its greenlet, or that is too large.
    pub(crate) backtrace: Option<Backtrace>,
}

/// What is asked: written while the request is idle, read while it is asked or taken.
struct Question {
    thread: i32,
    own_stack: Span,
    /// Only if it still has this value.
    value: (Arc<AtomicU64>, u64),
    /// Where to copy the stack to, and how many words there are.
    copy: *mut usize,
    copy_words: usize,
}

/// What the handler answers.
#[derive(Clone, Copy)]
struct Answer {
    has_changed: bool,
    name: [u8; NAME_BYTES],
    /// More than fit in `name` if it was cut; none if it has no name.
    name_bytes: Option<usize>,
    id: u64,
    made_at: Option<&'static Location<'static>>,
    registers: Registers,
    stack: Copied,
}

#[derive(Clone, Copy)]
enum Copied {
    /// So many words, from this address on.
    Whole { from: usize, words: usize },
    /// It needs so many words.
    TooLarge { words: usize },
    /// It was about to switch.
    Switching,
    /// It was somewhere else: on the stack for signal handlers, or one that is nobody's.
    Elsewhere,
}

/// The one request of the process.
struct Request {
    /// Held by who asks.
    asking: Mutex<()>,
    state: AtomicU32,
    question: UnsafeCell<Option<Question>>,
    answer: UnsafeCell<Option<Answer>>,
}

// SAFETY: the state says whose the cells are: the asker's, who holds `asking`, while it is idle or
// answered, and the handler's while it is taken. While it is asked nobody touches them, and one
// compare-exchange decides who takes it out of that.
unsafe impl Sync for Request {}

// SAFETY: what it points to is copied to while it is taken, and belongs to who asks, on whichever thread
// the request was made.
unsafe impl Send for Request {}

/// The child of a fork begins anew: who asked is not there, and may have held `asking`.
static REQUEST: PerProcess<Request> = PerProcess::new(Request::new());

impl Request {
    const fn new() -> Self {
        Self {
            asking: Mutex::new(()),
            state: AtomicU32::new(IDLE),
            question: UnsafeCell::new(None),
            answer: UnsafeCell::new(None),
        }
    }

    /// Changes the state, if it is `from`.
    fn turn(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }
}

impl Default for Request {
    fn default() -> Self {
        Self::new()
    }
}

static TELL: OnceLock<Tell> = OnceLock::new();

/// Makes [`take`] possible, in the whole process. Only the first call has an effect.
///
/// # Errors
///
/// The kernel's.
///
/// # Safety
///
/// `tell` is sound in a signal handler, whatever it interrupts on any thread: it does not allocate,
/// lock or unwind, and reads nothing that the interrupted code may be halfway through writing.
pub(crate) unsafe fn allow(tell: Tell) -> io::Result<()> {
    TELL.get_or_init(|| tell);
    // SAFETY: `on_interrupt` reads a `OnceLock`, which takes no lock, and atomics, and copies memory;
    // `tell` is as the caller promises.
    unsafe { interrupt::watch(on_interrupt) }
}

/// What a running thread does now, unless `value` is no longer `expected` when it is asked. None in
/// that case, and if it does not answer in half a second.
///
/// `own_stack` is that of the thread, as it says itself ([`Span::of_thread`]).
///
/// # Errors
///
/// The kernel's, `ESRCH` if there is no such thread.
pub(crate) fn take(
    thread: i32,
    own_stack: Span,
    (value, expected): (&Arc<AtomicU64>, u64),
) -> io::Result<Option<Sample>> {
    let request = REQUEST.get();
    let _alone = request.asking.lock().unwrap_or_else(PoisonError::into_inner);
    let mut copy_words = super::DEFAULT_SLOT_BYTES / size_of::<usize>();
    let (mut best, mut best_frames) = (None, None);
    for _ in 0..MAX_TRIES {
        let Some(mut room) = make_room(copy_words) else { break };
        let value = (Arc::clone(value), expected);
        let question = Question { thread, own_stack, value, copy: room.as_mut_ptr(), copy_words };
        let answer = match ask(request, question) {
            Ok(Some(answer)) if !answer.has_changed => answer,
            Err(error) if best.is_none() => return Err(error),
            // It was over meanwhile, or nobody answers: what was known before is all.
            _ => break,
        };
        let (mut traced, mut is_last) = (None, false);
        match answer.stack {
            Copied::Whole { from, words } => {
                traced = trace::backtrace(&mut room[..words], from, answer.registers);
                is_last = traced.as_ref().is_some_and(|(_, extent)| is_enough(*extent));
            }
            Copied::TooLarge { words } if words <= MAX_WORDS => {
                copy_words = words.next_power_of_two();
            }
            Copied::Switching => {}
            Copied::TooLarge { .. } | Copied::Elsewhere => is_last = true,
        }
        let frames = traced.as_ref().map(|(_, extent)| extent.frames);
        if best.is_none() || is_last && frames.is_some() || frames > best_frames {
            best = Some(answer.into_sample(traced.map(|(backtrace, _)| backtrace)));
            best_frames = frames;
        }
        if is_last {
            break;
        }
    }
    Ok(best)
}

/// Memory to copy a stack into; none if there is not that much.
fn make_room(words: usize) -> Option<Vec<usize>> {
    let mut room = Vec::new();
    room.try_reserve_exact(words).ok()?;
    room.resize(words, 0);
    Some(room)
}

/// Whether a backtrace need not be taken again.
fn is_enough(extent: Extent) -> bool {
    !extent.is_cut || extent.frames >= ENOUGH_FRAMES
}

impl Answer {
    fn into_sample(self, backtrace: Option<Backtrace>) -> Sample {
        let name = self.name_bytes.map(|bytes| {
            let name = &self.name[..bytes.min(NAME_BYTES)];
            let cut = if bytes > NAME_BYTES { "..." } else { "" };
            // A character may have been cut in two.
            let name = String::from_utf8_lossy(name);
            name.trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned() + cut
        });
        Sample { name, id: self.id, made_at: self.made_at, backtrace }
    }
}

/// Puts a question to its thread, and waits for the answer.
fn ask(request: &Request, question: Question) -> io::Result<Option<Answer>> {
    let thread = question.thread;
    // SAFETY: the caller holds `asking`, and the request is idle.
    unsafe { (*request.question.get(), *request.answer.get()) = (Some(question), None) };
    request.state.store(ASKED, Ordering::SeqCst);
    let mut sent = interrupt::interrupt(thread);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = request.state.load(Ordering::Acquire);
        if state == ANSWERED {
            break;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let gives_up = sent.is_err() || left.is_zero();
        if gives_up && state == ASKED {
            if request.turn(ASKED, IDLE) {
                return std::mem::replace(&mut sent, Ok(())).map(|()| None);
            }
        } else {
            // Once it is taken the answer is a matter of microseconds.
            interrupt::wait_while(&request.state, state, left.max(Duration::from_millis(1)));
        }
    }
    // SAFETY: answered, so it is the asker's again, by the acquiring load above.
    let answer = unsafe { (*request.answer.get()).take() };
    request.state.store(IDLE, Ordering::SeqCst);
    Ok(answer)
}

/// Answers, if this thread was asked. Runs in a signal handler.
fn on_interrupt(registers: &Registers) -> bool {
    let Some(request) = REQUEST.existing().filter(|request| request.turn(ASKED, TAKEN)) else {
        return false;
    };
    // SAFETY: taken, so the question is there, and this handler's until it changes the state.
    let question = unsafe { &*request.question.get() };
    let Some(question) = question.as_ref().filter(|q| q.thread == interrupt::thread_id()) else {
        // Somebody else sent this signal to another thread.
        request.state.store(ASKED, Ordering::SeqCst);
        return false;
    };
    let mut answer = None;
    if let Some(tell) = TELL.get() {
        tell(&mut |about| answer = Some(reply(question, about, registers)));
    }
    // SAFETY: as above, and what was there is `None`, of which nothing is dropped.
    unsafe { request.answer.get().write(answer) };
    request.state.store(ANSWERED, Ordering::Release);
    interrupt::wake_waiter(&request.state);
    true
}

fn reply(question: &Question, about: &About<'_>, registers: &Registers) -> Answer {
    let (now, then) = &question.value;
    let has_changed = now.load(Ordering::SeqCst) != *then;
    let mut name = [0; NAME_BYTES];
    for (to, from) in name.iter_mut().zip(about.name.unwrap_or_default().bytes()) {
        *to = from;
    }
    Answer {
        has_changed,
        name,
        name_bytes: about.name.map(str::len),
        id: about.id,
        made_at: about.made_at,
        registers: *registers,
        stack: if has_changed { Copied::Elsewhere } else { copy(question, about, registers) },
    }
}

/// Copies the interrupted stack, if it is that of the current greenlet.
fn copy(question: &Question, about: &About<'_>, registers: &Registers) -> Copied {
    const WORD: usize = size_of::<usize>();
    let stack_pointer = registers[arch::STACK_POINTER];
    // In the middle of a switch the code is that of who leaves, while the stack is that of who
    // comes: they fit together before and after.
    let resumes = registers[arch::RESUMED] == about.context;
    if resumes && stack_pointer == about.last_stack_pointer {
        return Copied::Switching;
    }
    let stack = about.stack.unwrap_or(question.own_stack);
    if !(stack.bottom..=stack.top).contains(&stack_pointer) || stack_pointer % WORD != 0 {
        return Copied::Elsewhere;
    }
    // A greenlet's stack is mapped down to its bottom. Below the page of the stack pointer a
    // thread's own may have its guard, or, on the main thread, memory that was never used.
    let page = stack_pointer - stack_pointer % PAGE_BYTES;
    let lowest = about.stack.map_or(page.max(stack.bottom), |stack| stack.bottom);
    let from = stack_pointer.saturating_sub(POPPED_BYTES).max(lowest);
    let words = (stack.top - from) / WORD;
    if words > question.copy_words {
        return Copied::TooLarge { words };
    }
    let source = ptr::with_exposed_provenance::<usize>(from);
    for index in 0..words {
        // SAFETY: from `lowest` to its top the stack is mapped: this thread stands on it. There is
        // room for as many words in the copy. Volatile, as the compiler knows nothing of frames
        // that are in use.
        unsafe { question.copy.add(index).write_volatile(source.add(index).read_volatile()) };
    }
    Copied::Whole { from, words }
}
