//! D10: an endless loop of spawns, as an agent that has workers.

use std::cell::Cell;
use std::rc::Rc;

use stolon::{GreenPool, GreenThread, sleep, spawn};

use super::{Gauge, HOUR, MS, NOW, cpu_time, state};
use crate::util::leak::guarded;

/// The agent's loop: spawns a worker into the pool whenever there is room.
fn agent(pool: &GreenPool, counts: &Counts, work: impl Fn() + Clone + 'static) -> GreenThread<()> {
    let (pool, counts) = (pool.clone(), counts.clone());
    spawn(move || {
        loop {
            let (work, in_worker) = (work.clone(), counts.clone());
            pool.spawn_n(move || {
                in_worker.0.0.set(in_worker.0.0.get() + 1);
                let _inside = in_worker.0.2.enter();
                work();
            });
            counts.0.1.set(counts.0.1.get() + 1);
        }
    })
}

/// How many workers have started, how many spawns have returned, and who works now.
#[derive(Clone, Default)]
struct Counts(Rc<(Cell<u32>, Cell<u32>, Gauge)>);

impl Counts {
    fn get(&self) -> (u32, u32) {
        (self.0.0.get(), self.0.1.get())
    }
}

#[test]
fn d10_an_endless_loop_fills_its_pool_and_then_replaces_who_ends_without_spinning() {
    guarded(|| {
        let (pool, counts) = (GreenPool::new(8), Counts::default());
        let ends = Rc::new(Cell::new(0u32));
        let panics = Rc::new(Cell::new(false));
        let (to_end, how) = (Rc::clone(&ends), Rc::clone(&panics));
        let agent = agent(&pool, &counts, move || {
            while to_end.get() == 0 {
                sleep(20 * MS);
            }
            to_end.set(to_end.get() - 1);
            assert!(!how.get(), "a worker");
        });
        assert_eq!(counts.get(), (0, 0), "to start it takes no time");
        sleep(5 * MS);
        assert_eq!((counts.get(), state(&pool)), ((8, 8), (8, 0, 1)));
        for (n, how) in [(9, false), (10, true)] {
            panics.set(how);
            ends.set(1);
            sleep(50 * MS);
            assert_eq!((counts.get(), state(&pool)), ((n, n), (8, 0, 1)));
        }
        agent.kill();
        ends.set(8);
        panics.set(false);
        pool.waitall().unwrap();
    });
}

#[test]
fn d10_a_full_pool_takes_no_processor_time() {
    guarded(|| {
        let (pool, counts) = (GreenPool::new(8), Counts::default());
        let agent = agent(&pool, &counts, || sleep(HOUR));
        sleep(5 * MS);
        let before = cpu_time();
        sleep(300 * MS);
        let used = cpu_time() - before;
        assert!(used < 10 * MS, "{used:?}");
        assert_eq!(counts.get(), (8, 8));
        agent.kill();
        stop_all(&pool);
    });
}

/// Ends who runs in a pool, by the only handle that there is: its thread's.
fn stop_all(pool: &GreenPool) {
    for greenlet in stolon::greenlet::all() {
        let is_hub = greenlet.name() == Some("mainloop");
        if !is_hub && greenlet.parent::<()>().is_some() {
            stolon::greenthread::kill(&greenlet);
        }
    }
    pool.waitall().unwrap();
}

#[test]
fn d10_over_a_thousand_lives_there_are_never_more_than_the_pool_is_large() {
    guarded(|| {
        let (pool, counts) = (GreenPool::new(8), Counts::default());
        let agent = agent(&pool, &counts, || (0..3).for_each(|_| sleep(NOW)));
        while counts.get().0 < 1000 {
            sleep(NOW);
        }
        agent.kill();
        pool.waitall().unwrap();
        assert_eq!(counts.0.2.most(), 8);
    });
}

// imap.
