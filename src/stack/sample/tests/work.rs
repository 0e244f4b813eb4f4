//! What a thread may be at when it is asked where it is.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::hint::black_box;
use std::panic::{catch_unwind, resume_unwind};
use std::ptr;
use std::time::Duration;

pub(super) const ALL: [(&str, fn()); 9] = [
    ("recursion", || _ = black_box(recurse(200))),
    ("unwinding", || drop(catch_unwind(|| unwind(10)))),
    ("unwinding in destructors", || drop(catch_unwind(|| unwind_in_destructors(3)))),
    ("callbacks through C", sort_by_callback),
    ("closures", || _ = black_box(closures(50))),
    ("memory and text", memory_and_text),
    ("the loader", || _ = black_box(count_objects())),
    ("handlers of signals", raise_one),
    ("system calls", || std::thread::sleep(Duration::from_micros(20))),
];

#[inline(never)]
fn recurse(depth: usize) -> usize {
    // Frames of several sizes.
    let room = black_box([depth; 7]);
    match depth {
        0 => 0,
        _ if depth % 3 == 0 => recurse_otherwise(depth - 1) + room[3],
        _ => recurse(depth - 1) + room[5],
    }
}

#[inline(never)]
fn recurse_otherwise(depth: usize) -> usize {
    let room = black_box(vec![depth; 3]);
    recurse(depth.saturating_sub(1)) + room[1]
}

fn unwind(depth: usize) {
    let _frame = black_box(vec![depth]);
    if depth == 0 {
        resume_unwind(Box::new("for a look at the stack"));
    }
    unwind(depth - 1);
}

fn unwind_in_destructors(depth: usize) {
    struct Unwinds(usize);

    impl Drop for Unwinds {
        fn drop(&mut self) {
            let _ = catch_unwind(|| unwind(4));
            if self.0 > 0 {
                let _ = catch_unwind(|| unwind_in_destructors(self.0 - 1));
            }
        }
    }

    let _last = Unwinds(depth);
    unwind(2);
}

unsafe extern "C" {
    fn qsort(
        base: *mut c_void,
        count: usize,
        bytes: usize,
        compare: unsafe extern "C" fn(*const c_void, *const c_void) -> c_int,
    );
    fn dl_iterate_phdr(
        look: unsafe extern "C" fn(*mut c_void, usize, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
    fn raise(number: c_int) -> c_int;
    fn alarm(seconds: u32) -> u32;
}

/// Has this process end by a signal after a while.
pub(super) fn end_after(time: Duration) {
    // SAFETY: a plain system call.
    unsafe { alarm(time.as_secs() as u32) };
}

/// An address among the C library's code.
pub(super) fn in_c_library() -> usize {
    qsort as *const () as usize
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
    unsafe { qsort(words.as_mut_ptr().cast(), words.len(), size_of::<usize>(), compare) };
    black_box(words);
}

fn closures(depth: usize) -> usize {
    let next: Box<dyn Fn(usize) -> usize> =
        if depth == 0 { Box::new(|one| one) } else { Box::new(|one| one + closures(one - 1)) };
    next(depth)
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
    let words: Vec<&str> = text.split(' ').collect();
    let mut words: Vec<String> = words.iter().map(|word| word.to_uppercase()).collect();
    words.sort();
    black_box((counts, bytes, words));
}

fn count_objects() -> usize {
    /// # Safety
    ///
    /// The argument points to a number.
    unsafe extern "C" fn count(_: *mut c_void, _: usize, count: *mut c_void) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { *count.cast::<usize>() += 1 };
        0
    }

    let mut objects = 0_usize;
    // SAFETY: `count` gets the number that it adds to.
    unsafe { dl_iterate_phdr(count, ptr::from_mut(&mut objects).cast()) };
    objects
}

/// Runs a handler on this stack.
fn raise_one() {
    const USR2: c_int = 12;

    extern "C" fn handle(_: c_int) {
        black_box(recurse(20));
    }

    // SAFETY: the handler computes something.
    unsafe { signal(USR2, handle as extern "C" fn(c_int) as usize) };
    // SAFETY: the signal has a handler.
    unsafe { raise(USR2) };
}

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    // A function that calls another one, and signs the address that it returns to meanwhile.
    "stolon_test_signed:",
    ".cfi_startproc",
    "hint    #25",
    ".cfi_negate_ra_state",
    "stp     x29, x30, [sp, #-16]!",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset x29, -16",
    ".cfi_offset x30, -8",
    "blr     x0",
    "ldp     x29, x30, [sp], #16",
    ".cfi_def_cfa_offset 0",
    ".cfi_restore x29",
    ".cfi_restore x30",
    "hint    #29",
    ".cfi_negate_ra_state",
    "ret",
    ".cfi_endproc",
);

#[cfg(target_arch = "aarch64")]
pub(super) fn call_signed() {
    extern "C" fn compute() {
        black_box(recurse(20));
    }

    unsafe extern "C" {
        fn stolon_test_signed(call: extern "C" fn());
    }

    // SAFETY: an ordinary function, which calls its argument.
    unsafe { stolon_test_signed(compute) };
}
