//! Piles: the results of what was spawned, in that order.

use std::collections::HashMap;
use std::rc::Rc;

use stolon::pools::TokenPool;
use stolon::{GreenPile, GreenPool, sleep, spawn};

use super::{Gate, MS, NOW, panics, state};
use crate::util::leak::guarded;

// GP-10
#[test]
fn three_producers_of_a_pile_find_their_own_order_kept() {
    for size in [5, 50] {
        guarded(move || {
            let pile = Rc::new(GreenPile::new(size));
            let producers: Vec<_> = (0..3u64)
                .map(|producer| {
                    let pile = Rc::clone(&pile);
                    spawn(move || {
                        for n in 0..1000u64 {
                            let turns = (n * 31 + producer * 17) % 4;
                            pile.spawn(move || {
                                (0..turns).for_each(|_| sleep(NOW));
                                (producer, n)
                            });
                        }
                    })
                })
                .collect();
            sleep(NOW);
            let (mut next, mut count) = (HashMap::new(), 0);
            for (producer, n) in &*pile {
                let expected = next.entry(producer).or_insert(0);
                assert_eq!(n, *expected);
                *expected += 1;
                count += 1;
            }
            assert_eq!(count, 3000);
            producers.iter().for_each(|producer| producer.wait());
        });
    }
}

// GP-11
#[test]
fn two_piles_on_one_pool_have_each_their_own_results() {
    guarded(|| {
        let pool = GreenPool::new(2);
        let [one, two] = [GreenPile::with_pool(&pool), GreenPile::with_pool(&pool)];
        for n in 0..10 {
            one.spawn(move || n);
            two.spawn(move || {
                sleep(NOW);
                n * 2
            });
        }
        assert_eq!(one.collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        assert_eq!(two.collect::<Vec<_>>(), (0..10).map(|n| n * 2).collect::<Vec<_>>());
    });
}

// Corner 22.
#[test]
fn a_pile_raises_a_panic_at_its_place_and_goes_on() {
    guarded(|| {
        let pile = GreenPile::new(2);
        for n in 0..3 {
            pile.spawn(move || {
                assert!(n != 1, "one");
                n
            });
        }
        assert_eq!(pile.next(), Some(0));
        assert!(panics(|| pile.next()));
        assert_eq!(pile.next(), Some(2));
        assert_eq!(pile.next(), None);
        pile.spawn(|| 7);
        assert_eq!(pile.next(), Some(7), "one more spawned gives one more");
    });
}

#[test]
fn a_spawn_into_a_pile_that_is_interrupted_leaves_it_usable() {
    guarded(|| {
        let (pile, gate) = (Rc::new(GreenPile::new(1)), Gate::default());
        let passes = gate.clone();
        pile.spawn(move || {
            passes.pass();
            1
        });
        let (spawns, takes) = (Rc::clone(&pile), Rc::clone(&pile));
        let spawner = spawn(move || spawns.spawn(|| 2));
        let taker = spawn(move || (takes.next(), takes.next()));
        sleep(NOW);
        spawner.kill();
        gate.open();
        assert_eq!(taker.wait(), (Some(1), None));
        pile.spawn(|| 3);
        assert_eq!((pile.next(), pile.next()), (Some(3), None));
    });
}

#[test]
fn who_is_killed_while_it_takes_from_a_pile_takes_nothing() {
    guarded(|| {
        let pile = Rc::new(GreenPile::new(3));
        for n in 0..3u32 {
            pile.spawn(move || {
                sleep(3 * MS);
                n
            });
        }
        let takes = Rc::clone(&pile);
        let taker = spawn(move || takes.next());
        sleep(NOW);
        taker.kill();
        assert_eq!(
            [pile.next(), pile.next(), pile.next(), pile.next()],
            [Some(0), Some(1), Some(2), None]
        );
    });
}

// GP-13
#[test]
fn a_member_that_gives_up_waiting_for_a_token_spoils_neither_pool() {
    guarded(|| {
        let (pool, tokens) = (GreenPool::new(1), TokenPool::tokens(1));
        let held = tokens.get();
        let asks = tokens.clone();
        let timed_out = pool.spawn(move || asks.get_timeout(2 * MS).is_none());
        assert!(timed_out.wait());
        let asks = tokens.clone();
        let killed = pool.spawn(move || drop(asks.get()));
        sleep(NOW);
        assert_eq!(tokens.waiting(), 1);
        killed.kill();
        assert_eq!((tokens.waiting(), state(&pool)), (0, (0, 1, 0)));
        drop(held);
        assert_eq!(tokens.free(), 1);
        let asks = tokens.clone();
        pool.spawn(move || drop(asks.get())).wait();
        assert_eq!((tokens.free(), state(&pool)), (1, (0, 1, 0)));
    });
}
