//! What makes greenlets coroutines: stacks of their own, one at a time, in the order that the
//! program says.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::thread;

use stolon::greenlet::{self, Greenlet};

/// A small generator of pseudo-random numbers, so that a failing order can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn each_greenlet_has_a_stack_and_locals_of_its_own() {
    fn descend(greenlet: usize, level: usize, main: &Greenlet) -> usize {
        let local = [greenlet * 1000 + level; 8];
        main.switch(()).unwrap();
        let below = if level < 50 { descend(greenlet, level + 1, main) } else { 0 };
        main.switch(()).unwrap();
        assert_eq!(local, [greenlet * 1000 + level; 8]);
        below + local[level % 8]
    }
    let main = greenlet::current::<()>();
    let sums = Rc::new(RefCell::new(vec![0; 100]));
    let mut greenlets: Vec<_> = (0..100)
        .map(|number| {
            let (main, sums) = (main.clone(), Rc::clone(&sums));
            Greenlet::new(move |()| sums.borrow_mut()[number] = descend(number, 0, &main))
        })
        .collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    while !greenlets.is_empty() {
        let chosen = random.below(greenlets.len());
        greenlets[chosen].switch(()).unwrap();
        if greenlets[chosen].is_dead() {
            greenlets.swap_remove(chosen);
        }
    }
    let expected: Vec<usize> =
        (0..100).map(|number| (0..=50).map(|level| number * 1000 + level).sum()).collect();
    assert_eq!(*sums.borrow(), expected);
}

#[test]
fn one_greenlet_runs_at_a_time_so_a_plain_counter_is_exact() {
    const STEPS: usize = if cfg!(debug_assertions) { 1_000 } else { 10_000 };
    let counter = Rc::new(Cell::new(0));
    let main = greenlet::current::<()>();
    let greenlets: Vec<_> = (0..100)
        .map(|_| {
            let (main, counter) = (main.clone(), Rc::clone(&counter));
            Greenlet::new(move |()| {
                for _ in 0..STEPS {
                    let read = counter.get();
                    counter.set(read + 1);
                    main.switch(()).unwrap();
                }
            })
        })
        .collect();
    while greenlets.iter().any(|greenlet| !greenlet.is_dead()) {
        for greenlet in &greenlets {
            if !greenlet.is_dead() {
                greenlet.switch(()).unwrap();
            }
        }
    }
    assert_eq!(counter.get(), 100 * STEPS);
}

#[test]
fn the_order_of_switches_is_the_programs_own() {
    let script = [2, 0, 1, 1, 2, 0, 0, 2, 1];
    let trace = Rc::new(RefCell::new(Vec::new()));
    let main = greenlet::current::<()>();
    let greenlets: Vec<_> = (0..3)
        .map(|number| {
            let (main, trace) = (main.clone(), Rc::clone(&trace));
            Greenlet::new(move |()| {
                loop {
                    trace.borrow_mut().push(number);
                    main.switch(()).unwrap();
                }
            })
        })
        .collect();
    for number in script {
        greenlets[number].switch(()).unwrap();
    }
    assert_eq!(*trace.borrow(), script);
}

#[test]
fn threads_have_greenlets_of_their_own_that_do_not_meet() {
    let threads: Vec<_> = (0..4usize)
        .map(|number| {
            thread::spawn(move || {
                let main = greenlet::current::<usize>();
                let greenlets: Vec<_> = (0..1000usize)
                    .map(|index| {
                        let main = main.clone();
                        Greenlet::new(move |mut sum: usize| {
                            for _ in 0..3 {
                                sum += main.switch(sum + index).unwrap() + number;
                            }
                            sum
                        })
                    })
                    .collect();
                let step = |n| greenlets.iter().map(|g| g.switch(n).unwrap()).sum::<usize>();
                [1, 2, 3, 4].map(step)
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        let indices: usize = (0..1000).sum();
        let expected = [1000, 3000, 6000, 10_000]
            .iter()
            .zip([0, 1, 2, 3])
            .map(|(values, passes)| {
                let own = if passes == 3 { 0 } else { indices };
                values + passes * number * 1000 + own
            })
            .collect::<Vec<_>>();
        assert_eq!(thread.join().unwrap().to_vec(), expected);
    }
}

#[test]
fn a_generator_yields_from_any_depth_of_calls() {
    fn permute(items: &mut Vec<u8>, rest: usize, consumer: &Greenlet<Option<Vec<u8>>>) {
        if rest == 1 {
            consumer.switch(Some(items.clone())).unwrap();
            return;
        }
        for index in 0..rest {
            permute(items, rest - 1, consumer);
            let other = if rest % 2 == 0 { index } else { 0 };
            items.swap(other, rest - 1);
        }
    }
    let consumer = greenlet::current::<Option<Vec<u8>>>();
    let generator = Greenlet::new(move |_: Option<Vec<u8>>| {
        permute(&mut vec![1, 2, 3, 4], 4, &consumer);
        None
    });
    let mut all = Vec::new();
    while let Some(permutation) = generator.switch(None).unwrap() {
        all.push(permutation);
    }
    assert_eq!(all.len(), 24);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 24);
}
