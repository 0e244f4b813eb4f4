//! A web server in plain blocking style, with one green thread per connection: ten thousand idle
//! clients cost memory, and no client waits for another.
//!
//! ```text
//! cargo run --release --example web_server -- --port 8080
//! curl -i http://127.0.0.1:8080/
//! ```
//!
//! It speaks HTTP/1.1 (RFC 9112) for GET and HEAD. With `--tutorial` it is instead the server that
//! tutorials on sockets begin with: read a request, print it, send one fixed answer, close.
//!
//! Read it from top to bottom: `main`, the server, a connection. All of it runs on one OS thread,
//! so what connections share lies in a `Cell` or a `RefCell`, without a lock. What HTTP asks for,
//! bytes in and bytes out, is next door in `web_server/http.rs`.

#[path = "web_server/http.rs"]
mod http;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::rc::Rc;
use std::str::FromStr;
use std::time::{Duration, Instant};

use stolon::green::net::{TcpListener, TcpStream};
use stolon::green::signal::{SIGINT, SIGTERM, Signals};

use http::{Reply, Request, Status};

const HELP: &str = "\
A small web server: one green thread per connection.

Usage: web_server [--host HOST] [--port PORT] [--idle-timeout SECONDS] [--tutorial]

  --host HOST             listen on this address (default 127.0.0.1)
  --port PORT             listen on this port; 0 lets the system choose (default 8080)
  --idle-timeout SECONDS  how long a client may take: to begin a request, to complete it,
                          and to accept an answer (default 60)
  --tutorial              print each request, send one fixed answer, and close
  --help                  print this and exit

SIGINT and SIGTERM stop it; requests in progress are finished first.
";

/// How much is read at once. It lies on the stack, so that an idle connection holds no buffer.
const CHUNK_BYTES: usize = 512;
/// How long a connection that is being closed may take to say that it got the last answer.
const LINGER: Duration = Duration::from_secs(1);
/// How long requests in progress may take once the server has been told to stop.
const GRACE: Duration = Duration::from_secs(3);
/// The pause after an `accept` that failed, and how often such a failure is reported.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const ACCEPT_REPORT_EVERY: Duration = Duration::from_secs(60);

const TUTORIAL_ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nDate: Mon, 1 Jan 1996 01:01:01 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";

const WELCOME: &str = "<!DOCTYPE html>\n<title>stolon</title>\n<h1>Hello, world!</h1>\n\
    <p>Served by a green thread. See also the <a href=\"/status\">status</a>.</p>\n";

fn main() -> ExitCode {
    match Options::parse(std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into())) {
        Ok(None) => print!("{HELP}"),
        Ok(Some(options)) => {
            if let Err(error) = run(options) {
                eprintln!("web_server: {error}");
                return ExitCode::FAILURE;
            }
        }
        Err(message) => {
            eprintln!("web_server: {message}; try --help");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Serves until a signal arrives.
fn run(options: Options) -> io::Result<()> {
    stolon::convenience::raise_descriptor_limit()?;
    let signals = Signals::new(&[SIGINT, SIGTERM])?;
    let listener = TcpListener::bind((options.host.as_str(), options.port))?;
    println!("listening on http://{}/", listener.local_addr()?);

    let server = Rc::new(Server::new(options));
    let acceptor = stolon::spawn({
        let server = Rc::clone(&server);
        move || server.accept(&listener)
    });
    let name = if signals.wait()? == SIGINT { "SIGINT" } else { "SIGTERM" };
    acceptor.kill(); // its listener goes with it
    server.stop();
    println!("stopped by {name} after {} requests", server.answered.get());
    Ok(())
}

/// What the command line asks for.
struct Options {
    host: String,
    port: u16,
    idle_timeout: Duration,
    tutorial: bool,
}

impl Options {
    /// Reads the arguments; `None` asks for help.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options {
            host: "127.0.0.1".into(),
            port: 8080,
            idle_timeout: Duration::from_secs(60),
            tutorial: false,
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--host" => options.host = value(&arg, args.next())?,
                "--port" => options.port = value(&arg, args.next())?,
                "--idle-timeout" => {
                    let seconds: NonZeroU32 = value(&arg, args.next())?;
                    options.idle_timeout = Duration::from_secs(seconds.get().into());
                }
                "--tutorial" => options.tutorial = true,
                "--help" => return Ok(None),
                _ => return Err(format!("unknown argument `{arg}`")),
            }
        }
        Ok(Some(options))
    }
}

/// The value that follows the argument `name`.
fn value<T: FromStr>(name: &str, text: Option<String>) -> Result<T, String> {
    let text = text.ok_or_else(|| format!("{name} needs a value"))?;
    text.parse().map_err(|_| format!("{name} cannot be `{text}`"))
}

/// What all connections share.
struct Server {
    options: Options,
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    accepted: Cell<u64>,
    answered: Cell<u64>,
    stopping: Cell<bool>,
}

/// What the server knows of one connection.
struct Client {
    stream: TcpStream,
    /// Whether it is between two requests, or before the first.
    idle: Cell<bool>,
}

impl Server {
    fn new(options: Options) -> Server {
        Server {
            options,
            clients: RefCell::default(),
            accepted: Cell::new(0),
            answered: Cell::new(0),
            stopping: Cell::new(false),
        }
    }

    /// Accepts connections forever, each into a green thread of its own.
    fn accept(self: &Rc<Self>, listener: &TcpListener) {
        let mut reported: Option<Instant> = None;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    let mut connection = Connection::new(Rc::clone(self), stream);
                    // Clients vanish, now and then in mid-request: an error ends the connection
                    // it is on, and is nobody else's business.
                    stolon::spawn(move || drop(connection.serve()));
                }
                // That client left before its turn came.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                // Out of descriptors or memory: those who wait to be accepted wait some more.
                Err(error) => {
                    if reported.is_none_or(|at| at.elapsed() > ACCEPT_REPORT_EVERY) {
                        eprintln!("web_server: cannot accept connections for now: {error}");
                        reported = Some(Instant::now());
                    }
                    stolon::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Ends idle connections at once, and the others with the request they are at.
    fn stop(&self) {
        self.stopping.set(true);
        for client in self.clients.borrow().values().filter(|client| client.idle.get()) {
            let _ = client.stream.shutdown(Shutdown::Read); // its green thread reads the end
        }
        let deadline = Instant::now() + GRACE;
        while !self.clients.borrow().is_empty() && Instant::now() < deadline {
            stolon::sleep(Duration::from_millis(10));
        }
    }

    /// Finds the page for a request.
    fn reply(&self, request: &Request<'_>) -> Reply {
        let mut reply = match (request.method, request.path()) {
            ("GET" | "HEAD", "/") => Reply::new(http::HTML, WELCOME),
            ("GET" | "HEAD", "/status") => Reply::new(http::PLAIN, self.status()),
            ("GET" | "HEAD", _) => Reply::error(http::NOT_FOUND),
            _ => Reply::error(http::METHOD_NOT_ALLOWED),
        };
        reply.head_only = request.method == "HEAD";
        reply.keep_alive = request.keep_alive;
        reply
    }

    fn status(&self) -> String {
        let clients = self.clients.borrow();
        let idle = clients.values().filter(|client| client.idle.get()).count();
        let (open, answered) = (clients.len(), self.answered.get());
        format!("connections: {open}\nidle: {idle}\nrequests answered: {answered}\n")
    }
}

/// One connection, seen from its own green thread.
struct Connection {
    server: Rc<Server>,
    client: Rc<Client>,
    id: u64,
    /// What was read and not yet used: the beginning of a request, or several requests.
    unread: Vec<u8>,
}

impl Connection {
    fn new(server: Rc<Server>, stream: TcpStream) -> Connection {
        let client = Rc::new(Client { stream, idle: Cell::new(true) });
        let id = server.accepted.replace(server.accepted.get() + 1);
        server.clients.borrow_mut().insert(id, Rc::clone(&client));
        Connection { server, client, id, unread: Vec::new() }
    }

    /// Serves the connection to its end.
    fn serve(&mut self) -> io::Result<()> {
        self.client.stream.set_nodelay(true)?;
        self.client.stream.set_write_timeout(Some(self.server.options.idle_timeout))?;
        if self.server.options.tutorial { self.tutorial() } else { self.http() }
    }

    /// Reads a request, prints it, answers, closes.
    fn tutorial(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + self.server.options.idle_timeout;
        let end = loop {
            match http::end_of_head(&self.unread) {
                Ok(Some(end)) => break end,
                Ok(None) => self.fill(deadline)?,
                Err(_) => return Ok(()),
            }
        };
        let request = &self.unread[..end - 2];
        let _ = io::stdout().write_all(&[&[b'-'; 40], &b"\n"[..], request, b"\n"].concat());
        self.send(TUTORIAL_ANSWER)?;
        self.close()
    }

    /// Answers requests in the order they come, until one side has had enough.
    fn http(&mut self) -> io::Result<()> {
        loop {
            let deadline = self.await_request()?;
            let reply = match self.request(deadline) {
                Ok(reply) => reply,
                Err(Failure::Refused(status)) => Reply::error(status),
                Err(Failure::Gone) => return Ok(()),
            };
            let keep_alive = reply.keep_alive && !self.server.stopping.get();
            self.send(&reply.to_bytes(keep_alive))?;
            if !keep_alive || self.server.stopping.get() {
                return self.close();
            }
        }
    }

    /// Waits for the first byte of a request, and returns the deadline for the last one.
    fn await_request(&mut self) -> io::Result<Instant> {
        let patience = self.server.options.idle_timeout;
        let deadline = Instant::now() + patience;
        loop {
            // Empty lines before a request are no part of it.
            let blank = self.unread.iter().take_while(|&&b| b == b'\r' || b == b'\n').count();
            self.unread.drain(..blank);
            if !self.unread.is_empty() {
                return Ok(Instant::now() + patience);
            }
            self.unread = Vec::new();
            self.client.idle.set(true);
            self.fill(deadline)?;
        }
    }

    /// Reads a whole request, and finds the reply to it.
    fn request(&mut self, deadline: Instant) -> Result<Reply, Failure> {
        let end = loop {
            match http::end_of_head(&self.unread)? {
                Some(end) => break end,
                None => self.fill(deadline)?,
            }
        };
        let head = String::from_utf8_lossy(&self.unread[..end]);
        let request = Request::parse(&head)?;
        let body_bytes = request.body_bytes;
        let reply = self.server.reply(&request);
        self.unread.drain(..end);
        self.skip(body_bytes, deadline)?;
        Ok(reply)
    }

    /// Drops the next `count` bytes of what the client sends.
    fn skip(&mut self, mut count: usize, deadline: Instant) -> io::Result<()> {
        while count > self.unread.len() {
            count -= self.unread.len();
            self.unread.clear();
            self.fill(deadline)?;
        }
        self.unread.drain(..count);
        Ok(())
    }

    /// Reads some more; the end of the stream is an error here, and so is the deadline.
    fn fill(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.client.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; CHUNK_BYTES];
        match (&self.client.stream).read(&mut chunk)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.client.idle.set(false);
                self.unread.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }

    fn send(&mut self, answer: &[u8]) -> io::Result<()> {
        self.server.answered.set(self.server.answered.get() + 1);
        (&self.client.stream).write_all(answer)
    }

    /// Ends the connection after its last answer. To close while the client still sends would reset
    /// the connection, and might lose the answer; so what comes is read and dropped, for a while.
    fn close(&mut self) -> io::Result<()> {
        self.client.stream.shutdown(Shutdown::Write)?;
        let deadline = Instant::now() + LINGER;
        while self.fill(deadline).is_ok() {
            self.unread.clear();
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.clients.borrow_mut().remove(&self.id);
    }
}

/// Why a request gets no page.
enum Failure {
    Refused(Status),
    Gone,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Refused(status)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            ErrorKind::TimedOut => Failure::Refused(http::REQUEST_TIMEOUT),
            _ => Failure::Gone,
        }
    }
}
