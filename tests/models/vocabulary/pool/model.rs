//! The plain model of pools of items: who has or may make one, and who waits.
//!
//! A waiter whose time is over, or that is being unwound, is passed by, though it stands in line until
//! it runs. The model cannot know which it is of those that may be, so it reads off the pool's counts
//! to how many something was given, and holds that against the rules.

use std::collections::VecDeque;
use std::mem;

use super::super::run::{Begun, Limit, MANY, Model};
use super::{Call, Lent, Makes, Outcome};

/// What who need not wait is to get.
#[derive(Clone, Copy, PartialEq)]
enum Expects {
    Item(u32),
    New,
    Either,
}

/// Who asks for an item.
#[derive(Clone, Copy)]
struct Asker {
    who: usize,
    limit: Limit,
    makes: Makes,
    uses: bool,
    /// Nothing can end its wait but that it gets something.
    is_patient: bool,
}

impl Asker {
    fn is_quick(&self) -> bool {
        self.makes.pause.is_none() && !self.uses
    }

    fn may_have(&self, outcome: Outcome) -> Result<Option<Lent>, String> {
        let may = match outcome {
            Outcome::Failed if self.makes.fails => return Ok(None),
            Outcome::Got(lent) if !(self.uses || lent.1 && self.makes.fails) => Some(lent),
            Outcome::Used(lent) if self.uses && !(lent.1 && self.makes.fails) => Some(lent),
            _ => None,
        };
        may.map(Some).ok_or(String::from("it cannot get this"))
    }
}

pub(crate) struct Pools {
    is_in_order: bool,
    is_stack: bool,
    max: usize,
    /// Those that are kept by nobody in particular.
    lent: Vec<u32>,
    /// Who had an item or room at once, and what is expected; and how much had happened by then.
    busy: Vec<(Asker, Expects, usize)>,
    /// In the order in which they came.
    standing: Vec<Asker>,
    /// Who drops an item.
    dropping: Vec<usize>,
    /// As far as it is known.
    free: Option<VecDeque<u32>>,
    /// Who may be interrupted soon.
    disturbed: [bool; MANY],
    happened: usize,
    /// How many of those that stand were given nothing yet.
    waiting: usize,
    dropped: isize,
    may_drop: isize,
    /// What has come back just now.
    given: Option<u32>,
    has_given_up: bool,
}

impl Pools {
    pub(super) fn new(is_in_order: bool, is_stack: bool, max: usize, free: VecDeque<u32>) -> Self {
        Self {
            is_in_order,
            is_stack,
            max,
            lent: Vec::new(),
            busy: Vec::new(),
            standing: Vec::new(),
            dropping: Vec::new(),
            free: Some(free),
            disturbed: [false; MANY],
            happened: 0,
            waiting: 0,
            dropped: 0,
            may_drop: 0,
            given: None,
            has_given_up: false,
        }
    }

    /// How many of those that stand have been given something.
    fn granted(&self) -> usize {
        self.standing.len() - self.waiting
    }

    fn left(&self) -> isize {
        let taken = self.lent.len() + self.busy.len() + self.granted();
        self.max as isize - taken as isize
    }

    fn gives(&mut self, item: u32) {
        if self.left() < 0 {
            self.dropped += 1;
        } else {
            self.given = Some(item);
        }
    }

    fn asks(&mut self, asker: Asker) {
        if self.left() > 0 {
            let expects = match &mut self.free {
                None => Expects::Either,
                Some(free) => free.pop_front().map_or(Expects::New, Expects::Item),
            };
            self.busy.push((asker, expects, self.happened));
        } else {
            self.standing.push(asker);
            self.waiting += 1;
        }
    }

    fn resizes(&mut self, max: usize) {
        self.max = max;
        let left = self.left();
        match &mut self.free {
            None => self.may_drop = isize::MAX,
            Some(free) => {
                let kept = free.len().min(left.max(0) as usize);
                self.dropped += (free.len() - kept) as isize;
                free.truncate(kept);
            }
        }
    }

    fn ends_at_once(&mut self, at: usize, outcome: Outcome) -> Result<(), String> {
        let (asker, expects, then) = self.busy[at];
        let need_not = asker.is_quick() || (matches!(expects, Expects::Item(_)) && !asker.uses);
        if need_not && self.happened > then + 1 {
            return Err(String::from("it need not wait"));
        }
        let lent = asker.may_have(outcome)?;
        let is_as_expected = match (expects, lent) {
            (Expects::Item(item), lent) => lent == Some((item, false)),
            (Expects::New, Some((_, is_new))) => is_new,
            (Expects::New | Expects::Either, _) => true,
        };
        if !is_as_expected {
            return Err(String::from("another item was expected, or a new one"));
        }
        self.has(lent, asker);
        self.busy.remove(at);
        Ok(())
    }

    fn ends_wait(&mut self, at: usize, outcome: Outcome) -> Result<(), String> {
        let asker = self.standing[at];
        if outcome == Outcome::Nothing {
            self.standing.remove(at);
            self.waiting -= 1;
            let may = asker.limit != Limit::None;
            return may.then_some(()).ok_or(String::from("it has all the time"));
        }
        let lent = asker.may_have(outcome)?;
        let ahead = self.standing[..at].iter().filter(|other| other.is_patient);
        if ahead.clone().count() >= self.granted() {
            return Err(String::from("it was not its turn"));
        }
        let is_first = !ahead.clone().any(Asker::is_quick);
        if self.is_in_order && asker.is_patient && !is_first {
            return Err(String::from("another one was to run before"));
        }
        if let (Some((item, _)), Some(free)) = (lent, &self.free) {
            if free.contains(&item) {
                return Err(String::from("it was free"));
            }
        }
        self.has(lent, asker);
        self.standing.remove(at);
        Ok(())
    }

    fn has(&mut self, lent: Option<Lent>, asker: Asker) {
        match lent {
            Some((item, _)) if asker.uses => self.gives(item),
            Some((item, _)) => self.lent.push(item),
            None => {}
        }
    }

    /// Something may have come back, one cannot know what.
    fn may_come_back(&mut self) {
        if self.left() < 0 {
            self.may_drop = 1;
        } else {
            self.free = None;
        }
    }
}

fn position<T>(all: &[T], is_it: impl FnMut(&T) -> bool) -> Option<usize> {
    all.iter().position(is_it)
}

impl Model for Pools {
    type Call = Call;
    type Outcome = Outcome;

    fn begins(&mut self, who: usize, call: Call) -> Begun<Outcome> {
        self.happened += 1;
        let disturbed = mem::take(&mut self.disturbed[who]);
        let is_patient = |limit| limit == Limit::None && !disturbed;
        match call {
            Call::Get(limit, makes) | Call::Use(limit, makes) => {
                let uses = matches!(call, Call::Use(..));
                self.asks(Asker { who, limit, makes, uses, is_patient: is_patient(limit) });
                return Begun::Waits;
            }
            Call::TryGet(_) if self.left() <= 0 => return Begun::AtOnce(Outcome::Nothing),
            Call::TryGet(makes) => {
                let limit = Limit::Zero;
                self.asks(Asker { who, limit, makes, uses: false, is_patient: false });
                return Begun::Waits;
            }
            Call::GiveBack(..) | Call::Detach(_) if self.lent.is_empty() => {}
            Call::GiveBack(n, is_slow) => {
                let item = self.lent[n % self.lent.len()];
                let is_dropped = self.left() < 0;
                self.gives(item);
                self.lent.retain(|other| *other != item);
                if is_dropped && is_slow {
                    self.dropping.push(who);
                    return Begun::Waits;
                }
            }
            Call::Detach(n) => {
                self.lent.remove(n % self.lent.len());
                self.dropped += 1;
            }
            Call::Resize(max) => self.resizes(max),
        }
        Begun::AtOnce(Outcome::Done)
    }

    fn ends(&mut self, who: usize, outcome: Outcome) -> Result<(), String> {
        self.happened += 1;
        if let Some(at) = position(&self.dropping, |other| *other == who) {
            self.dropping.remove(at);
            return (outcome == Outcome::Done).then_some(()).ok_or(String::from("it drops"));
        }
        if let Some(at) = position(&self.busy, |(other, ..)| other.who == who) {
            return self.ends_at_once(at, outcome);
        }
        let at = position(&self.standing, |other| other.who == who).ok_or("it does not wait")?;
        self.ends_wait(at, outcome)
    }

    fn is_interrupted(&mut self, who: usize) -> Result<(), String> {
        self.happened += 1;
        if let Some(at) = position(&self.dropping, |other| *other == who) {
            self.dropping.remove(at);
        } else if let Some(at) = position(&self.busy, |(other, ..)| other.who == who) {
            let (asker, expects, _) = self.busy[at];
            match expects {
                _ if asker.is_quick() => return Err(String::from("it need not wait")),
                Expects::Item(_) if !asker.uses => return Err(String::from("it need not wait")),
                Expects::Item(item) => self.gives(item),
                _ if asker.uses => self.may_come_back(),
                _ => {}
            }
            self.busy.remove(at);
        } else {
            let at = position(&self.standing, |other| other.who == who);
            // Not before it is gone from the pool's line, and that is seen.
            self.standing[at.ok_or("it does not wait")?].who = MANY;
            self.has_given_up = true;
        }
        Ok(())
    }

    fn is_quiet(&self) -> Result<(), String> {
        let fault = if !self.busy.is_empty() || !self.dropping.is_empty() {
            "some do not come back"
        } else if self.granted() > 0 {
            "one was given something, and does not run"
        } else if self.left() > 0 && !self.standing.is_empty() {
            "some wait for what is there"
        } else if self.standing.iter().any(|asker| asker.limit != Limit::None) {
            "one waits whose time is over"
        } else {
            return Ok(());
        };
        Err(String::from(fault))
    }

    fn may_be_interrupted(&mut self, who: usize) {
        self.disturbed[who] = true;
        if let Some(asker) = self.standing.iter_mut().find(|asker| asker.who == who) {
            asker.is_patient = false;
        }
    }

    fn view(&self) -> Vec<isize> {
        vec![self.left(), self.waiting as isize, self.dropped, self.max as isize]
    }

    fn sees(&mut self, seen: &[isize]) -> Result<(), String> {
        let waiting = seen[1] as usize;
        if self.has_given_up {
            // If none has left the line, it had been given something.
            if waiting == self.waiting {
                self.may_come_back();
            }
            self.standing.retain(|asker| asker.who < MANY);
            self.has_given_up = false;
        }
        if waiting > self.standing.len() {
            return Err(format!("{waiting} wait"));
        }
        if let (Some(item), Some(free)) = (self.given.take(), &mut self.free) {
            match waiting < self.waiting {
                // It was given to one of those.
                true => {}
                false if self.is_stack => free.push_front(item),
                false => free.push_back(item),
            }
        }
        self.waiting = waiting;
        if (self.dropped..=self.dropped.saturating_add(self.may_drop)).contains(&seen[2]) {
            self.dropped = seen[2];
        }
        self.may_drop = 0;
        let expected = self.view();
        if seen != expected {
            return Err(format!("{seen:?} is seen, {expected:?} was expected"));
        }
        let patient = self.standing.iter().filter(|asker| asker.is_patient).count();
        if self.left() > 0 && patient > self.granted() {
            return Err(String::from("one waits for what is there"));
        }
        let left = self.left().max(0) as usize;
        if self.free.as_ref().is_some_and(|free| free.len() > left) {
            return Err(format!("{:?} were to be free", self.free));
        }
        if left == 0 {
            self.free = Some(VecDeque::new());
        }
        Ok(())
    }
}
