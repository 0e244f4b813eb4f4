//! What a hub shares with other threads: an inbox of messages, flags that wakers raise, and the
//! means to wake the hub up for them.
//!
//! A message goes into the queue, a waker's flag is one bit; after that comes `pending`, and whoever
//! sets it writes to the hub's eventfd. The hub takes `pending` back first and looks at the queue and
//! the flags afterwards. So what comes too late for one look finds `pending` down, and writes again:
//! nothing is lost, and a burst costs one write. To raise a flag allocates nothing and takes no lock,
//! so a signal handler may do it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::hub::Hub;
use crate::poller;
use crate::sys;

/// What a hub is asked to do; the mainloop calls it.
pub(super) type Message = Box<dyn FnOnce(&Rc<Hub>) + Send>;

/// The part of a hub that all threads see.
pub(super) struct Inbox {
    /// How many forks there had been when it was made.
    forks: u32,
    notifier: poller::Waker,
    /// Whether something has come that the hub has not looked at.
    pending: AtomicBool,
    /// Handles and wakers: as long as there are any, something may come.
    users: AtomicUsize,
    messages: Mutex<Messages>,
}

struct Messages {
    queue: VecDeque<Message>,
    /// Whether the hub is gone.
    closed: bool,
}

impl Inbox {
    pub(super) fn new(notifier: poller::Waker) -> Self {
        Self {
            forks: sys::fork::count(),
            notifier,
            pending: AtomicBool::new(false),
            users: AtomicUsize::new(0),
            messages: Mutex::new(Messages { queue: VecDeque::new(), closed: false }),
        }
    }

    /// What the hub's poller is notified by.
    pub(super) fn notifier(&self) -> &poller::Waker {
        &self.notifier
    }

    /// Whether it was made by another process, of which this one is a child. Its lock may be held by
    /// a thread that is not here.
    pub(super) fn is_inherited(&self) -> bool {
        self.forks != sys::fork::count()
    }

    /// Puts in the message that `seal` makes of `content`.
    ///
    /// # Errors
    ///
    /// `content`, if the hub is gone.
    pub(super) fn send<C>(&self, content: C, seal: impl FnOnce(C) -> Message) -> Result<(), C> {
        if self.is_inherited() {
            return Err(content);
        }
        let mut messages = self.lock();
        if messages.closed {
            return Err(content);
        }
        messages.queue.push_back(seal(content));
        drop(messages);
        self.notify();
        Ok(())
    }

    /// Has the hub look, soon.
    pub(super) fn notify(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // The descriptor is open, and its count, one for each look, does not reach 2^64.
            let _ = self.notifier.notify();
        }
    }

    /// Whether the hub has to look. The answer is yes once for all that came before.
    #[inline]
    pub(super) fn take_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed) && self.pending.swap(false, Ordering::AcqRel)
    }

    /// Whether anything may still come, or has come.
    pub(super) fn may_come(&self) -> bool {
        // In this order: who leaves has raised its flag before.
        self.users.load(Ordering::Acquire) > 0 || self.pending.load(Ordering::Acquire)
    }

    pub(super) fn enter(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        // The last one has the hub look whether anyone else can ever wake it. Not its parent's.
        if self.users.fetch_sub(1, Ordering::AcqRel) == 1 && !self.is_inherited() {
            self.notify();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().queue.len()
    }

    pub(super) fn pop(&self) -> Option<Message> {
        self.lock().queue.pop_front()
    }

    /// Takes no more messages, and returns those that nobody will read.
    pub(super) fn close(&self) -> VecDeque<Message> {
        let mut messages = self.lock();
        messages.closed = true;
        std::mem::take(&mut messages.queue)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_inherited() || self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many flags are in one word.
pub(super) const FLAGS: u32 = u64::BITS;

/// Flags for as many waiters as a word has bits.
pub(super) struct Flags {
    pub(super) inbox: Arc<Inbox>,
    /// Which of them may have been woken.
    raised: AtomicU64,
    /// Of each waiter twice its number, which no other ever has at this place, and one more if it
    /// has been woken.
    waiters: [AtomicU64; FLAGS as usize],
}

impl Flags {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        let waiters = [const { AtomicU64::new(0) }; FLAGS as usize];
        Self { inbox, raised: AtomicU64::new(0), waiters }
    }

    /// The number of the waiter that is at a place now.
    pub(super) fn number(&self, index: u32) -> u64 {
        self.waiters[index as usize].load(Ordering::Relaxed) >> 1
    }

    /// Makes room for another waiter: from now on, who wakes this one does nothing.
    pub(super) fn retire(&self, index: u32) {
        let next = self.number(index) + 1;
        self.waiters[index as usize].store(next << 1, Ordering::Relaxed);
    }

    /// Marks a waiter as woken, in a way that a signal handler may. False if it was so already, or is
    /// gone.
    pub(super) fn mark(&self, index: u32, number: u64) -> bool {
        if self.inbox.is_inherited() {
            return false;
        }
        let woken = number << 1 | 1;
        // Written even if it says so already: the waiter then sees all that came before this.
        let wake = |state: u64| (state >> 1 == number).then_some(woken);
        let waiter = &self.waiters[index as usize];
        let before = waiter.fetch_update(Ordering::AcqRel, Ordering::Relaxed, wake);
        before.is_ok_and(|state| state != woken)
    }

    /// Has the hub look at a waiter that was marked.
    pub(super) fn raise(&self, index: u32) {
        self.raised.fetch_or(1 << index, Ordering::Release);
        self.inbox.notify();
    }

    /// Whether a waiter has been woken; it will be asleep again.
    pub(super) fn lower(&self, index: u32, number: u64) -> bool {
        let waiter = &self.waiters[index as usize];
        let (asleep, woken) = (number << 1, number << 1 | 1);
        waiter.compare_exchange(woken, asleep, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The places of all that were raised since this was last asked, as bits.
    pub(super) fn take_raised(&self) -> u64 {
        if self.raised.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.raised.swap(0, Ordering::AcqRel)
    }
}
