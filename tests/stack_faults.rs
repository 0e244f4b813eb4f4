//! Faults that are no overflows of greenlets are none of the library's business. Each crash is a child
//! process's.
#![allow(unsafe_code)]

mod util;

use std::ffi::{c_int, c_void};
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::exit;
use std::ptr;
use std::thread;

use stolon::stack::default_stack_bytes;
use util::child::text_of;
use util::crash::*;

/// What a handler of the tests' own ends the process with.
const HANDLED: c_int = 42;

/// An address where nothing is.
const NOWHERE: usize = 16;

#[test]
fn another_fault_in_a_greenlet_ends_the_process_as_ever() {
    let output = crash("another_fault_in_a_greenlet_ends_the_process_as_ever", || {
        run_in_greenlet(|| read(NOWHERE));
    });
    expect_death_by(&output, libc::SIGSEGV);
}

#[test]
fn a_threads_own_overflow_has_stds_report() {
    let output = crash("a_threads_own_overflow_has_stds_report", || {
        let body = || {
            run_in_greenlet(|| ());
            recurse(0);
        };
        thread::Builder::new().name("plain".into()).spawn(body).unwrap().join().unwrap();
    });
    let complaint = complaint(&output).join("\n");
    assert!(complaint.starts_with("thread 'plain'"), "{complaint}");
    assert!(complaint.contains("has overflowed its stack"), "{complaint}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", text_of(&output));
}

/// Installs a handler for faults, during which SIGUSR1 is blocked. `handler` has the form that
/// `flags` say.
fn handle(signal: c_int, handler: usize, flags: c_int) {
    // SAFETY: all zeros is a valid `sigaction`, and the callers pass functions that may run then.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaddset(&mut action.sa_mask, libc::SIGUSR1);
        assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
    }
}

type WithInfo = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
type WithoutInfo = extern "C" fn(c_int);

extern "C" fn exit_if_nowhere(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's record of a fault.
    let address = unsafe { (*info).si_addr() }.addr();
    let is_right = signal == libc::SIGSEGV
        && address == NOWHERE
        && !context.is_null()
        && [libc::SIGSEGV, libc::SIGUSR1].into_iter().all(is_blocked);
    // SAFETY: ends the process, whatever the state it is in.
    unsafe { libc::_exit(if is_right { HANDLED } else { 1 }) };
}

fn is_blocked(signal: c_int) -> bool {
    let mut mask = MaybeUninit::uninit();
    // SAFETY: nothing is changed, and there is room for what is set, which is read if it was
    // written.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr()) == 0
            && libc::sigismember(mask.as_ptr(), signal) == 1
    }
}

extern "C" fn exit_if_fault(signal: c_int) {
    // SAFETY: as above.
    unsafe { libc::_exit(if signal == libc::SIGSEGV { HANDLED } else { 1 }) };
}

#[test]
fn another_fault_reaches_the_previous_handler() {
    let output = crash("another_fault_reaches_the_previous_handler", || {
        handle(libc::SIGSEGV, exit_if_nowhere as WithInfo as usize, libc::SA_SIGINFO);
        run_in_greenlet(|| read(NOWHERE));
    });
    assert_eq!(output.status.code(), Some(HANDLED), "{}", text_of(&output));
}

#[test]
fn another_fault_reaches_the_previous_handler_of_the_old_form() {
    let output = crash("another_fault_reaches_the_previous_handler_of_the_old_form", || {
        handle(libc::SIGSEGV, exit_if_fault as WithoutInfo as usize, 0);
        run_in_greenlet(|| ());
        thread::spawn(|| read(NOWHERE)).join().unwrap();
    });
    assert_eq!(output.status.code(), Some(HANDLED), "{}", text_of(&output));
}

#[test]
fn an_overflow_does_not_reach_the_previous_handler() {
    let output = crash("an_overflow_does_not_reach_the_previous_handler", || {
        handle(libc::SIGSEGV, exit_if_fault as WithoutInfo as usize, 0);
        run_in_greenlet(|| recurse(0));
    });
    expect_report(&output, "#1", default_stack_bytes());
}

extern "C" fn make_accessible(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel's record of a fault, whose address is that of the test's own page.
    let failed =
        unsafe { libc::mprotect((*info).si_addr(), 1, libc::PROT_READ | libc::PROT_WRITE) };
    if failed != 0 {
        // SAFETY: as above.
        unsafe { libc::_exit(1) };
    }
}

/// A new page of a mapping of `fd`.
fn map_page(fd: c_int, protection: c_int) -> usize {
    let flags = if fd == -1 { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS } else { libc::MAP_SHARED };
    // SAFETY: a new mapping.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, fd, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page.addr()
}

#[test]
fn a_previous_handler_may_repair_what_is_wrong_and_return() {
    let output = crash("a_previous_handler_may_repair_what_is_wrong_and_return", || {
        handle(libc::SIGSEGV, make_accessible as WithInfo as usize, libc::SA_SIGINFO);
        for _ in 0..3 {
            run_in_greenlet(|| assert_eq!(read(map_page(-1, libc::PROT_NONE)), 0));
        }
        exit(HANDLED);
    });
    assert_eq!(output.status.code(), Some(HANDLED), "{}", text_of(&output));
}

fn raise(signal: c_int) {
    // SAFETY: a number and nothing else.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

#[test]
fn a_previous_handler_for_one_fault_is_called_for_one() {
    extern "C" fn do_nothing(_: c_int) {}
    let output = crash("a_previous_handler_for_one_fault_is_called_for_one", || {
        handle(libc::SIGSEGV, do_nothing as WithoutInfo as usize, libc::SA_RESETHAND);
        run_in_greenlet(|| read(NOWHERE));
    });
    expect_death_by(&output, libc::SIGSEGV);
}

#[test]
fn a_fault_that_was_ignored_ends_the_process() {
    let output = crash("a_fault_that_was_ignored_ends_the_process", || {
        handle(libc::SIGSEGV, libc::SIG_IGN, 0);
        run_in_greenlet(|| {
            // No faults: these are ignored still.
            raise(libc::SIGSEGV);
            raise(libc::SIGSEGV);
            println!("lives");
        });
        run_in_greenlet(|| read(NOWHERE));
    });
    assert!(text_of(&output).contains("lives"), "{}", text_of(&output));
    expect_death_by(&output, libc::SIGSEGV);
}

#[test]
fn a_sent_signal_that_ended_the_process_still_does() {
    let output = crash("a_sent_signal_that_ended_the_process_still_does", || {
        handle(libc::SIGSEGV, libc::SIG_DFL, 0);
        run_in_greenlet(|| raise(libc::SIGSEGV));
    });
    expect_death_by(&output, libc::SIGSEGV);
}

#[test]
fn an_access_past_the_end_of_a_file_ends_the_process_as_ever() {
    let output = crash("an_access_past_the_end_of_a_file_ends_the_process_as_ever", || {
        // SAFETY: the name is a string of C's.
        let empty = unsafe { libc::memfd_create(c"empty".as_ptr(), 0) };
        run_in_greenlet(move || read(map_page(empty, libc::PROT_READ)));
    });
    expect_death_by(&output, libc::SIGBUS);
}

#[test]
fn a_thread_of_c_that_ends_has_no_signal_stack_left() {
    extern "C" fn body(_: *mut c_void) -> *mut c_void {
        run_in_greenlet(|| ());
        ptr::null_mut()
    }
    let maps = || fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    join_c_thread(body);
    let before = maps();
    for _ in 0..100 {
        join_c_thread(body);
    }
    assert!(maps() < before + 50, "{} mappings, {before} before", maps());
}
