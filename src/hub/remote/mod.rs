//! How other threads, and signal handlers, reach a hub.
//!
//! | | does | from a signal handler |
//! |---|---|---|
//! | [`HubHandle::run`] | calls a closure in the mainloop, which must not block | no |
//! | [`HubHandle::spawn`] | runs a closure in a new green thread | no |
//! | [`Waker::wake`] | ends one wait | yes |
//!
//! The hub looks for what has come each time that its mainloop runs: when no greenlet is runnable,
//! and at the latest after [`BUDGET`](super::BUDGET) hand-overs.

mod handle;
mod inbox;
mod packet;
mod waker;

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use super::{Hub, WaitId, Wake};
use crate::poller::{self, Poller};
use crate::quietly::{dispose, quietly};
use handle::Jobs;
pub use handle::{HubGone, HubHandle, handle};
use inbox::{FLAGS, Flags, Inbox, Message};
pub use packet::JoinHandle;
pub(crate) use packet::{Job, job};
pub use waker::{Waiter, Waker};

/// The hub's own part.
pub(super) struct Remote {
    /// Whether another thread may reach the post: the mainloop asks each time.
    is_open: Cell<bool>,
    /// Made with the hub, so that no wait fails later for want of a descriptor. None when the thread
    /// is exiting.
    post: RefCell<Option<Rc<Post>>>,
    /// What runs here for other threads.
    jobs: RefCell<Jobs>,
}

/// What other threads reach, and who waits for them.
pub(super) struct Post {
    inbox: Arc<Inbox>,
    waiters: RefCell<Waiters>,
}

/// Who may be woken by a flag. The place of a waiter is the number of its flag.
#[derive(Default)]
struct Waiters {
    flags: Vec<Arc<Flags>>,
    /// What each is waiting in, if it is.
    waits: Vec<Option<WaitId>>,
    vacant: Vec<u32>,
}

impl Remote {
    /// For the hub that has this poller.
    ///
    /// # Errors
    ///
    /// When no eventfd can be made.
    pub(super) fn new(poller: &Poller) -> io::Result<Self> {
        let post = Some(Post::new(poller.waker()?));
        Ok(Self { is_open: Cell::new(false), post: RefCell::new(post), jobs: RefCell::default() })
    }

    /// Whether another thread may wake someone here.
    pub(super) fn may_come(&self) -> bool {
        let post = self.post.borrow();
        post.as_ref().is_some_and(|post| post.inbox.may_come() && !post.inbox.is_inherited())
    }

    /// Lets go of all that was shared with the threads of the parent process, and begins anew with the
    /// child's `poller`. What another thread may have been about to change is forgotten.
    ///
    /// # Errors
    ///
    /// When there can be no notifier.
    pub(super) fn renew(&self, poller: &Poller) -> io::Result<()> {
        let notifier = match self.let_go_of_inherited() {
            None => poller.waker()?,
            // Without a descriptor to spare the parent's serves, too. Each process then wakes up for
            // what the other is told, and finds nothing.
            Some(inherited) => poller.waker().or_else(|_| poller.adopt(inherited))?,
        };
        let before = self.post.replace(Some(Post::new(notifier)));
        debug_assert!(before.is_none());
        Ok(())
    }

    /// Returns the parent's notifier, unless that is closed now.
    fn let_go_of_inherited(&self) -> Option<poller::Waker> {
        self.is_open.set(false);
        mem::forget(self.jobs.take());
        let post = self.post.take()?;
        if Rc::strong_count(&post) == 1 && Arc::strong_count(&post.inbox) == 1 {
            // Nobody else refers to it, so no other thread was about to change it.
            return None;
        }
        let notifier = post.inbox.notifier().clone();
        mem::forget(post);
        Some(notifier)
    }

    /// Takes no more messages.
    pub(super) fn close(&self) {
        self.is_open.set(false);
        let Some(post) = self.post.take() else { return };
        if post.inbox.is_inherited() {
            mem::forget((post, self.jobs.take()));
            return;
        }
        for message in post.inbox.close() {
            // The thread has nobody left to tell of a panic.
            quietly(|| drop(message));
        }
        self.jobs.take().abandon();
    }

    fn with_mail(&self) -> Option<Rc<Post>> {
        let post = self.post.borrow();
        let is_pending = |inbox: &Inbox| inbox.take_pending() && !inbox.is_inherited();
        post.as_ref().filter(|post| is_pending(&post.inbox)).cloned()
    }
}

impl Hub {
    /// What other threads reach, for one of them to do so.
    ///
    /// # Errors
    ///
    /// When the thread is exiting, and in a child when its poller cannot be made.
    fn post(&self) -> io::Result<Rc<Post>> {
        self.renew_after_fork()?;
        let Some(post) = self.remote.post.borrow().clone() else {
            return Err(io::Error::other("no hub: this thread is exiting"));
        };
        self.remote.is_open.set(true);
        Ok(post)
    }

    /// Whether that is its inbox.
    fn has_inbox(&self, inbox: &Arc<Inbox>) -> bool {
        self.remote.post.borrow().as_ref().is_some_and(|post| Arc::ptr_eq(&post.inbox, inbox))
    }

    /// Wakes the waiter at a place, if it waits.
    fn wake_place(&self, place: u32) {
        let post = self.remote.post.borrow().clone();
        let wait = post.and_then(|post| post.waiters.borrow().waits[place as usize]);
        if let Some(id) = wait {
            self.wake(id, Wake::Ready);
        }
    }

    /// Wakes whoever was woken from afar, and does what other threads have asked for.
    #[inline]
    pub(super) fn take_mail(self: &Rc<Self>) {
        if self.remote.is_open.get() {
            self.read_mail();
        }
    }

    #[inline(never)]
    fn read_mail(self: &Rc<Self>) {
        let Some(post) = self.remote.with_mail() else { return };
        post.waiters.borrow().for_each_raised(|id| {
            self.wake(id, Wake::Ready);
        });
        // What comes meanwhile, from these messages too, has to wait for the next time.
        let rest = Rest { inbox: &post.inbox };
        for _ in 0..post.inbox.len() {
            let Some(message) = post.inbox.pop() else { break };
            self.obey(message);
        }
        mem::forget(rest);
    }

    /// Does what another thread has asked for. An exit that it raises is a panic like any other, and not
    /// the loop's: the loop's parent may wait for something that has nothing to do with the hub.
    fn obey(self: &Rc<Self>, message: Message) {
        let Err(payload) = catch_unwind(AssertUnwindSafe(|| message(self))) else { return };
        dispose(payload);
    }
}

/// Has the next mainloop read what this one leaves, if it ends.
struct Rest<'a> {
    inbox: &'a Inbox,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.inbox.notify();
    }
}

impl Post {
    fn new(notifier: poller::Waker) -> Rc<Self> {
        let inbox = Arc::new(Inbox::new(notifier));
        Rc::new(Self { inbox, waiters: RefCell::default() })
    }

    /// A place for a new waiter.
    fn occupy(&self) -> (Arc<Flags>, u32) {
        let mut waiters = self.waiters.borrow_mut();
        if waiters.vacant.is_empty() {
            waiters.grow(&self.inbox);
        }
        let place = waiters.vacant.pop().expect("there is room now");
        (Arc::clone(&waiters.flags[(place / FLAGS) as usize]), place)
    }

    fn vacate(&self, place: u32) {
        self.waiters.borrow_mut().vacant.push(place);
    }

    fn set_wait(&self, place: u32, wait: Option<WaitId>) {
        self.waiters.borrow_mut().waits[place as usize] = wait;
    }
}

impl Waiters {
    fn grow(&mut self, inbox: &Arc<Inbox>) {
        let first = u32::try_from(self.waits.len()).expect("fewer than 2^32 waiters");
        self.flags.push(Arc::new(Flags::new(Arc::clone(inbox))));
        // The lowest is taken first.
        self.vacant.extend((first..first + FLAGS).rev());
        self.waits.resize((first + FLAGS) as usize, None);
    }

    fn for_each_raised(&self, mut wake: impl FnMut(WaitId)) {
        for (flags, waits) in self.flags.iter().zip(self.waits.chunks(FLAGS as usize)) {
            let mut raised = flags.take_raised();
            while raised != 0 {
                // Who is not waiting now will look at its flag before it does.
                if let Some(id) = waits[raised.trailing_zeros() as usize] {
                    wake(id);
                }
                raised &= raised - 1;
            }
        }
    }
}
