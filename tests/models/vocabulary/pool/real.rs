//! A real pool, of items that tell when they are made and dropped.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use stolon::corolocal::Local;
use stolon::pools::{Item, Pool, PoolBuilder};
use stolon::sleep;

use super::super::run::{Limit, Subject};
use super::{Call, Makes, Outcome, Pools};

/// What is pooled.
struct Thing {
    number: u32,
    is_new: Cell<bool>,
    world: Rc<World>,
}

/// What the items of a pool are told, and what they tell.
#[derive(Default)]
struct World {
    /// What is made before that is new to nobody.
    is_built: Cell<bool>,
    made: Cell<u32>,
    dropped: Cell<isize>,
    /// The next one that is dropped yields.
    drops_slowly: Cell<bool>,
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.world.dropped.set(self.world.dropped.get() + 1);
        if self.world.drops_slowly.take() {
            sleep(Limit::Zero.duration().unwrap());
        }
    }
}

/// What is raised where no item can be made.
struct Fails;

pub(super) struct Real {
    pool: Pool<Thing>,
    lent: RefCell<Vec<Item<Thing>>>,
    /// How each makes an item.
    makes: Local<Cell<Makes>>,
    world: Rc<World>,
}

impl Real {
    pub(super) fn new(builder: PoolBuilder) -> Self {
        let (world, makes) = (Rc::new(World::default()), Local::<Cell<Makes>>::new(Cell::default));
        let create = {
            let (world, makes) = (Rc::clone(&world), makes.clone());
            move || {
                let Makes { pause, fails } = makes.get();
                pause.and_then(Limit::duration).into_iter().for_each(sleep);
                if fails {
                    resume_unwind(Box::new(Fails));
                }
                let number = world.made.get();
                world.made.set(number + 1);
                let is_new = Cell::new(world.is_built.get());
                Thing { number, is_new, world: Rc::clone(&world) }
            }
        };
        let pool = builder.build(create);
        world.is_built.set(true);
        Self { pool, lent: RefCell::default(), makes, world }
    }

    fn get(&self, limit: Option<Limit>, makes: Makes) -> Result<Option<Item<Thing>>, Fails> {
        self.makes.set(makes);
        let got = catch_unwind(AssertUnwindSafe(|| match limit.map(Limit::duration) {
            None => self.pool.try_get(),
            Some(None) => Some(self.pool.get()),
            Some(Some(limit)) => self.pool.get_timeout(limit),
        }));
        got.map_err(|payload| match payload.downcast::<Fails>() {
            Ok(fails) => *fails,
            Err(payload) => resume_unwind(payload),
        })
    }

    fn keep(&self, got: Result<Option<Item<Thing>>, Fails>) -> Outcome {
        match got {
            Ok(Some(item)) => {
                let lent = (item.number, item.is_new.take());
                self.lent.borrow_mut().push(item);
                Outcome::Got(lent)
            }
            Ok(None) => Outcome::Nothing,
            Err(Fails) => Outcome::Failed,
        }
    }

    /// One of those that are lent.
    fn one(&self, n: usize) -> Option<Item<Thing>> {
        let mut lent = self.lent.borrow_mut();
        n.checked_rem(lent.len()).map(|n| lent.remove(n))
    }
}

impl Subject<Pools> for Real {
    fn call(&self, call: Call) -> Outcome {
        match call {
            Call::Get(limit, makes) => return self.keep(self.get(Some(limit), makes)),
            Call::TryGet(makes) => return self.keep(self.get(None, makes)),
            Call::Use(limit, makes) => match self.get(Some(limit), makes) {
                Ok(Some(item)) => {
                    let lent = (item.number, item.is_new.take());
                    sleep(Limit::Zero.duration().unwrap());
                    return Outcome::Used(lent);
                }
                other => return self.keep(other),
            },
            Call::GiveBack(n, is_slow) => {
                let item = self.one(n);
                self.world.drops_slowly.set(is_slow && item.is_some());
                drop(item);
                self.world.drops_slowly.set(false);
            }
            Call::Detach(n) => drop(self.one(n).map(Item::detach)),
            Call::Resize(max) => self.pool.resize(max),
        }
        Outcome::Done
    }

    fn view(&self) -> Vec<isize> {
        let Self { pool, world, .. } = self;
        let [waiting, max] = [pool.waiting(), pool.max_size()].map(|n| n as isize);
        vec![pool.free(), waiting, world.dropped.get(), max]
    }
}
