//! Tells AddressSanitizer of each switch, where the crate is built with `--cfg stolon_asan`.
//!
//! It has to know the bounds of the stack that runs: a panic clears what it has noted of the frames
//! up to the top. And it may keep frames of its own beside a stack, the *fake stack*, to find uses of
//! locals that are gone; each of ours has one of its own. For each switch it wants two calls:
//!
//! | when | call | fake stack |
//! |---|---|---|
//! | before leaving | start, with the bounds of the stack to go to | is saved for the return |
//! | before leaving for good | the same | is freed: no frame that has locals in it may return afterwards |
//! | after arriving | finish | is set again; none where the context runs for the first time |
//!
//! Between the two it takes the thread to have none, so what is called meanwhile may have locals.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

use super::{Context, Departure, Entry, Word, machine};

unsafe extern "C" {
    fn __sanitizer_start_switch_fiber(
        fake_stack_save: *mut *mut c_void,
        bottom: *const c_void,
        bytes: usize,
    );
    fn __sanitizer_finish_switch_fiber(
        fake_stack_save: *mut c_void,
        bottom_left: *mut *const c_void,
        bytes_left: *mut usize,
    );
}

thread_local! {
    /// Whom the arriving context takes over from; null if that one has ended.
    static LEFT: Cell<*mut Fiber> = const { Cell::new(ptr::null_mut()) };
}

/// What a context has besides.
#[derive(Debug)]
pub(super) struct Fiber {
    fake_stack: *mut c_void,
    bottom: *const c_void,
    bytes: usize,
    /// What to run first, and its argument.
    first: Option<(Entry, *mut ())>,
}

impl Fiber {
    /// Of a stack whose bounds are not known: a thread's own, which the sanitizer tells when it is
    /// left.
    pub(super) const fn empty() -> Self {
        Self { fake_stack: ptr::null_mut(), bottom: ptr::null(), bytes: 0, first: None }
    }
}

impl Context {
    /// Puts [`run_first`] before the entry function of a prepared context, which stays where it is
    /// until it has run. Its stack ends at `bottom`.
    pub(crate) fn announce(&mut self, bottom: usize) {
        // SAFETY: `prepare` wrote an entry function there, which is a pointer of the same size.
        let entry = unsafe { std::mem::transmute::<*mut u8, Entry>(self.fp) };
        self.fiber = Fiber {
            bottom: ptr::without_provenance(bottom),
            bytes: self.sp.addr() - bottom,
            first: Some((entry, self.bx.cast())),
            ..Fiber::empty()
        };
        self.fp = run_first as Entry as *mut u8;
        self.bx = ptr::from_mut(self).cast();
    }
}

/// As the machine's own `switch`.
///
/// # Safety
///
/// As there; and `to` was announced, or saved by this function.
pub(crate) unsafe fn switch(
    from: *mut Context,
    to: *const Context,
    value: Word,
    event: usize,
) -> (Word, usize) {
    // SAFETY: the caller's promise: both contexts are valid, `from` until it is resumed. `to`'s
    // bounds are known, as it was announced or left before.
    unsafe {
        let own = &raw mut (*from).fiber;
        LEFT.set(own);
        let fiber = &raw const (*to).fiber;
        __sanitizer_start_switch_fiber(&raw mut (*own).fake_stack, (*fiber).bottom, (*fiber).bytes);
        let received = machine::switch(from, to, value, event);
        arrive((*own).fake_stack);
        received
    }
}

/// Ends a switch, and notes the bounds of the stack that was left.
///
/// # Safety
///
/// Called once after each arrival, with the fake stack of the context that has arrived.
unsafe fn arrive(fake_stack: *mut c_void) {
    let left = LEFT.replace(ptr::null_mut());
    // SAFETY: a context that was left is saved, so nobody else writes it now.
    unsafe {
        if left.is_null() {
            __sanitizer_finish_switch_fiber(fake_stack, ptr::null_mut(), ptr::null_mut());
        } else {
            let (bottom, bytes) = (&raw mut (*left).bottom, &raw mut (*left).bytes);
            __sanitizer_finish_switch_fiber(fake_stack, bottom, bytes);
        }
    }
}

/// Arrives on a new stack, calls the real entry function there, and leaves for good.
///
/// No local of it has its address taken, so it has none in the fake stack that is freed under it.
///
/// # Safety
///
/// Called by the first frame, with the address of an announced context.
unsafe extern "C" fn run_first(context: *mut (), value: Word, event: usize) -> *const Departure {
    let context = context.cast::<Context>().cast_const();
    // SAFETY: the context is still where it was announced, as it has not run before. The entry
    // function gets what it was prepared with. The receiver of its end is suspended, or announced,
    // and nothing runs in between.
    unsafe {
        arrive(ptr::null_mut());
        let Some((entry, argument)) = (*context).fiber.first else { return ptr::null() };
        let departure = entry(argument, value, event);
        let to = (*departure).to;
        LEFT.set(ptr::null_mut());
        __sanitizer_start_switch_fiber(ptr::null_mut(), (*to).fiber.bottom, (*to).fiber.bytes);
        departure
    }
}
