//! Programs of a pool: after each step both sides have to agree on who runs, who waits, and who is
//! done. A seed decides whose turn it is, in a quarter of the programs; in the others they take turns
//! as on a real hub.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use quickcheck::{Arbitrary, Gen, TestResult};
use stolon::greenthread::getcurrent;
use stolon::{GreenPool, GreenThread, hub, sleep, spawn};

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
enum Op {
    /// Somebody spawns a task, which yields so many times.
    Spawn(u8),
    /// A task ends, by a panic or not.
    Finish(usize, bool),
    /// A task is killed.
    KillTask(usize),
    /// Who spawned a task, or waits to, is killed.
    KillSpawner(usize),
    Resize(usize),
    /// Somebody waits for all.
    Wait,
    KillWaiter(usize),
    /// A task spawns another one, which ends at once.
    SpawnInside(usize),
    /// Everybody runs until all wait.
    Settle,
}

#[derive(Clone, Debug)]
struct Program {
    seed: u64,
    size: usize,
    ops: Vec<Op>,
}

impl Arbitrary for Op {
    fn arbitrary(random: &mut Gen) -> Self {
        let who = usize::from(u8::arbitrary(random));
        match u8::arbitrary(random) % 16 {
            0..=4 => Self::Spawn(u8::arbitrary(random) % 4),
            5..=7 => Self::Finish(who, bool::arbitrary(random)),
            8 => Self::KillTask(who),
            9 | 10 => Self::KillSpawner(who),
            11 => Self::Resize(who % 4),
            12 => Self::Wait,
            13 => Self::KillWaiter(who),
            14 => Self::SpawnInside(who),
            _ => Self::Settle,
        }
    }
}

impl Arbitrary for Program {
    fn arbitrary(random: &mut Gen) -> Self {
        let length = usize::from(u8::arbitrary(random) % 24);
        let ops = (0..length).map(|_| Op::arbitrary(random)).collect();
        Self { seed: u64::arbitrary(random), size: usize::arbitrary(random) % 4, ops }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let original = self.clone();
        let without = move |at: usize| {
            let mut less = original.clone();
            less.ops.remove(at);
            less
        };
        Box::new((0..self.ops.len()).map(without))
    }
}

/// What has become of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waits,
    Runs,
    Ended,
    Panicked,
    Killed,
    /// Its spawner was killed while it waited.
    NeverSpawned,
}

/// What both sides tell at a settled moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    running: usize,
    free: isize,
    waiting: usize,
    fates: Vec<Fate>,
    /// Of each that waited for all: whether it is told.
    told: Vec<bool>,
    /// How many ran in the place of a member.
    inline: usize,
}

/// The rules, with lists.
#[derive(Default)]
struct Model {
    size: usize,
    running: Vec<usize>,
    line: Vec<usize>,
    fates: Vec<Fate>,
    waiters: Vec<Option<bool>>,
    inline: usize,
}

impl Model {
    fn fill(&mut self) {
        while self.running.len() < self.size && !self.line.is_empty() {
            let next = self.line.remove(0);
            self.fates[next] = Fate::Runs;
            self.running.push(next);
        }
    }

    fn end(&mut self, task: usize, fate: Fate) {
        self.running.retain(|running| *running != task);
        self.fates[task] = fate;
        self.fill();
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Spawn(_) => {
                self.fates.push(Fate::Waits);
                self.line.push(self.fates.len() - 1);
                self.fill();
            }
            Op::Finish(task, panics) if self.runs(task) => {
                self.end(task, if panics { Fate::Panicked } else { Fate::Ended });
            }
            Op::KillTask(task) if self.runs(task) => self.end(task, Fate::Killed),
            Op::KillSpawner(task) if self.line.contains(&task) => {
                self.line.retain(|waits| *waits != task);
                self.fates[task] = Fate::NeverSpawned;
            }
            Op::Resize(size) => {
                self.size = size;
                self.fill();
            }
            Op::Wait => self.waiters.push(Some(false)),
            Op::KillWaiter(waiter) if self.waiters[waiter] == Some(false) => {
                self.waiters[waiter] = None;
            }
            Op::SpawnInside(task) if self.runs(task) => {
                self.inline += usize::from(self.running.len() >= self.size);
            }
            _ => {}
        }
        if self.running.is_empty() && self.line.is_empty() {
            for waiter in self.waiters.iter_mut().flatten() {
                *waiter = true;
            }
        }
    }

    fn runs(&self, task: usize) -> bool {
        self.running.contains(&task)
    }

    fn state(&self) -> State {
        State {
            running: self.running.len(),
            free: self.size as isize - self.running.len() as isize,
            waiting: self.line.len(),
            fates: self.fates.clone(),
            told: self.waiters.iter().map(|waiter| *waiter == Some(true)).collect(),
            inline: self.inline,
        }
    }
}

/// What a task is told to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    None,
    End,
    Panic,
    SpawnInside,
}

/// A task, and who spawns it.
struct Actor {
    spawner: GreenThread<()>,
    order: Rc<Cell<Order>>,
    fate: Rc<Cell<Fate>>,
    task: Rc<RefCell<Option<GreenThread<()>>>>,
}

/// Tells what has become of a task, however it ends.
struct Tells(Rc<Cell<Fate>>, Fate);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

struct Real {
    pool: GreenPool,
    actors: Vec<Actor>,
    waiters: Vec<(GreenThread<()>, Rc<Cell<bool>>)>,
    inline: Rc<Cell<usize>>,
}

impl Real {
    fn spawn(&mut self, yields: u8) {
        let (order, fate) = (Rc::new(Cell::new(Order::None)), Rc::new(Cell::new(Fate::Waits)));
        let task = Rc::new(RefCell::new(None));
        let (pool, inner, inline) = (self.pool.clone(), self.pool.clone(), Rc::clone(&self.inline));
        let (orders, is, place) = (Rc::clone(&order), Rc::clone(&fate), Rc::clone(&task));
        let run = {
            let is = Rc::clone(&is);
            move || {
                is.set(Fate::Runs);
                let mut tells = Tells(is, Fate::Killed);
                (0..yields).for_each(|_| sleep(Duration::ZERO));
                loop {
                    match orders.replace(Order::None) {
                        Order::None => sleep(MS),
                        Order::SpawnInside => {
                            let (me, inline) = (getcurrent(), Rc::clone(&inline));
                            drop(inner.spawn(move || {
                                inline.set(inline.get() + usize::from(getcurrent() == me));
                            }));
                        }
                        Order::Panic => {
                            tells.1 = Fate::Panicked;
                            std::panic::resume_unwind(Box::new("a task"));
                        }
                        Order::End => {
                            tells.1 = Fate::Ended;
                            return;
                        }
                    }
                }
            }
        };
        let spawner = spawn(move || {
            let mut tells = Tells(is, Fate::NeverSpawned);
            let task = pool.spawn(run);
            tells.1 = Fate::Runs;
            drop(place.replace(Some(task)));
        });
        self.actors.push(Actor { spawner, order, fate, task });
    }

    fn wait(&mut self) {
        let (pool, told) = (self.pool.clone(), Rc::new(Cell::new(false)));
        let tells = Rc::clone(&told);
        let waiter = spawn(move || {
            pool.waitall().unwrap();
            tells.set(true);
        });
        self.waiters.push((waiter, told));
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Spawn(yields) => self.spawn(yields),
            Op::Finish(task, true) => self.actors[task].order.set(Order::Panic),
            Op::Finish(task, false) => self.actors[task].order.set(Order::End),
            Op::KillTask(task) => {
                let task = self.actors[task].task.take();
                if let Some(task) = task {
                    task.kill();
                }
            }
            Op::KillSpawner(task) => self.actors[task].spawner.kill(),
            Op::Resize(size) => self.pool.resize(size),
            Op::Wait => self.wait(),
            Op::KillWaiter(waiter) => self.waiters[waiter].0.kill(),
            Op::SpawnInside(task) => self.actors[task].order.set(Order::SpawnInside),
            Op::Settle => sleep(5 * MS),
        }
    }

    fn state(&self) -> State {
        State {
            running: self.pool.running(),
            free: self.pool.free(),
            waiting: self.pool.waiting(),
            fates: self.actors.iter().map(|actor| actor.fate.get()).collect(),
            told: self.waiters.iter().map(|(_, told)| told.get()).collect(),
            inline: self.inline.get(),
        }
    }
}

/// What an operation is about, if there is that: one of those that are there.
fn about(op: Op, model: &Model) -> Option<Op> {
    let task = |of: &[usize], n: usize| (!of.is_empty()).then(|| of[n % of.len()]);
    let (all, waiters) = (model.fates.len(), model.waiters.len());
    Some(match op {
        Op::Finish(n, panics) => Op::Finish(task(&model.running, n)?, panics),
        Op::KillTask(n) => Op::KillTask(task(&model.running, n)?),
        Op::SpawnInside(n) => Op::SpawnInside(task(&model.running, n)?),
        Op::KillSpawner(n) => Op::KillSpawner(n.checked_rem(all)?),
        Op::KillWaiter(n) => Op::KillWaiter(n.checked_rem(waiters)?),
        Op::Spawn(_) if all == 12 => return None,
        op => op,
    })
}

/// Whether what an operation does depends on everyone having done what they were told before.
fn wants_rest(op: Op) -> bool {
    // The others may come while slots are granted, and not taken yet.
    !matches!(op, Op::Resize(_) | Op::KillSpawner(_) | Op::Settle)
}

/// Runs a program on both sides, and tells where they disagree.
fn run(program: &Program) -> Result<(), String> {
    let mut model = Model { size: program.size, ..Model::default() };
    let mut real = Real {
        pool: GreenPool::new(program.size),
        actors: Vec::new(),
        waiters: Vec::new(),
        inline: Rc::default(),
    };
    let mut granted = Vec::new();
    for (at, &op) in program.ops.iter().enumerate() {
        let Some(mut op) = about(op, &model) else { continue };
        if wants_rest(op) {
            real.step(Op::Settle);
            granted.clear();
        }
        if let Op::KillSpawner(task) = op {
            if granted.contains(&task) {
                // It has its slot, and has not run: the slot goes on.
                model.end(task, Fate::NeverSpawned);
                real.step(op);
                op = Op::Settle;
            }
        }
        let before = model.running.clone();
        model.step(op);
        if matches!(op, Op::Resize(_)) {
            granted.extend(model.running.iter().filter(|task| !before.contains(task)));
        } else {
            granted.clear();
        }
        real.step(op);
        if !matches!(op, Op::Resize(_)) {
            real.step(Op::Settle);
            let [expected, happened] = [model.state(), real.state()];
            if expected != happened {
                return Err(format!(
                    "after step {at}:\n by the model {expected:?}\n in fact      {happened:?}"
                ));
            }
        }
    }
    finish(&real)
}

/// Everything comes to an end when it may.
fn finish(real: &Real) -> Result<(), String> {
    for actor in &real.actors {
        actor.order.set(Order::End);
    }
    real.pool.resize(3);
    real.pool.waitall().unwrap();
    sleep(5 * MS);
    let state = real.state();
    let is_over = (state.running, state.free, state.waiting) == (0, 3, 0);
    if is_over { Ok(()) } else { Err(format!("at the end: {state:?}")) }
}

fn agrees(program: Program) -> TestResult {
    let run = || {
        let is_in_order = program.seed % 4 > 0;
        if is_in_order { run(&program) } else { hub::simulated(program.seed).run(|| run(&program)) }
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => TestResult::passed(),
        Ok(Err(report)) => TestResult::error(report),
        Err(_) => TestResult::error("it panicked"),
    }
}

#[test]
fn random_programs_of_a_pool_do_what_the_model_says() {
    let (mut check, seed) = crate::quickcheck(usize::from(u8::MAX), crate::EMULATED_PROGRAMS);
    // One hub for all that run in order: to make one takes longer than most programs.
    let check_all = move || check.quickcheck(agrees as fn(Program) -> TestResult);
    hub::simulated(seed).in_order().run(check_all);
}
