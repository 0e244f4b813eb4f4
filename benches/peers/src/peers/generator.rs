//! generator-rs.

use generator::{Generator as Peer, Gn, Scope};

use crate::bodies::{Body, Suspend};
use crate::coroutine;
use crate::slab::{STACK_BYTES, Slot};

pub struct Generator(Peer<'static, usize, usize>);

struct Inside<'s>(Scope<'s, 'static, usize, usize>);

impl Suspend for Inside<'_> {
    #[inline(always)]
    fn suspend(&mut self, value: usize) -> usize {
        self.0.yield_(value).expect("it is resumed with a value")
    }
}

impl coroutine::Coroutine for Generator {
    type Stack = ();

    const OWN_STACKS: usize = 10_000;

    fn stack() -> Result<(), String> {
        Ok(())
    }

    fn stack_from(_: Slot) -> Result<(), String> {
        Err(String::from("maps its stacks itself, two mappings for each"))
    }

    fn new((): (), body: Body) -> Self {
        Self(Gn::new_scoped_opt(
            STACK_BYTES / size_of::<usize>(),
            move |mut scope: Scope<'_, 'static, usize, usize>| {
                let value = scope.get_yield().expect("it is resumed with a value");
                body.run(&mut Inside(scope), value)
            },
        ))
    }

    #[inline(always)]
    fn resume(&mut self, value: usize) -> usize {
        self.0.send(value)
    }
}

impl coroutine::Ending for Generator {
    type Empty = Peer<'static, usize, usize>;

    fn empty((): ()) -> Self::Empty {
        Gn::new_scoped_opt(STACK_BYTES / size_of::<usize>(), |mut scope| {
            scope.get_yield().expect("it is resumed with a value")
        })
    }

    fn run(mut empty: Self::Empty) {
        empty.send(1);
    }
}
