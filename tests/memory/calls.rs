//! The memory of scheduled calls: what those that are pending take, and that those which were take
//! none.

use std::cell::Cell;
use std::time::Duration;

use stolon::hub::{self, Timer, schedule_call_global};
use stolon::sleep;

use crate::taken_since;
use crate::util::leak::simulated;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// So many are pending at a time.
const COUNT: usize = 1 << 15;

// HB-04.
#[test]
fn calls_that_are_cancelled_leave_no_memory_behind() {
    simulated(|| {
        sleep(MS);
        let taken = taken_since();
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
        let bytes = taken();
        assert!(bytes < 64 * 1024, "{bytes} bytes");

        // Many at a time. A function without anything in it takes no memory of its own, so this is what
        // the hub takes: the timer, its place, and the call. Growing doubles.
        let timers: Vec<Timer> = (0..COUNT as u32).map(far).collect();
        let handles = timers.capacity() * size_of::<Timer>();
        let bytes = (taken() - handles) / COUNT;
        assert!(bytes <= 2 * 112, "{bytes} bytes each");

        // All are cancelled but one of the oldest. Memory follows, at the latest when as many more are.
        timers.iter().skip(1).for_each(|timer| assert!(timer.cancel()));
        drop(timers);
        replace_few();
        let bytes = taken();
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
        let bytes = taken();
        assert!(bytes < 256 * 1024, "{bytes} bytes");
        assert_eq!(hub::abort(), 101);
    });
}
