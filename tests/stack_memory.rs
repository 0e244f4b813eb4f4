//! What free stacks keep of their memory, and what it costs to take them.
#![allow(unsafe_code)]

mod util;

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::thread;

use stolon::greenlet::{self, Greenlet};
use stolon::stack::stack_counts;
use util::server::is_emulated;

const KIB: usize = 1024;

/// How deep a deep greenlet goes.
const DEEP: usize = 150 * KIB;

/// What a stack that nobody needs all of may keep, with a page for the colour of its top.
const KEPT: usize = 36 * KIB;

/// Uses so much of the stack, each page of it.
#[inline(never)]
fn use_stack<const BYTES: usize>() {
    let mut frame = MaybeUninit::<[u8; BYTES]>::uninit();
    // SAFETY: one such array, which is live.
    unsafe { black_box(frame.as_mut_ptr()).write_bytes(1, 1) };
    black_box(&frame);
}

/// Runs `body` where no stack was used before.
fn on_a_new_thread(body: fn()) {
    thread::spawn(body).join().unwrap();
}

/// Makes and ends so many greenlets that are all there at the same time.
fn run_at_once(count: usize, body: fn()) {
    let main = greenlet::current::<()>();
    let start = |main: Greenlet| {
        Greenlet::new(move |()| {
            body();
            main.switch(()).unwrap();
        })
    };
    let greenlets: Vec<_> = (0..count).map(|_| start(main.clone())).collect();
    for greenlet in greenlets.iter().chain(&greenlets) {
        greenlet.switch(()).unwrap();
    }
    assert_eq!(stack_counts().in_use, 0);
}

fn run_one_by_one(count: usize, body: fn()) {
    for _ in 0..count {
        Greenlet::new(move |()| body()).switch(()).unwrap();
    }
}

/// What the free stacks have of memory, the one that is used next first.
fn kept_bytes() -> Vec<usize> {
    let stacks: Vec<Greenlet> = (0..stack_counts().free).map(|_| Greenlet::new(|()| ())).collect();
    stacks.iter().map(|stack| stack.stack_used().expect("the kernel tells")).collect()
}

#[test]
fn a_stack_that_was_deep_once_gives_memory_back_while_it_is_used_again() {
    on_a_new_thread(|| {
        run_one_by_one(1, use_stack::<DEEP>);
        assert!(kept_bytes()[0] >= DEEP);
        // Within about 1000 greenlets.
        run_one_by_one(1600, || ());
        let kept = kept_bytes();
        assert!(kept.len() == 1 && kept[0] <= KEPT, "{kept:?}");
        assert!(kept[0] > 0, "what all greenlets use is kept");
    });
}

#[test]
fn idle_stacks_that_were_deep_give_memory_back_while_others_are_used() {
    on_a_new_thread(|| {
        const STACKS: usize = 40;
        run_at_once(STACKS, use_stack::<DEEP>);
        let before: usize = kept_bytes().iter().sum();
        assert!(before >= STACKS * DEEP, "{before}");
        // At the rate of 256 greenlets for each; the one that they use has its turns, too.
        run_one_by_one(STACKS * 256 * 2, || ());
        let kept = kept_bytes();
        println!("{} KiB before, {} KiB", before / KIB, kept.iter().sum::<usize>() / KIB);
        assert!(kept.len() == STACKS && kept.iter().all(|&bytes| bytes <= KEPT), "{kept:?}");
    });
}

#[test]
fn stacks_that_are_used_in_crowds_give_memory_back_too() {
    on_a_new_thread(|| {
        const STACKS: usize = 20;
        run_at_once(STACKS, use_stack::<DEEP>);
        for _ in 0..1000 {
            run_at_once(STACKS, || ());
        }
        let kept = kept_bytes();
        let deep = kept.iter().filter(|&&bytes| bytes > KEPT).count();
        assert!(kept.len() == STACKS && deep <= STACKS / 10, "{deep} of {STACKS} as they were");
    });
}

#[test]
fn a_crowd_that_shrinks_slowly_does_not_leave_all_its_memory() {
    if is_emulated() {
        return println!("skipped: it would take too long");
    }
    on_a_new_thread(|| {
        const STACKS: usize = 2500;
        let main = greenlet::current::<()>();
        let start = |main: Greenlet| {
            Greenlet::new(move |()| {
                use_stack::<{ 20 * KIB }>();
                main.switch(()).unwrap();
            })
        };
        let greenlets: Vec<_> = (0..STACKS).map(|_| start(main.clone())).collect();
        greenlets.iter().for_each(|greenlet| greenlet.switch(()).unwrap());
        for greenlet in greenlets {
            greenlet.switch(()).unwrap();
            // So many that its stack is looked after before the next one is free.
            run_one_by_one(256, || ());
        }
        let kept = kept_bytes().iter().filter(|&&bytes| bytes >= 20 * KIB).count();
        assert!(kept <= 1100, "{kept} of {STACKS}");
    });
}

/// How many page faults this thread has had that needed no device.
fn page_faults() -> i64 {
    let mut usage = MaybeUninit::uninit();
    // SAFETY: there is room for what is written, and it is read if it was written.
    unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
        usage.assume_init().ru_minflt
    }
}

#[test]
fn stacks_that_are_used_again_cost_no_page_faults_where_greenlets_are_not_deep() {
    if is_emulated() {
        return println!("skipped: an emulator has page faults of its own");
    }
    on_a_new_thread(|| {
        let run = || {
            run_one_by_one(10_000, use_stack::<{ 20 * KIB }>);
            (0..100).for_each(|_| run_at_once(100, use_stack::<{ 20 * KIB }>));
        };
        run();
        let before = page_faults();
        run();
        let faults = page_faults() - before;
        // The allocator may have some.
        assert!(faults <= 10, "{faults} page faults for 20000 greenlets");
    });
}
