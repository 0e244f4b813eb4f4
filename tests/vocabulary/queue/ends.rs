//! Corner 20: getters, putters and items that end too soon.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use stolon::queue::{Empty, LightQueue, PriorityQueue, Queue};
use stolon::timeout::with_timeout;
use stolon::{sleep, spawn};

use super::{HOUR, MS, NOW, spawn_get};
use crate::util::leak::guarded;

// Corner 20.
#[test]
fn a_getter_that_dies_between_the_put_and_its_turn_leaves_the_item_to_the_next() {
    guarded(|| {
        for size in [None, Some(1), Some(0)] {
            let queue = Queue::new(size);
            let [doomed, good] = [spawn_get(&queue), spawn_get(&queue)];
            sleep(NOW);
            queue.put_nowait(1).unwrap();
            doomed.kill();
            assert_eq!(good.wait(), 1);
            // And to the queue, if there is no next.
            let doomed = spawn_get(&queue);
            sleep(NOW);
            queue.put_nowait(2).unwrap();
            doomed.kill();
            assert_eq!((queue.qsize(), queue.full()), (1, size.is_some()));
            assert_eq!((queue.get(), queue.empty()), (2, true));
        }
    });
}

#[test]
fn who_waits_in_the_line_cannot_be_overtaken_by_a_get() {
    guarded(|| {
        let queue = Queue::new(None);
        let first = spawn_get(&queue);
        sleep(NOW);
        queue.put(1);
        // It would find an item if it looked.
        let second = {
            let queue = queue.clone();
            spawn(move || queue.get_timeout(HOUR))
        };
        let third = spawn_get(&queue);
        first.wait();
        queue.put(2);
        queue.put(3);
        assert_eq!((second.wait(), third.wait()), (Ok(2), 3));
        let late = spawn_get(&queue);
        sleep(NOW);
        queue.put(4);
        assert_eq!(queue.get_timeout(NOW), Err(Empty));
        assert_eq!(late.wait(), 4);
    });
}

#[test]
fn an_item_of_a_killed_putter_is_not_put_and_dropped_once() {
    guarded(|| {
        let item = Rc::new(());
        let queue = Queue::new(0);
        let putter = spawn({
            let (queue, item) = (queue.clone(), Rc::clone(&item));
            move || queue.put(item)
        });
        sleep(NOW);
        putter.kill();
        assert_eq!((Rc::strong_count(&item), queue.putting()), (1, 0));
        assert!(queue.get_nowait().is_err());
        // Once it was taken it is put, killed or not.
        let putter = spawn({
            let (queue, item) = (queue.clone(), Rc::clone(&item));
            move || queue.put(item)
        });
        sleep(NOW);
        let taken = queue.get();
        putter.kill();
        assert_eq!(Rc::strong_count(&item), 2);
        drop(taken);
    });
}

#[test]
fn an_item_whose_destructor_uses_the_queue_harms_nobody() {
    struct Odd(Queue<Option<Odd>>);

    impl Drop for Odd {
        fn drop(&mut self) {
            let _ = self.0.put_nowait(None);
            sleep(NOW);
        }
    }

    guarded(|| {
        let queue = Queue::new(1);
        queue.put(None);
        let putter = spawn({
            let queue = queue.clone();
            move || queue.put(Some(Odd(queue.clone())))
        });
        sleep(NOW);
        queue.resize(None);
        assert!(queue.get().is_none());
        putter.wait();
        drop(queue.get());
        assert!(queue.get().is_none() && queue.empty());
        // And of one that is given up.
        queue.resize(0);
        let putter = spawn({
            let queue = queue.clone();
            move || queue.put(Some(Odd(queue.clone())))
        });
        sleep(NOW);
        queue.resize(0);
        putter.kill();
        assert_eq!((queue.qsize(), queue.putting(), queue.get_nowait().is_err()), (0, 0, true));
    });
}

#[test]
fn a_timeout_of_another_kind_ends_a_get_and_a_put_the_same_way() {
    guarded(|| {
        let queue = Queue::new(0);
        assert!(with_timeout(MS, || queue.get()).is_err());
        assert!(with_timeout(MS, || queue.put(1)).is_err());
        assert!(with_timeout(MS, || queue.join()).is_ok());
        assert_eq!((queue.getting(), queue.putting(), queue.get_nowait()), (0, 0, Err(Empty)));
    });
}

#[test]
fn queues_are_used_in_destructors_while_they_unwind() {
    struct Sends(LightQueue<u32>);

    impl Drop for Sends {
        fn drop(&mut self) {
            self.0.put(1);
            self.0.put(2);
        }
    }

    guarded(|| {
        let queue = LightQueue::new(1);
        let green = spawn({
            let queue = queue.clone();
            move || {
                let _sends = Sends(queue);
                sleep(HOUR);
            }
        });
        sleep(NOW);
        green.kill();
        assert_eq!((queue.get(), queue.get()), (1, 2));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _sends = Sends(LightQueue::default());
            resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        sleep(NOW);
        assert!(green.is_dead());
    });
}

#[test]
fn an_item_whose_comparison_panics_is_there_and_reaches_who_waits() {
    thread_local!(static PANICS: Cell<bool> = const { Cell::new(false) });

    #[derive(PartialEq, Eq)]
    struct Incomparable(u32);

    impl PartialOrd for Incomparable {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }

    impl Ord for Incomparable {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            assert!(!PANICS.get(), "a comparison");
            self.0.cmp(&other.0)
        }
    }

    guarded(|| {
        let queue = PriorityQueue::<Incomparable>::new(None);
        let getters = [(); 2].map(|()| {
            let queue = queue.clone();
            spawn(move || queue.get().0)
        });
        sleep(NOW);
        queue.put(Incomparable(1));
        PANICS.set(true);
        assert!(catch_unwind(AssertUnwindSafe(|| queue.put(Incomparable(2)))).is_err());
        PANICS.set(false);
        assert_eq!(getters.map(|getter| getter.wait()), [1, 2]);
        assert_eq!((queue.qsize(), queue.unfinished_tasks()), (0, 2));
    });
}
