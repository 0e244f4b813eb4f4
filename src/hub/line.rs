//! A line of those who wait: first come, first served, and anyone may leave it at any time.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroU64;

/// Room for so many is never given back.
const KEPT: usize = 64;

/// Those who wait, each with what is to be known of it, in the order in which they came.
///
/// One who waits alone, the common case, takes no memory of its own and costs a few stores. Else leaving
/// takes logarithmic time, and places of those who have left from the middle are kept until the line has
/// more of them than of those who wait.
#[derive(Debug)]
pub(crate) struct Line<T> {
    /// None if nobody waits.
    first: Option<(Ticket, T)>,
    waiting: usize,
    /// How many tickets were given.
    given: u64,
    /// Those behind the first, sorted by ticket. Neither the first nor the last is vacant.
    others: VecDeque<Place<T>>,
}

/// Names one who has joined a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(NonZeroU64);

#[derive(Debug)]
struct Place<T> {
    ticket: Ticket,
    /// None: whoever it was has left.
    waiter: Option<T>,
}

impl<T> Line<T> {
    pub(crate) const fn new() -> Self {
        Self { first: None, waiting: 0, given: 0, others: VecDeque::new() }
    }

    /// How many wait.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Joins at the end.
    #[inline(always)]
    pub(crate) fn join(&mut self, waiter: T) -> Ticket {
        self.given = self.given.wrapping_add(1);
        let number = NonZeroU64::new(self.given);
        let ticket = Ticket(number.expect("at one a nanosecond they last for 584 years"));
        if self.is_empty() {
            self.join_alone(ticket, waiter);
        } else {
            self.join_others(ticket, waiter);
        }
        ticket
    }

    /// Joins at the place of a ticket of this line, or of another one whose tickets are used in both.
    #[inline(always)]
    pub(crate) fn join_again(&mut self, ticket: Ticket, waiter: T) {
        if self.is_empty() {
            self.join_alone(ticket, waiter);
        } else {
            self.join_among(ticket, waiter);
        }
    }

    #[inline(always)]
    fn join_alone(&mut self, ticket: Ticket, waiter: T) {
        // There was none: nothing to drop.
        mem::forget(self.first.replace((ticket, waiter)));
        self.waiting = 1;
    }

    /// Inlined: `waiter` needs no address then, where it joins alone.
    #[inline(always)]
    fn join_others(&mut self, ticket: Ticket, waiter: T) {
        self.waiting += 1;
        self.others.push_back(Place { ticket, waiter: Some(waiter) });
    }

    #[inline(never)]
    fn join_among(&mut self, ticket: Ticket, waiter: T) {
        if self.others.back().is_some_and(|last| last.ticket < ticket) {
            return self.join_others(ticket, waiter);
        }
        self.waiting += 1;
        match &mut self.first {
            Some(first) if ticket < first.0 => {
                let (ticket, waiter) = mem::replace(first, (ticket, waiter));
                self.others.push_front(Place { ticket, waiter: Some(waiter) });
            }
            _ => {
                let place = Place { ticket, waiter: Some(waiter) };
                match self.others.binary_search_by_key(&ticket, |place| place.ticket) {
                    Ok(index) => self.others[index] = place,
                    Err(index) => self.others.insert(index, place),
                }
            }
        }
    }

    /// Takes out the first.
    #[inline(always)]
    pub(crate) fn take_first(&mut self) -> Option<T> {
        self.take_first_with_ticket().map(|(_, first)| first)
    }

    /// Takes out the first, and says which ticket that one has.
    #[inline(always)]
    pub(crate) fn take_first_with_ticket(&mut self) -> Option<(Ticket, T)> {
        let first = self.first.take()?;
        self.waiting -= 1;
        if self.waiting > 0 {
            self.move_up();
        }
        Some(first)
    }

    /// Has the next one be the first, who has left.
    #[inline(never)]
    fn move_up(&mut self) {
        if let Some(Place { ticket, waiter: Some(waiter) }) = self.others.pop_front() {
            self.first = Some((ticket, waiter));
        }
        self.tidy();
    }

    /// Takes out the last.
    pub(crate) fn take_last_with_ticket(&mut self) -> Option<(Ticket, T)> {
        let Some(Place { ticket, waiter }) = self.others.pop_back() else {
            return self.take_first_with_ticket();
        };
        self.waiting -= 1;
        self.tidy();
        Some((ticket, waiter?))
    }

    /// Takes out whoever has the ticket, if that one is the first.
    #[inline(always)]
    pub(crate) fn leave_first(&mut self, ticket: Ticket) -> Option<T> {
        let is_first = self.first.as_ref().map(|first| first.0.0) == Some(ticket.0);
        if is_first { self.take_first() } else { None }
    }

    /// Takes out whoever has the ticket; none if that one has been taken out before.
    #[inline]
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<T> {
        if self.others.is_empty() || self.first.as_ref()?.0 == ticket {
            return self.leave_first(ticket);
        }
        self.leave_others(ticket)
    }

    #[inline(never)]
    fn leave_others(&mut self, ticket: Ticket) -> Option<T> {
        let index = self.others.binary_search_by_key(&ticket, |place| place.ticket).ok()?;
        let waiter = self.others[index].waiter.take()?;
        self.waiting -= 1;
        self.tidy();
        Some(waiter)
    }

    fn tidy(&mut self) {
        if self.others.len() + 1 != self.waiting || self.others.capacity() > KEPT {
            self.tidy_up();
        }
    }

    fn tidy_up(&mut self) {
        while self.others.front().is_some_and(|place| place.waiter.is_none()) {
            self.others.pop_front();
        }
        while self.others.back().is_some_and(|place| place.waiter.is_none()) {
            self.others.pop_back();
        }
        if self.others.len() > 2 * self.waiting {
            self.others.retain(|place| place.waiter.is_some());
        }
        if self.others.capacity() > KEPT.max(8 * self.others.len()) {
            self.others.shrink_to(KEPT.max(2 * self.others.len()));
        }
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Line};
    use quickcheck::quickcheck;
    use std::collections::BTreeMap;

    quickcheck! {
        /// `None` takes the first out and a multiple of 3 joins; others say who leaves, and whether
        /// that one comes back to its place.
        fn it_is_a_line_that_anyone_may_leave_and_come_back_to(steps: Vec<Option<u8>>) -> bool {
            let (mut line, mut model, mut tickets) = (Line::new(), BTreeMap::new(), Vec::new());
            steps.into_iter().all(|step| {
                let same = match step {
                    Some(number) if number % 3 == 0 => {
                        let ticket = line.join(number);
                        tickets.push(ticket);
                        model.insert(ticket, number).is_none()
                    }
                    Some(number) if tickets.is_empty() => number % 3 > 0,
                    Some(number) => {
                        let ticket = tickets[usize::from(number) % tickets.len()];
                        let is_first = model.keys().next() == Some(&ticket);
                        let left = if number % 2 == 0 { None } else { line.leave_first(ticket) };
                        let same = is_first || left.is_none();
                        let left = left.or_else(|| line.leave(ticket));
                        let same = same && left == model.remove(&ticket);
                        if number % 3 == 1 {
                            line.join_again(ticket, number);
                            model.insert(ticket, number);
                        }
                        same
                    }
                    None if model.len() % 3 == 0 => line.take_last_with_ticket() == model.pop_last(),
                    None => line.take_first_with_ticket() == model.pop_first(),
                };
                let others = line.others.iter().filter_map(|place| place.waiter);
                let waiting = line.first.iter().map(|(_, waiter)| *waiter).chain(others);
                same && waiting.eq(model.values().copied())
                    && line.len() == model.len()
                    && line.is_empty() == model.is_empty()
                    && line.others.len() <= 2 * model.len()
            })
        }
    }

    #[test]
    fn a_line_gives_back_its_memory() {
        let mut line = Line::new();
        let tickets: Vec<_> = (0..10_000).map(|number| line.join(number)).collect();
        assert!(line.others.capacity() >= 10_000);
        for ticket in &tickets[1..] {
            line.leave(*ticket);
        }
        assert_eq!(line.take_first(), Some(0));
        assert!(line.others.capacity() <= 2 * KEPT, "{}", line.others.capacity());
    }
}
