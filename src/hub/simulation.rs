//! The simulated hub: virtual time, and an order of turns that a seed decides.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::{Duration, Instant};

use super::run_queue::Next;
use super::{BUDGET, Hub, Wake, current};
use crate::clock::Deadline;
use crate::greenlet::{self, Greenlet};

/// The environment variable that [`simulate_seeds`] takes its only seed from.
const SEED_VARIABLE: &str = "STOLON_SEED";

/// After so many turns without that time has passed, it does: those who wait for something by yielding
/// again and again would stop it for good.
const TURNS_AT_ONE_MOMENT: u32 = 65_536;

/// So long, in real time, is waited for descriptors when nothing else can happen any more.
const GRACE: Duration = Duration::from_secs(1);

/// A simulated hub, to run a program on: for tests of programs that sleep, time out and race.
///
/// ```
/// use std::time::Duration;
/// use stolon::hub;
///
/// // A service that is given up after three hours without an answer, in a few milliseconds.
/// let waited = hub::simulated(7).run(|| {
///     let start = hub::now();
///     let heartbeat = stolon::spawn(|| loop {
///         stolon::sleep(Duration::from_secs(10));
///     });
///     stolon::sleep(Duration::from_secs(3 * 60 * 60));
///     heartbeat.kill();
///     hub::now() - start
/// });
/// assert_eq!(waited, Duration::from_secs(10_800));
/// ```
///
/// # Time
///
/// Time stands still while anyone can run. When nobody can, it jumps to the next deadline, of a sleep,
/// a timeout or a [scheduled call](super::schedule_call_global), which so comes to the nanosecond.
/// [`now`] tells the time; [`Instant::now`] goes on telling the real one.
/// [`advance`] makes a computation take time, [`turn_takes`](Simulated::turn_takes)
/// every turn. Who waits for something by yielding again and again does not stop the time for good:
/// after 65,536 turns at one moment it jumps, too.
///
/// # Order
///
/// Which of the runnable green threads has the next turn is drawn by lot, with numbers that the seed
/// decides: also among those whose time comes at the same moment, and those whose descriptors become
/// ready together. So each seed is one of the many orders that a program must be right in, and the same
/// seed is the same order again. What is promised of the order elsewhere ("first come, first served",
/// "lets every other one run once") holds for who is woken when, and not for whose turn is first; only
/// scheduled calls keep theirs. With [`in_order`](Simulated::in_order) all is as on a real hub, but for
/// the time.
///
/// [`simulate_seeds`] looks for a seed that a program fails under.
///
/// # World
///
/// The program runs on an OS thread of its own, so neither the calling thread's hub nor other
/// simulations have to do with it; the calling thread waits for its end. A simulation may run another
/// one. What is still alive when the program has ended is killed, as by [`greenlet::killall`].
///
/// Descriptors work, of whatever kind: they are looked at whenever nobody can run, before the time
/// jumps. But a simulation is as repeatable as what it waits for. A program is cut off from the world
/// by [`MemoryStream`](crate::green::net::MemoryStream)s, and pairs of sockets with both ends in it.
/// An answer from outside, which takes real time, comes after all timeouts.
///
/// When nothing can ever wake who waits, that is reported as on a real hub; if anyone waits for a
/// descriptor, after a second of real time.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until `run` is called"]
pub struct Simulated {
    seed: u64,
    is_shuffled: bool,
    turn: Duration,
}

/// A simulated hub whose order of turns is decided by `seed`; see [`Simulated`].
pub fn simulated(seed: u64) -> Simulated {
    Simulated { seed, is_shuffled: true, turn: Duration::ZERO }
}

impl Simulated {
    /// Has green threads run in the order of a real hub, whatever the seed.
    pub fn in_order(self) -> Self {
        Self { is_shuffled: false, ..self }
    }

    /// Has each turn of a greenlet take so much time, all added up when the loop next looks at its
    /// timers: after 128 turns at the latest. Zero by default.
    pub fn turn_takes(self, turn: Duration) -> Self {
        Self { turn, ..self }
    }

    /// Runs `f` on such a hub, on a thread of its own, and returns what it returns.
    ///
    /// # Panics
    ///
    /// With the panic of `f`; a line on stderr then tells the seed. When no thread or no hub can be
    /// made.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.try_run(f).unwrap_or_else(|payload| {
            if self.is_shuffled {
                eprintln!("it was under `stolon::hub::simulated({})`", self.seed);
            }
            resume_unwind(payload)
        })
    }

    fn try_run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> thread::Result<R> {
        let name = thread::current().name().unwrap_or("simulated").to_owned();
        thread::scope(|scope| {
            let run = || self.run_here(f);
            let thread = thread::Builder::new().name(name).spawn_scoped(scope, run);
            thread.expect("no thread could be made for a simulation").join()
        })
    }

    /// Runs `f` on this thread, which has no hub yet.
    fn run_here<R>(&self, f: impl FnOnce() -> R) -> R {
        let hub = Hub::new(Some(Box::new(Simulation::new(self))));
        current::install(hub.expect("no hub could be made"));
        let ended = catch_unwind(AssertUnwindSafe(f));
        // While the thread is in order, so that destructors can do what they like.
        let cleared = catch_unwind(|| {
            super::abort();
            greenlet::killall();
        });
        match (ended, cleared) {
            (Ok(result), Ok(())) => result,
            (Err(payload), _) | (_, Err(payload)) => resume_unwind(payload),
        }
    }
}

/// Runs `f` on a [simulated](simulated()) hub once for each seed: to find one under which it fails.
///
/// If the environment has `STOLON_SEED`, `f` runs under that seed only, so that a failure can be
/// replayed, in a debugger or with more output.
///
/// ```
/// use std::{cell::Cell, rc::Rc, time::Duration};
/// use stolon::hub;
///
/// hub::simulate_seeds(0..100, || {
///     let balance = Rc::new(Cell::new(100));
///     let withdraw = |amount| {
///         let balance = Rc::clone(&balance);
///         stolon::spawn(move || {
///             let read = balance.get();
///             // A `sleep` here would let the other one in between, and some seed would find that.
///             balance.set(read - amount);
///         })
///     };
///     let both = [withdraw(30), withdraw(50)];
///     both.iter().for_each(|green| green.wait());
///     assert_eq!(balance.get(), 20);
/// });
/// ```
///
/// # Panics
///
/// With the panic of the first `f` that fails; lines on stderr then tell the seed and how to replay
/// it. When `STOLON_SEED` is no number.
pub fn simulate_seeds(seeds: impl IntoIterator<Item = u64>, f: impl Fn() + Sync) {
    let run = |seed| {
        if let Err(payload) = simulated(seed).try_run(&f) {
            eprintln!("it was under seed {seed}: replay it with {SEED_VARIABLE}={seed}");
            resume_unwind(payload);
        }
    };
    match std::env::var(SEED_VARIABLE) {
        Ok(text) => match text.trim().parse() {
            Ok(seed) => run(seed),
            Err(e) => panic!("{SEED_VARIABLE} is {text:?}, which is no seed: {e}"),
        },
        Err(_) => seeds.into_iter().for_each(run),
    }
}

/// The time, on the clock of this thread's hub: [`Instant::now`], or the virtual time if the hub is
/// [simulated](simulated()).
///
/// A program that measures and reports by this one can be tested in no time.
pub fn now() -> Instant {
    let virtual_time = current::existing().and_then(|hub| {
        let simulation = hub.simulation.as_ref()?;
        simulation.began.checked_add(Duration::from_nanos(hub.clock.now().as_ns()))
    });
    virtual_time.unwrap_or_else(Instant::now)
}

/// Has time pass on this thread's simulated hub while the current greenlet runs, as if it computed for
/// so long: nobody else has a turn meanwhile, and what becomes due is late.
///
/// # Panics
///
/// When the thread's hub is a real one.
pub fn advance(time: Duration) {
    let hub = current::existing().filter(|hub| hub.simulation.is_some());
    hub.expect("only the time of a simulated hub can be advanced").advance(time);
}

/// What a simulated hub has beside what others have.
pub(super) struct Simulation {
    is_shuffled: bool,
    turn: Duration,
    /// What the random numbers are made from.
    state: Cell<u64>,
    /// Turns since time last passed.
    turns: Cell<u32>,
    /// The moment that the virtual clock began at.
    began: Instant,
}

impl Simulation {
    fn new(of: &Simulated) -> Self {
        Self {
            is_shuffled: of.is_shuffled,
            turn: of.turn,
            state: Cell::new(of.seed),
            turns: Cell::new(0),
            began: Instant::now(),
        }
    }

    pub(super) fn is_shuffled(&self) -> bool {
        self.is_shuffled
    }

    /// A number below `count`, which is not zero.
    fn draw(&self, count: usize) -> usize {
        // "splitmix64".
        let state = self.state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let number = u128::from(mixed ^ (mixed >> 31));
        // Less than `count`, so it fits again.
        ((number * count as u128) >> 64) as usize
    }
}

/// The mainloop's steps in a simulated world.
impl Hub {
    pub(super) fn run_ready_simulated(&self) {
        let Some(simulation) = &self.simulation else { return };
        let turns = if simulation.is_shuffled {
            let left = Cell::new(BUDGET);
            while !self.undisturbed(|| self.hand_out_drawn_turns(simulation, &left)) {}
            self.observed.counts.add_turns(BUDGET - left.get());
            BUDGET - left.get()
        } else {
            self.run_ready()
        };
        simulation.turns.set(simulation.turns.get() + turns);
        if !simulation.turn.is_zero() {
            self.advance(simulation.turn.saturating_mul(turns));
        }
    }

    fn hand_out_drawn_turns(&self, simulation: &Simulation, left: &Cell<u32>) {
        while let Some(rest) = left.get().checked_sub(1) {
            let Some((greenlet, wake)) = self.draw_next(simulation) else { break };
            left.set(rest);
            self.let_run(greenlet, wake);
            if self.closed.get() {
                break;
            }
        }
    }

    fn draw_next(&self, simulation: &Simulation) -> Option<(Greenlet<Wake>, Wake)> {
        loop {
            let next = {
                let mut run_queue = self.run_queue.borrow_mut();
                run_queue.choose_next(|count| simulation.draw(count));
                run_queue.next_if(|_| true)
            };
            match next {
                Next::Run(greenlet, wake) => return Some((greenlet, wake)),
                Next::Stale(greenlet) => drop(greenlet),
                Next::Nothing => return None,
            }
        }
    }

    /// Looks at the descriptors, and if nobody can run, has it be the time of the next deadline.
    pub(super) fn poll_simulated(&self) {
        let Some(simulation) = &self.simulation else { return };
        if self.hears_of_others() {
            self.ask_poller(Some(Duration::ZERO));
        }
        let is_idle = self.run_queue.borrow().is_empty();
        if !is_idle && simulation.turns.get() < TURNS_AT_ONE_MOMENT {
            return;
        }
        simulation.turns.set(0);
        if let Some(next) = self.timers.borrow().next_deadline().moment() {
            self.clock.advance_to(next);
        } else if is_idle {
            self.wait_for_the_world();
        }
    }

    fn wait_for_the_world(&self) {
        let start = Instant::now();
        // A signal may end a wait early.
        while self.hears_of_others() && self.run_queue.borrow().is_empty() {
            match GRACE.checked_sub(start.elapsed()) {
                Some(left) => self.ask_poller(Some(left)),
                None => break,
            }
        }
        if self.run_queue.borrow().is_empty() {
            panic!("{}", self.deadlock_report());
        }
    }

    fn advance(&self, time: Duration) {
        let simulation = self.simulation.as_ref().expect("the hub is simulated");
        if let Some(moment) = Deadline::after(self.clock.now(), time).moment() {
            simulation.turns.set(0);
            self.clock.advance_to(moment);
        }
    }
}
