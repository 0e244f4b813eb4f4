//! Echo over loopback TCP: 64 bytes there and back, server and clients as green threads of one OS
//! thread; beside it the same with an OS thread for each side of each connection.
#![allow(missing_docs, reason = "criterion's macros make public items without any")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stolon::GreenThread;
use stolon::green;

const MESSAGE: [u8; 64] = [b'x'; 64];

fn serve(mut connection: impl Read + Write) {
    let mut buffer = [0; 1024];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(bytes) if connection.write_all(&buffer[..bytes]).is_err() => return,
            Ok(_) => {}
        }
    }
}

fn ask(mut connection: impl Read + Write, requests: u64) {
    let mut buffer = [0; 64];
    for _ in 0..requests {
        connection.write_all(&MESSAGE).expect("the server reads");
        connection.read_exact(&mut buffer).expect("the server answers");
    }
}

/// How long `connections` green clients take for `requests` each.
fn green_round(addr: SocketAddr, connections: usize, requests: u64) -> Duration {
    let connect = || Rc::new(green::net::TcpStream::connect(addr).expect("the server listens"));
    let streams: Vec<_> = (0..connections).map(|_| connect()).collect();
    // So that all are accepted, and served once, before the clock runs.
    streams.iter().for_each(|stream| ask(&**stream, 1));
    let start = Instant::now();
    let clients: Vec<GreenThread<()>> = streams
        .iter()
        .map(|stream| {
            let stream = Rc::clone(stream);
            stolon::spawn(move || ask(&*stream, requests))
        })
        .collect();
    clients.iter().for_each(GreenThread::wait);
    start.elapsed()
}

/// The same with OS threads.
fn threaded_round(addr: SocketAddr, connections: usize, requests: u64) -> Duration {
    let connect = || std::net::TcpStream::connect(addr).expect("the server listens");
    let streams: Vec<_> = (0..connections).map(|_| connect()).collect();
    streams.iter().for_each(|stream| ask(stream, 1));
    let start = Instant::now();
    thread::scope(|scope| {
        for stream in &streams {
            scope.spawn(move || ask(stream, requests));
        }
    });
    start.elapsed()
}

fn echo(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo/64_bytes");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for connections in [1, 50] {
        group.bench_with_input(BenchmarkId::new("green", connections), &connections, |b, &n| {
            let listener = green::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            let addr = listener.local_addr().expect("it is bound");
            let server = stolon::spawn(move || {
                for connection in listener.incoming() {
                    let connection = connection.expect("there are descriptors left");
                    stolon::spawn(move || serve(connection));
                }
            });
            b.iter_custom(|iters| green_round(addr, n, iters.div_ceil(n as u64)));
            server.kill();
        });
        group.bench_with_input(
            BenchmarkId::new("os_threads", connections),
            &connections,
            |b, &n| {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
                let addr = listener.local_addr().expect("it is bound");
                // It waits for connections until the process ends.
                thread::spawn(move || {
                    for connection in listener.incoming() {
                        let connection = connection.expect("there are descriptors left");
                        thread::spawn(move || serve(connection));
                    }
                });
                b.iter_custom(|iters| threaded_round(addr, n, iters.div_ceil(n as u64)));
            },
        );
    }
    group.finish();
}

criterion_group!(benches, echo);
criterion_main!(benches);
