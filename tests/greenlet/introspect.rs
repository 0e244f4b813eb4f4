//! Looking at greenlets from outside: `Debug`, `all`, `backtrace`.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use stolon::greenlet::{self, Greenlet};
use stolon::stack::stack_counts;

fn named(name: &str, run: impl FnOnce(()) + 'static) -> Greenlet {
    Greenlet::builder().name(name).build(run).unwrap()
}

#[inline(never)]
fn deep_inside(main: &Greenlet, levels: u32) {
    if levels == 0 {
        main.switch(()).unwrap();
    } else {
        deep_inside(main, levels - 1);
    }
    // So that the call is not the last thing done.
    std::hint::black_box(levels);
}

/// Suspended some calls down.
fn suspended(name: &str) -> Greenlet {
    let main = greenlet::current::<()>();
    let greenlet = named(name, move |()| deep_inside(&main, 3));
    greenlet.switch(()).unwrap();
    greenlet
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn debug_tells_name_state_and_parent() {
    let main = greenlet::current::<()>();
    assert_eq!(format!("{main:?}"), "Greenlet(main current)");
    let child = named("child", {
        let main = main.clone();
        move |()| {
            assert_eq!(format!("{main:?}"), "Greenlet(main suspended)");
            let current = greenlet::current::<()>();
            assert_eq!(format!("{current:?}"), "Greenlet('child' current, parent main)");
            let nameless = Greenlet::new(|()| ());
            assert_eq!(format!("{nameless:?}"), "Greenlet(#2 pending, parent 'child')");
            let grandchild = Greenlet::builder().parent(&nameless).build(|()| ()).unwrap();
            assert_eq!(format!("{grandchild:?}"), "Greenlet(#3 pending, parent #2)");
            main.switch(()).unwrap();
        }
    });
    assert_eq!(format!("{child:?}"), "Greenlet('child' pending, parent main)");
    child.switch(()).unwrap();
    assert_eq!(format!("{child:?}"), "Greenlet('child' suspended, parent main)");
    child.switch(()).unwrap();
    assert_eq!(format!("{child:?}"), "Greenlet('child' dead, parent main)");
}

#[test]
fn all_lists_who_is_not_dead_the_oldest_first() {
    let names = || {
        let all = greenlet::all();
        let name = |greenlet: &Greenlet| greenlet.name().unwrap_or("main").to_owned();
        all.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["main"]);
    let (first, second) = (suspended("first"), named("second", |()| ()));
    let third = suspended("third");
    assert_eq!(names(), ["main", "first", "second", "third"]);
    second.switch(()).unwrap();
    assert_eq!(names(), ["main", "first", "third"]);
    // While there is the list there are handles.
    let all = greenlet::all();
    drop((first, third));
    assert!(all.iter().all(|greenlet| !greenlet.is_dead()));
    drop(all);
    assert_eq!(names(), ["main"]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn all_lists_the_current_greenlet_and_those_of_its_own_thread_only() {
    let here = suspended("here");
    std::thread::spawn(|| {
        let lists = named("lists", |()| {
            let all = greenlet::all();
            assert_eq!(format!("{all:?}").matches("Greenlet(").count(), 2);
            assert!(all[1].is_current());
        });
        lists.switch(()).unwrap();
    })
    .join()
    .unwrap();
    drop(here);
}

#[test]
fn a_backtrace_shows_where_a_suspended_greenlet_waits() {
    let greenlet = suspended("deep");
    let text = greenlet.backtrace().unwrap().to_string();
    assert_eq!(count(&text, "introspect::deep_inside"), 4, "{text}");
    assert!(!text.contains("a_backtrace_shows"), "{text}");
    // As often as one likes; and the greenlet goes on as if nothing had been.
    for _ in 0..100 {
        assert!(greenlet.backtrace().is_some());
    }
    greenlet.switch(()).unwrap();
    assert!(greenlet.is_dead());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn who_is_asked_goes_on_waiting_for_the_same() {
    let main = greenlet::current::<[u64; 9]>();
    let greenlet = Greenlet::new(move |sent: [u64; 9]| main.switch(sent).unwrap());
    greenlet.switch([1; 9]).unwrap();
    let text = format!("{greenlet:?}");
    assert!(greenlet.backtrace().is_some());
    assert_eq!(format!("{greenlet:?}"), text);
    // It takes what it took before, and nothing else.
    assert!(greenlet.cast::<u8>().switch(1).is_err());
    assert_eq!(greenlet.switch([2; 9]).unwrap(), [2; 9]);
    assert!(greenlet.is_dead());
}

#[test]
fn who_was_asked_can_be_killed_and_dropped() {
    let dropped = suspended("dropped");
    assert!(dropped.backtrace().is_some());
    drop(dropped);
    let killed = suspended("killed");
    assert!(killed.backtrace().is_some());
    assert!(killed.kill().is_err() && killed.is_dead());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn there_is_no_backtrace_of_who_has_not_started_or_is_dead() {
    let greenlet = named("one", |()| ());
    assert!(greenlet.backtrace().is_none() && !greenlet.is_started());
    greenlet.switch(()).unwrap();
    assert!(greenlet.backtrace().is_none());
}

#[test]
fn the_backtrace_of_the_current_greenlet_is_that_of_the_call() {
    fn ask_here() -> String {
        greenlet::current::<()>().backtrace().unwrap().to_string()
    }
    assert!(ask_here().contains("ask_here"));
    named("asks", |()| assert!(ask_here().contains("ask_here"))).switch(()).unwrap();
}

#[test]
fn a_child_may_ask_for_its_parents_backtrace_and_for_the_roots() {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let outer = named("outer", {
        let asked = Rc::clone(&asked);
        move |()| {
            let inner = named("inner", move |()| {
                let mut greenlet = greenlet::current::<()>();
                while let Some(parent) = greenlet.parent::<()>() {
                    asked.borrow_mut().push(parent.backtrace().unwrap().to_string());
                    greenlet = parent;
                }
            });
            inner.switch(()).unwrap();
        }
    });
    // As a function of its own, so that it has a name where the compiler optimises.
    deep_inside(&outer, 0);
    let asked = asked.take();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].contains("deep_inside"), "{}", asked[1]);
}

#[test]
fn one_may_ask_and_be_asked_while_unwinding() {
    struct Asks(Greenlet, Rc<RefCell<Vec<String>>>);
    impl Drop for Asks {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0.backtrace().unwrap().to_string());
        }
    }
    struct WaitsOnDrop(Greenlet);
    impl Drop for WaitsOnDrop {
        fn drop(&mut self) {
            drop(self.0.switch(()));
        }
    }
    let texts = Rc::new(RefCell::new(Vec::new()));
    let main = greenlet::current::<()>();
    let asked = suspended("asked");
    let panics = catch_unwind(AssertUnwindSafe(|| {
        let _asks = Asks(asked.clone(), Rc::clone(&texts));
        panic!("while this unwinds");
    }));
    assert!(panics.is_err());
    // One that waits in a destructor, out of the middle of its unwinding.
    let unwinding = named("unwinding", {
        let main = main.clone();
        move |()| {
            let _waits = WaitsOnDrop(main);
            panic!("on its way");
        }
    });
    unwinding.switch(()).unwrap();
    texts.borrow_mut().push(unwinding.backtrace().unwrap().to_string());
    assert!(texts.borrow()[0].contains("deep_inside"));
    assert!(texts.borrow()[1].contains("WaitsOnDrop"), "{}", texts.borrow()[1]);
    assert!(catch_unwind(AssertUnwindSafe(|| unwinding.switch(()))).is_err());
    assert!(unwinding.is_dead());
}

#[test]
fn a_small_stack_has_room_for_a_backtrace_and_a_full_one_is_left_alone() {
    #[inline(never)]
    fn fill(main: &Greenlet) {
        let mut large = [1u8; 6 * 1024];
        std::hint::black_box(&mut large);
        main.switch(()).unwrap();
        std::hint::black_box(&mut large);
    }
    let on_16_kib = |run: fn(&Greenlet)| {
        let main = greenlet::current::<()>();
        let builder = Greenlet::builder().stack_bytes(16 * 1024);
        let greenlet = builder.build(move |()| run(&main)).unwrap();
        greenlet.switch(()).unwrap();
        greenlet
    };
    assert!(on_16_kib(|main| main.switch(()).unwrap()).backtrace().is_some());
    let full = on_16_kib(fill);
    assert!(full.backtrace().is_none());
    full.switch(()).unwrap();
    assert!(full.is_dead());
}

#[test]
fn nobody_is_traced_for_being_asked_and_the_disguise_stays() {
    let greenlet = suspended("asked");
    let log = Rc::new(RefCell::new(Vec::new()));
    greenlet::settrace({
        let log = Rc::clone(&log);
        move |_, _, target| log.borrow_mut().push(target.name().unwrap_or("main").to_owned())
    });
    assert!(greenlet.backtrace().is_some());
    assert!(log.borrow().is_empty());
    greenlet.switch(()).unwrap();
    assert_eq!(log.take(), ["asked", "main"]);
    // Nor is who was asked kept by it.
    let greenlet = suspended("dropped");
    assert!(greenlet.backtrace().is_some());
    drop(greenlet);
    assert_eq!(stack_counts().in_use, 0);
    greenlet::cleartrace();
}

#[test]
fn parked_green_threads_can_be_asked_from_the_hub_and_from_each_other() {
    #[inline(never)]
    fn parks_here() {
        stolon::sleep(Duration::from_millis(5));
        std::hint::black_box(());
    }
    let parked = stolon::greenthread::Builder::new().name("parked").spawn(parks_here).unwrap();
    stolon::sleep(Duration::ZERO);
    let asks = stolon::spawn(|| {
        let all = greenlet::all();
        let named = |name| all.iter().find(|greenlet| greenlet.name() == Some(name)).unwrap();
        assert!(named("mainloop").backtrace().is_some());
        named("parked").backtrace().unwrap().to_string()
    });
    let text = asks.wait();
    assert!(text.contains("parks_here"), "{text}");
    parked.wait();
}

// Where it was made.

#[test]
fn a_greenlet_knows_where_it_was_made_however_it_was() {
    let line = line!();
    let made = [
        Greenlet::new(|()| ()),
        Greenlet::builder().build(|()| ()).unwrap(),
        greenlet::scope(|scope| scope.greenlet(|()| ())),
    ];
    let lines: Vec<u32> = made.iter().map(|made| made.made_at().unwrap().line()).collect();
    assert_eq!(lines, [line + 2, line + 3, line + 4]);
    assert!(made.iter().all(|made| made.made_at().unwrap().file() == file!()));
    let spawned = [
        stolon::spawn(|| greenlet::current::<()>().made_at().unwrap().line()),
        stolon::greenthread::Builder::new()
            .spawn(|| greenlet::current::<()>().made_at().unwrap().line())
            .unwrap(),
    ];
    let lines: Vec<u32> = spawned.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(lines, [line + 10, line + 12]);
    assert_eq!(greenlet::current::<()>().made_at(), None);
}
