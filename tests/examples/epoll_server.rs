//! The example `epoll_server`, run as a child process and used by plain blocking clients.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::util::server::{
    Client, Server, eventually, example, example_with_descriptors, is_emulated,
};

const REQUEST: &str = "GET / HTTP/1.0\r\n\r\n";

fn epoll_server(arguments: &[&str]) -> Server {
    let mut command = example("epoll_server");
    command.args(["--port", "0"]).args(arguments);
    Server::start(command)
}

/// Connects, asks, and checks that the whole answer comes.
fn ask(server: &Server) {
    let mut client = Client::connect(server);
    client.send(REQUEST);
    assert_eq!(client.rest().len(), 114);
}

// D6 (a).
#[test]
fn a_blocking_server_has_each_client_wait_for_the_one_before() {
    let server = epoll_server(&["--blocking"]);
    let silent = Client::connect(&server);
    let mut next = Client::connect(&server);
    next.send(REQUEST);
    next.stream().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let early = loop {
        match next.stream().read(&mut [0]).map_err(|error| error.kind()) {
            Err(ErrorKind::Interrupted) => {}
            early => break early,
        }
    };
    assert_eq!(early, Err(ErrorKind::WouldBlock));
    drop(silent);
    next.stream().set_read_timeout(None).unwrap();
    assert_eq!(next.rest().len(), 114);
}

// D6 (b).
#[test]
fn fifty_silent_clients_keep_nobody_waiting() {
    let server = epoll_server(&[]);
    let _silent: Vec<_> = (0..50).map(|_| Client::connect(&server)).collect();
    let latency = || {
        let start = Instant::now();
        ask(&server);
        start.elapsed()
    };
    let best = (0..5).map(|_| latency()).min().unwrap_or_default();
    assert!(best < Duration::from_millis(if is_emulated() { 500 } else { 50 }), "{best:?}");
}

// D6, the answer and what is printed, and (d).
#[test]
fn a_request_is_printed_and_answered_with_114_bytes() {
    let answer = "HTTP/1.0 200 OK\r\nDate: Mon, 1 Jan 1996 01:01:01 GMT\r\n\
        Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";
    assert_eq!(answer.len(), 114);
    let cases: [(&str, &[&str]); 5] = [
        ("GET / HTTP/1.0\nA: b\n\n", &["GET / HTTP/1.0", "A: b"]),
        ("GET / HTTP/1.0\r\nA: b\r\n\r\n", &["GET / HTTP/1.0\r", "A: b\r", ""]),
        ("anything\n\r\n", &["anything", ""]),
        ("\n\n", &[""]),
        // Of two requests on one connection, the first is answered.
        ("first\n\nsecond\n\n", &["first"]),
    ];
    for mode in [&[][..], &["--blocking"][..]] {
        let server = epoll_server(mode);
        for (request, printed) in cases {
            let mut client = Client::connect(&server);
            client.send(request);
            let mut got = [0; 114];
            client.stream().read_exact(&mut got).unwrap();
            assert_eq!(String::from_utf8_lossy(&got), answer, "{request:?}");
            // A server that closes with something unread resets the connection.
            let more = client.stream().read(&mut [0]);
            assert!(!more.is_ok_and(|count| count > 0), "{request:?}");
            assert_eq!(server.line(), "-".repeat(40));
            for line in printed {
                assert_eq!(server.line(), *line, "{request:?}");
            }
        }
    }
}

// D6 (c).
#[test]
fn a_request_in_single_bytes_is_answered_once_and_after_its_end() {
    let server = epoll_server(&[]);
    let mut client = Client::connect(&server);
    let (last, beginning) = REQUEST.as_bytes().split_last().unwrap();
    for byte in beginning {
        client.send([*byte]);
    }
    // Another client's whole exchange shows that the server has seen all that was sent before it.
    ask(&server);
    client.stream().set_nonblocking(true).unwrap();
    let early = client.stream().read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(early, Err(ErrorKind::WouldBlock));
    client.stream().set_nonblocking(false).unwrap();
    client.send([*last]);
    assert_eq!(client.rest().len(), 114);
}

#[test]
fn a_client_that_sends_no_more_is_answered_if_its_request_is_whole() {
    let server = epoll_server(&[]);
    for (request, bytes) in [(REQUEST, 114), ("GET / HTTP/1.0\r\n", 0), ("", 0)] {
        let mut client = Client::connect(&server);
        client.send(request);
        client.stream().shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.rest().len(), bytes, "{request:?}");
    }
}

#[test]
fn a_request_without_an_end_is_not_kept() {
    let server = epoll_server(&[]);
    let client = Client::connect(&server);
    let line = [b'x'; 4096];
    // The server may hang up at any time from 64 KiB on.
    while std::io::Write::write_all(&mut client.stream(), &line).is_ok() {}
    let end = client.stream().read(&mut [0]);
    assert!(!end.is_ok_and(|count| count > 0));
    ask(&server);
}

// D6 (e), (f) and (g).
#[test]
fn clients_that_leave_or_vanish_leave_nothing_behind() {
    let server = epoll_server(&[]);
    let everything = || (server.sockets(), server.descriptors(), server.watched());
    let before = everything();
    for beginning in ["", "GE", "GET / HTTP/1.0\r\n", REQUEST].iter().cycle().take(100) {
        let mut client = Client::connect(&server);
        client.send(beginning);
        client.reset();
    }
    ask(&server);
    (0..50).for_each(|_| drop(Client::connect(&server)));
    // It hangs up by itself: nobody waits for the client to do so.
    let mut kept = Client::connect(&server);
    kept.send(REQUEST);
    assert_eq!(kept.rest().len(), 114);
    eventually("all is as it was", || everything() == before);
    ask(&server);
}

#[test]
fn without_descriptors_to_spare_it_serves_who_is_there_and_then_the_others() {
    let mut command = example_with_descriptors("epoll_server", 24);
    command.args(["--port", "0"]);
    let server = Server::start(command);
    let mut clients: Vec<_> = (0..60).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.send(REQUEST);
    }
    for client in &mut clients {
        assert_eq!(client.rest().len(), 114);
    }
}

#[test]
fn it_stops_on_sigint_and_sigterm_whoever_is_connected() {
    for (signal, name) in [(libc::SIGINT, "SIGINT"), (libc::SIGTERM, "SIGTERM")] {
        let mut server = epoll_server(&[]);
        let mut silent = Client::connect(&server);
        ask(&server);
        server.signal(signal);
        let (status, lines) = server.wait();
        assert!(status.success(), "{status}");
        assert_eq!(lines.last().unwrap(), &format!("stopped by {name} after 1 requests"));
        silent.expect_end();
    }
}

#[test]
fn wrong_arguments_are_refused() {
    for (arguments, message) in [
        (&["--port"][..], "--port needs a value"),
        (&["--port", "x"][..], "--port cannot be `x`"),
        (&["--what"][..], "unknown argument `--what`"),
    ] {
        let output = example("epoll_server").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.contains(message), "{complaint}");
    }
    let help = example("epoll_server").arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--blocking"));
}
