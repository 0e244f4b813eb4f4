//! The row of an unwinding table: how to find, from a frame's registers, those of its caller.
//!
//! A table is a program, which is run up to the address where the frame is. The rules are libgcc's.
//! What libgcc does not understand ends the process there, and what it understands in another way
//! than other unwinders could change: both end the reading here.

use super::reader::Reader;
use crate::arch;
use crate::sys::unwind::Tables;

/// The most states that a program remembers at once. Compilers use one.
const MAX_REMEMBERED: usize = 16;

/// The return addresses of the frame are signed, or no more.
const NEGATE_SIGNED: u8 = 0x2d;

/// Where the caller's value of a register is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Rule<'a> {
    /// Where it was.
    Unchanged,
    Undefined,
    /// In memory, so far from the CFA.
    At(usize),
    /// In another register.
    In(usize),
    /// In memory, at the address that an expression has.
    AtExpression(&'a [u8]),
    /// It is the value of an expression.
    Expression(&'a [u8]),
}

/// How to find the CFA: the caller's stack pointer, in most code.
#[derive(Clone, Copy)]
pub(super) enum Cfa<'a> {
    Unknown,
    Register,
    Expression(&'a [u8]),
}

/// A row.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) cfa: Cfa<'a>,
    /// Used if the CFA is found by a register.
    pub(super) register: usize,
    pub(super) offset: usize,
    pub(super) rules: [Rule<'a>; arch::COLUMNS],
    /// Whether the return address is signed (aarch64 only).
    pub(super) is_signed: bool,
}

/// What the shared description says of a function's own.
struct Common<'a> {
    code_alignment: usize,
    data_alignment: isize,
    has_augmentation: bool,
    address_encoding: u8,
    is_signal_frame: bool,
    program: Reader<'a>,
}

impl<'a> Common<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        let version = rest.byte()?;
        let end = rest.0.iter().position(|byte| *byte == 0)?;
        let augmentation = rest.bytes(end)?;
        rest.byte()?;
        let code_alignment = rest.unsigned()?;
        let data_alignment = rest.signed()?;
        let return_address = match version {
            1 => usize::from(rest.byte()?),
            3 => rest.unsigned()?,
            _ => return None,
        };
        if return_address != arch::RETURN_ADDRESS {
            return None;
        }
        let mut common = Self {
            code_alignment,
            data_alignment,
            has_augmentation: false,
            address_encoding: 0,
            is_signal_frame: false,
            program: rest,
        };
        common.augment(augmentation)?;
        Some(common)
    }

    /// Reads what the letters announce.
    fn augment(&mut self, letters: &[u8]) -> Option<()> {
        let Some((first, letters)) = letters.split_first() else { return Some(()) };
        if *first != b'z' {
            return None;
        }
        self.has_augmentation = true;
        let mut data = Reader(self.program.block()?);
        for letter in letters {
            match letter {
                // How the address of language data is written, which is read nowhere here.
                b'L' => drop(data.byte()?),
                b'R' => self.address_encoding = data.byte()?,
                // The function that is asked while unwinding is not.
                b'P' => {
                    let encoding = data.byte()?;
                    data.bytes(encoded_bytes(encoding)?)?;
                }
                b'S' => self.is_signal_frame = true,
                // Return addresses are signed with the other key.
                b'B' if cfg!(target_arch = "aarch64") => {}
                _ => return None,
            }
        }
        Some(())
    }
}

/// How many bytes an address takes that is written like this.
fn encoded_bytes(encoding: u8) -> Option<usize> {
    // Aligned ones begin at the next multiple of a word.
    if encoding == 0x50 {
        return None;
    }
    match encoding & 0x07 {
        0 => Some(size_of::<usize>()),
        2 => Some(2),
        3 => Some(4),
        4 => Some(8),
        _ => None,
    }
}

/// The row for a frame that is at `address`, and whether the frame is that of a signal handler's
/// return. Programs have effect up to `address`, and not at it: so what is given of a frame that
/// waits for a call to return is where it returns, and of one that was interrupted that address and
/// one more.
pub(super) fn row<'a>(tables: &Tables<'a>, address: usize) -> Option<(Row<'a>, bool)> {
    let common = Common::parse(tables.common)?;
    let mut own = Reader(tables.own);
    // The function's address and length.
    own.bytes(2 * encoded_bytes(common.address_encoding)?)?;
    if common.has_augmentation {
        own.block()?;
    }
    let unknown = Row {
        cfa: Cfa::Unknown,
        register: 0,
        offset: 0,
        rules: [Rule::Unchanged; arch::COLUMNS],
        is_signed: false,
    };
    let mut program =
        Program { common: &common, location: tables.start, row: unknown, initial: unknown.rules };
    program.run(common.program, address)?;
    program.initial = program.row.rules;
    program.run(own, address)?;
    Some((program.row, common.is_signal_frame))
}

/// A program under way.
struct Program<'a, 'b> {
    common: &'b Common<'a>,
    location: usize,
    row: Row<'a>,
    /// The rules after the shared program.
    initial: [Rule<'a>; arch::COLUMNS],
}

impl<'a> Program<'a, '_> {
    fn run(&mut self, mut code: Reader<'a>, address: usize) -> Option<()> {
        let mut remembered: Vec<Row<'a>> = Vec::new();
        while !code.is_empty() && self.location < address {
            let instruction = code.byte()?;
            let low = usize::from(instruction & 0x3f);
            match instruction {
                // advance_loc, and with a number of 1, 2 or 4 bytes
                0x40..=0x7f => self.advance(low),
                0x02 => self.advance(code.number(1)?),
                0x03 => self.advance(code.number(2)?),
                0x04 => self.advance(code.number(4)?),
                // remember_state, restore_state
                0x0a if remembered.len() < MAX_REMEMBERED => remembered.push(self.row),
                0x0b => self.row = remembered.pop()?,
                // offset, restore
                0x80..=0xbf => self.save(low, code.unsigned()? as isize)?,
                0xc0..=0xff => self.restore(low)?,
                _ => self.step(instruction, &mut code)?,
            }
        }
        Some(())
    }

    /// An instruction that has no operand in its own byte.
    fn step(&mut self, instruction: u8, code: &mut Reader<'a>) -> Option<()> {
        match instruction {
            // nop, GNU_args_size
            0x00 => {}
            0x2e => drop(code.unsigned()?),
            // offset_extended, offset_extended_sf
            0x05 => self.save(code.unsigned()?, code.unsigned()? as isize)?,
            0x11 => self.save(code.unsigned()?, code.signed()?)?,
            // restore_extended, undefined, same_value
            0x06 => self.restore(code.unsigned()?)?,
            0x07 => self.set(code.unsigned()?, Rule::Undefined)?,
            0x08 => self.set(code.unsigned()?, Rule::Unchanged)?,
            // register, expression, val_expression
            0x09 => self.set_known(code.unsigned()?, Rule::In(code.unsigned()?))?,
            0x10 => self.set_known(code.unsigned()?, Rule::AtExpression(code.block()?))?,
            0x16 => self.set_known(code.unsigned()?, Rule::Expression(code.block()?))?,
            NEGATE_SIGNED if cfg!(target_arch = "aarch64") => self.row.is_signed ^= true,
            _ => self.define_cfa(instruction, code)?,
        }
        Some(())
    }

    fn define_cfa(&mut self, instruction: u8, code: &mut Reader<'a>) -> Option<()> {
        let row = &mut self.row;
        match instruction {
            // def_cfa, def_cfa_sf
            0x0c => {
                (row.register, row.offset) = (code.unsigned()?, code.unsigned()?);
                row.cfa = Cfa::Register;
            }
            0x12 => {
                row.register = code.unsigned()?;
                row.offset = self.common.scaled(code.signed()?);
                row.cfa = Cfa::Register;
            }
            // def_cfa_register
            0x0d => {
                row.register = code.unsigned()?;
                row.cfa = Cfa::Register;
            }
            // def_cfa_offset, def_cfa_offset_sf: an expression remains one.
            0x0e => row.offset = code.unsigned()?,
            0x13 => row.offset = self.common.scaled(code.signed()?),
            // def_cfa_expression
            0x0f => row.cfa = Cfa::Expression(code.block()?),
            _ => return None,
        }
        Some(())
    }

    fn advance(&mut self, count: usize) {
        let bytes = count.wrapping_mul(self.common.code_alignment);
        self.location = self.location.wrapping_add(bytes);
    }

    fn save(&mut self, register: usize, offset: isize) -> Option<()> {
        self.set(register, Rule::At(self.common.scaled(offset)))
    }

    /// libgcc takes the register for unchanged, others take the rule that it had at first. Where
    /// those are not the same this is not known.
    fn restore(&mut self, register: usize) -> Option<()> {
        let initial = self.initial.get(register).copied().unwrap_or(Rule::Unchanged);
        (initial == Rule::Unchanged).then(|| self.set(register, initial))?
    }

    /// Sets the rule for a register. One of those that are not followed here is saved like the
    /// others, and nothing depends on it.
    fn set(&mut self, register: usize, rule: Rule<'a>) -> Option<()> {
        match self.row.rules.get_mut(register) {
            Some(place) => *place = rule,
            None if is_about_signatures(register) => return None,
            None => {}
        }
        Some(())
    }

    /// Sets a rule that unwinders follow at once, with what may be in their registers or in memory.
    fn set_known(&mut self, register: usize, rule: Rule<'a>) -> Option<()> {
        (register < arch::COLUMNS).then(|| self.set(register, rule))?
    }
}

impl Common<'_> {
    /// An offset that is written in units.
    fn scaled(&self, offset: isize) -> usize {
        offset.wrapping_mul(self.data_alignment) as usize
    }
}

/// Whether a column says if the return address is signed.
fn is_about_signatures(register: usize) -> bool {
    cfg!(target_arch = "aarch64") && register == 34
}
