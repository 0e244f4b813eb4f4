//! generator-rs.

use generator::{Gn, LocalGenerator, Scope};

use crate::bodies::{Body, Suspend};
use crate::coroutine;
use crate::slab::{STACK_BYTES, Slot};

pub struct Generator(LocalGenerator<'static, usize, usize>);

struct Inside<'s, 'a>(Scope<'s, 'a, usize, usize>);

impl Suspend for Inside<'_, '_> {
    #[inline(always)]
    fn suspend(&mut self, value: usize) -> usize {
        self.0.yield_(value).expect("it is resumed with a value")
    }
}

impl coroutine::Coroutine for Generator {
    type Stack = ();
    type Empty = LocalGenerator<'static, usize, usize>;

    const OWN_STACKS: usize = 10_000;

    fn stack() -> Result<(), String> {
        Ok(())
    }

    fn stack_from(_: Slot) -> Result<(), String> {
        Err(String::from("maps its stacks itself, two mappings for each"))
    }

    fn new((): (), body: Body) -> Self {
        Self(Gn::new_scoped_opt_local(STACK_BYTES / size_of::<usize>(), move |mut scope| {
            let value = scope.get_yield().expect("it is resumed with a value");
            body.run(&mut Inside(scope), value)
        }))
    }

    #[inline(always)]
    fn resume(&mut self, value: usize) -> usize {
        self.0.send(value)
    }

    fn empty((): ()) -> Self::Empty {
        Gn::new_scoped_opt_local(STACK_BYTES / size_of::<usize>(), |mut scope| {
            scope.get_yield().expect("it is resumed with a value")
        })
    }

    fn run(mut empty: Self::Empty) {
        empty.send(1);
    }
}
