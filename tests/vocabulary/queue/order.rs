//! Sizes, and who gets what when: QU-01 to QU-15.

use std::cell::{Cell, RefCell};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Instant;

use stolon::queue::{Empty, Full, LifoQueue, PriorityQueue, Queue, TooManyDone};
use stolon::{sleep, spawn};

use super::{MS, NOW, all_of, spawn_get, spawn_put};
use crate::util::leak::guarded;

// QU-01
#[test]
fn what_is_too_much_is_put_when_there_is_room_in_order() {
    guarded(|| {
        let (queue, log) = (Queue::new(2), Rc::new(RefCell::new(Vec::new())));
        let putter = spawn({
            let (queue, log) = (queue.clone(), Rc::clone(&log));
            move || {
                for item in ["a", "b", "c"] {
                    queue.put(item);
                    log.borrow_mut().push(item);
                }
            }
        });
        sleep(NOW);
        assert_eq!((queue.qsize(), queue.full(), queue.putting()), (2, true, 1));
        assert_eq!(*log.borrow(), ["a", "b"]);
        assert_eq!(queue.get(), "a");
        sleep(NOW);
        assert_eq!(*log.borrow(), ["a", "b", "c"]);
        assert_eq!((queue.get(), queue.get()), ("b", "c"));
        assert!(queue.empty() && !queue.full());
        putter.wait();
    });
}

// QU-03
#[test]
fn a_queue_of_size_zero_hands_over_and_is_empty_and_full_throughout() {
    guarded(|| {
        let (queue, log) = (Queue::new(0), Rc::new(RefCell::new(Vec::new())));
        let is_both = |queue: &Queue<_>| queue.empty() && queue.full() && queue.qsize() == 0;
        assert!(is_both(&queue));
        let putter = spawn({
            let (queue, log) = (queue.clone(), Rc::clone(&log));
            move || {
                queue.put(1);
                log.borrow_mut().push("put");
            }
        });
        sleep(NOW);
        assert!(is_both(&queue) && queue.putting() == 1 && log.borrow().is_empty());
        assert_eq!(queue.get(), 1);
        log.borrow_mut().push("got");
        assert!(is_both(&queue));
        putter.wait();
        // Corner 19: the putter resumes after the getter.
        assert_eq!(*log.borrow(), ["got", "put"]);
        // And so it does when the getter came first.
        let getter = spawn({
            let (queue, log) = (queue.clone(), Rc::clone(&log));
            move || {
                queue.get();
                log.borrow_mut().push("got second");
            }
        });
        sleep(NOW);
        queue.put(2);
        assert_eq!(*log.borrow(), ["got", "put", "got second"]);
        getter.wait();
    });
}

// QU-05
#[test]
fn a_getter_that_has_timed_out_loses_nothing() {
    guarded(|| {
        let queue = Queue::new(None);
        let start = Instant::now();
        assert_eq!(queue.get_timeout(5 * MS), Err(Empty));
        assert!(start.elapsed() >= 5 * MS && queue.getting() == 0);
        queue.put(1);
        assert_eq!(queue.get(), 1);
    });
}

// QU-06
#[test]
fn good_getters_get_all_in_order_among_doomed_ones() {
    guarded(|| {
        let (queue, log) = (Queue::new(0), Rc::new(RefCell::new(Vec::new())));
        let mut doomed = Vec::new();
        for _ in 0..10 {
            let [_, bad] = [(), ()].map(|()| {
                let (queue, log) = (queue.clone(), Rc::clone(&log));
                spawn(move || {
                    let item = queue.get();
                    log.borrow_mut().push(item);
                })
            });
            doomed.push(bad);
        }
        sleep(NOW);
        for item in 0..10 {
            if item % 2 == 0 {
                for bad in doomed.drain(..2) {
                    bad.kill();
                }
            }
            queue.put(item);
        }
        assert_eq!(*log.borrow(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(queue.getting(), 0);
    });
}

// QU-07
#[test]
fn getters_are_served_in_the_order_in_which_they_came() {
    guarded(|| {
        for size in [None, Some(4), Some(1), Some(0)] {
            let queue = Queue::new(size);
            let getters: Vec<_> = (0..4).map(|_| spawn_get(&queue)).collect();
            sleep(NOW);
            for item in 0..4 {
                queue.put(item);
            }
            assert_eq!(all_of(getters), [0, 1, 2, 3]);
            let putters: Vec<_> = (0..4).map(|item| spawn_put(&queue, item)).collect();
            sleep(NOW);
            assert_eq!([(); 4].map(|()| queue.get()), [0, 1, 2, 3]);
            all_of(putters);
        }
    });
}

// QU-08
#[test]
fn a_put_whose_time_is_over_hands_its_item_back() {
    guarded(|| {
        let queue = Queue::new(0);
        let item = String::from("item");
        let start = Instant::now();
        assert_eq!(queue.put_timeout(item, 5 * MS), Err(Full(String::from("item"))));
        assert!(start.elapsed() >= 5 * MS);
        assert_eq!((queue.get_nowait(), queue.putting()), (Err(Empty), 0));
        let full = Queue::new(1);
        full.put(1);
        assert_eq!(full.put_timeout(2, NOW), Err(Full(2)));
        assert_eq!((full.get(), full.get_nowait()), (1, Err(Empty)));
    });
}

// QU-09
#[test]
fn resizing_lets_putters_in_and_keeps_what_is_too_much() {
    guarded(|| {
        for to in [Some(1), None] {
            let queue = Queue::new(0);
            let putter = spawn_put(&queue, 1);
            sleep(NOW);
            assert!(!putter.is_dead());
            queue.resize(to);
            assert_eq!((queue.qsize(), queue.maxsize()), (1, to));
            putter.wait();
            assert_eq!(queue.get(), 1);
        }
        let queue = Queue::new(5);
        (0..5).for_each(|item| queue.put(item));
        queue.resize(1);
        assert_eq!((queue.qsize(), queue.full()), (5, true));
        let putter = spawn_put(&queue, 5);
        for item in 0..4 {
            assert_eq!(queue.get(), item);
            sleep(NOW);
            assert!(!putter.is_dead());
        }
        assert_eq!((queue.get(), queue.get()), (4, 5));
        putter.wait();
    });
}

// QU-11
#[test]
fn what_a_getter_raises_afterwards_is_not_the_putters_business() {
    guarded(|| {
        let queue = Queue::<u32>::new(0);
        let getter = spawn({
            let queue = queue.clone();
            move || resume_unwind(Box::new(queue.get()))
        });
        sleep(NOW);
        queue.put(3);
        assert_eq!(getter.join().unwrap_err().downcast_ref(), Some(&3_u32));
    });
}

// QU-12
#[test]
fn join_returns_when_all_tasks_are_done_and_one_too_many_is_an_error() {
    guarded(|| {
        let queue = Queue::new(None);
        queue.join();
        assert_eq!(queue.task_done(), Err(TooManyDone));
        let joined = Rc::new(Cell::new(false));
        for item in 0..3 {
            queue.put(item);
        }
        let joiner = spawn({
            let (queue, joined) = (queue.clone(), Rc::clone(&joined));
            move || {
                queue.join();
                joined.set(true);
            }
        });
        assert!(!queue.join_timeout(MS));
        for left in (0..3).rev() {
            assert!(!joined.get());
            queue.get();
            queue.task_done().unwrap();
            assert_eq!(queue.unfinished_tasks(), left);
            sleep(NOW);
        }
        assert!(joined.get() && queue.join_timeout(NOW));
        assert_eq!(queue.task_done(), Err(TooManyDone));
        joiner.wait();
        // At hand-over.
        let channel = Queue::new(0);
        let putter = spawn_put(&channel, 1);
        sleep(NOW);
        assert_eq!(channel.unfinished_tasks(), 0);
        channel.get();
        assert_eq!((channel.unfinished_tasks(), channel.put_timeout(2, NOW)), (1, Err(Full(2))));
        assert_eq!(channel.unfinished_tasks(), 1);
        putter.wait();
    });
}

#[test]
fn one_who_joins_after_another_was_told_waits_for_the_next_time() {
    guarded(|| {
        let queue = Queue::new(None);
        let join = || {
            let queue = queue.clone();
            spawn(move || queue.join())
        };
        queue.put(1);
        let (early, killed) = (join(), join());
        sleep(NOW);
        killed.kill();
        queue.task_done().unwrap();
        queue.put(2);
        let late = join();
        sleep(NOW);
        assert!(early.is_dead() && !late.is_dead());
        queue.task_done().unwrap();
        late.wait();
    });
}

// QU-13
#[test]
fn a_get_nowait_before_a_getter_runs_takes_its_item_and_not_its_place() {
    guarded(|| {
        let queue = Queue::new(None);
        let getters = [spawn_get(&queue), spawn_get(&queue)];
        sleep(NOW);
        queue.put(1);
        assert_eq!(queue.get_nowait(), Ok(1));
        assert_eq!(queue.get_nowait(), Err(Empty));
        sleep(NOW);
        assert_eq!(queue.getting(), 2);
        queue.put(2);
        queue.put(3);
        assert_eq!(getters.map(|getter| getter.wait()), [2, 3]);
    });
}

// QU-14, and its mirror image.
#[test]
fn what_does_not_wait_meets_who_waits_on_a_queue_of_size_zero() {
    guarded(|| {
        let queue = Queue::new(0);
        assert_eq!((queue.put_nowait(0), queue.get_nowait()), (Err(Full(0)), Err(Empty)));
        let putter = spawn_put(&queue, 1);
        sleep(NOW);
        assert_eq!((queue.get_nowait(), queue.get_nowait()), (Ok(1), Err(Empty)));
        putter.wait();
        let getter = spawn_get(&queue);
        sleep(NOW);
        assert_eq!((queue.put_nowait(2), queue.put_nowait(3)), (Ok(()), Err(Full(3))));
        assert!(queue.empty() && queue.full());
        assert_eq!(getter.wait(), 2);
    });
}

// QU-15
#[test]
fn priority_queues_give_the_least_first_and_lifo_queues_the_last() {
    #[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Task(u32, &'static str);

    guarded(|| {
        let queue = PriorityQueue::new(None);
        [3, 1, 2].into_iter().for_each(|item| queue.put(item));
        assert_eq!([(); 3].map(|()| queue.get()), [1, 2, 3]);
        let queue = LifoQueue::new(None);
        [1, 2, 3].into_iter().for_each(|item| queue.put(item));
        assert_eq!([(); 3].map(|()| queue.get()), [3, 2, 1]);
        let queue = PriorityQueue::new(1);
        queue.put(Task(5, "b"));
        assert_eq!(queue.put_nowait(Task(1, "a")), Err(Full(Task(1, "a"))));
        assert_eq!(queue.get(), Task(5, "b"));
    });
}

#[test]
fn equals_come_out_of_a_priority_queue_in_the_order_in_which_they_were_put() {
    #[derive(Clone, Copy)]
    struct Equal(u32);

    impl PartialEq for Equal {
        fn eq(&self, _: &Self) -> bool {
            true
        }
    }

    impl Eq for Equal {}

    impl PartialOrd for Equal {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }

    impl Ord for Equal {
        fn cmp(&self, _: &Self) -> std::cmp::Ordering {
            std::cmp::Ordering::Equal
        }
    }

    guarded(|| {
        let queue = PriorityQueue::new(None);
        (0..20).for_each(|number| queue.put(Equal(number)));
        (0..20).for_each(|number| assert_eq!(queue.get().0, number));
    });
}
