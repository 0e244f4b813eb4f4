//! References into thread-local values, which nothing may use when the values are gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, LocalKey};

use crate::util::on_drop::OnDrop;

/// A thread-local value with memory of its own, so that a sanitizer sees a use of what is gone.
pub(crate) struct Gone(Box<u8>);

static GONE: AtomicBool = AtomicBool::new(false);
static OUTLIVED: AtomicBool = AtomicBool::new(false);

impl Gone {
    pub(crate) fn is_used(&self) {
        let is_gone = GONE.load(Ordering::SeqCst) || *self.0 != 7;
        OUTLIVED.fetch_or(is_gone, Ordering::SeqCst);
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        GONE.store(true, Ordering::SeqCst);
    }
}

thread_local!(static VALUE: Gone = Gone(Box::new(7)));

/// Runs `body` on a thread that ends afterwards, with a thread-local value to refer to, and checks that no
/// reference was used when the value was gone. One test at a time.
pub(crate) fn outlives_nothing_thread_local(
    body: impl FnOnce(&'static LocalKey<Gone>) + Send + 'static,
) {
    GONE.store(false, Ordering::SeqCst);
    OUTLIVED.store(false, Ordering::SeqCst);
    thread::spawn(move || body(&VALUE)).join().unwrap();
    assert!(GONE.load(Ordering::SeqCst), "the value was never used, or is leaked");
    assert!(!OUTLIVED.load(Ordering::SeqCst), "a reference was used when the value was gone");
}

/// The value of the calling thread, for a process that ends: says so if a reference outlives it.
pub(crate) fn tells_if_outlived() -> &'static LocalKey<Gone> {
    struct Tells;
    impl Drop for Tells {
        fn drop(&mut self) {
            println!("{}", if OUTLIVED.load(Ordering::SeqCst) { "outlived" } else { "in order" });
        }
    }
    // Used before the crate's own, so destroyed after them.
    thread_local!(static TELLS: Tells = const { Tells });
    TELLS.with(|_| ());
    &VALUE
}

/// Runs `wait` with a reference into `value` that is used afterwards, however `wait` ends.
pub(crate) fn refer_to(value: &'static LocalKey<Gone>, wait: impl FnOnce(&Gone)) {
    value.with(|value| {
        let _uses = OnDrop(|| value.is_used());
        wait(value);
    });
}
