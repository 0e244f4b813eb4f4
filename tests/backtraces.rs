//! What backtraces and debuggers make of the stacks of greenlets: they end at the first frame.
#![allow(unsafe_code, reason = "a name that a debugger finds")]

mod util;

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::hint::black_box;
use std::panic::catch_unwind;
use std::process::Command;
use std::time::Duration;

use stolon::{sleep, spawn};
use util::child::{self, text_of};
use util::crash::run_in_greenlet;
use util::server::is_emulated;

const FIRST_FRAME: &str = "stolon_0_1_start";

/// How many frames of [`descend`] there are above what is called at last.
const DEPTH: usize = 4;

#[inline(never)]
fn descend(depth: usize, at_last: fn()) {
    match black_box(depth) {
        1 => at_last(),
        _ => descend(depth - 1, at_last),
    }
    // So that the call is not the last thing done.
    black_box(depth);
}

/// Where the debugger stops.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stolon_test_stop_here() {
    black_box(0);
}

/// In a greenlet, and in a green thread before it waits and after.
fn run_everywhere(at_last: fn()) {
    run_in_greenlet(move || descend(DEPTH, at_last));
    let thread = spawn(move || {
        descend(DEPTH, at_last);
        sleep(Duration::ZERO);
        descend(DEPTH, at_last);
    });
    thread.wait();
}

/// Checks that these are all the frames of a greenlet's stack, the innermost first, by their names.
#[track_caller]
fn expect_whole<'a>(names: impl IntoIterator<Item = &'a str>) {
    let names: Vec<&str> = names.into_iter().collect();
    let text = names.join("\n");
    assert_eq!(names.iter().filter(|name| name.contains("descend")).count(), DEPTH, "{text}");
    let first = names.iter().position(|name| name.contains(FIRST_FRAME));
    assert_eq!(first, Some(names.len() - 1), "{text}");
}

/// The names in a backtrace that std has printed.
fn names(backtrace: &str) -> impl Iterator<Item = &str> {
    let frames = backtrace.lines().filter_map(|line| line.trim_start().split_once(": "));
    frames.filter(|(number, _)| number.parse::<usize>().is_ok()).map(|(_, name)| name)
}

#[test]
fn a_backtrace_ends_at_the_first_frame() {
    thread_local! {
        static TAKEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }
    run_everywhere(|| {
        let backtrace = Backtrace::force_capture().to_string();
        TAKEN.with_borrow_mut(|taken| taken.push(backtrace));
    });
    let taken = TAKEN.take();
    assert_eq!(taken.len(), 3);
    for backtrace in &taken {
        expect_whole(names(backtrace));
    }
}

#[test]
fn the_backtrace_of_a_panic_ends_at_the_first_frame() {
    let test = "the_backtrace_of_a_panic_ends_at_the_first_frame";
    if child::is_child() {
        return run_everywhere(|| {
            catch_unwind(|| panic!("for a look at the stack")).unwrap_err();
        });
    }
    let output = child::command(test).env("RUST_BACKTRACE", "1").output().unwrap();
    let text = text_of(&output);
    assert!(output.status.success(), "{text}");
    let backtraces: Vec<&str> = text.split("stack backtrace:").skip(1).collect();
    assert_eq!(backtraces.len(), 3, "{text}");
    for backtrace in backtraces {
        expect_whole(names(backtrace));
    }
}

/// What gdb says of this test in a child process; none where it cannot be used.
fn debug(test: &str, commands: &[&str]) -> Option<String> {
    if is_emulated() {
        println!("skipped: the debugger of this machine is for another architecture");
        return None;
    }
    let child = child::command(test);
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", "set backtrace limit 200", "-ex", "set width 0"]);
    gdb.args(commands.iter().flat_map(|command| ["-ex", command]));
    gdb.arg("--args").arg(child.get_program()).args(child.get_args());
    for (name, value) in child.get_envs() {
        gdb.env(name, value.unwrap_or_default());
    }
    // It would look for sources elsewhere.
    let Ok(output) = gdb.env_remove("DEBUGINFOD_URLS").output() else {
        println!("skipped: there is no gdb");
        return None;
    };
    let text = text_of(&output);
    // Where processes may not be traced, as in some containers.
    if text.contains("ptrace: Operation not permitted") || text.contains("trace the inferior") {
        println!("skipped: gdb may not trace processes");
        return None;
    }
    Some(text)
}

#[test]
fn a_debugger_sees_the_stack_up_to_the_first_frame_and_no_further() {
    let test = "a_debugger_sees_the_stack_up_to_the_first_frame_and_no_further";
    if child::is_child() {
        return run_everywhere(|| stolon_test_stop_here());
    }
    let look = ["continue", "echo stack backtrace:\\n", "backtrace"];
    let start = ["break stolon_test_stop_here", "run", look[1], look[2]];
    let Some(text) = debug(test, &[&start[..], &look, &look, &["kill"]].concat()) else { return };
    let backtraces: Vec<&str> = text.split("stack backtrace:").skip(1).collect();
    assert_eq!(backtraces.len(), 3, "{text}");
    for backtrace in backtraces {
        assert!(!backtrace.contains("Backtrace stopped"), "{backtrace}");
        let frames = backtrace.lines().filter(|line| line.starts_with('#'));
        expect_whole(frames);
    }
}

#[test]
fn a_debugger_sees_the_first_frame_alone_where_a_greenlet_starts() {
    let test = "a_debugger_sees_the_first_frame_alone_where_a_greenlet_starts";
    if child::is_child() {
        return run_everywhere(|| ());
    }
    let first_instruction = format!("break *{FIRST_FRAME}");
    // In Rust's words gdb would look for a value of that name.
    let start = ["set language c", &first_instruction, "run"];
    let commands = [&start[..], &["echo stack backtrace:\\n", "backtrace", "kill"]].concat();
    let Some(text) = debug(test, &commands) else { return };
    let (_, backtrace) = text.split_once("stack backtrace:").expect("it stops");
    assert!(!backtrace.contains("Backtrace stopped"), "{backtrace}");
    let frames: Vec<&str> = backtrace.lines().filter(|line| line.starts_with('#')).collect();
    assert!(frames.len() == 1 && frames[0].contains(FIRST_FRAME), "{text}");
}
