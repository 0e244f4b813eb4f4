//! `queue.handover`, `queue.rendezvous` and `semaphore.uncontended`: ours, and tokio's.

use std::time::Duration;

use stolon::queue::Queue;
use stolon::semaphore::Semaphore;
use tokio::runtime::Runtime;
use tokio::sync;

use crate::figure::Figure;
use crate::measure::{Batch, time};

/// stolon's side, if it is one of these figures.
pub fn ours(figure: Figure) -> Option<Batch> {
    match figure {
        Figure::HandOver => Some(Box::new(|iterations| Ok(hand_over(iterations, 1)))),
        Figure::Rendezvous => Some(Box::new(|iterations| Ok(hand_over(iterations, 0)))),
        Figure::Semaphore => Some(Box::new(|iterations| Ok(acquire(iterations)))),
        _ => None,
    }
}

/// tokio's side. Its semaphore is acquired by a guard, as ours; its smallest channel holds one item, so
/// that a rendezvous takes a second one.
pub fn tokios(figure: Figure, runtime: Runtime) -> Result<Batch, Runtime> {
    match figure {
        Figure::HandOver => Ok(Box::new(move |iterations| {
            let all = async move { tokio::spawn(tokio_hand_over(iterations)).await };
            runtime.block_on(all).map_err(|e| e.to_string())
        })),
        Figure::Rendezvous => Ok(Box::new(move |iterations| {
            let all = async move { tokio::spawn(tokio_rendezvous(iterations)).await };
            runtime.block_on(all).map_err(|e| e.to_string())
        })),
        Figure::Semaphore => Ok(Box::new(move |iterations| {
            let all = async move { tokio::spawn(tokio_acquire(iterations)).await };
            runtime.block_on(all).map_err(|e| e.to_string())
        })),
        _ => Err(runtime),
    }
}

/// With a queue of size 1, one item is in it while the putter waits to put the next; with one of size 0,
/// each item goes from the putter's hands into the getter's, and both wait for each.
fn hand_over(iterations: u64, maxsize: usize) -> Duration {
    let queue = Queue::new(maxsize);
    let putter = queue.clone();
    let getter = stolon::spawn(move || {
        time(|| {
            let sum: u64 = (0..iterations).map(|_| queue.get()).sum();
            assert_eq!(sum, iterations * iterations.saturating_sub(1) / 2);
        })
    });
    let putter = stolon::spawn(move || (0..iterations).for_each(|item| putter.put(item)));
    let took = getter.wait();
    putter.wait();
    took
}

/// A channel that holds one item.
async fn tokio_hand_over(iterations: u64) -> Duration {
    let (sender, mut receiver) = sync::mpsc::channel(1);
    let getter = tokio::spawn(async move {
        let start = std::time::Instant::now();
        let mut sum = 0;
        for _ in 0..iterations {
            sum += receiver.recv().await.expect("the sender sends as many");
        }
        assert_eq!(sum, iterations * iterations.saturating_sub(1) / 2);
        start.elapsed()
    });
    let putter = tokio::spawn(async move {
        for item in 0..iterations {
            sender.send(item).await.expect("the receiver takes as many");
        }
    });
    let took = getter.await.expect("it does not panic");
    putter.await.expect("it does not panic");
    took
}

/// The sender waits until it is told that its item was received.
async fn tokio_rendezvous(iterations: u64) -> Duration {
    let (sender, mut receiver) = sync::mpsc::channel(1);
    let (teller, mut told) = sync::mpsc::channel(1);
    let getter = tokio::spawn(async move {
        let start = std::time::Instant::now();
        let mut sum = 0;
        for _ in 0..iterations {
            sum += receiver.recv().await.expect("the sender sends as many");
            teller.send(()).await.expect("the sender listens");
        }
        assert_eq!(sum, iterations * iterations.saturating_sub(1) / 2);
        start.elapsed()
    });
    let putter = tokio::spawn(async move {
        for item in 0..iterations {
            sender.send(item).await.expect("the receiver takes as many");
            told.recv().await.expect("the receiver tells");
        }
    });
    let took = getter.await.expect("it does not panic");
    putter.await.expect("it does not panic");
    took
}

fn acquire(iterations: u64) -> Duration {
    let semaphore = std::hint::black_box(Semaphore::new(1));
    let all = move || {
        time(|| {
            for _ in 0..iterations {
                drop(std::hint::black_box(semaphore.access()));
            }
        })
    };
    stolon::spawn(all).wait()
}

async fn tokio_acquire(iterations: u64) -> Duration {
    let semaphore = std::hint::black_box(sync::Semaphore::new(1));
    let start = std::time::Instant::now();
    for _ in 0..iterations {
        drop(std::hint::black_box(semaphore.acquire().await.expect("it is open")));
    }
    start.elapsed()
}
