//! What the compiler keeps in registers across a switch: `tests/switch_site/` has functions that
//! switch, which this compiles for several processors, and reads.

mod util;

use std::collections::HashSet;
use std::env;
use std::fs;
use std::process::{Command, Output};

use util::child::text_of;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const TARGET: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/switch_site");

/// Processors that have among them every kind of register. The empty name is for a build without
/// flags.
#[cfg(target_arch = "x86_64")]
const PROCESSORS: [&str; 6] =
    ["", "x86-64", "x86-64-v4", "sapphirerapids", "znver5", "diamondrapids"];
#[cfg(target_arch = "aarch64")]
const PROCESSORS: [&str; 4] = ["", "generic", "neoverse-v2", "apple-m4"];

/// Those whose registers the compiler cannot declare lost in an `asm!` block: they have APX.
const CALLING: [&str; 1] = ["diamondrapids"];

/// The last two instructions of the fragment, each in all its spellings.
#[cfg(target_arch = "x86_64")]
const END: [&[&str]; 2] = [&["jmpq *8(%rsi)"], &["endbr64"]];
#[cfg(target_arch = "aarch64")]
const END: [&[&str]; 2] = [&["br x9"], &["hint #36", "bti j"]];

/// What begins an address, or a mask, in an operand that is written otherwise.
const BESIDE: &[char] = if cfg!(target_arch = "x86_64") { &['(', '{'] } else { &[] };

const COMMENT: &str = if cfg!(target_arch = "x86_64") { "#" } else { "//" };

/// What a way ends with: calls, and what the next line does not follow on.
const LEAVING: [&str; 12] =
    ["callq", "jmp", "jmpq", "retq", "ud2", "b", "bl", "blr", "br", "brk", "ret", ".cfi_endproc"];

fn triple() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// Cargo for the package, with these flags for the compiler and no others.
fn cargo(command: &str, flags: &str) -> Command {
    let manifest = format!("{ROOT}/tests/switch_site/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([command, "--quiet", "--offline", "--release", "--manifest-path", &manifest]);
    cargo.args(["--target", &triple(), "--target-dir", TARGET]);
    cargo.env("RUSTFLAGS", flags).env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUST_BACKTRACE", "0");
    cargo
}

fn output_of(mut command: Command) -> Output {
    command.output().expect("it starts")
}

/// Whether this compiler knows the processor.
fn is_known(processor: &str) -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut list = Command::new(rustc);
    list.args(["--print", "target-cpus", "--target", &triple()]);
    let text = text_of(&output_of(list));
    processor.is_empty() || text.split_whitespace().any(|word| word == processor)
}

/// The lines of the package's assembly for a processor, without comments and with single spaces.
fn assembly(processor: &str) -> Vec<String> {
    let flags = match processor {
        "" => String::new(),
        _ => format!("-Ctarget-cpu={processor}"),
    };
    let path = format!("{TARGET}/site-{processor}.s");
    let mut build = cargo("rustc", &flags);
    build.args(["--", &format!("--emit=asm={path}"), "-Ccodegen-units=1"]);
    let built = output_of(build);
    assert!(built.status.success(), "{}", text_of(&built));
    let text = fs::read_to_string(path).expect("the assembly");
    let code = text.lines().map(|line| line.split(COMMENT).next().unwrap_or_default());
    let plain = code.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    plain.filter(|line| !line.is_empty()).collect()
}

fn is_instruction(line: &str) -> bool {
    !line.starts_with('.') && !line.ends_with(':')
}

/// Where the lines begin that follow each inline fragment.
fn resume_points(code: &[String]) -> Vec<usize> {
    let instructions: Vec<usize> =
        (0..code.len()).filter(|at| is_instruction(&code[*at])).collect();
    let is_end =
        |pair: &&[usize]| (0..2).all(|half| END[half].contains(&code[pair[half]].as_str()));
    instructions.windows(2).filter(is_end).map(|pair| pair[1] + 1).collect()
}

/// The registers that an operand names, under one name for all their widths: `w16` for a word, `v3`
/// for a vector. Words are those that `clobber_abi` does not name.
fn registers(operand: &str) -> Vec<String> {
    let words = operand.split(|c: char| !c.is_ascii_alphanumeric());
    let named = words.filter_map(|word| {
        let digits = word.find(|c: char| c.is_ascii_digit())?;
        let end =
            word[digits..].find(|c: char| !c.is_ascii_digit()).map_or(word.len(), |n| digits + n);
        let number: u32 = word[digits..end].parse().ok()?;
        let kind = match (&word[..digits], env::consts::ARCH) {
            ("xmm" | "ymm" | "zmm", "x86_64") => "v",
            ("k" | "tmm", "x86_64") => &word[..digits],
            ("r", "x86_64") if number > 15 => "w",
            ("b" | "h" | "s" | "d" | "q" | "v" | "z", "aarch64") => "v",
            ("p" | "za" | "zt", "aarch64") => &word[..digits],
            _ => return None,
        };
        Some(format!("{kind}{number}"))
    });
    named.collect()
}

/// What an instruction's operands are, without what lies between brackets.
fn operands(line: &str) -> (&str, Vec<&str>) {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut depth = 0;
    let is_separator = |sign: char| {
        depth += i32::from("([{".contains(sign)) - i32::from(")]}".contains(sign));
        sign == ',' && depth == 0
    };
    (name, rest.split(is_separator).map(str::trim).collect())
}

/// The registers that an instruction reads, and those that it writes.
fn read_and_written(line: &str) -> (Vec<String>, Vec<String>) {
    let (name, mut read) = operands(line);
    let written: Vec<&str> = if cfg!(target_arch = "x86_64") {
        read.pop().into_iter().collect()
    } else {
        let count = if name.starts_with("st") { 0 } else { 1 + usize::from(name == "ldp") };
        read.drain(..count.min(read.len())).collect()
    };
    // An address, or a mask beside the register that is written: what it names is read.
    let split = |operand: &&'_ str| operand.find(BESIDE).unwrap_or(operand.len());
    let beside = written.iter().flat_map(|operand| registers(&operand[split(operand)..]));
    let read: Vec<_> = read.iter().flat_map(|operand| registers(operand)).chain(beside).collect();
    let written: Vec<_> =
        written.iter().flat_map(|operand| registers(&operand[..split(operand)])).collect();
    // `xor` of a register with itself, and the like, is a way to write a constant. What a
    // conversion leaves as it was in its target means nothing.
    let is_constant = !written.is_empty() && read.iter().all(|register| *register == written[0]);
    if is_constant || name.starts_with("vcvt") { (vec![], written) } else { (read, written) }
}

/// The registers that are read on a way from a resume point, up to a call, before they are written.
/// They were live across the switch.
fn live_across(code: &[String], resume_point: usize) -> HashSet<String> {
    // Of a block of instructions; others are data and functions.
    let label = |name: &str| {
        let is_label = |line: &String| line.strip_suffix(':') == Some(name);
        code.iter().position(is_label).filter(|_| name.starts_with(".LBB"))
    };
    let (mut live, mut seen) = (HashSet::new(), HashSet::new());
    let mut ways = vec![(resume_point, HashSet::new())];
    while let Some((mut at, mut written)) = ways.pop() {
        while at < code.len() && seen.insert(at) {
            let line = &code[at];
            let name = line.split(' ').next().unwrap_or_default();
            if let Some(target) = line.rsplit_once(' ').and_then(|(_, word)| label(word)) {
                ways.push((target, written.clone()));
            }
            if LEAVING.contains(&name) {
                break;
            }
            if is_instruction(line) {
                let (read, target) = read_and_written(line);
                live.extend(read.into_iter().filter(|register| !written.contains(register)));
                written.extend(target);
            }
            at += 1;
        }
    }
    live
}

#[test]
fn no_value_is_kept_across_a_switch_in_a_register_that_the_switch_loses() {
    for processor in PROCESSORS {
        if !is_known(processor) {
            println!("skipped: this compiler does not know {processor}");
            continue;
        }
        let code = assembly(processor);
        let resume_points = resume_points(&code);
        let calls = code.iter().filter(|line| line.contains("4call6switch")).count();
        let found = (resume_points.len(), calls);
        if CALLING.contains(&processor) {
            assert!(found.0 == 0 && found.1 >= 3, "{processor}: {found:?} fragments and calls");
            continue;
        }
        assert!(found.0 >= 3 && found.1 == 0, "{processor}: {found:?} fragments and calls");
        for resume_point in resume_points {
            let live = live_across(&code, resume_point);
            let near = &code[resume_point..code.len().min(resume_point + 20)];
            assert!(live.is_empty(), "{processor}: {live:?} in {near:#?}");
        }
        let unnamed =
            code.iter().find(|line| registers(line).iter().any(|name| name.starts_with('w')));
        assert_eq!(unnamed, None, "{processor}");
    }
}

#[test]
fn a_register_that_is_live_across_a_switch_would_be_found() {
    let code = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let live = |text: &str| {
        let mut live: Vec<_> = live_across(&code(text), 0).into_iter().collect();
        live.sort();
        live
    };
    #[cfg(target_arch = "x86_64")]
    {
        assert_eq!(live("movq %r17, (%r16)\nmovq %r18, 8(%r16)"), ["w16", "w17", "w18"]);
        assert_eq!(
            live("vaddpd %zmm20, %zmm1, %zmm2 {%k1}\nvmovapd %zmm2, 8(%rdi)"),
            ["k1", "v1", "v20"]
        );
        assert_eq!(live("tilestored %tmm3, (%rdi,%rax)"), ["tmm3"]);
        let written = "vxorps %xmm1, %xmm1, %xmm1\nvmovups 8(%rsp), %zmm0\nvmovaps %zmm0, (%rbx)";
        assert_eq!(live(written), [""; 0]);
        assert_eq!(live("je .LBB0_2\ncallq f\n.LBB0_2:\nmovsd %xmm9, (%rbx)"), ["v9"]);
    }
    #[cfg(target_arch = "aarch64")]
    {
        assert_eq!(live("fadd z2.s, z2.s, z1.s\nstr z2, [x0]"), ["v1", "v2"]);
        assert_eq!(live("st1w { z5.s }, p1, [x0]"), ["p1", "v5"]);
        assert_eq!(live("stp d8, d9, [sp, #16]"), ["v8", "v9"]);
        assert_eq!(live("ldr q1, [sp]\nfmul v1.4s, v1.4s, v1.4s\nstr q1, [x19]"), [""; 0]);
        assert_eq!(
            live("cbz x3, .LBB0_2\nbl f\n.LBB0_2:\nldp d9, d8, [sp]\nstr d10, [x0]"),
            ["v10"]
        );
    }
}

#[test]
fn flags_that_ask_for_a_second_stack_are_refused() {
    #[cfg(target_arch = "x86_64")]
    let cases = [
        ("-Zsanitizer=safestack", "cannot be built with `-Z sanitizer=safestack`"),
        ("-Z cf-protection=full", "give `-Z cf-protection=branch`"),
        ("-Zcf-protection", "give `-Z cf-protection=branch`"),
    ];
    #[cfg(target_arch = "aarch64")]
    let cases = [
        ("-Zfixed-x18 -Zsanitizer=shadow-call-stack", "`-Z sanitizer=shadow-call-stack`"),
        ("-Zbranch-protection=bti,gcs", "leave `gcs` out of `-Z branch-protection`"),
    ];
    for (flags, expected) in cases {
        let mut check = cargo("check", flags);
        // The flags are a nightly compiler's. They may not fit to the standard library at hand, so
        // the dependencies are not waited for.
        check.arg("--keep-going").env("RUSTC_BOOTSTRAP", "1");
        let refused = output_of(check);
        let text = text_of(&refused);
        assert!(!refused.status.success() && text.contains(expected), "{flags}: {text}");
    }
}
