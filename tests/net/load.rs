//! Green TCP under load: much data, many connections, and nobody starves.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::util::leak::guarded;
use crate::util::server::PATIENCE;
use crate::util::sockets::{pair, set_backlog, shrink_send_buffer};
use stolon::green::net::{TcpListener, TcpStream};
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

/// Less under an emulator.
const fn scaled(count: usize) -> usize {
    if cfg!(target_arch = "aarch64") { count / 10 } else { count }
}

/// Bytes that differ from their neighbours, from the one numbered `start` on.
fn pattern(start: usize, count: usize) -> Vec<u8> {
    (start..start + count).map(|n| (n % 251) as u8).collect()
}

fn send_pattern(mut stream: &TcpStream, count: usize, chunk: usize) {
    let mut sent = 0;
    while sent < count {
        let bytes = pattern(sent, chunk.min(count - sent));
        stream.write_all(&bytes).unwrap();
        sent += bytes.len();
    }
}

fn expect_pattern(mut stream: &TcpStream, count: usize, chunk: usize) {
    let (mut received, mut bytes) = (0, vec![0; chunk]);
    while received < count {
        let wanted = chunk.min(count - received);
        let got = stream.read(&mut bytes[..wanted]).unwrap();
        assert_ne!(got, 0, "the stream ends after {received} bytes");
        assert!(bytes[..got] == pattern(received, got), "after {received} bytes");
        received += got;
    }
}

// Much data.

#[test]
fn both_directions_carry_megabytes_at_once_through_small_buffers() {
    guarded(|| {
        let count = scaled(2 << 20);
        let (near, far) = pair();
        shrink_send_buffer(&near);
        shrink_send_buffer(&far);
        let streams = [Rc::new(near), Rc::new(far)];
        let mut running = Vec::new();
        for stream in &streams {
            let (writing, reading) = (Rc::clone(stream), Rc::clone(stream));
            running.push(spawn(move || send_pattern(&writing, count, 10_007)));
            running.push(spawn(move || expect_pattern(&reading, count, 1_009)));
        }
        running.iter().for_each(GreenThread::wait);
    });
}

#[test]
fn much_one_way_and_little_the_other_way_both_arrive() {
    guarded(|| {
        let (count, small) = (scaled(4 << 20), 1000);
        let (near, far) = pair();
        let (near, far) = (Rc::new(near), Rc::new(far));
        let (near_writes, far_reads) = (Rc::clone(&near), Rc::clone(&far));
        let much = spawn(move || send_pattern(&near_writes, count, 1 << 16));
        let much_read = spawn(move || expect_pattern(&far_reads, count, 1 << 14));
        let little = spawn(move || send_pattern(&far, small, 1));
        let little_read = spawn(move || expect_pattern(&near, small, 1));
        [much, much_read, little, little_read].iter().for_each(GreenThread::wait);
    });
}

#[test]
fn one_large_write_arrives_whole_at_a_slow_reader() {
    guarded(|| {
        let count = scaled(20_000_000);
        let (near, far) = pair();
        let writer = spawn(move || (&near).write_all(&pattern(0, count)).unwrap());
        let (mut received, mut bytes) = (0, vec![0; 8 << 10]);
        loop {
            let got = (&far).read(&mut bytes).unwrap();
            if got == 0 {
                break;
            }
            assert!(bytes[..got] == pattern(received, got), "after {received} bytes");
            received += got;
            // Now and then it has something else to do.
            if received % 64 == 0 {
                sleep(NOW);
            }
        }
        assert_eq!(received, count);
        writer.wait();
    });
}

#[test]
fn writes_of_every_size_arrive_in_order() {
    guarded(|| {
        let (near, far) = pair();
        shrink_send_buffer(&near);
        let sizes = [1, 10, 1_000, 10_000, 100_000, scaled(1_000_000)];
        let total = sizes.iter().sum();
        let writer = spawn(move || {
            let mut sent = 0;
            for size in sizes {
                (&near).write_all(&pattern(sent, size)).unwrap();
                sent += size;
            }
        });
        expect_pattern(&far, total, 4_001);
        writer.wait();
    });
}

// Many connections.

#[test]
fn a_thousand_connections_are_served_at_once() {
    guarded(|| {
        stolon::convenience::raise_descriptor_limit().unwrap();
        let count = scaled(1000);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_backlog(&listener, 1024);
        let addr = listener.local_addr().unwrap();
        let open = Rc::new(Cell::new(0));
        let opened = Rc::clone(&open);
        let server = spawn(move || {
            let serve = |stream: io::Result<TcpStream>| {
                let stream = stream.unwrap();
                opened.set(opened.get() + 1);
                spawn(move || io::copy(&mut &stream, &mut &stream).unwrap())
            };
            let served: Vec<_> = listener.incoming().take(count).map(serve).collect();
            served.iter().map(GreenThread::wait).sum::<u64>()
        });
        let client = |n: usize| {
            let open = Rc::clone(&open);
            spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                // Everyone is there before anyone speaks.
                while open.get() < count {
                    sleep(MS);
                }
                for round in 0..3 {
                    stream.write_all(&pattern(n + round, 100)).unwrap();
                    let mut echo = [0; 100];
                    stream.read_exact(&mut echo).unwrap();
                    assert!(echo[..] == pattern(n + round, 100));
                }
            })
        };
        let clients: Vec<_> = (0..count).map(client).collect();
        clients.iter().for_each(GreenThread::wait);
        assert_eq!(server.wait(), 300 * count as u64);
    });
}

#[test]
fn a_place_in_the_hub_is_used_again_by_thousands_of_connections() {
    guarded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                spawn(move || {
                    let mut number = [0; 8];
                    stream.read_exact(&mut number).unwrap();
                    stream.write_all(&number).unwrap();
                });
            }
        });
        for n in 0..scaled(2000) as u64 {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(&n.to_le_bytes()).unwrap();
            let mut number = [0; 8];
            stream.read_exact(&mut number).unwrap();
            assert_eq!(u64::from_le_bytes(number), n);
        }
        server.kill();
    });
}

// Fairness.

/// Counts its turns, for as long as it is let.
fn ticker() -> (Rc<Cell<usize>>, GreenThread<()>) {
    let turns = Rc::new(Cell::new(0));
    let counted = Rc::clone(&turns);
    let ticker = spawn(move || {
        loop {
            sleep(NOW);
            counted.set(counted.get() + 1);
        }
    });
    (turns, ticker)
}

#[test]
fn a_flood_of_connections_does_not_starve_others() {
    guarded(|| {
        stolon::convenience::raise_descriptor_limit().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_backlog(&listener, 1024);
        let addr = listener.local_addr().unwrap();
        let flood: Vec<_> = (0..400).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
        let (turns, ticker) = ticker();
        let accepted: Vec<_> = listener.incoming().take(flood.len()).collect();
        assert!(accepted.iter().all(Result::is_ok));
        // All were there from the start, so accepting has never had to wait.
        assert!(turns.get() >= 4, "{} turns", turns.get());
        ticker.kill();
    });
}

#[test]
fn a_socket_that_is_always_ready_does_not_starve_others() {
    guarded(|| {
        let (near, far) = pair();
        (&near).write_all(b"byte").unwrap();
        let over = Rc::new(Cell::new(false));
        let stop = Rc::clone(&over);
        let start = Instant::now();
        let busy = spawn(move || {
            let mut rounds = 0_u64;
            while !stop.get() && start.elapsed() < PATIENCE / 2 {
                // It is never drained.
                assert_eq!(far.peek(&mut [0; 4]).unwrap(), 4);
                rounds += 1;
            }
            rounds
        });
        let (turns, ticker) = ticker();
        let (trigger, waiting) = pair();
        let reader = spawn(move || (&waiting).read(&mut [0; 4]).unwrap());
        sleep(5 * MS);
        (&trigger).write_all(b"go").unwrap();
        assert_eq!(reader.wait(), 2);
        over.set(true);
        assert!(busy.wait() > 0);
        // A timer, a reader and a green thread have had their turns meanwhile.
        assert!(turns.get() > 0 && start.elapsed() < PATIENCE / 2);
        ticker.kill();
    });
}
