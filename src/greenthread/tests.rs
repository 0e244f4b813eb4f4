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
    assert_eq!(
        trace::take(),
        ["mainloop", "outer", "inner", "mainloop", "outer", "mainloop", "main"]
    );
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
    let path =
        ["mainloop", "a", "mainloop", "b", "a", "b", "a", "mainloop", "b", "mainloop", "main"];
    assert_eq!(trace::take(), path);
}
