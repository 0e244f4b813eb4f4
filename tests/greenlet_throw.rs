//! Throwing into greenlets, in whatever state they are: where it arrives, and who is dead then.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;

use stolon::greenlet::{self, Greenlet, GreenletExit, SwitchError};

#[test]
fn killing_twice_reports_the_exit_twice() {
    let main = greenlet::current::<()>();
    let victim = Greenlet::new(move |()| drop(main.switch(())));
    victim.switch(()).unwrap();
    assert!(matches!(victim.kill(), Err(SwitchError::Exited)));
    assert!(victim.is_dead());
    assert!(matches!(victim.kill(), Err(SwitchError::Exited)));
}
