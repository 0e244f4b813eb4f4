//! The report of a greenlet that holds the hub for too long, and who is told.

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::quietly::quietly;
use crate::stack::sample::Sample;

/// The routine behind whose frame a sampled backtrace begins.
const FIRST_FRAME: &str = "stolon_0_1_retrace";

/// A greenlet that has held its hub for longer than it should: while it runs, no other green thread
/// of its OS thread does.
#[derive(Clone, Debug)]
pub struct Blocked {
    thread: Option<String>,
    held: Duration,
    /// None if the thread did not answer.
    greenlet: Option<Held>,
}

#[derive(Clone, Debug)]
struct Held {
    name: Option<String>,
    id: u64,
    made_at: Option<&'static Location<'static>>,
    backtrace: Option<String>,
}

impl Blocked {
    /// Names the functions in the sample's backtrace, which may take a while.
    pub(super) fn new(thread: Option<String>, held: Duration, sample: Option<Sample>) -> Self {
        let greenlet = sample.map(|sample| Held {
            name: sample.name,
            id: sample.id,
            made_at: sample.made_at,
            backtrace: sample.backtrace.map(|backtrace| beyond_first(&backtrace.to_string())),
        });
        Self { thread, held, greenlet }
    }

    /// The name of the OS thread, if it has one.
    pub fn thread(&self) -> Option<&str> {
        self.thread.as_deref()
    }

    /// For how long it has held the hub until now. It still does.
    pub fn held(&self) -> Duration {
        self.held
    }

    /// The name of the greenlet, if it has one, cut to 64 bytes.
    pub fn name(&self) -> Option<&str> {
        self.greenlet.as_ref()?.name.as_deref()
    }

    /// The number of the greenlet, as in its `Debug`: 0 is the thread's root. None if the thread did
    /// not answer, as it is in the kernel or has blocked `SIGURG`.
    pub fn id(&self) -> Option<u64> {
        Some(self.greenlet.as_ref()?.id)
    }

    /// Where the greenlet was spawned. None for a thread's root.
    pub fn made_at(&self) -> Option<&'static Location<'static>> {
        self.greenlet.as_ref()?.made_at
    }

    /// Where it is, as [`std::backtrace::Backtrace`] prints it, the innermost frame first. None if it
    /// runs on another stack than its own, or in code that cannot be unwound.
    pub fn backtrace(&self) -> Option<&str> {
        self.greenlet.as_ref()?.backtrace.as_deref()
    }
}

/// A backtrace's text from behind the routine that it was taken through.
fn beyond_first(text: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line.contains(FIRST_FRAME)).skip(1).peekable();
    // Where in a file that routine is, if the text says so.
    while lines.next_if(|line| line.trim_start().starts_with("at ")).is_some() {}
    let frames: Vec<&str> = lines.collect();
    if frames.is_empty() { text.to_owned() } else { frames.join("\n") }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.greenlet {
            Some(Held { name: Some(name), id, .. }) => write!(f, "greenlet '{name}' (#{id})"),
            Some(Held { id: 0, .. }) => write!(f, "the main greenlet"),
            Some(Held { id, .. }) => write!(f, "greenlet #{id}"),
            None => write!(f, "a greenlet that does not answer"),
        }?;
        if let Some(place) = self.made_at() {
            write!(f, ", made at {place},")?;
        }
        write!(f, " has held the hub of thread ")?;
        match self.thread() {
            Some(name) => write!(f, "'{name}'"),
            None => write!(f, "<unnamed>"),
        }?;
        write!(f, " for {} ms", self.held.as_millis())?;
        match self.backtrace() {
            Some(backtrace) => write!(f, ", and still does:\n{backtrace}"),
            None => Ok(()),
        }
    }
}

pub(super) type Hook = dyn Fn(&Blocked) + Send + Sync;

static HOOK: Mutex<Option<Arc<Hook>>> = Mutex::new(None);

/// Has `hook` called with each report of a greenlet that holds its hub for too long, in place of
/// printing it to stderr.
///
/// It is called on a thread made for that, and not on the one that is stuck: so several calls may be
/// under way at once. If it panics nothing else happens. It may still be called for what was
/// noticed before it was replaced.
pub fn set_blocking_hook(hook: impl Fn(&Blocked) + Send + Sync + 'static) {
    let hook: Arc<Hook> = Arc::new(hook);
    // Dropped when nothing is locked.
    drop(replace_hook(Some(hook)));
}

/// Has reports printed to stderr again. Returns whether there was a hook.
pub fn take_blocking_hook() -> bool {
    replace_hook(None).is_some()
}

fn replace_hook(hook: Option<Arc<Hook>>) -> Option<Arc<Hook>> {
    std::mem::replace(&mut *HOOK.lock().unwrap_or_else(PoisonError::into_inner), hook)
}

/// Whoever is to be told now.
pub(super) fn hook() -> Option<Arc<Hook>> {
    HOOK.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Reports.
pub(super) fn report(blocked: &Blocked, hook: Option<&Hook>) {
    match hook {
        Some(hook) => quietly(|| hook(blocked)),
        None => eprintln!("{blocked}"),
    }
}
