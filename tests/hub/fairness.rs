//! Who waits for a socket or for time among those that yield all the time.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::util::leak::{guarded, simulated};
use crate::util::sockets::{pair, pipe};
use stolon::hub::{self, trampoline};
use stolon::poller::Interest;
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

/// Starts `count` that yield until it is over, each counting its turns.
fn spin(count: usize, over: &Rc<Cell<bool>>, turns: &Rc<Cell<u64>>) -> Vec<GreenThread<()>> {
    let spin = |_| {
        let (over, turns) = (Rc::clone(over), Rc::clone(turns));
        spawn(move || {
            while !over.get() {
                turns.set(turns.get() + 1);
                sleep(NOW);
            }
        })
    };
    (0..count).map(spin).collect()
}

// D12.
#[test]
fn those_whose_time_has_come_go_before_who_yields() {
    simulated(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let (beats, steps) = (Rc::clone(&order), Rc::clone(&order));
        let heart = spawn(move || {
            sleep(6 * MS);
            beats.borrow_mut().push("beat");
        });
        let task = spawn(move || {
            for step in ["first", "second", "third"] {
                steps.borrow_mut().push(step);
                hub::advance(5 * MS);
                sleep(NOW);
            }
        });
        heart.wait();
        task.wait();
        assert_eq!(*order.borrow(), ["first", "second", "beat", "third"]);
    });
}

// HB-18.
#[test]
fn a_reader_runs_within_one_spin_of_those_that_yield() {
    for spinners in [1, 2, 10] {
        guarded(move || {
            let (over, turns) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
            let (near, far) = pair();
            let seen = Rc::new(Cell::new(0));
            let (read, counted) = (Rc::clone(&seen), Rc::clone(&turns));
            let reader = spawn(move || {
                for _ in 0..100 {
                    (&far).read_exact(&mut [0]).unwrap();
                    read.set(counted.get());
                }
            });
            let spins = spin(spinners, &over, &turns);
            // This one yields too, and is the one that writes.
            for _ in 0..100 {
                (0..7).for_each(|_| sleep(NOW));
                let before = turns.get();
                (&near).write_all(b"!").unwrap();
                while seen.get() < before {
                    sleep(NOW);
                }
                let all = spinners as u64 + 1;
                // The round that is under way, and one more.
                assert!(seen.get() - before <= 2 * all, "{} turns", seen.get() - before);
            }
            over.set(true);
            reader.wait();
            spins.iter().for_each(GreenThread::wait);
        });
    }
}

#[test]
fn who_waits_first_while_others_yield_is_not_late() {
    guarded(|| {
        let (over, turns) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        // Nobody waits for anything, so the mainloop has nothing to look at.
        let spins = spin(3, &over, &turns);
        (0..50).for_each(|_| sleep(NOW));
        let (mut near, far) = pair();
        near.write_all(b"!").unwrap();
        let before = turns.get();
        stolon::hub::trampoline(&far, stolon::poller::Interest::READABLE, None).unwrap();
        assert!(turns.get() - before <= 12, "{} turns", turns.get() - before);
        over.set(true);
        spins.iter().for_each(GreenThread::wait);
    });
}

#[test]
fn a_heartbeat_beats_between_the_steps_of_a_task_that_yields() {
    guarded(|| {
        let beats = Rc::new(Cell::new(0));
        let counted = Rc::clone(&beats);
        let heart = spawn(move || {
            loop {
                sleep(MS);
                counted.set(counted.get() + 1);
            }
        });
        let work = || {
            for _ in 0..20 {
                let start = Instant::now();
                while start.elapsed() < 2 * MS {}
                sleep(NOW);
            }
        };
        let tasks = [spawn(work), spawn(work)];
        tasks.iter().for_each(GreenThread::wait);
        // A beat is due after one step, and has its turn when both have had theirs.
        assert!(beats.get() >= 40 / 3, "{} beats in 40 steps", beats.get());
        heart.kill();
    });
}

// HB-18.
#[test]
fn of_more_readers_than_the_poller_names_at_once_each_has_its_turn_in_order() {
    const READERS: usize = 300;

    guarded(|| {
        let (order, mut writers) = (Rc::new(RefCell::new(Vec::new())), Vec::new());
        let reader = |number| {
            let ((mut reads, writer), order) = (pipe(), Rc::clone(&order));
            writers.push(writer);
            spawn(move || {
                trampoline(&reads, Interest::READABLE, None).unwrap();
                reads.read_exact(&mut [0]).unwrap();
                order.borrow_mut().push(number);
            })
        };
        let readers: Vec<_> = (0..READERS).map(reader).collect();
        sleep(MS);
        assert_eq!(hub::stats().descriptors, READERS);
        let polls = hub::stats().polls;
        for writer in &mut writers {
            writer.write_all(b"!").unwrap();
        }
        readers.iter().for_each(GreenThread::wait);
        assert!(order.take().into_iter().eq(0..READERS));
        // As often as 128 of them have had their turns.
        assert!(hub::stats().polls >= polls + 3);
    });
}
