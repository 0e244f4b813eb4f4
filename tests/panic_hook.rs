//! The panic hook: what waits in it holds its whole thread, and the count of unwindings stays right.

mod util;

use std::io::{Read, Write};
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, panicking};
use std::time::{Duration, Instant};

use stolon::green::net::TcpStream;
use stolon::timeout::with_timeout;
use stolon::{sleep, spawn};
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
