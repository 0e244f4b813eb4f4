//! Wasmtime's fibers.

use std::convert::Infallible;

use wasmtime_internal_fiber::{Fiber as Wasmtime, FiberStack, Suspend as Suspender};

use crate::bodies::{Body, Suspend};
use crate::coroutine;
use crate::slab::{STACK_BYTES, Slot};

/// Its memory lives longer, if it is one of ours.
pub struct Stack(FiberStack, Option<Slot>);

pub struct Fiber {
    fiber: Wasmtime<'static, usize, usize, Infallible>,
    _slot: Option<Slot>,
}

struct Inside<'a>(&'a mut Suspender<usize, usize, Infallible>);

impl Suspend for Inside<'_> {
    #[inline(always)]
    fn suspend(&mut self, value: usize) -> usize {
        self.0.suspend(value)
    }
}

impl coroutine::Coroutine for Fiber {
    type Stack = Stack;

    const OWN_STACKS: usize = 1_000;

    fn stack() -> Result<Stack, String> {
        let stack = FiberStack::new(STACK_BYTES, false).map_err(|e| e.to_string())?;
        Ok(Stack(stack, None))
    }

    fn stack_from(slot: Slot) -> Result<Stack, String> {
        // SAFETY: so many bytes are mapped from there on, and the slot is kept with the stack. It
        // has no guard; nothing that runs on it needs one.
        let stack = unsafe { FiberStack::from_raw_parts(slot.bottom(), 0, STACK_BYTES) };
        Ok(Stack(stack.map_err(|e| e.to_string())?, Some(slot)))
    }

    fn new(stack: Stack, body: Body) -> Self {
        let fiber =
            Wasmtime::new(stack.0, move |value, suspend| body.run(&mut Inside(suspend), value));
        let fiber = fiber.unwrap_or_else(|(e, _)| panic!("no fiber: {e}"));
        Self { fiber, _slot: stack.1 }
    }

    #[inline(always)]
    fn resume(&mut self, value: usize) -> usize {
        let Err(value) = self.fiber.resume(value);
        value
    }
}

impl coroutine::Ending for Fiber {
    type Empty = (Wasmtime<'static, usize, usize, usize>, Option<Slot>);

    fn empty(stack: Stack) -> Self::Empty {
        let fiber = Wasmtime::new(stack.0, |value, _| value);
        (fiber.unwrap_or_else(|(e, _)| panic!("no fiber: {e}")), stack.1)
    }

    fn run((fiber, slot): Self::Empty) -> Stack {
        let _ = fiber.resume(1);
        Stack(fiber.into_stack(), slot)
    }
}
