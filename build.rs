//! Refuses targets that stolon has no machine layer for, and declares the crate's own cfgs. It
//! builds nothing: the assembly in `asm/` is included into Rust, so a cross build needs no more
//! than a linker.

use std::env;

/// Cfgs for the crate's own tests: some force a fallback that a recent kernel would not take by
/// itself, the others tell a tool of what it cannot see. CONTRIBUTING.md has the commands.
const CFGS: [&str; 6] = [
    // Guard stacks with `mprotect` even where the kernel has `MADV_GUARD_INSTALL`.
    "stolon_force_mprotect",
    // Wait with `epoll_wait` and whole milliseconds even where the kernel has `epoll_pwait2`.
    "stolon_force_epoll_wait",
    // Switch by a call even where the inline fragment is sound.
    "stolon_call_switch",
    // Have system calls fail at random, on threads that ask for it (`src/sys/trouble.rs`).
    "stolon_faults",
    // Tell AddressSanitizer of each switch.
    "stolon_asan",
    // Tell valgrind of each stack.
    "stolon_valgrind",
];

fn main() {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let width = env::var("CARGO_CFG_TARGET_POINTER_WIDTH").unwrap_or_default();
    let supported = os == "linux" && width == "64" && matches!(arch.as_str(), "x86_64" | "aarch64");
    assert!(
        supported,
        "stolon supports Linux on x86_64 and aarch64 with 64-bit pointers; \
         this target is {os} on {arch} with {width}-bit pointers"
    );
    for cfg in CFGS {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=asm");
}
