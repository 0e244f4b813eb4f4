//! The end of a thread or of the process while green threads are alive.

mod util;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use stolon::green::net::TcpListener;
use stolon::greenlet;
use stolon::{sleep, spawn};
use util::leak::guarded;
use util::sockets::pair;
use util::{child, server};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

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
        receiver.iter().collect::<Vec<_>>()
    };
    let (one, other) = (run(false), run(true));
    assert_eq!(one, other);
    one
}

// Of a thread.

#[test]
fn those_alive_at_the_end_of_their_thread_are_unwound_the_youngest_first() {
    guarded(|| {
        let said = on_a_thread_that_ends(|sender| {
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
            sender.send("end").unwrap();
        });
        assert_eq!(said, ["end", "unstarted", "young", "old"]);
    });
}

#[test]
fn what_waits_in_a_destructor_at_the_end_does_not_wait() {
    guarded(|| {
        let said = on_a_thread_that_ends(|sender| {
            spawn(move || {
                let _sleeps = OnDrop(|| {
                    sleep(HOUR);
                    sender.send("no sleep").unwrap();
                });
                sleep(HOUR);
            });
            sleep(NOW);
        });
        assert_eq!(said, ["no sleep"]);
    });
}

#[test]
fn nobody_else_runs_while_destructors_do() {
    guarded(|| {
        let said = on_a_thread_that_ends(|sender| {
            let runs = sender.clone();
            spawn(move || {
                loop {
                    sleep(MS);
                    runs.send("other").unwrap();
                }
            });
            spawn(move || {
                let _yields = OnDrop(|| {
                    for _ in 0..10 {
                        sleep(2 * MS);
                        sleep(NOW);
                    }
                    sender.send("destructor").unwrap();
                });
                sleep(HOUR);
            });
            sleep(NOW);
        });
        assert_eq!(said, ["destructor"]);
    });
}

#[test]
fn destructors_that_kill_and_spawn_at_the_end_do_no_harm() {
    guarded(|| {
        let said = on_a_thread_that_ends(|sender| {
            let says = sender.clone();
            let older = spawn(move || {
                let _says = OnDrop(|| says.send("older").unwrap());
                sleep(HOUR);
            });
            spawn(move || {
                let _kills = OnDrop(|| {
                    older.kill();
                    let spawned = stolon::greenthread::Builder::new().spawn(|| ());
                    assert!(spawned.is_err());
                    sender.send("younger").unwrap();
                });
                sleep(HOUR);
            });
            sleep(NOW);
        });
        assert_eq!(said, ["younger", "older"]);
    });
}

#[test]
fn input_and_output_in_a_destructor_at_the_end_fail_instead_of_waiting() {
    guarded(|| {
        let said = on_a_thread_that_ends(|sender| {
            let (near, far) = pair();
            spawn(move || {
                let _reads = OnDrop(|| {
                    (&near).write_all(b"there is room for this").unwrap();
                    let error = (&near).read(&mut [0; 8]).unwrap_err();
                    assert!(error.to_string().contains("exiting"), "{error}");
                    sender.send("an error").unwrap();
                });
                let _ = (&near).read(&mut [0; 8]);
                drop(far);
            });
            sleep(NOW);
        });
        assert_eq!(said, ["an error"]);
    });
}

#[test]
fn sockets_of_those_alive_at_the_end_are_closed() {
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
            sender.send("end").unwrap();
        });
        assert_eq!(said, ["end"]);
    });
}

#[test]
fn a_thread_whose_main_panics_still_unwinds_its_green_threads() {
    guarded(|| {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            spawn(move || {
                let _says = OnDrop(|| sender.send("unwound").unwrap());
                sleep(HOUR);
            });
            sleep(NOW);
            panic!("in main");
        });
        assert!(thread.join().is_err());
        assert_eq!(receiver.recv(), Ok("unwound"));
    });
}

#[test]
fn waiting_for_a_green_thread_at_the_end_is_a_panic_that_can_be_caught() {
    guarded(|| {
        let said = on_a_thread_that_ends(|sender| {
            let older = spawn(|| sleep(HOUR));
            spawn(move || {
                let _waits = OnDrop(|| {
                    let ended = catch_unwind(AssertUnwindSafe(|| older.wait()));
                    let payload = ended.unwrap_err();
                    assert!(payload.downcast_ref::<&str>().unwrap().contains("exiting"));
                    sender.send("a panic").unwrap();
                });
                sleep(HOUR);
            });
            sleep(NOW);
        });
        assert_eq!(said, ["a panic"]);
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
        assert!(output.status.success() && text.contains("unwound"), "{text}");
        assert!(!text.contains("never runs"), "{text}");
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
