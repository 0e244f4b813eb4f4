//! The panic hook: what waits in it holds its whole thread, and the count of unwindings stays right.

mod util;

use std::cell::Cell;
use std::io::{Read, Write};
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, panicking};
use std::time::{Duration, Instant};

use stolon::green::net::TcpStream;
use stolon::greenlet::{self, Iter};
use stolon::queue::Queue;
use stolon::timeout::with_timeout;
use stolon::{GreenThread, sleep, spawn};
use util::child;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

static TICKS: AtomicUsize = AtomicUsize::new(0);

/// Runs `body` in a child process whose panic hook is `hook`, and checks that it comes to its end.
#[track_caller]
fn with_hook(name: &str, hook: fn(), body: fn()) {
    if child::is_child() {
        panic::set_hook(Box::new(move |_| hook()));
        body();
        assert!(!panicking());
        // The count is right: otherwise nothing could be raised, or too much.
        assert!(with_timeout(MS, || sleep(Duration::MAX)).is_err());
        println!("came to its end");
        std::process::exit(0);
    }
    let output = child::run(name);
    let text = child::text_of(&output);
    assert!(output.status.success() && text.contains("came to its end"), "{text}");
}

/// Two that panic, one while the hook of the other may wait, beside one that counts.
fn two_panic() {
    let ticker = spawn(|| {
        loop {
            TICKS.fetch_add(1, Ordering::Relaxed);
            sleep(MS / 10);
        }
    });
    let first = spawn(|| panic!("one"));
    let second = spawn(|| {
        sleep(MS);
        panic!("two")
    });
    let killed = spawn(|| sleep(Duration::MAX));
    sleep(NOW);
    killed.kill();
    assert!(first.join().is_err() && second.join().is_err() && killed.is_dead());
    ticker.kill();
}

#[test]
fn a_sleep_in_it_holds_the_thread() {
    let hook = || {
        let (before, start) = (TICKS.load(Ordering::Relaxed), Instant::now());
        sleep(NOW);
        sleep(20 * MS);
        assert!(start.elapsed() >= 20 * MS);
        assert_eq!(TICKS.load(Ordering::Relaxed), before, "others had their turns");
    };
    with_hook("a_sleep_in_it_holds_the_thread", hook, two_panic);
}

#[test]
fn it_may_send_its_report_by_a_green_socket() {
    let hook = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut logger = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut report = [0; 1 << 20];
            connection.read_exact(&mut report).unwrap();
            connection.write_all(b"noted").unwrap();
        });
        let before = TICKS.load(Ordering::Relaxed);
        logger.write_all(&[1; 1 << 20]).unwrap();
        logger.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(TICKS.load(Ordering::Relaxed), before, "others had their turns");
        peer.join().unwrap();
    };
    with_hook("it_may_send_its_report_by_a_green_socket", hook, two_panic);
}

#[test]
fn what_only_other_greenlets_could_do_does_not_come() {
    let hook = || {
        // It could only be sent by another green thread of this one.
        assert!(Queue::<u32>::new(None).get_timeout(Duration::from_secs(3600)).is_err());
    };
    with_hook("what_only_other_greenlets_could_do_does_not_come", hook, two_panic);
}

#[test]
fn killall_in_it_lets_nobody_run() {
    let hook = || {
        let before = TICKS.load(Ordering::Relaxed);
        // On the root: it is for that alone.
        if greenlet::current::<()>().parent::<()>().is_none() {
            greenlet::killall();
        }
        assert_eq!(TICKS.load(Ordering::Relaxed), before, "others had their turns");
    };
    let body = || {
        spawn(|| {
            loop {
                TICKS.fetch_add(1, Ordering::Relaxed);
                sleep(NOW);
            }
        });
        sleep(MS);
        assert!(panic::catch_unwind(|| panic!("on the root")).is_err());
        sleep(MS);
        assert_eq!(greenlet::all().len(), 2, "what is left is the root and the mainloop");
    };
    with_hook("killall_in_it_lets_nobody_run", hook, body);
}

#[test]
fn what_it_kills_or_drops_is_killed_when_it_is_over() {
    thread_local!(static VICTIM: Cell<Option<GreenThread<()>>> = const { Cell::new(None) });
    thread_local!(static DROPPED: Cell<Option<Iter<u32>>> = const { Cell::new(None) });
    let hook = || {
        let Some(victim) = VICTIM.take() else { return };
        victim.kill();
        assert!(!victim.is_dead());
        VICTIM.set(Some(victim));
        drop(DROPPED.take());
    };
    let body = || {
        let mut items = greenlet::iter(|y| (0..100).for_each(|n| y.yield_(n)));
        items.next();
        DROPPED.set(Some(items));
        VICTIM.set(Some(spawn(|| sleep(Duration::MAX))));
        sleep(NOW);
        let alive = greenlet::all().len();
        assert!(spawn(|| panic!("on purpose")).join().is_err());
        let victim = VICTIM.take().unwrap();
        assert!(victim.join().is_err());
        // Making another looks after what was let go of meanwhile.
        spawn(|| ()).wait();
        assert_eq!(greenlet::all().len(), alive - 2);
        // The count is right in a later unwinding, too.
        let ended = panic::catch_unwind(|| {
            struct Asks;
            impl Drop for Asks {
                fn drop(&mut self) {
                    assert!(panicking());
                }
            }
            let _asks = Asks;
            panic::resume_unwind(Box::new(()));
        });
        assert!(ended.is_err());
    };
    with_hook("what_it_kills_or_drops_is_killed_when_it_is_over", hook, body);
}
