//! Keeps the crate's order. Reads the sources, not the program: which module imports which, where
//! `unsafe` and `libc` stand, how long the files are, that what is rare stays out of what is often run,
//! and what the crate depends on.

use std::{fs, path::Path};

/// Every module, lowest first: its layer, its name, and what it must not import besides. A module
/// may import those in the rows above its own, so inside a layer the order of the rows decides.
const MODULES: &[(usize, &str, &[&str])] = &[
    (0, "error", &[]),
    (0, "quietly", &[]),
    (0, "sys", &[]),
    (0, "clock", &[]),
    // Raw pointers only: nothing of the crate.
    (1, "arch", &["error", "quietly", "sys", "clock"]),
    (2, "stack", &["clock"]),
    (3, "greenlet", &[]),
    // Sources know no greenlets, nor each other.
    (4, "timers", &["arch", "stack", "greenlet"]),
    (4, "poller", &["arch", "stack", "greenlet", "timers"]),
    (5, "hub", &[]),
    (6, "corolocal", &[]),
    (6, "timeout", &[]),
    (6, "event", &[]),
    (6, "semaphore", &[]),
    (6, "coros", &[]),
    (6, "queue", &[]),
    (6, "greenthread", &[]),
    (6, "greenpool", &[]),
    (6, "dagpool", &[]),
    (6, "pools", &[]),
    (6, "tpool", &[]),
    (7, "green", &[]),
    (7, "convenience", &[]),
    (7, "patch", &[]),
    (8, "debug", &[]),
    (8, "backdoor", &[]),
    (8, "service", &[]),
    (8, "wsgi", &[]),
];

/// The directories and the files that may hold unsafe code.
const UNSAFE_DIRECTORIES: [&str; 4] = ["sys/", "arch/", "stack/", "patch/"];
const UNSAFE_FILES: [&str; 10] = [
    "greenlet/about.rs",
    "greenlet/attachment.rs",
    "greenlet/block.rs",
    "greenlet/entry.rs",
    "greenlet/handle.rs",
    "greenlet/introspect.rs",
    "greenlet/place.rs",
    "greenlet/scope.rs",
    "greenlet/transfer.rs",
    "hub/current.rs",
];

const LINES_PER_FILE: usize = 400;
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn imports_point_down() {
    refuse_all(import_faults);
}

#[test]
fn libc_is_used_in_sys_alone() {
    refuse_all(libc_faults);
}

#[test]
fn unsafe_stands_only_where_it_may() {
    refuse_all(unsafe_faults);
}

#[test]
fn files_are_short() {
    refuse_all(|file, text| {
        let lines = text.lines().count();
        (lines > LINES_PER_FILE).then(|| format!("{file}: {lines} lines, over {LINES_PER_FILE}"))
    });
}

#[test]
fn cold_functions_are_never_inlined() {
    refuse_all(cold_faults);
}

#[test]
fn dependencies_are_libc_and_memmap2() {
    let manifest = fs::read_to_string(format!("{ROOT}/Cargo.toml")).unwrap();
    assert_eq!(dependencies(&manifest), ["libc", "memmap2"]);
}

// The rules, each from a file's name below `src` and its text to what is wrong with it.

fn import_faults(file: &str, text: &str) -> Vec<String> {
    if file == "lib.rs" {
        return Vec::new(); // The root may re-export from anywhere.
    }
    let module: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    let depth = module.len() - usize::from(module.ends_with(&["mod"]));
    let own = module[0];
    let rank_of = |module: &str| MODULES.iter().position(|(_, name, _)| *name == module);
    let Some(rank) = rank_of(own) else {
        return vec![format!("{file}: module `{own}` is in no layer")];
    };
    let (own_layer, _, never) = MODULES[rank];
    let fault = |(inline_depth, path): (usize, Vec<&str>)| {
        let name = path.join("::");
        let target = path.get(1).copied().unwrap_or_default();
        let climbs = path.iter().filter(|part| **part == "super").count();
        let what = match rank_of(target) {
            _ if climbs > 1 || climbs >= depth + inline_depth => "climbs; start it with `crate::`",
            _ if climbs == 1 => return None,
            None => "is imported from the root, not from a module",
            Some(at) if at > rank => "is higher up",
            Some(_) if never.contains(&target) => "is barred to it",
            Some(_) => return None,
        };
        Some(format!("{file}: in `{own}` (layer {own_layer}), `{name}` {what}"))
    };
    imports(&tokens(text)).into_iter().filter_map(fault).collect()
}

fn libc_faults(file: &str, text: &str) -> Option<String> {
    let misplaced = !file.starts_with("sys/") && tokens(text).contains(&"libc");
    misplaced.then(|| format!("{file}: `libc` outside src/sys"))
}

fn unsafe_faults(file: &str, text: &str) -> Option<String> {
    let tokens = tokens(text);
    let permitted = UNSAFE_FILES.contains(&file)
        || UNSAFE_DIRECTORIES.iter().any(|directory| file.starts_with(directory));
    let allowed = ["#", "!", "[", "allow", "(", "unsafe_code"];
    let allowed = tokens.windows(allowed.len()).any(|window| window == allowed);
    // The lint counts `global_asm!` too; the type of a pointer to an unsafe function is harmless.
    let is_type = |next: &[&str]| next.starts_with(&["fn", "("]) || next == ["extern", "fn", "("];
    let used = tokens.contains(&"global_asm")
        || tokens.windows(4).any(|four| four[0] == "unsafe" && !is_type(&four[1..]));
    let fault = match (permitted, used, allowed) {
        (false, true, _) => "unsafe code is not permitted here",
        (false, _, _) if tokens.contains(&"unsafe_code") => "must not allow unsafe code",
        (true, true, false) => "unsafe code, and no `#![allow(unsafe_code)]` on top",
        (true, false, true) => "allows unsafe code and has none",
        _ => return None,
    };
    Some(format!("{file}: {fault}"))
}

/// A cold function that is called from one place is inlined there when a whole program is optimised at
/// once, unless it forbids that.
fn cold_faults(file: &str, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let is_at = |index: usize, what: &[&str]| tokens[index..].starts_with(what);
    let mut faults = Vec::new();
    for cold in (0..tokens.len()).filter(|index| is_at(*index, &["[", "cold", "]"])) {
        let end = (cold..tokens.len()).find(|index| is_at(*index, &["fn"])).unwrap_or(cold);
        // The attribute may stand before this one.
        let mut attributes = cold.saturating_sub(8)..end;
        if !attributes.any(|index| is_at(index, &["inline", "(", "never", ")"])) {
            let name = tokens.get(end + 1).copied().unwrap_or_default();
            faults.push(format!("{file}: `{name}` is cold, and not `#[inline(never)]`"));
        }
    }
    faults
}

/// The names in every table of dependencies but the development ones.
fn dependencies(manifest: &str) -> Vec<&str> {
    let (mut names, mut counts) = (Vec::new(), false);
    for line in manifest.lines() {
        if line.starts_with('[') {
            counts = line.contains("dependencies") && !line.contains("dev-dependencies");
        } else if counts && !line.starts_with('#') {
            names.extend(line.split_once('=').map(|(name, _)| name.trim()));
        }
    }
    names
}

fn refuse_all<Faults: IntoIterator<Item = String>>(rule: fn(&str, &str) -> Faults) {
    let src = Path::new(ROOT).join("src");
    let (mut waiting, mut faults) = (vec![src.clone()], Vec::new());
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = path.strip_prefix(&src).unwrap().to_str().unwrap();
            faults.extend(rule(file, &fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(faults.is_empty(), "in src:\n{}", faults.join("\n"));
}

// Reading Rust, as far as the rules need it.

/// Every path that starts with `crate` or `super`, and in how many `mod name { ... }` it stands.
fn imports<'a>(tokens: &[&'a str]) -> Vec<(usize, Vec<&'a str>)> {
    let (mut found, mut braces) = (Vec::new(), Vec::new());
    for at in 2..tokens.len() {
        let before = tokens[at - 1];
        match tokens[at] {
            "{" => braces.push(tokens[at - 2] == "mod"),
            "}" => drop(braces.pop()),
            "crate" | "super" if before == "(" && tokens[at + 1] == ")" => {} // `pub(crate)`
            "crate" | "super" if !matches!(before, "::" | "extern") => {
                let inline_depth = braces.iter().filter(|is_module| **is_module).count();
                found.extend(expand(&tokens[at..]).into_iter().map(|path| (inline_depth, path)));
            }
            _ => {}
        }
    }
    found
}

/// The paths of the use tree or expression that `tokens` starts with, groups multiplied out.
fn expand<'a>(tokens: &[&'a str]) -> Vec<Vec<&'a str>> {
    let (mut paths, mut path, mut groups, mut at) = (Vec::new(), Vec::new(), Vec::new(), 0);
    loop {
        match tokens[at] {
            "" => return paths,
            "::" => {}
            "{" => groups.push(path.len()),
            sign @ ("," | "}") => {
                groups.truncate(groups.len().saturating_sub(usize::from(sign == "}")));
                let Some(prefix) = groups.last() else { return paths };
                path.truncate(*prefix);
            }
            name => {
                path.push(name);
                if tokens[at + 1] != "::" {
                    paths.push(path.clone());
                    while !matches!(tokens[at + 1], "," | "}" | "") {
                        at += 1; // A renaming, or all that follows an expression.
                    }
                }
            }
        }
        at += 1;
    }
}

/// The words and signs of a text without its comments, strings and characters, and with empty
/// tokens at both ends so that a reader may look around.
fn tokens(source: &str) -> Vec<&str> {
    let mut found = vec![""; 2];
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let letters = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let raw = matches!(&rest[..letters], "r" | "br" | "cr");
        let body = rest[letters..].trim_start_matches('#');
        let character = rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'');
        let (bytes, is_code) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |at| at + 2), false)
        } else if raw && body.starts_with('"') {
            let close = format!("\"{}", &rest[letters..rest.len() - body.len()]);
            let end = body[1..].find(&close).map_or(body.len(), |at| at + 1 + close.len());
            (rest.len() - body.len() + end, false)
        } else if first == '"' || (first == '\'' && character) {
            let end = rest.match_indices(first).skip(1).find(|(at, _)| {
                let escapes = at - rest[..*at].trim_end_matches('\\').len();
                escapes % 2 == 0
            });
            (end.map_or(rest.len(), |(at, _)| at + 1), false)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (letters.max(first.len_utf8()), !first.is_whitespace())
        };
        found.extend(is_code.then_some(&rest[..bytes]));
        rest = &rest[bytes..];
    }
    found.extend(["", "", ""]);
    found
}

// The rules themselves, tried on what they must find and must let pass.

#[test]
fn bad_imports_are_found() {
    let cases = [
        ("hub/mod.rs", "use crate::service::Service;", "`crate::service::Service` is higher up"),
        ("hub/mod.rs", "fn f() -> crate::event::Event { todo!() }", "`crate::event::Event`"),
        ("hub/a.rs", "use crate::{\n    sys::{a, b},\n    queue as q,\n};", "`crate::queue`"),
        ("poller.rs", "use crate::greenlet;", "`poller` (layer 4)"),
        ("poller.rs", "use crate::timers::Timer;", "`crate::timers::Timer`"),
        ("event.rs", "use crate::queue::Queue;", "`event` (layer 6)"),
        ("arch/x86_64.rs", "use crate::error::Error;", "`arch` (layer 1)"),
        ("hub/mod.rs", "use crate::Greenlet;", "`crate::Greenlet` is imported from the root"),
        ("hub/mod.rs", "use crate::{sys, *};", "`crate::*` is imported from the root"),
        ("hub/mod.rs", "use crate as all;", "`crate` is imported from the root"),
        ("hub/mod.rs", "use super::service;", "`super::service` climbs"),
        ("hub/a.rs", "mod t { use super::super::b; }", "`super::super::b` climbs"),
        ("hub/a.rs", "use super::{b, super::c};", "`super::super::c` climbs"),
        ("helpers.rs", "", "module `helpers` is in no layer"),
    ];
    for (file, text, expected) in cases {
        let faults = import_faults(file, text);
        assert!(faults.len() == 1 && faults[0].contains(expected), "{text}: {faults:?}");
    }
}

#[test]
fn good_imports_pass() {
    let text = r##"
        //! crate::wsgi in a comment /* and another: super::super::x
        use crate::{error::Error, hub::waiter::{self, Waiter as W}, sys};
        pub(crate) fn f<'a>(text: &'a str) -> char { '"' }
        const TEXT: [&str; 3] = ["crate::wsgi \" crate::wsgi", r#"crate::"wsgi"#, "\\"];
        mod tests { use super::*; }
    "##;
    assert_eq!(import_faults("hub/mod.rs", text), [""; 0]);
    assert_eq!(import_faults("lib.rs", "pub use crate::wsgi::Server;"), [""; 0]);
}

#[test]
fn misplaced_unsafe_libc_and_dependencies_are_found() {
    let allow = "#![allow(unsafe_code)]";
    let block = format!("{allow} fn f() {{ unsafe {{ g() }} }}");
    let faults = |file, text| unsafe_faults(file, text).iter().count();
    assert_eq!(faults("arch/mod.rs", &block), 0);
    assert_eq!(faults("hub/mod.rs", &block), 1);
    assert_eq!(faults("hub/mod.rs", "#[allow(unsafe_code)] mod a;"), 1);
    assert_eq!(faults("hub/mod.rs", "/// unsafe\nfn f() {}"), 0);
    assert_eq!(faults("hub/mod.rs", "type F = unsafe extern \"C\" fn(u8);"), 0);
    assert_eq!(faults("sys/mod.rs", "unsafe fn f() {}"), 1);
    assert_eq!(faults("greenlet/block.rs", allow), 1);
    assert_eq!(libc_faults("sys/epoll.rs", "libc::close(1)"), None);
    assert!(libc_faults("hub/mod.rs", "use libc::close;").is_some());
    let manifest = "[dependencies]\na = \"1\"\n[target.'cfg(unix)'.dependencies]\nb = \"1\"\n\
        [build-dependencies]\nc = { path = \"c\" }\n[dev-dependencies]\nd = \"1\"\n";
    assert_eq!(dependencies(manifest), ["a", "b", "c"]);
}

#[test]
fn cold_functions_that_may_be_inlined_are_found() {
    let faults = |text| cold_faults("hub/mod.rs", text);
    assert_eq!(faults("#[cold]\nfn f() {} #[inline(never)] fn g() {}").len(), 1);
    assert_eq!(faults("#[cold]\n#[inline]\npub(super) fn f() {}").len(), 1);
    assert_eq!(faults("#[cold] #[inline(never)] fn f() {}"), [""; 0]);
    assert_eq!(faults("#[inline(never)] #[cold] fn f() {}"), [""; 0]);
}
