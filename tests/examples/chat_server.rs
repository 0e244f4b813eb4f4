//! The example `chat_server`: who hears what, and what becomes of those who misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::util::server::{PATIENCE, Server, eventually, example};
use crate::util::sockets::reset;
use crate::{complaint_of, output_of};

fn server() -> Server {
    let mut command = example("chat_server");
    command.args(["--port", "0"]);
    Server::start(command)
}

/// A client's side.
struct Guest(BufReader<TcpStream>);

impl Guest {
    /// One that has read what it is greeted with.
    fn new(server: &Server, number: u32) -> Guest {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut guest = Guest(BufReader::new(stream));
        guest.hears(&format!("* you are guest{number} in lobby; /help helps"));
        guest
    }

    fn says(&mut self, text: &str) {
        self.0.get_mut().write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the connection ends with {line:?}");
        line.trim_end().to_owned()
    }

    fn hears(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    /// That it is asked something and answered at once says that nothing came before.
    fn has_heard_nothing(&mut self) {
        self.says("/nothing");
        self.hears("* that is no command; /help helps");
    }

    /// What comes until the connection ends, in order or not.
    fn rest(mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        String::from_utf8(rest).unwrap()
    }
}

/// Two in the lobby.
fn two(server: &Server) -> [Guest; 2] {
    let mut one = Guest::new(server, 1);
    let two = Guest::new(server, 2);
    one.hears("* guest2 comes in");
    [one, two]
}

#[test]
fn what_is_said_is_heard_by_all_others_in_the_room_and_by_nobody_else() {
    let server = server();
    let [mut one, mut two] = two(&server);
    let mut three = Guest::new(&server, 3);
    one.hears("* guest3 comes in");
    two.hears("* guest3 comes in");
    three.says("/join kitchen");
    three.hears("* you are guest3 in kitchen; /help helps");
    two.hears("* guest3 leaves");
    one.hears("* guest3 leaves");
    one.says("is anybody there?");
    two.hears("guest1: is anybody there?");
    three.has_heard_nothing();
    one.has_heard_nothing();
    two.says("/join kitchen");
    two.hears("* you are guest2 in kitchen; /help helps");
    three.hears("* guest2 comes in");
    two.says("here");
    three.hears("guest2: here");
    one.hears("* guest2 leaves");
    one.says("/rooms");
    one.hears("* 2: kitchen lobby");
    three.says("/who");
    three.hears("* 2: guest3 guest2");
    // A room that nobody is in is gone.
    one.says("/join kitchen");
    one.hears("* you are guest1 in kitchen; /help helps");
    one.says("/rooms");
    one.hears("* 1: kitchen");
}

#[test]
fn nicknames_are_unique_and_free_again_when_their_owner_has_left() {
    let server = server();
    let [mut one, mut two] = two(&server);
    one.says("/nick anna");
    one.hears("* you are anna");
    two.hears("* guest1 is now anna");
    two.says("/nick anna");
    two.hears("* anna is taken");
    for bad in ["", " ", "a b", "a\u{1b}[0m!", "123456789012345678901"] {
        two.says(&format!("/nick {bad}"));
        two.hears("* that is no name");
    }
    one.says("/quit");
    assert_eq!(one.rest(), "");
    two.hears("* anna leaves");
    two.says("/nick anna");
    two.hears("* you are anna");
    // The name of who was first here, which a third finds taken.
    two.says("/nick guest3");
    two.hears("* you are guest3");
    let mut three = TcpStream::connect(server.address()).unwrap();
    two.hears("* guest3_ comes in");
    three.write_all(b"/quit\n").unwrap();
    two.hears("* guest3_ leaves");
}

#[test]
fn who_does_not_read_is_dropped_and_the_others_hear_all() {
    const MOST: usize = 60_000;
    let mut server = server();
    let [mut one, mut two] = two(&server);
    let slow = Guest::new(&server, 3);
    one.hears("* guest3 comes in");
    two.hears("* guest3 comes in");
    let text = "x".repeat(480);
    let mut said = 0;
    let mut is_there = true;
    while is_there {
        assert!(said < MOST, "who does not read is still there");
        for _ in 0..50 {
            one.says(&format!("{said} {text}"));
            let mut line = two.line();
            if line == "* guest3 leaves" {
                is_there = false;
                line = two.line();
            }
            assert_eq!(line, format!("guest1: {said} {text}"));
            said += 1;
        }
    }
    assert!(slow.rest().starts_with("guest1: 0 x"));
    one.hears("* guest3 leaves");
    one.has_heard_nothing();
    server.signal(libc::SIGTERM);
    let (status, last) = server.wait();
    assert!(status.success());
    assert_eq!(last, ["stopped after 3 clients, of which 1 were slow"]);
}

#[test]
fn a_hundred_lines_in_one_packet_make_nobody_slow() {
    let server = server();
    let [mut one, mut two] = two(&server);
    one.says(&["hi"; 300].join("\n"));
    (0..300).for_each(|_| two.hears("guest1: hi"));
    two.has_heard_nothing();
}

#[test]
fn clients_that_vanish_leave_and_leave_nothing_behind() {
    let server = server();
    let idle = server.sockets();
    let [mut one, two] = two(&server);
    two.0.get_ref().write_all(b"half a li").unwrap();
    reset(two.0.into_inner());
    one.hears("* guest2 leaves");
    let three = Guest::new(&server, 3);
    one.hears("* guest3 comes in");
    drop(three);
    one.hears("* guest3 leaves");
    eventually("one socket is left", || server.sockets() == idle + 1);
    one.has_heard_nothing();
    drop(one);
    eventually("none is left", || server.sockets() == idle);
}

#[test]
fn lines_that_are_too_long_end_their_client_and_odd_ones_are_cleaned() {
    let server = server();
    let [mut one, mut two] = two(&server);
    two.says("a\u{7}b\u{1b}[31m\r");
    one.hears("guest2: ab[31m");
    two.0.get_mut().write_all(b"\xff\xfe\n\n  \n").unwrap();
    one.hears("guest2: \u{fffd}\u{fffd}");
    let longest = "y".repeat(512);
    two.says(&longest);
    one.hears(&format!("guest2: {longest}"));
    for too_long in [[b'z'; 700].to_vec(), [&[b'z'; 600][..], b"\n"].concat()] {
        two.0.get_mut().write_all(&too_long).unwrap();
        assert_eq!(two.rest(), "* that line is too long\n");
        let gone = one.line();
        assert!(gone.ends_with(" leaves"), "{gone}");
        let next = TcpStream::connect(server.address()).unwrap();
        two = Guest(BufReader::new(next));
        assert!(two.line().ends_with("in lobby; /help helps"));
        assert!(one.line().ends_with(" comes in"));
    }
    one.has_heard_nothing();
}

#[test]
fn a_signal_stops_it_and_all_are_told() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut server = server();
        let [mut one, two] = two(&server);
        one.says("/join kitchen");
        one.hears("* you are guest1 in kitchen; /help helps");
        server.signal(signal);
        assert_eq!(one.rest(), "* the server stops\n");
        assert!(two.rest().ends_with("* guest1 leaves\n* the server stops\n"));
        let (status, last) = server.wait();
        assert!(status.success());
        assert_eq!(last, ["stopped after 2 clients, of which 0 were slow"]);
    }
}

#[test]
fn a_client_that_never_ends_to_send_does_not_keep_it_from_stopping() {
    let mut server = server();
    let [one, two] = two(&server);
    let mut floods = one.0.into_inner();
    let flood = std::thread::spawn(move || while floods.write_all(&[b'\n'; 4096]).is_ok() {});
    server.signal(libc::SIGTERM);
    let (status, _) = server.wait();
    assert!(status.success());
    flood.join().unwrap();
    assert!(two.rest().starts_with("* the server stops\n"));
}

#[test]
fn clients_that_come_with_the_signal_do_not_keep_it_from_stopping() {
    let mut server = server();
    // They are accepted when the signal is there already.
    server.signal(libc::SIGSTOP);
    let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    server.signal(libc::SIGTERM);
    server.signal(libc::SIGCONT);
    let (status, _) = server.wait();
    assert!(status.success());
    drop(clients);
}

#[test]
fn bad_arguments_are_named() {
    let complaint = |args: &[&str]| complaint_of("chat_server", args);
    assert!(output_of("chat_server", &["--help"]).starts_with("A chat server"));
    assert!(complaint(&["--port"]).contains("--port needs a value"));
    assert!(complaint(&["--port", "65536"]).contains("--port cannot be `65536`"));
    assert!(complaint(&["--room", "a"]).contains("unknown argument `--room`"));
}
