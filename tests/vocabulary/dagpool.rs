//! Green threads that depend on each other: what they get and when, and how failures spread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error;
use std::panic::panic_any;
use std::rc::Rc;
use std::time::Duration;

use crate::util::leak::guarded;
use stolon::dagpool::{DAGPool, Failure, PropagateError, Reason, SpawnError, Values};
use stolon::{sleep, spawn, spawn_n};

const NOW: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3600);

type Dag = DAGPool<&'static str, i32>;
type Log = Rc<RefCell<Vec<String>>>;

fn sum(values: Values<&'static str, i32>) -> Result<i32, Failure> {
    let mut sum = 0;
    for value in values {
        sum += value?.1;
    }
    Ok(sum)
}

fn empty() -> Dag {
    DAGPool::new([])
}

fn sorted(mut keys: Vec<&'static str>) -> Vec<&'static str> {
    keys.sort_unstable();
    keys
}

// DG-01
#[test]
fn a_diamond_is_worked_off_in_the_order_of_what_depends_on_what() {
    guarded(|| {
        let (pool, log) = (empty(), Log::default());
        let depends = [
            ("e", vec!["d"]),
            ("d", vec!["b", "c"]),
            ("b", vec!["a"]),
            ("c", vec!["a"]),
            ("a", vec![]),
        ];
        let notes = Rc::clone(&log);
        let made = pool.spawn_many(depends, move |key, values| {
            let value = sum(values)?;
            notes.borrow_mut().push(key.to_owned());
            Ok::<_, Failure>(value + 1)
        });
        made.unwrap();
        let values = pool.waitall().unwrap();
        log.borrow_mut().push("waitall".to_owned());
        let mut order = log.borrow().clone();
        order[1..3].sort();
        assert_eq!(order.join(" "), "a b c d e waitall");
        let expected = HashMap::from([("a", 1), ("b", 2), ("c", 2), ("d", 5), ("e", 6)]);
        assert_eq!(values, expected);
        assert_eq!((pool.running(), pool.waiting()), (0, 0));
    });
}

// DG-03
#[test]
fn what_is_there_comes_first_and_without_waiting_and_the_rest_as_it_is_posted() {
    guarded(|| {
        let (pool, log) = (DAGPool::new([("a", 1), ("b", 2)]), Log::default());
        let (observer, notes) = (pool.clone(), Rc::clone(&log));
        let observer = spawn(move || {
            for value in observer.wait_each(["d", "b", "c", "a", "b"]) {
                let (key, value) = value.unwrap();
                notes.borrow_mut().push(format!("{key}{value}"));
            }
        });
        sleep(NOW);
        assert_eq!(log.borrow().join(" "), "b2 a1", "each key once");
        for (key, value) in [("c", 3), ("other", 9), ("d", 4)] {
            pool.post(key, value).unwrap();
        }
        observer.wait();
        assert_eq!(log.borrow().join(" "), "b2 a1 c3 d4");
    });
}

// DG-04
#[test]
fn a_key_that_is_known_collides_however_it_came_to_be() {
    guarded(|| {
        let pool = DAGPool::new([("preloaded", 0)]);
        pool.post("posted", 1).unwrap();
        pool.spawn("spawned", ["never"], |_, values| sum(values)).unwrap();
        for key in ["preloaded", "posted", "spawned"] {
            let spawned = pool.spawn(key, [], |_, values| sum(values));
            assert_eq!(spawned, Err(SpawnError::Collision(key)));
            let both = [("fresh", []), (key, [])];
            let spawned = pool.spawn_many(both, |_, values| sum(values));
            assert_eq!(spawned, Err(SpawnError::Collision(key)));
            assert!(pool.get(&"fresh").is_none() && pool.running() == 1, "none of them");
            let collision = pool.post(key, 7).unwrap_err();
            assert_eq!((collision.key, collision.value), (key, 7));
        }
        let twice = pool.spawn_many([("x", []), ("x", [])], |_, values| sum(values));
        assert_eq!(twice, Err(SpawnError::Collision("x")));
        pool.replace("posted", 2).unwrap();
        assert_eq!(pool.wait_for(&"posted").unwrap(), 2);
        assert!(pool.replace("spawned", 2).is_err(), "its task has it");
        pool.kill(&"spawned").unwrap();
    });
}

#[test]
fn a_task_may_post_its_own_value_and_goes_on() {
    guarded(|| {
        let pool = empty();
        let inner = pool.clone();
        let made = pool.spawn("own", [], move |key, _| {
            inner.post(key, 1).unwrap();
            sleep(NOW);
            inner.replace(key, 2).unwrap();
            Ok::<_, Failure>(3)
        });
        made.unwrap();
        assert_eq!(pool.wait_for(&"own").unwrap(), 1);
        assert_eq!(pool.running(), 1);
        sleep(NOW);
        assert_eq!((pool.wait_for(&"own").unwrap(), pool.running()), (2, 0));
    });
}

// DG-05
#[test]
fn a_task_that_is_killed_is_forgotten_and_its_key_can_be_had_again() {
    guarded(|| {
        let (pool, ran) = (empty(), Rc::new(Cell::new(false)));
        let runs = Rc::clone(&ran);
        let made = pool.spawn("a", [], move |_, values| {
            runs.set(true);
            sum(values)
        });
        made.unwrap();
        let waiter = spawn({
            let pool = pool.clone();
            move || pool.wait_for(&"a").unwrap()
        });
        pool.kill(&"a").unwrap();
        sleep(NOW);
        assert!(!ran.get() && pool.get(&"a").is_none() && !waiter.is_dead());
        pool.spawn("a", ["never"], |_, values| sum(values)).unwrap();
        sleep(NOW);
        pool.kill(&"a").unwrap();
        assert_eq!(pool.running(), 0);
        pool.spawn("a", [], |_, _| Ok::<_, Failure>(5)).unwrap();
        assert_eq!(waiter.wait(), 5);
        assert!(pool.kill(&"a").is_err() && pool.kill(&"unknown").is_err());
    });
}

// DG-06
#[test]
fn who_runs_and_who_waits_for_what_is_told_at_each_step() {
    guarded(|| {
        let pool = empty();
        let depends = [
            ("one", vec!["x"]),
            ("two", vec!["x", "y"]),
            ("three", vec!["y", "z"]),
            ("four", vec!["z"]),
            ("five", vec![]),
        ];
        pool.spawn_many(depends, |_, values| sum(values)).unwrap();
        let see = || {
            sleep(NOW);
            let waiting_for = ["one", "two", "three", "four", "five"]
                .map(|key| sorted(pool.waiting_for(&key)).join(""));
            (pool.running_keys().join(" "), pool.running(), pool.waiting(), waiting_for.join(","))
        };
        let expect = |keys: &str, running, waiting, waiting_for: &str| {
            (keys.to_owned(), running, waiting, waiting_for.to_owned())
        };
        assert_eq!(see(), expect("one two three four", 4, 4, "x,xy,yz,z,"));
        pool.post("x", 1).unwrap();
        assert_eq!(see(), expect("two three four", 3, 3, ",y,yz,z,"));
        pool.post("z", 1).unwrap();
        assert_eq!(see(), expect("two three", 2, 2, ",y,y,,"));
        pool.post("y", 1).unwrap();
        assert_eq!(see(), expect("", 0, 0, ",,,,"));
        let keys = ["five", "four", "one", "three", "two", "x", "y", "z"];
        assert_eq!(sorted(pool.keys()), keys);
        assert_eq!(pool.items().unwrap().len(), 8);
    });
}

// DG-07
#[test]
fn a_key_that_failed_raises_where_it_is_asked_for_and_can_be_filtered() {
    guarded(|| {
        let pool = DAGPool::new([("good", 1)]);
        pool.post_failure("bad", "broken").unwrap();
        assert!(pool.post_failure("bad", "again").is_err());
        let of_bad = |error: PropagateError<&str>| {
            assert_eq!(
                (*error.key(), error.to_string().as_str()),
                ("bad", "\"bad\" failed: broken")
            );
        };
        of_bad(pool.get(&"bad").unwrap().unwrap_err());
        of_bad(pool.items().unwrap_err());
        of_bad(pool.wait(["good", "bad"]).unwrap_err());
        of_bad(pool.waitall().unwrap_err());
        of_bad(pool.wait_for(&"bad").unwrap_err());
        let keys = ["bad", "good"];
        assert_eq!(pool.wait_each_success(keys).collect::<Vec<_>>(), [("good", 1)]);
        let failed: Vec<_> = pool.wait_each_exception(keys).map(|(key, _)| key).collect();
        assert_eq!(failed, ["bad"]);
    });
}

#[test]
fn a_failure_goes_on_through_what_depends_on_it_with_its_origin() {
    guarded(|| {
        let pool = empty();
        pool.spawn("a", [], |_, _| Err::<i32, _>("no luck")).unwrap();
        pool.spawn("b", ["a"], |_, values| sum(values)).unwrap();
        pool.spawn("c", ["b"], |_, values| sum(values)).unwrap();
        let tolerant = |_, values: Values<_, _>| Ok::<_, Failure>(values.flatten().count() as i32);
        pool.spawn("tolerant", ["b"], tolerant).unwrap();
        let error = pool.wait_for(&"c").unwrap_err();
        assert_eq!(error.to_string(), r#""c" failed: "b" failed: "a" failed: no luck"#);
        let of_b = error.source().unwrap().downcast_ref::<PropagateError<&str>>().unwrap();
        let of_a = of_b.source().unwrap().downcast_ref::<PropagateError<&str>>().unwrap();
        assert_eq!((*of_b.key(), *of_a.key()), ("b", "a"));
        assert_eq!(pool.wait_for(&"tolerant").unwrap(), 0);
    });
}

#[test]
fn a_failure_may_go_through_more_tasks_than_a_stack_has_room_for() {
    guarded(|| {
        let chain = spawn(|| {
            let pool = DAGPool::<u32, ()>::new([]);
            pool.post_failure(0, "first").unwrap();
            for key in 1..5000 {
                let depend = move |_, mut values: Values<u32, ()>| match values.next() {
                    Some(value) => value.map(|_| ()),
                    None => Ok(()),
                };
                pool.spawn(key, [key - 1], depend).unwrap();
                sleep(NOW);
            }
            let last = pool.wait_for(&4999).unwrap_err();
            drop(pool);
            assert_eq!(*last.key(), 4999);
            drop(last);
        });
        chain.wait();
    });
}

#[test]
fn a_panic_of_a_task_and_a_kill_from_outside_are_failures_too() {
    guarded(|| {
        let pool = empty();
        pool.spawn("panics", [], |_, _| -> Result<i32, Failure> { panic!("at {}", 1) }).unwrap();
        pool.spawn("odd", [], |_, _| -> Result<i32, Failure> { panic_any(1) }).unwrap();
        let slow = |_, _: Values<_, _>| -> Result<i32, Failure> {
            stolon::greenthread::kill(&stolon::greenthread::getcurrent());
            Ok(0)
        };
        pool.spawn("killed", [], slow).unwrap();
        let texts =
            ["panics", "odd", "killed"].map(|key| pool.wait_for(&key).unwrap_err().to_string());
        assert_eq!(
            texts,
            [r#""panics" panicked: at 1"#, r#""odd" panicked"#, r#""killed" was killed"#]
        );
        assert!(matches!(pool.wait_for(&"killed").unwrap_err().reason(), Reason::Killed));
    });
}

#[test]
fn keys_that_would_wait_for_each_other_are_refused_and_the_cycle_is_named() {
    guarded(|| {
        let pool = empty();
        let own = pool.spawn("self", ["self"], |_, values| sum(values)).unwrap_err();
        assert_eq!(own, SpawnError::Cycle(vec!["self", "self"]));
        pool.spawn("a", ["b", "x"], |_, values| sum(values)).unwrap();
        pool.spawn("b", ["c"], |_, values| sum(values)).unwrap();
        let cycle = pool.spawn("c", ["y", "a"], |_, values| sum(values)).unwrap_err();
        assert_eq!(cycle, SpawnError::Cycle(vec!["c", "a", "b", "c"]));
        let text = r#"a cycle of keys that depend on each other: "c" -> "a" -> "b" -> "c""#;
        assert_eq!(cycle.to_string(), text);
        let many = [("d", vec!["e"]), ("e", vec!["f"]), ("f", vec!["d"])];
        assert!(matches!(
            pool.spawn_many(many, |_, values| sum(values)),
            Err(SpawnError::Cycle(_))
        ));
        assert_eq!(pool.running_keys(), ["a", "b"], "nothing of that was spawned");
        // What has its value waits for nobody.
        pool.spawn("c", [], |_, _| Ok::<_, Failure>(1)).unwrap();
        pool.post("x", 1).unwrap();
        assert_eq!(pool.wait_for(&"a").unwrap(), 2);
        pool.spawn("late", ["a", "b", "c"], |_, values| sum(values)).unwrap();
        assert_eq!(pool.wait_for(&"late").unwrap(), 4);
    });
}

#[test]
fn who_is_killed_while_it_waits_keeps_no_other_from_its_value() {
    guarded(|| {
        let pool = empty();
        let waits = || {
            let pool = pool.clone();
            spawn(move || pool.wait_for(&"late").unwrap())
        };
        let [killed, other] = [waits(), waits()];
        sleep(NOW);
        killed.kill();
        pool.post("late", 3).unwrap();
        assert_eq!(other.wait(), 3);
    });
}

#[test]
fn waiting_for_all_waits_for_what_is_spawned_meanwhile() {
    guarded(|| {
        let pool = empty();
        let inner = pool.clone();
        let made = pool.spawn("first", [], move |_, _| {
            let spawned = inner.spawn("second", [], |_, _| {
                sleep(NOW);
                Ok::<_, Failure>(2)
            });
            spawned.unwrap();
            Ok::<_, Failure>(1)
        });
        made.unwrap();
        assert_eq!(pool.waitall().unwrap(), HashMap::from([("first", 1), ("second", 2)]));
        assert_eq!(empty().waitall().unwrap(), HashMap::new());
    });
}

#[test]
fn values_can_be_waited_for_while_unwinding() {
    guarded(|| {
        struct Waits(Dag, Rc<Cell<i32>>);
        impl Drop for Waits {
            fn drop(&mut self) {
                self.1.set(self.0.wait_for(&"late").unwrap());
            }
        }
        let (pool, got) = (empty(), Rc::new(Cell::new(0)));
        let (posts, waits) = (pool.clone(), Waits(pool.clone(), Rc::clone(&got)));
        spawn_n(move || posts.post("late", 8).unwrap());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _waits = waits;
            panic!("unwinds");
        }));
        assert!(panicked.is_err());
        assert_eq!(got.get(), 8);
        pool.spawn("stuck", ["never"], |_, values| {
            sleep(HOUR);
            sum(values)
        })
        .unwrap();
        pool.kill(&"stuck").unwrap();
    });
}
