//! The server that tutorials on sockets end with: one thread, one loop, no greenlets, all
//! connections at once, on `stolon::poller` alone.
//!
//! ```text
//! cargo run --release --example epoll_server -- --port 8080
//! curl -i http://127.0.0.1:8080/
//! ```
//!
//! It reads a request, up to an empty line, prints it, sends one fixed answer and closes. Compare it
//! with what it takes in blocking style: `serve_blocking` below, which `--blocking` runs and in which
//! each client waits for the one before, and `web_server --tutorial`, which reads like that one and
//! serves all at once, too.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use stolon::green::signal::{SIGINT, SIGTERM, Signals};
use stolon::poller::{Event, Events, Interest, Poller, Token};

const HELP: &str = "\
A server that waits by epoll for all its clients at once.

Usage: epoll_server [--host HOST] [--port PORT] [--blocking]

  --host HOST  listen on this address (default 127.0.0.1)
  --port PORT  listen on this port; 0 lets the system choose (default 8080)
  --blocking   serve one client after the other instead
  --help       print this and exit

SIGINT and SIGTERM stop it.
";

const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nDate: Mon, 1 Jan 1996 01:01:01 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";

/// A request that has no end after so many bytes gets no answer.
const LONGEST_REQUEST: usize = 64 * 1024;
/// The pause before accepting again when there was no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The slots of what is no connection; a connection's is its place in the server's table.
const LISTENER: Token = Token::new(u32::MAX - 1, 0);
const SIGNALS: Token = Token::new(u32::MAX - 2, 0);

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("epoll_server: {message}; try --help");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("epoll_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    stolon::convenience::raise_descriptor_limit()?;
    let listener = TcpListener::bind((options.host.as_str(), options.port))?;
    if options.blocking {
        println!("listening on http://{}/", listener.local_addr()?);
        return serve_blocking(&listener);
    }
    let signals = Signals::new(&[SIGINT, SIGTERM])?;
    let mut server = Server::new(listener)?;
    server.poller.add(signals.as_fd(), SIGNALS)?;
    println!("listening on http://{}/", server.listener.local_addr()?);
    server.serve()?;
    println!("stopped by {} after {} requests", name_of(&signals)?, server.answered);
    Ok(())
}

/// One client after the other: who connects and says nothing keeps all others waiting.
fn serve_blocking(listener: &TcpListener) -> io::Result<()> {
    for connection in listener.incoming() {
        // What goes wrong with one client is no other's concern.
        let _ = connection.and_then(|mut stream| {
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            while end_of(&request).is_none() {
                match stream.read(&mut chunk)? {
                    0 => return Ok(()),
                    count => request.extend(&chunk[..count]),
                }
            }
            print_request(&request)?;
            stream.write_all(ANSWER)
        });
    }
    Ok(())
}

/// The signal that has come, read off its descriptor: its number comes first of 128 bytes.
fn name_of(signals: &Signals) -> io::Result<&'static str> {
    let mut info = [0; 128];
    std::fs::File::from(signals.as_fd().try_clone_to_owned()?).read_exact(&mut info)?;
    let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
    Ok(if number == SIGINT { "SIGINT" } else { "SIGTERM" })
}

/// Where a request ends: behind its first empty line.
fn end_of(request: &[u8]) -> Option<usize> {
    let ends =
        |at: &usize| request[..*at].ends_with(b"\n\n") || request[..*at].ends_with(b"\n\r\n");
    (2..=request.len()).find(ends)
}

fn print_request(request: &[u8]) -> io::Result<()> {
    let end = end_of(request).unwrap_or(request.len());
    let text = [&[b'-'; 40], &b"\n"[..], &request[..end - 2], b"\n"].concat();
    io::stdout().write_all(&text)
}

/// The loop's side of a connection: what it would have on its stack if it had one of its own.
struct Connection {
    stream: TcpStream,
    stage: Stage,
}

enum Stage {
    /// Has read this much of the request.
    Request(Vec<u8>),
    /// Has sent so many bytes of the answer.
    Answer(usize),
    /// Has sent all, and waits for the hang-up.
    HangUp,
}

impl Connection {
    /// Goes on for as long as it need not wait. Says whether the connection is needed any longer.
    ///
    /// Its descriptor reports changes and no states. So reading and writing go on until there is
    /// nothing more to read or no more room.
    fn advance(&mut self, event: Event, answered: &mut u64) -> io::Result<bool> {
        // Its last breath: the client is gone, or the connection was shut down both ways.
        if event.is_hangup() || event.is_error() {
            return Ok(false);
        }
        loop {
            match &mut self.stage {
                Stage::Request(request) => {
                    let mut chunk = [0; 4096];
                    match self.stream.read(&mut chunk)? {
                        0 => return Ok(false),
                        count => request.extend(&chunk[..count]),
                    }
                    if end_of(request).is_some() {
                        print_request(&mem::take(request))?;
                        self.stage = Stage::Answer(0);
                    } else if request.len() > LONGEST_REQUEST {
                        return Ok(false);
                    }
                }
                Stage::Answer(sent) => {
                    *sent += self.stream.write(&ANSWER[*sent..])?;
                    if *sent == ANSWER.len() {
                        *answered += 1;
                        self.stream.shutdown(Shutdown::Both)?;
                        self.stage = Stage::HangUp;
                    }
                }
                Stage::HangUp => return Ok(true),
            }
        }
    }
}

struct Server {
    poller: Poller,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    /// How often each place has been used: events of a connection before are told by that.
    generations: Vec<u32>,
    vacant: Vec<u32>,
    answered: u64,
    /// Whether there was no descriptor left for a client, who still waits.
    is_short: bool,
}

impl Server {
    fn new(listener: TcpListener) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        let poller = Poller::new()?;
        poller.add_with(listener.as_fd(), LISTENER, Interest::READABLE)?;
        let (connections, generations, vacant) = Default::default();
        let (answered, is_short) = (0, false);
        Ok(Server { poller, listener, connections, generations, vacant, answered, is_short })
    }

    /// Serves until a signal arrives.
    fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::new();
        loop {
            self.poller.wait(&mut events, self.is_short.then_some(ACCEPT_PAUSE))?;
            for event in &events {
                match event.token() {
                    SIGNALS => return Ok(()),
                    LISTENER => self.accept()?,
                    _ => self.attend(event),
                }
            }
            if self.is_short {
                self.accept()?;
            }
        }
    }

    /// Takes in all clients that have come.
    fn accept(&mut self) -> io::Result<()> {
        self.is_short = false;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream)?,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        // Out of descriptors or memory: later there may be some.
                        self.is_short = true;
                        return Ok(());
                    }
                },
            }
        }
    }

    fn admit(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.generations.push(0);
            self.connections.len() as u32 - 1
        });
        // If it has sent something already, the next wait says so.
        self.poller.add(stream.as_fd(), Token::new(slot, self.generations[slot as usize]))?;
        let stage = Stage::Request(Vec::new());
        self.connections[slot as usize] = Some(Connection { stream, stage });
        Ok(())
    }

    /// Goes on with one connection.
    fn attend(&mut self, event: Event) {
        let slot = event.token().slot() as usize;
        let is_its = self.generations.get(slot) == Some(&event.token().generation());
        let Some(connection) = self.connections.get_mut(slot).filter(|_| is_its) else { return };
        let Some(connection) = connection else { return };
        let is_needed = loop {
            match connection.advance(event, &mut self.answered) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
                Ok(is_needed) => break is_needed,
            }
        };
        if !is_needed {
            let _ = self.poller.delete(connection.stream.as_fd());
            self.connections[slot] = None;
            self.generations[slot] = self.generations[slot].wrapping_add(1);
            self.vacant.push(slot as u32);
        }
    }
}

/// What the command line asks for.
struct Options {
    host: String,
    port: u16,
    blocking: bool,
}

impl Options {
    /// Reads the arguments; `None` asks for help.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options { host: "127.0.0.1".into(), port: 8080, blocking: false };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--host" => options.host = value()?,
                "--port" => {
                    let text = value()?;
                    let port = text.parse();
                    options.port = port.map_err(|_| format!("{arg} cannot be `{text}`"))?;
                }
                "--blocking" => options.blocking = true,
                "--help" => return Ok(None),
                _ => return Err(format!("unknown argument `{arg}`")),
            }
        }
        Ok(Some(options))
    }
}
