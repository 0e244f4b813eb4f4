//! A line of those who wait: first come, first served, and anyone may leave it at any time.

use std::collections::VecDeque;

/// Room for so many is never given back.
const KEPT: usize = 64;

/// Those who wait, each with what is to be known of it, in the order in which they came.
///
/// Leaving takes logarithmic time. Places of those who have left from the middle are kept until the
/// line has more of them than of those who wait.
#[derive(Debug)]
pub(crate) struct Line<T> {
    /// Sorted by ticket. Neither the first nor the last is vacant.
    places: VecDeque<Place<T>>,
    waiting: usize,
    next: u64,
}

/// Names one who has joined a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
struct Place<T> {
    ticket: Ticket,
    /// None: whoever it was has left.
    waiter: Option<T>,
}

impl<T> Line<T> {
    pub(crate) const fn new() -> Self {
        Self { places: VecDeque::new(), waiting: 0, next: 0 }
    }

    /// How many wait.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Joins at the end.
    #[inline]
    pub(crate) fn join(&mut self, waiter: T) -> Ticket {
        let ticket = Ticket(self.next);
        // At one a nanosecond they last for 584 years.
        self.next += 1;
        self.waiting += 1;
        self.places.push_back(Place { ticket, waiter: Some(waiter) });
        ticket
    }

    /// Joins at the place of a ticket of this line, or of another one whose tickets are used in both.
    #[inline]
    pub(crate) fn join_again(&mut self, ticket: Ticket, waiter: T) {
        self.waiting += 1;
        let place = Place { ticket, waiter: Some(waiter) };
        if self.places.back().is_none_or(|last| last.ticket < ticket) {
            return self.places.push_back(place);
        }
        match self.places.binary_search_by_key(&ticket, |place| place.ticket) {
            Ok(index) => self.places[index] = place,
            Err(index) => self.places.insert(index, place),
        }
    }

    /// Takes out the first.
    #[inline]
    pub(crate) fn take_first(&mut self) -> Option<T> {
        self.take_first_with_ticket().map(|(_, first)| first)
    }

    /// Takes out the first, and says which ticket that one has.
    #[inline]
    pub(crate) fn take_first_with_ticket(&mut self) -> Option<(Ticket, T)> {
        let Place { ticket, waiter } = self.places.pop_front()?;
        self.waiting -= 1;
        self.tidy();
        Some((ticket, waiter?))
    }

    /// Takes out the last.
    pub(crate) fn take_last_with_ticket(&mut self) -> Option<(Ticket, T)> {
        let Place { ticket, waiter } = self.places.pop_back()?;
        self.waiting -= 1;
        self.tidy();
        Some((ticket, waiter?))
    }

    /// Takes out whoever has the ticket; none if that one has been taken out before.
    #[inline]
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<T> {
        if self.places.front()?.ticket == ticket {
            return self.take_first();
        }
        let index = self.places.binary_search_by_key(&ticket, |place| place.ticket).ok()?;
        let waiter = self.places[index].waiter.take()?;
        self.waiting -= 1;
        self.tidy();
        Some(waiter)
    }

    #[inline]
    fn tidy(&mut self) {
        if self.places.len() != self.waiting || self.places.capacity() > KEPT {
            self.tidy_up();
        }
    }

    fn tidy_up(&mut self) {
        while self.places.front().is_some_and(|place| place.waiter.is_none()) {
            self.places.pop_front();
        }
        while self.places.back().is_some_and(|place| place.waiter.is_none()) {
            self.places.pop_back();
        }
        if self.places.len() > 2 * self.waiting + 2 {
            self.places.retain(|place| place.waiter.is_some());
        }
        if self.places.capacity() > KEPT.max(8 * self.places.len()) {
            self.places.shrink_to(KEPT.max(2 * self.places.len()));
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
                        let left = line.leave(ticket);
                        let same = left == model.remove(&ticket);
                        if number % 3 == 1 {
                            line.join_again(ticket, number);
                            model.insert(ticket, number);
                        }
                        same
                    }
                    None if model.len() % 3 == 0 => line.take_last_with_ticket() == model.pop_last(),
                    None => line.take_first_with_ticket() == model.pop_first(),
                };
                let waiting = line.places.iter().filter_map(|place| place.waiter);
                same && waiting.eq(model.values().copied())
                    && line.len() == model.len()
                    && line.is_empty() == model.is_empty()
                    && line.places.len() <= 2 * model.len() + 3
            })
        }
    }

    #[test]
    fn a_line_gives_back_its_memory() {
        let mut line = Line::new();
        let tickets: Vec<_> = (0..10_000).map(|number| line.join(number)).collect();
        assert!(line.places.capacity() >= 10_000);
        for ticket in &tickets[1..] {
            line.leave(*ticket);
        }
        assert_eq!(line.take_first(), Some(0));
        assert!(line.places.capacity() <= 2 * KEPT, "{}", line.places.capacity());
    }
}
