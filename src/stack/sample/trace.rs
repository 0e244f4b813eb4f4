//! Backtraces of a copied stack.
#![allow(unsafe_code)]

use std::backtrace::Backtrace;

use super::walk::{self, Checked, Extent};
use crate::arch::{self, Registers};
use crate::sys::interrupt;

/// The backtrace of a copy of the stack at `from`, and how far it goes. None if the copy cannot be
/// unwound.
pub(super) fn backtrace(
    copied: &mut [usize],
    from: usize,
    mut registers: Registers,
) -> Option<(Backtrace, Extent)> {
    relocate(copied, from, &mut registers);
    let checked = walk::check(copied, &mut registers, interrupt::checks_return_addresses())?;
    let mut backtrace = None;
    retrace(&checked, &mut || backtrace = Some(Backtrace::force_capture()));
    Some((backtrace?, checked.extent))
}

/// Moves the addresses in a copy of the stack at `from` and in the registers: they are addresses in
/// the copy afterwards.
pub(super) fn relocate(copied: &mut [usize], from: usize, registers: &mut Registers) {
    let top = from + size_of_val(copied);
    let to = copied.as_ptr().expose_provenance();
    let move_address = |word: &mut usize| {
        if (from..=top).contains(word) {
            *word = *word - from + to;
        }
    };
    copied.iter_mut().for_each(move_address);
    registers.iter_mut().for_each(move_address);
}

/// Runs `look`, whose backtraces go on in a copy. If it panics the process is aborted.
pub(super) fn retrace(checked: &Checked<'_>, look: &mut dyn FnMut()) {
    // SAFETY: [`walk::check`] alone makes such a value. All that the tables lead to from its
    // registers lies in its copy, which was walked by the unwinder's rules up to an end where the
    // unwinder ends, too. Nobody has changed either since, as both are borrowed. The function does
    // not panic: `call` in `arch::retrace` is no function to unwind from, and aborts.
    unsafe { arch::retrace(checked.registers, look) }
}
