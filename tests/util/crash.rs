//! Child processes that crash.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::{Output, exit};
use std::ptr;

use stolon::greenlet::Greenlet;

use super::child::{self, text_of};

/// Runs `body` in a child process: `test` is the test that calls this.
#[track_caller]
pub fn crash(test: &str, body: impl FnOnce()) -> Output {
    if child::is_child() {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the limit is live.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
        body();
        exit(0);
    }
    child::run(test)
}

/// What the child complained about, without what an emulator adds.
pub fn complaint(output: &Output) -> Vec<String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines = stderr.lines().filter(|line| !line.is_empty() && !line.starts_with("qemu:"));
    lines.map(str::to_owned).collect()
}

/// Checks that the child has said this of a greenlet, nothing else, and was aborted.
#[track_caller]
pub fn expect_report(output: &Output, name: &str, stack_bytes: usize) {
    let kib = stack_bytes / 1024;
    let line = format!("greenlet '{name}' has overflowed its stack ({kib} KiB)");
    assert_eq!(complaint(output), [line]);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", text_of(output));
}

/// Checks that the child has died of a signal without a word.
#[track_caller]
pub fn expect_death_by(output: &Output, signal: c_int) {
    assert_eq!(complaint(output), [""; 0]);
    assert_eq!(output.status.signal(), Some(signal), "{}", text_of(output));
}

/// Calls itself without end.
#[inline(never)]
pub fn recurse(depth: usize) {
    if black_box(depth) < usize::MAX {
        recurse(depth + 1);
    }
    // So that the call is not the last thing done.
    black_box(depth);
}

/// Does so when it is dropped.
pub struct RecursesOnDrop;

impl Drop for RecursesOnDrop {
    fn drop(&mut self) {
        recurse(0);
    }
}

/// Reads memory that may not be there.
pub fn read(address: usize) -> u8 {
    // SAFETY: none. This is what a program does that is wrong, in a process of its own.
    unsafe { ptr::without_provenance::<u8>(address).read_volatile() }
}

/// Runs `f` in a new greenlet of the default size.
pub fn run_in_greenlet<R>(f: impl FnOnce() -> R + 'static) {
    let run = move |()| {
        f();
    };
    Greenlet::new(run).switch(()).unwrap();
}

/// Runs `body` on a thread that std knows nothing of.
pub fn join_c_thread(body: extern "C" fn(*mut c_void) -> *mut c_void) {
    let mut id = MaybeUninit::uninit();
    // SAFETY: the id is written before it is read, and the thread is joined once.
    unsafe {
        let error = libc::pthread_create(id.as_mut_ptr(), ptr::null(), body, ptr::null_mut());
        assert_eq!(error, 0);
        assert_eq!(libc::pthread_join(id.assume_init(), ptr::null_mut()), 0);
    }
}
