//! Programs: what each greenlet does, step by step, and what is noted of it. Knows no greenlets.

use quickcheck::{Arbitrary, Gen};

/// How many there can be, the root included, which is number 0.
pub(crate) const GREENLETS: usize = 12;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    /// Makes a greenlet, a child of the current one or of another. Each is made once.
    New(usize, Option<usize>),
    Switch(usize),
    Throw(usize),
    Kill(usize),
    /// Drops the handle that the program has. There is another one on the stack of each greenlet
    /// that waits in an operation on it.
    Drop(usize),
    SetParent(usize, usize),
    /// Ends the greenlet, if this is no cleanup.
    Return,
    Panic,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) who: usize,
    /// Whether it is done by a destructor, as its greenlet returns or unwinds.
    pub(crate) in_cleanup: bool,
    /// Whether what it raises is caught. In a cleanup and in the root all is.
    pub(crate) catches: bool,
    pub(crate) action: Action,
}

/// Each greenlet does its own steps, in their order. One that refers to a greenlet which is not made
/// yet, or whose handle is dropped, does nothing.
#[derive(Clone, Debug)]
pub(crate) struct Program(pub(crate) Vec<Step>);

/// A step's place in the program: also the value that is sent or thrown by it.
pub(crate) type Number = usize;

/// What a greenlet returns that has no step left.
pub(crate) const fn last_value(who: usize) -> Number {
    1000 + who
}

/// A program, sorted by who does what.
pub(crate) struct Script {
    steps: [Vec<(Number, Step)>; GREENLETS],
    cleanups: [Vec<(Number, Step)>; GREENLETS],
}

impl Script {
    pub(crate) fn new(program: &Program) -> Self {
        let mut script = Self { steps: Default::default(), cleanups: Default::default() };
        for (number, step) in program.0.iter().enumerate() {
            let lists = if step.in_cleanup { &mut script.cleanups } else { &mut script.steps };
            lists[step.who].push((number, *step));
        }
        script
    }

    pub(crate) fn steps(&self, who: usize) -> &[(Number, Step)] {
        &self.steps[who]
    }

    pub(crate) fn cleanup(&self, who: usize) -> &[(Number, Step)] {
        &self.cleanups[who]
    }
}

/// What happens, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    /// A greenlet runs for the first time, with a value.
    Starts(usize, Number),
    /// A step is over, and had this result.
    Did(usize, Number, Outcome),
    /// The handle that it held meanwhile was the last, and to drop it raised this.
    DropRaised(usize, Raised),
    /// What all those are at that moment to which there is a handle.
    States([Option<State>; GREENLETS]),
    /// The destructor runs of what lies on a greenlet's stack.
    CleansUp(usize),
    /// The destructor runs of what a greenlet's closure holds.
    Dropped(usize),
    /// At the end: whose child each is.
    Parents([Option<usize>; GREENLETS]),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    Pending,
    Active,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Done,
    Value(Number),
    Exited,
    /// The target waits for something else, and the value came back.
    Refused(Number),
    Cycle,
    Root,
    Raised(Raised),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Raised {
    Thrown(Number),
    /// A value ended in a greenlet that waits for something else.
    Mismatch,
    Exit,
}

impl Arbitrary for Action {
    fn arbitrary(random: &mut Gen) -> Self {
        let any = |random: &mut Gen| usize::arbitrary(random) % GREENLETS;
        match u8::arbitrary(random) % 64 {
            0..=5 => Self::New(any(random), bool::arbitrary(random).then(|| any(random))),
            6..=40 => Self::Switch(any(random)),
            41..=45 => Self::Throw(any(random)),
            46..=50 => Self::Kill(any(random)),
            51..=55 => Self::Drop(any(random)),
            56..=61 => Self::SetParent(any(random), any(random)),
            62 => Self::Return,
            _ => Self::Panic,
        }
    }
}

impl Arbitrary for Step {
    fn arbitrary(random: &mut Gen) -> Self {
        Self {
            who: usize::arbitrary(random) % GREENLETS,
            in_cleanup: u8::arbitrary(random) % 8 == 0,
            catches: u8::arbitrary(random) % 4 == 0,
            action: Action::arbitrary(random),
        }
    }
}

impl Arbitrary for Program {
    /// Up to 150 steps of up to twelve greenlets. The root has a third of them, and makes most of the
    /// greenlets first: else too little would happen.
    fn arbitrary(random: &mut Gen) -> Self {
        let greenlets = 2 + usize::arbitrary(random) % (GREENLETS - 1);
        let not_at_once = usize::arbitrary(random) % 3;
        let made_at_once = (greenlets - 1).saturating_sub(not_at_once).max(1);
        let made = (1..=made_at_once).map(|greenlet| Step {
            who: 0,
            in_cleanup: false,
            catches: false,
            action: Action::New(greenlet, None),
        });
        let mut steps: Vec<_> = made.collect();
        let count = greenlets * (2 + usize::arbitrary(random) % 10);
        steps.extend((0..count).map(|_| {
            let mut step = Step::arbitrary(random).within(greenlets);
            if u8::arbitrary(random) % 3 == 0 {
                step.who = 0;
            }
            // Its own handle: it may be the last, while it runs.
            if let (Action::Drop(one), true) = (&mut step.action, bool::arbitrary(random)) {
                *one = step.who;
            }
            step
        }));
        Self(steps)
    }

    /// Fewer steps, or plainer ones.
    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let all = self.0.clone();
        let runs = [32, 16, 8, 4, 2, 1].into_iter().filter(|run| *run <= self.0.len());
        let cuts: Vec<_> =
            runs.flat_map(|run| (0..=all.len() - run).map(move |at| (at, run))).collect();
        let shorter = cuts.into_iter().map({
            let all = all.clone();
            move |(at, run)| Self([&all[..at], &all[at + run..]].concat())
        });
        let plainer = (0..all.len()).flat_map(move |at| {
            let all = all.clone();
            all[at].plainer().into_iter().map(move |step| {
                let mut changed = all.clone();
                changed[at] = step;
                Self(changed)
            })
        });
        Box::new(shorter.chain(plainer))
    }
}

impl Step {
    /// The same step, of the first so many greenlets.
    fn within(mut self, greenlets: usize) -> Self {
        self.who %= greenlets;
        match &mut self.action {
            Action::New(one, under) => {
                *one %= greenlets;
                *under = under.map(|under| under % greenlets);
            }
            Action::SetParent(one, other) => {
                *one %= greenlets;
                *other %= greenlets;
            }
            Action::Switch(one) | Action::Throw(one) | Action::Kill(one) | Action::Drop(one) => {
                *one %= greenlets;
            }
            Action::Return | Action::Panic => {}
        }
        self
    }

    fn plainer(&self) -> Vec<Self> {
        let mut plainer = Vec::new();
        if self.in_cleanup {
            plainer.push(Self { in_cleanup: false, ..*self });
        }
        if self.catches {
            plainer.push(Self { catches: false, ..*self });
        }
        if let Action::New(greenlet, Some(_)) = self.action {
            plainer.push(Self { action: Action::New(greenlet, None), ..*self });
        }
        plainer
    }
}
