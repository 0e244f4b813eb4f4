//! Runs programs with greenlets.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use stolon::greenlet::{self, Greenlet, GreenletExit, ParentError, SwitchError};
use stolon::stack::stack_counts;

use super::program::*;

/// What is sent: too large for a word, and counted.
struct Value {
    number: Number,
    world: Rc<World>,
    filler: [usize; 2],
}

impl Value {
    fn new(world: &Rc<World>, number: Number) -> Self {
        world.values.set(world.values.get() + 1);
        Self { number, world: Rc::clone(world), filler: [number; 2] }
    }

    /// The number, if all of it has arrived.
    fn open(self) -> Number {
        assert_eq!(self.filler, [self.number; 2], "a value arrives as it was sent");
        self.number
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.world.values.set(self.world.values.get() - 1);
    }
}

struct World {
    script: Script,
    handles: RefCell<[Option<Greenlet<Value>>; GREENLETS]>,
    made: RefCell<[bool; GREENLETS]>,
    log: RefCell<Vec<Event>>,
    /// How many values there are.
    values: Cell<isize>,
    /// Whether the program is over, and whoever still runs is to end.
    is_over: Cell<bool>,
}

/// Notes that it is dropped: what a greenlet's closure holds.
struct Noted(Rc<World>, usize);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.note(Event::Dropped(self.1));
    }
}

/// Does the steps of a greenlet's cleanup when it is dropped.
struct CleansUp<'a>(&'a Rc<World>, usize);

impl Drop for CleansUp<'_> {
    fn drop(&mut self) {
        self.0.note(Event::CleansUp(self.1));
        for (number, step) in self.0.script.cleanup(self.1) {
            // All is caught.
            let _ = self.0.operate(*number, step);
        }
    }
}

/// What happens when a program is run, traced or not, which makes no difference.
///
/// # Panics
///
/// When it leaves anything behind.
pub(crate) fn run(script: Script, is_traced: bool) -> Vec<Event> {
    let arrivals = Rc::new(Cell::new(0));
    if is_traced {
        let arrivals = Rc::clone(&arrivals);
        greenlet::settrace(move |_, _, _| arrivals.set(arrivals.get() + 1));
    }
    let world = Rc::new(World {
        script,
        handles: RefCell::default(),
        made: RefCell::default(),
        log: RefCell::default(),
        values: Cell::new(0),
        is_over: Cell::new(false),
    });
    world.handles.borrow_mut()[0] = Some(greenlet::current());
    world.made.borrow_mut()[0] = true;
    for (number, step) in world.script.steps(0) {
        let _ = world.operate(*number, step);
    }
    let parents = world.parents();
    world.note(Event::Parents(parents));
    world.end();
    greenlet::cleartrace();
    let log = world.log.take();
    let starts = log.iter().filter(|event| matches!(event, Event::Starts(..))).count();
    assert!(arrivals.get() >= starts * usize::from(is_traced), "who starts is traced");
    log
}

impl World {
    fn note(&self, event: Event) {
        self.log.borrow_mut().push(event);
    }

    /// What a greenlet does.
    fn body(self: &Rc<Self>, who: usize, value: Value) -> Value {
        self.note(Event::Starts(who, value.open()));
        let _cleans_up = CleansUp(self, who);
        for &(number, ref step) in self.script.steps(who) {
            match step.action {
                _ if self.is_over.get() => break,
                Action::Return => return Value::new(self, number),
                Action::Panic => resume_unwind(Box::new(number)),
                _ => {}
            }
            if let (Err(payload), false) = (self.operate(number, step), step.catches) {
                resume_unwind(payload);
            }
        }
        Value::new(self, last_value(who))
    }

    /// Does a step, and returns what it raised.
    fn operate(self: &Rc<Self>, number: Number, step: &Step) -> Result<(), Box<dyn Any + Send>> {
        let needed: &[usize] = match &step.action {
            Action::New(greenlet, _) if self.made.borrow()[*greenlet] => return Ok(()),
            Action::Return | Action::Panic => return Ok(()),
            _ if self.is_over.get() => return Ok(()),
            Action::New(_, None) => &[],
            Action::New(_, Some(one)) => &[*one],
            Action::SetParent(one, other) => &[*one, *other],
            Action::Switch(one) | Action::Throw(one) | Action::Kill(one) | Action::Drop(one) => {
                &[*one]
            }
        };
        let handles = self.handles.borrow();
        let mut found: Vec<_> = needed.iter().filter_map(|one| handles[*one].clone()).collect();
        drop(handles);
        if found.len() < needed.len() {
            return Ok(());
        }
        if let Action::Drop(one) = step.action {
            let handle = self.handles.borrow_mut()[one].take();
            drop(found);
            // To be dropped below.
            found = handle.into_iter().collect();
        }
        let acted = catch_unwind(AssertUnwindSafe(|| self.act(number, step, &found)));
        let outcome = acted.as_ref().map_or_else(|raised| Outcome::Raised(read(&**raised)), |o| *o);
        self.note(Event::Did(step.who, number, outcome));
        let mut raised = acted.err();
        for handle in found {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(handle))) {
                self.note(Event::DropRaised(step.who, read(&*payload)));
                raised = raised.or(Some(payload));
            }
        }
        self.note(Event::States(self.states()));
        raised.map_or(Ok(()), Err)
    }

    fn act(self: &Rc<Self>, number: Number, step: &Step, on: &[Greenlet<Value>]) -> Outcome {
        match &step.action {
            Action::New(greenlet, _) => {
                self.make(*greenlet, on.first());
                Outcome::Done
            }
            Action::Switch(_) => outcome(on[0].switch(Value::new(self, number))),
            Action::Throw(_) => outcome(on[0].throw(Box::new(number))),
            Action::Kill(_) => outcome(on[0].kill()),
            Action::SetParent(..) => match on[0].set_parent(&on[1]) {
                Ok(()) => Outcome::Done,
                Err(ParentError::Cycle) => Outcome::Cycle,
                Err(ParentError::Root) => Outcome::Root,
                Err(other) => panic!("{other}"),
            },
            Action::Drop(_) | Action::Return | Action::Panic => Outcome::Done,
        }
    }

    fn make(self: &Rc<Self>, who: usize, parent: Option<&Greenlet<Value>>) {
        let mut builder = Greenlet::builder().name(who.to_string());
        if let Some(parent) = parent {
            builder = builder.parent(parent);
        }
        let noted = Noted(Rc::clone(self), who);
        // Now, as others may run before it is built.
        self.made.borrow_mut()[who] = true;
        let made = builder.build(move |value| {
            let noted = &noted;
            noted.0.body(who, value)
        });
        self.handles.borrow_mut()[who] = Some(made.unwrap());
    }

    fn states(&self) -> [Option<State>; GREENLETS] {
        let state = |greenlet: &Greenlet<Value>| match greenlet {
            one if one.is_dead() => State::Dead,
            one if one.is_active() => State::Active,
            _ => State::Pending,
        };
        self.handles.borrow().each_ref().map(|handle| handle.as_ref().map(state))
    }

    fn parents(&self) -> [Option<usize>; GREENLETS] {
        let number = |greenlet: Greenlet| greenlet.name().map_or(0, |name| name.parse().unwrap());
        let parent = |handle: &Option<Greenlet<Value>>| handle.as_ref()?.parent().map(number);
        self.handles.borrow().each_ref().map(parent)
    }

    /// Ends all greenlets of the program, and looks at what is left.
    fn end(&self) {
        self.is_over.set(true);
        for _ in 0..20 {
            // What reaches the root by that is nobody's business.
            if catch_unwind(greenlet::killall).is_ok() && stack_counts().in_use == 0 {
                break;
            }
        }
        let handles = self.handles.take();
        drop(handles);
        assert_eq!(stack_counts().in_use, 0, "all greenlets have ended");
        assert_eq!(self.values.get(), 0, "all values were dropped");
        let mut log = self.log.borrow_mut();
        for who in 1..GREENLETS {
            let dropped = log.iter().filter(|event| **event == Event::Dropped(who)).count();
            assert_eq!(dropped, usize::from(self.made.borrow()[who]), "{who} was dropped once");
        }
        // What came after the program's own end is not of it.
        let own = log.iter().position(|event| matches!(event, Event::Parents(_)));
        log.truncate(own.map_or(0, |last| last + 1));
    }
}

fn outcome(returned: Result<Value, SwitchError<Value>>) -> Outcome {
    match returned {
        Ok(value) => Outcome::Value(value.open()),
        Err(SwitchError::Exited) => Outcome::Exited,
        Err(SwitchError::TypeMismatch { value }) => Outcome::Refused(value.open()),
        Err(other) => panic!("{other}"),
    }
}

fn read(payload: &(dyn Any + Send)) -> Raised {
    if payload.is::<GreenletExit>() {
        Raised::Exit
    } else if let Some(number) = payload.downcast_ref::<Number>() {
        Raised::Thrown(*number)
    } else {
        let text = payload.downcast_ref::<String>().expect("a payload of the program's");
        assert!(text.contains("waits for another type"), "{text}");
        Raised::Mismatch
    }
}
