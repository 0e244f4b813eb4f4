//! The pool's threads, and the queue that they serve.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::hub::channel::{self, Receiver, Sender};
use crate::quietly::quietly;
use crate::sys;
use crate::sys::fork::PerProcess;

type Work = Box<dyn FnOnce() + Send>;

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is a thread of the pool.
pub(super) fn is_worker() -> bool {
    IS_WORKER.with(Cell::get)
}

/// The pool of this process. A child has one of its own, as the threads of its parent's are not there,
/// and one of them may hold its lock.
pub(super) fn current() -> &'static Pool {
    sys::fork::watch().expect("the pool's threads could not be told apart after a fork");
    POOL.get()
}

static POOL: PerProcess<Pool> = PerProcess::new(Pool::new());

pub(super) struct Pool {
    state: Mutex<State>,
    /// There is work, or a reason to end.
    changed: Condvar,
}

struct State {
    queue: VecDeque<Work>,
    /// Threads of the present shift, and how many of them wait for work.
    threads: usize,
    idle: usize,
    /// All threads so far, which are numbered.
    started: usize,
    /// Threads of former shifts end when there is no work.
    shift: usize,
    /// Of the present shift: for whoever ends it.
    members: Vec<thread::JoinHandle<()>>,
    /// Each thread has the sending end until its end.
    presence: Option<(Sender<()>, Receiver<()>)>,
}

/// What a thread starts with.
struct First {
    work: Work,
    shift: usize,
    presence: Sender<()>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl Pool {
    const fn new() -> Self {
        let state = State {
            queue: VecDeque::new(),
            threads: 0,
            idle: 0,
            started: 0,
            shift: 0,
            members: Vec::new(),
            presence: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread do some work, and starts one for it if all are busy and there may be more.
    pub(super) fn submit(&'static self, work: Work) {
        let size = super::size();
        let mut state = self.lock();
        if state.idle > state.queue.len() || state.threads >= size {
            state.queue.push_back(work);
            drop(state);
            self.changed.notify_one();
            return;
        }
        let presence = &state.presence.get_or_insert_with(channel::channel).0;
        let first = First { work, presence: presence.clone(), shift: state.shift };
        state.threads += 1;
        state.started += 1;
        let started = self.start(state.started, first);
        match started {
            Ok(member) => {
                state.members.retain(|member| !member.is_finished());
                state.members.push(member);
            }
            Err((error, first)) => {
                state.threads -= 1;
                let nobody = state.threads == 0;
                if !nobody {
                    state.queue.push_back(first.work);
                }
                drop(state);
                self.changed.notify_one();
                assert!(!nobody, "tpool could not start a thread: {error}");
            }
        }
    }

    fn start(
        &'static self,
        number: usize,
        first: First,
    ) -> Result<thread::JoinHandle<()>, (io::Error, First)> {
        // Left here if there is no thread that takes it.
        let given = Arc::new(Mutex::new(Some(first)));
        let taken = Arc::clone(&given);
        let take = |first: &Mutex<Option<First>>| {
            first.lock().unwrap_or_else(PoisonError::into_inner).take().expect("one takes it")
        };
        let builder = thread::Builder::new().name(format!("stolon-tpool-{number}"));
        builder.spawn(move || self.serve(take(&taken))).map_err(|error| (error, take(&given)))
    }

    /// What each thread does.
    fn serve(&self, first: First) {
        let First { work, shift, presence } = first;
        IS_WORKER.with(|is_worker| is_worker.set(true));
        // What panics is the destructor of a result that nobody waits for.
        quietly(work);
        while let Some(work) = self.next(shift) {
            quietly(work);
        }
        drop(presence);
    }

    /// The next work; none when the thread has to end.
    fn next(&self, shift: usize) -> Option<Work> {
        let mut state = self.lock();
        loop {
            let is_present = state.shift == shift;
            // The last one stays for what is there.
            let surplus = is_present && state.threads > super::size().max(1);
            let may_end = surplus || !is_present || state.threads > super::size();
            if !surplus {
                if let Some(work) = state.queue.pop_front() {
                    return Some(work);
                }
            }
            if may_end {
                state.threads -= usize::from(is_present);
                // It may have been woken for this.
                if !state.queue.is_empty() {
                    self.changed.notify_one();
                }
                return None;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            if state.shift == shift {
                state.idle -= 1;
            }
        }
    }

    /// Has the threads see how many they may be.
    pub(super) fn resized(&self) {
        // Taken, so that nobody is between looking and waiting.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Ends the present shift, and waits for its end.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.shift += 1;
        (state.threads, state.idle) = (0, 0);
        let members = mem::take(&mut state.members);
        let presence = state.presence.take();
        drop(state);
        self.changed.notify_all();
        if let Some((sender, receiver)) = presence {
            drop(sender);
            // Nobody sends: it fails when all are about to end.
            let _ = receiver.recv();
        }
        for member in members {
            // They catch all panics but those of what is thread-local, which end the process.
            let _ = member.join();
        }
    }
}
