//! Green threads that start later: when, whether, and what they cost until then.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::util::child;
use crate::util::leak::{alone, guarded};
use stolon::greenlet::{Greenlet, GreenletExit};
use stolon::stack::{set_default_stack_bytes, stack_counts};
use stolon::{GreenThread, hub, sleep, spawn, spawn_after, spawn_after_local};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn was_killed<R: Clone + 'static>(green: &GreenThread<R>) -> bool {
    let ended = catch_unwind(AssertUnwindSafe(|| green.wait()));
    ended.is_err_and(|payload| payload.is::<GreenletExit>())
}

#[test]
fn they_start_when_their_time_has_come_earlier_ones_first() {
    guarded(|| {
        let order = Rc::new(std::cell::RefCell::new(Vec::new()));
        let start = Instant::now();
        let later = |delay: u32| {
            let order = Rc::clone(&order);
            spawn_after(delay * MS, move || {
                order.borrow_mut().push(delay);
                start.elapsed()
            })
        };
        let all = [20, 5, 10, 5].map(|delay| (delay, later(delay)));
        assert!(order.borrow().is_empty());
        for (delay, green) in &all {
            assert!(green.wait() >= *delay * MS);
        }
        assert_eq!(*order.borrow(), [5, 5, 10, 20]);
    });
}

#[test]
fn one_that_is_put_off_by_nothing_starts_as_others_do() {
    guarded(|| {
        let green = spawn_after(NOW, || 1);
        assert!(!green.is_dead());
        assert_eq!(green.wait(), 1);
    });
}

#[test]
fn until_their_time_they_take_no_stacks() {
    guarded(|| {
        let before = stack_counts().in_use;
        let many: Vec<_> = (0..1000).map(|_| spawn_after(HOUR, || ())).collect();
        sleep(NOW);
        assert!(stack_counts().in_use <= before + 1);
        for green in &many {
            assert!(green.cancel());
        }
        sleep(NOW);
        assert_eq!(stack_counts().in_use, before);
    });
}

// GT-06
#[test]
fn what_is_cancelled_before_its_time_never_runs_and_is_dropped() {
    guarded(|| {
        let (ran, held) = (Rc::new(Cell::new(false)), Rc::new(()));
        let (runs, holds) = (Rc::clone(&ran), Rc::clone(&held));
        let green = spawn_after(MS, move || {
            let _holds = holds;
            runs.set(true);
        });
        assert!(green.cancel());
        assert_eq!(Rc::strong_count(&held), 1);
        assert!(green.is_dead() && was_killed(&green));
        sleep(2 * MS);
        assert!(!ran.get());
    });
}

// GT-06
#[test]
fn cancelling_one_that_has_started_does_nothing() {
    guarded(|| {
        let green = spawn_after(NOW, || {
            sleep(MS);
            22
        });
        while !green.is_dead() && green.cancel_is_late() {
            sleep(NOW);
        }
        assert_eq!(green.wait(), 22);
    });
}

trait Late {
    fn cancel_is_late(&self) -> bool;
}

impl<R: 'static> Late for GreenThread<R> {
    /// Cancels it when it has started; till then it tells so.
    fn cancel_is_late(&self) -> bool {
        let has_started = !format!("{self:?}").contains("pending");
        if has_started {
            assert!(!self.cancel());
        }
        !has_started
    }
}

#[test]
fn one_that_is_killed_before_its_time_ends_with_the_payload_and_its_links_run() {
    guarded(|| {
        let linked = Rc::new(Cell::new(false));
        let green = spawn_after(HOUR, || ());
        let is_linked = Rc::clone(&linked);
        green.link(move |_| is_linked.set(true));
        green.kill_with(Box::new(9));
        assert!(linked.get());
        assert_eq!(*green.join().unwrap_err().downcast::<i32>().unwrap(), 9);
    });
}

// GT-11
#[test]
fn a_local_one_does_not_run_if_its_spawner_has_ended() {
    guarded(|| {
        let spawner = spawn(|| Rc::new(spawn_after_local(MS, || 1)));
        let local = spawner.wait();
        assert!(was_killed(&local));
    });
}

// GT-11
#[test]
fn a_local_one_runs_while_its_spawner_lives_and_others_run_anyway() {
    guarded(|| {
        let spawner = spawn(|| {
            let local = spawn_after_local(MS, || 1);
            local.wait()
        });
        assert_eq!(spawner.wait(), 1);
        assert_eq!(spawn_after_local(MS, || 2).wait(), 2);
        let outlives = spawn(|| Rc::new(spawn_after(MS, || 3))).wait();
        assert_eq!(outlives.wait(), 3);
    });
}

#[test]
fn a_handle_that_is_dropped_lets_it_start_all_the_same() {
    guarded(|| {
        let ran = Rc::new(Cell::new(false));
        let runs = Rc::clone(&ran);
        drop(spawn_after(MS, move || runs.set(true)));
        sleep(3 * MS);
        assert!(ran.get());
    });
}

#[test]
fn a_panic_of_one_is_raised_in_who_waits() {
    guarded(|| {
        let green = spawn_after(MS, || -> i32 { panic!("late") });
        let payload = green.join().unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"late"));
    });
}

/// Runs `body` in a process of its own, on a thread whose stack is large, as those of green threads are,
/// and that of the loop small.
fn with_a_small_loop(test: &str, body: impl FnOnce() + Send + 'static) {
    if child::is_child() {
        let run = || {
            set_default_stack_bytes(64 * 1024);
            sleep(NOW);
            set_default_stack_bytes(16 << 20);
            body();
            println!("to the end");
        };
        let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(run);
        thread.unwrap().join().unwrap();
        return;
    }
    alone(|| {
        let output = child::run(test);
        let text = child::text_of(&output);
        assert!(output.status.success() && text.contains("to the end"), "{text}");
    });
}

const LARGE: usize = 200_000;

#[test]
fn a_large_function_or_result_does_not_lie_on_the_loops_stack() {
    with_a_small_loop("a_large_function_or_result_does_not_lie_on_the_loops_stack", || {
        let large = [7_u8; LARGE];
        let sum = move || large.iter().map(|&byte| usize::from(byte)).sum::<usize>();
        assert_eq!(spawn_after(NOW, || [1_u8; LARGE]).wait().len(), LARGE);
        assert_eq!(spawn_after(NOW, sum).wait(), 7 * LARGE);
        assert_eq!(spawn_after(NOW, move || large).wait(), large);
        let handle = hub::handle();
        assert_eq!(handle.spawn(|| [1_u8; LARGE]).unwrap().join().unwrap().len(), LARGE);
        assert_eq!(handle.spawn(sum).unwrap().join().unwrap(), 7 * LARGE);
        assert_eq!(handle.spawn(move || large).unwrap().join().unwrap(), large);
    });
}

#[test]
fn a_large_one_that_does_not_start_ends_without_the_loops_stack() {
    with_a_small_loop("a_large_one_that_does_not_start_ends_without_the_loops_stack", || {
        let large = [7_u8; LARGE];
        // Who put it off has ended.
        let orphan = spawn(move || spawn_after_local(MS, move || large));
        let orphan = orphan.join().unwrap();
        let told = Rc::new(Cell::new(false));
        orphan.link({
            let told = Rc::clone(&told);
            move |_| told.set(true)
        });
        assert!(orphan.join().unwrap_err().is::<GreenletExit>() && told.get());
        // There is no stack.
        set_default_stack_bytes(usize::MAX / 4);
        let late = spawn_after(NOW, move || large);
        let job = hub::handle().spawn(move || large).unwrap();
        sleep(MS);
        for payload in [late.join().unwrap_err(), job.join().unwrap_err()] {
            assert!(payload.downcast::<String>().unwrap().starts_with("no green thread"));
        }
    });
}

#[test]
fn a_large_scheduled_call_is_called_where_it_lies() {
    with_a_small_loop("a_large_scheduled_call_is_called_where_it_lies", || {
        let called = Rc::new(Cell::new(0));
        for cancelled in [false, true] {
            let (large, called) = ([7_u8; 1 << 20], Rc::clone(&called));
            let call = move || called.set(called.get() + large.len());
            let timer = hub::schedule_call_global(NOW, call);
            if cancelled {
                timer.cancel();
            }
        }
        sleep(MS);
        assert_eq!(called.get(), 1 << 20);
    });
}

#[test]
fn the_place_of_one_that_starts_later_is_that_of_the_call() {
    guarded(|| {
        let place = || stolon::greenlet::current::<()>().made_at().map(|place| place.line());
        let line = line!() + 1;
        let late = spawn_after(NOW, place);
        assert_eq!(late.wait(), Some(line));
        drop(late);
        // A control block is used again.
        drop(Greenlet::new(|()| ()));
        let line = line!() + 1;
        let late = spawn_after_local(NOW, place);
        assert_eq!(late.wait(), Some(line));
        let handle = hub::handle();
        let line = line!() + 1;
        let job = handle.spawn(place).unwrap();
        assert_eq!(job.join().unwrap(), Some(line));
    });
}
