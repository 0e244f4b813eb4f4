//! A port forwarder: what comes in at one address goes out to another, and what comes back goes back.
//!
//! ```text
//! cargo run --release --example port_forwarder -- --listen 127.0.0.1:7000 --to 127.0.0.1:8080
//! ```
//!
//! Two green threads for each connection, one per direction, each of which reads and writes as if
//! there were nothing else in the world. A side that says that it has sent all (a half-closed
//! connection) may still receive; the forwarder passes that on as it passes bytes.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use stolon::green::net::{TcpListener, TcpStream};
use stolon::green::signal::{SIGINT, SIGTERM, Signals};

const HELP: &str = "\
Forwards connections from one address to another.

Usage: port_forwarder --to HOST:PORT [--listen HOST:PORT]

  --to HOST:PORT      connect there for each connection that comes in
  --listen HOST:PORT  listen there; port 0 lets the system choose (default 127.0.0.1:7000)
  --help              print this and exit

SIGINT and SIGTERM stop it, and cut the connections that are open.
";

/// How much is read at once, in each direction of each connection.
const CHUNK_BYTES: usize = 8 * 1024;
/// How long it may take to reach the other address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after an `accept` that failed, as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)) {
        Ok(None) => print!("{HELP}"),
        Ok(Some(options)) => {
            if let Err(error) = run(&options) {
                eprintln!("port_forwarder: {error}");
                return ExitCode::FAILURE;
            }
        }
        Err(message) => {
            eprintln!("port_forwarder: {message}; try --help");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Forwards until a signal arrives.
fn run(options: &Options) -> io::Result<()> {
    stolon::convenience::raise_descriptor_limit()?;
    let signals = Signals::new(&[SIGINT, SIGTERM])?;
    let no_address = || io::Error::other(format!("{} has no address", options.to));
    let target = options.to.to_socket_addrs()?.next().ok_or_else(no_address)?;
    let listener = TcpListener::bind(&options.listen)?;
    println!("listening on {}, forwarding to {target}", listener.local_addr()?);

    let totals = Rc::new(Totals::default());
    let acceptor = stolon::spawn({
        let totals = Rc::clone(&totals);
        move || accept(&listener, target, &totals)
    });
    signals.wait()?;
    acceptor.kill(); // its listener goes with it
    let Totals { connections, up_bytes, down_bytes } = &*totals;
    println!(
        "stopped after {} connections, {} bytes up, {} bytes down",
        connections.get(),
        up_bytes.get(),
        down_bytes.get()
    );
    Ok(())
}

/// What has been forwarded so far.
#[derive(Default)]
struct Totals {
    connections: Cell<u64>,
    up_bytes: Cell<u64>,
    down_bytes: Cell<u64>,
}

fn accept(listener: &TcpListener, target: SocketAddr, totals: &Rc<Totals>) {
    for client in listener.incoming() {
        match client {
            Ok(client) => {
                totals.connections.set(totals.connections.get() + 1);
                let totals = Rc::clone(totals);
                stolon::spawn_n(move || {
                    if let Err(error) = forward(client, target, &totals) {
                        eprintln!("port_forwarder: cannot reach {target}: {error}");
                    }
                });
            }
            Err(error) => {
                eprintln!("port_forwarder: accept: {error}");
                stolon::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Forwards one connection until both directions have ended.
fn forward(client: TcpStream, target: SocketAddr, totals: &Rc<Totals>) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
    // What is small and was sent at once shall go on at once.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client, server) = (Rc::new(client), Rc::new(server));
    let up = stolon::spawn({
        let (client, server, totals) = (Rc::clone(&client), Rc::clone(&server), Rc::clone(totals));
        move || pump(&client, &server, &totals.up_bytes)
    });
    pump(&server, &client, &totals.down_bytes);
    up.wait();
    Ok(())
}

/// Takes all that `from` sends to `to`, and its end, too.
fn pump(from: &TcpStream, to: &TcpStream, total: &Cell<u64>) {
    match copy(from, to, total) {
        // The other end may have gone meanwhile: then there is nobody to tell.
        Ok(()) => drop(to.shutdown(Shutdown::Write)),
        // One side is gone in the middle: it neither sends nor receives any more.
        Err(_) => {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        }
    }
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, total: &Cell<u64>) -> io::Result<()> {
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(()),
            count => {
                to.write_all(&chunk[..count])?;
                total.set(total.get() + count as u64);
            }
        }
    }
}

/// What the command line asks for.
struct Options {
    listen: String,
    to: String,
}

impl Options {
    /// Reads the arguments; `None` asks for help.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let (mut listen, mut to) = ("127.0.0.1:7000".to_owned(), None);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--listen" => listen = value()?,
                "--to" => to = Some(value()?),
                "--help" => return Ok(None),
                _ => return Err(format!("unknown argument `{arg}`")),
            }
        }
        let to = to.ok_or("--to is missing")?;
        Ok(Some(Options { listen, to }))
    }
}
