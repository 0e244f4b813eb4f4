//! Refuses targets and flags that stolon has no machine layer for, declares the crate's own cfgs,
//! and decides how stacks are switched. It builds nothing: the assembly in `asm/` is included into
//! Rust, so a cross build needs no more than a linker.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Cfgs for the crate's own tests: some force a fallback that a recent kernel or a common processor
/// would not take by itself, the others tell a tool of what it cannot see. CONTRIBUTING.md has the
/// commands.
const CFGS: [&str; 6] = [
    // Guard stacks with `mprotect` even where the kernel has `MADV_GUARD_INSTALL`.
    "stolon_force_mprotect",
    // Wait with `epoll_wait` and whole milliseconds even where the kernel has `epoll_pwait2`.
    "stolon_force_epoll_wait",
    // Switch by a call even where the inline fragment is sound. Set below where it is not.
    "stolon_call_switch",
    // Have system calls fail at random, on threads that ask for it (`src/sys/trouble.rs`).
    "stolon_faults",
    // Tell AddressSanitizer of each switch.
    "stolon_asan",
    // Tell valgrind of each stack.
    "stolon_valgrind",
];

/// Targets of rustc whose processors have no registers that the clobbers of `asm!` do not name,
/// unless a flag asks for another processor.
const KNOWN_TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"];

fn main() {
    let arch = variable("CARGO_CFG_TARGET_ARCH");
    let os = variable("CARGO_CFG_TARGET_OS");
    let width = variable("CARGO_CFG_TARGET_POINTER_WIDTH");
    let supported = os == "linux" && width == "64" && matches!(arch.as_str(), "x86_64" | "aarch64");
    assert!(
        supported,
        "stolon supports Linux on x86_64 and aarch64 with 64-bit pointers; \
         this target is {os} on {arch} with {width}-bit pointers"
    );
    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    let flags: Vec<&str> = flags.split('\x1f').filter(|flag| !flag.is_empty()).collect();
    refuse_other_stacks(&flags);
    for cfg in CFGS {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
    }
    if arch == "x86_64" && may_keep_values_in_unnamed_registers(&flags) {
        println!("cargo::rustc-cfg=stolon_call_switch");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=asm");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
}

/// An environment variable; empty if there is none.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// Refuses what gives each thread a second stack, which a switch of greenlets would leave as it is.
fn refuse_other_stacks(flags: &[&str]) {
    let sanitizers = variable("CARGO_CFG_SANITIZE");
    for sanitizer in sanitizers.split(',') {
        assert!(
            !matches!(sanitizer, "safestack" | "shadow-call-stack"),
            "stolon cannot be built with `-Z sanitizer={sanitizer}`: it gives each thread a second \
             stack, and greenlets have none of their own"
        );
    }
    for flag in flags {
        let (name, value) = flag.rsplit_once('=').unwrap_or((flag, ""));
        let has_harmless_value = matches!(value, "branch" | "none" | "no" | "n" | "off" | "false");
        assert!(
            !name.replace('_', "-").ends_with("cf-protection") || has_harmless_value,
            "stolon cannot be built with shadow stacks, which greenlets have none of: \
             give `-Z cf-protection=branch`"
        );
        assert!(
            !name.replace('_', "-").ends_with("branch-protection") || !value.contains("gcs"),
            "stolon cannot be built with guarded control stacks, which greenlets have none of: \
             leave `gcs` out of `-Z branch-protection`"
        );
    }
}

/// Whether the compiler may keep values across a switch in r16-r31, which APX has and `clobber_abi`
/// does not name. The compiler does not tell of that feature, so it is tried, unless processor and
/// features are the plain ones of a known target.
fn may_keep_values_in_unnamed_registers(flags: &[&str]) -> bool {
    let names_processor = |flag: &&str| {
        let flag = flag.replace('_', "-");
        // Or the flags are in a file.
        flag.contains("target-cpu") || flag.contains("target-feature") || flag.starts_with('@')
    };
    let target = variable("TARGET");
    // Every processor that is named, here or in the file of a custom target, has SSE3.
    let is_plain = KNOWN_TARGETS.contains(&target.as_str())
        && !variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "sse3")
        && !flags.iter().any(names_processor);
    if is_plain {
        return false;
    }
    match compile_probe(&target, flags) {
        Some(assembly) => (16..32).any(|number| assembly.contains(&format!("r{number}"))),
        // For example, a custom target: its file is not known here. A call is always right.
        None => true,
    }
}

/// The assembly of `asm/x86_64/probe.rs`, if it can be compiled with these flags.
fn compile_probe(target: &str, flags: &[&str]) -> Option<String> {
    let path = Path::new(&variable("OUT_DIR")).join("probe.s");
    let _ = fs::remove_file(&path);
    let compiler = [variable("RUSTC_WRAPPER"), variable("RUSTC")];
    let mut words = compiler.iter().filter(|word| !word.is_empty());
    let mut rustc = Command::new(words.next()?);
    rustc.args(words).args(flags).args(["--target", target, "--crate-type=lib", "--emit=asm"]);
    rustc.args(["-Copt-level=3", "-Cdebuginfo=0", "-o"]).arg(&path).arg("asm/x86_64/probe.rs");
    let is_compiled = rustc.output().ok()?.status.success();
    let assembly = fs::read_to_string(&path).ok()?;
    (is_compiled && assembly.contains("stolon_probe:")).then_some(assembly)
}
