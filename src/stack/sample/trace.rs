//! Backtraces of a copied stack.
#![allow(unsafe_code)]

use std::backtrace::Backtrace;

use super::walk::{self, Extent};
use crate::arch::{self, Registers};
use crate::sys::interrupt;

/// The backtrace of a copy of the stack at `from`, and how far it goes. None if the copy cannot be unwound.
pub(super) fn backtrace(
    copied: &mut [usize],
    from: usize,
    mut registers: Registers,
) -> Option<(Backtrace, Extent)> {
    relocate(copied, from, &mut registers);
    let extent = walk::check(copied, &mut registers, interrupt::checks_return_addresses())?;
    let mut backtrace = None;
    retrace(copied, &registers, &mut || backtrace = Some(Backtrace::force_capture()));
    Some((backtrace?, extent))
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

/// Runs `look`, whose backtraces go on in a copy that was [checked](walk::check) with these registers. It
/// does not panic.
pub(super) fn retrace(_checked: &[usize], registers: &Registers, look: &mut dyn FnMut()) {
    // SAFETY: all that the tables lead to from these registers lies in the copy, which was walked by the
    // same rules up to an end where unwinders end, too, and has not been changed since.
    unsafe { arch::retrace(registers, look) }
}
