//! may, with one worker.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use may::coroutine::{JoinHandle, park as park_current, yield_now};
use may::go;

use super::Made;
use crate::bodies::Frame;
use crate::crowd::Crowd;
use crate::figure::{Figure, Ours};
use crate::measure::{Batch, Contender, time};
use crate::timer::{NAP, all_as_median, overshoot};

/// Each of its stacks takes two mappings, of 65,530 that a process may have.
const MOST: usize = 10_000;

/// Starts its worker, which is not bound to a core, and so not to that of the thread that this one
/// may be bound to later.
pub fn start() {
    may::config().set_workers(1);
    may::config().set_worker_pin(false);
    let _ = go!(|| ()).join();
}

pub fn contender(figure: Figure) -> Made {
    let per_iteration = figure.per_iteration(Ours::GreenThread);
    let batch: Batch = match figure {
        Figure::Ring { count, .. } | Figure::Yield(count) if count > MOST => {
            return Err(format!("not tried beyond {MOST}: two mappings for each stack"));
        }
        Figure::Ring { shuffled: true, .. } => {
            return Err(String::from("its scheduler runs them in the order they are made in"));
        }
        Figure::Ring { count, .. } => Box::new(move |rounds| turns::<true>(rounds, count)),
        Figure::Yield(count) => Box::new(move |rounds| turns::<false>(rounds, count)),
        Figure::SpawnJoin(count) => Box::new(move |iterations| spawn_join(iterations, count)),
        Figure::Overshoot => Box::new(|iterations| {
            let naps = go!(move || {
                let nap = || may::coroutine::sleep(NAP);
                all_as_median((0..iterations).map(|_| overshoot(nap)).collect())
            });
            naps.join().map_err(|_| String::from("it panicked"))
        }),
        _ => return Err(String::from("has no direct switch: see yield")),
    };
    Ok(Contender::new(per_iteration, batch))
}

fn spawn_join(iterations: u64, count: usize) -> Result<Duration, String> {
    let all = go!(move || {
        let mut coroutines: Vec<JoinHandle<()>> = Vec::with_capacity(count);
        time(|| {
            for _ in 0..iterations {
                coroutines.extend((0..count).map(|_| go!(|| ())));
                for coroutine in coroutines.drain(..) {
                    let _ = coroutine.join();
                }
            }
        })
    });
    all.join().map_err(|_| String::from("it panicked"))
}

/// They are made for each batch, so that the worker rests while others are measured; and by one
/// that ends before they run, as the worker looks for new ones only when no other is runnable.
fn turns<const FRAME: bool>(rounds: u64, count: usize) -> Result<Duration, String> {
    let panicked = |_| String::from("it panicked");
    let starter = go!(move || {
        let crowd = Crowd::new(count);
        let members: Vec<_> = (1..count).map(|_| member::<FRAME>(Arc::clone(&crowd))).collect();
        let leader = go!(move || {
            yield_now();
            let lap = crowd.begin();
            for _ in 0..rounds {
                yield_now();
            }
            let took = crowd.end(&lap, rounds);
            crowd.stop();
            took
        });
        (leader, members)
    });
    let (leader, members) = starter.join().map_err(panicked)?;
    let took = leader.join().map_err(panicked)?;
    for member in members {
        member.join().map_err(panicked)?;
    }
    took
}

fn member<const FRAME: bool>(crowd: Arc<Crowd>) -> JoinHandle<()> {
    go!(move || {
        let mut frame = Frame::new();
        while crowd.goes_on::<FRAME>(&mut frame) {
            yield_now();
        }
    })
}

/// Echoes for ever.
pub fn serve(listener: TcpListener) -> io::Result<()> {
    start();
    // SAFETY: the descriptor is the listener's, which gives it away.
    let listener = unsafe { may::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
    let accepts = go!(move || -> io::Result<()> {
        loop {
            let (mut connection, _) = listener.accept()?;
            connection.set_nodelay(true)?;
            go!(move || {
                let mut buffer = [0; 1024];
                while let Ok(bytes @ 1..) = connection.read(&mut buffer) {
                    if connection.write_all(&buffer[..bytes]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    accepts.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
}

/// Coroutines that are parked.
pub fn park(count: usize) -> Result<(), String> {
    start();
    let parked = Arc::new(AtomicUsize::new(0));
    for _ in 0..count {
        let parked = Arc::clone(&parked);
        go!(move || {
            parked.fetch_add(1, Ordering::Relaxed);
            park_current();
        });
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while parked.load(Ordering::Relaxed) < count {
        if Instant::now() > deadline {
            return Err(format!("only {} of {count} ran", parked.load(Ordering::Relaxed)));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
