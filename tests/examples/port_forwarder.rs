//! The example `port_forwarder`, between clients and servers of std's.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::thread;

use crate::util::server::{PATIENCE, Server, eventually, example};

fn forwarder(to: SocketAddr) -> Server {
    let mut command = example("port_forwarder");
    command.args(["--listen", "127.0.0.1:0", "--to", &to.to_string()]);
    Server::start(command)
}

fn connect(forwarder: &Server) -> TcpStream {
    with_patience(TcpStream::connect(forwarder.address()).unwrap())
}

fn with_patience(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A server for tests to play the part of, and a forwarder to it.
fn target_and_forwarder() -> (TcpListener, Server) {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let forwarder = forwarder(target.local_addr().unwrap());
    (target, forwarder)
}

fn accept(target: &TcpListener) -> TcpStream {
    with_patience(target.accept().unwrap().0)
}

fn expect(mut stream: &TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

fn rest_of(mut stream: &TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}

#[test]
fn bytes_go_both_ways_as_they_come() {
    let (target, forwarder) = target_and_forwarder();
    let mut client = connect(&forwarder);
    let mut server = accept(&target);
    for round in 0..3 {
        client.write_all(format!("question {round}").as_bytes()).unwrap();
        expect(&server, &format!("question {round}"));
        server.write_all(format!("answer {round}").as_bytes()).unwrap();
        expect(&client, &format!("answer {round}"));
    }
}

#[test]
fn a_side_that_has_sent_all_still_receives() {
    let (target, forwarder) = target_and_forwarder();
    let mut client = connect(&forwarder);
    let mut server = accept(&target);
    client.write_all(b"all of it").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest_of(&server), b"all of it");
    server.write_all(b"an answer to that").unwrap();
    drop(server);
    assert_eq!(rest_of(&client), b"an answer to that");
}

#[test]
fn much_goes_both_ways_at_once() {
    const BYTES: usize = 4 << 20;
    let (target, forwarder) = target_and_forwarder();
    let sides = [connect(&forwarder), accept(&target)];
    let senders = sides.each_ref().map(|side| {
        let mut side = side.try_clone().unwrap();
        thread::spawn(move || {
            let bytes: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
            side.write_all(&bytes).unwrap();
            side.shutdown(Shutdown::Write).unwrap();
        })
    });
    let receivers = sides.map(|side| thread::spawn(move || rest_of(&side)));
    for sender in senders {
        sender.join().unwrap();
    }
    for receiver in receivers {
        let received = receiver.join().unwrap();
        assert_eq!(received.len(), BYTES);
        assert!(received.iter().enumerate().all(|(i, &byte)| byte == (i % 251) as u8));
    }
}

#[test]
fn a_client_that_is_reset_takes_its_server_with_it_and_nobody_else() {
    let (target, forwarder) = target_and_forwarder();
    let idle = forwarder.sockets();
    let (mut other, mut others_server) = (connect(&forwarder), accept(&target));
    let (client, mut server) = (connect(&forwarder), accept(&target));
    server.write_all(b"nobody reads this").unwrap();
    let mut first = [0];
    client.peek(&mut first).unwrap();
    // Unread bytes make a reset of it.
    drop(client);
    assert!(rest_of_or_error(&server).is_empty());
    drop(server);
    eventually("two sockets are left", || forwarder.sockets() == idle + 2);
    other.write_all(b"still here").unwrap();
    expect(&others_server, "still here");
    others_server.write_all(b"so am I").unwrap();
    expect(&other, "so am I");
    drop((other, others_server));
    eventually("no sockets are left", || forwarder.sockets() == idle);
}

/// Reads to the end, be it an orderly one or not.
fn rest_of_or_error(mut stream: &TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest
}

#[test]
fn a_target_that_is_not_there_ends_the_connection_and_not_the_forwarder() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap();
    drop(target);
    let mut forwarder = forwarder(address);
    for _ in 0..2 {
        assert!(rest_of_or_error(&connect(&forwarder)).is_empty());
        let complaint = forwarder.error_line();
        assert!(complaint.contains(&address.to_string()), "{complaint}");
    }
    forwarder.signal(libc::SIGTERM);
    let (status, last) = forwarder.wait();
    assert!(status.success());
    assert_eq!(last, ["stopped after 2 connections, 0 bytes up, 0 bytes down"]);
}

#[test]
fn a_signal_stops_it_and_it_tells_what_it_has_forwarded() {
    let (target, mut forwarder) = target_and_forwarder();
    let mut client = connect(&forwarder);
    let mut server = accept(&target);
    client.write_all(b"12345").unwrap();
    expect(&server, "12345");
    server.write_all(b"123").unwrap();
    expect(&client, "123");
    forwarder.signal(libc::SIGINT);
    let (status, last) = forwarder.wait();
    assert!(status.success());
    assert_eq!(last, ["stopped after 1 connections, 5 bytes up, 3 bytes down"]);
    assert!(rest_of_or_error(&client).is_empty());
}

#[test]
fn bad_arguments_are_named() {
    let run = |args: &[&str]| example("port_forwarder").args(args).output().unwrap();
    let text = |output: Output| String::from_utf8(output.stderr).unwrap();
    let output = run(&["--help"]);
    assert!(output.status.success() && output.stdout.starts_with(b"Forwards"));
    assert!(text(run(&[])).contains("--to is missing"));
    assert!(text(run(&["--to"])).contains("--to needs a value"));
    assert!(text(run(&["--from"])).contains("unknown argument `--from`"));
    let output = run(&["--to", "127.0.0.1:1", "--listen", "127.0.0.1:notaport"]);
    assert_eq!(output.status.code(), Some(1));
}
