//! Running over a stack ends the process with the greenlet's name. Each crash is a child process's.
//! And how much of a stack was used.
#![allow(unsafe_code)]

mod util;

use std::cell::OnceCell;
use std::ffi::c_void;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::panic::{self, catch_unwind};
use std::ptr;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use stolon::greenlet::{self, Greenlet};
use stolon::stack::default_stack_bytes;
use stolon::{greenthread, sleep, spawn};
use util::child::{self, text_of};
use util::crash::*;

// Overflows.

#[test]
fn a_greenlet_is_named() {
    let output = crash("a_greenlet_is_named", || {
        let greenlet = Greenlet::builder().name("déjà vu").build(|()| recurse(0));
        greenlet.unwrap().switch(()).unwrap();
    });
    expect_report(&output, "déjà vu", default_stack_bytes());
}

#[test]
fn a_long_name_is_written_whole() {
    let name = "long ".repeat(200);
    let output = crash("a_long_name_is_written_whole", || {
        let greenlet = Greenlet::builder().name(&name).build(|()| recurse(0));
        greenlet.unwrap().switch(()).unwrap();
    });
    expect_report(&output, &name, default_stack_bytes());
}

#[test]
fn a_greenlet_without_a_name_is_numbered() {
    let output = crash("a_greenlet_without_a_name_is_numbered", || {
        // Another colour, too: the number of KiB is that of whole pages.
        let _first = Greenlet::new(|()| ());
        run_in_greenlet(|| recurse(0));
    });
    expect_report(&output, "#2", default_stack_bytes());
}

#[test]
fn a_green_thread_is_named_with_the_size_that_it_asked_for() {
    let output = crash("a_green_thread_is_named_with_the_size_that_it_asked_for", || {
        let builder = greenthread::Builder::new().name("deep").stack_bytes(63 * 1024);
        builder.spawn(|| recurse(0)).unwrap().wait();
    });
    expect_report(&output, "deep", 64 * 1024);
}

#[test]
fn the_overflow_may_come_after_others_have_run() {
    let output = crash("the_overflow_may_come_after_others_have_run", || {
        let builder = greenthread::Builder::new().name("deep");
        let deep = builder.spawn(|| {
            for _ in 0..3 {
                sleep(Duration::ZERO);
            }
            recurse(0)
        });
        spawn(|| ()).wait();
        deep.unwrap().wait();
    });
    expect_report(&output, "deep", default_stack_bytes());
}

#[test]
fn an_overflow_on_another_thread_is_reported() {
    let output = crash("an_overflow_on_another_thread_is_reported", || {
        run_in_greenlet(|| ());
        thread::spawn(|| run_in_greenlet(|| recurse(0))).join().unwrap();
    });
    expect_report(&output, "#1", default_stack_bytes());
}

#[test]
fn an_overflow_on_a_thread_of_c_is_reported() {
    extern "C" fn body(_: *mut c_void) -> *mut c_void {
        run_in_greenlet(|| ());
        run_in_greenlet(|| recurse(0));
        ptr::null_mut()
    }
    let output = crash("an_overflow_on_a_thread_of_c_is_reported", || {
        join_c_thread(body);
    });
    expect_report(&output, "#2", default_stack_bytes());
}

#[test]
fn an_overflow_in_a_destructor_during_a_kill_is_reported() {
    let output = crash("an_overflow_in_a_destructor_during_a_kill_is_reported", || {
        let main = greenlet::current::<()>();
        let victim = Greenlet::builder().name("victim").build(move |()| {
            let _recurses = RecursesOnDrop;
            drop(main.switch(()));
        });
        let victim = victim.unwrap();
        victim.switch(()).unwrap();
        drop(victim);
    });
    expect_report(&output, "victim", default_stack_bytes());
}

#[test]
fn an_overflow_in_what_an_unstarted_closure_holds_is_reported() {
    let output = crash("an_overflow_in_what_an_unstarted_closure_holds_is_reported", || {
        let recurses = RecursesOnDrop;
        Greenlet::builder().name("unstarted").build(move |()| drop(recurses)).unwrap();
    });
    expect_report(&output, "unstarted", default_stack_bytes());
}

#[test]
fn an_overflow_at_the_end_of_a_thread_is_reported() {
    let output = crash("an_overflow_at_the_end_of_a_thread_is_reported", || {
        let body = || {
            let recurses = RecursesOnDrop;
            let builder = Greenlet::builder().name("left");
            std::mem::forget(builder.build(move |()| drop(recurses)).unwrap());
        };
        thread::spawn(body).join().unwrap();
    });
    expect_report(&output, "left", default_stack_bytes());
}

#[test]
fn an_overflow_inside_the_hub_is_reported() {
    let output = crash("an_overflow_inside_the_hub_is_reported", || {
        panic::set_hook(Box::new(|_| recurse(0)));
        // Nothing can wake it, which the mainloop reports by a panic.
        let itself = Rc::new(OnceCell::<greenthread::GreenThread<()>>::new());
        let waited_for = Rc::clone(&itself);
        drop(itself.set(spawn(move || waited_for.get().unwrap().wait())));
        itself.get().unwrap().wait();
    });
    expect_report(&output, "mainloop", default_stack_bytes());
}

#[test]
fn a_frame_larger_than_the_guard_does_not_step_over_it() {
    const FRAME_BYTES: usize = 160 * 1024;

    #[inline(never)]
    fn touch_far_end() {
        let mut frame = MaybeUninit::<[u8; FRAME_BYTES]>::uninit();
        let far_end = black_box(frame.as_mut_ptr()).cast::<u8>();
        // SAFETY: it is the frame's first byte.
        unsafe { far_end.write_volatile(1) };
    }

    /// Leaves less of the stack than the frame needs, and more than anything else.
    #[inline(never)]
    fn descend(top: usize) {
        let here = black_box(&raw const top).addr();
        if top.saturating_sub(here) < default_stack_bytes() - 32 * 1024 {
            descend(black_box(top));
        } else {
            touch_far_end();
        }
        black_box(&top);
    }

    let output = crash("a_frame_larger_than_the_guard_does_not_step_over_it", || {
        let body = || descend(top_of_stack());
        // One below it, for a step over the guard to land in.
        let _neighbour = Greenlet::new(|()| ());
        run_in_greenlet(body);
    });
    expect_report(&output, "#2", default_stack_bytes());
}

#[test]
fn an_access_to_the_far_end_of_the_guard_is_reported() {
    let output = crash("an_access_to_the_far_end_of_the_guard_is_reported", || {
        let _neighbour = Greenlet::new(|()| ());
        run_in_greenlet(|| {
            // SAFETY: a plain library call.
            let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            let end = top_of_stack().next_multiple_of(page_bytes);
            // With its guard, a stack of the default size takes a page less than 256 KiB.
            read(end - (256 * 1024 - page_bytes))
        });
    });
    expect_report(&output, "#2", default_stack_bytes());
}

/// An address near the top of the current greenlet's stack, when it is called there.
#[inline(never)]
fn top_of_stack() -> usize {
    let here = 0;
    black_box(&raw const here).addr()
}

// Room.

#[test]
fn panic_with_full_backtrace_fits_a_default_stack() {
    #[inline(never)]
    fn fails(depth: usize) {
        match black_box(depth) {
            0 => panic!("{}", format!("no {}", "way")),
            _ => fails(depth - 1),
        }
        black_box(depth);
    }

    let test = "panic_with_full_backtrace_fits_a_default_stack";
    if child::is_child() {
        run_in_greenlet(|| {
            println!("in {:?}", greenlet::current::<()>());
            let payload = catch_unwind(|| fails(5)).unwrap_err();
            assert_eq!(payload.downcast_ref::<String>().unwrap(), "no way");
            let used = greenlet::current::<()>().stack_used();
            println!("{used:?} of {} bytes", default_stack_bytes());
        });
        return;
    }
    let output = child::command(test).env("RUST_BACKTRACE", "full").output().unwrap();
    let text = text_of(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("stack backtrace:") && text.matches("fails").count() >= 5, "{text}");
    println!("{}", text.lines().find(|line| line.ends_with("bytes")).unwrap());
}

// How much was used.

/// Uses at least so much of the stack, and little more.
#[inline(never)]
fn use_stack<const BYTES: usize>() {
    let mut frame = MaybeUninit::<[u8; BYTES]>::uninit();
    // SAFETY: it is the frame's first byte.
    unsafe { black_box(frame.as_mut_ptr()).cast::<u8>().write_volatile(1) };
}

/// Runs `body` where no stack was used before.
fn on_a_new_thread(body: fn()) {
    thread::spawn(body).join().unwrap();
}

#[test]
fn stack_used_is_how_deep_it_ever_was() {
    on_a_new_thread(|| {
        const KIB: usize = 1024;
        let main = greenlet::current::<()>();
        let greenlet = Greenlet::new(move |()| {
            main.switch(()).unwrap();
            use_stack::<{ 50 * KIB }>();
            main.switch(()).unwrap();
            use_stack::<{ 100 * KIB }>();
            main.switch(()).unwrap();
            use_stack::<{ 10 * KIB }>();
            main.switch(()).unwrap();
        });
        let used = || greenlet.stack_used().expect("a greenlet that is alive");
        assert!(used() <= 4 * KIB, "unstarted: {}", used());
        greenlet.switch(()).unwrap();
        assert!(used() <= 40 * KIB, "at first: {}", used());
        for least in [50, 100, 100] {
            greenlet.switch(()).unwrap();
            assert!((least * KIB..(least + 40) * KIB).contains(&used()), "{least}: {}", used());
        }
        greenlet.switch(()).unwrap();
        assert_eq!(greenlet.stack_used(), None);
    });
}

#[test]
fn a_large_stack_is_looked_through_to_its_end() {
    on_a_new_thread(|| {
        const BYTES: usize = 8 << 20;
        let greenlet = Greenlet::builder().stack_bytes(BYTES).build(|()| {
            use_stack::<{ BYTES - (64 << 10) }>();
            let used = greenlet::current::<()>().stack_used().unwrap();
            assert!((BYTES - (64 << 10)..=BYTES).contains(&used), "{used}");
        });
        let greenlet = greenlet.unwrap();
        assert!(greenlet.stack_used().unwrap() <= 64 << 10);
        greenlet.switch(()).unwrap();
    });
}

#[test]
fn a_root_has_no_stack_to_tell_of() {
    assert_eq!(greenlet::current::<()>().stack_used(), None);
}

#[test]
fn a_stack_used_again_shows_who_had_it_before() {
    on_a_new_thread(|| {
        run_in_greenlet(use_stack::<100_000>);
        assert!(Greenlet::new(|()| ()).stack_used().unwrap() >= 100_000);
    });
}
