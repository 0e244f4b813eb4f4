//! The checked walk: steps from frame to frame of a copied stack, as an unwinder does, and checks
//! each step before the unwinder makes it.
//!
//! # Why it is needed
//!
//! Unwinders trust the stack. A thread may be interrupted where its unwinding tables do not
//! describe it: inside an unwinder, which is putting other registers in place of its own; in
//! assembly; between two instructions of a stub. Then an unwinder takes some word for an address,
//! reads there, and the process may end.
//!
//! # What it does
//!
//! It uses what unwinders use: the same tables ([`with_tables`] asks the unwinder that std's
//! backtraces use), read by the same rules (`row.rs`). It reads first what libgcc's unwinder would
//! read:
//!
//! | the unwinder | the check |
//! |---|---|
//! | looks for tables of a return address; without, reads code there | there are tables |
//! | reads the tables | they hold nothing that is unknown here |
//! | computes the CFA | it lies in the copy, above that of the frame before |
//! | reads a saved register or return address | the word lies in the copy |
//! | evaluates an expression | each word that it reads does; each operation is known |
//! | uses a register | its value is known, from the interruption or from a frame |
//! | checks a signed return address (aarch64) | there is none, or the processor checks none |
//!
//! The CFA rises with each frame, so the walk ends. A saved register that no frame uses is not
//! read, here or there.
//!
//! The walk ends well where an unwinder ends: at the return address 0, or at one that the tables
//! call undefined. Where a check fails, the copy is *cut*: the word that held the return address
//! into the failing frame becomes 0. Then the whole copy is walked again, as that word may have
//! been something else, too. So the copy that [`check`] passes was walked as it is, from the first
//! frame to the last. An unwinder that runs over it reads the same words and comes to the same
//! addresses.
//!
//! # What remains
//!
//! - Code may be unloaded (`dlclose`) while its tables are read. This holds for each backtrace
//!   through code that another thread unloads.
//! - The contents of tables are trusted to the length that they state, as a JIT compiler or the
//!   loader registered them.
//! - The rules are those of libgcc. With another C library than GNU's std links LLVM's libunwind,
//!   which reads the table of an interrupted frame up to another instruction: there [`check`]
//!   passes nothing.

use super::reader::{Machine, evaluate};
use super::row::{Cfa, Row, Rule, row};
use crate::arch::{self, Registers};
use crate::sys::unwind::with_tables;

/// How often a copy is cut. A second time is rare.
const MAX_CUTS: usize = 4;

/// What may be unwound of a copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extent {
    pub(super) frames: usize,
    /// Whether it was cut: there are more frames, which cannot be unwound.
    pub(super) is_cut: bool,
}

/// A copy that can be unwound from these registers, as it is. Made by [`check`] alone.
pub(super) struct Checked<'a> {
    pub(super) registers: &'a Registers,
    pub(super) extent: Extent,
    /// Borrowed, so that nobody changes it.
    _copy: &'a [usize],
}

/// Where a value was read.
#[derive(Clone, Copy)]
enum Place {
    Nowhere,
    /// Among the registers of the interruption.
    Register(usize),
    /// Among the words of the copy.
    Word(usize),
}

/// A register of a frame.
#[derive(Clone, Copy)]
struct Register {
    /// None if it is not known.
    value: Option<usize>,
    place: Place,
}

/// What comes after a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Next {
    /// The frame that called it.
    Caller,
    /// Nothing: it is the outermost.
    End,
}

/// A walk, which stands at a frame.
pub(super) struct Walk<'a> {
    copy: &'a [usize],
    registers: [Register; arch::COLUMNS],
    /// Where in the code the frame is.
    pub(super) address: usize,
    address_place: Place,
    /// The CFA of the frame that was called by this one; of the innermost the stack pointer.
    pub(super) cfa: usize,
    is_innermost: bool,
    /// Whether it was interrupted there, and has not called anybody.
    is_interrupted: bool,
    checks_signatures: bool,
}

/// Makes a copy one that can be unwound from these registers, by cutting it. None if not even the
/// innermost frame can be. Addresses in the copied stack have been moved.
pub(super) fn check<'a>(
    copy: &'a mut [usize],
    registers: &'a mut Registers,
    checks_signatures: bool,
) -> Option<Checked<'a>> {
    if !cfg!(target_env = "gnu") {
        return None;
    }
    let extent = cut_to_extent(copy, registers, checks_signatures)?;
    Some(Checked { registers, extent, _copy: copy })
}

fn cut_to_extent(
    copy: &mut [usize],
    registers: &mut Registers,
    checks_signatures: bool,
) -> Option<Extent> {
    for cuts in 0..=MAX_CUTS {
        let mut walk = Walk::new(copy, registers, checks_signatures);
        let mut frames = 0;
        let place = loop {
            let place = walk.address_place;
            match walk.step() {
                Some(Next::Caller) => frames += 1,
                Some(Next::End) => return Some(Extent { frames: frames + 1, is_cut: cuts > 0 }),
                None => break place,
            }
        };
        match place {
            _ if frames == 0 => return None,
            Place::Word(index) => copy[index] = 0,
            Place::Register(index) => registers[index] = 0,
            Place::Nowhere => return None,
        }
    }
    None
}

impl<'a> Walk<'a> {
    /// A walk that stands at the innermost frame.
    pub(super) fn new(copy: &'a [usize], registers: &Registers, checks_signatures: bool) -> Self {
        let register =
            |index| Register { value: Some(registers[index]), place: Place::Register(index) };
        Self {
            copy,
            registers: std::array::from_fn(register),
            address: registers[registers.len() - 1],
            address_place: Place::Nowhere,
            cfa: registers[arch::STACK_POINTER],
            is_innermost: true,
            is_interrupted: true,
            checks_signatures,
        }
    }

    /// Goes on to the frame that called this one. None if that cannot be done.
    pub(super) fn step(&mut self) -> Option<Next> {
        let interrupted = usize::from(self.is_interrupted);
        // A call may be the last instruction of its function: what it returns to is another one's.
        let looked_up = self.address.wrapping_add(interrupted).wrapping_sub(1);
        let row_end = self.address.wrapping_add(interrupted);
        with_tables(looked_up, |tables| {
            let (row, is_signal_frame) = row(&tables, row_end)?;
            let next = self.apply(&row)?;
            self.is_interrupted = is_signal_frame;
            Some(next)
        })?
    }

    fn apply(&mut self, row: &Row<'_>) -> Option<Next> {
        if row.is_signed && self.checks_signatures {
            return None;
        }
        let cfa = match row.cfa {
            Cfa::Unknown => return None,
            Cfa::Register => self.register(row.register)?.wrapping_add(row.offset),
            Cfa::Expression(code) => evaluate(code, 0, self)?,
        };
        // Two functions may have nothing on the stack: one that calls nobody, and one that never
        // returns.
        let is_outermost = row.rules[arch::RETURN_ADDRESS] == Rule::Undefined;
        let is_empty = cfa == self.cfa && (self.is_innermost || is_outermost);
        let is_above = cfa > self.cfa || is_empty;
        if !is_above || cfa > self.copy.as_ptr_range().end.addr() {
            return None;
        }
        let mut registers = self.registers;
        // Unless the tables say that it was saved.
        registers[arch::STACK_POINTER] = Register { value: Some(cfa), place: Place::Nowhere };
        for (register, rule) in registers.iter_mut().zip(&row.rules) {
            match *rule {
                Rule::Unchanged | Rule::Undefined => {}
                Rule::At(offset) => *register = self.saved(cfa.wrapping_add(offset)),
                // Unwinders have a stack pointer that was not saved in a place of their own.
                Rule::In(arch::STACK_POINTER) => return None,
                Rule::In(other) => *register = *self.registers.get(other)?,
                Rule::AtExpression(code) => *register = self.saved(evaluate(code, cfa, self)?),
                Rule::Expression(code) => {
                    let value = Some(evaluate(code, cfa, self)?);
                    *register = Register { value, place: Place::Nowhere };
                }
            }
        }
        (self.registers, self.cfa, self.is_innermost) = (registers, cfa, false);
        if is_outermost {
            return Some(Next::End);
        }
        let return_address = self.registers[arch::RETURN_ADDRESS];
        (self.address, self.address_place) = (return_address.value?, return_address.place);
        Some(if self.address == 0 { Next::End } else { Next::Caller })
    }

    /// The register that was saved at an address.
    fn saved(&self, address: usize) -> Register {
        match self.index(address) {
            Some(index) => Register { value: Some(self.copy[index]), place: Place::Word(index) },
            None => Register { value: None, place: Place::Nowhere },
        }
    }

    /// Which word of the copy is at an address.
    fn index(&self, address: usize) -> Option<usize> {
        let offset = address.checked_sub(self.copy.as_ptr().addr())?;
        let index = offset / size_of::<usize>();
        (offset % size_of::<usize>() == 0 && index < self.copy.len()).then_some(index)
    }
}

impl Machine for Walk<'_> {
    fn register(&self, number: usize) -> Option<usize> {
        self.registers.get(number)?.value
    }

    fn word(&self, address: usize) -> Option<usize> {
        Some(self.copy[self.index(address)?])
    }
}
