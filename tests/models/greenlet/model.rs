//! A plain model of the tree: what the rules say that a program does. It has no greenlets, and no
//! stacks but lists of what is under way.
//!
//! | a greenlet that is | has under way, the innermost last |
//! |---|---|
//! | pending or dead | nothing |
//! | suspended | its steps, an operation, and `Switching`, or `Killing` if it drops a last handle |
//! | running | the same without the last |

use super::program::*;

/// What a greenlet has under way.
#[derive(Debug)]
enum Frame {
    /// Its steps, from this one on.
    Steps(usize),
    /// The steps of its cleanup, from this one on; then it ends.
    Cleanup(usize, End),
    /// An operation acts.
    Acting(Operation),
    /// An operation lets go of its handles, one by one; it raised this so far.
    LettingGo(Operation, Option<Raised>),
    /// It is about to make a greenlet, a child of the other, and first lets go of the thread's wards.
    Making(usize, usize),
    /// It awaits a value.
    Switching,
    /// It awaits the death of a greenlet that it dropped the last handle to. It can raise what comes
    /// instead.
    Killing(usize, bool),
}

#[derive(Clone, Debug)]
struct Operation {
    number: Number,
    /// Whether what it raises goes no further.
    catches: bool,
    /// To whom it has handles.
    handles: Vec<usize>,
}

/// How a greenlet ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Value(Number),
    Raised(Raised),
}

/// What reaches a greenlet.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    Value(Number),
    Throw(Raised),
    Kill,
    Exit,
    Death,
}

#[derive(Debug)]
struct Greenlet {
    is_made: bool,
    state: State,
    parent: Option<usize>,
    /// Whether the program has a handle.
    in_table: bool,
    /// How many handles there are.
    handles: usize,
    killer: Option<usize>,
    frames: Vec<Frame>,
    /// Whether it unwinds: destructors run.
    unwinds: bool,
}

pub(crate) struct Model<'a> {
    script: &'a Script,
    greenlets: [Greenlet; GREENLETS],
    current: usize,
    /// Let go of while they ran.
    orphans: Vec<usize>,
    /// Killed for want of handles, and not dead.
    survivors: Vec<usize>,
    /// What the frame that is over came to, for the one before it.
    result: Option<Outcome>,
    log: Vec<Event>,
}

/// What happens when a program is run, by the rules.
pub(crate) fn run(script: &Script) -> Vec<Event> {
    let greenlet = |()| Greenlet {
        is_made: false,
        state: State::Pending,
        parent: None,
        in_table: false,
        handles: 0,
        killer: None,
        frames: Vec::new(),
        unwinds: false,
    };
    let mut greenlets = [(); GREENLETS].map(greenlet);
    let root = &mut greenlets[0];
    (root.is_made, root.state, root.in_table) = (true, State::Active, true);
    // The program's, and the thread's own.
    root.handles = 2;
    root.frames.push(Frame::Steps(0));
    let (orphans, survivors, log) = (Vec::new(), Vec::new(), Vec::new());
    let mut model = Model { script, greenlets, current: 0, orphans, survivors, result: None, log };
    while model.go_on() {}
    let parent = |one: &Greenlet| if one.in_table { one.parent } else { None };
    let parents = model.greenlets.each_ref().map(parent);
    model.log.push(Event::Parents(parents));
    model.log
}

impl Model<'_> {
    fn me(&mut self) -> &mut Greenlet {
        &mut self.greenlets[self.current]
    }

    fn push(&mut self, frame: Frame) {
        self.me().frames.push(frame);
    }

    /// The current greenlet's innermost frame goes on. False when the root has no step left.
    fn go_on(&mut self) -> bool {
        let result = self.result.take();
        let frame = self.me().frames.pop().expect("who runs has something under way");
        match frame {
            Frame::Steps(next) => return self.go_on_with_steps(next, result),
            Frame::Cleanup(next, end) => self.clean_up(next, end),
            Frame::Acting(operation) => {
                let outcome = result.expect("an operation has an outcome");
                self.log.push(Event::Did(self.current, operation.number, outcome));
                let raised =
                    if let Outcome::Raised(raised) = outcome { Some(raised) } else { None };
                self.let_go_of_next(operation, raised);
            }
            Frame::LettingGo(operation, mut raised) => {
                if let Some(Outcome::Raised(another)) = result {
                    self.log.push(Event::DropRaised(self.current, another));
                    raised = raised.or(Some(another));
                }
                self.let_go_of_next(operation, raised);
            }
            Frame::Making(who, parent) => self.make(who, parent, result),
            Frame::Switching | Frame::Killing(..) => unreachable!("who waits does not run"),
        }
        true
    }

    fn go_on_with_steps(&mut self, next: usize, result: Option<Outcome>) -> bool {
        if let Some(Outcome::Raised(raised)) = result {
            self.begin_cleanup(End::Raised(raised));
            return true;
        }
        let who = self.current;
        let Some(&(number, ref step)) = self.script.steps(who).get(next) else {
            if who != 0 {
                self.begin_cleanup(End::Value(last_value(who)));
            }
            return who != 0;
        };
        match step.action {
            Action::Return if who != 0 => self.begin_cleanup(End::Value(number)),
            Action::Panic if who != 0 => {
                self.begin_cleanup(End::Raised(Raised::Thrown(number)));
            }
            _ => {
                self.push(Frame::Steps(next + 1));
                self.operate(number, step, step.catches || who == 0);
            }
        }
        true
    }

    fn begin_cleanup(&mut self, end: End) {
        self.log.push(Event::CleansUp(self.current));
        self.me().unwinds = matches!(end, End::Raised(_));
        self.push(Frame::Cleanup(0, end));
    }

    fn clean_up(&mut self, next: usize, end: End) {
        match self.script.cleanup(self.current).get(next) {
            Some((number, step)) => {
                self.push(Frame::Cleanup(next + 1, end));
                self.operate(*number, step, true);
            }
            None => {
                self.log.push(Event::Dropped(self.current));
                self.me().unwinds = false;
                self.end(end);
            }
        }
    }

    // Operations.

    fn operate(&mut self, number: Number, step: &Step, catches: bool) {
        let handles = match step.action {
            Action::New(who, _) if self.greenlets[who].is_made => return,
            Action::Return | Action::Panic => return,
            Action::New(_, None) => vec![],
            Action::New(_, Some(one)) => vec![one],
            Action::SetParent(one, other) => vec![one, other],
            Action::Switch(one) | Action::Throw(one) | Action::Kill(one) | Action::Drop(one) => {
                vec![one]
            }
        };
        if handles.iter().any(|one| !self.greenlets[*one].in_table) {
            return;
        }
        if let Action::Drop(one) = step.action {
            self.greenlets[one].in_table = false;
        } else {
            handles.iter().for_each(|one| self.greenlets[*one].handles += 1);
        }
        self.push(Frame::Acting(Operation { number, catches, handles }));
        match step.action {
            Action::New(who, under) => {
                self.greenlets[who].is_made = true;
                // The library has one to the current greenlet meanwhile.
                self.me().handles += 1;
                let parent = under.unwrap_or(self.current);
                self.push(Frame::Making(who, parent));
            }
            Action::Switch(one) => self.switch(one, number),
            Action::Throw(one) => self.signal(one, Arrival::Throw(Raised::Thrown(number))),
            Action::Kill(one) => self.signal(one, Arrival::Kill),
            Action::SetParent(one, other) => self.set_parent(one, other),
            Action::Drop(_) | Action::Return | Action::Panic => self.result = Some(Outcome::Done),
        }
    }

    fn let_go_of_next(&mut self, mut operation: Operation, raised: Option<Raised>) {
        if !operation.handles.is_empty() {
            let one = operation.handles.remove(0);
            self.push(Frame::LettingGo(operation, raised));
            return self.let_go(one);
        }
        let state = |one: &Greenlet| one.in_table.then_some(one.state);
        let states = self.greenlets.each_ref().map(state);
        self.log.push(Event::States(states));
        let raised = raised.filter(|_| !operation.catches);
        self.result = Some(raised.map_or(Outcome::Done, Outcome::Raised));
    }

    /// Lets go of the wards first: of orphans that do not run, then of survivors that are dead.
    fn make(&mut self, who: usize, parent: usize, result: Option<Outcome>) {
        if let Some(Outcome::Raised(_)) = result {
            self.log.push(Event::Dropped(who));
            self.let_go_of_current();
            self.result = result;
            return;
        }
        if let Some(at) = self.orphans.iter().position(|one| *one != self.current) {
            let orphan = self.orphans.swap_remove(at);
            self.push(Frame::Making(who, parent));
            return self.let_go(orphan);
        }
        let is_dead = |one: &usize| self.greenlets[*one].state == State::Dead;
        if let Some(at) = self.survivors.iter().position(is_dead) {
            let survivor = self.survivors.swap_remove(at);
            self.push(Frame::Making(who, parent));
            return self.let_go(survivor);
        }
        let new = &mut self.greenlets[who];
        (new.parent, new.in_table, new.handles) = (Some(parent), true, 1);
        self.let_go_of_current();
        self.result = Some(Outcome::Done);
    }

    fn let_go_of_current(&mut self) {
        let current = self.current;
        self.let_go(current);
    }

    fn set_parent(&mut self, child: usize, parent: usize) {
        let mut ancestor = Some(parent);
        let mut is_cycle = false;
        while let Some(one) = ancestor {
            is_cycle |= one == child;
            ancestor = self.greenlets[one].parent;
        }
        self.result = Some(match (child, is_cycle) {
            (0, _) => Outcome::Root,
            (_, true) => Outcome::Cycle,
            (_, false) => {
                self.greenlets[child].parent = Some(parent);
                Outcome::Done
            }
        });
    }

    fn switch(&mut self, to: usize, number: Number) {
        let to = self.living(to);
        if to == self.current {
            self.result = Some(Outcome::Value(number));
        } else if self.awaits_death(to) {
            self.result = Some(Outcome::Refused(number));
        } else {
            self.push(Frame::Switching);
            self.resume(to, Arrival::Value(number));
        }
    }

    /// Throws, or kills.
    fn signal(&mut self, to: usize, arrival: Arrival) {
        let living = self.living(to);
        let arrival = match arrival {
            // It is news to its ancestor, and no order.
            Arrival::Kill if living != to => Arrival::Exit,
            other => other,
        };
        if living == self.current {
            self.result = Some(self.taken(arrival));
        } else {
            self.push(Frame::Switching);
            self.resume(living, arrival);
        }
    }

    // Control.

    /// The greenlet, or the nearest of its ancestors that is not dead.
    fn living(&self, mut one: usize) -> usize {
        while self.greenlets[one].state == State::Dead {
            one = self.greenlets[one].parent.expect("the root lives");
        }
        one
    }

    fn awaits_death(&self, who: usize) -> bool {
        matches!(self.greenlets[who].frames.last(), Some(Frame::Killing(..)))
    }

    fn is_panicking(&self) -> bool {
        self.greenlets.iter().any(|one| one.unwinds)
    }

    /// What a pending switch comes to.
    fn taken(&self, arrival: Arrival) -> Outcome {
        match arrival {
            Arrival::Value(number) => Outcome::Value(number),
            Arrival::Throw(raised) => Outcome::Raised(raised),
            // Nothing can be killed while the thread unwinds anything.
            Arrival::Kill if self.is_panicking() => Outcome::Exited,
            Arrival::Kill => Outcome::Raised(Raised::Exit),
            Arrival::Exit => Outcome::Exited,
            Arrival::Death => unreachable!("no switch awaits a death"),
        }
    }

    fn resume(&mut self, who: usize, arrival: Arrival) {
        self.current = who;
        if self.me().state == State::Pending {
            return self.start(arrival);
        }
        match self.me().frames.pop() {
            Some(Frame::Switching) => self.result = Some(self.taken(arrival)),
            Some(Frame::Killing(victim, can_raise)) => {
                self.settle(victim);
                let came = match arrival {
                    Arrival::Throw(raised) => Outcome::Raised(raised),
                    Arrival::Kill => Outcome::Raised(Raised::Exit),
                    Arrival::Exit | Arrival::Death => Outcome::Done,
                    Arrival::Value(_) => unreachable!("it takes no value"),
                };
                self.result = Some(if can_raise { came } else { Outcome::Done });
            }
            other => unreachable!("{other:?} waits for nothing"),
        }
    }

    fn start(&mut self, arrival: Arrival) {
        let who = self.current;
        self.me().state = State::Active;
        if let Arrival::Value(number) = arrival {
            self.log.push(Event::Starts(who, number));
            return self.push(Frame::Steps(0));
        }
        self.log.push(Event::Dropped(who));
        self.end(End::Raised(match arrival {
            Arrival::Throw(raised) => raised,
            _ => Raised::Exit,
        }));
    }

    /// The current greenlet is dead, and its end reaches who is to have it.
    fn end(&mut self, end: End) {
        self.me().state = State::Dead;
        if let Some(killer) = self.me().killer.take() {
            return self.resume(killer, Arrival::Death);
        }
        let to = self.living(self.current);
        let arrival = match end {
            End::Value(_) if self.awaits_death(to) => Arrival::Throw(Raised::Mismatch),
            End::Value(number) => Arrival::Value(number),
            End::Raised(Raised::Exit) => Arrival::Exit,
            End::Raised(raised) => Arrival::Throw(raised),
        };
        self.resume(to, arrival);
    }

    // Handles.

    fn let_go(&mut self, one: usize) {
        self.result = Some(Outcome::Done);
        let is_last = self.greenlets[one].handles == 1;
        if is_last && one == self.current {
            // It is the thread's now.
            self.orphans.push(one);
        } else if is_last && self.greenlets[one].state != State::Dead {
            let can_raise = !self.is_panicking();
            self.greenlets[one].killer = Some(self.current);
            self.push(Frame::Killing(one, can_raise));
            self.result = None;
            self.resume(one, Arrival::Kill);
        } else {
            self.greenlets[one].handles -= 1;
        }
    }

    /// A victim is dead, or its killer gives up on it.
    fn settle(&mut self, victim: usize) {
        let current = self.current;
        // Another may kill it by now.
        let killer = &mut self.greenlets[victim].killer;
        *killer = killer.filter(|killer| *killer != current);
        if self.greenlets[victim].state == State::Dead {
            self.greenlets[victim].handles -= 1;
        } else {
            // The last handle is the thread's now.
            self.survivors.push(victim);
        }
    }
}
