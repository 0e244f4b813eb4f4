//! What limits on memory do to the making of greenlets: an error that names the limit, and nothing
//! left behind; and to a server, which goes on. Each limit is a child process's.
#![allow(unsafe_code)]

mod util;

use std::fs;
use std::io::{Error, ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Output;
use std::rc::Rc;
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use stolon::convenience::{StopServe, connect, listen, serve};
use stolon::dagpool::{DAGPool, Failure};
use stolon::greenlet::Greenlet;
use stolon::stack::{MIN_STACK_BYTES, stack_counts};
use stolon::{greenthread, sleep};
use util::child::{self, text_of};
use util::leak::mappings;
use util::server::is_emulated;

const MIB: usize = 1 << 20;

/// Stacks so large that a limit is soon reached, and that what is left is enough for all else.
const LARGE: usize = 16 * MIB;

const LIMIT_BYTES: usize = 1024 * MIB;

type Resource = libc::__rlimit_resource_t;

fn build(stack_bytes: usize) -> Result<Greenlet<usize>, Error> {
    Greenlet::builder().stack_bytes(stack_bytes).build(|n| n + 1)
}

/// Makes greenlets until it fails.
fn build_all(stack_bytes: usize, greenlets: &mut Vec<Greenlet<usize>>) -> Error {
    loop {
        assert!(greenlets.len() < greenlets.capacity(), "no limit is reached");
        match build(stack_bytes) {
            Ok(greenlet) => greenlets.push(greenlet),
            Err(error) => return error,
        }
    }
}

/// Checks that no stack can be had for lack of `limit`, in words and in kind, and that to try leaves
/// nothing behind.
#[track_caller]
fn expect_refusals(stack_bytes: usize, limit: &str) {
    let (stacks, maps) = (stack_counts(), mappings());
    for _ in 0..2 {
        let held = Rc::new(());
        let in_greenlet = Rc::clone(&held);
        let builder = Greenlet::builder().stack_bytes(stack_bytes);
        let build_error = builder.build(move |()| drop(in_greenlet)).unwrap_err();
        let in_thread = Rc::clone(&held);
        let builder = greenthread::Builder::new().stack_bytes(stack_bytes);
        let spawn_error = builder.spawn(move || drop(in_thread)).unwrap_err();
        for error in [build_error, spawn_error] {
            assert_eq!(error.kind(), ErrorKind::OutOfMemory);
            let text = error.to_string();
            assert!(text.contains(limit), "{text}");
            let names = ["RLIMIT_AS", "RLIMIT_DATA", "vm.max_map_count", "vm.overcommit_memory"];
            let named = names.into_iter().filter(|name| text.contains(name)).count();
            assert_eq!(named, 1, "{text}");
        }
        assert_eq!(Rc::strong_count(&held), 1, "what was captured is dropped");
    }
    assert_eq!((stack_counts(), mappings()), (stacks, maps));
}

/// Checks that greenlets and green threads can be made.
#[track_caller]
fn expect_success(stack_bytes: usize) {
    assert_eq!(build(stack_bytes).unwrap().switch(1).unwrap(), 2);
    let builder = greenthread::Builder::new().stack_bytes(stack_bytes);
    assert_eq!(builder.spawn(|| 3).unwrap().wait(), 3);
}

/// Sets a soft limit of this process; none at all lifts it.
fn set_limit(resource: Resource, bytes: Option<usize>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a live `rlimit`.
    unsafe {
        assert_eq!(libc::getrlimit(resource, &mut limit), 0);
        limit.rlim_cur = bytes.map_or(limit.rlim_max, |bytes| bytes as libc::rlim_t);
        assert_eq!(libc::setrlimit(resource, &limit), 0);
    }
}

/// Fills what a limit of this process allows, and lifts it. In a child process.
fn reach_limit(test: &str, resource: Resource, name: &str) {
    if is_emulated() {
        return println!("skipped: the emulator would have no memory either");
    }
    if !child::is_child() {
        return expect_success_of(&child::run(test));
    }
    // The hub has its stack from here on.
    sleep(Duration::ZERO);
    let in_use = stack_counts().in_use;
    set_limit(resource, Some(LIMIT_BYTES));
    let mut greenlets = Vec::with_capacity(LIMIT_BYTES / LARGE);
    let error = build_all(LARGE, &mut greenlets);
    println!("{} greenlets, then: {error}", greenlets.len());
    assert!(greenlets.len() >= LIMIT_BYTES / LARGE / 2, "{} greenlets", greenlets.len());
    let limit = format!("{name} is {} KiB", LIMIT_BYTES / 1024);
    expect_refusals(LARGE, &limit);
    expect_refusals(2 * LARGE, &limit);
    // What was made is whole.
    for greenlet in &greenlets {
        assert_eq!(greenlet.switch(1).unwrap(), 2);
    }
    expect_success(LARGE);
    set_limit(resource, None);
    expect_success(2 * LARGE);
    assert_eq!(stack_counts().in_use, in_use);
}

#[track_caller]
fn expect_success_of(output: &Output) {
    assert!(output.status.success(), "{}", text_of(output));
    let text = text_of(output);
    let told = |line: &&str| line.contains("then:") || line.contains("skipped");
    println!("{}", text.lines().find(told).expect("the child tells what it has seen"));
}

#[test]
fn a_limit_on_address_space_is_named_and_leaves_nothing_behind() {
    let test = "a_limit_on_address_space_is_named_and_leaves_nothing_behind";
    reach_limit(test, libc::RLIMIT_AS, "RLIMIT_AS");
}

#[test]
fn a_limit_on_data_is_named_and_leaves_nothing_behind() {
    let test = "a_limit_on_data_is_named_and_leaves_nothing_behind";
    reach_limit(test, libc::RLIMIT_DATA, "RLIMIT_DATA");
}

/// What `vm.max_map_count` is; none if it is too high to be reached in a test.
fn max_mappings() -> Option<usize> {
    let text = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let count = text.trim().parse().unwrap();
    (count <= 100_000).then_some(count)
}

/// Pages that cost a mapping each, until they are dropped.
fn many_mappings(count: usize) -> MmapRaw {
    // SAFETY: a plain library call.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let pages = MmapRaw::from(MmapOptions::new().len(count * page_bytes).map_anon().unwrap());
    for page in (0..count).step_by(2) {
        let page = pages.as_mut_ptr().wrapping_add(page * page_bytes);
        // SAFETY: the page is of this mapping, and nobody uses it.
        assert_eq!(unsafe { libc::mprotect(page.cast(), page_bytes, libc::PROT_NONE) }, 0);
    }
    pages
}

#[test]
fn a_limit_on_mappings_is_named_where_guards_split_them_and_is_none_elsewhere() {
    let test = "a_limit_on_mappings_is_named_where_guards_split_them_and_is_none_elsewhere";
    if is_emulated() {
        return println!("skipped: the emulator has mappings of its own");
    }
    if !child::is_child() {
        return expect_success_of(&child::run(test));
    }
    let Some(limit) = max_mappings() else {
        return println!("skipped: vm.max_map_count is too high to be reached");
    };
    sleep(Duration::ZERO);
    let (in_use, maps) = (stack_counts().in_use, mappings());
    // Two mappings each would be more than there may be.
    let wanted = limit / 2 + 500;
    let mut greenlets = Vec::with_capacity(wanted);
    greenlets.extend((0..200).map(|_| build(MIN_STACK_BYTES).unwrap()));
    let are_split = mappings() - maps >= 200;
    if !are_split {
        greenlets.extend((200..wanted).map(|_| build(MIN_STACK_BYTES).unwrap()));
        let added = mappings() - maps;
        assert!(added < 100, "{added} mappings");
        drop(greenlets);
        assert_eq!(stack_counts().in_use, in_use);
        return println!("{wanted} greenlets, then: {added} mappings more");
    }
    // The next one of this size would need a chunk of its own first.
    let full: Vec<_> = (0..64).map(|_| build(2 * MIN_STACK_BYTES).unwrap()).collect();
    let reserve = many_mappings(1000);
    let error = build_all(MIN_STACK_BYTES, &mut greenlets);
    println!("{} greenlets, then: {error}", greenlets.len());
    expect_refusals(MIN_STACK_BYTES, "vm.max_map_count");
    expect_refusals(2 * MIN_STACK_BYTES, "vm.max_map_count");
    expect_refusals(LARGE, "vm.max_map_count");
    drop(reserve);
    expect_success(MIN_STACK_BYTES);
    expect_success(LARGE);
    for greenlet in greenlets.iter().chain(&full) {
        assert_eq!(greenlet.switch(1).unwrap(), 2);
    }
    assert_eq!(stack_counts().in_use, in_use);
}

/// Spawns until no stack can be had under a limit on this process, which has one from then on.
fn take_all_stacks() -> Vec<greenthread::GreenThread<()>> {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split(' ').next().unwrap().parse().unwrap();
    set_limit(libc::RLIMIT_AS, Some(pages * 4096 + MIB));
    let mut others = Vec::new();
    let error = loop {
        let hour = Duration::from_secs(3600);
        match greenthread::Builder::new().spawn(move || sleep(hour)) {
            Ok(other) => others.push(other),
            Err(error) => break error,
        }
    };
    println!("{} green threads, then: {error}", others.len());
    others
}

#[test]
fn serve_closes_a_connection_for_which_no_stack_can_be_had_and_goes_on() {
    if is_emulated() {
        return println!("skipped: the emulator would have no memory either");
    }
    if !child::is_child() {
        let test = "serve_closes_a_connection_for_which_no_stack_can_be_had_and_goes_on";
        return expect_success_of(&child::run(test));
    }
    let listener = listen("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = greenthread::spawn(move || serve(listener, 1000, |_, _| StopServe::raise()));
    // Its acceptor has its stack, too.
    sleep(Duration::ZERO);
    let others = take_all_stacks();
    let mut byte = [0];
    assert_eq!(connect(addr).unwrap().read(&mut byte).unwrap(), 0);
    others.iter().for_each(greenthread::GreenThread::kill);
    set_limit(libc::RLIMIT_AS, None);
    assert!(!server.is_dead());
    assert_eq!(connect(addr).unwrap().read(&mut byte).unwrap(), 0);
    server.join().unwrap().unwrap();
}

#[test]
fn no_stack_for_one_task_of_a_dag_leaves_none_that_is_waited_for_in_vain() {
    if is_emulated() {
        return println!("skipped: the emulator would have no memory either");
    }
    if !child::is_child() {
        let test = "no_stack_for_one_task_of_a_dag_leaves_none_that_is_waited_for_in_vain";
        return expect_success_of(&child::run(test));
    }
    sleep(Duration::ZERO);
    let others = take_all_stacks();
    // There is one stack for four tasks.
    others[0].kill();
    let pool = DAGPool::new([]);
    let tasks = (0..4).map(|key| (key, []));
    let spawned =
        catch_unwind(AssertUnwindSafe(|| pool.spawn_many(tasks, |key, _| Ok::<u32, Failure>(key))));
    assert!(spawned.is_err());
    others.iter().for_each(greenthread::GreenThread::kill);
    set_limit(libc::RLIMIT_AS, None);
    let values: Vec<_> = (0..4).map(|key| pool.wait_for(&key).is_ok()).collect();
    assert_eq!(values, [true, false, false, false]);
    assert_eq!(pool.running(), 0);
}
