//! Keeps the tables of `docs/semantics-*.md` complete and true: every case and every rule has a row,
//! and every row a test that exists, or a reason why there is none.

use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The tables: the file, the heading above its cases, their prefix, their numbers, and the heading
/// above its rules.
const TABLES: [(&str, &str, &str, &[u32], &str); 2] = [
    (
        "docs/semantics-greenlet.md",
        "## greenlet's own cases, in Rust",
        "GL",
        &[
            1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 15, 16, 18, 19, 20, 21, 22, 23, 25, 27, 28, 29, 30,
            31, 32, 33, 34, 35,
        ],
        "## What becomes of a greenlet",
    ),
    (
        "docs/semantics-hub.md",
        "## eventlet's own cases, in Rust",
        "HB",
        // To come: 7, 8, 9, 11, 12, 15, 16, 18, 19.
        &[1, 3, 4, 5, 6, 13, 14, 17, 20],
        "## The hub's sharp corners",
    ),
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

/// All test functions in `tests/`.
fn tests() -> Vec<String> {
    let files = fs::read_dir(Path::new(ROOT).join("tests")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let sources = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut tests = Vec::new();
    for source in sources {
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
    for (file, heading, prefix, numbers, _) in TABLES {
        let rows = rows(&read(file), heading);
        let cases: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
        let expected: Vec<_> =
            numbers.iter().map(|number| format!("{prefix}-{number:02}")).collect();
        assert_eq!(cases, expected, "{file}");
    }
}

#[test]
fn every_row_names_tests_that_exist_or_says_why_there_is_none() {
    let tests = tests();
    for (file, cases, _, _, rules) in TABLES {
        let table = read(file);
        let (cases, rules) = (rows(&table, cases), rows(&table, rules));
        assert!(!cases.is_empty() && !rules.is_empty(), "{file}");
        for row in cases.iter().chain(&rules) {
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
    let docs: Vec<_> = read("src/greenlet/mod.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| line.trim().to_owned())
        .collect();
    let documented = rows(&docs.join("\n"), "# What becomes of a greenlet");
    let table = read("docs/semantics-greenlet.md");
    let tested = rows(&table, "## What becomes of a greenlet");
    assert!(documented.len() > 20);
    assert_eq!(documented.len(), tested.len(), "{documented:#?}\n{tested:#?}");
}
