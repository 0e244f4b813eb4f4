//! A thread stands still where it has looked at its own stack. Its copy leads to the same
//! addresses.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Receiver, Sender};

use super::{Worker, check, in_child, unwound};
use crate::sys::{interrupt, unwind};

/// The most frames between the code that looks at its stack and the function that all ways lead to.
const INNER_FRAMES: usize = 4;

/// Where a thread tells what it has seen of its own stack, and waits until it may go on.
type Meeting = (Sender<Vec<usize>>, Receiver<()>);

thread_local! {
    static MEETING: RefCell<Option<Meeting>> = const { RefCell::new(None) };
}

/// Where all ways lead.
fn stand_still() {
    MEETING.with_borrow(|meeting| {
        let (seen, go_on) = meeting.as_ref().unwrap();
        let frames = unwind::frames_above(0..usize::MAX);
        seen.send(frames.into_iter().map(|(address, _)| address).collect()).unwrap();
        // An error says that the test has failed.
        let _ = go_on.recv();
    });
}

const WAYS: [(&str, fn()); 5] = [
    ("recursion", || descend(100)),
    ("closures", || nest(20)),
    ("a callback of C", || be_called_back()),
    ("a destructor while unwinding", || drop_while_unwinding(1)),
    ("destructors while unwinding in destructors", || drop_while_unwinding(3)),
];

fn descend(depth: usize) {
    let room = black_box([depth; 7]);
    match depth {
        0 => stand_still(),
        _ => descend(depth - 1),
    }
    black_box(room);
}

fn nest(depth: usize) {
    let next: Box<dyn Fn(usize)> =
        if depth == 0 { Box::new(|_| stand_still()) } else { Box::new(|depth| nest(depth - 1)) };
    next(depth);
}

fn be_called_back() {
    unsafe extern "C" {
        fn bsearch(
            key: *const c_void,
            base: *const c_void,
            count: usize,
            bytes: usize,
            compare: extern "C" fn(*const c_void, *const c_void) -> c_int,
        ) -> *mut c_void;
    }

    extern "C" fn compare(_: *const c_void, _: *const c_void) -> c_int {
        stand_still();
        0
    }

    let word = 0_usize;
    let word = (&raw const word).cast();
    // SAFETY: an array of one word, and `compare` takes any.
    black_box(unsafe { bsearch(word, word, 1, size_of::<usize>(), compare) });
}

fn drop_while_unwinding(depth: usize) {
    struct GoesOn(usize);

    impl Drop for GoesOn {
        fn drop(&mut self) {
            match self.0 {
                1 => stand_still(),
                _ => drop_while_unwinding(self.0 - 1),
            }
        }
    }

    let unwind = || {
        let _last = GoesOn(depth);
        resume_unwind(Box::new("for a look at the stack"));
    };
    assert!(catch_unwind(unwind).is_err());
}

/// The unwinder's frames of a thread that stands still, or soon will: on its way it may be in code
/// that has no tables.
fn frames_of(worker: &Worker) -> Vec<(usize, usize)> {
    loop {
        let Some((mut copy, mut registers)) = worker.copy() else { continue };
        match check(&mut copy, &mut registers, interrupt::checks_return_addresses()) {
            Some(checked) if !checked.extent.is_cut => return unwound(&checked),
            _ => {}
        }
    }
}

#[test]
fn a_copy_leads_to_the_addresses_that_the_thread_itself_sees() {
    in_child("live::a_copy_leads_to_the_addresses_that_the_thread_itself_sees", || {
        for (name, way) in WAYS {
            let (seen, to_see) = mpsc::channel();
            let (go_on, may_go_on) = mpsc::channel();
            let meeting = RefCell::new(Some((seen, may_go_on)));
            let worker = Worker::start(move || {
                if let Some(meeting) = meeting.take() {
                    MEETING.set(Some(meeting));
                    way();
                }
            });
            let live = to_see.recv().unwrap();
            let frames = frames_of(&worker);
            let pairs = live.iter().rev().filter(|address| **address != 0);
            let pairs = pairs.zip(frames.iter().rev().map(|(address, _)| address));
            let common = pairs.take_while(|(live, copied)| live == copied).count();
            println!("{name}: {common} of {} frames", live.len());
            assert!(common + INNER_FRAMES >= live.len(), "{name}: {live:x?}\n{frames:x?}");
            drop(go_on);
            worker.end();
        }
    });
}
