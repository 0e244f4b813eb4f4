//! Two greenlets that switch to each other by hand; then two that also exchange values.
//!
//! ```text
//! cargo run --example greenlets
//! ```
//!
//! prints
//!
//! ```text
//! 12
//! 56
//! 34
//! test1: 2
//! test2: 32
//! test1: over
//! ```

use std::cell::OnceCell;
use std::error::Error;
use std::rc::Rc;

use stolon::greenlet::{Greenlet, SwitchError};

fn main() -> Result<(), Box<dyn Error>> {
    by_turns()?;
    with_values()?;
    Ok(())
}

/// 78 is never printed: when the first greenlet ends, control goes to its parent, which is `main`.
fn by_turns() -> Result<(), SwitchError<()>> {
    let gr2 = Rc::new(OnceCell::<Greenlet>::new());
    let gr1 = Greenlet::new({
        let gr2 = Rc::clone(&gr2);
        move |()| {
            println!("12");
            gr2.get().expect("test2 is there").switch(()).expect("test2 switches back");
            println!("34");
        }
    });
    let test2 = Greenlet::new({
        let gr1 = gr1.clone();
        move |()| {
            println!("56");
            gr1.switch(()).expect("nobody comes back here");
            println!("78");
        }
    });
    // Not a cycle of handles for ever: test2 ends, unwound, when `gr2` is dropped at the end.
    gr2.set(test2).expect("set once");
    gr1.switch(())?;
    assert!(gr1.is_dead() && gr2.get().is_some_and(Greenlet::is_active));
    Ok(())
}

/// The first switch's value is the function's argument; a later one's is what the pending switch
/// returns.
fn with_values() -> Result<(), SwitchError<i32>> {
    let gr2 = Rc::new(OnceCell::<Greenlet<i32>>::new());
    let gr1 = Greenlet::new({
        let gr2 = Rc::clone(&gr2);
        move |x: i32| {
            println!("test1: {x}");
            let z = gr2.get().expect("test2 is there").switch(32).expect("test2 switches back");
            assert_eq!(z, 23);
            println!("test1: over");
            z
        }
    });
    let test2 = Greenlet::new({
        let gr1 = gr1.clone();
        move |x: i32| {
            println!("test2: {x}");
            gr1.switch(23).expect("nobody comes back here")
        }
    });
    gr2.set(test2).expect("set once");
    assert_eq!(gr1.switch(2)?, 23);
    assert!(gr1.is_dead() && gr2.get().is_some_and(Greenlet::is_active));
    Ok(())
}
