//! Generators: iterators whose items come out of the middle of a function.

use std::cell::Cell;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::thread::panicking;

use super::unwinding::{self, Away};
use super::{Greenlet, GreenletExit, SwitchError, exit, thread, throw, transfer};

/// What goes back and forth between a generator and who asks it. Its type is private, so nobody
/// else can send one.
pub(super) struct Signal<V> {
    /// The number of the generator's greenlet: a generator may wait for one of the same type.
    generator: u64,
    /// None asks for one, and ends the iteration.
    item: Option<V>,
}

/// The iterator over what `run` yields: it runs in a greenlet of its own, up to its next item, each
/// time it is asked for one.
///
/// It may yield from any depth of calls, and ask other generators meanwhile, those of its own kind
/// included:
///
/// ```
/// use stolon::greenlet;
///
/// struct Tree(Vec<Tree>, u32);
///
/// fn walk(tree: Tree) -> impl Iterator<Item = u32> {
///     greenlet::iter(move |yielder| {
///         for child in tree.0 {
///             walk(child).for_each(|number| yielder.yield_(number));
///         }
///         yielder.yield_(tree.1);
///     })
/// }
/// let tree = Tree(vec![Tree(vec![], 1), Tree(vec![Tree(vec![], 2)], 3)], 4);
/// assert_eq!(walk(tree).collect::<Vec<_>>(), [1, 2, 3, 4]);
/// ```
///
/// A generator that is dropped before its end unwinds with [`GreenletExit`], as a greenlet does
/// when its last handle is dropped. To borrow from the outside: [`Scope::iter`](super::Scope::iter).
///
/// # Panics
///
/// When no stack can be had.
#[track_caller]
pub fn iter<V: 'static>(run: impl FnOnce(&Yielder<V>) + 'static) -> Iter<V> {
    Iter::of(Greenlet::new(body(run)))
}

/// What the greenlet of a generator runs.
pub(super) fn body<V: 'static>(
    run: impl FnOnce(&Yielder<V>),
) -> impl FnOnce(Signal<V>) -> Signal<V> {
    move |asked| {
        unwinding::came_from_who_notes();
        run(&Yielder {
            generator: asked.generator,
            was_resumed_unwinding: Cell::new(panicking()),
            seems_to_unwind: Cell::new(false),
            items: PhantomData,
        });
        Signal { generator: asked.generator, item: None }
    }
}

/// What a generator yields its items by.
pub struct Yielder<V: 'static> {
    generator: u64,
    /// Whether another greenlet was unwinding when this one last got control.
    was_resumed_unwinding: Cell<bool>,
    /// Whether the generator itself seemed to be unwinding when it last yielded, for where it cannot be told.
    seems_to_unwind: Cell<bool>,
    items: PhantomData<fn(V)>,
}

impl<V: 'static> Yielder<V> {
    /// Whether the generator cannot be unwound now.
    fn unwinds(&self) -> bool {
        unwinding::is_certain() || (unwinding::is_unwinding() && self.seems_to_unwind.get())
    }

    /// Makes `item` what the pending `next` returns; returns when the one after is asked for.
    ///
    /// In destructors that run because the generator is dropped nobody takes it: it is dropped.
    ///
    /// # Panics
    ///
    /// Unwinds with [`GreenletExit`] when the generator is dropped. Panics in another greenlet than
    /// the generator's, and when its greenlet is resumed by anything but `next`.
    pub fn yield_(&self, item: V) {
        let current = thread::current();
        assert!(
            current.id.get() == self.generator,
            "{:?} is not the yielder's generator",
            *current
        );
        // One that came when the generator could not unwind.
        throw::raise_pending_kill();
        // By others, if they were at it when this greenlet last got control.
        let seems = self.seems_to_unwind.get() || !self.was_resumed_unwinding.get();
        self.seems_to_unwind.set(panicking() && seems);
        // Who asks makes itself the parent. It is not kept alive by a generator that waits.
        let asker = current.parent().expect("a root is no generator").handle();
        drop(current);
        let signal = Signal { generator: self.generator, item: Some(item) };
        let away = Away::if_unwinding();
        let resumed = transfer::switch_into(asker, signal, |resumed| resumed);
        drop(away);
        unwinding::came_from_who_notes();
        self.was_resumed_unwinding.set(panicking());
        match resumed {
            Ok(asked) if asked.generator == self.generator => {}
            // It cannot unwind twice.
            _ if self.unwinds() => {}
            // A child has ended, and nobody has asked.
            Err(SwitchError::Exited) => resume_unwind(Box::new(GreenletExit)),
            _ => panic!("nobody has asked {:?} for an item", *thread::current()),
        }
    }
}

impl<V: 'static> fmt::Debug for Yielder<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Yielder").finish_non_exhaustive()
    }
}

/// The iterator of a generator: see [`iter`].
///
/// Whoever calls `next` becomes the parent of the generator's greenlet, so it gets its panic, too.
/// After that, and after the end, there are no more items. A generator that ends by
/// [`GreenletExit`] has no more, either.
///
/// `next` panics when the generator cannot go on, as it waits for something else than being asked;
/// and in the generator itself, or in a greenlet whose result goes to it.
#[must_use = "a generator does nothing until it is asked for items"]
pub struct Iter<V: 'static> {
    /// Until it has ended.
    generator: Option<Greenlet<Signal<V>>>,
}

impl<V: 'static> Iter<V> {
    pub(super) fn of(generator: Greenlet<Signal<V>>) -> Self {
        Self { generator: Some(generator) }
    }
}

impl<V: 'static> Iterator for Iter<V> {
    type Item = V;

    fn next(&mut self) -> Option<V> {
        let generator = self.generator.as_ref().filter(|generator| !generator.is_dead())?;
        let asker = super::current::<()>();
        if generator.parent::<()>().as_ref() != Some(&asker) {
            let moved = generator.set_parent(&asker);
            moved.unwrap_or_else(|e| panic!("{asker:?} cannot ask {generator:?} for items: {e}"));
        }
        drop(asker);
        let asked = generator.handle.id.get();
        let away = Away::if_unwinding();
        let resumed = generator.switch(Signal { generator: asked, item: None });
        drop(away);
        unwinding::came_from_who_notes();
        match resumed {
            Ok(Signal { generator, item: Some(item) }) if generator == asked => return Some(item),
            Ok(Signal { generator, item: None }) if generator == asked => {}
            Err(SwitchError::Exited) if generator.is_dead() => {}
            Err(SwitchError::ThreadExiting { .. }) => {}
            Ok(_) => panic!("an item came of another generator than {generator:?}"),
            Err(e) => panic!("{generator:?} has no item: {e}"),
        }
        self.generator = None;
        None
    }
}

impl<V: 'static> FusedIterator for Iter<V> {}

impl<V: 'static> Drop for Iter<V> {
    /// Ends the generator, though there may be other handles to its greenlet.
    fn drop(&mut self) {
        if let Some(generator) = self.generator.take() {
            if generator.handle.waits() {
                exit::end(&generator.handle.link());
            }
        }
    }
}

impl<V: 'static> fmt::Debug for Iter<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.generator {
            Some(generator) => write!(f, "Iter({generator:?})"),
            None => write!(f, "Iter(dead)"),
        }
    }
}
