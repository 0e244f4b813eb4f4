//! Introspection: which greenlets there are, what they are called, and where the suspended ones wait.
#![allow(unsafe_code)]

use std::backtrace::Backtrace;
use std::fmt;
use std::mem::MaybeUninit;
use std::process::abort;

use super::Greenlet;
use super::block::{Block, Stage};
use super::handle::Handle;
use super::transfer::{self, Event};
use super::{thread, unwinding};
use crate::arch::Word;

/// So much of a stack must be left for a backtrace to be captured on it, in bytes. It takes two pages
/// of that, or three.
const ROOM_BYTES: usize = 12 * 1024;

/// What a visitor awaits: that its host has seen it off.
struct Visited;

/// What a visitor asks of the greenlet that it visits.
struct Visit<'a> {
    from: *const Block,
    run: &'a mut dyn FnMut(),
}

impl<T: 'static> Greenlet<T> {
    /// Where this greenlet waits: a backtrace captured on its own stack, whatever
    /// `RUST_BACKTRACE` says. Of the current greenlet it is that of this call.
    ///
    /// Nothing else changes: the greenlet goes on waiting for what it waits for. None if it has not
    /// started, is dead, or has too little of its stack left (less than 12 KiB), and when its thread
    /// is exiting.
    ///
    /// Capturing is cheap beside printing, which looks up names and needs much more stack: print on
    /// the thread's own.
    ///
    /// ```
    /// use stolon::greenlet::{self, Greenlet};
    ///
    /// #[inline(never)]
    /// fn wait_here(main: &Greenlet) {
    ///     main.switch(()).unwrap();
    /// }
    /// let main = greenlet::current::<()>();
    /// let waits = Greenlet::new(move |()| wait_here(&main));
    /// waits.switch(()).unwrap();
    /// assert!(waits.backtrace().unwrap().to_string().contains("wait_here"));
    /// ```
    pub fn backtrace(&self) -> Option<Backtrace> {
        if self.is_current() {
            return Some(Backtrace::force_capture());
        }
        let mut captured = None;
        visit(&self.handle, &mut || captured = Some(Backtrace::force_capture()));
        captured
    }
}

/// All greenlets of this thread that are not dead, the oldest first: so the root is the first.
///
/// For debugging: [`Greenlet`]'s `Debug` tells their names, states and parents,
/// [`Greenlet::backtrace`] where they wait. While there is a handle from here a greenlet is not
/// killed for want of one.
///
/// ```
/// use stolon::greenlet::{self, Greenlet};
///
/// let _child = Greenlet::builder().name("child").build(|()| ())?;
/// let text = format!("{:?}", greenlet::all());
/// assert_eq!(text, "[Greenlet(main current), Greenlet('child' pending, parent main)]");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
///
/// When the thread is past the point in its exit at which its greenlets ended.
pub fn all() -> Vec<Greenlet> {
    let current = thread::current();
    let root = thread::root_of(&current);
    let living = current.thread.registry.living().into_iter().rev();
    // What was abandoned neither waits nor runs.
    let alive = living.filter(|block| block.waits() || block.is_current());
    [root].into_iter().chain(alive).map(|block| Greenlet::from_handle(block.handle())).collect()
}

/// Runs `run` on the stack of a suspended greenlet, if `host` is one with room for it. It must
/// neither switch nor panic, nor run code of the user's.
fn visit(host: &Handle, run: &mut dyn FnMut()) {
    let has_room = host.free_bytes().is_none_or(|bytes| bytes >= ROOM_BYTES);
    if host.stage.get() != Stage::Started || !host.waits() || !has_room {
        return;
    }
    let visit = Visit { from: transfer::current_ptr(), run };
    let word = MaybeUninit::new((&raw const visit).cast_mut().cast());
    let (_, event) = unwinding::aside(|| {
        // SAFETY: `host` waits and has started: so it is suspended, of this thread, and receives by
        // `Arrival::receive_other`, which passes the word of a visit to `receive`. `visit` stays where
        // it is until that has sent this greenlet back.
        unsafe { transfer::transfer::<Visited>(host.as_ptr(), word, Event::Visit) }
    });
    if event != Event::Visit as usize {
        // `run` has switched, and somebody raises something here while it may still be used.
        abort();
    }
}

/// Receives a visitor on the current greenlet, and goes on waiting for a `T`; returns what comes
/// next.
///
/// # Safety
///
/// `word` came with [`Event::Visit`], just now, to a greenlet that awaited a `T`.
pub(super) unsafe fn receive<T: 'static>(word: Word) -> (Word, usize) {
    // SAFETY: `visit` made the word from the address of a `Visit` that is there until its greenlet is
    // resumed.
    let visit = unsafe { &mut *word.assume_init().cast::<Visit<'_>>() };
    (visit.run)();
    // SAFETY: the visitor is suspended in `visit`, as `run` did not switch, and is not this greenlet,
    // which did not run then. It takes no word.
    unsafe { transfer::transfer::<T>(visit.from, Word::uninit(), Event::Visit) }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.stage.get() {
            Stage::Dead => "dead",
            _ if self.is_current() => "current",
            Stage::Unstarted => "pending",
            Stage::Started => "suspended",
        };
        match (self.name(), self.id.get()) {
            (Some(name), _) => write!(f, "Greenlet('{name}' {state}"),
            (None, 0) => write!(f, "Greenlet(main {state}"),
            (None, id) => write!(f, "Greenlet(#{id} {state}"),
        }?;
        match self.parent() {
            Some(parent) => match (parent.name(), parent.id.get()) {
                (Some(name), _) => write!(f, ", parent '{name}')"),
                (None, 0) => write!(f, ", parent main)"),
                (None, id) => write!(f, ", parent #{id})"),
            },
            None => write!(f, ")"),
        }
    }
}
