//! Generators: iterators built on greenlets.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use stolon::greenlet::{self, Greenlet, GreenletExit, Iter, Yielder};
use stolon::stack::stack_counts;

/// Counts itself out when it is dropped.
struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn naturals() -> Iter<u64> {
    greenlet::iter(|yielder| {
        for n in 0.. {
            yielder.yield_(n);
        }
    })
}

#[test]
fn items_come_in_order_and_then_no_more() {
    let mut numbers = greenlet::iter(|yielder| {
        for n in [3, 1, 2] {
            yielder.yield_(n);
        }
    });
    assert_eq!(numbers.by_ref().collect::<Vec<_>>(), [3, 1, 2]);
    assert_eq!((numbers.next(), numbers.next()), (None, None));
    assert_eq!(stack_counts().in_use, 0);
    let mut none = greenlet::iter(|_: &Yielder<String>| ());
    assert_eq!((none.next(), none.next()), (None, None));
}

#[test]
fn a_generator_runs_only_when_it_is_asked() {
    let ran = Rc::new(Cell::new(0));
    let counts = Rc::clone(&ran);
    let mut numbers = greenlet::iter(move |yielder| {
        loop {
            counts.set(counts.get() + 1);
            yielder.yield_(counts.get());
        }
    });
    assert_eq!(ran.get(), 0);
    assert_eq!(numbers.next(), Some(1));
    assert_eq!((ran.get(), numbers.next(), ran.get()), (1, Some(2), 2));
}

#[test]
fn gl_28_permutations_come_out_of_a_recursion() {
    fn permute(items: &mut [u8], rest: usize, yielder: &Yielder<Vec<u8>>) {
        if rest == 1 {
            return yielder.yield_(items.to_vec());
        }
        for index in 0..rest {
            permute(items, rest - 1, yielder);
            items.swap(if rest % 2 == 0 { index } else { 0 }, rest - 1);
        }
    }
    let permutations = greenlet::iter(|yielder| permute(&mut [1, 2, 3, 4], 4, yielder));
    let mut all: Vec<_> = permutations.collect();
    assert_eq!(all.len(), 24);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 24);
}

#[test]
fn gl_28_generators_nest() {
    // As greenlet's own test of layers has it.
    let layered = greenlet::iter(|yielder| {
        let squares = greenlet::iter(|yielder| (1..5).for_each(|n| yielder.yield_(n * n)));
        let plain = greenlet::iter(|yielder| (1..5).for_each(|n| yielder.yield_(n)));
        for (n, square) in plain.zip(squares) {
            yielder.yield_(n);
            yielder.yield_(square);
        }
    });
    assert_eq!(layered.collect::<Vec<_>>(), [1, 1, 2, 4, 3, 9, 4, 16]);
}

#[test]
fn a_tree_is_walked_by_a_generator_for_each_node() {
    enum Tree {
        Leaf,
        Node(Box<Tree>, u32, Box<Tree>),
    }
    fn grow(numbers: std::ops::Range<u32>) -> Tree {
        if numbers.is_empty() {
            return Tree::Leaf;
        }
        let middle = numbers.start + (numbers.end - numbers.start) / 2;
        let [left, right] =
            [numbers.start..middle, middle + 1..numbers.end].map(grow).map(Box::new);
        Tree::Node(left, middle, right)
    }
    fn walk(tree: Tree) -> Iter<u32> {
        greenlet::iter(|yielder| {
            if let Tree::Node(left, number, right) = tree {
                walk(*left).for_each(|number| yielder.yield_(number));
                yielder.yield_(number);
                walk(*right).for_each(|number| yielder.yield_(number));
            }
        })
    }
    assert!(walk(grow(0..100)).eq(0..100));
    assert_eq!(stack_counts().in_use, 0);
    // Dropped in the middle, eight levels deep.
    assert_eq!(walk(grow(0..200)).nth(37), Some(37));
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn primes_come_out_of_a_chain_of_sieves() {
    fn sieve(mut numbers: Iter<u64>, yielder: &Yielder<u64>) {
        let Some(prime) = numbers.next() else { return };
        yielder.yield_(prime);
        let rest = greenlet::iter(move |yielder| {
            numbers.filter(|n| n % prime != 0).for_each(|n| yielder.yield_(n));
        });
        sieve(rest, yielder);
    }
    let mut numbers = naturals();
    numbers.nth(1);
    let primes: Vec<_> = greenlet::iter(|yielder| sieve(numbers, yielder)).take(10).collect();
    assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_generator_dropped_half_way_leaves_nothing() {
    let dropped = Rc::new(Cell::new(0));
    let local = Counted(Rc::clone(&dropped));
    let counts = Rc::clone(&dropped);
    let mut items = greenlet::iter(move |yielder| {
        let _local = local;
        // A handle on its own stack does not keep it.
        let _own = greenlet::current::<()>();
        loop {
            yielder.yield_(Counted(Rc::clone(&counts)));
        }
    });
    drop((items.next(), items.next()));
    assert_eq!(dropped.get(), 2);
    drop(items);
    assert_eq!(dropped.get(), 3);
    // Never asked.
    let local = Counted(Rc::clone(&dropped));
    drop(greenlet::iter(move |yielder| yielder.yield_(local)));
    assert_eq!(dropped.get(), 4);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_panic_comes_out_of_next_with_its_payload_and_ends_the_iteration() {
    let mut items = greenlet::iter(|yielder| {
        yielder.yield_(1);
        panic_any("in the generator");
    });
    assert_eq!(items.next(), Some(1));
    let payload = catch_unwind(AssertUnwindSafe(|| items.next())).unwrap_err();
    assert_eq!(*payload.downcast::<&str>().unwrap(), "in the generator");
    assert_eq!((items.next(), items.next()), (None, None));
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_panic_climbs_through_nested_generators() {
    let inner = greenlet::iter(|yielder: &Yielder<u8>| {
        yielder.yield_(1);
        panic_any(5);
    });
    let mut outer = greenlet::iter(|yielder| inner.for_each(|n| yielder.yield_(n)));
    assert_eq!(outer.next(), Some(1));
    let payload = catch_unwind(AssertUnwindSafe(|| outer.next())).unwrap_err();
    assert_eq!(*payload.downcast::<i32>().unwrap(), 5);
    assert_eq!(outer.next(), None);
}

#[test]
fn an_exit_ends_the_iteration_and_is_no_panic() {
    let mut items = greenlet::iter(|yielder| {
        yielder.yield_(1);
        resume_unwind(Box::new(GreenletExit));
    });
    assert_eq!((items.next(), items.next(), items.next()), (Some(1), None, None));
}

#[test]
fn whoever_asks_gets_the_item_the_end_and_the_panic() {
    let items = Rc::new(RefCell::new(greenlet::iter(|yielder| {
        (0..3).for_each(|n| yielder.yield_(n));
        panic_any("the end");
    })));
    let ask = || {
        let items = Rc::clone(&items);
        let asks = Greenlet::new(move |_| items.borrow_mut().next());
        asks.switch(None).unwrap()
    };
    assert_eq!(ask(), Some(0));
    assert_eq!(items.borrow_mut().next(), Some(1));
    assert_eq!(ask(), Some(2));
    let payload = catch_unwind(AssertUnwindSafe(ask)).unwrap_err();
    assert_eq!(*payload.downcast::<&str>().unwrap(), "the end");
    assert_eq!(ask(), None);
}

#[test]
fn a_generator_does_not_keep_who_asks_it() {
    let dropped = Rc::new(Cell::new(0));
    let (main, local) = (greenlet::current::<()>(), Counted(Rc::clone(&dropped)));
    let asks = Greenlet::new(move |()| {
        let _local = local;
        let mut numbers = naturals();
        numbers.next();
        main.switch(()).unwrap();
        numbers.next();
    });
    asks.switch(()).unwrap();
    drop(asks);
    assert_eq!((dropped.get(), stack_counts().in_use), (1, 0));
}

#[test]
fn a_generator_cannot_be_asked_by_a_greenlet_whose_end_goes_to_it() {
    let slot: Rc<RefCell<Option<Greenlet>>> = Rc::default();
    let items: Rc<RefCell<Option<Iter<u8>>>> = Rc::default();
    *items.borrow_mut() = Some(greenlet::iter({
        let (slot, items) = (Rc::clone(&slot), Rc::clone(&items));
        move |yielder| {
            // A child of the generator's greenlet.
            *slot.borrow_mut() = Some(Greenlet::new(move |()| {
                let mut items = items.take().unwrap();
                assert!(catch_unwind(AssertUnwindSafe(|| items.next())).is_err());
            }));
            yielder.yield_(1);
            yielder.yield_(2);
        }
    }));
    let mut own = items.take().unwrap();
    assert_eq!(own.next(), Some(1));
    *items.borrow_mut() = Some(own);
    let child = slot.take().unwrap();
    // It drops the generator, too; so its own end goes to the generator's parent.
    child.switch(()).unwrap();
    assert!(child.is_dead());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_yielder_is_for_its_own_greenlet() {
    let items = greenlet::iter(|yielder: &Yielder<u8>| {
        greenlet::scope(|scope| {
            let other = scope.greenlet(|()| yielder.yield_(1));
            assert!(catch_unwind(AssertUnwindSafe(|| other.switch(()))).is_err());
        });
        yielder.yield_(2);
    });
    assert_eq!(items.collect::<Vec<_>>(), [2]);
}

#[test]
fn a_generator_that_yields_in_a_destructor_while_it_is_dropped_ends() {
    struct Yields<'a>(&'a Yielder<u8>);
    impl Drop for Yields<'_> {
        fn drop(&mut self) {
            for n in 0..3 {
                self.0.yield_(n);
            }
        }
    }
    let items = || {
        greenlet::iter(|yielder| {
            let _yields = Yields(yielder);
            yielder.yield_(9);
        })
    };
    assert_eq!(items().collect::<Vec<_>>(), [9, 0, 1, 2]);
    assert_eq!(items().next(), Some(9));
    assert_eq!(items().take(2).collect::<Vec<_>>(), [9, 0]);
    // And after a panic of its own, which waits for who asks.
    let mut panics = greenlet::iter(|yielder| {
        let _yields = Yields(yielder);
        panic_any(1);
    });
    assert_eq!(panics.next(), Some(0));
    drop(panics);
    assert_eq!(stack_counts().in_use, 0);
    assert!(!thread::panicking());
}

#[test]
fn a_generator_may_be_used_and_dropped_while_another_greenlet_unwinds() {
    struct Asks(Iter<u64>);
    impl Drop for Asks {
        fn drop(&mut self) {
            assert_eq!(self.0.next(), Some(1));
            // One that is new, and ends by itself or is dropped here.
            assert_eq!(naturals().take(4).sum::<u64>(), 6);
        }
    }
    let mut numbers = naturals();
    numbers.next();
    let unwinds = catch_unwind(AssertUnwindSafe(|| {
        let _asks = Asks(numbers);
        panic_any(1);
    }));
    assert!(unwinds.is_err());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_generator_may_block_its_green_thread() {
    let green = stolon::spawn(|| {
        let ticks = greenlet::iter(|yielder| {
            for n in 0..3 {
                stolon::sleep(Duration::from_millis(1));
                yielder.yield_(n);
            }
        });
        ticks.sum::<u32>()
    });
    assert_eq!(green.wait(), 3);
}

#[test]
fn items_of_any_size_come_unchanged_traced_or_not() {
    for is_traced in [false, true] {
        if is_traced {
            greenlet::settrace(|_, _, _| ());
        }
        let large = greenlet::iter(|yielder| (0..3).for_each(|n: u64| yielder.yield_([n; 100])));
        assert_eq!(large.map(|item| item[99]).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(greenlet::iter(|yielder| yielder.yield_(())).count(), 1);
        greenlet::cleartrace();
    }
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn debug_tells_the_generators_state() {
    let mut items = naturals();
    assert!(format!("{items:?}").starts_with("Iter(Greenlet(#1 pending"), "{items:?}");
    items.next();
    assert!(format!("{items:?}").starts_with("Iter(Greenlet(#1 suspended"), "{items:?}");
}
