//! What runs in the coroutines: the same code for every peer.

use std::hint::black_box;

/// The inside of a coroutine: hands a value to whoever resumed it and returns the next one.
pub trait Suspend {
    fn suspend(&mut self, value: usize) -> usize;
}

/// What a coroutine does all its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Body {
    /// Suspends in a loop.
    Flat,
    /// Suspends two frames further down.
    Deep2,
    /// Suspends eight frames further down.
    Deep8,
    /// Reads and writes its own frame each time it is resumed.
    Frame,
}

impl Body {
    /// Suspended so many frames down.
    pub fn at_depth(depth: usize) -> Self {
        match depth {
            0 => Self::Flat,
            2 => Self::Deep2,
            8 => Self::Deep8,
            _ => unreachable!("there are three depths"),
        }
    }

    /// Runs it, on the coroutine's stack.
    #[inline(always)]
    pub fn run<S: Suspend>(self, inside: &mut S, mut value: usize) -> ! {
        match self {
            Self::Flat => loop {
                value = inside.suspend(value + 1);
            },
            Self::Deep2 => loop {
                value = two(inside, value);
            },
            Self::Deep8 => loop {
                value = eight(inside, value);
            },
            Self::Frame => {
                let mut frame = Frame::new();
                loop {
                    value = inside.suspend(frame.touch(value));
                }
            }
        }
    }
}

/// Memory in the frame of a body.
pub struct Frame([usize; Self::WORDS]);

impl Frame {
    const WORDS: usize = 32;

    pub fn new() -> Self {
        Self([0; Self::WORDS])
    }

    /// Reads and writes a word of it.
    #[inline(always)]
    pub fn touch(&mut self, value: usize) -> usize {
        let word = &mut black_box(&mut self.0)[value % Self::WORDS];
        *word = word.wrapping_add(value);
        *word
    }
}

/// Functions that call each other. Each has its own return address, as ordinary functions have, and
/// does something with the result, so that the call is no jump; in registers, so that what is measured
/// is not memory.
macro_rules! frames {
    ($($outer:ident calls $inner:ident;)*) => {$(
        #[inline(never)]
        fn $outer<S: Suspend>(inside: &mut S, value: usize) -> usize {
            $inner(inside, value ^ 1).wrapping_add(2)
        }
    )*};
}

frames! {
    eight calls seven;
    seven calls six;
    six calls five;
    five calls four;
    four calls three;
    three calls two;
    two calls one;
}

#[inline(never)]
fn one<S: Suspend>(inside: &mut S, value: usize) -> usize {
    inside.suspend(value ^ 1).wrapping_add(2)
}

/// The same order each time, and none.
pub fn shuffle<T>(items: &mut [T]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(last, (state % (last as u64 + 1)) as usize);
    }
}
