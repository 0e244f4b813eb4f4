//! tokio's `Sleep` and tokio-util's `DelayQueue`, beside many that stay pending.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Waker};

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::time::DelayQueue;

use super::Made;
use super::timers::{laps, per_lap};
use crate::figure::{Figure, Ours};
use crate::measure::{Batch, Contender, time};
use crate::timer::{IN_FLIGHT, NAP, STEP, all_as_median, far, overshoot, processor_time, timeout};

fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_time().build().map_err(|e| e.to_string())
}

/// A sleep that is pending, in its place, as it is polled once.
fn set(place: &mut Pin<Box<Option<Sleep>>>, deadline: Instant) {
    place.set(Some(sleep_until(deadline)));
    let sleep = place.as_mut().as_pin_mut().expect("just set");
    assert!(sleep.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// Needs a runtime.
fn pending(count: usize) -> Vec<Pin<Box<Option<Sleep>>>> {
    let now = Instant::now();
    let set_one = |after| {
        let mut place = Box::pin(None);
        set(&mut place, now + after);
        place
    };
    far().take(count).map(set_one).collect()
}

pub fn contender(figure: Figure) -> Made {
    let batch = match figure {
        Figure::TimerCancel { count, early } => insert_cancel(count, early)?,
        Figure::TimerFire(count) => insert_fire(count)?,
        Figure::Overshoot => overshoots()?,
        _ => return Err(String::from("timers only")),
    };
    Ok(Contender::new(figure.per_iteration(Ours::Timers), batch))
}

fn insert_cancel(count: usize, early: bool) -> Result<Batch, String> {
    let runtime = runtime()?;
    let (stay, mut in_flight, mut next) = {
        let _entered = runtime.enter();
        (pending(count), pending(IN_FLIGHT), 0)
    };
    let mut deadline = Instant::now() + timeout(early);
    Ok(Box::new(move |iterations| {
        let _entered = runtime.enter();
        let _stay = &stay;
        Ok(time(|| {
            for _ in 0..iterations {
                in_flight[next].set(None);
                deadline += STEP;
                set(&mut in_flight[next], deadline);
                next = (next + 1) % IN_FLIGHT;
            }
        }))
    }))
}

/// Tasks that nap, again and again; by processor time.
fn insert_fire(count: usize) -> Result<Batch, String> {
    let runtime = runtime()?;
    let stay = {
        let _entered = runtime.enter();
        pending(count)
    };
    Ok(Box::new(move |iterations| {
        let _stay = &stay;
        let took = runtime.block_on(async {
            let start = processor_time();
            let nap = move || async move {
                for _ in 0..laps(iterations) {
                    sleep(NAP).await;
                }
            };
            let tasks: Vec<_> = (0..IN_FLIGHT).map(|_| tokio::spawn(nap())).collect();
            for task in tasks {
                let _ = task.await;
            }
            processor_time() - start
        });
        Ok(per_lap(took, iterations))
    }))
}

fn overshoots() -> Result<Batch, String> {
    let runtime = runtime()?;
    Ok(Box::new(move |iterations| {
        let nap = || runtime.block_on(async { sleep(NAP).await });
        Ok(all_as_median((0..iterations).map(|_| overshoot(nap)).collect()))
    }))
}

/// Sets so many, and leaves them so.
pub fn park(count: usize) -> Result<(), String> {
    let runtime = runtime()?;
    let _entered = runtime.enter();
    // In one piece, as they would be in the futures of tasks.
    let mut places: Vec<Option<Sleep>> = Vec::with_capacity(count);
    places.resize_with(count, || None);
    let mut places = Box::into_pin(places.into_boxed_slice());
    for (index, after) in far().take(count).enumerate() {
        // SAFETY: the slice is never moved, nor freed: it is leaked below.
        let mut place = unsafe { places.as_mut().map_unchecked_mut(|places| &mut places[index]) };
        place.set(Some(sleep(after)));
        let sleep = place.as_pin_mut().expect("just set");
        assert!(sleep.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    std::mem::forget(places);
    std::mem::forget(runtime);
    Ok(())
}

/// The queue's contender.
pub fn queue_contender(figure: Figure) -> Made {
    let batch = match figure {
        Figure::TimerCancel { count, early } => queue_cancel(count, early)?,
        Figure::TimerFire(count) => queue_fire(count)?,
        _ => return Err(String::from("timers only")),
    };
    Ok(Contender::new(figure.per_iteration(Ours::Timers), batch))
}

fn queued(count: usize) -> DelayQueue<(u32, u32)> {
    let mut queue = DelayQueue::new();
    for after in far().take(count) {
        queue.insert((1, 2), after);
    }
    queue
}

fn queue_cancel(count: usize, early: bool) -> Result<Batch, String> {
    let runtime = runtime()?;
    let entered = runtime.enter();
    let mut queue = queued(count);
    let mut keys: Vec<_> = (0..IN_FLIGHT).map(|_| queue.insert((1, 2), timeout(early))).collect();
    drop(entered);
    let (mut next, mut deadline) = (0, Instant::now() + timeout(early));
    Ok(Box::new(move |iterations| {
        let _entered = runtime.enter();
        Ok(time(|| {
            for _ in 0..iterations {
                black_box(queue.remove(&keys[next]));
                deadline += STEP;
                keys[next] = queue.insert_at((1, 2), deadline);
                next = (next + 1) % IN_FLIGHT;
            }
        }))
    }))
}

/// What falls due is set again; by processor time.
fn queue_fire(count: usize) -> Result<Batch, String> {
    let runtime = runtime()?;
    let entered = runtime.enter();
    let mut queue = queued(count);
    drop(entered);
    Ok(Box::new(move |iterations| {
        let took = runtime.block_on(async {
            let start = processor_time();
            for _ in 0..IN_FLIGHT {
                queue.insert((1, 2), NAP);
            }
            let mut left = laps(iterations) as usize * IN_FLIGHT;
            while left > 0 {
                let due = poll_fn(|context| queue.poll_expired(context)).await;
                let due = due.expect("some stay").into_inner();
                left -= 1;
                if left >= IN_FLIGHT {
                    queue.insert(due, NAP);
                }
            }
            processor_time() - start
        });
        Ok(per_lap(took, iterations))
    }))
}

/// Sets so many, and leaves them so.
pub fn queue_park(count: usize) -> Result<(), String> {
    let runtime = runtime()?;
    let _entered = runtime.enter();
    std::mem::forget(queued(count));
    std::mem::forget(runtime);
    Ok(())
}
