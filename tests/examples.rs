//! Each example prints what its documentation says.

mod util;

use util::server::example;

#[test]
fn greenlets_prints_what_its_documentation_says() {
    let output = example("greenlets").output().expect("the example runs");
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert_eq!(printed, "12\n56\n34\ntest1: 2\ntest2: 32\ntest1: over\n");
    let source = include_str!("../examples/greenlets.rs");
    let documented: String = source
        .lines()
        .skip_while(|line| *line != "//! prints")
        .skip(3)
        .take_while(|line| *line != "//! ```")
        .map(|line| format!("{}\n", line.trim_start_matches("//! ")))
        .collect();
    assert_eq!(printed, documented);
}
