//! Programs of green threads, and what watches them.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::rc::Rc;
use std::time::Duration;

use quickcheck::{Arbitrary, Gen};
use stolon::timeout::with_timeout;
use stolon::{GreenThread, sleep, spawn};

/// How many green threads there are.
pub(crate) const MANY: usize = 6;

const NOW: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_millis(5);

/// Virtual time passes only while nobody can run: after so long all is over that will be.
const LONG: Duration = Duration::from_secs(3600);

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    None,
    Zero,
    Short,
}

impl Limit {
    pub(crate) fn duration(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Zero => Some(NOW),
            Self::Short => Some(SHORT),
        }
    }
}

impl Arbitrary for Limit {
    fn arbitrary(random: &mut Gen) -> Self {
        *random.choose(&[Self::None, Self::None, Self::Zero, Self::Short]).unwrap()
    }
}

/// What a model knows of a call that begins.
pub(crate) enum Begun<R> {
    /// It ends before anything else happens, with this.
    AtOnce(R),
    Waits,
}

/// What may happen, told as it does.
pub(crate) trait Model: 'static {
    type Call: Arbitrary + Copy + Debug + Send + Sync;
    type Outcome: PartialEq + Debug;

    fn begins(&mut self, who: usize, call: Self::Call) -> Begun<Self::Outcome>;
    /// A call that waited has ended.
    fn ends(&mut self, who: usize, outcome: Self::Outcome) -> Result<(), String>;
    /// A call that waited was unwound, by a kill or by a timeout.
    fn is_interrupted(&mut self, who: usize) -> Result<(), String>;
    /// Nothing will happen any more: does nobody wait who need not?
    fn is_quiet(&self) -> Result<(), String>;
    /// From now on `who` may be interrupted in its call, or in the next one.
    fn may_be_interrupted(&mut self, who: usize) {
        let _ = who;
    }
    /// What can be seen from outside.
    fn view(&self) -> Vec<isize>;
    /// This is seen, after each call.
    fn sees(&mut self, seen: &[isize]) -> Result<(), String> {
        let expected = self.view();
        let text = || format!("{seen:?} is seen, {expected:?} was expected");
        if seen == expected { Ok(()) } else { Err(text()) }
    }
}

pub(crate) trait Subject<M: Model> {
    fn call(&self, call: M::Call) -> M::Outcome;
    fn view(&self) -> Vec<isize>;
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<C> {
    Call(C),
    /// With a timeout around it.
    Within(Limit, C),
    Yield,
    Pause,
    Kill(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Program<C> {
    /// Decides what is shared, and whose turn it is.
    pub(crate) seed: u64,
    /// Each does its own, in their order.
    steps: Vec<(usize, Step<C>)>,
}

impl<C> Program<C> {
    pub(crate) fn is_in_order(&self) -> bool {
        is_in_order(self.seed)
    }
}

/// Whether they take turns as on a real hub.
pub(crate) fn is_in_order(seed: u64) -> bool {
    seed >> 14 & 3 > 0
}

impl<C: Arbitrary + Copy + Debug> Arbitrary for Program<C> {
    fn arbitrary(random: &mut Gen) -> Self {
        let steps = (0..usize::arbitrary(random) % random.size()).map(|_| {
            let step = match u8::arbitrary(random) % 16 {
                0..=7 => Step::Call(C::arbitrary(random)),
                8..=9 => Step::Within(Limit::arbitrary(random), C::arbitrary(random)),
                10..=13 => Step::Yield,
                14 => Step::Pause,
                _ => Step::Kill(usize::arbitrary(random) % MANY),
            };
            (usize::arbitrary(random) % MANY, step)
        });
        let steps = steps.collect();
        Self { seed: u64::from(u16::arbitrary(random)), steps }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let whole = self.clone();
        Box::new((0..whole.steps.len()).map(move |at| {
            let mut smaller = whole.clone();
            smaller.steps.remove(at);
            smaller
        }))
    }
}

/// Tells the model what happens, and keeps the first thing that it has against it.
struct Watch<M: Model> {
    model: RefCell<M>,
    story: RefCell<Vec<String>>,
    fault: RefCell<Option<String>>,
    /// Who is in a call that has to end at once.
    at_once: Cell<Option<usize>>,
}

impl<M: Model> Watch<M> {
    fn note(&self, who: usize, event: String, verdict: Result<(), String>) {
        let hurry = self.at_once.get().filter(|other| *other != who);
        let verdict = match hurry {
            Some(other) => Err(format!("{other} has switched, and need not wait")),
            None => verdict,
        };
        self.story.borrow_mut().push(format!("{who}: {event}"));
        if let Err(text) = verdict {
            self.fault.borrow_mut().get_or_insert(text);
        }
    }

    fn call(self: &Rc<Self>, subject: &dyn Subject<M>, who: usize, call: M::Call) {
        let begun = self.model.borrow_mut().begins(who, call);
        self.note(who, format!("{call:?}"), Ok(()));
        match begun {
            Begun::AtOnce(expected) => {
                self.at_once.set(Some(who));
                let interrupted = Interrupted { watch: self, subject, who, waits: false };
                let outcome = subject.call(call);
                std::mem::forget(interrupted);
                let same = outcome == expected;
                let fault = || format!("{expected:?} was expected");
                self.note(who, format!("has {outcome:?}"), same.then_some(()).ok_or_else(fault));
                self.at_once.set(None);
            }
            Begun::Waits => {
                let interrupted = Interrupted { watch: self, subject, who, waits: true };
                let outcome = subject.call(call);
                std::mem::forget(interrupted);
                let event = format!("gets {outcome:?}");
                let verdict = self.model.borrow_mut().ends(who, outcome);
                self.note(who, event, verdict);
            }
        }
        self.compare(who, subject);
    }

    fn compare(&self, who: usize, subject: &dyn Subject<M>) {
        let verdict = self.model.borrow_mut().sees(&subject.view());
        if verdict.is_err() {
            self.note(who, String::from("looks"), verdict);
        }
    }
}

/// Tells the model if a call is unwound.
struct Interrupted<'a, M: Model> {
    watch: &'a Rc<Watch<M>>,
    subject: &'a dyn Subject<M>,
    who: usize,
    waits: bool,
}

impl<M: Model> Drop for Interrupted<'_, M> {
    fn drop(&mut self) {
        let verdict = if self.waits {
            self.watch.model.borrow_mut().is_interrupted(self.who)
        } else {
            Err(String::from("it need not wait"))
        };
        self.watch.note(self.who, String::from("is interrupted"), verdict);
        self.watch.compare(self.who, self.subject);
    }
}

type Greens = Rc<RefCell<Vec<Option<Rc<GreenThread<()>>>>>>;

pub(crate) fn run<M: Model>(
    subject: Rc<dyn Subject<M>>,
    model: M,
    program: &Program<M::Call>,
) -> Result<(), String> {
    let watch = Rc::new(Watch {
        model: RefCell::new(model),
        story: RefCell::default(),
        fault: RefCell::default(),
        at_once: Cell::new(None),
    });
    let greens = Greens::default();
    for who in 0..MANY {
        let steps: Vec<_> = program
            .steps
            .iter()
            .filter(|(other, _)| *other == who)
            .map(|(_, step)| *step)
            .collect();
        let (subject, watch, greens) = (Rc::clone(&subject), Rc::clone(&watch), Rc::clone(&greens));
        let green = (!steps.is_empty()).then({
            let greens = Rc::clone(&greens);
            move || Rc::new(spawn(move || act(&*subject, &watch, who, &steps, &greens)))
        });
        greens.borrow_mut().push(green);
    }
    sleep(LONG);
    let verdict = watch.model.borrow().is_quiet();
    watch.note(MANY, String::from("all is quiet"), verdict);
    watch.compare(MANY, &*subject);
    let all = greens.take();
    for green in all.into_iter().flatten() {
        green.kill();
    }
    sleep(LONG);
    watch.compare(MANY, &*subject);
    match watch.fault.take() {
        None => Ok(()),
        Some(text) => Err(format!("{}\n{text}", watch.story.take().join("\n"))),
    }
}

fn act<M: Model>(
    subject: &dyn Subject<M>,
    watch: &Rc<Watch<M>>,
    who: usize,
    steps: &[Step<M::Call>],
    greens: &Greens,
) {
    for step in steps {
        match *step {
            Step::Call(call) => watch.call(subject, who, call),
            Step::Within(limit, call) => {
                watch.model.borrow_mut().may_be_interrupted(who);
                let _ = with_timeout(limit.duration(), || watch.call(subject, who, call));
            }
            Step::Yield => sleep(NOW),
            Step::Pause => sleep(SHORT),
            Step::Kill(victim) => {
                let green = greens.borrow().get(victim).cloned().flatten();
                if let Some(green) = green {
                    watch.model.borrow_mut().may_be_interrupted(victim);
                    green.kill();
                }
            }
        }
    }
}
