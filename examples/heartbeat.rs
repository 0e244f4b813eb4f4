//! A heartbeat beside a long task, three times: what starves it, and what does not.
//!
//! ```text
//! cargo run --release --example heartbeat
//! ```
//!
//! prints the longest time between two beats of a heart that beats every 10 ms, while a periodic task
//! computed for 200 ms in 40 steps; and what the detector of blocked hubs, set to 100 ms, said
//! meanwhile. How much of that time the machine ran something else on the processor is told as well:
//! on one that is busy it may be most of it.
//!
//! ```text
//! hogging: the longest gap was 210.1 ms (0.0 ms of it for want of a processor), over 5 beats
//!   reported: greenlet 'periodic task' (#3), made at examples/heartbeat.rs:74:53
//! yielding: the longest gap was 15.1 ms (0.0 ms of it for want of a processor), over 20 beats
//! in tpool: the longest gap was 10.2 ms (0.0 ms of it for want of a processor), over 24 beats
//! ```
//!
//! The first is what a service looks like whose task forgets that green threads share their OS thread:
//! nothing else runs, and whoever watches its heart believes it dead. A `sleep(0)` in the task's loop
//! is enough. What cannot be changed belongs on another thread, which `tpool` has.

use std::cell::{Cell, RefCell};
use std::fs;
use std::hint::black_box;
use std::io;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use stolon::debug::{self, Blocked, hub_blocking_detection};
use stolon::greenthread::Builder;
use stolon::{sleep, tpool};

const BEAT: Duration = Duration::from_millis(10);
const STEP: Duration = Duration::from_millis(5);
const STEPS: u32 = 40;
const LIMIT: Duration = Duration::from_millis(100);

fn main() -> io::Result<()> {
    show("hogging", || (0..STEPS).for_each(|_| compute(STEP)))?;
    show("yielding", || {
        for _ in 0..STEPS {
            compute(STEP);
            sleep(Duration::ZERO);
        }
    })?;
    show("in tpool", || tpool::execute(|| (0..STEPS).for_each(|_| compute(STEP))))
}

/// Runs `task` beside a heart, and prints how that got on.
fn show(name: &str, task: impl Fn() + 'static) -> io::Result<()> {
    let (sender, reports) = mpsc::channel::<Blocked>();
    // It may come when nobody wants to know any more.
    debug::set_blocking_hook(move |blocked| drop(sender.send(blocked.clone())));
    hub_blocking_detection(Some(LIMIT))?;

    let heart = Rc::new(Heart::default());
    let beating = Rc::clone(&heart);
    let beats = Builder::new().name("heartbeat").spawn(move || beating.beat())?;
    sleep(2 * BEAT);
    let task = Builder::new().name("periodic task").spawn(task)?;
    task.wait();
    sleep(2 * BEAT);
    heart.stops.set(true);
    beats.wait();

    hub_blocking_detection(None)?;
    debug::take_blocking_hook();
    let (gap, waited) = heart.longest_gap();
    let [gap_ms, waited_ms] = [gap, waited].map(|time| time.as_secs_f64() * 1e3);
    print!(
        "{name}: the longest gap was {gap_ms:.1} ms ({waited_ms:.1} ms of it for want of a processor)"
    );
    println!(", over {} beats", heart.beats.borrow().len());
    for blocked in reports {
        let name = blocked.name().unwrap_or("without a name");
        let id = blocked.id().unwrap_or_default();
        let place =
            blocked.made_at().map_or_else(String::new, |place| format!(", made at {place}"));
        println!("  reported: greenlet '{name}' (#{id}){place}");
    }
    Ok(())
}

/// Something that is due at regular times.
#[derive(Default)]
struct Heart {
    /// When, and how long this thread had waited for a processor in its life.
    beats: RefCell<Vec<(Instant, Duration)>>,
    stops: Cell<bool>,
}

impl Heart {
    fn beat(&self) {
        while !self.stops.get() {
            self.beats.borrow_mut().push((Instant::now(), waited_for_processor()));
            sleep(BEAT);
        }
    }

    /// The longest time between two beats, and how much of it this thread waited for a processor. That
    /// part is not the hub's doing, so what counts is the rest.
    fn longest_gap(&self) -> (Duration, Duration) {
        let beats = self.beats.borrow();
        let gaps = beats.windows(2).map(|pair| (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1));
        gaps.max_by_key(|(gap, waited)| gap.saturating_sub(*waited)).unwrap_or_default()
    }
}

/// How long this thread was able to run in its life, and did not, as the machine ran something else.
/// Zero if the kernel does not say.
fn waited_for_processor() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited_ns = text.split(' ').nth(1).and_then(|waited| waited.parse().ok());
    Duration::from_nanos(waited_ns.unwrap_or(0))
}

/// Keeps the processor busy for as long.
#[inline(never)]
fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        black_box(start);
    }
}
