//! Who gets control when: the path between main, the mainloop and green threads.

use std::time::Duration;

use crate::greenlet::{self, trace};
use crate::greenthread::{Builder, sleep};

/// Makes the hub and forgets how it came into being.
fn with_hub() {
    sleep(Duration::ZERO);
    trace::take();
}

#[test]
fn spawn_and_wait_go_main_mainloop_green_thread_mainloop_main() {
    with_hub();
    let green = Builder::new().name("green").spawn(|| 42).unwrap();
    assert!(trace::take().is_empty(), "spawn only schedules");
    assert_eq!(green.wait(), 42);
    assert_eq!(trace::take(), ["mainloop", "green", "mainloop", "main"]);
    assert_eq!(green.wait(), 42);
    assert!(trace::take().is_empty(), "the result is there");
}

#[test]
fn a_green_threads_parent_is_the_mainloop_and_that_ones_is_main() {
    let main = greenlet::current::<()>();
    let green = Builder::new().spawn(move || {
        let mainloop = greenlet::current::<()>().parent::<()>().unwrap();
        assert_eq!(mainloop.name(), Some("mainloop"));
        assert_eq!(mainloop.parent::<()>(), Some(main));
    });
    green.unwrap().wait();
}

#[test]
fn yielding_with_nobody_else_goes_through_the_mainloop_and_back() {
    with_hub();
    sleep(Duration::ZERO);
    assert_eq!(trace::take(), ["mainloop", "main"]);
}

#[test]
fn a_green_thread_that_waits_starts_the_next_one_directly() {
    with_hub();
    let outer = Builder::new()
        .name("outer")
        .spawn(|| Builder::new().name("inner").spawn(|| 42).unwrap().wait());
    assert_eq!(outer.unwrap().wait(), 42);
    assert_eq!(trace::take(), ["mainloop", "outer", "inner", "outer", "mainloop", "main"]);
}

#[test]
fn started_green_threads_hand_over_to_each_other_directly() {
    with_hub();
    let twice = || {
        sleep(Duration::ZERO);
        sleep(Duration::ZERO);
    };
    let a = Builder::new().name("a").spawn(twice).unwrap();
    let b = Builder::new().name("b").spawn(twice).unwrap();
    a.wait();
    b.wait();
    let path = ["mainloop", "a", "mainloop", "b", "a", "b", "a", "b", "mainloop", "main"];
    assert_eq!(trace::take(), path);
}

#[test]
fn one_that_ends_starts_the_next_one_directly() {
    with_hub();
    let ended = ["a", "b", "c"].map(|name| Builder::new().name(name).spawn(|| ()).unwrap());
    sleep(Duration::ZERO);
    assert!(ended.iter().all(|green| green.is_dead()));
    assert_eq!(trace::take(), ["mainloop", "a", "b", "c", "mainloop", "main"]);
}

#[test]
fn one_that_ends_with_another_parent_leaves_for_that() {
    with_hub();
    let after = Builder::new().name("after").spawn(|| ()).unwrap();
    let parent = Builder::new().name("parent").spawn(|| sleep(Duration::from_millis(1))).unwrap();
    let child = Builder::new().name("child").spawn({
        let parent = parent.shared.greenlet::<()>();
        move || {
            greenlet::current::<()>().set_parent(&parent).unwrap();
            Builder::new().name("next").spawn(|| ()).unwrap();
        }
    });
    sleep(Duration::ZERO);
    let path = trace::take();
    let child_at = path.iter().position(|name| name == "child").expect("it has run");
    assert_eq!(path[child_at + 1], "parent", "and not the next in the queue: {path:?}");
    child.unwrap().wait();
    parent.wait();
    after.wait();
}
