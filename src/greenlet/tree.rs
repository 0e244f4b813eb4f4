//! The tree: who is whose parent, and who takes a dead one's place.

use super::block::Block;
use super::handle::Link;
use super::{Greenlet, ParentError};

impl<T: 'static> Greenlet<T> {
    /// Makes `parent` the greenlet that gets what this one ends with, mirroring the setter of
    /// greenlet's `parent`.
    ///
    /// Both may be in any state. A dead parent is passed over when something is delivered, for the
    /// nearest of its ancestors that is not dead then. That this one is suspended, or who waits for
    /// it, makes no difference: who gets its end is decided when it ends.
    ///
    /// The parent is not kept alive by this: see [`Builder::parent`](super::Builder::parent).
    /// Greenlets of other threads cannot be meant, as no handle leaves its thread:
    ///
    /// ```compile_fail,E0277
    /// use stolon::greenlet::{self, Greenlet};
    ///
    /// let root = greenlet::current::<()>();
    /// std::thread::spawn(move || Greenlet::new(|()| ()).set_parent(&root));
    /// ```
    ///
    /// # Errors
    ///
    /// When this is `parent` or one of its ancestors, and when this is its thread's root. The tree
    /// is as it was then.
    pub fn set_parent<U: 'static>(&self, parent: &Greenlet<U>) -> Result<(), ParentError> {
        let (child, parent) = (&self.handle, parent.handle.link());
        if child.parent().is_none() {
            return Err(ParentError::Root);
        }
        // Dead ancestors count, as what is delivered passes through them.
        let mut ancestor = Some(parent.clone());
        while let Some(block) = ancestor {
            if block.as_ptr() == child.as_ptr() {
                return Err(ParentError::Cycle);
            }
            ancestor = block.parent();
        }
        child.set_parent(parent);
        Ok(())
    }
}

/// The nearest of a greenlet's ancestors that is not dead. None only when the thread's greenlets
/// are at their end.
#[inline]
pub(super) fn nearest_living_ancestor(block: &Block) -> Option<Link> {
    let mut ancestor = block.parent()?;
    while ancestor.is_dead() {
        ancestor = ancestor.parent()?;
    }
    Some(ancestor)
}
