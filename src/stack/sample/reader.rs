//! Reading unwinding tables, byte by byte, and the expressions in them.

/// The rest of a table. What would be read behind its end is not there.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        Some(self.bytes(1)?[0])
    }

    /// A number of `count` bytes, the lowest first.
    pub(super) fn number(&mut self, count: usize) -> Option<usize> {
        let bytes = self.bytes(count)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A number without a sign, in groups of seven bits (ULEB128).
    pub(super) fn unsigned(&mut self) -> Option<usize> {
        Some(self.groups()?.0)
    }

    /// A number with a sign, in groups of seven bits (SLEB128).
    pub(super) fn signed(&mut self) -> Option<isize> {
        let (number, bits) = self.groups()?;
        let above = usize::BITS.saturating_sub(bits);
        Some((number << above) as isize >> above)
    }

    /// A number, and how many bits it was written in.
    fn groups(&mut self) -> Option<(usize, u32)> {
        let (mut number, mut bits) = (0, 0);
        // More would not fit into a word.
        while bits < usize::BITS {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << bits;
            bits += 7;
            if byte & 0x80 == 0 {
                return Some((number, bits));
            }
        }
        None
    }

    /// Bytes behind their number.
    pub(super) fn block(&mut self) -> Option<&'a [u8]> {
        let count = self.unsigned()?;
        self.bytes(count)
    }
}

/// What an expression may look at.
pub(super) trait Machine {
    /// The value of a register, if it is known.
    fn register(&self, number: usize) -> Option<usize>;

    /// The word at an address, if it may be read.
    fn word(&self, address: usize) -> Option<usize>;
}

/// The most that an expression may put onto its stack: as in libgcc, which ends the process if
/// there is more.
const DEPTH: usize = 64;

/// The value of a DWARF expression, whose stack begins with `first`. None if it uses an operation
/// that is not known here, or what is not there.
///
/// Known are the operations that compilers, the linker's stubs and the libraries' assembly use in
/// tables. There are no jumps among them, so evaluation ends.
pub(super) fn evaluate(code: &[u8], first: usize, machine: &impl Machine) -> Option<usize> {
    let mut code = Reader(code);
    let mut stack = vec![first];
    while !code.is_empty() {
        let operation = code.byte()?;
        let value = match operation {
            // const1u, const1s, constu, consts
            0x08 => code.number(1)?,
            0x09 => code.number(1)? as i8 as usize,
            0x10 => code.unsigned()?,
            0x11 => code.signed()? as usize,
            // dup
            0x12 => *stack.last()?,
            // deref
            0x06 => machine.word(stack.pop()?)?,
            // plus_uconst
            0x23 => stack.pop()?.wrapping_add(code.unsigned()?),
            // lit0 and the following
            0x30..=0x4f => usize::from(operation - 0x30),
            // breg0 and the following
            0x70..=0x8f => {
                let offset = code.signed()?;
                machine.register(usize::from(operation - 0x70))?.wrapping_add_signed(offset)
            }
            _ => {
                let upper = stack.pop()?;
                binary(operation, stack.pop()?, upper)?
            }
        };
        stack.push(value);
        if stack.len() > DEPTH {
            return None;
        }
    }
    stack.pop()
}

/// An operation on the two words that were put onto the stack last, `upper` after `lower`.
fn binary(operation: u8, lower: usize, upper: usize) -> Option<usize> {
    let (signed_lower, signed_upper) = (lower as isize, upper as isize);
    Some(match operation {
        // and, minus, mul, or, plus
        0x1a => lower & upper,
        0x1c => lower.wrapping_sub(upper),
        0x1e => lower.wrapping_mul(upper),
        0x21 => lower | upper,
        0x22 => lower.wrapping_add(upper),
        // shl
        0x24 => lower.checked_shl(u32::try_from(upper).ok()?)?,
        // eq, ge, gt, le, lt, ne
        0x29 => usize::from(lower == upper),
        0x2a => usize::from(signed_lower >= signed_upper),
        0x2b => usize::from(signed_lower > signed_upper),
        0x2c => usize::from(signed_lower <= signed_upper),
        0x2d => usize::from(signed_lower < signed_upper),
        0x2e => usize::from(lower != upper),
        _ => return None,
    })
}
