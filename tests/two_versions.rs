//! Two versions of the crate in one program: cargo refuses that, by the manifest's `links`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A directory, removed at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes an empty package with this manifest.
fn package(directory: &Path, manifest: &str) {
    fs::create_dir_all(directory.join("src")).unwrap();
    fs::write(directory.join("Cargo.toml"), manifest).unwrap();
    for file in ["src/lib.rs", "build.rs"] {
        fs::write(directory.join(file), "").unwrap();
    }
}

/// What cargo says of a program that has these versions of the crate.
fn resolve(scratch: &Path, versions: &[&str]) -> Output {
    let manifest = fs::read_to_string(format!("{ROOT}/Cargo.toml")).unwrap();
    let (about, _) = manifest.split_once("\n[dependencies]").expect("the package comes first");
    let mut program = String::from(
        "[package]\nname = \"program\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
         [dependencies]\n",
    );
    for version in versions {
        let own = about.lines().map(|line| match line.split_once(" = ") {
            Some(("version", _)) => format!("version = \"{version}\""),
            Some(("readme", _)) => String::new(),
            _ => line.to_owned(),
        });
        let own: Vec<String> = own.collect();
        package(&scratch.join(version), &own.join("\n"));
        let name = version.replace('.', "_");
        program += &format!("v{name} = {{ package = \"stolon\", path = \"../{version}\" }}\n");
    }
    // Beside those, as packages within it would be members of its workspace.
    package(&scratch.join("program"), &program);
    let mut command = Command::new(env!("CARGO"));
    command.args(["generate-lockfile", "--offline", "--quiet", "--manifest-path"]);
    command.arg(scratch.join("program/Cargo.toml")).output().expect("cargo starts")
}

#[test]
fn cargo_refuses_two_versions_in_one_program() {
    let scratch = Scratch(Path::new(env!("CARGO_TARGET_TMPDIR")).join("two_versions"));
    let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let one = resolve(&scratch.0, &["0.1.0"]);
    assert!(one.status.success(), "{}", text(&one));
    let two = resolve(&scratch.0, &["0.1.0", "0.2.0"]);
    assert!(!two.status.success() && text(&two).contains("links"), "{}", text(&two));
}
