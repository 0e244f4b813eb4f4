//! A hub, as other threads know it.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::Location;
use std::ptr;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use super::packet::{Abandon, JoinHandle};
use super::{Inbox, Job, job};
use crate::greenlet::Greenlet;
use crate::hub::{self, Hub, Wake};

/// The hub of the current thread, for other threads to reach it. If there is none yet it is made.
///
/// # Panics
///
/// When the hub cannot be made, for want of descriptors, and when the thread is exiting.
pub fn handle() -> HubHandle {
    let post = hub::try_current().and_then(|hub| hub.post());
    HubHandle::new(&post.expect("no handle to the hub could be made").inbox)
}

/// Functions larger than this, in bytes, go to the heap at once: the hub's own loop, whose stack may be
/// small, moves what it starts.
const MAX_MOVED_BYTES: usize = 128;

/// A thread's hub, reached from other threads: made by [`handle`](handle()). Cloning is cheap.
///
/// What is sent is done in the order in which it was sent, when the greenlets of that thread next all
/// wait, and at the latest after 128 of their turns; never while one of them computes. So a thread
/// that is to serve others has to be in its hub: its main greenlet waits, sleeps or joins.
///
/// As long as there is a handle, no deadlock is reported by that hub: its owner might still send
/// something. When the thread exits, what was not done by then is dropped there, and from then on
/// the handle returns what it is given. It keeps one descriptor open until the last one is dropped.
///
/// ```
/// use stolon::hub;
///
/// let (handle, mut done) = (hub::handle(), hub::Waiter::new());
/// let waker = done.waker();
/// let thread = std::thread::spawn(move || {
///     let answer = handle.spawn(|| 6 * 7).unwrap().join().unwrap();
///     waker.wake();
///     answer
/// });
/// done.wait();
/// assert_eq!(thread.join().unwrap(), 42);
/// ```
pub struct HubHandle {
    inbox: Arc<Inbox>,
}

impl HubHandle {
    fn new(inbox: &Arc<Inbox>) -> Self {
        inbox.enter();
        Self { inbox: Arc::clone(inbox) }
    }

    /// Calls `f` on the hub's thread, in its mainloop, as gevent's `run_callback_threadsafe` does.
    ///
    /// It must not block: what waits panics there and says so. The panic hook reports a panic of
    /// `f`, which harms nobody else. For what takes longer there is [`spawn`](Self::spawn).
    ///
    /// # Errors
    ///
    /// `f`, if the hub's thread has ended or is ending, or if it belongs to the process that this one
    /// was forked from.
    pub fn run<F: FnOnce() + Send + 'static>(&self, f: F) -> Result<(), HubGone<F>> {
        self.inbox.send(f, |f| Box::new(move |_| f())).map_err(HubGone)
    }

    /// Runs `f` in a new green thread on the hub's thread, and returns a handle to its result, which
    /// any thread may wait for.
    ///
    /// The panic hook reports a panic of `f`, which is delivered as the result, as
    /// [`std::thread::spawn`] does; so is it when no stack can be had there.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn spawn<R, F>(&self, f: F) -> Result<JoinHandle<R>, HubGone<F>>
    where
        R: Send + 'static,
        F: FnOnce() -> R + Send + 'static,
    {
        if const { size_of::<F>() > MAX_MOVED_BYTES } {
            self.send_job(Box::new(f)).map_err(|f| HubGone(*f))
        } else {
            self.send_job(f).map_err(HubGone)
        }
    }

    /// # Errors
    ///
    /// `f`, as [`spawn`](Self::spawn).
    #[track_caller]
    fn send_job<R, F>(&self, f: F) -> Result<JoinHandle<R>, F>
    where
        R: Send + 'static,
        F: FnOnce() -> R + Send + 'static,
    {
        let ((job, join_handle), place) = (job(f), Location::caller());
        match self.inbox.send(job, |job| Box::new(move |hub| start(hub, job, place))) {
            Ok(()) => Ok(join_handle),
            Err(job) => Err(job.into_function()),
        }
    }

    /// Whether it is the hub of the current thread.
    pub fn is_current(&self) -> bool {
        let post = hub::existing().and_then(|hub| hub.post().ok());
        post.is_some_and(|post| Arc::ptr_eq(&post.inbox, &self.inbox))
    }

    /// Whether the hub's thread has ended, or is in another process: what is sent will be returned.
    pub fn is_gone(&self) -> bool {
        self.inbox.is_closed()
    }
}

/// Starts a green thread on the current thread's hub, which was asked for at `place`.
fn start<R, F>(hub: &Rc<Hub>, job: Job<F, R>, place: &'static Location<'static>)
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    let packet: Weak<dyn Abandon> = Arc::downgrade(&(Arc::clone(job.packet()) as Arc<dyn Abandon>));
    let key = hub.remote.jobs.borrow_mut().insert(Weak::clone(&packet));
    let started = Started { hub: Rc::clone(hub), key, packet };
    // Outside of the closure too, which is dropped when there is no stack for it.
    let job = Rc::new(Cell::new(Some((job, started))));
    let taken = Rc::clone(&job);
    let body = move |_| {
        if let Some((job, _started)) = taken.take() {
            job.run();
        }
        Wake::Ended
    };
    let parent = hub.mainloop();
    match parent.and_then(|mainloop| Greenlet::builder().parent(&mainloop).build(body)) {
        Ok(greenlet) => {
            greenlet.set_made_at(place);
            greenlet.hold_itself();
            hub.start(greenlet);
        }
        Err(e) => {
            let (job, _started) = job.take().expect("it never ran");
            job.fail(Box::new(no_green_thread(&e)));
        }
    }
}

fn no_green_thread(error: &io::Error) -> String {
    format!("no green thread could be made: {error}")
}

/// The jobs that have come to a hub and have not ended.
#[derive(Default)]
pub(super) struct Jobs {
    all: Vec<Option<Weak<dyn Abandon>>>,
    vacant: Vec<usize>,
}

impl Jobs {
    fn insert(&mut self, job: Weak<dyn Abandon>) -> usize {
        let key = self.vacant.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() - 1
        });
        self.all[key] = Some(job);
        key
    }

    fn remove(&mut self, key: usize, job: &Weak<dyn Abandon>) {
        // Not there any more if the hub is closed; and in the child of a fork it may be another's place.
        let is_it = |other: &Weak<dyn Abandon>| ptr::addr_eq(other.as_ptr(), job.as_ptr());
        if let Some(place) = self.all.get_mut(key).filter(|place| place.as_ref().is_some_and(is_it))
        {
            *place = None;
            self.vacant.push(key);
        }
    }

    /// Tells all who wait for one of them that it will not end.
    pub(super) fn abandon(self) {
        self.all.iter().flatten().filter_map(Weak::upgrade).for_each(|job| job.abandon());
    }
}

/// A job that has come to a hub, until it ends.
struct Started {
    hub: Rc<Hub>,
    key: usize,
    packet: Weak<dyn Abandon>,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.hub.remote.jobs.borrow_mut().remove(self.key, &self.packet);
    }
}

impl Clone for HubHandle {
    fn clone(&self) -> Self {
        Self::new(&self.inbox)
    }
}

impl Drop for HubHandle {
    fn drop(&mut self) {
        self.inbox.leave();
    }
}

/// Handles of one hub are equal.
impl PartialEq for HubHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inbox, &other.inbox)
    }
}

impl Eq for HubHandle {}

impl fmt::Debug for HubHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubHandle").field("is_gone", &self.is_gone()).finish()
    }
}

/// What could not be sent to a hub, as that is gone: its thread has ended or is ending, or this is
/// the child of a `fork` and the handle its parent's.
pub struct HubGone<F>(pub F);

impl<F> fmt::Debug for HubGone<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubGone(..)")
    }
}

impl<F> fmt::Display for HubGone<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the hub is gone: its thread has ended, or is in the parent process")
    }
}

impl<F> Error for HubGone<F> {}
