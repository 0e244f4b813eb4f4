//! The plain model of queues: a list of items, and two lists of those who wait.

use std::rc::Rc;

use quickcheck::{Arbitrary, Gen};
use stolon::queue::{LifoQueue, LightQueue, PriorityQueue, Queue};

use super::run::{Begun, Limit, Model, Subject};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Put(u8, Limit),
    PutNowait(u8),
    Get(Limit),
    GetNowait,
    Resize(Option<usize>),
    TaskDone,
    Join(Limit),
}

fn arbitrary_size(random: &mut Gen) -> Option<usize> {
    *random.choose(&[None, Some(0), Some(1), Some(2), Some(3)]).unwrap()
}

impl Arbitrary for Call {
    fn arbitrary(random: &mut Gen) -> Self {
        match u8::arbitrary(random) % 20 {
            0..=5 => Self::Put(u8::arbitrary(random), Limit::arbitrary(random)),
            6..=7 => Self::PutNowait(u8::arbitrary(random)),
            8..=13 => Self::Get(Limit::arbitrary(random)),
            14..=15 => Self::GetNowait,
            16 => Self::Resize(arbitrary_size(random)),
            17..=18 => Self::TaskDone,
            _ => Self::Join(Limit::arbitrary(random)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Done(bool),
    /// What was put could not be.
    Full(u8),
    Item(Option<u8>),
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Fifo,
    /// That counts nothing.
    Light,
    Lowest,
    Lifo,
}

struct Putter {
    who: usize,
    item: u8,
    limit: Limit,
    is_done: bool,
}

struct Joiner {
    who: usize,
    limit: Limit,
    is_told: bool,
}

pub(crate) struct Queues {
    kind: Kind,
    maxsize: Option<usize>,
    /// In the order in which they were put.
    items: Vec<u8>,
    getters: Vec<(usize, Limit)>,
    putters: Vec<Putter>,
    joiners: Vec<Joiner>,
    unfinished: usize,
}

impl Queues {
    fn has_room(&self) -> bool {
        self.maxsize.is_none_or(|maxsize| self.items.len() < maxsize)
    }

    /// Items that can be got, in the queue or from putters.
    fn available(&self) -> usize {
        self.items.len() + self.putters.iter().filter(|putter| !putter.is_done).count()
    }

    fn stores(&mut self, item: u8) {
        self.items.push(item);
        self.unfinished += 1;
    }

    fn admits(&mut self) {
        while self.has_room() {
            let Some(putter) = self.putters.iter_mut().find(|putter| !putter.is_done) else {
                return;
            };
            putter.is_done = true;
            let item = putter.item;
            self.stores(item);
        }
    }

    fn gives(&mut self) -> Option<u8> {
        let count = self.items.len();
        let at = match self.kind {
            Kind::Lifo => count.checked_sub(1),
            Kind::Lowest => (0..count).min_by_key(|at| self.items[*at]),
            _ => (count > 0).then_some(0),
        };
        if let Some(at) = at {
            let item = self.items.remove(at);
            self.admits();
            return Some(item);
        }
        let putter = self.putters.iter_mut().find(|putter| !putter.is_done)?;
        putter.is_done = true;
        self.unfinished += 1;
        Some(putter.item)
    }

    fn ends_put(&mut self, at: usize, outcome: Outcome) -> Result<(), String> {
        let Putter { item, limit, is_done, .. } = self.putters.remove(at);
        let expected = if is_done { Outcome::Done(true) } else { Outcome::Full(item) };
        if outcome != expected {
            return Err(format!("{expected:?} was expected"));
        }
        let may = is_done || limit != Limit::None;
        may.then_some(()).ok_or(String::from("it has all the time"))
    }

    fn ends_get(&mut self, at: usize, outcome: Outcome) -> Result<(), String> {
        let (_, limit) = self.getters[at];
        let is_next = at < self.available();
        self.getters.remove(at);
        let expected = if is_next { self.gives() } else { None };
        if outcome != Outcome::Item(expected) {
            return Err(format!("{expected:?} was expected"));
        }
        let may = is_next || limit != Limit::None;
        may.then_some(()).ok_or(String::from("it has all the time"))
    }
}

impl Model for Queues {
    type Call = Call;
    type Outcome = Outcome;

    fn begins(&mut self, who: usize, call: Call) -> Begun<Outcome> {
        Begun::AtOnce(match call {
            Call::Put(item, limit) => {
                if !self.has_room() {
                    self.putters.push(Putter { who, item, limit, is_done: false });
                    return Begun::Waits;
                }
                self.stores(item);
                Outcome::Done(true)
            }
            Call::PutNowait(item) => {
                if !self.has_room() && self.getters.len() <= self.available() {
                    return Begun::AtOnce(Outcome::Full(item));
                }
                self.stores(item);
                Outcome::Done(true)
            }
            Call::Get(limit) => {
                if self.available() <= self.getters.len() {
                    self.getters.push((who, limit));
                    return Begun::Waits;
                }
                Outcome::Item(self.gives())
            }
            Call::GetNowait => Outcome::Item(self.gives()),
            Call::Resize(maxsize) => {
                self.maxsize = maxsize;
                self.admits();
                Outcome::Done(true)
            }
            Call::TaskDone | Call::Join(_) if matches!(self.kind, Kind::Light) => {
                Outcome::Done(false)
            }
            Call::TaskDone => {
                let any = self.unfinished > 0;
                self.unfinished -= usize::from(any);
                if self.unfinished == 0 {
                    self.joiners.iter_mut().for_each(|joiner| joiner.is_told = true);
                }
                Outcome::Done(any)
            }
            Call::Join(limit) => {
                if self.unfinished > 0 {
                    self.joiners.push(Joiner { who, limit, is_told: false });
                    return Begun::Waits;
                }
                Outcome::Done(true)
            }
        })
    }

    fn ends(&mut self, who: usize, outcome: Outcome) -> Result<(), String> {
        if let Some(at) = self.putters.iter().position(|putter| putter.who == who) {
            return self.ends_put(at, outcome);
        }
        if let Some(at) = self.getters.iter().position(|getter| getter.0 == who) {
            return self.ends_get(at, outcome);
        }
        let at = self.joiners.iter().position(|joiner| joiner.who == who);
        let joiner = self.joiners.remove(at.ok_or("it does not wait")?);
        let expected = Outcome::Done(joiner.is_told);
        if outcome != expected || !(joiner.is_told || joiner.limit != Limit::None) {
            return Err(format!("{expected:?} was expected"));
        }
        Ok(())
    }

    fn is_interrupted(&mut self, who: usize) -> Result<(), String> {
        let count = |model: &Self| model.putters.len() + model.getters.len() + model.joiners.len();
        let before = count(self);
        self.putters.retain(|putter| putter.who != who);
        self.getters.retain(|getter| getter.0 != who);
        self.joiners.retain(|joiner| joiner.who != who);
        (count(self) < before).then_some(()).ok_or(String::from("it does not wait"))
    }

    fn is_quiet(&self) -> Result<(), String> {
        let done = self.putters.iter().any(|putter| putter.is_done);
        let told = self.joiners.iter().any(|joiner| joiner.is_told);
        let waits = self.available() > 0 && !self.getters.is_empty();
        let faults = [(done, "who has put"), (told, "who was told"), (waits, "who could get")];
        match faults.into_iter().find(|(is_so, _)| *is_so) {
            Some((_, text)) => Err(format!("{text} does not run")),
            None => Ok(()),
        }
    }

    fn view(&self) -> Vec<isize> {
        let spoken_for = self.getters.len().min(self.available());
        let hidden = if self.maxsize == Some(0) { spoken_for } else { 0 };
        let size = self.items.len().saturating_sub(hidden);
        let is_full = self.maxsize.is_some_and(|maxsize| size >= maxsize);
        let putting = self.putters.iter().filter(|putter| !putter.is_done).count();
        let unfinished = if matches!(self.kind, Kind::Light) { 0 } else { self.unfinished };
        let numbers = [size, is_full.into(), self.getters.len(), putting, unfinished];
        numbers.map(|number| number as isize).to_vec()
    }
}

macro_rules! subject {
    ($queue:ident, $task_done:expr, $join:expr, $unfinished:expr) => {
        impl Subject<Queues> for $queue<u8> {
            fn call(&self, call: Call) -> Outcome {
                match call {
                    Call::Put(item, limit) => match limit.duration() {
                        None => {
                            self.put(item);
                            Outcome::Done(true)
                        }
                        Some(limit) => match self.put_timeout(item, limit) {
                            Ok(()) => Outcome::Done(true),
                            Err(full) => Outcome::Full(full.0),
                        },
                    },
                    Call::PutNowait(item) => match self.put_nowait(item) {
                        Ok(()) => Outcome::Done(true),
                        Err(full) => Outcome::Full(full.0),
                    },
                    Call::Get(limit) => Outcome::Item(match limit.duration() {
                        None => Some(self.get()),
                        Some(limit) => self.get_timeout(limit).ok(),
                    }),
                    Call::GetNowait => Outcome::Item(self.get_nowait().ok()),
                    Call::Resize(maxsize) => {
                        self.resize(maxsize);
                        Outcome::Done(true)
                    }
                    Call::TaskDone => Outcome::Done($task_done(self)),
                    Call::Join(limit) => Outcome::Done($join(self, limit)),
                }
            }

            fn view(&self) -> Vec<isize> {
                let size = self.qsize();
                assert_eq!(self.empty(), size == 0);
                let waiting = [self.getting(), self.putting(), $unfinished(self)];
                let numbers = [[size, self.full().into()].as_slice(), &waiting].concat();
                numbers.into_iter().map(|number| number as isize).collect()
            }
        }
    };
    ($queue:ident) => {
        subject!(
            $queue,
            |queue: &Self| queue.task_done().is_ok(),
            |queue: &Self, limit: Limit| match limit.duration() {
                None => {
                    queue.join();
                    true
                }
                Some(limit) => queue.join_timeout(limit),
            },
            |queue: &Self| queue.unfinished_tasks()
        );
    };
}

subject!(Queue);
subject!(PriorityQueue);
subject!(LifoQueue);
subject!(LightQueue, |_: &Self| false, |_: &Self, _: Limit| false, |_: &Self| 0);

pub(crate) fn make(seed: u64) -> (Rc<dyn Subject<Queues>>, Queues) {
    let maxsize = [None, Some(0), Some(1), Some(2)][(seed / 4 % 4) as usize];
    let (kind, subject): (_, Rc<dyn Subject<Queues>>) = match seed % 4 {
        0 => (Kind::Fifo, Rc::new(Queue::new(maxsize))),
        1 => (Kind::Light, Rc::new(LightQueue::new(maxsize))),
        2 => (Kind::Lowest, Rc::new(PriorityQueue::new(maxsize))),
        _ => (Kind::Lifo, Rc::new(LifoQueue::new(maxsize))),
    };
    let model = Queues {
        kind,
        maxsize,
        items: Vec::new(),
        getters: Vec::new(),
        putters: Vec::new(),
        joiners: Vec::new(),
        unfinished: 0,
    };
    (subject, model)
}
