//! The end of a thread or of the process while green threads are alive.

use std::any::Any;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use stolon::green::net::{TcpListener, TcpStream};
use stolon::greenlet::{self, Greenlet};
use stolon::hub::Waiter;
use stolon::pools::Pool;

use stolon::{sleep, spawn};

use crate::references::{outlives_nothing_thread_local, refer_to};
use crate::util::leak::{alone, guarded};
use crate::util::on_drop::OnDrop;
use crate::util::sockets::pair;
use crate::util::{child, server};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Runs `body` on an OS thread that ends afterwards, and returns what was sent meanwhile.
///
/// Twice: on a thread that has used greenlets before the hub, and on one that has not.
fn on_a_thread_that_ends(body: fn(Sender<&'static str>)) -> Vec<&'static str> {
    let run = |greenlets_first: bool| {
        let (sender, receiver) = mpsc::channel();
        let start = Instant::now();
        let thread = thread::spawn(move || {
            if greenlets_first {
                greenlet::current::<()>();
            }
            body(sender);
        });
        thread.join().expect("the thread ends without a panic");
        assert!(start.elapsed() < server::PATIENCE / 2, "{:?}", start.elapsed());
        // A sender may be leaked with a stack: so without waiting for the last one to be dropped.
        receiver.try_iter().collect::<Vec<_>>()
    };
    let (one, other) = (run(false), run(true));
    assert_eq!(one, other);
    one
}

/// Spawns two that wait and one that never starts, each of which says its name when it is dropped.
fn spawn_three(sender: &Sender<&'static str>) {
    for name in ["old", "young", "unstarted"] {
        let says = sender.clone();
        let last_word = OnDrop(move || says.send(name).unwrap());
        if name == "unstarted" {
            sleep(NOW);
        }
        spawn(move || {
            let _last_word = &last_word;
            sleep(HOUR);
        });
    }
}

// Of a thread.

#[test]
fn killall_unwinds_all_the_youngest_first() {
    guarded(|| {
        let said = on_a_thread_that_ends(|sender| {
            spawn_three(&sender);
            greenlet::killall();
            sender.send("end").unwrap();
        });
        assert_eq!(said, ["unstarted", "young", "old", "end"]);
    });
}

#[test]
fn killall_closes_the_sockets_of_those_that_wait_and_frees_all_stacks() {
    guarded(|| {
        let said = on_a_thread_that_ends(|sender| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            spawn(move || drop(listener.accept()));
            for _ in 0..10 {
                let (near, far) = pair();
                spawn(move || drop((&near).read(&mut [0; 8])));
                spawn(move || drop((&far).read(&mut [0; 8])));
            }
            sleep(MS);
            greenlet::killall();
            assert_eq!(stolon::stack::stack_counts().in_use, 0);
            sender.send("end").unwrap();
        });
        assert_eq!(said, ["end"]);
    });
}

#[test]
fn a_destructor_may_wait_during_killall_and_the_hub_is_usable_afterwards() {
    guarded(|| {
        let said = on_a_thread_that_ends(|sender| {
            let says = sender.clone();
            spawn(move || {
                let _sleeps = OnDrop(|| {
                    sleep(2 * MS);
                    says.send("slept").unwrap();
                });
                sleep(HOUR);
            });
            sleep(NOW);
            greenlet::killall();
            spawn(move || sender.send("again").unwrap()).wait();
        });
        assert_eq!(said, ["slept", "again"]);
    });
}

#[test]
fn killall_leaves_alone_what_waits_in_a_destructor_or_catches_the_exit_and_waits_again() {
    alone(|| {
        let said = on_a_thread_that_ends(|sender| {
            spawn(|| {
                let _waits = OnDrop(|| sleep(HOUR));
                sleep(HOUR);
            });
            spawn(|| {
                loop {
                    let _ = catch_unwind(|| sleep(HOUR));
                }
            });
            let says = sender.clone();
            spawn(move || {
                let _last_word = OnDrop(|| says.send("ended").unwrap());
                sleep(HOUR);
            });
            sleep(NOW);
            let start = Instant::now();
            greenlet::killall();
            assert!((500 * MS..5000 * MS).contains(&start.elapsed()), "{:?}", start.elapsed());
            sender.send("end").unwrap();
        });
        assert_eq!(said, ["ended", "end"]);
    });
}

#[test]
fn killall_is_for_the_root() {
    guarded(|| {
        let refused = spawn(|| catch_unwind(greenlet::killall).is_err());
        assert!(refused.wait());
    });
}

#[test]
fn without_killall_what_waits_is_not_unwound_and_what_never_started_is_dropped() {
    alone(|| {
        let said = on_a_thread_that_ends(|sender| {
            spawn_three(&sender);
            sender.send("end").unwrap();
        });
        assert_eq!(said, ["end", "unstarted"]);
    });
}

#[test]
fn a_thread_ends_at_once_though_a_destructor_waits() {
    alone(|| {
        let said = on_a_thread_that_ends(|sender| {
            spawn(|| sleep(server::PATIENCE));
            let victim = spawn(|| {
                let _sleeps = OnDrop(|| sleep(server::PATIENCE));
                sleep(HOUR);
            });
            sleep(NOW);
            victim.kill();
            spawn(move || sender.send("never").unwrap());
        });
        assert_eq!(said, [""; 0]);
    });
}

#[test]
fn a_reference_into_a_thread_local_is_not_used_when_that_is_gone() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            spawn(move || refer_to(value, |_| sleep(HOUR)));
            sleep(NOW);
        });
    });
}

#[test]
fn what_ends_in_a_greenlet_that_is_leaked_does_not_resume_it() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            let main = greenlet::current::<()>();
            let leaked = Greenlet::new(move |()| refer_to(value, |_| drop(main.switch(()))));
            leaked.switch(()).unwrap();
            let parent = leaked.clone();
            let last_act = OnDrop(move || {
                let child = Greenlet::builder().parent(&parent).build(|text: String| text);
                drop(child.unwrap().switch(String::new()));
            });
            let never_starts = Greenlet::new(move |()| {
                let _last_act = &last_act;
            });
            mem::forget([leaked, never_starts]);
        });
    });
}

#[test]
fn what_borrows_in_a_scope_and_never_started_is_not_dropped() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            let main = greenlet::current::<()>();
            let in_scope = Greenlet::new(move |()| {
                refer_to(value, |value| {
                    greenlet::scope(|scope| {
                        let uses = OnDrop(|| value.is_used());
                        let _never_starts = scope.greenlet(move |()| {
                            let _uses = &uses;
                        });
                        drop(main.switch(()));
                    });
                });
            });
            in_scope.switch(()).unwrap();
            mem::forget(in_scope);
        });
    });
}

#[test]
fn a_tracer_that_goes_with_the_thread_neither_resumes_nor_kills() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            let main = greenlet::current::<()>();
            let waiting = || {
                let main = main.clone();
                let waits = Greenlet::new(move |()| refer_to(value, |_| drop(main.switch(()))));
                waits.switch(()).unwrap();
                waits
            };
            let (resumed, killed) = (waiting(), waiting());
            let last_act = OnDrop(move || drop(resumed.switch(())));
            greenlet::settrace(move |_, _, _| {
                let _captured = (&killed, &last_act);
            });
        });
    });
}

#[test]
fn the_hub_does_not_kill_those_whose_last_handle_it_has() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            let main = greenlet::current::<()>();
            let mainloop = Rc::new(RefCell::new(None));
            let found = Rc::clone(&mainloop);
            spawn(move || {
                *found.borrow_mut() = greenlet::current::<()>().parent::<()>();
                sleep(NOW);
                drop(main.switch(()));
            });
            sleep(NOW);
            // It stands in the queue, and the green thread, whose turn comes, switches back.
            let yields = Greenlet::new(move |()| refer_to(value, |_| sleep(NOW)));
            drop(yields.switch(()));
            drop(yields);
            // Else that would keep the hub.
            assert!(mainloop.take().unwrap().kill().is_err());
        });
    });
}

#[test]
fn a_hub_that_nobody_waits_in_is_freed_with_its_thread() {
    guarded(|| {
        let said = on_a_thread_that_ends(|sender| {
            spawn(move || sender.send("ran").unwrap()).wait();
        });
        assert_eq!(said, ["ran"]);
    });
}

#[test]
fn the_hubs_descriptors_are_closed_though_green_threads_still_wait_in_it() {
    guarded(|| {
        let thread = thread::spawn(|| {
            spawn(|| sleep(HOUR));
            sleep(NOW);
        });
        thread.join().unwrap();
    });
}

#[test]
fn handles_may_be_used_and_dropped_in_late_destructors_of_the_thread() {
    alone(|| {
        struct Late(RefCell<Option<Greenlet>>);
        impl Drop for Late {
            fn drop(&mut self) {
                sleep(NOW);
                let handle = self.0.take().unwrap();
                assert!(handle.is_dead() && handle.switch(()).is_err());
            }
        }
        // Registered before the library's own, so destroyed after it.
        thread_local!(static LATE: Late = const { Late(RefCell::new(None)) });
        thread::spawn(|| {
            LATE.with(|_| ());
            let root = greenlet::current::<()>();
            Greenlet::new(|()| ()).switch(()).unwrap();
            LATE.with(|late| *late.0.borrow_mut() = Some(root));
        })
        .join()
        .unwrap();
    });
}

#[test]
fn who_would_wait_in_a_late_destructor_is_told_and_does_not_wait() {
    alone(|| {
        type Kept = (TcpStream, TcpStream, Waiter, Pool<u32>);
        struct Late(RefCell<Option<Kept>>);
        impl Drop for Late {
            fn drop(&mut self) {
                let (near, far, mut waiter, pool) = self.0.take().unwrap();
                // It has waited before, so it is registered with the hub, which is gone.
                let error = (&near).read(&mut [0; 4]).unwrap_err();
                assert!(error.to_string().contains("this thread is exiting"), "{error}");
                (&far).write_all(b"word").unwrap();
                let text_of = |payload: Box<dyn Any + Send>| match payload.downcast::<&str>() {
                    Ok(text) => (*text).to_owned(),
                    Err(payload) => *payload.downcast::<String>().unwrap(),
                };
                let panic = catch_unwind(AssertUnwindSafe(|| waiter.wait())).unwrap_err();
                assert!(text_of(panic).starts_with("cannot wait"));
                assert!(waiter.waker().wake());
                waiter.wait();
                let lent = pool.get();
                assert!(pool.get_timeout(HOUR).is_none());
                let panic = catch_unwind(AssertUnwindSafe(|| pool.get())).unwrap_err();
                assert!(text_of(panic).starts_with("cannot wait"));
                drop(lent);
                assert_eq!(*pool.get(), 7);
            }
        }
        // Registered before the library's own, so destroyed after it.
        thread_local!(static LATE: Late = const { Late(RefCell::new(None)) });
        thread::spawn(|| {
            LATE.with(|_| ());
            let (near, far) = pair();
            near.set_read_timeout(Some(MS)).unwrap();
            (&near).read(&mut [0; 4]).unwrap_err();
            LATE.with(|late| {
                *late.0.borrow_mut() = Some((near, far, Waiter::new(), Pool::new(1, || 7)));
            });
        })
        .join()
        .unwrap();
    });
}

// Of the process.

#[test]
fn a_process_may_end_with_green_threads_alive() {
    const NAME: &str = "a_process_may_end_with_green_threads_alive";
    if child::is_child() {
        let (near, far) = pair();
        let kept = Rc::new(RefCell::new(Vec::new()));
        kept.borrow_mut().push(spawn(move || drop((&near).read(&mut [0; 8]))));
        spawn(move || drop((&far).read(&mut [0; 8])));
        spawn(|| {
            let _says = OnDrop(|| println!("unwound"));
            sleep(HOUR);
        });
        sleep(MS);
        spawn(|| println!("never runs"));
        // As when `main` returns: the destructors of this thread's thread-local values run.
        std::process::exit(0);
    }
    guarded(|| {
        let output = child::run(NAME);
        let text = child::text_of(&output);
        assert!(output.status.success(), "{text}");
        assert!(!text.contains("unwound") && !text.contains("never runs"), "{text}");
    });
}

#[test]
fn a_green_thread_may_end_the_process() {
    const NAME: &str = "a_green_thread_may_end_the_process";
    if child::is_child() {
        for _ in 0..3 {
            spawn(|| sleep(HOUR));
        }
        spawn(|| {
            sleep(MS);
            std::process::exit(7);
        });
        sleep(HOUR);
    }
    guarded(|| {
        let output = child::run(NAME);
        assert_eq!(output.status.code(), Some(7), "{}", child::text_of(&output));
    });
}
