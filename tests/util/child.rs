//! This test program once more, as a child process that runs one test alone.
#![allow(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::panic::Location;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use super::server::{PATIENCE, runner};

const ROLE: &str = "STOLON_TEST_CHILD";

/// Whether this process is a child that [`command`] started. If so, it ends by a signal after a
/// while.
pub fn is_child() -> bool {
    let is_child = env::var_os(ROLE).is_some();
    if is_child {
        // SAFETY: a plain system call.
        unsafe { libc::alarm(PATIENCE.as_secs() as libc::c_uint) };
    }
    is_child
}

/// The command that runs the test `name` of the file that calls this, and no other, in a child
/// process, where [`is_child`] is true.
#[track_caller]
pub fn command(name: &str) -> Command {
    command_in(Location::caller().file(), name)
}

fn command_in(file: &str, name: &str) -> Command {
    let name = path_of(name, Path::new(file));
    assert!(tests().lines().any(|line| line == format!("{name}: test")), "no test {name}");
    let mut command = this_program();
    command.args([&name, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, "").env("RUST_BACKTRACE", "0");
    command
}

fn this_program() -> Command {
    let program = env::current_exe().expect("the path of this test").into_os_string();
    let runner = runner().unwrap_or_default();
    let words: Vec<OsString> =
        runner.split_whitespace().map(OsString::from).chain([program]).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The tests of this program: to run one that is not there would be to pass.
fn tests() -> &'static str {
    static TESTS: OnceLock<String> = OnceLock::new();
    TESTS.get_or_init(|| {
        let listed = this_program().arg("--list").output().expect("the program starts again");
        String::from_utf8(listed.stdout).expect("names of tests")
    })
}

/// What the test harness calls a test: in programs of several files its modules come first.
fn path_of(name: &str, file: &Path) -> String {
    let file = file.with_extension("");
    let below_tests = file.iter().skip_while(|part| *part != "tests").skip(1);
    // The first one is the program.
    let modules = below_tests.skip(1).filter(|part| *part != "main" && *part != "mod");
    let modules = modules.map(|part| part.to_str().expect("a source file has a plain name"));
    modules.chain([name]).collect::<Vec<_>>().join("::")
}

/// Runs the test `name` in a child process, and returns its status and all that it printed.
#[track_caller]
pub fn run(name: &str) -> Output {
    command(name).output().expect("the program starts again")
}

/// As [`run`], for a test in `file`.
pub fn run_in(file: &str, name: &str) -> Output {
    command_in(file, name).output().expect("the program starts again")
}

/// What a child printed on its stdout, with what it complained about beneath.
pub fn text_of(output: &Output) -> String {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{stdout}\n{stderr}")
}
