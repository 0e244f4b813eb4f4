//! Dumps: who there is, what each waits for, and where.
#![allow(unsafe_code)]

mod util;

use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::mem;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use stolon::debug::{dump, dump_on_sigquit, format_hub_listeners, format_hub_timers};
use stolon::green::net::TcpListener;
use stolon::green::signal::{SIGQUIT, Signals};
use stolon::greenlet::{self, Greenlet};
use stolon::greenthread::Builder;
use stolon::hub::{schedule_call_global, trampoline};
use stolon::poller::Interest;
use stolon::{GreenThread, sleep};
use util::child;
use util::leak::guarded;
use util::sockets::{fill, pair};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

#[track_caller]
fn named(name: &str, run: impl FnOnce() + 'static) -> GreenThread<()> {
    Builder::new().name(name).spawn(run).unwrap()
}

#[inline(never)]
fn wait_in_vain() {
    sleep(1_000_000 * MS);
    // So that the frame is there.
    black_box(0);
}

/// What `text` says of the greenlet `name`, up to the next one.
fn entry<'a>(text: &'a str, name: &str) -> &'a str {
    let from = text.find(name).unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    let entry = &text[from..];
    entry.find("\n\n").map_or(entry, |to| &entry[..to])
}

#[test]
fn a_dump_tells_of_each_what_it_waits_for_and_where() {
    guarded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (own, (near, far)) = (listener.local_addr().unwrap(), pair());
        let (here, there) = (far.local_addr().unwrap(), far.peer_addr().unwrap());
        let line = line!() + 1;
        let sleeper = named("sleeper", wait_in_vain);
        let waits = [
            named("acceptor", move || drop(listener.accept())),
            named("reader", move || drop((&far).read(&mut [0; 8]))),
        ];
        sleep(NOW);
        let main = greenlet::current::<()>();
        let by_hand = Greenlet::builder().name("by hand").build(move |()| {
            // It is dropped here.
            let _ = main.switch(());
        });
        let by_hand = by_hand.unwrap();
        by_hand.switch(()).unwrap();
        let unstarted = Greenlet::builder().name("unstarted").build(|()| ()).unwrap();
        let ready = named("ready", || ());

        let text = dump().unwrap().to_string();
        assert!(text.starts_with("thread 'a_dump_tells_of_"), "{text}");
        let sleeping = entry(&text, "'sleeper'");
        let place = format!("(#2), made at {}:{line}:", file!());
        assert!(sleeping.contains(&place), "{place} not in {sleeping}");
        assert!(sleeping.contains("waits for a sleep to end, "), "{sleeping}");
        assert!(sleeping.contains(" s left\n") && sleeping.contains("wait_in_vain"), "{sleeping}");
        assert!(!sleeping.contains("introspect"), "{sleeping}");
        assert!(entry(&text, "'acceptor'").contains(&format!("to become readable ({own})")));
        let connection = format!("to become readable ({here} to {there})");
        assert!(entry(&text, "'reader'").contains(&connection), "{connection} not in {text}");
        assert!(entry(&text, "'by hand'").contains("waits to be switched to"), "{text}");
        assert!(entry(&text, "'unstarted'").contains("has not started"), "{text}");
        assert!(entry(&text, "'ready'").contains("can run"), "{text}");
        assert!(entry(&text, "the main greenlet").contains(": runs"), "{text}");
        assert!(text.contains(" 1 ready, 3 parked,\n1 timers"), "{text}");

        drop((by_hand, unstarted, near));
        ready.wait();
        sleeper.kill();
        waits.iter().for_each(|waiting| waiting.kill());
    });
}

#[test]
fn how_long_each_has_waited_is_told_once_somebody_wants_to_know() {
    guarded(|| {
        let before = named("before", wait_in_vain);
        sleep(NOW);
        assert!(!dump().unwrap().to_string().contains("so far"));
        dump_on_sigquit(true).unwrap();
        let since = named("since", wait_in_vain);
        sleep(5 * MS);
        let text = dump().unwrap().to_string();
        assert!(!entry(&text, "'before'").contains("so far"), "{text}");
        let line = entry(&text, "'since'").lines().next().unwrap();
        let lasted = line.split_once("left, for ").unwrap().1.split_once(" ms so far").unwrap().0;
        let lasted: f64 = lasted.parse().unwrap();
        assert!((4.9..900.0).contains(&lasted), "{line}");
        dump_on_sigquit(false).unwrap();
        before.kill();
        since.kill();
    });
}

// BD-04
#[test]
fn who_waits_to_read_or_write_is_listed_as_both_with_its_descriptor() {
    guarded(|| {
        let (full, other) = pair();
        fill(&full);
        let either = named("either", move || drop(trampoline(&full, Interest::BOTH, None)));
        sleep(NOW);
        let text = format_hub_listeners().unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[2], lines.len()), ("READERS:", "WRITERS:", 4), "{text}");
        assert!(lines[1].contains("greenlet 'either'") && lines[1] == lines[3], "{text}");
        let text = dump().unwrap().to_string();
        let address = other.local_addr().unwrap().to_string();
        assert!(entry(&text, "'either'").lines().next().unwrap().contains(&address), "{text}");
        either.kill();
    });
}

// BD-04
#[test]
fn listeners_and_timers_are_listed_with_where_they_were_made() {
    guarded(|| {
        assert_eq!(format_hub_listeners().unwrap(), "READERS:\nWRITERS:\n");
        assert_eq!(format_hub_timers().unwrap(), "TIMERS:\n");
        let ((near, far), (full, other)) = (pair(), pair());
        fill(&full);
        let (here, there) = (far.local_addr().unwrap(), far.peer_addr().unwrap());
        let line = line!() + 1;
        let reader = named("reader", move || drop((&far).read(&mut [0; 8])));
        let writer = named("writer", move || drop((&full).write(b"more")));
        let late = named("late", || sleep(2000 * MS));
        let early = named("early", || sleep(1000 * MS));
        let call = schedule_call_global(3000 * MS, || ());
        sleep(NOW);

        let text = format_hub_listeners().unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[2], lines.len()), ("READERS:", "WRITERS:", 4), "{text}");
        let made =
            format!("({here} to {there}): greenlet 'reader' (#2), made at {}:{line}:", file!());
        assert!(lines[1].contains(&made), "{made} not in {text}");
        assert!(lines[3].contains("greenlet 'writer' (#3)"), "{text}");

        let text = format_hub_timers().unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines.len()), ("TIMERS:", 4), "{text}");
        assert!(lines[1].contains("'early'") && lines[2].contains("'late'"), "{text}");
        assert!(lines[1].starts_with("  in ") && lines[1].ends_with(", a sleep to end"), "{text}");
        let call_line = line + 4;
        let call_place = format!(": a call, scheduled at {}:{call_line}:", file!());
        assert!(lines[3].contains(&call_place), "{call_place} not in {text}");

        call.cancel();
        [reader, writer, late, early].iter().for_each(|waiting| waiting.kill());
        drop((near, other));
    });
}

// On SIGQUIT.

/// Runs `test` in a child whose threads all have the signal blocked, asks it once or twice, and
/// returns two dumps that it printed, each up to the frame of `wait_in_vain`.
fn ask(test: &str, asks: [bool; 2]) -> [String; 2] {
    let mut command = child::command(test);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let block = || {
        let _blocked = mem::ManuallyDrop::new(Signals::new(&[SIGQUIT])?);
        Ok(())
    };
    // SAFETY: the child of the fork makes system calls, and allocates, which glibc allows there.
    unsafe { command.pre_exec(block) };
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(stdout.any(|line| line.unwrap() == "ready"));
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let answers = asks.map(|asks| {
        // SAFETY: a plain system call; the child was not waited for, so the number is still its.
        assert!(!asks || unsafe { libc::kill(child.id() as libc::pid_t, SIGQUIT) } == 0);
        let mut answer = String::new();
        for line in stderr.by_ref().map(Result::unwrap) {
            answer += &line;
            answer.push('\n');
            if line.contains("wait_in_vain") {
                break;
            }
        }
        answer
    });
    child.kill().unwrap();
    child.wait().unwrap();
    answers
}

fn expect_dump(answer: &str) {
    assert!(answer.contains("thread '") && answer.contains("the main greenlet"), "{answer}");
    let sleeper = entry(answer, "'sleeper'");
    assert!(sleeper.contains("waits for a sleep to end") && sleeper.contains("so far"), "{answer}");
}

#[test]
fn an_idle_process_tells_on_sigquit_who_waits_for_what() {
    const NAME: &str = "an_idle_process_tells_on_sigquit_who_waits_for_what";
    if child::is_child() {
        dump_on_sigquit(true).unwrap();
        sleep(NOW);
        let sleeper = named("sleeper", wait_in_vain);
        sleep(NOW);
        println!("\nready");
        return sleeper.wait();
    }
    guarded(|| ask(NAME, [true; 2]).iter().for_each(|answer| expect_dump(answer)));
}

#[test]
fn a_busy_process_tells_on_sigquit_too() {
    const NAME: &str = "a_busy_process_tells_on_sigquit_too";
    if child::is_child() {
        dump_on_sigquit(true).unwrap();
        sleep(NOW);
        let sleeper = named("sleeper", wait_in_vain);
        println!("\nready");
        while !sleeper.is_dead() {
            sleep(NOW);
        }
        return;
    }
    guarded(|| ask(NAME, [true; 2]).iter().for_each(|answer| expect_dump(answer)));
}

#[test]
fn each_thread_that_asked_for_it_tells_on_one_sigquit() {
    const NAME: &str = "each_thread_that_asked_for_it_tells_on_one_sigquit";
    if child::is_child() {
        let wait = |sleeper: &str| {
            dump_on_sigquit(true).unwrap();
            sleep(NOW);
            let sleeper = named(sleeper, wait_in_vain);
            sleep(NOW);
            sleeper
        };
        let (sender, is_ready) = mpsc::channel();
        let other = thread::Builder::new().name("other".into());
        let other = other.spawn(move || {
            let sleeper = wait("sleeper");
            sender.send(()).unwrap();
            sleeper.wait();
        });
        let sleeper = wait("sleeper");
        is_ready.recv().unwrap();
        println!("\nready");
        sleeper.wait();
        return other.unwrap().join().unwrap();
    }
    guarded(|| {
        let answers = ask(NAME, [true, false]);
        answers.iter().for_each(|answer| expect_dump(answer));
        let of_other = answers.iter().filter(|answer| answer.contains("thread 'other'"));
        assert_eq!(of_other.count(), 1, "{answers:?}");
    });
}

#[test]
fn turning_it_off_gives_the_signal_back() {
    guarded(|| {
        let is_blocked = || {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() >> (SIGQUIT - 1) & 1 == 1
        };
        assert!(!is_blocked());
        for _ in 0..2 {
            dump_on_sigquit(true).unwrap();
            dump_on_sigquit(true).unwrap();
            assert!(is_blocked());
            dump_on_sigquit(false).unwrap();
            dump_on_sigquit(false).unwrap();
            assert!(!is_blocked());
        }
    });
}
