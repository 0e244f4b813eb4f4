//! Keeps the tables of `docs/semantics-greenpool.md` complete and true: every case has a row, and every
//! row a test that exists, or a reason why there is none.

use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const FILE: &str = "docs/semantics-greenpool.md";

/// The headings, and the cases below them: their prefix and numbers.
const SECTIONS: [(&str, &str, &[u32]); 5] = [
    ("## Green threads", "GT", &[1, 3, 6, 7, 8, 9, 10, 11, 12, 13]),
    ("## Pools of green threads", "GP", &[1, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
    ("## Pools of items", "PO", &[2, 3, 4, 5]),
    ("## DAGPool", "DG", &[1, 3, 4, 5, 6, 7]),
    ("## Pools of connections", "DB", &[1, 2, 3]),
];

fn read(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The rows of the table below a heading, each as its cells.
fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let table =
        below.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with('|'));
    let cells = |line: &str| {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    // Behind the names of the columns and the line below them.
    table.skip(2).map(cells).collect()
}

/// All test functions in `tests/`.
fn tests() -> Vec<String> {
    let files = fs::read_dir(Path::new(ROOT).join("tests")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let sources = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let texts: Vec<_> = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    let below_marks = texts.iter().flat_map(|text| text.split("#[test]\nfn ").skip(1));
    below_marks.map(|text| text.split('(').next().unwrap().to_owned()).collect()
}

#[test]
fn every_case_of_pools_has_one_row_in_order() {
    let text = read(FILE);
    for (heading, prefix, numbers) in SECTIONS {
        let rows = rows(&text, heading);
        let cases: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
        let expected: Vec<_> =
            numbers.iter().map(|number| format!("{prefix}-{number:02}")).collect();
        assert_eq!(cases, expected);
    }
}

#[test]
fn every_row_of_pools_names_tests_that_exist() {
    let (text, tests) = (read(FILE), tests());
    let headings = SECTIONS.iter().map(|(heading, ..)| *heading).chain(["## Sharp corners"]);
    for row in headings.flat_map(|heading| rows(&text, heading)) {
        let cell = row.last().unwrap();
        let names: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        assert!(row.len() == 3 && !names.is_empty(), "{row:?}");
        for name in names {
            assert!(tests.iter().any(|test| test == name), "no test {name}, of {}", row[0]);
        }
    }
}
