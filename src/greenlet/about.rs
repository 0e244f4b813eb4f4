//! What handlers of signals are told of the current greenlet: when it has run over its stack, and when its
//! thread is sampled.
#![allow(unsafe_code)]

use std::{fmt, io};

use super::transfer;
use crate::stack::sample::{self, About};
use crate::stack::{Span, overflow};

/// Makes the report of an overflow name the greenlet.
pub(super) fn report_overflows() {
    // SAFETY: `describe_current` reads a thread-local word that has neither an initialiser nor a
    // destructor, and through it what is not written while its greenlet is current: the stack
    // (`stack_span`), the name and the number, which never change. `format_args` allocates nothing.
    unsafe { overflow::report(describe_current) }
}

/// Passes on the stack of the current greenlet, and what to call it. Runs in a signal handler.
fn describe_current(tell: &dyn Fn(Span, fmt::Arguments<'_>)) {
    let block = transfer::current_ptr();
    if block.is_null() {
        return;
    }
    // SAFETY: the current greenlet's block is alive (`transfer::try_current`).
    let block = unsafe { &*block };
    let Some(span) = block.stack_span() else { return };
    match block.name() {
        Some(name) => tell(span, format_args!("{name}")),
        None => tell(span, format_args!("#{}", block.id.get())),
    }
}

/// Has threads that are interrupted say which greenlet they run.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn allow_samples() -> io::Result<()> {
    // SAFETY: `tell_of_current` reads what `describe_current` does, and two fields more that do not
    // change while their greenlet is current: where it was made, and its context, into which the
    // machine's switch writes when another has become current.
    unsafe { sample::allow(tell_of_current) }
}

/// Passes on what is known of the current greenlet. Runs in a signal handler.
fn tell_of_current(tell: &mut dyn FnMut(&About<'_>)) {
    let current = transfer::current_ptr();
    if current.is_null() {
        return;
    }
    // SAFETY: the current greenlet's block is alive (`transfer::try_current`).
    let block = unsafe { &*current };
    tell(&About {
        name: block.name(),
        id: block.id.get(),
        made_at: block.made_at.get(),
        stack: block.stack_span(),
        context: block.context.get().addr(),
        last_stack_pointer: block.stack_pointer().addr(),
    });
}
