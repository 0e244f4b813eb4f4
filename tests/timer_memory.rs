//! The memory of timers: what those that are pending take, and that those which were take none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stolon::hub::{self, Timer, schedule_call_global, simulated};
use stolon::sleep;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// So many are pending at a time.
const COUNT: usize = 1 << 15;

/// Counts the bytes that this process has taken from the heap and not given back.
struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all is the system's allocator's, and nothing is allocated for the count.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// What is alive now beyond `before`.
fn beyond(before: usize) -> usize {
    LIVE_BYTES.load(Ordering::Relaxed).saturating_sub(before)
}

/// All in one test, as others would allocate meanwhile.
// HB-04.
#[test]
fn calls_that_are_cancelled_leave_no_memory_behind() {
    simulated(0).in_order().run(|| {
        sleep(MS);
        let before = LIVE_BYTES.load(Ordering::Relaxed);
        let far = |n: u32| schedule_call_global(HOUR + n * MS, || unreachable!());

        // One after the other, with a few at a time.
        let mut few: Vec<Timer> = (0..100).map(far).collect();
        let mut replace_few = || {
            for n in 0..2 * COUNT {
                assert!(few[n % 100].cancel());
                few[n % 100] = far(n as u32);
            }
        };
        replace_few();
        let bytes = beyond(before);
        assert!(bytes < 64 * 1024, "{bytes} bytes");

        // Many at a time. A function without anything in it takes no memory of its own, so this is what
        // the hub takes: the timer, its place, and the call. Growing doubles.
        let timers: Vec<Timer> = (0..COUNT as u32).map(far).collect();
        let handles = timers.capacity() * size_of::<Timer>();
        let bytes = (beyond(before) - handles) / COUNT;
        assert!(bytes <= 2 * 112, "{bytes} bytes each");

        // All are cancelled but one of the oldest. Memory follows, at the latest when as many more are.
        timers.iter().skip(1).for_each(|timer| assert!(timer.cancel()));
        drop(timers);
        replace_few();
        let bytes = beyond(before);
        assert!(bytes < 256 * 1024, "{bytes} bytes");

        // The same for those that come.
        let called = std::rc::Rc::new(Cell::new(0));
        for _ in 0..COUNT {
            let called = std::rc::Rc::clone(&called);
            schedule_call_global(MS, move || called.set(called.get() + 1));
        }
        sleep(2 * MS);
        assert_eq!(called.get(), COUNT);
        replace_few();
        let bytes = beyond(before);
        assert!(bytes < 256 * 1024, "{bytes} bytes");
        assert_eq!(hub::abort(), 101);
    });
}
