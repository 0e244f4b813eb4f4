//! The example `crawler`: it gets what can be had, tries again what may pass, and is polite.

use crate::{complaint_of, output_of, run};

/// The lines that it prints when called with `args`, and those of its progress.
fn crawl(args: &[&str]) -> (Vec<String>, Vec<String>) {
    let output = run("crawler", args);
    assert!(output.status.success(), "{output:?}");
    let [printed, shown] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    let owned = |lines: std::str::Lines<'_>| lines.map(str::to_owned).collect();
    (owned(printed.lines()), shown.split('\r').map(|it| it.trim().to_owned()).collect())
}

/// The number after a word of a line.
fn number_after(line: &str, word: &str) -> u32 {
    let rest = line.split_once(word).unwrap_or_else(|| panic!("{word}: {line}")).1;
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn what_can_be_had_is_fetched_in_order_and_the_rest_is_given_up_for_a_reason() {
    let (lines, progress) = crawl(&["--urls", "60"]);
    assert_eq!(lines[0], "crawling 60 URLs of 3 hosts");
    assert!(lines[1].starts_with("fetched 42 pages with 693 bytes, after "), "{lines:?}");
    // Of each host two pages fail twice, two once, and two at each of four attempts.
    assert!(number_after(&lines[1], "after ") >= 3 * (2 * 2 + 2 + 2 * 3), "{lines:?}");
    let given_up: Vec<_> = lines.iter().filter(|line| line.starts_with("gave up on ")).collect();
    let reasons = ["404 Not Found", "the answer breaks off", "the answer is too long"];
    assert_eq!(given_up.len(), 18);
    // Each URL once, in the order of the URLs, whose pages go up from host to host.
    for (at, line) in given_up.iter().enumerate() {
        let page = [3, 8, 9, 13, 18, 19][at / 3];
        let expected = format!("/{page}: {}", reasons[at / 3 % 3]);
        assert!(line.ends_with(&expected), "{line} for {expected}");
    }
    // Progress goes up by one, to the end.
    let done: Vec<u32> =
        progress.iter().filter_map(|it| it.split(' ').next()?.parse().ok()).collect();
    assert_eq!(done, (1..=60).collect::<Vec<_>>());
    assert!(progress.last().unwrap().starts_with("60 of 60 done, "), "{progress:?}");
}

#[test]
fn no_host_is_asked_for_more_at_once_than_was_said() {
    for (per_host, urls) in [(1, "30"), (3, "90")] {
        let (lines, _) = crawl(&["--urls", urls, "--per-host", &per_host.to_string()]);
        let hosts: Vec<_> = lines.iter().filter(|line| line.starts_with("host ")).collect();
        assert_eq!(hosts.len(), 3);
        for line in hosts {
            assert_eq!(number_after(line, "at most "), per_host, "{line}");
        }
    }
}

#[test]
fn few_workers_do_the_same_as_many() {
    for workers in ["1", "60"] {
        let (lines, _) = crawl(&["--urls", "12", "--workers", workers]);
        assert!(lines[1].starts_with("fetched 9 pages"), "{lines:?}");
    }
}

#[test]
fn bad_arguments_are_named() {
    let complaint = |args: &[&str]| complaint_of("crawler", args);
    assert!(output_of("crawler", &["--help"]).starts_with("Fetches many URLs"));
    assert!(complaint(&["--urls"]).contains("--urls needs a value"));
    assert!(complaint(&["--per-host", "0"]).contains("--per-host cannot be `0`"));
    assert!(complaint(&["--fast"]).contains("unknown argument `--fast`"));
}
