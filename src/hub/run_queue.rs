//! Who waits for what, and who can run: the hub's table of waits and its queue of runnable
//! greenlets.
//!
//! Each wait of a greenlet has a [`WaitId`] of its own. A wake-up names the wait that it ends; when
//! that wait is over already (it was woken, timed out, or its greenlet was killed) the wake-up
//! finds it at another turn and does nothing. So nothing that was meant for an earlier wait ever
//! ends a later one.
//!
//! | a wait is | until |
//! |---|---|
//! | begun | the greenlet parks, or stands in the queue at once |
//! | parked | someone wakes it |
//! | woken: it stands in the queue | its turn comes |
//! | over | |
//!
//! A greenlet is in one wait at a time, at its place in the table; beginning another ends the one
//! before.

use std::mem;

use super::ring::Queue;
use super::{WaitId, WaitsFor, Wake};
use crate::clock::Time;
use crate::greenlet::{self, Greenlet};

/// So many greenlets are taken to be in the processor's first cache.
const CACHED: usize = 64;

/// So many cache lines of stack are touched by one that comes back from waiting for a descriptor, with the
/// function that reads or writes and the beginning of its buffer; from another wait; and from its turn.
const LINES_OF_IO: usize = 16;
const LINES_OF_WAIT: usize = 8;
const LINES_OF_TURN: usize = 1;

/// A parked greenlet.
#[derive(Debug)]
struct Parked {
    greenlet: Greenlet<Wake>,
    /// The wait's, as its greenlet has it: who wakes it does not read that one's block, which may not be
    /// in the processor's caches.
    turn: u32,
    waits_for: WaitsFor,
    /// When it was parked, to within a pass of the mainloop; zero if that is not noted.
    since: Time,
}

/// Beside a greenlet in the queue: why it stands there.
#[derive(Clone, Copy, Debug)]
struct Reason {
    /// The wait that ends by this.
    turn: u32,
    /// What it is to be told when its turn comes.
    wake: Wake,
}

impl Default for Reason {
    fn default() -> Self {
        Self { turn: 0, wake: Wake::Ready }
    }
}

/// What came out of the queue.
pub(super) enum Next {
    /// A greenlet to resume.
    Run(Greenlet<Wake>, Wake),
    /// One that has ended, or was killed and does not wait for its turn any more: to be dropped.
    /// Not here, as its destructors may come back to the queue.
    Stale(Greenlet<Wake>),
    /// Nothing: the queue is empty, or its first is not accepted.
    Nothing,
}

/// Why the next in the queue cannot be handed over to: there is none, or it is for the mainloop to start,
/// or what stands there is stale.
pub(super) struct NoneActive {
    pub(super) is_stale: bool,
}

/// The waits of one hub's greenlets, and the runnable ones in the order in which they were woken.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    /// By the greenlets' places.
    parked: Vec<Option<Parked>>,
    runnable: Queue<Greenlet<Wake>, Reason>,
    /// Whether the poller has woken some. Between two of these that read and write, the kernel has the
    /// processor's first cache for itself, so that even a few of them are not in it.
    pub(super) do_io: bool,
}

impl RunQueue {
    /// Parks the greenlet of a wait that has begun and is not over.
    #[inline(always)]
    pub(super) fn park(
        &mut self,
        id: WaitId,
        greenlet: Greenlet<Wake>,
        waits_for: WaitsFor,
        since: Time,
    ) {
        let index = id.place as usize;
        if index >= self.parked.len() {
            self.make_room(index);
        }
        // Made where it is to be: to copy what was just written in parts stalls the processor.
        if let Some(place) = self.parked.get_mut(index) {
            if place.is_some() {
                forget_wait_before(place);
            }
            mem::forget(place.replace(Parked { greenlet, turn: id.turn, waits_for, since }));
        }
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, index: usize) {
        self.parked.resize_with(index + 1, || None);
    }

    /// Ends the parking of a wait, if it is parked, and returns its greenlet.
    #[inline(always)]
    pub(super) fn unpark(&mut self, id: WaitId) -> Option<Greenlet<Wake>> {
        let place = self.parked.get_mut(id.place as usize)?;
        if place.as_ref()?.turn != id.turn {
            return None;
        }
        Some(place.take()?.greenlet)
    }

    /// The greenlet of a wait that is parked, or woken and has not had its turn.
    pub(super) fn find(&self, id: WaitId) -> Option<&Greenlet<Wake>> {
        let is_its =
            |greenlet: &&Greenlet<Wake>| greenlet.place() == id.place && greenlet.turn() == id.turn;
        let parked = self.parked.get(id.place as usize).and_then(Option::as_ref);
        let runnable = || self.runnable.iter().map(|(greenlet, _)| greenlet);
        parked.map(|parked| &parked.greenlet).filter(is_its).or_else(|| runnable().find(is_its))
    }

    /// Makes the wait's greenlet runnable, behind all that are. False if the wait is not parked any
    /// more.
    #[inline(always)]
    pub(super) fn wake(&mut self, id: WaitId, wake: Wake) -> bool {
        match self.unpark(id) {
            Some(greenlet) => {
                self.push(greenlet, id, wake);
                true
            }
            None => false,
        }
    }

    /// Puts a greenlet into the queue for the end of a wait that is not parked.
    #[inline(always)]
    pub(super) fn push(&mut self, greenlet: Greenlet<Wake>, id: WaitId, wake: Wake) {
        self.runnable.push(greenlet, Reason { turn: id.turn, wake });
    }

    /// Has one of the queue, which `choose` picks out of so many, be the next.
    pub(super) fn choose_next(&mut self, choose: impl FnOnce(usize) -> usize) {
        let len = self.runnable.len();
        if len > 1 {
            self.runnable.swap_first(choose(len));
        }
    }

    /// Takes the next runnable greenlet out of the queue, if `accept` takes it; else it stays.
    #[inline(always)]
    pub(super) fn next_if(&mut self, accept: impl Fn(&Greenlet<Wake>) -> bool) -> Next {
        let Some((first, reason)) = self.runnable.front() else { return Next::Nothing };
        let is_pending = first.turn() == reason.turn && !first.is_dead();
        if is_pending && !accept(first) {
            return Next::Nothing;
        }
        match self.runnable.pop() {
            Some((greenlet, Reason { wake, .. })) if is_pending => {
                self.prefetch_after_wait();
                Next::Run(greenlet, wake)
            }
            Some((greenlet, _)) => Next::Stale(greenlet),
            None => Next::Nothing,
        }
    }

    /// Takes the next runnable greenlet out of the queue for the one at `place`, which parks, to hand
    /// over to.
    #[inline(always)]
    pub(super) fn next_for(&mut self, place: u32) -> Result<(Greenlet<Wake>, Wake), NoneActive> {
        let popped = self.runnable.pop_if(|first, reason| {
            // From the root, which is at place 0, a new one is reached by way of the mainloop.
            first.turn() == reason.turn && (first.is_active() || place > 0 && !first.is_dead())
        });
        let Some((next, Reason { wake, .. })) = popped else { return Err(self.none_active()) };
        self.prefetch_after_wait();
        Ok((next, wake))
    }

    #[inline(never)]
    fn none_active(&self) -> NoneActive {
        let is_stale = |(first, reason): (&Greenlet<Wake>, Reason)| {
            first.turn() != reason.turn || first.is_dead()
        };
        NoneActive { is_stale: self.runnable.front().is_some_and(is_stale) }
    }

    /// Takes the next runnable greenlet out of the queue for one that has ended, to leave for it: unless
    /// it is the root, or there is anything out of the ordinary about it.
    #[inline(always)]
    pub(super) fn next_for_ended(&mut self) -> Option<(Greenlet<Wake>, Wake)> {
        let (next, Reason { wake, .. }) = self.runnable.pop_if(|first, reason| {
            first.turn() == reason.turn && first.place() > 0 && first.takes_its_type()
        })?;
        self.prefetch_after_wait();
        Some((next, wake))
    }

    /// Takes the next runnable greenlet out of the queue and puts the current one at its end, if
    /// there is nothing out of the ordinary about either.
    #[inline(always)]
    pub(super) fn rotate(&mut self) -> Option<(Greenlet<Wake>, Wake)> {
        let (next, Reason { wake, .. }, others) = self.runnable.rotate(|first, reason| {
            if first.turn() != reason.turn || !first.is_active() {
                return None;
            }
            let current = greenlet::current_undisturbed()?;
            let turn = current.begin_turn();
            Some((current, Reason { turn, wake: Wake::Ready }))
        })?;
        if others > CACHED {
            self.prefetch::<LINES_OF_TURN>();
        }
        Some((next, wake))
    }

    /// Has the processor fetch what the next turns read, of greenlets that come back from a wait.
    #[inline(always)]
    fn prefetch_after_wait(&self) {
        if self.do_io {
            self.prefetch::<LINES_OF_IO>();
        } else if self.runnable.is_longer_than(CACHED) {
            // A few greenlets are in the processor's caches anyway.
            self.prefetch::<LINES_OF_WAIT>();
        }
    }

    /// Has the processor fetch what the next two turns read: the block of the second, and the frame
    /// of the first, whose block was fetched a turn ago.
    #[inline(never)]
    fn prefetch<const LINES: usize>(&self) {
        let Some(next) = self.runnable.get_other(0) else { return };
        next.prefetch_frames::<LINES>();
        if let Some(second) = self.runnable.get_other(1) {
            second.prefetch();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many stand in the queue.
    pub(super) fn len(&self) -> usize {
        self.runnable.len()
    }

    /// Empties the table and the queue, and returns all that were in them.
    pub(super) fn take_all(&mut self) -> Vec<Greenlet<Wake>> {
        let parked = mem::take(&mut self.parked).into_iter().flatten();
        let runnable = mem::take(&mut self.runnable);
        parked.map(|parked| parked.greenlet).chain(runnable.into_items()).collect()
    }

    /// All greenlets that are parked, what for, and since when; zero if that was not noted.
    pub(super) fn parked(&self) -> impl Iterator<Item = (&Greenlet<Wake>, WaitsFor, Time)> {
        let all = self.parked.iter().flatten();
        all.map(|parked| (&parked.greenlet, parked.waits_for, parked.since))
    }

    /// Those that stand in the queue, and would run at their turn.
    pub(super) fn ready(&self) -> impl Iterator<Item = &Greenlet<Wake>> {
        let all = self.runnable.iter();
        all.filter(|(greenlet, reason)| greenlet.turn() == reason.turn)
            .map(|(greenlet, _)| greenlet)
    }
}

/// Takes a greenlet out that has been thrown out of its wait and waits anew before that has unwound, as it
/// does where a tracer blocks. The caller has another handle to it.
#[cold]
#[inline(never)]
fn forget_wait_before(place: &mut Option<Parked>) {
    *place = None;
}
