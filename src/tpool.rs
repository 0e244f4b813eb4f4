//! A pool of OS threads for what blocks in no green way: files, name resolution, foreign libraries,
//! long computations. Mirrors eventlet's `tpool`.
//!
//! Layer 6. The calling green thread waits, and no other does. The pool is the process's: its threads
//! are started as they are needed, up to 20, to [`set_num_threads`], or to what the environment
//! variable `STOLON_THREADPOOL_SIZE` says, and stay until [`killall`].
//!
//! | | |
//! |---|---|
//! | a panic | is raised where [`execute`] was called, with its payload; the pool's thread lives on |
//! | the caller is killed or times out | the function runs to its end, or is still started if it was waiting for a thread; its result is dropped on the pool's thread |
//! | what the function captures | is dropped there, before the caller goes on, after a panic, too |
//! | a call from one of the pool's threads | runs at once, on that thread: it never waits for another |
//! | a pool of no threads | calls run at once, on the caller's thread, and block it; a warning is printed once |
//! | in the child of a `fork` | the pool is a new one: threads do not survive there, nor what they were to do |
//!
//! ```
//! let path = std::env::current_exe()?;
//! let bytes = stolon::tpool::execute(move || std::fs::metadata(path))?.len();
//! assert!(bytes > 0);
//! # Ok::<(), std::io::Error>(())
//! ```

mod pool;

use std::env;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::hub;
pub use crate::hub::JoinHandle;

/// So many threads there are if nothing else is said, as in eventlet.
const DEFAULT_SIZE: usize = 20;

const VARIABLE: &str = "STOLON_THREADPOOL_SIZE";

/// What [`set_num_threads`] was told last.
static SIZE: AtomicUsize = AtomicUsize::new(UNSET);

const UNSET: usize = usize::MAX;

/// Runs `f` on a thread of the pool, and waits for its result, which blocks the current greenlet and
/// no other. Mirrors eventlet's `tpool.execute`.
///
/// ```
/// let sum = stolon::tpool::execute(|| (1..=10_u64).sum::<u64>());
/// assert_eq!(sum, 55);
/// ```
///
/// # Panics
///
/// With the panic of `f`. On the hub's own loop. When not a single thread can be started, and when
/// `STOLON_THREADPOOL_SIZE` is not a number.
pub fn execute<R, F>(f: F) -> R
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    if runs_inline() {
        return f();
    }
    spawn(f).join().unwrap_or_else(|payload| resume_unwind(payload))
}

/// Runs `f` on a thread of the pool, and returns a handle to its result, which any thread may wait
/// for.
///
/// # Panics
///
/// When not a single thread can be started, and when `STOLON_THREADPOOL_SIZE` is not a number.
pub fn spawn<R, F>(f: F) -> JoinHandle<R>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    let (job, handle) = hub::job(f);
    if runs_inline() {
        job.run();
    } else {
        pool::current().submit(Box::new(move || job.run()));
    }
    handle
}

/// Sets how many threads there may be, mirroring eventlet's `set_num_threads`. With fewer than there
/// are, those too many end when they have nothing to do; with zero, everything runs on its caller's
/// thread.
pub fn set_num_threads(count: usize) {
    SIZE.store(count.min(UNSET - 1), Ordering::Relaxed);
    pool::current().resized();
}

/// Ends the threads of the pool, and waits until they have ended, which blocks the current greenlet
/// and no other. What was asked for before is done first, and its callers get their results. The pool
/// may be used again, from now on. Mirrors eventlet's `tpool.killall`.
///
/// # Panics
///
/// On one of the pool's own threads, which cannot wait for its own end, and on the hub's own loop.
pub fn killall() {
    assert!(!pool::is_worker(), "tpool::killall on a thread of the pool waits for its own end");
    pool::current().end();
}

/// A value that is used on the pool's threads only, as through eventlet's `tpool.Proxy`: one call at
/// a time, each of which blocks its green thread and no other.
///
/// ```
/// use std::io::Read;
/// use stolon::tpool::Blocking;
///
/// let file = Blocking::new(std::fs::File::open("/proc/self/stat")?);
/// let text = file.call(|file| {
///     let mut text = String::new();
///     file.read_to_string(&mut text).map(|_| text)
/// })?;
/// assert!(text.starts_with(&std::process::id().to_string()));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Blocking<T> {
    value: Arc<Mutex<T>>,
}

impl<T: Send + 'static> Blocking<T> {
    /// Takes over a value.
    pub fn new(value: T) -> Self {
        Self { value: Arc::new(Mutex::new(value)) }
    }

    /// Calls `f` with the value on a thread of the pool, as [`execute`] does. It must not use this
    /// value by another call.
    ///
    /// # Panics
    ///
    /// As [`execute`]. The value is as that call left it, for the next.
    pub fn call<R, F>(&self, f: F) -> R
    where
        R: Send + 'static,
        F: FnOnce(&mut T) -> R + Send + 'static,
    {
        let value = Arc::clone(&self.value);
        execute(move || f(&mut value.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl<T> Clone for Blocking<T> {
    /// Another handle to the same value.
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value) }
    }
}

impl<T> fmt::Debug for Blocking<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").finish_non_exhaustive()
    }
}

/// Whether there is no other thread to run something on.
fn runs_inline() -> bool {
    if pool::is_worker() {
        return true;
    }
    let is_empty = size() == 0;
    if is_empty {
        warn_once();
    }
    is_empty
}

fn warn_once() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        eprintln!("stolon: tpool has no threads, so what it executes blocks its caller's thread");
    }
}

/// How many threads there may be.
///
/// # Panics
///
/// If the variable has no sensible value, and no call has said otherwise.
fn size() -> usize {
    static FROM_ENVIRONMENT: OnceLock<Result<usize, String>> = OnceLock::new();
    match SIZE.load(Ordering::Relaxed) {
        UNSET => match FROM_ENVIRONMENT.get_or_init(read_variable) {
            Ok(size) => *size,
            Err(message) => panic!("{message}"),
        },
        size => size,
    }
}

fn read_variable() -> Result<usize, String> {
    let Some(value) = env::var_os(VARIABLE) else { return Ok(DEFAULT_SIZE) };
    let number = value.to_str().and_then(|text| text.trim().parse().ok());
    number.filter(|number| *number < UNSET).ok_or_else(|| {
        format!("{VARIABLE} is {value:?}; it must be a number of threads, zero or more")
    })
}
