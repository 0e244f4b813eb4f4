//! What a channel's ends share: messages, and two lines of those who wait.
//!
//! Who waits stands in a line. The first in line is *called* when there is a message (or room) for
//! it, which is from then on its own: it is counted as a claim until whoever was called comes and
//! takes it, or is killed and leaves it to the next. Who comes later takes only what nobody has
//! claimed. So a line is served in order, and a waiter that never comes back loses nothing.

use std::collections::VecDeque;
use std::mem;

use crate::hub::Waker;

/// Names one who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// Those who wait for one thing.
#[derive(Default)]
pub(super) struct Line {
    waiting: VecDeque<(Ticket, Waker)>,
    /// How many were called and have not come yet.
    claims: usize,
}

impl Line {
    /// Takes one who waits out of the line, before it is called.
    fn remove(&mut self, ticket: Ticket) -> Option<Waker> {
        let index = self.waiting.iter().position(|(waiting, _)| *waiting == ticket)?;
        Some(self.waiting.remove(index)?.1)
    }

    fn call_first(&mut self, called: &mut Called) -> bool {
        let first = self.waiting.pop_front();
        self.claims += usize::from(first.is_some());
        called.0.extend(first.map(|(_, waker)| waker));
        !self.waiting.is_empty()
    }

    fn call_all(&mut self, called: &mut Called) {
        self.claims += self.waiting.len();
        called.0.extend(mem::take(&mut self.waiting).into_iter().map(|(_, waker)| waker));
    }

    /// Ends the waiting of one, and says whether it had been called.
    fn leave(&mut self, ticket: Ticket) -> bool {
        let was_called = self.remove(ticket).is_none();
        self.claims -= usize::from(was_called);
        was_called
    }
}

/// Those who are to be woken, when the lock is free.
#[derive(Default)]
#[must_use]
pub(super) struct Called(Vec<Waker>);

impl Called {
    pub(super) fn wake(self) {
        for waker in self.0 {
            waker.wake_directly();
        }
    }
}

struct Item<T> {
    value: T,
    /// Who waits until it is received.
    sender: Option<Ticket>,
}

/// A channel.
pub(super) struct State<T> {
    items: VecDeque<Item<T>>,
    /// How many messages fit; none is without limit, zero is to hand over.
    bound: Option<usize>,
    pub(super) senders: usize,
    pub(super) has_receiver: bool,
    tickets: u64,
    receiving: Line,
    sending: Line,
}

/// What a try has come to that did not succeed.
pub(super) enum Failure {
    /// It would have to wait.
    Waits,
    /// The other end is gone.
    Disconnected,
}

impl<T> State<T> {
    pub(super) fn new(bound: Option<usize>) -> Self {
        Self {
            items: VecDeque::new(),
            bound,
            senders: 1,
            has_receiver: true,
            tickets: 0,
            receiving: Line::default(),
            sending: Line::default(),
        }
    }

    pub(super) fn hands_over(&self) -> bool {
        self.bound == Some(0)
    }

    /// Calls all for whom there is something.
    pub(super) fn settle(&mut self) -> Called {
        let mut called = Called::default();
        while self.items.len() > self.receiving.claims && self.receiving.call_first(&mut called) {}
        if self.senders == 0 && self.items.is_empty() {
            self.receiving.call_all(&mut called);
        }
        while self.has_room() && self.sending.call_first(&mut called) {}
        if !self.has_receiver {
            self.sending.call_all(&mut called);
        }
        called
    }

    fn has_room(&self) -> bool {
        self.bound.is_none_or(|bound| self.items.len() + self.sending.claims < bound)
    }

    /// Takes the first message, for one that was called and has left its line, or else the first
    /// that nobody has claimed; and calls the sender that waits for that.
    pub(super) fn take(&mut self, was_called: bool) -> Result<(T, Called), Failure> {
        let claims = self.receiving.claims;
        if self.items.len() <= claims {
            let over = self.senders == 0 && self.items.is_empty();
            return Err(if over { Failure::Disconnected } else { Failure::Waits });
        }
        let taken = self.items.remove(if was_called { 0 } else { claims });
        let Item { value, sender } = taken.expect("there are more than the claims");
        let mut called = self.settle();
        called.0.extend(sender.and_then(|ticket| self.sending.remove(ticket)));
        Ok((value, called))
    }

    /// Puts a message in, if nobody has to wait for that.
    pub(super) fn put(&mut self, value: T) -> Result<Called, (T, Failure)> {
        if !self.has_receiver {
            return Err((value, Failure::Disconnected));
        }
        // To hand over, someone must be there who takes it.
        let is_awaited = self.hands_over() && !self.receiving.waiting.is_empty();
        if !is_awaited && !self.has_room() {
            return Err((value, Failure::Waits));
        }
        self.items.push_back(Item { value, sender: None });
        Ok(self.settle())
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Puts a receiver into its line: at the end, or in front if what it was called for is gone.
    pub(super) fn wait_to_receive(&mut self, waker: Waker, was_called: bool) -> Ticket {
        let ticket = self.ticket();
        if was_called {
            self.receiving.waiting.push_front((ticket, waker));
        } else {
            self.receiving.waiting.push_back((ticket, waker));
        }
        ticket
    }

    /// Takes a receiver out of its line, and says whether it had been called.
    pub(super) fn leave_receiving(&mut self, ticket: Ticket) -> bool {
        self.receiving.leave(ticket)
    }

    /// Puts a sender into its line.
    pub(super) fn wait_to_send(&mut self, waker: Waker) -> Ticket {
        let ticket = self.ticket();
        self.sending.waiting.push_back((ticket, waker));
        ticket
    }

    /// Takes a sender out of its line.
    pub(super) fn leave_sending(&mut self, ticket: Ticket) {
        self.sending.leave(ticket);
    }

    /// Offers a message to be handed over to the next who receives.
    pub(super) fn offer(&mut self, value: T, waker: Waker) -> (Ticket, Called) {
        let ticket = self.wait_to_send(waker);
        self.items.push_back(Item { value, sender: Some(ticket) });
        (ticket, self.settle())
    }

    /// Takes back an offer, if nobody has received it.
    pub(super) fn withdraw(&mut self, ticket: Ticket) -> Option<T> {
        let index = self.items.iter().position(|item| item.sender == Some(ticket))?;
        // Called, but not to take any room, if the receiver is gone.
        self.sending.leave(ticket);
        Some(self.items.remove(index)?.value)
    }

    /// Takes out what nobody will receive. What is only offered is left to those who offer it.
    pub(super) fn discard(&mut self) -> Vec<T> {
        let (offers, rest) =
            mem::take(&mut self.items).into_iter().partition(|item| item.sender.is_some());
        self.items = offers;
        let rest: VecDeque<Item<T>> = rest;
        rest.into_iter().map(|item| item.value).collect()
    }
}
