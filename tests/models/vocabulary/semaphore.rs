//! The plain model of semaphores: a count, and a list of those who wait.

use std::rc::Rc;

use quickcheck::{Arbitrary, Gen};
use stolon::semaphore::{BoundedSemaphore, CappedSemaphore, Semaphore};

use super::run::{Begun, Limit, Model, Subject};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Acquire(Limit),
    TryAcquire,
    Release(Limit),
    TryRelease,
}

impl Arbitrary for Call {
    fn arbitrary(random: &mut Gen) -> Self {
        match u8::arbitrary(random) % 8 {
            0..=2 => Self::Acquire(Limit::arbitrary(random)),
            3 => Self::TryAcquire,
            4..=6 => Self::Release(Limit::arbitrary(random)),
            _ => Self::TryRelease,
        }
    }
}

/// What waits, and whether it has got it by now.
struct Waiter {
    who: usize,
    has_it: bool,
}

/// One kind of thing that can be had, permits or room for them.
struct Half {
    count: isize,
    /// In the order in which they came.
    waiters: Vec<Waiter>,
}

impl Half {
    fn gives(&mut self) {
        match self.waiters.iter_mut().find(|waiter| !waiter.has_it) {
            Some(waiter) => waiter.has_it = true,
            None => self.count += 1,
        }
    }

    fn takes(&mut self) -> bool {
        let left = self.count > 0;
        self.count -= isize::from(left);
        left
    }

    fn waits(&mut self, who: usize) -> Begun<bool> {
        self.waiters.push(Waiter { who, has_it: false });
        Begun::Waits
    }

    /// Whether `who` waits here, and has it.
    fn leaves(&mut self, who: usize) -> Option<bool> {
        let at = self.waiters.iter().position(|waiter| waiter.who == who)?;
        Some(self.waiters.remove(at).has_it)
    }

    fn balance(&self) -> isize {
        self.count - self.waiters.iter().filter(|waiter| !waiter.has_it).count() as isize
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Bounded,
    Capped,
}

pub(crate) struct Semaphores {
    kind: Kind,
    permits: Half,
    /// Of a capped one.
    room: Half,
    /// Of a bounded one: how many were acquired and not released.
    held: usize,
}

impl Model for Semaphores {
    type Call = Call;
    /// Whether it was acquired, or released.
    type Outcome = bool;

    fn begins(&mut self, who: usize, call: Call) -> Begun<bool> {
        let is_capped = self.kind == Kind::Capped;
        match call {
            Call::Acquire(_) => {
                if is_capped {
                    self.room.gives();
                }
                if !self.permits.takes() {
                    return self.permits.waits(who);
                }
                self.held += 1;
            }
            Call::TryAcquire => {
                if !self.permits.takes() {
                    return Begun::AtOnce(false);
                }
                self.held += 1;
                if is_capped {
                    self.room.gives();
                }
            }
            Call::Release(_) | Call::TryRelease if self.kind == Kind::Bounded && self.held == 0 => {
                return Begun::AtOnce(false);
            }
            Call::TryRelease if is_capped => {
                if !self.room.takes() {
                    return Begun::AtOnce(false);
                }
                self.permits.gives();
            }
            Call::Release(_) | Call::TryRelease => {
                self.held = self.held.saturating_sub(1);
                self.permits.gives();
                if is_capped && !self.room.takes() {
                    return self.room.waits(who);
                }
            }
        }
        Begun::AtOnce(true)
    }

    fn ends(&mut self, who: usize, outcome: bool) -> Result<(), String> {
        let came = if let Some(came) = self.permits.leaves(who) {
            self.held += usize::from(came);
            if !came && self.kind == Kind::Capped {
                self.room.count -= 1;
            }
            came
        } else {
            let came = self.room.leaves(who).ok_or("it does not wait")?;
            if !came {
                self.permits.count -= 1;
            }
            came
        };
        (outcome == came).then_some(()).ok_or(format!("{came} was expected"))
    }

    fn is_interrupted(&mut self, who: usize) -> Result<(), String> {
        if let Some(came) = self.permits.leaves(who) {
            if self.kind == Kind::Capped {
                self.room.count -= 1;
            }
            if came {
                self.permits.gives();
            }
        } else if !self.room.leaves(who).ok_or("it does not wait")? {
            self.permits.count -= 1;
        }
        Ok(())
    }

    fn is_quiet(&self) -> Result<(), String> {
        for half in [&self.permits, &self.room] {
            if let Some(waiter) = half.waiters.iter().find(|waiter| waiter.has_it) {
                return Err(format!("{} has got it and does not run", waiter.who));
            }
            if half.count > 0 && !half.waiters.is_empty() {
                return Err(String::from("some wait for what is there"));
            }
        }
        Ok(())
    }

    fn view(&self) -> Vec<isize> {
        match self.kind {
            Kind::Capped => {
                let [locked, bounded] = [&self.permits, &self.room].map(|half| half.count <= 0);
                let balance = self.permits.balance() - self.room.balance();
                vec![balance, locked.into(), bounded.into()]
            }
            _ => vec![self.permits.balance(), (self.permits.count <= 0).into()],
        }
    }
}

impl Subject<Semaphores> for Semaphore {
    fn call(&self, call: Call) -> bool {
        match call {
            Call::Acquire(limit) => match limit.duration() {
                None => self.acquire(),
                Some(limit) => return self.acquire_timeout(limit),
            },
            Call::TryAcquire => return self.try_acquire(),
            Call::Release(_) | Call::TryRelease => self.release(),
        }
        true
    }

    fn view(&self) -> Vec<isize> {
        vec![self.balance(), self.locked().into()]
    }
}

impl Subject<Semaphores> for BoundedSemaphore {
    fn call(&self, call: Call) -> bool {
        match call {
            Call::Acquire(limit) => match limit.duration() {
                None => self.acquire(),
                Some(limit) => return self.acquire_timeout(limit),
            },
            Call::TryAcquire => return self.try_acquire(),
            Call::Release(_) | Call::TryRelease => return self.release().is_ok(),
        }
        true
    }

    fn view(&self) -> Vec<isize> {
        vec![self.balance(), self.locked().into()]
    }
}

impl Subject<Semaphores> for CappedSemaphore {
    fn call(&self, call: Call) -> bool {
        match call {
            Call::Acquire(limit) => match limit.duration() {
                None => self.acquire(),
                Some(limit) => return self.acquire_timeout(limit),
            },
            Call::TryAcquire => return self.try_acquire(),
            Call::Release(limit) => match limit.duration() {
                None => self.release(),
                Some(limit) => return self.release_timeout(limit),
            },
            Call::TryRelease => return self.try_release(),
        }
        true
    }

    fn view(&self) -> Vec<isize> {
        vec![self.balance(), self.locked().into(), self.bounded().into()]
    }
}

pub(crate) fn make(seed: u64) -> (Rc<dyn Subject<Semaphores>>, Semaphores) {
    let permits = (seed / 3 % 3) as usize;
    let more = (seed / 9 % 3) as usize;
    let half = |count: usize| Half { count: count as isize, waiters: Vec::new() };
    let (kind, subject): (_, Rc<dyn Subject<Semaphores>>) = match seed % 3 {
        0 => (Kind::Plain, Rc::new(Semaphore::new(permits))),
        1 => (Kind::Bounded, Rc::new(BoundedSemaphore::new(permits))),
        _ => (Kind::Capped, Rc::new(CappedSemaphore::new(permits, permits + more))),
    };
    (subject, Semaphores { kind, permits: half(permits), room: half(more), held: 0 })
}
