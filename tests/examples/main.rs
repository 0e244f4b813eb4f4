//! Each example prints what its documentation says, and does what it is for.

mod chat_server;
mod crawler;
mod epoll_server;
mod port_forwarder;
mod producer_consumer;
#[path = "../util/mod.rs"]
mod util;

use std::process::Output;

use util::server::{example, is_emulated};

#[test]
fn greenlets_prints_what_its_documentation_says() {
    let printed = "12\n56\n34\ntest1: 2\ntest2: 32\ntest1: over\n";
    assert_eq!(output_of("greenlets", &[]), printed);
    assert_eq!(documented(include_str!("../../examples/greenlets.rs")), printed);
}

#[test]
fn generators_prints_what_its_documentation_says() {
    let documented = documented(include_str!("../../examples/generators.rs"));
    assert_eq!(documented.lines().count(), 6);
    assert_eq!(output_of("generators", &[]), documented);
}

fn run(name: &str, args: &[&str]) -> Output {
    example(name).args(args).output().expect("the example runs")
}

/// What an example prints that ends well.
fn output_of(name: &str, args: &[&str]) -> String {
    let output = run(name, args);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What it complains about when it is called the wrong way.
fn complaint_of(name: &str, args: &[&str]) -> String {
    let output = run(name, args);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).expect("text")
}

/// What an example's documentation says that it prints.
fn documented(source: &str) -> String {
    source
        .lines()
        .skip_while(|line| *line != "//! prints")
        .skip(3)
        .take_while(|line| *line != "//! ```")
        .map(|line| format!("{}\n", line.trim_start_matches("//! ")))
        .collect()
}

#[test]
fn million_says_what_each_of_as_many_as_asked_for_takes() {
    let printed = output_of("million", &["1000"]);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "1000 green threads waited at once, on 65536 bytes of stack each");
    let first_word = |line: &str| line.split(' ').next().and_then(|n| n.parse::<usize>().ok());
    let bytes = first_word(lines[1]).expect("a number of bytes");
    // A page of stack at least, and not the whole of it. An emulator counts its own memory, too.
    assert!(bytes >= 4096 && (bytes < 65536 || is_emulated()), "{printed}");
}
