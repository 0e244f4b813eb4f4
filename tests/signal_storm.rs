//! Signals whose handlers run on whatever stack they interrupt: they overwrite what lies below the
//! stack pointer, at any moment of a greenlet's life.
//!
//! `STOLON_STORM_SWITCHES=100000000 cargo test --release --test signal_storm` makes the first storm
//! last so many switches.
#![allow(unsafe_code)]

mod util;

use std::cell::Cell;
use std::env;
use std::ffi::c_int;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr;
use std::rc::Rc;
use std::time::Instant;

use stolon::greenlet::{self, Greenlet};
use util::child::{self, text_of};
use util::planted::switch_with_planted_registers;
use util::server::{PATIENCE, is_emulated};

/// How often a storm's signal comes.
const PERIOD_NANOSECONDS: i64 = 100_000;

/// How much of the stack each handler overwrites, besides what the kernel itself does.
const DIRT_BYTES: usize = 4096;

/// More than any test uses here of one stack, and less than a stack has.
const DEPTH_BYTES: usize = 64 * 1024;

/// A stack, by an address near its top, and how many handlers have run on it.
struct Seen {
    top: Cell<usize>,
    signals: Cell<usize>,
}

thread_local! {
    /// Without an initialiser or a destructor, so that a handler may read it.
    static STACKS: [Seen; 3] =
        const { [const { Seen { top: Cell::new(0), signals: Cell::new(0) } }; 3] };
}

/// Overwrites the stack, and counts.
#[inline(never)]
fn dirty_the_stack() {
    let mut dirt = MaybeUninit::<[u8; DIRT_BYTES]>::uninit();
    // SAFETY: one such array, which is live.
    unsafe { dirt.as_mut_ptr().write_bytes(0xA5, 1) };
    let here = black_box(&raw mut dirt).addr();
    STACKS.with(|stacks| {
        let is_here = |stack: &&Seen| stack.top.get().wrapping_sub(here) < DEPTH_BYTES;
        if let Some(stack) = stacks.iter().find(is_here) {
            stack.signals.set(stack.signals.get() + 1);
        }
    });
}

/// Has the handlers on the current stack counted at `place`.
#[inline(never)]
fn watch_this_stack(place: usize) {
    let here = 0_u8;
    let top = black_box(&raw const here).addr() + DEPTH_BYTES / 4;
    STACKS.with(|stacks| stacks[place].top.set(top));
}

fn signals_on_each_stack() -> [usize; 3] {
    STACKS.with(|stacks| stacks.each_ref().map(|stack| stack.signals.get()))
}

/// Runs `handler` on the interrupted stack, and not on the thread's stack for signals.
fn handle(signal: c_int, handler: usize, flags: c_int) {
    assert_eq!(flags & libc::SA_ONSTACK, 0);
    // SAFETY: all zeros is a valid `sigaction`, and the callers pass functions of the form that the
    // flags say, which touch nothing but their own frame and thread-local numbers.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
    }
}

/// Sends this thread SIGALRM again and again until it is dropped.
struct Storm {
    timer: libc::timer_t,
}

impl Storm {
    fn begin() -> Self {
        extern "C" fn on_alarm(_: c_int) {
            dirty_the_stack();
        }
        handle(libc::SIGALRM, on_alarm as extern "C" fn(c_int) as usize, libc::SA_RESTART);
        let period = libc::timespec { tv_sec: 0, tv_nsec: PERIOD_NANOSECONDS };
        let times = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: all zeros is a valid `sigevent`, the timer is written before it is read, and what
        // the kernel reads is live.
        unsafe {
            let mut event: libc::sigevent = MaybeUninit::zeroed().assume_init();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGALRM;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer = MaybeUninit::uninit();
            let made = libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, timer.as_mut_ptr());
            assert_eq!(made, 0);
            let timer = timer.assume_init();
            assert_eq!(libc::timer_settime(timer, 0, &times, ptr::null_mut()), 0);
            Self { timer }
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // SAFETY: the timer was made by `begin`, and is deleted once.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// Keeps values that follow from `seed` on the stack and in registers while `switch` is away, and
/// returns what it brought back.
///
/// # Panics
///
/// If one of the values is not the same afterwards.
#[inline(always)]
fn with_locals<R>(seed: usize, switch: impl FnOnce() -> R) -> R {
    let in_memory: [usize; 8] = black_box([1, 2, 3, 4, 5, 6, 7, 8].map(|n| seed ^ n));
    let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(|n| black_box(seed.wrapping_mul(n)));
    let [x, y] = [black_box(seed as f64), black_box(seed as f64 / 2.0)];
    let received = switch();
    assert_eq!([1, 2, 3, 4, 5].map(|n| seed.wrapping_mul(n)), [a, b, c, d, e]);
    assert_eq!([seed as f64, seed as f64 / 2.0], [x, y]);
    assert_eq!([1, 2, 3, 4, 5, 6, 7, 8].map(|n| seed ^ n), black_box(in_memory));
    received
}

/// What a greenlet of the tests answers to a number.
fn answer(number: usize) -> usize {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 7
}

/// Answers each number, with locals that change with it.
fn answering() -> Greenlet<usize> {
    let main = greenlet::current::<usize>();
    Greenlet::new(move |mut number: usize| {
        watch_this_stack(1);
        loop {
            let reply = answer(number);
            number = with_locals(reply, || main.switch(reply)).expect("main takes it");
        }
    })
}

/// Comes back at once each time, with values in all registers that a function has to preserve, until
/// it is told to end: nothing could unwind through the assembly.
fn planting() -> (Greenlet, Rc<Cell<bool>>) {
    let main = greenlet::current::<()>();
    let is_over = Rc::new(Cell::new(false));
    let told = Rc::clone(&is_over);
    let planting = Greenlet::new(move |()| {
        watch_this_stack(2);
        let mut pattern = 0;
        while !told.get() {
            assert_eq!(switch_with_planted_registers(&main, pattern), 0);
            pattern += 1;
        }
    });
    (planting, is_over)
}

/// Four switches: to each of these greenlets, and back.
#[inline(never)]
fn visit(answering: &Greenlet<usize>, planting: &Greenlet, number: usize) {
    let reply = with_locals(number, || answering.switch(number)).expect("it never ends");
    assert_eq!(reply, answer(number));
    assert_eq!(switch_with_planted_registers(planting, !number), 0);
}

/// How often this is to be done, so that it takes a second or less.
fn count(release: usize) -> usize {
    match (is_emulated(), cfg!(debug_assertions)) {
        (false, false) => release,
        (false, true) => release / 20,
        (true, false) => release / 8,
        (true, true) => release / 250,
    }
}

/// Runs `body` in a storm, and again until many signals have come, some on each of so many stacks:
/// the machine may have other things to do.
fn in_a_storm(stacks: usize, mut body: impl FnMut()) {
    watch_this_stack(0);
    let start = Instant::now();
    let storm = Storm::begin();
    let signals = loop {
        body();
        let signals = &signals_on_each_stack()[..stacks];
        let is_enough = signals.iter().sum::<usize>() >= 500;
        if is_enough && signals.iter().all(|&count| count >= 20) {
            break signals.to_vec();
        }
        assert!(start.elapsed() < PATIENCE, "{signals:?}");
    };
    drop(storm);
    println!("in {:.2} s, signals on each stack: {signals:?}", start.elapsed().as_secs_f64());
}

fn switch_in_a_storm(switches: usize) {
    println!("{switches} switches");
    let (answering, (planting, is_over)) = (answering(), planting());
    in_a_storm(3, || {
        for number in 0..switches / 4 {
            visit(&answering, &planting, number);
        }
    });
    is_over.set(true);
    planting.switch(()).unwrap();
}

#[test]
fn signals_during_switches_corrupt_nothing() {
    let wanted = env::var("STOLON_STORM_SWITCHES").ok();
    let wanted = wanted.map(|text| text.parse().expect("a number of switches"));
    switch_in_a_storm(wanted.unwrap_or_else(|| count(25_000_000)));
}

/// Starts a greenlet, which returns more than fits a register: its result lies on its stack when it
/// is dead. Or it is killed before.
#[inline(never)]
fn start_and_end(number: usize) {
    let numbers = |first: usize| [0, 1, 2, 3, 4, 5, 6, 7].map(|n| first ^ n);
    let main = greenlet::current::<[usize; 8]>();
    let greenlet = Greenlet::new(move |received: [usize; 8]| {
        watch_this_stack(1);
        assert_eq!(received, numbers(number));
        if number % 16 == 0 {
            let _ = with_locals(number, || main.switch(numbers(number + 1)));
            unreachable!("it is killed");
        }
        with_locals(number, || numbers(number + 1))
    });
    let received = with_locals(!number, || greenlet.switch(numbers(number)));
    assert_eq!(received.unwrap(), numbers(number + 1));
    assert_eq!(greenlet.is_dead(), number % 16 != 0);
}

fn start_in_a_storm(starts: usize) {
    println!("{starts} starts and ends");
    in_a_storm(2, || (0..starts).for_each(start_and_end));
}

#[test]
fn signals_during_starts_and_ends_corrupt_nothing() {
    start_in_a_storm(count(1_000_000));
}

/// An emulator looks for signals between blocks of instructions, of which a switch is one. Here it
/// is told to make each instruction a block.
#[test]
fn signals_amid_what_an_emulator_takes_for_one_block_corrupt_nothing() {
    let test = "signals_amid_what_an_emulator_takes_for_one_block_corrupt_nothing";
    if child::is_child() {
        // The child's alarm clock is of no use in a storm of alarms.
        let patience = PATIENCE.as_secs();
        let limit = libc::rlimit { rlim_cur: patience, rlim_max: patience };
        // SAFETY: the limit is live.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_CPU, &limit) }, 0);
        switch_in_a_storm(count(500_000));
        start_in_a_storm(count(64_000));
    } else if is_emulated() {
        let mut command = child::command(test);
        // The older name and the newer one of QEMU.
        let output = command.env("QEMU_SINGLESTEP", "1").env("QEMU_ONE_INSN_PER_TB", "1").output();
        let output = output.expect("the program starts again");
        assert!(output.status.success(), "{}", text_of(&output));
    }
}

/// Has the processor trap after each instruction, so that none is left out.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_signal_after_each_instruction_corrupts_nothing() {
    use std::arch::asm;
    use std::ffi::c_void;

    /// After so many something must be wrong, and its report should not take minutes.
    const MAX_TRAPS: usize = 500_000;
    const TRAP_FLAG: i64 = 0x100;

    extern "C" fn on_trap(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        dirty_the_stack();
        if signals_on_each_stack().iter().sum::<usize>() > MAX_TRAPS {
            // SAFETY: the kernel's record of the registers that it interrupted.
            let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
            context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP_FLAG;
        }
    }
    type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
    handle(libc::SIGTRAP, on_trap as Handler as usize, libc::SA_SIGINFO);
    // A trap may take 15 µs on a virtual machine, and the first round has a kill.
    let rounds = if cfg!(debug_assertions) { 2 } else { 16 };
    let (answering, (planting, is_over)) = (answering(), planting());
    watch_this_stack(0);
    // SAFETY: sets the trap flag, and the signal that follows from it is handled. A handler runs
    // without the flag, and its end sets it again.
    unsafe { asm!("pushfq", "or dword ptr [rsp], {}", "popfq", const TRAP_FLAG) };
    for number in 0..rounds {
        visit(&answering, &planting, number);
        start_and_end(number);
    }
    // SAFETY: clears the flag.
    unsafe { asm!("pushfq", "and dword ptr [rsp], {}", "popfq", const !TRAP_FLAG) };
    is_over.set(true);
    planting.switch(()).unwrap();
    let signals = signals_on_each_stack();
    println!("{rounds} rounds, signals on each stack: {signals:?}");
    assert!(signals.iter().sum::<usize>() < MAX_TRAPS, "{signals:?}");
    // A switch alone is ten instructions.
    assert!(signals.iter().all(|&count| count >= rounds * 20), "{signals:?}");
}
