//! Pools of items: programs that get, use, give back and take away, with creators that block and fail.

mod model;
mod real;

use std::rc::Rc;

use model::Pools;
use quickcheck::{Arbitrary, Gen};
use real::Real;
use stolon::pools::PoolBuilder;

use super::run::{Limit, Subject, is_in_order};

/// How an item is made, if one has to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Makes {
    pause: Option<Limit>,
    fails: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Get(Limit, Makes),
    TryGet(Makes),
    /// Gets an item, yields, and gives it back.
    Use(Limit, Makes),
    /// One of those that are lent comes back. If it is dropped, that yields, or not.
    GiveBack(usize, bool),
    Detach(usize),
    Resize(usize),
}

impl Arbitrary for Makes {
    fn arbitrary(random: &mut Gen) -> Self {
        let pause = *random.choose(&[None, None, Some(Limit::Zero), Some(Limit::Short)]).unwrap();
        Self { pause, fails: u8::arbitrary(random) % 6 == 0 }
    }
}

impl Arbitrary for Call {
    fn arbitrary(random: &mut Gen) -> Self {
        let n = usize::from(u8::arbitrary(random));
        match u8::arbitrary(random) % 16 {
            0..=5 => Self::Get(Limit::arbitrary(random), Makes::arbitrary(random)),
            6 => Self::TryGet(Makes::arbitrary(random)),
            7..=8 => Self::Use(Limit::arbitrary(random), Makes::arbitrary(random)),
            9..=13 => Self::GiveBack(n, bool::arbitrary(random)),
            14 => Self::Detach(n),
            _ => Self::Resize(n % 4),
        }
    }
}

/// The number of an item, and whether it was made for who got it.
type Lent = (u32, bool);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Done,
    Nothing,
    Failed,
    Got(Lent),
    Used(Lent),
}

pub(crate) fn make(seed: u64) -> (Rc<dyn Subject<Pools>>, Pools) {
    let (max, is_stack) = ((seed % 4) as usize, seed / 4 % 2 > 0);
    let min = max.min((seed / 8 % 4) as usize);
    let builder = PoolBuilder::new().min_size(min).max_size(max).order_as_stack(is_stack);
    let real = Real::new(builder);
    let numbers = 0..min as u32;
    let free = if is_stack { numbers.rev().collect() } else { numbers.collect() };
    let pools = Pools::new(is_in_order(seed), is_stack, max, free);
    (Rc::new(real), pools)
}
