//! Queues: who gets which item, and that none is lost. The numbers are those of
//! docs/semantics-eventlet.md.

mod ends;
mod order;

use std::time::Duration;

use stolon::queue::Queue;
use stolon::{GreenThread, sleep, spawn};

use crate::util::leak::guarded;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn spawn_get(queue: &Queue<u32>) -> GreenThread<u32> {
    let queue = queue.clone();
    spawn(move || queue.get())
}

fn spawn_put(queue: &Queue<u32>, item: u32) -> GreenThread<()> {
    let queue = queue.clone();
    spawn(move || queue.put(item))
}

fn all_of<R: Clone>(green: Vec<GreenThread<R>>) -> Vec<R> {
    green.iter().map(GreenThread::wait).collect()
}

#[test]
fn a_thousand_getters_and_items_in_any_order_lose_nothing() {
    guarded(|| {
        let queue = Queue::new(3);
        let getters: Vec<_> = (0..1_000).map(|_| spawn_get(&queue)).collect();
        sleep(NOW);
        let putters: Vec<_> = (0..900).map(|item| spawn_put(&queue, item)).collect();
        for getter in getters.iter().rev().step_by(10) {
            getter.kill();
        }
        all_of(putters);
        // Some had their items before they could be killed.
        let missing = queue.getting() as u32;
        (900..900 + missing).for_each(|item| queue.put(item));
        let got: Vec<_> = getters.into_iter().filter_map(|getter| getter.join().ok()).collect();
        assert!(missing < 100 && got.into_iter().eq(0..900 + missing));
    });
}
