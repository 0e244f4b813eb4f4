//! Queues between green threads, mirroring eventlet's `queue`.
//!
//! Layer 6. A queue is a handle; its clones are handles to the same queue.
//!
//! | | items come out | counts what is done |
//! |---|---|---|
//! | [`Queue`] | in the order in which they were put | yes |
//! | [`LightQueue`] | in that order | no |
//! | [`PriorityQueue`] | the least first, and equals in that order | yes |
//! | [`LifoQueue`] | the last first | yes |
//!
//! ```
//! use stolon::queue::Queue;
//!
//! let queue = Queue::new(2);
//! let producer = queue.clone();
//! stolon::spawn(move || {
//!     for number in 0..5 {
//!         // Blocks while two items are in the queue.
//!         producer.put(number);
//!     }
//! });
//! let sum: i32 = (0..5).map(|_| queue.get()).sum();
//! assert_eq!(sum, 10);
//! ```
//!
//! # Sizes
//!
//! | `maxsize` | a put waits |
//! |---|---|
//! | `None` | never |
//! | above 0 | while so many items are in the queue |
//! | 0 | until a getter has taken the item from its hands; such a queue is empty and full at once |
//!
//! # Who gets what
//!
//! - Getters are served in the order in which they came, and so are putters, with a timeout and
//!   without. `get` and `put` never overtake those who wait.
//! - Putting switches to nobody: a waiting getter becomes runnable, and the item is there until it
//!   runs. [`get_nowait`](Queue::get_nowait), which cannot wait, takes any item that is there. The
//!   getter that it overtakes keeps its place in front of all the others.
//! - [`put_nowait`](Queue::put_nowait) hands its item to a getter that waits even if there is no room.
//! - A getter that is killed, or whose time is over, takes no item with it: the next one gets it, or it
//!   stays in the queue, above `maxsize` if need be. A putter that is killed has not put its item,
//!   unless the item was taken before; one whose time is over gets it back.
//! - An item counts as a task from when it is in the queue, or with its getter if it was handed over.
//!
//! What need not wait can be called anywhere, in the hub's own loop too. What has to wait panics
//! there, and while its thread exits, unless it has a timeout: then it gives up at once.

mod core;
mod store;
mod waits;

use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use self::core::Core;
use store::{Fifo, Lifo, Lowest};

/// Why an item was not put: there is no room, and nobody who would take it. It is handed back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<T>(pub T);

/// Why there is no item: the queue is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Empty;

/// Why a task cannot be done: as many have been as items were put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyDone;

/// What a kind of queue is, with what all kinds can do.
macro_rules! queue {
    ($(#[$doc:meta])* $name:ident, $store:ident $(, $bound:ident)?) => {
        $(#[$doc])*
        pub struct $name<T $(: $bound)?> {
            core: Rc<Core<$store<T>>>,
        }

        impl<T $(: $bound)?> $name<T> {
            /// An empty queue that holds `maxsize` items at most, or any number if that is `None`.
            ///
            /// One of size 0 holds none: each item goes from hand to hand.
            pub fn new(maxsize: impl Into<Option<usize>>) -> Self {
                Self { core: Rc::new(Core::new(maxsize.into())) }
            }

            /// Puts an item; waits while there is no room. Mirrors eventlet's `put`.
            ///
            /// # Panics
            ///
            /// When it has to wait on the hub's own loop, or while the thread exits.
            #[inline]
            pub fn put(&self, item: T) {
                // Without a timeout it does not come back before.
                let _ = self.core.put(item, None);
            }

            /// As [`put`](Self::put), but waits no longer than `timeout`.
            ///
            /// # Errors
            ///
            /// When the time is over. The item is handed back.
            ///
            /// # Panics
            ///
            /// When it has to wait on the hub's own loop.
            pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), Full<T>> {
                self.core.put(item, Some(timeout))
            }

            /// Puts an item if there is room, or a getter that waits for it; never waits. Mirrors
            /// eventlet's `put_nowait`.
            ///
            /// # Errors
            ///
            /// When there is neither. The item is handed back.
            pub fn put_nowait(&self, item: T) -> Result<(), Full<T>> {
                self.core.put_nowait(item)
            }

            /// Takes an item; waits while there is none. Mirrors eventlet's `get`.
            ///
            /// # Panics
            ///
            /// When it has to wait on the hub's own loop, or while the thread exits.
            #[inline]
            pub fn get(&self) -> T {
                match self.core.get(None) {
                    Ok(item) => item,
                    Err(Empty) => unreachable!("a get without a timeout ends with an item"),
                }
            }

            /// As [`get`](Self::get), but waits no longer than `timeout`.
            ///
            /// # Errors
            ///
            /// When the time is over.
            ///
            /// # Panics
            ///
            /// When it has to wait on the hub's own loop.
            pub fn get_timeout(&self, timeout: Duration) -> Result<T, Empty> {
                self.core.get(Some(timeout))
            }

            /// Takes an item that is in the queue, or in the hands of a putter who waits; never waits.
            /// Mirrors eventlet's `get_nowait`.
            ///
            /// # Errors
            ///
            /// When there is none.
            pub fn get_nowait(&self) -> Result<T, Empty> {
                self.core.get_nowait()
            }

            /// How many items are in the queue, without those of putters who wait. Mirrors eventlet's
            /// `qsize`.
            pub fn qsize(&self) -> usize {
                self.core.qsize()
            }

            /// Whether no items are in the queue. Mirrors eventlet's `empty`.
            pub fn empty(&self) -> bool {
                self.qsize() == 0
            }

            /// Whether `maxsize` items, or more, are in the queue. Mirrors eventlet's `full`.
            pub fn full(&self) -> bool {
                self.core.is_full()
            }

            /// How many items it holds at most; `None` if any number.
            pub fn maxsize(&self) -> Option<usize> {
                self.core.maxsize()
            }

            /// Changes how many items it holds at most. Putters for whom there is room then have put;
            /// what is too much stays until it is taken. Mirrors eventlet's `resize`.
            pub fn resize(&self, maxsize: impl Into<Option<usize>>) {
                self.core.resize(maxsize.into());
            }

            /// How many greenlets wait to put an item. Mirrors eventlet's `putting`.
            pub fn putting(&self) -> usize {
                self.core.putting()
            }

            /// How many greenlets wait for an item. Mirrors eventlet's `getting`.
            pub fn getting(&self) -> usize {
                self.core.getting()
            }
        }

        impl<T $(: $bound)?> Clone for $name<T> {
            fn clone(&self) -> Self {
                Self { core: Rc::clone(&self.core) }
            }
        }

        /// Without a limit.
        impl<T $(: $bound)?> Default for $name<T> {
            fn default() -> Self {
                Self::new(None)
            }
        }

        impl<T $(: $bound)?> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.core.debug(stringify!($name), f)
            }
        }
    };
}

/// The counting of what is done.
macro_rules! tasks {
    ($name:ident $(, $bound:ident)?) => {
        impl<T $(: $bound)?> $name<T> {
            /// Says that what an item was put for is done. Mirrors eventlet's `task_done`.
            ///
            /// # Errors
            ///
            /// When it was said for all items before.
            pub fn task_done(&self) -> Result<(), TooManyDone> {
                self.core.task_done()
            }

            /// How many items were put for which it was not said that they are done. Mirrors eventlet's
            /// `unfinished_tasks`.
            pub fn unfinished_tasks(&self) -> usize {
                self.core.unfinished()
            }

            /// Waits until what all items were put for is done. Mirrors eventlet's `join`.
            ///
            /// # Panics
            ///
            /// When it has to wait on the hub's own loop, or while the thread exits.
            pub fn join(&self) {
                self.core.join(None);
            }

            /// As [`join`](Self::join), but waits no longer than `timeout`; says whether all was done.
            ///
            /// # Panics
            ///
            /// When it has to wait on the hub's own loop.
            pub fn join_timeout(&self, timeout: Duration) -> bool {
                self.core.join(Some(timeout))
            }
        }
    };
}

queue! {
    /// First in, first out. Mirrors eventlet's class of this name.
    ///
    /// ```
    /// use stolon::queue::Queue;
    ///
    /// let queue = Queue::new(None);
    /// let worker = queue.clone();
    /// stolon::spawn(move || loop {
    ///     let name: &str = worker.get();
    ///     println!("{name} is done");
    ///     worker.task_done().unwrap();
    /// });
    /// queue.put("this");
    /// queue.put("that");
    /// queue.join();
    /// assert_eq!(queue.unfinished_tasks(), 0);
    /// ```
    Queue, Fifo
}

queue! {
    /// As [`Queue`], without counting what is done. Mirrors eventlet's class of this name.
    LightQueue, Fifo
}

queue! {
    /// The least item first, and of equals the one that was put first. Mirrors eventlet's class of this
    /// name.
    ///
    /// Comparing items must not use the queue, nor wait: others that use it meanwhile panic.
    ///
    /// ```
    /// use stolon::queue::PriorityQueue;
    ///
    /// let queue = PriorityQueue::new(None);
    /// for (priority, name) in [(2, "late"), (1, "early")] {
    ///     queue.put((priority, name));
    /// }
    /// assert_eq!(queue.get(), (1, "early"));
    /// ```
    PriorityQueue, Lowest, Ord
}

queue! {
    /// Last in, first out. Mirrors eventlet's class of this name.
    LifoQueue, Lifo
}

tasks!(Queue);
tasks!(PriorityQueue, Ord);
tasks!(LifoQueue);

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is full")
    }
}

impl<T> Error for Full<T> {}

impl fmt::Display for Empty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is empty")
    }
}

impl Error for Empty {}

impl fmt::Display for TooManyDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("task_done() called too many times")
    }
}

impl Error for TooManyDone {}
