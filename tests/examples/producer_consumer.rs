//! The example `producer_consumer`: all work is found and done once, by so many at once.

use crate::{complaint_of, output_of};

/// The numbers in a text, in their order.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[test]
fn all_that_can_be_reached_is_visited_once_by_as_many_as_there_may_be() {
    for workers in [1, 8, 50] {
        let printed = output_of("producer_consumer", &["--workers", &workers.to_string()]);
        let lines: Vec<_> = printed.lines().map(numbers).collect();
        // Of a binary tree of 400 there are 401 leaves that are not there; each page links upwards.
        assert_eq!(lines[0], [400, 401], "{printed}");
        assert_eq!(lines[1], [400], "{printed}");
        assert_eq!(lines[2], [workers, workers], "{printed}");
        let [took, one_by_one] = lines[3][..] else { panic!("{printed}") };
        assert_eq!(one_by_one, 2 * 801);
        assert!(took >= one_by_one / workers, "{printed}");
    }
}

#[test]
fn a_site_of_one_page_comes_to_its_end() {
    let printed = output_of("producer_consumer", &["--pages", "1"]);
    assert!(printed.starts_with("visited 1 pages, and followed 2 links"), "{printed}");
}

#[test]
fn bad_arguments_are_named() {
    let complaint = |args: &[&str]| complaint_of("producer_consumer", args);
    assert!(output_of("producer_consumer", &["--help"]).starts_with("Visits all pages"));
    assert!(complaint(&["--workers"]).contains("--workers needs a value"));
    assert!(complaint(&["--workers", "0"]).contains("--workers cannot be `0`"));
    assert!(complaint(&["--pages", "many"]).contains("--pages cannot be `many`"));
    assert!(complaint(&["--sites", "2"]).contains("unknown argument `--sites`"));
}
