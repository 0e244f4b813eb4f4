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
//!                                         |
//!   a copy            | 0 0 | frames, moved | 0 0 |     unwound by the thread that asked
//! ```
//!
//! A word that only looks like an address in the stack is moved, too: no unwinder minds. One that is
//! told wrong, by unwinding tables of other people's assembly, may read where nothing is: here as in
//! any backtrace that begins between two instructions.
#![allow(unsafe_code)]

use std::backtrace::Backtrace;
use std::cell::UnsafeCell;
use std::io;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::Span;
use crate::arch::{self, Registers};
use crate::sys::fork::PerProcess;
use crate::sys::interrupt;

/// A name is cut to so many bytes.
const NAME_BYTES: usize = 64;

/// So many words are copied below the stack pointer: what was popped, which unwinding tables may
/// still name.
const POPPED_WORDS: usize = 16;

/// So many words of zeros lie below and above a copy.
const MARGIN_WORDS: usize = 512;

/// The most that is copied of a stack.
const MAX_WORDS: usize = 64 * 1024 * 1024 / size_of::<usize>();

/// How often a thread is asked again that was just switching, whose stack was larger than expected, or
/// which was in code without unwinding tables: stubs between libraries have none.
const MAX_TRIES: usize = 8;

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
    let mut room: Vec<usize> = Vec::new();
    let mut copy_words = super::DEFAULT_SLOT_BYTES / size_of::<usize>();
    let (mut answer, mut backtrace) = (None, None);
    for _ in 0..MAX_TRIES {
        room.clear();
        // Zeroed by the kernel, and only what is copied into comes to be memory.
        room.resize(copy_words + 2 * MARGIN_WORDS, 0);
        let copy = room[MARGIN_WORDS..].as_mut_ptr();
        let value = (Arc::clone(value), expected);
        let question = Question { thread, own_stack, value, copy, copy_words };
        match ask(request, question)? {
            // It was over meanwhile, or nobody answers: what was known before is all.
            None | Some(Answer { has_changed: true, .. }) => break,
            Some(next) => answer = Some(next),
        }
        match answer {
            Some(Answer { stack: Copied::Whole { from, words }, registers, .. }) => {
                let (taken, has_callers) = unwind(&mut room, from, words, registers);
                backtrace = taken;
                if has_callers {
                    break;
                }
            }
            Some(Answer { stack: Copied::TooLarge { words }, .. }) if words <= MAX_WORDS => {
                copy_words = words.next_power_of_two();
            }
            Some(Answer { stack: Copied::Switching, .. }) => {}
            _ => break,
        }
    }
    let Some(answer) = answer else { return Ok(None) };
    let name = answer.name_bytes.map(|bytes| {
        let name = &answer.name[..bytes.min(NAME_BYTES)];
        let cut = if bytes > NAME_BYTES { "..." } else { "" };
        // A character may have been cut in two.
        String::from_utf8_lossy(name).trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned() + cut
    });
    Ok(Some(Sample { name, id: answer.id, made_at: answer.made_at, backtrace }))
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
    // In the middle of a switch the code is that of who leaves, while the stack is that of who comes:
    // they fit together before and after.
    let resumes = registers[arch::RESUMED] == about.context;
    if resumes && stack_pointer == about.last_stack_pointer {
        return Copied::Switching;
    }
    let stack = about.stack.unwrap_or(question.own_stack);
    if !(stack.bottom..=stack.top).contains(&stack_pointer) || stack_pointer % WORD != 0 {
        return Copied::Elsewhere;
    }
    let from = stack_pointer.saturating_sub(POPPED_WORDS * WORD).max(stack.bottom);
    let words = (stack.top - from) / WORD;
    if words > question.copy_words {
        return Copied::TooLarge { words };
    }
    let source = ptr::with_exposed_provenance::<usize>(from);
    for index in 0..words {
        // SAFETY: from the stack pointer, and a little below, to its top the stack is mapped: this
        // thread stands on it. There is room for as many words in the copy. Volatile, as the compiler
        // knows nothing of frames that are in use.
        unsafe { question.copy.add(index).write_volatile(source.add(index).read_volatile()) };
    }
    Copied::Whole { from, words }
}

/// The backtrace of a copy, and whether it has more than the innermost frame, or never will.
fn unwind(
    room: &mut [usize],
    from: usize,
    words: usize,
    mut registers: Registers,
) -> (Option<Backtrace>, bool) {
    let copied = &mut room[MARGIN_WORDS..][..words];
    if interrupt::checks_return_addresses() && has_signed_address(copied) {
        // The signature was made for another stack pointer: to check it would be a fault.
        return (None, true);
    }
    let top = from + size_of_val(copied);
    let to = copied.as_ptr().addr();
    let move_address = |word: &mut usize| {
        if (from..=top).contains(word) {
            *word = *word - from + to;
        }
    };
    copied.iter_mut().for_each(move_address);
    registers.iter_mut().for_each(move_address);
    let _ = room.as_mut_ptr().expose_provenance();
    let (mut backtrace, mut frames) = (None, 0);
    let mut look = || {
        backtrace = Some(Backtrace::force_capture());
        frames = interrupt::frames_above(arch::retrace_code());
    };
    // SAFETY: the registers point into the copy, as do the saved ones and the frame pointers in it,
    // which were moved with it: so what the tables lead to from there lies in the copy, with zeros
    // behind it, where unwinding ends. Neither way to unwind panics.
    unsafe { arch::retrace(&registers, &mut look) };
    (backtrace, frames > 1)
}

/// Whether any word looks like the address of code with a signature above it.
///
/// The signature lies between the bits of addresses and bit 55, which says whose half of them it is.
/// Above that is the tag, and a return address has none.
fn has_signed_address(words: &[usize]) -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return true };
    let range = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let parse = |text| usize::from_str_radix(text, 16).ok();
        Some(parse(start)?..parse(end)?)
    };
    let code: Vec<_> =
        maps.lines().filter(|line| line.contains("r-xp")).filter_map(range).collect();
    // Kernels have 39 bits or more for addresses, and all that one has are used for the stack.
    let highest = maps.lines().filter_map(range).map(|range| range.end).max().unwrap_or(0);
    let address_bits = (usize::BITS - highest.leading_zeros()).clamp(39, 48);
    // An instruction lies at a multiple of four. What is left of other values may still look so: then
    // there is no backtrace.
    words.iter().any(|word| {
        let address = word & ((1 << address_bits) - 1);
        let may_be_signed = *word != address && word >> 55 == 0 && address % 4 == 0;
        may_be_signed && code.iter().any(|range| range.contains(&address))
    })
}
