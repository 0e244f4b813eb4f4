//! Nobody starves: not timers by those who can run, nor sockets by timers, nor those who can run by
//! sockets. Each on the real clock and on a simulated one.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::util::leak::guarded;
use crate::util::sockets::pair;
use stolon::hub::{self, schedule_call_global};
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const US: Duration = Duration::from_micros(1);

/// So many turns at most there are between two looks at timers and sockets.
const BUDGET: u64 = 128;

/// Of the three that yield: the round that is under way when a timer is due, and one until the sleeper
/// has its turn. One more if it is due just before a turn.
const TWO_ROUNDS: u64 = 2 * 3 + 1;

/// Runs `test` on a simulated hub where each turn takes a microsecond, under several orders.
fn simulated(test: fn()) {
    guarded(move || {
        hub::simulated(0).in_order().turn_takes(US).run(test);
        for seed in 0..3 {
            hub::simulated(seed).turn_takes(US).run(test);
        }
    });
}

/// Green threads that yield until `over`, and each time call `turn`.
fn spin(count: usize, over: &Rc<Cell<bool>>, turn: impl Fn() + 'static) -> Vec<GreenThread<()>> {
    let turn = Rc::new(turn);
    let spinner = |_| {
        let (over, turn) = (Rc::clone(over), Rc::clone(&turn));
        spawn(move || {
            while !over.get() {
                turn();
                sleep(NOW);
            }
        })
    };
    (0..count).map(spinner).collect()
}

fn finish(threads: Vec<GreenThread<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Counts what happens from when it is told to until it is stopped.
#[derive(Default)]
struct Counter {
    runs: Cell<bool>,
    count: Cell<u64>,
}

impl Counter {
    fn count(&self) {
        self.count.set(self.count.get() + u64::from(self.runs.get()));
    }
}

// Timers beside those who can run.

#[test]
fn runnables_do_not_starve_timers_on_the_simulated_clock() {
    simulated(|| {
        let over = Rc::new(Cell::new(false));
        let spinners = spin(3, &over, || ());
        for _ in 0..5 {
            let start = hub::now();
            sleep(MS);
            let late = hub::now() - start - MS;
            // A pass until it is woken, and one until it has its turn.
            assert!(late <= US * (2 * BUDGET as u32), "{late:?} late");
        }
        over.set(true);
        finish(spinners);
    });
}

// However long their turns are.
#[test]
fn runnables_do_not_starve_timers_on_the_real_clock() {
    guarded(|| {
        let (over, late) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0_u64)));
        let due = Rc::new(Cell::new(None::<Instant>));
        let (noted, counted) = (Rc::clone(&due), Rc::clone(&late));
        let spinners = spin(3, &over, move || {
            let start = Instant::now();
            counted.set(counted.get() + u64::from(noted.get().is_some_and(|due| start >= due)));
            while start.elapsed() < 3 * MS {
                black_box(start);
            }
        });
        for _ in 0..10 {
            late.set(0);
            due.set(Some(Instant::now() + 7 * MS));
            sleep(7 * MS);
            assert!(late.get() <= TWO_ROUNDS, "{} turns since it was due", late.get());
        }
        over.set(true);
        finish(spinners);
    });
}

#[test]
fn quick_runnables_do_not_starve_timers_either() {
    guarded(|| {
        let (over, turns) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0_u64)));
        let counted = Rc::clone(&turns);
        let due = Rc::new(Cell::new(None::<Instant>));
        let noted = Rc::clone(&due);
        let spinners = spin(3, &over, move || {
            let is_due = noted.get().is_some_and(|due| Instant::now() >= due);
            counted.set(counted.get() + u64::from(is_due));
        });
        for _ in 0..20 {
            turns.set(0);
            due.set(Some(Instant::now() + MS));
            sleep(MS);
            // Some more, as the moment was noted before the sleep began.
            assert!(turns.get() <= BUDGET, "{} turns since it was due", turns.get());
        }
        over.set(true);
        finish(spinners);
    });
}

// Sockets beside timers.

/// Green threads whose sleeps are always over already, and a call that schedules itself anew each
/// time; a reader is to have its bytes all the same.
fn timers_beside_a_reader() {
    let over = Rc::new(Cell::new(false));
    let fired = Rc::new(Counter::default());
    let sleepers = (0..3).map(|_| {
        let (over, fired) = (Rc::clone(&over), Rc::clone(&fired));
        spawn(move || {
            while !over.get() {
                sleep(Duration::from_nanos(1));
                fired.count();
            }
        })
    });
    let sleepers = sleepers.collect();
    call_again(Rc::clone(&over), Rc::clone(&fired));
    let (mut near, far) = pair();
    for _ in 0..5 {
        let (far, fired_when) = (far.try_clone().unwrap(), Rc::clone(&fired));
        let reader = spawn(move || {
            (&far).read_exact(&mut [0; 4]).unwrap();
            fired_when.runs.set(false);
        });
        sleep(MS);
        fired.count.set(0);
        near.write_all(b"byte").unwrap();
        fired.runs.set(true);
        reader.join().unwrap();
        // All that are due in the pass under way, and in the one after it.
        assert!(fired.count.get() <= 4 * 4, "{} timers came first", fired.count.get());
    }
    over.set(true);
    finish(sleepers);
    sleep(MS);
}

fn call_again(over: Rc<Cell<bool>>, fired: Rc<Counter>) {
    if !over.get() {
        fired.count();
        schedule_call_global(NOW, || call_again(over, fired));
    }
}

#[test]
fn timers_do_not_starve_sockets_on_the_simulated_clock() {
    simulated(timers_beside_a_reader);
}

#[test]
fn timers_do_not_starve_sockets_on_the_real_clock() {
    guarded(timers_beside_a_reader);
}

// Those who can run beside sockets.

/// One that reads what is always there already, and two that hand a byte to and fro; one that yields
/// is to have its turns all the same.
fn sockets_beside_a_runnable() {
    const BYTES: u32 = 20_000;
    let log = Rc::new(RefCell::new(vec![0_u32]));
    let over = Rc::new(Cell::new(false));
    let turns = Rc::clone(&log);
    let spinner = spin(1, &over, move || turns.borrow_mut().push(0));
    let count = {
        let log = Rc::clone(&log);
        move || *log.borrow_mut().last_mut().unwrap() += 1
    };
    let (mut near, far) = pair();
    near.write_all(&[1; BYTES as usize]).unwrap();
    let counted = count.clone();
    let greedy = spawn(move || {
        for _ in 0..BYTES {
            (&far).read_exact(&mut [0]).unwrap();
            counted();
        }
    });
    let (ping, pong) = pair();
    let pass = |mut stream: stolon::green::net::TcpStream, count: Rc<dyn Fn()>| {
        spawn(move || {
            for _ in 0..500 {
                stream.write_all(b"!").unwrap();
                stream.read_exact(&mut [0]).unwrap();
                count();
            }
        })
    };
    let count: Rc<dyn Fn()> = Rc::new(count);
    let players = [pass(ping, Rc::clone(&count)), pass(pong, count)];
    greedy.join().unwrap();
    finish(players.into());
    over.set(true);
    finish(spinner);
    let most = *log.borrow().iter().max().unwrap();
    // Sixty-four operations that need not wait, and a few of each player.
    assert!(most <= 64 + 2 * 64, "{most} operations between two turns");
    assert!(log.borrow().len() >= BYTES as usize / (3 * 64), "{} turns", log.borrow().len());
}

#[test]
fn sockets_do_not_starve_runnables_on_the_simulated_clock() {
    guarded(|| hub::simulated(0).in_order().turn_takes(US).run(sockets_beside_a_runnable));
}

#[test]
fn sockets_do_not_starve_runnables_on_the_real_clock() {
    guarded(sockets_beside_a_runnable);
}
