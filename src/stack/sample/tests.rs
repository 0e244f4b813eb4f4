//! The checked walk beside the unwinder that it speaks for, over copies of real stacks: as they
//! were, and with words changed at random. Each test runs in a child process, as a wrong walk ends
//! it.
//!
//! `STOLON_SAMPLING_SECONDS=600 cargo test --release --lib sample` makes them last longer.
#![allow(unsafe_code)]

mod live;
mod work;

use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::reader::{Machine, evaluate};
use super::row::{Rule, row};
use super::trace::{relocate, retrace};
use super::walk::{Checked, Next, Walk, check};
use super::*;
use crate::sys::unwind;

/// Set in the child.
const CHILD: &str = "STOLON_TEST_CHILD";

fn seconds() -> Duration {
    let seconds = env::var("STOLON_SAMPLING_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// Runs `body` in a child process: `test` is the one that calls this.
fn in_child(test: &str, body: impl FnOnce()) {
    if env::var_os(CHILD).is_some() {
        work::end_after(2 * seconds() + Duration::from_secs(60));
        return body();
    }
    let runner = if cfg!(target_arch = "aarch64") {
        env::var("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER").unwrap_or_default()
    } else {
        String::new()
    };
    let program = env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    let words: Vec<&str> = runner.split_whitespace().chain([program]).collect();
    let test = format!("stack::sample::tests::{test}");
    let output = Command::new(words[0])
        .args(&words[1..])
        .args([&test, "--exact", "--nocapture"])
        .env(CHILD, "")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{}: {}{}", output.status, text[0], text[1]);
    assert!(text[0].contains("1 passed"), "{}", text[0]);
    print!("{}", text[0]);
}

/// A thread that does all kinds of work, and is asked meanwhile.
struct Worker {
    thread: JoinHandle<()>,
    number: i32,
    stack: Span,
}

static IS_OVER: AtomicBool = AtomicBool::new(false);

fn tell(tell: &mut dyn FnMut(&About<'_>)) {
    let about =
        About { name: None, id: 0, made_at: None, stack: None, context: 1, last_stack_pointer: 0 };
    tell(&about);
}

impl Worker {
    fn start(work: impl Fn() + Send + 'static) -> Self {
        // SAFETY: `tell` reads nothing.
        unsafe { allow(tell) }.unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            sender.send((interrupt::thread_id(), Span::of_thread().unwrap())).unwrap();
            while !IS_OVER.load(Ordering::Relaxed) {
                work();
            }
        });
        let (number, stack) = receiver.recv().unwrap();
        Self { thread, number, stack }
    }

    /// Copies its stack, with the addresses in it moved.
    fn copy(&self) -> Option<(Vec<usize>, Registers)> {
        let request = REQUEST.get();
        let _alone = request.asking.lock().unwrap();
        let copy_words = 128 * 1024 / size_of::<usize>();
        let mut room = make_room(copy_words).unwrap();
        let copy = room.as_mut_ptr();
        let value = (Arc::new(AtomicU64::new(0)), 0);
        let own_stack = self.stack;
        let question = Question { thread: self.number, own_stack, value, copy, copy_words };
        let mut answer = ask(request, question).unwrap()?;
        let Copied::Whole { from, words } = answer.stack else { return None };
        room.truncate(words);
        relocate(&mut room, from, &mut answer.registers);
        Some((room, answer.registers))
    }

    fn end(self) {
        IS_OVER.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        IS_OVER.store(false, Ordering::Relaxed);
    }
}

/// What the walk says of each frame: the address and the CFA of the frame that it called.
fn walked(copy: &[usize], registers: &Registers) -> Vec<(usize, usize)> {
    let mut walk = Walk::new(copy, registers, false);
    let mut frames = vec![(walk.address, walk.cfa)];
    while walk.step() == Some(Next::Caller) {
        frames.push((walk.address, walk.cfa));
    }
    frames
}

/// What the unwinder says.
fn unwound(checked: &Checked<'_>) -> Vec<(usize, usize)> {
    let mut frames = Vec::new();
    retrace(checked, &mut || frames = unwind::frames_above(arch::retrace_code()));
    // The end of the stack is told, too.
    if frames.last().is_some_and(|(address, _)| *address == 0) {
        frames.pop();
    }
    frames
}

/// Checks a copy, and then unwinds it in both ways: by the unwinder alone, and for a backtrace of
/// std's. None if it cannot be unwound.
fn check_and_compare(copy: &mut [usize], registers: &mut Registers) -> Option<Extent> {
    let checked = check(copy, registers, interrupt::checks_return_addresses())?;
    let (frames, extent) = (unwound(&checked), checked.extent);
    retrace(&checked, &mut || drop(Backtrace::force_capture()));
    assert_eq!(frames, walked(copy, registers));
    assert_eq!(frames.len(), extent.frames);
    Some(extent)
}

/// Numbers at random (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    /// What may stand where an address is expected.
    fn word(&mut self, copy: &[usize], registers: &Registers) -> usize {
        let near = copy[self.below(copy.len())];
        match self.below(10) {
            0 => self.below(4096),
            1 => self.below(usize::MAX),
            // In the copy, often not aligned, or just outside.
            2 => copy.as_ptr().addr() + self.below(size_of_val(copy) + 128) - 64,
            3 => copy.as_ptr().addr() + 8 * self.below(copy.len()),
            // Code near some that was running.
            4 => registers[registers.len() - 1]
                .wrapping_add(self.below(1 << 20))
                .wrapping_sub(1 << 19),
            // Any code of the C library, and of this program.
            5 => work::in_c_library().wrapping_add(self.below(1 << 21)).wrapping_sub(1 << 20),
            6 => (arch::retrace_code().start + self.below(1 << 21)).wrapping_sub(1 << 20),
            7 => near.wrapping_add(self.below(64)).wrapping_sub(32),
            8 => near ^ 1 << self.below(64),
            _ => near,
        }
    }

    /// Changes some words of a copy, mostly near its beginning, and some registers.
    fn corrupt(&mut self, copy: &mut [usize], registers: &mut Registers) {
        let nearest = [16, 64, 256, copy.len()];
        for _ in 0..self.below(16) {
            let bound = nearest[self.below(4)].min(copy.len());
            let (index, word) = (self.below(bound), self.word(copy, registers));
            copy[index] = word;
        }
        for _ in 0..self.below(4) {
            let (index, word) = (self.below(registers.len()), self.word(copy, registers));
            registers[index] = word;
        }
    }
}

/// Has `look` look at copies of the stack of a thread at work, for some time.
fn for_copies(work: fn(), time: Duration, mut look: impl FnMut(Vec<usize>, Registers)) -> usize {
    let worker = Worker::start(work);
    let (end, mut count) = (Instant::now() + time, 0);
    while Instant::now() < end {
        if let Some((copy, registers)) = worker.copy() {
            count += 1;
            look(copy, registers);
        }
    }
    worker.end();
    count
}

#[test]
fn the_walk_finds_the_frames_that_the_unwinder_finds() {
    in_child("the_walk_finds_the_frames_that_the_unwinder_finds", || {
        for (name, work) in work::ALL {
            let (mut whole, mut cut, mut none) = (0, 0, 0);
            let time = seconds() / work::ALL.len() as u32;
            let count = for_copies(work, time, |mut copy, mut registers| {
                match check_and_compare(&mut copy, &mut registers) {
                    Some(extent) if extent.is_cut => cut += 1,
                    Some(_) => whole += 1,
                    None => none += 1,
                }
            });
            println!("{name}: {count} copies, {whole} whole, {cut} cut, {none} refused");
            assert!(whole > 0, "{name}: {count} copies, {cut} cut, {none} refused");
        }
    });
}

#[test]
fn no_change_to_a_copied_stack_leads_the_unwinder_astray() {
    in_child("no_change_to_a_copied_stack_leads_the_unwinder_astray", || {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (mut tries, mut passed) = (0, 0);
        for (_, work) in work::ALL {
            let time = seconds() / work::ALL.len() as u32;
            for_copies(work, time, |first, registers| {
                for _ in 0..20 {
                    let (mut copy, mut registers) = (first.clone(), registers);
                    relocate(&mut copy, first.as_ptr().addr(), &mut registers);
                    random.corrupt(&mut copy, &mut registers);
                    tries += 1;
                    passed += usize::from(check_and_compare(&mut copy, &mut registers).is_some());
                }
            });
        }
        println!("{tries} tries, {passed} of them could be unwound");
        assert!(tries > 100 && passed > 0);
    });
}

#[cfg(target_arch = "aarch64")]
#[test]
fn a_signed_return_address_is_never_checked_against_the_copy() {
    in_child("a_signed_return_address_is_never_checked_against_the_copy", || {
        let (mut whole, mut cut) = (0, 0);
        for_copies(work::call_signed, seconds(), |mut copy, mut registers| {
            if let Some(extent) = check_and_compare(&mut copy, &mut registers) {
                *(if extent.is_cut { &mut cut } else { &mut whole }) += 1;
            }
        });
        println!("{whole} whole, {cut} cut");
        // A processor without signatures leaves the addresses as they are.
        assert!(if interrupt::checks_return_addresses() { cut > 0 } else { whole > 0 });
    });
}

/// One register, 3, and one word in memory.
struct Little;

impl Machine for Little {
    fn register(&self, number: usize) -> Option<usize> {
        (number == 3).then_some(0x1000)
    }

    fn word(&self, address: usize) -> Option<usize> {
        (address == 0x1008).then_some(77)
    }
}

#[test]
fn expressions_are_evaluated_as_far_as_all_is_known() {
    let value = |code: &[u8]| evaluate(code, 5, &Little);
    assert_eq!(value(&[]), Some(5));
    // breg3 8, deref, lit2, minus
    assert_eq!(value(&[0x73, 8, 0x06, 0x32, 0x1c]), Some(75));
    // breg3 -8, plus_uconst 300, dup, and
    assert_eq!(value(&[0x73, 0x78, 0x23, 0xac, 0x02, 0x12, 0x1a]), Some(0x1000 - 8 + 300));
    // const1s -1, lit1, ge
    assert_eq!(value(&[0x09, 0xff, 0x31, 0x2a]), Some(0));
    // A word that may not be read, a register that is not known, an operand that is not there.
    assert_eq!(value(&[0x73, 9, 0x06]), None);
    assert_eq!(value(&[0x74, 0]), None);
    assert_eq!(value(&[0x73]), None);
    // A jump, a shift too far, an empty stack, one that is too large.
    assert_eq!(value(&[0x2f, 0xfd, 0xff]), None);
    assert_eq!(value(&[0x31, 0x08, 64, 0x24]), None);
    assert_eq!(value(&[0x22]), None);
    assert_eq!(value(&[0x30; 64]), None);
}

/// A shared description with this program: version 1, `zR`, code in bytes, data in words downwards,
/// and addresses of four bytes.
fn common(program: &[u8]) -> Vec<u8> {
    let head = [1, b'z', b'R', 0, 1, 0x78, arch::RETURN_ADDRESS as u8, 1, 0x1b];
    [&head, program].concat()
}

#[test]
fn what_unwinders_do_not_agree_on_is_not_known() {
    let return_address = arch::RETURN_ADDRESS as u8;
    // def_cfa of register 3 and 16, offset of the return address -8
    let common = common(&[0x0c, 3, 16, 0x80 | return_address, 1]).leak();
    let row_at = |address, program: &[u8]| {
        let own = [&[0; 9], program].concat().leak();
        let tables = unwind::Tables { start: 100, common, own };
        row(&tables, address).map(|(row, _)| (row.offset, row.rules[3], row.rules[5]))
    };
    let unchanged = Rule::Unchanged;
    // advance_loc 4, def_cfa_offset 32, offset of register 5 -24, advance_loc 4, restore it
    let program = [0x44, 0x0e, 32, 0x85, 3, 0x44, 0xc5];
    assert!(row_at(104, &program) == Some((16, unchanged, unchanged)));
    assert!(row_at(105, &program) == Some((32, unchanged, Rule::At(24_usize.wrapping_neg()))));
    assert!(row_at(109, &program) == Some((32, unchanged, unchanged)));
    // remember_state, same_value of register 3, def_cfa_offset 8, restore_state
    let program = [0x0a, 0x08, 3, 0x0e, 8, 0x0b];
    assert!(row_at(101, &program) == Some((16, unchanged, unchanged)));
    // restore of the return address, which had a rule
    assert!(row_at(101, &[0xc0 | return_address]).is_none());
    // restore_state of nothing; an unknown instruction; an operand that is not there
    assert!(row_at(101, &[0x0b]).is_none());
    assert!(row_at(101, &[0x3f]).is_none());
    assert!(row_at(101, &[0x0e]).is_none());
    // What comes later has no effect.
    assert!(row_at(101, &[0x41, 0x3f]).is_some());
}
