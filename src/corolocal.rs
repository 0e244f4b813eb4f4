//! Greenlet-local values that can be had anywhere, mirroring eventlet's `corolocal`.
//!
//! Layer 6. What each greenlet is to have one of for itself, there are two kinds of:
//!
//! | | is | its values are made by | for |
//! |---|---|---|---|
//! | [`greenlet::Local`] | a `static`, as by [`greenlet_local!`](crate::greenlet_local) | an expression | what the program has one of: the current request, a name for the log |
//! | [`Local`] | a value as any other | a closure, with what it captures | what there are many of: each pool, parser or client has its own |
//!
//! A green thread is a greenlet, and so is the root of each OS thread. None inherits what another has.
//!
//! ```
//! use std::cell::Cell;
//! use stolon::corolocal::Local;
//!
//! struct Client {
//!     name: &'static str,
//!     requests: Local<Cell<u32>>,
//! }
//!
//! let client = |name| Client { name, requests: Local::new(|| Cell::new(0)) };
//! let [a, b] = [client("a"), client("b")];
//! a.requests.set(3);
//! stolon::spawn(move || {
//!     assert_eq!((a.name, a.requests.get()), ("a", 0));
//! })
//! .wait();
//! assert_eq!((b.name, b.requests.get()), ("b", 0));
//! ```

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicUsize, Ordering};

pub use crate::greenlet::AccessError;
use crate::greenlet::{self, cell_methods};

/// A value that each greenlet has one of, mirroring eventlet's `corolocal.local`.
///
/// It is made when a greenlet first uses it, and dropped when that greenlet ends or the last handle to
/// the `Local` is dropped, whichever comes first. At a greenlet's end it is dropped with the values of
/// its [`greenlet::Local`]s, by the rules that stand there. Clones are handles to the same.
///
/// It belongs to an OS thread as its greenlets do:
///
/// ```compile_fail,E0277
/// let local = stolon::corolocal::Local::new(|| 1);
/// std::thread::spawn(move || local.with(|n| *n));
/// ```
pub struct Local<V: 'static> {
    shared: Rc<Shared<V>>,
}

struct Shared<V: 'static> {
    /// No other one has had it.
    number: usize,
    init: Box<dyn Fn() -> V>,
    /// Where the values are, those of greenlets that have ended among them.
    slots: RefCell<Vec<Weak<Slot<V>>>>,
    /// Tells greenlets that live on whether their value is of use.
    is_there: Rc<()>,
}

/// The value of one greenlet, and kept by that. None when the `Local` is gone.
struct Slot<V>(RefCell<Option<Rc<V>>>);

impl<V: 'static> Local<V> {
    /// One whose values are made by `init`, for each greenlet when it first uses its own. Mirrors
    /// eventlet's `local`, whose `__init__` runs anew in each.
    ///
    /// `init` may block, and use the `Local` itself: what it makes there counts then.
    pub fn new(init: impl Fn() -> V + 'static) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (slots, is_there) = (RefCell::default(), Rc::new(()));
        Self { shared: Rc::new(Shared { number, init: Box::new(init), slots, is_there }) }
    }

    /// Calls `f` with the current greenlet's value, which is made if there is none yet.
    ///
    /// # Panics
    ///
    /// Where [`try_with`](Self::try_with) fails. With a panic of the function that makes values; the
    /// next use tries again.
    pub fn with<R>(&self, f: impl FnOnce(&V) -> R) -> R {
        self.try_with(f).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`with`](Self::with), for what may run while its greenlet, or the thread, is ending.
    ///
    /// # Errors
    ///
    /// When the value has been dropped already, as the greenlet is ending. And on a thread that is past
    /// the point in its exit at which its greenlets ended. `f` is not called then.
    ///
    /// # Panics
    ///
    /// With a panic of the function that makes values.
    pub fn try_with<R>(&self, f: impl FnOnce(&V) -> R) -> Result<R, AccessError> {
        let shared = &*self.shared;
        let key = (shared.number, TypeId::of::<Slot<V>>());
        let slot = greenlet::find_or_make(key, Some(&shared.is_there), || shared.make())?;
        let value = slot.0.borrow().clone();
        Ok(f(&value.expect("it is there as long as the local")))
    }
}

cell_methods!(Local);

impl<V: 'static> Shared<V> {
    fn make(&self) -> Rc<Slot<V>> {
        let value = (self.init)();
        let slot = Rc::new(Slot(RefCell::new(Some(Rc::new(value)))));
        let mut slots = self.slots.borrow_mut();
        if slots.len() == slots.capacity() {
            slots.retain(|slot| slot.strong_count() > 0);
            let as_many_again = slots.len().max(1);
            slots.reserve(as_many_again);
        }
        slots.push(Rc::downgrade(&slot));
        slot
    }
}

impl<V: 'static> Drop for Shared<V> {
    fn drop(&mut self) {
        let slots = self.slots.take();
        let slots = slots.iter().filter_map(Weak::upgrade);
        let values: Vec<_> = slots.filter_map(|slot| slot.0.take()).collect();
        // Now that all are out: a destructor may block, and a greenlet end meanwhile.
        drop(values);
    }
}

impl<V: 'static> Clone for Local<V> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared) }
    }
}

/// With the type's default for each greenlet.
impl<V: Default + 'static> Default for Local<V> {
    fn default() -> Self {
        Self::new(V::default)
    }
}

impl<V: 'static> fmt::Debug for Local<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

/// A number for the current greenlet that no other of its OS thread has, or has had. Mirrors
/// eventlet's `get_ident`, whose numbers are used again. The thread's root has 0.
///
/// # Panics
///
/// On a thread that is past the point in its exit at which its greenlets ended.
pub fn get_ident() -> u64 {
    greenlet::id_of_current()
}

/// Makes `static`s of which each greenlet has a value of its own, in the form of [`thread_local!`].
///
/// The type of each is [`greenlet::Local`].
///
/// ```
/// use std::cell::{Cell, RefCell};
///
/// stolon::greenlet_local! {
///     /// The name that the log has for this green thread.
///     static NAME: RefCell<String> = RefCell::new(String::from("nobody"));
///     pub static REQUESTS: Cell<u32> = Cell::new(0);
/// }
///
/// NAME.with_borrow_mut(|name| name.push_str("'s friend"));
/// stolon::spawn(|| assert_eq!(NAME.take(), "nobody")).wait();
/// assert_eq!(NAME.take(), "nobody's friend");
/// assert_eq!(REQUESTS.get(), 0);
/// ```
#[macro_export]
macro_rules! greenlet_local {
    ($(
        $(#[$attribute:meta])* $visibility:vis static $NAME:ident: $V:ty = $init:expr
    );* $(;)?) => {$(
        $(#[$attribute])* $visibility static $NAME: $crate::greenlet::Local<$V> =
            $crate::greenlet::Local::new(|| $init);
    )*};
}
