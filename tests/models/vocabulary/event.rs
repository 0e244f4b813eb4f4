//! The plain model of events: what was sent, and who was told what.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use quickcheck::{Arbitrary, Gen};
use stolon::event::Event;

use super::run::{Begun, Limit, Model, Subject, is_in_order};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Wait(Limit),
    Poll,
    Send(u8),
    SendException(u8),
    Reset,
}

impl Arbitrary for Call {
    fn arbitrary(random: &mut Gen) -> Self {
        match u8::arbitrary(random) % 10 {
            0..=4 => Self::Wait(Limit::arbitrary(random)),
            5 => Self::Poll,
            6..=7 => Self::Send(u8::arbitrary(random)),
            8 => Self::SendException(u8::arbitrary(random)),
            _ => Self::Reset,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Nothing,
    Value(u8),
    Raised(u8),
    Done(bool),
}

struct Waiter {
    who: usize,
    limit: Limit,
    /// What was sent while it waited, and as the how many-th sending.
    told: Option<(Outcome, u32)>,
}

#[derive(Default)]
pub(crate) struct Events {
    is_in_order: bool,
    sent: Option<Outcome>,
    sendings: u32,
    waiters: Vec<Waiter>,
}

impl Events {
    fn sends(&mut self, outcome: Outcome) -> bool {
        let is_first = self.sent.is_none();
        if is_first {
            self.sent = Some(outcome);
            self.sendings += 1;
            for waiter in self.waiters.iter_mut().filter(|waiter| waiter.told.is_none()) {
                waiter.told = Some((outcome, self.sendings));
            }
        }
        is_first
    }

    fn leaves(&mut self, who: usize) -> Result<(usize, Waiter), String> {
        let at = self.waiters.iter().position(|waiter| waiter.who == who);
        let at = at.ok_or("it does not wait")?;
        Ok((at, self.waiters.remove(at)))
    }
}

impl Model for Events {
    type Call = Call;
    type Outcome = Outcome;

    fn begins(&mut self, who: usize, call: Call) -> Begun<Outcome> {
        Begun::AtOnce(match call {
            Call::Wait(limit) => match self.sent {
                Some(sent) => sent,
                None => {
                    self.waiters.push(Waiter { who, limit, told: None });
                    return Begun::Waits;
                }
            },
            Call::Poll => self.sent.unwrap_or(Outcome::Nothing),
            Call::Send(value) => Outcome::Done(self.sends(Outcome::Value(value))),
            Call::SendException(value) => Outcome::Done(self.sends(Outcome::Raised(value))),
            Call::Reset => Outcome::Done(self.sent.take().is_some()),
        })
    }

    fn ends(&mut self, who: usize, outcome: Outcome) -> Result<(), String> {
        let (at, waiter) = self.leaves(who)?;
        let Some((told, _)) = waiter.told else {
            let is_late = outcome == Outcome::Nothing && waiter.limit != Limit::None;
            return is_late.then_some(()).ok_or(String::from("nothing was sent"));
        };
        if outcome != told {
            return Err(format!("{told:?} was expected"));
        }
        // Who came before, and has nothing to do with time, has run before.
        let before = |other: &&Waiter| {
            other.limit == Limit::None && other.told == waiter.told && waiter.limit == Limit::None
        };
        match self.waiters[..at].iter().find(before) {
            Some(other) if self.is_in_order => Err(format!("{} came before", other.who)),
            _ => Ok(()),
        }
    }

    fn is_interrupted(&mut self, who: usize) -> Result<(), String> {
        self.leaves(who).map(|_| ())
    }

    fn is_quiet(&self) -> Result<(), String> {
        let told = self.waiters.iter().find(|waiter| waiter.told.is_some());
        told.map_or(Ok(()), |waiter| Err(format!("{} was told and does not run", waiter.who)))
    }

    fn view(&self) -> Vec<isize> {
        let is_value = matches!(self.sent, Some(Outcome::Value(_)));
        vec![self.sent.is_some().into(), is_value.into()]
    }
}

impl Subject<Events> for Event<u8> {
    fn call(&self, call: Call) -> Outcome {
        let value = |value: Option<u8>| value.map_or(Outcome::Nothing, Outcome::Value);
        let got = catch_unwind(AssertUnwindSafe(|| match call {
            Call::Wait(limit) => match limit.duration() {
                None => Outcome::Value(self.wait()),
                Some(limit) => value(self.wait_timeout(limit)),
            },
            Call::Poll => value(self.poll()),
            Call::Send(value) => Outcome::Done(self.send(value).is_ok()),
            Call::SendException(value) => Outcome::Done(self.send_exception(value).is_ok()),
            Call::Reset => Outcome::Done(self.reset().is_ok()),
        }));
        got.unwrap_or_else(|payload| match payload.downcast::<u8>() {
            Ok(raised) => Outcome::Raised(*raised),
            Err(payload) => resume_unwind(payload),
        })
    }

    fn view(&self) -> Vec<isize> {
        vec![self.ready().into(), self.has_result().into()]
    }
}

pub(crate) fn make(seed: u64) -> (Rc<dyn Subject<Events>>, Events) {
    let events = Events { is_in_order: is_in_order(seed), ..Events::default() };
    (Rc::new(Event::<u8>::new()), events)
}
