//! Greenlets in a program that is built with `panic = "abort"`: `tests/panic_abort/` is one, which
//! this builds and runs.

mod util;

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use util::child::text_of;
use util::server::runner;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const TARGET: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/panic_abort");

/// Builds the program for the architecture of this test, and runs it.
fn run(arguments: &[&str]) -> Output {
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let manifest = format!("{ROOT}/tests/panic_abort/Cargo.toml");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--offline", "--manifest-path", &manifest]);
    build.args(["--target", &triple, "--target-dir", TARGET]);
    let built = build.output().expect("cargo starts");
    assert!(built.status.success(), "{}", text_of(&built));
    let program = Path::new(TARGET).join(triple).join("debug/stolon-panic-abort");
    let runner = runner().unwrap_or_default();
    let mut words: Vec<_> = runner.split_whitespace().map(Path::new).collect();
    words.push(&program);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(arguments).env("RUST_BACKTRACE", "0");
    command.output().expect("the program starts")
}

#[test]
fn where_panics_abort_nothing_is_unwound_and_killing_is_an_error() {
    let output = run(&[]);
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(text_of(&output).contains("all rules hold"));
}

#[test]
fn where_panics_abort_a_scope_with_a_suspended_or_leaked_greenlet_aborts_the_process() {
    for case in ["scope", "leak"] {
        let output = run(&[case]);
        let text = text_of(&output);
        assert!(text.contains("cannot be made to end, and its scope has ended"), "{case}: {text}");
        assert!(output.stdout.is_empty(), "{case}: {text}");
        assert_eq!(output.status.signal(), Some(6), "{case}");
    }
}

#[test]
fn where_panics_abort_a_timeout_that_expires_in_a_wait_ends_the_process_with_a_message() {
    let output = run(&["timeout"]);
    let text = text_of(&output);
    assert!(text.contains("a timeout cannot be raised: panics abort here"), "{text}");
    assert!(output.stdout.is_empty(), "{text}");
    assert_eq!(output.status.signal(), Some(6));
}

#[test]
fn where_panics_abort_a_panic_in_a_greenlet_aborts_the_process() {
    let output = run(&["panic"]);
    assert!(text_of(&output).contains("in a greenlet"), "{}", text_of(&output));
    assert_eq!(output.status.signal(), Some(6));
}
