//! Channels between green threads, of one hub or of several, in the shape of [`std::sync::mpsc`].
//!
//! To wait on one blocks the current greenlet and no other. A thread that has no hub may use them as
//! well, and waits as a whole; none is made for it.
//!
//! | as in `std` | |
//! |---|---|
//! | messages of one sender arrive in the order of sending | |
//! | when all senders are gone, what was sent is received, and then `recv` fails | |
//! | when the receiver is gone, `send` fails and returns the message; what was sent is dropped | |
//! | [`sync_channel`] of zero hands over: `send` returns when the message was received | |
//!
//! Unlike `std`'s, a [`Receiver`] may be shared: several greenlets, on several threads, may wait on
//! one, and are served in the order in which they came. One that is killed takes no message with it.
//! As long as someone waits on a channel, its hub does not report a deadlock, as another thread might
//! send.
//!
//! ```
//! use stolon::hub::channel;
//!
//! let (sender, receiver) = channel::sync_channel(2);
//! let thread = std::thread::spawn(move || {
//!     for n in 0..5 {
//!         sender.send(n).unwrap();
//!     }
//! });
//! let sum = stolon::spawn(move || receiver.iter().sum::<i32>());
//! assert_eq!(sum.wait(), 10);
//! thread.join().unwrap();
//! ```

mod iter;
mod state;

use std::fmt;
use std::mem;
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Deadline;
use crate::hub::{Waiter, WaitsFor};
pub use iter::{IntoIter, Iter, TryIter};
use state::{Failure, State, Ticket};

/// A channel without limit, as [`std::sync::mpsc::channel`]: sending never waits.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Shared::new(None);
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// A channel that holds up to `bound` messages, as [`std::sync::mpsc::sync_channel`]: when there are
/// so many, sending waits. A bound of zero is to hand over.
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let shared = Shared::new(Some(bound));
    (SyncSender { shared: Arc::clone(&shared) }, Receiver { shared })
}

struct Shared<T> {
    state: Mutex<State<T>>,
}

impl<T> Shared<T> {
    fn new(bound: Option<usize>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::new(bound)) })
    }

    /// No code of the user's runs while it is locked.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, value: T) -> Result<(), (T, Failure)> {
        let put = self.lock().put(value);
        put.map(state::Called::wake)
    }

    fn take(&self) -> Result<T, Failure> {
        let taken = self.lock().take(false);
        taken.map(|(value, called)| {
            called.wake();
            value
        })
    }

    fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err((value, Failure::Disconnected)) => Err(SendError(value)),
            Err((value, Failure::Waits)) => self.wait_to_send(value),
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_to_send(&self, value: T) -> Result<(), SendError<T>> {
        let mut waiter = Waiter::for_one_wait();
        if self.lock().hands_over() {
            return self.hand_over(value, &mut waiter);
        }
        let mut state = self.lock();
        let mut left = value;
        loop {
            left = match state.put(left) {
                Ok(called) => {
                    drop(state);
                    called.wake();
                    return Ok(());
                }
                Err((value, Failure::Disconnected)) => return Err(SendError(value)),
                Err((value, Failure::Waits)) => value,
            };
            let ticket = state.wait_to_send(waiter.waker());
            drop(state);
            let sending = InLine { shared: self, ticket, side: Side::Sends };
            waiter.wait_until(WaitsFor::Room, Deadline::NEVER);
            mem::forget(sending);
            state = self.lock();
            state.leave_sending(ticket);
        }
    }

    fn hand_over(&self, value: T, waiter: &mut Waiter) -> Result<(), SendError<T>> {
        let mut state = self.lock();
        if !state.has_receiver {
            return Err(SendError(value));
        }
        let (ticket, called) = state.offer(value, waiter.waker());
        drop(state);
        let offering = InLine { shared: self, ticket, side: Side::Offers };
        called.wake();
        waiter.wait_until(WaitsFor::Room, Deadline::NEVER);
        mem::forget(offering);
        // Woken as it was received, or as nobody will.
        match self.lock().withdraw(ticket) {
            Some(value) => Err(SendError(value)),
            None => Ok(()),
        }
    }

    /// `Waits` when the deadline has passed, which `timeout` is from now.
    fn receive(&self, timeout: Option<Duration>) -> Result<T, Failure> {
        match self.take() {
            Err(Failure::Waits) => self.wait_to_receive(timeout),
            taken => taken,
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_to_receive(&self, timeout: Option<Duration>) -> Result<T, Failure> {
        let mut waiter = Waiter::for_one_wait();
        let deadline = timeout.map_or(Deadline::NEVER, |timeout| waiter.deadline_after(timeout));
        let (mut is_in_time, mut was_called) = (true, false);
        let mut state = self.lock();
        loop {
            match state.take(was_called) {
                Ok((value, called)) => {
                    drop(state);
                    called.wake();
                    return Ok(value);
                }
                Err(Failure::Waits) if is_in_time => {}
                Err(failure) => return Err(failure),
            }
            let ticket = state.wait_to_receive(waiter.waker(), was_called);
            drop(state);
            let receiving = InLine { shared: self, ticket, side: Side::Receives };
            is_in_time = waiter.wait_until(WaitsFor::Message, deadline);
            mem::forget(receiving);
            state = self.lock();
            was_called = state.leave_receiving(ticket);
        }
    }
}

/// One who waits, until that is over: it may be killed meanwhile, or the wait may panic.
struct InLine<'a, T> {
    shared: &'a Shared<T>,
    ticket: Ticket,
    side: Side,
}

#[derive(Clone, Copy)]
enum Side {
    Sends,
    Offers,
    Receives,
}

impl<T> Drop for InLine<'_, T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let withdrawn = match self.side {
            Side::Receives => {
                state.leave_receiving(self.ticket);
                None
            }
            Side::Sends => {
                state.leave_sending(self.ticket);
                None
            }
            Side::Offers => state.withdraw(self.ticket),
        };
        // What was meant for this one goes to the next.
        let called = state.settle();
        drop(state);
        called.wake();
        drop(withdrawn);
    }
}

/// What the two kinds of senders have in common.
macro_rules! sender {
    ($sender:ident) => {
        impl<T> Clone for $sender<T> {
            fn clone(&self) -> Self {
                self.shared.lock().senders += 1;
                Self { shared: Arc::clone(&self.shared) }
            }
        }

        impl<T> Drop for $sender<T> {
            fn drop(&mut self) {
                let mut state = self.shared.lock();
                state.senders -= 1;
                let called = state.settle();
                drop(state);
                called.wake();
            }
        }

        impl<T> fmt::Debug for $sender<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($sender)).finish_non_exhaustive()
            }
        }
    };
}

/// The sending end of a [`channel`](channel()), as [`std::sync::mpsc::Sender`].
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

sender!(Sender);

impl<T> Sender<T> {
    /// Sends a message, without waiting.
    ///
    /// # Errors
    ///
    /// The message, if the receiver is gone.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.shared.send(message)
    }
}

/// The sending end of a [`sync_channel`], as [`std::sync::mpsc::SyncSender`].
pub struct SyncSender<T> {
    shared: Arc<Shared<T>>,
}

sender!(SyncSender);

impl<T> SyncSender<T> {
    /// Sends a message; waits for room, or with a bound of zero until it is received. If the green
    /// thread is killed meanwhile, the message is dropped, and was not sent.
    ///
    /// # Errors
    ///
    /// The message, if the receiver is gone or goes meanwhile.
    ///
    /// # Panics
    ///
    /// When it has to wait on the hub's own loop.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.shared.send(message)
    }

    /// Sends a message if there is room, or with a bound of zero if someone waits for it.
    ///
    /// # Errors
    ///
    /// The message, with the reason.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.shared.put(message).map_err(|(message, failure)| match failure {
            Failure::Waits => TrySendError::Full(message),
            Failure::Disconnected => TrySendError::Disconnected(message),
        })
    }
}

/// The receiving end of a channel, as [`std::sync::mpsc::Receiver`], but to be shared if so wished.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// Waits for a message.
    ///
    /// # Errors
    ///
    /// When there is none and all senders are gone.
    ///
    /// # Panics
    ///
    /// When it has to wait on the hub's own loop.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.shared.receive(None).map_err(|_| RecvError)
    }

    /// Waits for a message, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// When the time is over; and as [`recv`](Self::recv).
    ///
    /// # Panics
    ///
    /// As [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.shared.receive(Some(timeout)).map_err(|failure| match failure {
            Failure::Waits => RecvTimeoutError::Timeout,
            Failure::Disconnected => RecvTimeoutError::Disconnected,
        })
    }

    /// Takes a message that is there and that nobody else has waited for, without waiting.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.shared.take().map_err(|failure| match failure {
            Failure::Waits => TryRecvError::Empty,
            Failure::Disconnected => TryRecvError::Disconnected,
        })
    }

    /// The messages, waiting for each, until all senders are gone.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter::new(self)
    }

    /// The messages that are there, without waiting.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter::new(self)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.has_receiver = false;
        let discarded = state.discard();
        let called = state.settle();
        drop(state);
        called.wake();
        drop(discarded);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
