//! What goes into a poller and what comes out: tokens, interests, events.
//!
//! Layer 4, sources. The translation between these words and the kernel's flags is done here, by
//! functions that touch nothing else.

use std::fmt;

use crate::sys::epoll::{self, RawEvent};

/// The name under which a descriptor was added; its events carry it.
///
/// A slot (an index into the caller's table of descriptors) and a generation. Whoever uses a slot
/// again gives it the next generation, and recognises events that were meant for the former user by
/// theirs: the poller hands them out, for it does not know what has become of a slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl Token {
    /// One that no descriptor can have (both numbers are `u32::MAX`), as none that has this slot: the
    /// poller's own.
    pub const RESERVED: Token = Token(u64::MAX);

    /// The token of a slot and its generation.
    pub const fn new(slot: u32, generation: u32) -> Token {
        Token((generation as u64) << 32 | slot as u64)
    }

    /// The index into the caller's table.
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// Which use of the slot it is.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The number that the kernel keeps.
    pub(super) const fn to_data(self) -> u64 {
        self.0
    }

    pub(super) const fn from_data(data: u64) -> Token {
        Token(data)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.{})", self.slot(), self.generation())
    }
}

/// Which directions of a descriptor to report, and whether on change or as long as they last.
///
/// Errors and hang-ups are always reported. The constants report changes (edge-triggered): one
/// event when something arrives or room appears, and no other until more does, so the reader reads
/// until it gets less than it asked for. [`level`](Interest::level) makes a level-triggered one of
/// them: an event at every wait for as long as there is something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interest(u32);

impl Interest {
    /// Reading only.
    pub const READABLE: Interest = Interest(epoll::IN | epoll::PRI | epoll::RDHUP | epoll::EDGE);
    /// Writing only.
    pub const WRITABLE: Interest = Interest(epoll::OUT | epoll::EDGE);
    /// Both directions.
    pub const BOTH: Interest = Interest(Interest::READABLE.0 | Interest::WRITABLE.0);

    /// Whether reading is among the directions.
    pub const fn is_readable(self) -> bool {
        self.0 & epoll::IN != 0
    }

    /// Whether writing is among the directions.
    pub const fn is_writable(self) -> bool {
        self.0 & epoll::OUT != 0
    }

    /// The same directions, reported as long as they last.
    pub const fn level(self) -> Interest {
        Interest(self.0 & !epoll::EDGE)
    }

    /// As the kernel wants it.
    pub(super) const fn to_flags(self) -> u32 {
        self.0
    }
}

/// Something that happened to one descriptor.
///
/// It is a hint: by the time it is looked at, the descriptor may have changed again, so reading and
/// writing must bear with [`WouldBlock`](std::io::ErrorKind::WouldBlock). A stream socket that is
/// not connected yet reports a hang-up.
#[derive(Clone, Copy)]
pub struct Event {
    token: Token,
    flags: u32,
}

impl Event {
    /// The name under which the descriptor was added.
    pub const fn token(self) -> Token {
        self.token
    }

    /// Whether whoever waits to read should try: there is data, a connection to accept, an end of
    /// the stream, or an error to be fetched.
    pub const fn is_readable(self) -> bool {
        self.flags & (epoll::IN | epoll::PRI | epoll::RDHUP | epoll::HUP | epoll::ERR) != 0
    }

    /// Whether whoever waits to write should try: there is room, or an error to be fetched.
    pub const fn is_writable(self) -> bool {
        self.flags & (epoll::OUT | epoll::HUP | epoll::ERR) != 0
    }

    /// Whether there is urgent data: on a TCP stream a read stops short of what follows it.
    pub const fn is_urgent(self) -> bool {
        self.flags & epoll::PRI != 0
    }

    /// Whether the peer will send no more (what it sent before may still be unread).
    pub const fn is_read_closed(self) -> bool {
        self.flags & (epoll::RDHUP | epoll::HUP) != 0
    }

    /// Whether both directions are closed.
    pub const fn is_hangup(self) -> bool {
        self.flags & epoll::HUP != 0
    }

    /// Whether the descriptor has failed; for a socket, `take_error` tells how. Writing ends of
    /// pipes report it when nobody can read any more.
    pub const fn is_error(self) -> bool {
        self.flags & epoll::ERR != 0
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("token", &self.token)
            .field("readable", &self.is_readable())
            .field("writable", &self.is_writable())
            .field("urgent", &self.is_urgent())
            .field("read_closed", &self.is_read_closed())
            .field("hangup", &self.is_hangup())
            .field("error", &self.is_error())
            .finish()
    }
}

/// Room for what one wait brings, and what the last one brought.
///
/// Events beyond its capacity are not lost: the next wait brings them, and the kernel takes turns
/// among descriptors, so a small room is fair too.
pub struct Events {
    /// As many as there is room for, written by the kernel.
    buffer: Box<[RawEvent]>,
    /// How many at the front are of the last wait.
    len: usize,
    /// Whether the last wait was notified.
    notified: bool,
}

impl Events {
    /// How many events [`Events::new`] has room for: 12 KiB.
    pub const DEFAULT_CAPACITY: usize = 1024;

    /// Room for [`DEFAULT_CAPACITY`](Events::DEFAULT_CAPACITY) events.
    pub fn new() -> Events {
        Events::with_capacity(Events::DEFAULT_CAPACITY)
    }

    /// Room for `capacity` events, and for one if that is zero.
    pub fn with_capacity(capacity: usize) -> Events {
        let buffer = vec![RawEvent::EMPTY; capacity.max(1)].into_boxed_slice();
        Events { buffer, len: 0, notified: false }
    }

    /// The most that one wait can bring.
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// How many the last wait brought. A notification is not counted.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the last wait brought none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the last wait was ended by [`notify`](super::Poller::notify), or found that it had
    /// been called since the wait before.
    pub fn is_notified(&self) -> bool {
        self.notified
    }

    /// One event by its number, from 0 to [`len`](Events::len); for loops that cannot keep a
    /// borrow.
    pub fn get(&self, index: usize) -> Option<Event> {
        self.buffer[..self.len].get(index).map(translated)
    }

    /// The events of the last wait.
    pub fn iter(&self) -> Iter<'_> {
        Iter { raw: self.buffer[..self.len].iter() }
    }

    /// Forgets the events of the last wait.
    pub fn clear(&mut self) {
        self.len = 0;
        self.notified = false;
    }

    /// Where the kernel writes.
    pub(super) fn buffer_mut(&mut self) -> &mut [RawEvent] {
        &mut self.buffer
    }

    /// Takes over the first `len` that the kernel wrote, without those of the poller's own
    /// descriptors among them.
    pub(super) fn filled(&mut self, len: usize) {
        let token = |raw: &RawEvent| Token::from_data(raw.data());
        let own = |raw: &RawEvent| token(raw).slot() == Token::RESERVED.slot();
        self.len = len;
        while let Some(index) = self.buffer[..self.len].iter().position(own) {
            self.notified |= token(&self.buffer[index]) == Token::RESERVED;
            // The last event takes its place; the order of events means nothing.
            self.len -= 1;
            self.buffer.swap(index, self.len);
        }
    }
}

impl Default for Events {
    fn default() -> Events {
        Events::new()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = Event;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Goes through the events of one wait; made by [`Events::iter`].
#[derive(Clone)]
pub struct Iter<'a> {
    raw: std::slice::Iter<'a, RawEvent>,
}

impl Iterator for Iter<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.raw.next().map(translated)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.raw.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// The event that the kernel's structure stands for.
fn translated(raw: &RawEvent) -> Event {
    Event { token: Token::from_data(raw.data()), flags: raw.flags() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(flags: u32) -> Event {
        Event { token: Token::new(0, 0), flags }
    }

    #[test]
    fn a_token_keeps_slot_and_generation_apart() {
        let token = Token::new(7, u32::MAX);
        assert_eq!((token.slot(), token.generation()), (7, u32::MAX));
        assert_eq!(Token::from_data(token.to_data()), token);
        assert_ne!(Token::new(1, 2), Token::new(2, 1));
        assert_eq!(format!("{token:?}"), "Token(7.4294967295)");
    }

    #[test]
    fn both_directions_ask_for_everything_on_change() {
        let flags = epoll::IN | epoll::PRI | epoll::OUT | epoll::RDHUP | epoll::EDGE;
        assert_eq!(Interest::BOTH.to_flags(), flags);
        assert_eq!(Interest::BOTH.level().to_flags(), flags & !epoll::EDGE);
        assert_eq!(Interest::WRITABLE.level().to_flags(), epoll::OUT);
    }

    #[test]
    fn an_interest_knows_its_directions() {
        let directions = |interest: Interest| (interest.is_readable(), interest.is_writable());
        assert_eq!(directions(Interest::READABLE.level()), (true, false));
        assert_eq!(directions(Interest::WRITABLE), (false, true));
        assert_eq!(directions(Interest::BOTH), (true, true));
    }

    #[test]
    fn an_error_or_a_hangup_wakes_both_directions() {
        for flags in [epoll::ERR, epoll::HUP] {
            assert!(event(flags).is_readable() && event(flags).is_writable());
        }
        assert!(event(epoll::ERR).is_error() && !event(epoll::ERR).is_hangup());
        assert!(event(epoll::HUP).is_hangup() && !event(epoll::HUP).is_error());
    }

    #[test]
    fn data_and_room_wake_one_direction_each() {
        assert!(event(epoll::IN).is_readable() && !event(epoll::IN).is_writable());
        assert!(event(epoll::OUT).is_writable() && !event(epoll::OUT).is_readable());
        assert!(!event(epoll::IN).is_read_closed());
    }

    #[test]
    fn the_end_of_a_stream_wakes_readers_only() {
        let end = event(epoll::IN | epoll::RDHUP);
        assert!(end.is_readable() && end.is_read_closed());
        assert!(!end.is_writable() && !end.is_hangup());
    }
}
