//! context, which is boost.context's `fcontext` in Rust.

use context::stack::{ProtectedFixedSizeStack, Stack};
use context::{Context as Fcontext, Transfer};

use crate::bodies::{Body, Suspend};
use crate::coroutine;
use crate::slab::{STACK_BYTES, Slot};

/// A stack of its own or one of ours.
pub enum AnyStack {
    Own(ProtectedFixedSizeStack),
    Slot(Slot),
}

impl AnyStack {
    fn context(&self, run: extern "C" fn(Transfer) -> !) -> Fcontext {
        // SAFETY: the stack lives as long as the context, which is never resumed after its owner.
        unsafe {
            match self {
                Self::Own(own) => Fcontext::new(own, run),
                Self::Slot(slot) => {
                    Fcontext::new(&Stack::new(slot.top().cast(), slot.bottom().cast()), run)
                }
            }
        }
    }
}

/// The other side, which is a different context each time it has run.
struct Other(Option<Fcontext>);

impl Other {
    #[inline(always)]
    fn resume(&mut self, value: usize) -> usize {
        let other = self.0.take().expect("the other side waits");
        // SAFETY: it is resumed once for each time it suspended.
        let transfer = unsafe { other.resume(value) };
        self.0 = Some(transfer.context);
        transfer.data
    }
}

impl Suspend for Other {
    #[inline(always)]
    fn suspend(&mut self, value: usize) -> usize {
        self.resume(value)
    }
}

pub struct Context {
    inside: Other,
    stack: AnyStack,
}

/// Is sent its body first, and then values.
extern "C" fn endless(first: Transfer) -> ! {
    let mut outside = Other(Some(first.context));
    let bodies = [Body::Flat, Body::Deep2, Body::Deep8, Body::Frame];
    let body = bodies[first.data];
    let value = outside.suspend(0);
    body.run(&mut outside, value)
}

/// Ends by being left for good.
extern "C" fn empty(first: Transfer) -> ! {
    Other(Some(first.context)).resume(first.data);
    unreachable!("it is not resumed again")
}

impl coroutine::Coroutine for Context {
    type Stack = AnyStack;

    const OWN_STACKS: usize = 1_000;

    fn stack() -> Result<AnyStack, String> {
        ProtectedFixedSizeStack::new(STACK_BYTES).map(AnyStack::Own).map_err(|e| e.to_string())
    }

    fn stack_from(slot: Slot) -> Result<AnyStack, String> {
        Ok(AnyStack::Slot(slot))
    }

    fn new(stack: AnyStack, body: Body) -> Self {
        let mut inside = Other(Some(stack.context(endless)));
        inside.resume(body as usize);
        Self { inside, stack }
    }

    #[inline(always)]
    fn resume(&mut self, value: usize) -> usize {
        self.inside.resume(value)
    }
}

impl coroutine::Ending for Context {
    type Empty = Self;

    fn empty(stack: AnyStack) -> Self {
        Self { inside: Other(Some(stack.context(empty))), stack }
    }

    fn run(mut empty: Self) -> AnyStack {
        empty.inside.resume(1);
        empty.stack
    }
}
