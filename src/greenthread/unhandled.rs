//! What becomes of a panic that ended a green thread when nobody waits for it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

use crate::greenlet::{self, GreenletExit};
use crate::quietly::{dispose, quietly};

type Payload = Box<dyn Any + Send>;

/// Called with each panic that ended a green thread and that nobody was told of.
pub type UnhandledHook = Arc<dyn Fn(&Unhandled<'_>) + Send + Sync>;

static HOOK: RwLock<Option<UnhandledHook>> = RwLock::new(None);

/// Has `hook` called, on every OS thread, with what ended a green thread and was passed on to nobody;
/// `None` has it called no more. Returns the hook before.
///
/// That is a panic, or a payload that somebody killed it with, of a green thread
///
/// - that was made by [`spawn_n`](super::spawn_n): when it ends;
/// - whose handle was dropped without anyone having got the payload from
///   [`wait`](super::GreenThread::wait) or [`join`](super::GreenThread::join): then, or when it ends;
/// - whose [link](super::GreenThread::link) panicked: when that has unwound.
///
/// A [`GreenletExit`] is no such payload. Without a hook nothing is done: the panic hook
/// ([`std::panic::set_hook`]) has reported the panic where it began. The hook runs on the stack of
/// whoever let go of the payload, perhaps while that unwinds. A panic of the hook ends there.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicUsize, Ordering}};
/// use stolon::greenthread::set_unhandled_hook;
///
/// static LOST: AtomicUsize = AtomicUsize::new(0);
///
/// set_unhandled_hook(Some(Arc::new(|unhandled| {
///     assert_eq!(unhandled.message(), Some("nobody knows"));
///     LOST.fetch_add(1, Ordering::Relaxed);
/// })));
/// stolon::spawn_n(|| panic!("nobody knows"));
/// stolon::sleep(std::time::Duration::ZERO);
/// assert_eq!(LOST.load(Ordering::Relaxed), 1);
/// ```
pub fn set_unhandled_hook(hook: Option<UnhandledHook>) -> Option<UnhandledHook> {
    let mut current = HOOK.write().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *current, hook)
}

/// A panic that ended a green thread, and that nobody was told of.
pub struct Unhandled<'a> {
    name: Option<&'a str>,
    payload: &'a (dyn Any + Send),
}

impl<'a> Unhandled<'a> {
    /// The name of the green thread, if it had one.
    pub fn name(&self) -> Option<&'a str> {
        self.name
    }

    /// What was unwinding it, as in [`std::panic::PanicHookInfo::payload`].
    pub fn payload(&self) -> &'a (dyn Any + Send) {
        self.payload
    }

    /// The payload, if it is a string, as that of `panic!` is.
    pub fn message(&self) -> Option<&'a str> {
        match self.payload.downcast_ref::<String>() {
            Some(text) => Some(text),
            None => self.payload.downcast_ref().copied(),
        }
    }
}

impl fmt::Debug for Unhandled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unhandled")
            .field("name", &self.name)
            .field("message", &self.message())
            .finish_non_exhaustive()
    }
}

/// What ended a green thread, until someone takes it. Dropped before that, it goes to the hook.
pub(super) struct Failure(Box<Untold>);

struct Untold {
    /// None when it was taken.
    payload: Option<Payload>,
    /// Whether somebody had it, of whom this is a copy.
    is_copy: bool,
    name: Option<String>,
}

impl Failure {
    /// What ended the current greenlet.
    #[cold]
    #[inline(never)]
    pub(super) fn new(payload: Payload) -> Self {
        let has_name = !payload.is::<GreenletExit>() && greenlet::is_thread_alive();
        let name = has_name.then(|| greenlet::current::<()>().name().map(String::from));
        Self(Box::new(Untold { payload: Some(payload), is_copy: false, name: name.flatten() }))
    }

    /// The copy of one that somebody was told of.
    pub(super) fn copy(payload: Payload) -> Self {
        Self(Box::new(Untold { payload: Some(payload), is_copy: true, name: None }))
    }

    /// The payload, for who is told.
    pub(super) fn tell(mut self) -> Payload {
        self.0.payload.take().expect("taken once")
    }

    /// Whether it is the exit of a green thread that was killed.
    pub(super) fn is_exit(&self) -> bool {
        self.0.payload.as_ref().is_some_and(|payload| payload.is::<GreenletExit>())
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        let Some(payload) = self.payload.take() else { return };
        if self.is_copy || payload.is::<GreenletExit>() {
            return;
        }
        quietly(|| {
            // Not while the lock is held: the hook may set another.
            let hook = HOOK.read().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(hook) = hook {
                hook(&Unhandled { name: self.name.as_deref(), payload: &*payload });
            }
        });
        dispose(payload);
    }
}

/// Runs a green thread that nobody waits for.
pub(super) fn run(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        drop(Failure::new(payload));
    }
}
