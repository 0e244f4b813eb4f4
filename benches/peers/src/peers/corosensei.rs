//! corosensei.

use std::convert::Infallible;
use std::num::NonZeroUsize;

use corosensei::stack::{DefaultStack, Stack, StackPointer};
use corosensei::{Coroutine, Yielder};

use crate::bodies::{Body, Suspend};
use crate::coroutine;
use crate::slab::{STACK_BYTES, Slot};

/// A stack of its own or one of ours.
pub enum AnyStack {
    Own(DefaultStack),
    Slot(Slot),
}

// SAFETY: both are mapped as long as they live, aligned to more than a page, and larger than the
// least.
unsafe impl Stack for AnyStack {
    fn base(&self) -> StackPointer {
        match self {
            Self::Own(own) => own.base(),
            Self::Slot(slot) => NonZeroUsize::new(slot.top().addr()).expect("no stack ends at 0"),
        }
    }

    fn limit(&self) -> StackPointer {
        match self {
            Self::Own(own) => own.limit(),
            Self::Slot(slot) => {
                NonZeroUsize::new(slot.bottom().addr()).expect("no stack begins at 0")
            }
        }
    }
}

pub struct Corosensei(Coroutine<usize, usize, Infallible, AnyStack>);

struct Inside<'a>(&'a Yielder<usize, usize>);

impl Suspend for Inside<'_> {
    #[inline(always)]
    fn suspend(&mut self, value: usize) -> usize {
        self.0.suspend(value)
    }
}

impl coroutine::Coroutine for Corosensei {
    type Stack = AnyStack;

    const OWN_STACKS: usize = 1_000;

    fn stack() -> Result<AnyStack, String> {
        DefaultStack::new(STACK_BYTES).map(AnyStack::Own).map_err(|e| e.to_string())
    }

    fn stack_from(slot: Slot) -> Result<AnyStack, String> {
        Ok(AnyStack::Slot(slot))
    }

    fn new(stack: AnyStack, body: Body) -> Self {
        Self(Coroutine::with_stack(stack, move |yielder, value| {
            body.run(&mut Inside(yielder), value)
        }))
    }

    #[inline(always)]
    fn resume(&mut self, value: usize) -> usize {
        self.0.resume(value).as_yield().expect("it does not end")
    }
}

impl coroutine::Ending for Corosensei {
    type Empty = Coroutine<usize, usize, usize, AnyStack>;

    fn empty(stack: AnyStack) -> Self::Empty {
        Coroutine::with_stack(stack, |_, value| value)
    }

    fn run(mut empty: Self::Empty) -> AnyStack {
        empty.resume(1);
        empty.into_stack()
    }
}
