//! What queues take from the heap: nothing while they hold one item at most.

use stolon::queue::Queue;
use stolon::spawn;

use crate::allocations;
use crate::util::leak::guarded;

#[test]
fn an_item_that_is_alone_in_a_queue_takes_nothing() {
    guarded(|| {
        let queue = Queue::new(None);
        let taken = allocations(|| {
            for item in 0..100 {
                queue.put(item);
                assert_eq!(queue.get(), item);
            }
        });
        assert_eq!(taken, 0);
    });
}

#[test]
fn items_from_one_green_thread_to_another_take_nothing_but_the_queue() {
    guarded(|| {
        for maxsize in [0, 1] {
            let run = || {
                let queue = Queue::new(maxsize);
                let putter = queue.clone();
                let getter = spawn(move || (0..100).map(|_| queue.get()).sum::<u32>());
                let putter = spawn(move || (0..100).for_each(|item| putter.put(item)));
                assert_eq!(getter.wait(), 4950);
                putter.wait();
            };
            run();
            assert_eq!(allocations(run), 1);
        }
    });
}
