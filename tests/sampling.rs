//! Blocking detection looks at threads while they do all kinds of things, and harms none of them.
//!
//! Each test runs in a child process, which would end. `STOLON_SAMPLING_SECONDS=600 cargo test
//! --release
//! --test sampling` makes them last longer.
#![allow(unsafe_code, reason = "calls into C, and an alarm")]

mod util;

use std::collections::HashMap;
use std::env;
use std::ffi::{c_int, c_void};
use std::fmt::Write as _;
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::mem::MaybeUninit;
use std::panic::{catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stolon::debug::{self, hub_blocking_detection};
use stolon::greenlet::{self, Yielder};
use stolon::timeout::with_timeout;
use stolon::{GreenThread, sleep, spawn};
use util::child::{self, text_of};
use util::server::PATIENCE;

const NOW: Duration = Duration::ZERO;
const LIMIT: Duration = Duration::from_millis(1);

/// A turn that is noticed, and for how long each is looked at.
const TURN: Duration = Duration::from_millis(2);

/// For how long a test runs.
fn time() -> Duration {
    let seconds = env::var("STOLON_SAMPLING_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// Reports, and those with a backtrace.
static REPORTS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Runs `body` in a child process that counts reports: `test` is the test that calls this.
#[track_caller]
fn in_child(test: &str, body: fn()) {
    if child::is_child() {
        // SAFETY: a plain system call.
        unsafe { libc::alarm((time() + PATIENCE).as_secs() as libc::c_uint) };
        debug::set_blocking_hook(|blocked| {
            REPORTS[0].fetch_add(1, Ordering::Relaxed);
            let has_backtrace = usize::from(blocked.backtrace().is_some());
            REPORTS[1].fetch_add(has_backtrace, Ordering::Relaxed);
        });
        body();
        let [reports, backtraces] = REPORTS.each_ref().map(|count| count.load(Ordering::Relaxed));
        println!("{test}: {reports} reports, {backtraces} backtraces");
        assert!(backtraces > 0);
        return;
    }
    let output = child::run(test);
    assert!(output.status.success(), "{}\n{}", output.status, text_of(&output));
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

/// Runs green threads until `end`, each of which does one thing again and again in turns that are
/// too long, with detection on.
fn work_until(end: Instant, works: &[fn()]) {
    hub_blocking_detection(Some(LIMIT)).unwrap();
    let workers: Vec<GreenThread<()>> = works
        .iter()
        .map(|work| {
            let work = *work;
            spawn(move || {
                while Instant::now() < end {
                    let turn = Instant::now();
                    while turn.elapsed() < TURN {
                        work();
                    }
                    sleep(NOW);
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    hub_blocking_detection(None).unwrap();
}

#[test]
fn a_thread_that_unwinds_all_the_time_is_sampled_and_goes_on() {
    in_child("a_thread_that_unwinds_all_the_time_is_sampled_and_goes_on", || {
        work_until(Instant::now() + time(), &[|| drop(catch_unwind(|| unwind(10)))]);
    });
}

#[test]
fn threads_that_do_all_kinds_of_things_are_sampled_and_go_on() {
    in_child("threads_that_do_all_kinds_of_things_are_sampled_and_go_on", || {
        interrupt_at_work();
        let end = Instant::now() + time();
        let threads = [0, 1].map(|_| thread::spawn(move || work_until(end, &WORKS)));
        // Threads that end while they are watched, and may be asked at that moment.
        while Instant::now() < end {
            let short = thread::spawn(|| {
                hub_blocking_detection(Some(LIMIT)).unwrap();
                let turn = Instant::now();
                while turn.elapsed() < LIMIT {
                    black_box(recurse(20));
                }
            });
            short.join().unwrap();
            thread::sleep(TURN);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// A handler that was there before runs with the signals blocked that it asked for, and no others.
#[test]
fn a_handler_of_the_same_signal_is_called_as_by_the_kernel() {
    static BLOCKED: [AtomicUsize; 3] = [const { AtomicUsize::new(9) }; 3];

    extern "C" fn handle(_: c_int) {
        let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: nothing is changed, and there is room for the set, which is written whole.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), blocked.as_mut_ptr()) };
        for (signal, is_blocked) in
            [libc::SIGURG, libc::SIGUSR1, libc::SIGUSR2].iter().zip(&BLOCKED)
        {
            // SAFETY: the set is complete.
            let found = unsafe { libc::sigismember(blocked.as_ptr(), *signal) };
            is_blocked.store(found as usize, Ordering::Relaxed);
        }
    }

    if !child::is_child() {
        let output = child::run("a_handler_of_the_same_signal_is_called_as_by_the_kernel");
        return assert!(output.status.success(), "{}", text_of(&output));
    }
    let handler = handle as extern "C" fn(c_int) as usize;
    install(libc::SIGURG, handler, &[libc::SIGUSR1]);
    hub_blocking_detection(Some(LIMIT)).unwrap();
    // SAFETY: the signal has a handler.
    unsafe { libc::raise(libc::SIGURG) };
    assert_eq!(BLOCKED.each_ref().map(|blocked| blocked.load(Ordering::Relaxed)), [1, 1, 0]);
}

/// Installs a handler, during which these signals are blocked.
fn install(signal: c_int, handler: usize, blocked: &[c_int]) {
    // SAFETY: all zeros is a valid `sigaction`, and the callers pass functions of the form that the
    // flags say.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        (action.sa_sigaction, action.sa_flags) = (handler, libc::SA_RESTART);
        for signal in blocked {
            libc::sigaddset(&raw mut action.sa_mask, *signal);
        }
        assert_eq!(libc::sigaction(signal, &raw const action, ptr::null_mut()), 0);
    }
}

/// From now on a handler runs on whatever stack computes, every other millisecond.
fn interrupt_at_work() {
    extern "C" fn handle(_: c_int) {
        black_box(recurse(20));
    }

    install(libc::SIGPROF, handle as extern "C" fn(c_int) as usize, &[]);
    let period = libc::timeval { tv_sec: 0, tv_usec: 2000 };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: the timer is live, and what was set before is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, ptr::null_mut()) };
}

// What they do.

const WORKS: [fn(); 12] = [
    || _ = black_box(recurse(500)),
    || drop(catch_unwind(|| unwind(10))),
    || drop(catch_unwind(|| unwind_in_destructors(3))),
    kill_some,
    run_out_of_time,
    switch_to_and_fro,
    memory_and_text,
    sort_by_callback,
    || _ = black_box(count_objects()),
    || drop(black_box(std::backtrace::Backtrace::force_capture())),
    system_calls,
    run_children,
];

#[inline(never)]
fn recurse(depth: usize) -> usize {
    let room = black_box([depth; 5]);
    if depth == 0 { 0 } else { recurse(depth - 1) + room[depth % 5] }
}

fn unwind(depth: usize) {
    let _frame = black_box(vec![depth]);
    if depth == 0 {
        resume_unwind(Box::new("a kill, a timeout, a panic"));
    }
    unwind(depth - 1);
}

fn unwind_in_destructors(depth: usize) {
    struct Unwinds(usize);

    impl Drop for Unwinds {
        fn drop(&mut self) {
            if self.0 > 0 {
                let _ = catch_unwind(|| unwind_in_destructors(self.0 - 1));
            }
        }
    }

    let _last = Unwinds(depth);
    unwind(2);
}

/// Green threads are killed where they wait, at some depth.
fn kill_some() {
    fn wait(depth: usize) {
        let _frame = black_box(vec![depth]);
        if depth == 0 {
            sleep(Duration::MAX);
        } else {
            wait(depth - 1);
        }
    }

    let victims: Vec<_> = (0..4).map(|depth| spawn(move || wait(depth))).collect();
    sleep(NOW);
    victims.iter().for_each(|victim| victim.kill());
}

fn run_out_of_time() {
    let _ = with_timeout(Duration::from_micros(50), || sleep(Duration::MAX));
}

fn switch_to_and_fro() {
    let items = greenlet::iter(|items: &Yielder<usize>| {
        (0..10).for_each(|depth| items.yield_(recurse(depth)));
    });
    black_box(items.sum::<usize>());
}

fn memory_and_text() {
    let mut counts = HashMap::new();
    let mut text = String::new();
    for number in 0..20 {
        let _ = write!(text, "{number:>4} {:.3} {:?}", f64::from(number) / 7.0, [number; 3]);
        *counts.entry(text.clone()).or_insert(0_u64) += 1;
    }
    let mut bytes = vec![0_u8; 100_000];
    bytes[1..].copy_from_slice(&vec![1; 99_999]);
    bytes.sort_unstable();
    let mut words: Vec<String> = text.split(' ').map(str::to_uppercase).collect();
    words.sort();
    black_box((counts, bytes, words));
}

fn sort_by_callback() {
    /// # Safety
    ///
    /// Both point to words.
    unsafe extern "C" fn compare(first: *const c_void, second: *const c_void) -> c_int {
        // SAFETY: the caller's promise.
        let (first, second) = unsafe { (*first.cast::<usize>(), *second.cast::<usize>()) };
        black_box(recurse(5));
        first.cmp(&second) as c_int
    }

    let mut words: [usize; 100] = std::array::from_fn(|index| index * 7919 % 101);
    // SAFETY: the array is as large, and `compare` compares two of its words.
    unsafe {
        libc::qsort(words.as_mut_ptr().cast(), words.len(), size_of::<usize>(), Some(compare))
    };
    black_box(words);
}

fn count_objects() -> usize {
    /// # Safety
    ///
    /// The argument points to a number.
    unsafe extern "C" fn count(_: *mut libc::dl_phdr_info, _: usize, count: *mut c_void) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { *count.cast::<usize>() += 1 };
        0
    }

    let mut objects = 0_usize;
    // SAFETY: `count` gets the number that it adds to.
    unsafe { libc::dl_iterate_phdr(Some(count), (&raw mut objects).cast()) };
    objects
}

fn system_calls() {
    let mut text = String::new();
    File::open("/proc/self/stat").unwrap().read_to_string(&mut text).unwrap();
    thread::sleep(Duration::from_micros(100));
    black_box(text);
}

/// A process, by `vfork` where the C library can, and a thread.
fn run_children() {
    thread::spawn(|| black_box(recurse(3))).join().unwrap();
    let status = std::process::Command::new("true").status();
    assert!(status.unwrap().success());
}
