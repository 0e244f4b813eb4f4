//! Children of a `fork`, which go on with the hub of the thread that forked: corner 24.
#![allow(unsafe_code)]

mod util;

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stolon::green::net::{TcpListener, TcpStream};
use stolon::hub::{self, Waiter};
use stolon::{debug, sleep, spawn};
use util::child;
use util::leak::guarded;
use util::server::PATIENCE;
use util::sockets::{pair, read_once};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const AGE: Duration = Duration::from_secs(3600);

/// Runs `body` in a forked child, and returns whether it came to its end.
#[must_use]
fn fork(body: impl FnOnce()) -> bool {
    // SAFETY: the C library sees to its own locks, and the child runs no other thread's code.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: a plain system call.
        unsafe { libc::alarm(PATIENCE.as_secs() as libc::c_uint) };
        let ended = catch_unwind(AssertUnwindSafe(body));
        // SAFETY: a plain system call.
        unsafe { libc::_exit(if ended.is_ok() { 0 } else { 1 }) }
    }
    let mut status = 0;
    // SAFETY: the status is live.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status == 0
}

/// Runs `body` in a process of its own, which forks.
#[track_caller]
fn in_a_process(test: &str, body: impl FnOnce()) {
    if child::is_child() {
        body();
        println!("to the end");
        return;
    }
    let name = test.to_owned();
    guarded(move || {
        let output = child::run(&name);
        let text = child::text_of(&output);
        assert!(output.status.success() && text.contains("to the end"), "{text}");
    });
}

/// Whether this process's hub can do all that hubs do.
fn use_hub() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).unwrap();
        sleep(MS);
        stream.write_all(&word).unwrap();
    });
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"word").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    server.wait();
    assert_eq!(answer, "word");
    let start = Instant::now();
    sleep(2 * MS);
    assert!(start.elapsed() >= 2 * MS);
}

#[test]
fn a_child_has_a_poller_of_its_own_and_leaves_its_parents_alone() {
    let name = "a_child_has_a_poller_of_its_own_and_leaves_its_parents_alone";
    in_a_process(name, || {
        use_hub();
        let (mut near, far) = pair();
        let far = Rc::new(far);
        let reader = read_once(&far);
        sleep(NOW);
        assert!(fork(|| {
            use_hub();
            // With the child's last descriptor of it, if the poller was its parent's that would
            // watch it no longer.
            reader.kill();
            drop(far);
            use_hub();
        }));
        near.write_all(b"word").unwrap();
        assert_eq!(reader.wait().unwrap(), b"word");
        use_hub();
    });
}

#[test]
fn a_child_may_close_first_of_all() {
    in_a_process("a_child_may_close_first_of_all", || {
        let (mut near, far) = pair();
        let far = Rc::new(far);
        let reader = read_once(&far);
        sleep(NOW);
        assert!(fork(|| {
            // The hub has had no turn in this process.
            drop(near.try_clone().unwrap());
            reader.kill();
            drop(far);
            use_hub();
        }));
        near.write_all(b"word").unwrap();
        assert_eq!(reader.wait().unwrap(), b"word");
    });
}

// OS-06 in small: green threads that were alive at the fork are in the child, too.
#[test]
fn those_who_waited_go_on_waiting_in_the_child() {
    in_a_process("those_who_waited_go_on_waiting_in_the_child", || {
        let (mut near, far) = pair();
        let far = Rc::new(far);
        let reader = read_once(&far);
        let start = Instant::now();
        let sleeper = spawn(move || {
            sleep(20 * MS);
            start.elapsed()
        });
        sleep(NOW);
        assert!(fork(|| {
            assert!(sleeper.wait() >= 20 * MS);
            assert!(!reader.is_dead());
            near.write_all(b"word").unwrap();
            assert_eq!(reader.wait().unwrap(), b"word");
        }));
        assert!(sleeper.wait() >= 20 * MS);
        // The child has read it.
        assert!(!reader.is_dead());
        near.write_all(b"more").unwrap();
        assert_eq!(reader.wait().unwrap(), b"more");
    });
}

#[test]
fn handles_and_wakers_of_the_parent_say_so_in_the_child() {
    in_a_process("handles_and_wakers_of_the_parent_say_so_in_the_child", || {
        let (handle, mut waiter) = (hub::handle(), Waiter::new());
        let waker = waiter.waker();
        handle.run(|| println!("in the parent only")).unwrap();
        assert!(fork(|| {
            assert!(handle.is_gone() && !handle.is_current() && !waker.wake());
            assert_eq!((handle.spawn(|| 7).unwrap_err().0)(), 7);
            let fresh = hub::handle();
            assert!(fresh != handle && fresh.is_current());
            drop((handle.clone(), waker.clone()));
            let thread = thread::spawn(move || fresh.spawn(|| 8).unwrap().join().unwrap());
            while !thread.is_finished() {
                sleep(MS);
            }
            assert_eq!(thread.join().unwrap(), 8);
            // Nobody can wake this one here.
            let report = catch_unwind(AssertUnwindSafe(|| waiter.wait())).unwrap_err();
            assert!(report.downcast::<String>().unwrap().contains("would block forever"));
        }));
        assert!(waker.wake());
        waiter.wait();
        assert_eq!(handle.spawn(|| 9).unwrap().join().unwrap(), 9);
    });
}

/// Forks, has the child return from `in_child`, and so from the thread that calls this, and returns
/// the child's status to the parent.
fn fork_and_return(in_child: impl FnOnce()) -> Option<libc::c_int> {
    // SAFETY: as in `fork`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: a plain system call.
        unsafe { libc::alarm(PATIENCE.as_secs() as libc::c_uint) };
        in_child();
        return None;
    }
    let mut status = 0;
    // SAFETY: the status is live.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    Some(status)
}

#[test]
fn a_job_from_before_the_fork_takes_none_of_the_childs_with_it() {
    // qemu's own threads do not bear it that a child of several threads starts one.
    if util::server::is_emulated() {
        return;
    }
    in_a_process("a_job_from_before_the_fork_takes_none_of_the_childs_with_it", || {
        let thread = thread::spawn(|| {
            let (old, mut began) = (hub::handle(), Waiter::new());
            let begins = began.waker();
            let job = old.spawn(move || {
                begins.wake();
                sleep(20 * MS);
            });
            began.wait();
            let in_child = || {
                let fresh = hub::handle();
                thread::spawn(move || {
                    let joins = fresh.spawn(|| sleep(AGE)).unwrap();
                    let ended = joins.join();
                    // SAFETY: a plain system call.
                    unsafe { libc::_exit(i32::from(ended.is_ok())) }
                });
                // The old job ends meanwhile, and then this thread, with the new one.
                sleep(50 * MS);
            };
            let status = fork_and_return(in_child);
            drop(job);
            status
        });
        assert_eq!(thread.join().unwrap(), Some(0));
    });
}

#[test]
fn who_holds_the_childs_hub_is_reported_when_that_is_asked_for_there() {
    // qemu's own threads do not bear it that a child of several threads starts one.
    if util::server::is_emulated() {
        return;
    }
    in_a_process("who_holds_the_childs_hub_is_reported_when_that_is_asked_for_there", || {
        let limit = Some(10 * MS);
        debug::hub_blocking_detection(limit).unwrap();
        sleep(NOW);
        assert!(fork(|| {
            use_hub();
            debug::hub_blocking_detection(limit).unwrap();
            let (sender, receiver) = std::sync::mpsc::channel();
            debug::set_blocking_hook(move |blocked| sender.send(blocked.id()).unwrap());
            sleep(NOW);
            let start = Instant::now();
            let told = loop {
                match receiver.try_recv() {
                    Ok(told) => break told,
                    Err(_) => assert!(start.elapsed() < PATIENCE / 2, "nobody is told"),
                }
            };
            assert_eq!(told, Some(0));
            debug::hub_blocking_detection(None).unwrap();
            use_hub();
        }));
        use_hub();
    });
}

#[test]
fn what_runs_on_other_threads_ends_for_the_child_with_the_fork() {
    in_a_process("what_runs_on_other_threads_ends_for_the_child_with_the_fork", || {
        static OVER: AtomicBool = AtomicBool::new(false);
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            sender.send(hub::handle()).unwrap();
            while !OVER.load(Ordering::Relaxed) {
                sleep(MS);
            }
        });
        let remote = receiver.recv().unwrap();
        let joins = remote.spawn(|| sleep(AGE)).unwrap();
        assert!(fork(|| {
            assert!(joins.is_finished() && remote.is_gone());
            assert!(joins.join().unwrap_err().is::<stolon::greenlet::GreenletExit>());
            use_hub();
        }));
        OVER.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    });
}

#[test]
fn children_may_have_children() {
    in_a_process("children_may_have_children", || {
        use_hub();
        assert!(fork(|| {
            let handle = hub::handle();
            assert!(fork(|| {
                assert!(handle.is_gone());
                use_hub();
            }));
            use_hub();
            assert!(!handle.is_gone());
        }));
        // From within a green thread, and before the hub has had a turn.
        assert!(spawn(|| fork(use_hub)).wait());
        use_hub();
    });
}
