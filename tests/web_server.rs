//! The example `web_server`, run as a child process and used by plain blocking clients.

mod util;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use util::server::{
    Client, PATIENCE, Server, eventually, example, example_with_descriptors, is_emulated,
    raise_descriptor_limit,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn web_server(arguments: &[&str]) -> Server {
    let mut command = example("web_server");
    command.args(["--port", "0"]).args(arguments);
    Server::start(command)
}

/// How long a new client waits for its answer, at best of a few times: tests run side by side.
fn best_latency(server: &Server) -> Duration {
    let latency = || {
        let start = Instant::now();
        assert_eq!(Client::connect(server).get("/").status, 200);
        start.elapsed()
    };
    (0..5).map(|_| latency()).min().unwrap_or_default()
}

/// What is promised of an answer that waits for nobody.
fn prompt() -> Duration {
    Duration::from_millis(if is_emulated() { 500 } else { 50 })
}

// One request.

#[test]
fn a_get_is_answered_with_a_page() {
    let server = web_server(&[]);
    let response = Client::connect(&server).get("/");
    assert_eq!(response.head.lines().next(), Some("HTTP/1.1 200 OK"));
    assert_eq!(response.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(response.body.contains("<h1>Hello, world!</h1>"), "{}", response.body);
}

#[test]
fn the_date_is_the_time_of_day_in_the_form_of_the_web() {
    let server = web_server(&[]);
    let now = || {
        let format = "+%a, %d %b %Y %H:%M:%S GMT";
        let output = Command::new("date").env("LC_ALL", "C").args(["-u", format]).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim_end().to_string()
    };
    loop {
        let (before, response) = (now(), Client::connect(&server).get("/"));
        if before == now() {
            assert_eq!(response.field("date"), Some(before.as_str()));
            break;
        }
    }
}

#[test]
fn the_target_may_name_a_host_or_carry_a_query() {
    let server = web_server(&[]);
    let mut client = Client::connect(&server);
    for target in ["/", "/?a=b", "/status?c", "http://localhost/", "http://localhost"] {
        assert_eq!(client.get(target).status, 200, "{target}");
    }
    for target in ["/nowhere", "/status/", "//", "http://localhost/nowhere", "*"] {
        let response = client.get(target);
        assert_eq!((response.status, response.body.as_str()), (404, "404 Not Found\n"), "{target}");
    }
}

#[test]
fn head_gets_the_head_of_get_and_no_body() {
    let server = web_server(&[]);
    let mut client = Client::connect(&server);
    for target in ["/", "/nowhere"] {
        let get = client.get(target);
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let head = client.response_without_body();
        assert_eq!(
            (get.status, get.field("content-length")),
            (head.status, head.field("content-length"))
        );
    }
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn other_methods_are_told_which_ones_there_are() {
    let server = web_server(&[]);
    let mut client = Client::connect(&server);
    for (method, target) in [("POST", "/"), ("OPTIONS", "*"), ("CONNECT", "a:1"), ("get", "/")] {
        let body = "GET /not/a/request HTTP/1.1\r\n\r\n";
        let length = body.len();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n");
        client.send(format!("{head}\r\n{body}"));
        let response = client.response();
        assert_eq!(
            (response.status, response.field("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn malformed_requests_are_refused_and_the_connection_is_closed() {
    let server = web_server(&[]);
    let with = |field: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
    let cases = [
        (400, "nonsense\r\n\r\n".into()),
        (400, "GET /\r\n\r\n".into()),
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n".into()),
        (400, "G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET nowhere HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET / HTTP/11\r\nHost: a\r\n\r\n".into()),
        (400, "GET / http/1.1\r\nHost: a\r\n\r\n".into()),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n".into()),
        (505, "GET / HTTP/0.9\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\n\r\n".into()),
        (400, with("Host: b")),
        (400, with("no colon")),
        (400, with(": no name")),
        (400, with("Name : space before the colon")),
        (400, with("Name: folded\r\n line")),
        (400, with("Name: a\0b")),
        (400, with("Name: a\rb")),
        (400, with("Content-Length:")),
        (400, with("Content-Length: -1")),
        (400, with("Content-Length: +1")),
        (400, with("Content-Length: 0x1")),
        (400, with("Content-Length: 1, 1")),
        (400, with("Content-Length: 1\r\nContent-Length: 1")),
        (400, with("Content-Length: 1\r\nTransfer-Encoding: chunked")),
        (501, with("Transfer-Encoding: chunked")),
        (413, with("Content-Length: 1048577")),
        (413, with("Content-Length: 99999999999999999999999999")),
    ];
    for (status, request) in cases {
        let mut client = Client::connect(&server);
        client.send(&request);
        let response = client.response();
        assert_eq!(
            (response.status, response.field("connection")),
            (status, Some("close")),
            "{request:?}"
        );
        client.expect_end();
    }
    assert_eq!(Client::connect(&server).get("/").status, 200);
}

#[test]
fn a_head_of_more_than_8_kib_is_refused_and_the_connection_is_closed() {
    let server = web_server(&[]);
    let padded = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nHost: localhost\r\nPadding: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    let mut client = Client::connect(&server);
    client.send(padded(8192));
    assert_eq!(client.response().status, 200);
    // Whether it is one byte too long, or goes on and on: the answer is not lost in a reset.
    for bytes in [8193, 8_000_000] {
        let mut client = Client::connect(&server);
        client.send(padded(bytes));
        assert_eq!(client.response().status, 431);
        client.expect_end();
    }
}

// Several requests on one connection.

#[test]
fn a_connection_is_kept_or_closed_as_the_client_asks() {
    let server = web_server(&[]);
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Upgrade, CLOSE\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
    ];
    for (version, field, kept) in cases {
        let mut client = Client::connect(&server);
        client.send(format!("GET / HTTP/{version}\r\nHost: localhost\r\n{field}\r\n"));
        let response = client.response();
        let connection = if kept { "keep-alive" } else { "close" };
        assert_eq!((response.status, response.field("connection")), (200, Some(connection)));
        if kept {
            assert_eq!(client.get("/").status, 200);
        } else {
            client.expect_end();
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = web_server(&[]);
    let mut client = Client::connect(&server);
    let get = |target| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde";
    // An empty line between two requests is forgiven.
    let round = [&get("/"), "\r\n", &get("/nowhere"), post, &get("/status")].concat();
    client.send(round.repeat(100));
    for n in 1..=100 {
        assert_eq!([(); 3].map(|()| client.response().status), [200, 404, 405]);
        let answered = format!("requests answered: {}\n", 4 * n - 1);
        assert!(client.response().body.contains(&answered), "{answered}");
    }
}

#[test]
fn a_request_split_into_single_bytes_is_answered_once() {
    let server = web_server(&[]);
    for request in [GET, "POST / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc"] {
        let mut client = Client::connect(&server);
        for byte in request.bytes() {
            client.send([byte]);
        }
        client.stream().shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.response().status, if request == GET { 200 } else { 405 });
        client.expect_end();
    }
}

#[test]
fn a_body_that_waits_to_be_asked_for_is_not_waited_for() {
    let server = web_server(&[]);
    let mut client = Client::connect(&server);
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n");
    assert_eq!(client.response().status, 405);
    client.expect_end();
}

// Clients that are slow, or vanish, or are too many.

#[test]
fn silent_clients_delay_nobody() {
    for mode in [&[][..], &["--tutorial"][..]] {
        let server = web_server(mode);
        let _silent: Vec<_> = (0..50).map(|_| Client::connect(&server)).collect();
        let latency = best_latency(&server);
        assert!(latency < prompt(), "{mode:?}: {latency:?}");
    }
}

#[test]
fn a_client_that_never_reads_delays_nobody_and_is_given_up() {
    let server = web_server(&["--idle-timeout", "1"]);
    let client = Client::connect(&server);
    client.stream().set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let requests = GET.repeat(1000);
    while client.stream().write_all(requests.as_bytes()).is_ok() {}
    assert!(best_latency(&server) < prompt());
    eventually("only the listener is left", || server.sockets() == 1);
}

#[test]
fn a_request_must_be_complete_in_time_however_steadily_it_drips() {
    let server = web_server(&["--idle-timeout", "1"]);
    let mut client = Client::connect(&server);
    client.stream().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: ");
    let mut first = [0];
    // The wait for an answer is what sets the pace.
    while let Err(error) = client.stream().read(&mut first) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() < PATIENCE);
        client.send("x");
    }
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    client.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    let response = client.response();
    assert_eq!((first, response.status), ([b'H'], 408));
    client.expect_end();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = web_server(&["--idle-timeout", "1"]);
    let (mut silent, mut used) = (Client::connect(&server), Client::connect(&server));
    assert_eq!(used.get("/").status, 200);
    silent.expect_end();
    used.expect_end();
}

#[test]
fn clients_that_vanish_concern_nobody_else_and_leave_nothing_behind() {
    let beginnings = ["", "GE", "GET / HTTP/1.1\r\nHost: a\r\n", GET];
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc";
    for mode in [&[][..], &["--tutorial"][..]] {
        let server = web_server(mode);
        let answer = || {
            let mut client = Client::connect(&server);
            client.send("GET / HTTP/1.0\r\nConnection: close\r\n\r\n");
            assert_eq!(client.response().status, 200);
            client.expect_end();
        };
        let everything = || (server.sockets(), server.descriptors(), server.watched());
        answer();
        eventually("only the listener is left", || server.sockets() == 1);
        let before = everything();
        for beginning in beginnings.iter().chain([&post]).cycle().take(100) {
            let mut client = Client::connect(&server);
            client.send(beginning);
            client.reset();
        }
        answer();
        eventually("all is as it was", || everything() == before);
    }
}

#[test]
fn without_descriptors_to_spare_it_waits_and_then_goes_on() {
    let mut command = example_with_descriptors("web_server", 24);
    command.args(["--port", "0"]);
    let server = Server::start(command);
    let clients: Vec<_> = (0..60).map(|_| Client::connect(&server)).collect();
    let complaint = server.error_line();
    assert!(complaint.contains("cannot accept connections for now: "), "{complaint}");
    // This is no wait for something to happen: it is the time in which too little must happen.
    let before = server.processor_time();
    thread::sleep(Duration::from_millis(500));
    let used = server.processor_time() - before;
    let allowed = Duration::from_millis(if is_emulated() { 200 } else { 50 });
    assert!(used <= allowed, "{used:?}");
    drop(clients);
    assert_eq!(Client::connect(&server).get("/").status, 200);
    assert!(!server.has_error_line());
}

#[test]
fn ten_thousand_connections_are_held_open_while_new_requests_are_answered() {
    let count = if is_emulated() { 500 } else { 10_000 };
    assert!(raise_descriptor_limit() > count + 500, "the limit on descriptors is too low");
    let server = web_server(&["--idle-timeout", "600"]);
    assert_eq!(Client::connect(&server).get("/").status, 200);
    eventually("only the listener is left", || server.sockets() == 1);
    let memory = server.memory_bytes();

    // Half of them never say a word, half are between two requests.
    let mut clients = Vec::new();
    for n in 0..count {
        let mut client = Client::connect(&server);
        if n % 2 == 1 {
            assert_eq!(client.get("/").status, 200);
        }
        clients.push(client);
    }
    let status = Client::connect(&server).get("/status").body;
    assert!(
        status.starts_with(&format!("connections: {}\nidle: {count}\n", count + 1)),
        "{status}"
    );
    let memory_each = (server.memory_bytes() - memory) / clients.len();

    let mut latencies: Vec<_> = (0..100).map(|_| best_latency(&server)).collect();
    latencies.sort();
    let (median, longest) = (latencies[50], latencies[99]);
    println!(
        "{count} connections: {memory_each} bytes each; median {median:?}, longest {longest:?}"
    );
    assert!(median < prompt(), "{latencies:?}");
    assert!(memory_each < 64 * 1024, "{memory_each}");

    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    drop(clients);
    eventually("only the listener is left", || server.sockets() == 1);
}

// The end.

#[test]
fn a_signal_ends_idle_connections_and_lets_a_request_be_finished() {
    for (number, name) in [(libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT")] {
        let mut server = web_server(&[]);
        let (head, tail) = GET.split_at(20);
        let mut idle = Client::connect(&server);
        let mut busy = Client::connect(&server);
        busy.send(head);
        eventually("one request is in progress", || {
            idle.get("/status").body.starts_with("connections: 2\nidle: 0\n")
        });
        server.signal(number);
        idle.expect_end();
        let refused = TcpStream::connect_timeout(&server.address(), PATIENCE);
        assert_eq!(refused.map_err(|error| error.kind()).err(), Some(ErrorKind::ConnectionRefused));
        busy.send(tail);
        let response = busy.response();
        assert_eq!((response.status, response.field("connection")), (200, Some("close")));
        busy.expect_end();
        drop(busy);
        let (status, last) = server.wait();
        assert!(status.success(), "{status}: {last:?}");
        assert_eq!(last.len(), 1);
        assert!(last[0].starts_with(&format!("stopped by {name} after ")), "{}", last[0]);
    }
}

#[test]
fn a_request_that_never_ends_does_not_hold_up_the_end_for_long() {
    let mut server = web_server(&[]);
    let (mut other, mut busy) = (Client::connect(&server), Client::connect(&server));
    busy.send("GET / HT");
    eventually("one request is in progress", || {
        other.get("/status").body.starts_with("connections: 2\nidle: 0\n")
    });
    let start = Instant::now();
    server.signal(libc::SIGTERM);
    let (status, last) = server.wait();
    assert!(status.success() && last.len() == 1, "{status}: {last:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

// The command line.

#[test]
fn help_names_every_argument() {
    let output = example("web_server").arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for argument in ["--host", "--port", "--idle-timeout", "--tutorial", "--help"] {
        assert!(text.contains(&format!("\n  {argument} ")), "{argument}: {text}");
    }
}

#[test]
fn a_wrong_argument_is_named_and_the_exit_code_is_2() {
    let cases: [(&[&str], &str); 5] = [
        (&["--prot", "80"], "unknown argument `--prot`"),
        (&["--port"], "--port needs a value"),
        (&["--port", "65536"], "--port cannot be `65536`"),
        (&["--idle-timeout", "0"], "--idle-timeout cannot be `0`"),
        (&["--tutorial", "x"], "unknown argument `x`"),
    ];
    for (arguments, message) in cases {
        let output = example("web_server").args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(stderr.contains(message), "{stderr}");
    }
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let server = web_server(&[]);
    let port = server.address().port().to_string();
    let output = example("web_server").args(["--port", &port]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}

// The server of the tutorials.

#[test]
fn the_tutorial_prints_a_request_and_sends_its_114_bytes() {
    let server = web_server(&["--tutorial"]);
    let answer = "HTTP/1.0 200 OK\r\nDate: Mon, 1 Jan 1996 01:01:01 GMT\r\n\
        Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";
    assert_eq!(answer.len(), 114);
    let cases: [(&str, &[&str]); 4] = [
        ("GET / HTTP/1.0\nA: b\n\n", &["GET / HTTP/1.0", "A: b"]),
        ("GET / HTTP/1.0\r\nA: b\r\n\r\n", &["GET / HTTP/1.0\r", "A: b\r", ""]),
        ("anything\n\r\n", &["anything", ""]),
        // Of two requests on one connection, the first is answered.
        ("first\n\nsecond\n\n", &["first"]),
    ];
    for (request, printed) in cases {
        let mut client = Client::connect(&server);
        client.send(request);
        assert_eq!(String::from_utf8_lossy(&client.rest()), answer, "{request:?}");
        assert_eq!(server.line(), "-".repeat(40));
        for line in printed {
            assert_eq!(server.line(), *line, "{request:?}");
        }
    }
}

#[test]
fn the_tutorial_answers_a_split_request_once_and_after_its_end() {
    let server = web_server(&["--tutorial"]);
    let mut client = Client::connect(&server);
    let (last, request) = b"GET / HTTP/1.0\r\n\r\n".split_last().unwrap();
    for byte in request {
        client.send([*byte]);
    }
    // Another client's whole exchange shows that the server has seen all that was sent before it.
    let mut other = Client::connect(&server);
    other.send("other\n\n");
    assert_eq!(other.rest().len(), 114);
    client.stream().set_nonblocking(true).unwrap();
    let early = client.stream().read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(early, Err(ErrorKind::WouldBlock));
    client.stream().set_nonblocking(false).unwrap();
    client.send([*last]);
    assert_eq!(client.rest().len(), 114);
}
