//! The watchdog: a thread that looks whether hubs get on, and reports who holds one for too long.
//!
//! A hub that is watched notes when each turn began, in an atomic that the watchdog reads; it has the
//! mainloop hand out all turns, one by one, so that it knows. One that is not watched does nothing of
//! the kind. The watchdog sleeps until the first turn is due to be over, runs while any hub is
//! watched, and ends with the last.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::blocked::{self, Blocked};
use super::{BUDGET, Hub, ROUND_IS_OVER};
use crate::greenlet;
use crate::stack::Span;
use crate::stack::sample::{self, Sample};
use crate::sys::fork::PerProcess;
use crate::sys::{interrupt, time};

/// When nobody has the turn: the hub waits.
const NOBODY: u64 = 0;

/// The least time between two looks.
const LEAST_NS: u64 = 1_000_000;

/// Maximum number of reports under way at once. Each has a thread. To name functions may take
/// longer than the time to the next report.
const MAX_REPORTS: usize = 16;

/// What a hub has of it, while it is watched.
#[derive(Debug)]
pub(super) struct Watch {
    /// When the turn that is under way began, in nanoseconds of the monotonic clock.
    began_ns: Arc<AtomicU64>,
}

/// What the watchdog has of a hub.
struct Watched {
    began_ns: Arc<AtomicU64>,
    limit_ns: u64,
    /// The turn that was reported.
    reported_ns: u64,
    thread: i32,
    thread_name: Option<String>,
    own_stack: Span,
}

struct Watchdog {
    watched: Vec<Watched>,
    is_running: bool,
}

/// What the watchdog shares with the hubs.
struct Shared {
    watchdog: Mutex<Watchdog>,
    changed: Condvar,
    /// Number of reports under way.
    reports: AtomicUsize,
}

/// The child of a fork begins anew: the watchdog's thread is not there, and may have held the lock.
static SHARED: PerProcess<Shared> = PerProcess::new(Shared::new());

impl Shared {
    const fn new() -> Self {
        let watchdog = Watchdog { watched: Vec::new(), is_running: false };
        let watchdog = Mutex::new(watchdog);
        Self { watchdog, changed: Condvar::new(), reports: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Watchdog> {
        self.watchdog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch {
    /// Watches the calling thread's hub, whose turn begins now.
    ///
    /// # Errors
    ///
    /// The kernel's, when no signal handler can be installed or no thread started.
    pub(super) fn new(limit: Duration) -> io::Result<Self> {
        greenlet::allow_samples()?;
        let watch = Self { began_ns: Arc::new(AtomicU64::new(time::monotonic_ns())) };
        let watched = Watched {
            began_ns: Arc::clone(&watch.began_ns),
            limit_ns: u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX),
            reported_ns: NOBODY,
            thread: interrupt::thread_id(),
            thread_name: thread::current().name().map(str::to_owned),
            own_stack: Span::of_thread()?,
        };
        let shared = SHARED.get();
        let mut watchdog = shared.lock();
        if !watchdog.is_running {
            thread::Builder::new().name("stolon watchdog".into()).spawn(run)?;
            watchdog.is_running = true;
        }
        watchdog.watched.push(watched);
        shared.changed.notify_one();
        Ok(watch)
    }

    /// Notes that someone's turn begins.
    pub(super) fn turn_begins(&self) {
        self.began_ns.store(time::monotonic_ns(), Ordering::SeqCst);
    }

    /// Notes that the hub waits.
    pub(super) fn waits(&self) {
        self.began_ns.store(NOBODY, Ordering::SeqCst);
    }
}

impl Drop for Watch {
    /// Waits until the watchdog is not looking at this thread: afterwards it may end.
    fn drop(&mut self) {
        let shared = SHARED.get();
        let mut watchdog = shared.lock();
        watchdog.watched.retain(|watched| !Arc::ptr_eq(&watched.began_ns, &self.began_ns));
        shared.changed.notify_one();
    }
}

/// Whose hub is held, for how long, and by whom.
type Finding = (Option<String>, Duration, Option<Sample>);

impl Watched {
    /// Looks at a hub, and says who has held it for too long, or when to look again.
    fn look(&mut self, now_ns: u64) -> Result<Finding, u64> {
        let began_ns = self.began_ns.load(Ordering::SeqCst);
        if began_ns == NOBODY || began_ns == self.reported_ns {
            return Err(now_ns.saturating_add(self.limit_ns));
        }
        let due_ns = began_ns.saturating_add(self.limit_ns);
        if now_ns < due_ns {
            return Err(due_ns);
        }
        // Once for each turn, whatever comes of it.
        self.reported_ns = began_ns;
        let sample = sample::take(self.thread, self.own_stack, (&self.began_ns, began_ns));
        if self.began_ns.load(Ordering::SeqCst) != began_ns && !matches!(sample, Ok(Some(_))) {
            // It was over before it was asked.
            return Err(now_ns.saturating_add(self.limit_ns));
        }
        let held = Duration::from_nanos(time::monotonic_ns() - began_ns);
        Ok((self.thread_name.clone(), held, sample.ok().flatten()))
    }
}

/// The watchdog's thread.
fn run() {
    let shared = SHARED.get();
    let mut watchdog = shared.lock();
    while !watchdog.watched.is_empty() {
        let now_ns = time::monotonic_ns();
        let mut next_ns = u64::MAX;
        for watched in &mut watchdog.watched {
            let look_ns = match watched.look(now_ns) {
                Ok(finding) => {
                    report(&shared.reports, finding);
                    now_ns
                }
                Err(look_ns) => look_ns,
            };
            next_ns = next_ns.min(look_ns);
        }
        let wait = Duration::from_nanos(next_ns.saturating_sub(now_ns).max(LEAST_NS));
        let waited = shared.changed.wait_timeout(watchdog, wait);
        watchdog = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    watchdog.is_running = false;
}

/// A report under way.
struct UnderWay(&'static AtomicUsize);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reports on a thread of its own: to find names takes long, the hook may do what it likes, and
/// meanwhile somebody else may hold a hub. Does nothing if too many reports are under way.
fn report(reports: &'static AtomicUsize, (thread, held, sample): Finding) {
    // The watchdog alone adds to it.
    if reports.load(Ordering::Relaxed) >= MAX_REPORTS {
        return;
    }
    reports.fetch_add(1, Ordering::Relaxed);
    let under_way = UnderWay(reports);
    let hook = blocked::hook();
    let report = move || {
        blocked::report(&Blocked::new(thread, held, sample), hook.as_deref());
        drop((hook, under_way));
    };
    // Without a thread there is no report.
    let _ = thread::Builder::new().name("stolon report".into()).spawn(report);
}

/// What a hub does for the watchdog.
impl Hub {
    /// Has the watchdog report who holds the hub longer than `limit`, or no more. Does nothing to a
    /// simulated one, on which no time passes while a greenlet runs.
    ///
    /// # Errors
    ///
    /// The kernel's, when the watchdog cannot be started.
    pub(crate) fn set_watch(&self, limit: Option<Duration>) -> io::Result<()> {
        drop(self.observed.watch.take());
        self.observe_or_not();
        let Some(limit) = limit.filter(|_| !self.clock.is_simulated()) else { return Ok(()) };
        *self.observed.watch.borrow_mut() = Some(Watch::new(limit)?);
        self.observe_or_not();
        // From now on the mainloop hands out the turns.
        self.observed.counts.turns_end(self.budget.replace(0));
        self.observed.counts.turns_begin(0);
        Ok(())
    }

    /// In the child of a fork, where there is no watchdog until somebody asks for one.
    pub(super) fn forget_watch(&self) {
        drop(self.observed.watch.take());
        self.observe_or_not();
    }

    #[inline]
    pub(super) fn has_to_watch(&self) -> bool {
        self.observed.is_on.get() && self.is_watched()
    }

    /// Whether the watchdog looks at this hub.
    pub(super) fn is_watched(&self) -> bool {
        self.observed.watch.borrow().is_some()
    }

    /// As [`run_ready`](Hub::run_ready), but nobody hands over to another, and each turn is noted.
    pub(super) fn run_ready_watched(&self) -> u32 {
        self.budget.set(0);
        self.observed.counts.turns_begin(0);
        let (left, round) = (Cell::new(BUDGET), Cell::new(self.round()));
        let hand_out = || {
            while left.get() > 0 && round.get() > 0 && !self.closed.get() {
                let Some((greenlet, wake)) = self.next_if(|_| true) else { break };
                left.set(left.get() - 1);
                self.observed.counts.add_turns(1);
                self.turn_begins();
                self.let_run(greenlet, wake);
                match self.floor.replace(0) {
                    0 => {}
                    // It has yielded.
                    ROUND_IS_OVER => round.set((round.get() - 1).min(self.round())),
                    // Somebody waits for time or the world, where nobody did.
                    _ => round.set(1),
                }
            }
        };
        while !self.undisturbed(hand_out) {}
        BUDGET - left.get()
    }

    /// Tells the watchdog, if there is one, that someone else has the hub from now on.
    #[inline]
    pub(super) fn turn_begins(&self) {
        if self.observed.is_on.get() {
            self.tell_that_turn_begins();
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_that_turn_begins(&self) {
        if let Some(watch) = &*self.observed.watch.borrow() {
            watch.turn_begins();
        }
    }

    /// Tells the watchdog, if there is one, that the hub waits.
    #[inline]
    pub(super) fn turn_is_nobodys(&self) {
        if self.observed.is_on.get() {
            self.tell_that_turn_is_nobodys();
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_that_turn_is_nobodys(&self) {
        if let Some(watch) = &*self.observed.watch.borrow() {
            watch.waits();
        }
    }
}
