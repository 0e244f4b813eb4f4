//! `corolocal`: the same for what is no `static`. Values end with their greenlet or their `Local`.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

use stolon::corolocal::{AccessError, Local, get_ident};
use stolon::event::Event;
use stolon::greenlet::{self, Greenlet};
use stolon::{sleep, spawn};

use crate::util::leak::counting_stacks;

const NOW: Duration = Duration::ZERO;

type Log = Rc<RefCell<Vec<String>>>;

/// Says its name when it is dropped, and does something.
struct Says(Log, String, Box<dyn Fn()>);

impl Drop for Says {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1.clone());
        (self.2)();
    }
}

/// A local whose values say `name` and a number, in the order in which they are made, when they are
/// dropped.
fn says(log: &Log, name: &'static str) -> Local<Says> {
    let (log, made) = (Rc::clone(log), Cell::new(0));
    Local::new(move || {
        made.set(made.get() + 1);
        Says(Rc::clone(&log), format!("{name}{}", made.get()), Box::new(|| ()))
    })
}

fn touch<V>(local: &Local<V>) {
    local.with(|_| ());
}

#[test]
fn each_greenlet_has_a_value_of_each_local_made_when_it_is_first_used() {
    counting_stacks(|| {
        let made = Rc::new(Cell::new(0));
        let local = |start: u32| {
            let made = Rc::clone(&made);
            Local::new(move || {
                made.set(made.get() + 1);
                Cell::new(start)
            })
        };
        let [a, b] = [local(10), local(20)];
        assert_eq!(made.get(), 0);
        a.set(11);
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (a, b) = (a.clone(), b.clone());
                spawn(move || {
                    assert_eq!(a.replace(n), 10, "not inherited");
                    sleep(NOW);
                    (a.get(), b.get())
                })
            })
            .collect();
        let seen: Vec<_> = threads.into_iter().map(|green| green.join().unwrap()).collect();
        assert_eq!(seen, [(0, 20), (1, 20), (2, 20)]);
        assert_eq!((a.get(), b.get(), made.get()), (11, 20, 8));
    });
}

#[test]
fn cells_have_the_shorthands_that_std_has() {
    let number = Local::<Cell<u8>>::default();
    number.set(3);
    assert_eq!((number.replace(4), number.take(), number.get()), (3, 4, 0));
    let names = Local::<RefCell<Vec<&str>>>::default();
    names.with_borrow_mut(|names| names.push("a"));
    assert_eq!(names.with_borrow(Vec::len), 1);
    assert_eq!(names.replace(vec!["b"]), ["a"]);
    assert_eq!(names.take(), ["b"]);
    names.set(vec!["c"]);
    assert_eq!((names.take(), format!("{names:?}").as_str()), (vec!["c"], "Local { .. }"));
}

#[test]
fn a_value_is_dropped_when_its_greenlet_ends_and_the_last_made_first() {
    counting_stacks(|| {
        let log = Log::default();
        let [a, b] = [says(&log, "a"), says(&log, "b")];
        touch(&b);
        let green = spawn({
            let (a, b) = (a.clone(), b.clone());
            move || [&a, &b, &a].map(touch)
        });
        green.join().unwrap();
        assert_eq!(log.take(), ["b2", "a1"]);
        // By a kill alike.
        let killed = spawn({
            let a = a.clone();
            move || {
                touch(&a);
                Event::<()>::new().wait();
            }
        });
        sleep(NOW);
        killed.kill();
        assert_eq!(log.take(), ["a2"]);
        drop((a, b));
        assert_eq!(log.take(), ["b1"]);
    });
}

#[test]
fn with_the_last_handle_the_values_of_greenlets_that_live_on_are_dropped() {
    counting_stacks(|| {
        let log = Log::default();
        let local = says(&log, "value");
        let go_on = Rc::new(Event::new());
        let greens = [1, 2].map(|_| {
            let (local, go_on) = (local.clone(), Rc::clone(&go_on));
            spawn(move || {
                touch(&local);
                drop(local);
                go_on.wait();
            })
        });
        sleep(NOW);
        assert!(log.borrow().is_empty());
        drop(local);
        assert_eq!(log.take(), ["value1", "value2"]);
        go_on.send(()).unwrap();
        greens.iter().for_each(|green| green.wait());
        assert!(log.borrow().is_empty());
    });
}

#[test]
fn a_greenlet_that_lives_on_keeps_nothing_of_locals_that_are_gone() {
    counting_stacks(|| {
        // Each shares one thing, whose weak count says how much is kept.
        let mut last = Weak::new();
        for n in 0..1000 {
            let value = Rc::new(n);
            last = Rc::downgrade(&value);
            let local = Local::new(move || Rc::clone(&value));
            local.with(|seen| assert_eq!(**seen, n));
        }
        assert_eq!(last.strong_count(), 0);
        // And a local that lives on keeps nothing of greenlets that have ended.
        let log = Log::default();
        let local = says(&log, "");
        for n in 1..=1000 {
            let local = local.clone();
            spawn(move || touch(&local)).wait();
            assert_eq!(log.take(), [n.to_string()]);
        }
    });
}

#[test]
fn what_makes_a_value_may_block_and_fail_and_use_the_local() {
    counting_stacks(|| {
        let fails = Rc::new(Cell::new(true));
        let local = Local::new({
            let fails = Rc::clone(&fails);
            move || {
                sleep(NOW);
                assert!(!fails.get(), "makes no value");
                Cell::new(1)
            }
        });
        assert!(catch_unwind(AssertUnwindSafe(|| local.get())).is_err());
        fails.set(false);
        assert_eq!(local.get(), 1);
        // The inner value was there first.
        let itself = Rc::new(RefCell::new(None::<Weak<Local<u32>>>));
        let depth = Cell::new(0);
        let recursive = Rc::new(Local::new({
            let itself = Rc::clone(&itself);
            move || {
                let level = depth.replace(depth.get() + 1);
                let local = itself.borrow().as_ref().and_then(Weak::upgrade);
                if level == 0 {
                    assert_eq!(local.unwrap().with(|n| *n), 1);
                }
                level
            }
        }));
        *itself.borrow_mut() = Some(Rc::downgrade(&recursive));
        assert_eq!(recursive.with(|n| *n), 1);
    });
}

#[test]
fn a_values_destructor_may_use_other_locals_but_not_its_own() {
    counting_stacks(|| {
        let log = Log::default();
        let (other, own) = (says(&log, "other"), Rc::new(RefCell::new(None::<Local<Says>>)));
        let local = Local::new({
            let (log, own) = (Rc::clone(&log), Rc::clone(&own));
            move || {
                let (other, own) = (other.clone(), Rc::clone(&own));
                let asks = move || {
                    sleep(NOW);
                    touch(&other);
                    let own = own.borrow().as_ref().map(|own| own.try_with(|_| ()));
                    assert_eq!(own, Some(Err(AccessError)));
                };
                Says(Rc::clone(&log), String::from("own"), Box::new(asks))
            }
        });
        *own.borrow_mut() = Some(local.clone());
        spawn(move || touch(&local)).wait();
        assert_eq!(log.take(), ["own"]);
        // Who waits is told when the function ends, and the destructor waits.
        sleep(NOW);
        assert_eq!(log.take(), ["other1"]);
        drop(own.take());
    });
}

#[test]
fn a_local_whose_last_handle_goes_in_a_greenlets_end_is_dropped_once() {
    counting_stacks(|| {
        let log = Log::default();
        let (local, main) = (says(&log, "value"), greenlet::current::<()>());
        let greenlet = Greenlet::new(move |()| {
            touch(&local);
            main.switch(()).unwrap();
            // The captures go before the greenlet's own values.
        });
        greenlet.switch(()).unwrap();
        drop(greenlet);
        assert_eq!(log.take(), ["value1"]);
    });
}

#[test]
fn a_destructor_that_panics_with_its_local_keeps_no_other_value() {
    counting_stacks(|| {
        let log = Log::default();
        let count = Rc::new(Cell::new(0));
        let local = Local::new({
            let log = Rc::clone(&log);
            move || {
                let n = count.replace(count.get() + 1);
                let first = move || assert!(n != 0, "the first one's destructor");
                Says(Rc::clone(&log), n.to_string(), Box::new(first))
            }
        });
        let go_on = Rc::new(Event::new());
        let green = spawn({
            let (local, go_on) = (local.clone(), Rc::clone(&go_on));
            move || {
                touch(&local);
                drop(local);
                go_on.wait();
            }
        });
        sleep(NOW);
        touch(&local);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(local))).is_err());
        assert_eq!(log.take(), ["0", "1"]);
        go_on.send(()).unwrap();
        green.wait();
    });
}

#[test]
fn identities_are_never_used_again() {
    counting_stacks(|| {
        assert_eq!((get_ident(), get_ident()), (0, 0));
        let idents: Vec<_> = (0..10).map(|_| spawn(get_ident).wait()).collect();
        assert!(idents[0] > 0 && idents.windows(2).all(|pair| pair[0] < pair[1]), "{idents:?}");
    });
}
