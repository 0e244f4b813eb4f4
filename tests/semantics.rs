//! Keeps the tables of `docs/semantics-*.md` complete and true: every case and every rule has a row,
//! and every row a test that exists, or a reason why there is none.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A table of cases of the originals': the file, the heading above it, the group of its cases, and
/// their numbers.
struct Cases(&'static str, &'static str, &'static str, &'static [u32]);

const GREENLET: &str = "docs/semantics-greenlet.md";
const HUB: &str = "docs/semantics-hub.md";
const EVENTLET: &str = "docs/semantics-eventlet.md";
const POOLS: &str = "docs/semantics-greenpool.md";

const CASES: [Cases; 13] = [
    Cases(
        GREENLET,
        "## greenlet's own cases, in Rust",
        "GL",
        &[
            1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 15, 16, 18, 19, 20, 21, 22, 23, 25, 27, 28, 29, 30,
            31, 32, 33, 34, 35,
        ],
    ),
    Cases(
        HUB,
        "## eventlet's own cases, in Rust",
        "HB",
        &[1, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
    ),
    Cases(EVENTLET, "## Events", "EV", &[1, 2, 4, 5, 6]),
    Cases(EVENTLET, "## Semaphores", "SE", &[1, 2, 3, 5, 6, 8, 9, 10]),
    Cases(EVENTLET, "## Queues", "QU", &[1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
    Cases(EVENTLET, "## Timeouts", "TO", &[1, 3, 4, 5, 6, 7, 8, 9]),
    Cases(EVENTLET, "## The native pool", "TP", &[1, 3, 4, 5, 6, 7, 8]),
    Cases(EVENTLET, "## Listening and serving", "CV", &[1, 3, 4, 5]),
    Cases(POOLS, "## Green threads", "GT", &[1, 3, 6, 7, 8, 9, 10, 11, 12, 13]),
    Cases(
        POOLS,
        "## Pools of green threads",
        "GP",
        &[1, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
    ),
    Cases(POOLS, "## Pools of items", "PO", &[2, 3, 4, 5]),
    Cases(POOLS, "## DAGPool", "DG", &[1, 3, 4, 5, 6, 7]),
    Cases(POOLS, "## Pools of connections", "DB", &[1, 2, 3]),
];

/// The tables of rules that stand beside them: the file, the heading, and how many rows there are at
/// least.
const RULES: [(&str, &str, usize); 7] = [
    (GREENLET, "## What becomes of a greenlet", 20),
    (HUB, "## The hub's sharp corners", 5),
    (HUB, "## Looking into a hub", 5),
    (EVENTLET, "## What a timeout finds its greenlet at", 5),
    (EVENTLET, "## All of them", 5),
    (EVENTLET, "## Greenlet-local values", 5),
    (POOLS, "## Sharp corners", 10),
];

fn read(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The rows of the tables below a heading, each as its cells, without those that head a table.
fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let section: Vec<_> = below.take_while(|line| !line.starts_with('#')).collect();
    let is_separator = |line: &str| line.starts_with("|---");
    let rows = section.iter().enumerate().filter(|(at, line)| {
        let heads = section.get(at + 1).is_some_and(|next| is_separator(next));
        line.starts_with('|') && !heads && !is_separator(line)
    });
    rows.map(|(_, line)| {
        let cells = line.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// The names of tests in a cell: what is set as code and has the form of one.
fn names(cell: &str) -> Vec<&str> {
    let is_name = |code: &&str| {
        code.matches('_').count() > 1
            && code.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    cell.split('`').skip(1).step_by(2).filter(is_name).collect()
}

/// The files below a directory that are Rust's.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs"));
    files.chain(directories.iter().flat_map(|path| sources(path))).collect()
}

/// All test functions in `tests/`.
fn tests() -> Vec<String> {
    let mut tests = Vec::new();
    for source in sources(&Path::new(ROOT).join("tests")) {
        let text = fs::read_to_string(source).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for pair in lines.windows(2) {
            if pair[0] == "#[test]" {
                let name = pair[1].trim_start_matches("fn ").split('(').next();
                tests.push(name.unwrap_or_default().to_owned());
            }
        }
    }
    tests
}

#[test]
fn every_case_has_one_row_in_order() {
    for Cases(file, heading, group, numbers) in CASES {
        let rows = rows(&read(file), heading);
        let cases = rows.iter().map(|row| row[0].as_str());
        // A sharp corner may stand between them.
        let cases: Vec<_> = cases.filter(|case| case.starts_with(group)).collect();
        let expected: Vec<_> =
            numbers.iter().map(|number| format!("{group}-{number:02}")).collect();
        assert_eq!(cases, expected, "{file}");
    }
}

#[test]
fn every_row_names_tests_that_exist_or_says_why_there_is_none() {
    let tests = tests();
    let cases = CASES.map(|Cases(file, heading, _, numbers)| (file, heading, numbers.len()));
    for (file, heading, least) in cases.into_iter().chain(RULES) {
        let rows = rows(&read(file), heading);
        assert!(rows.len() >= least, "{file}: {heading}");
        for row in rows {
            let cell = row.last().unwrap();
            let names = names(cell);
            assert!(!names.is_empty() || cell.starts_with("cannot exist: "), "{row:?}");
            for name in names {
                assert!(tests.iter().any(|test| test == name), "no test {name}, of {}", row[0]);
            }
        }
    }
}

#[test]
fn every_rule_of_the_documentation_has_a_row() {
    for (source, documented, (file, tested, _)) in [
        ("src/greenlet/mod.rs", "# What becomes of a greenlet", RULES[0]),
        ("src/timeout.rs", "# What a timeout finds its greenlet at", RULES[3]),
    ] {
        let docs: Vec<_> = read(source)
            .lines()
            .filter_map(|line| line.strip_prefix("//!"))
            .map(|line| line.trim().to_owned())
            .collect();
        let documented = rows(&docs.join("\n"), documented);
        let tested = rows(&read(file), tested);
        assert!(documented.len() > 5, "{source}");
        assert_eq!(documented.len(), tested.len(), "{documented:#?}\n{tested:#?}");
    }
}
