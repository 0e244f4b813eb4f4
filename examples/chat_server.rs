//! A chat server: rooms, nicknames, and nobody waits for a reader who is slow.
//!
//! ```text
//! cargo run --release --example chat_server -- --port 7777
//! nc 127.0.0.1 7777
//! ```
//!
//! Two green threads for each client. One reads lines, and puts what they say into the queue of each
//! member of the room. The other takes lines from its client's own queue, and writes. The queues are
//! short: who does not read has a full one, and is shown out.
//!
//! Read it from top to bottom: the server, a client's life, the rooms, its queue, its lines.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use stolon::green::net::{TcpListener, TcpStream};
use stolon::green::signal::{SIGINT, SIGTERM, Signals};
use stolon::queue::LightQueue;
use stolon::timeout::with_timeout;
use stolon::{GreenPool, sleep, spawn};

const HELP: &str = "\
A chat server for line-based clients, as nc.

Usage: chat_server [--port PORT]

  --port PORT  listen on this port of 127.0.0.1; 0 lets the system choose (default 7777)
  --help       print this and exit

SIGINT and SIGTERM stop it; clients are told.
";

/// What a client may do.
const COMMANDS: &str = "* /nick NAME, /join ROOM, /who, /rooms, /quit; all else is for the room";

/// The longest line that a client may send, the longest name of anything, and how many are listed.
const LINE_BYTES: usize = 512;
const NAME_BYTES: usize = 20;
const LISTED: usize = 30;
/// How many clients there may be, and how many lines may wait for each.
const CLIENTS: usize = 10_000;
const QUEUE_LINES: usize = 64;
/// How long a client may say nothing, and how long it may take none of what it is sent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long its last lines may take, and the pause after an `accept` that failed.
const GRACE: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    match port_of(std::env::args().skip(1)) {
        Ok(None) => print!("{HELP}"),
        Ok(Some(port)) => {
            if let Err(error) = run(port) {
                eprintln!("chat_server: {error}");
                return ExitCode::FAILURE;
            }
        }
        Err(message) => {
            eprintln!("chat_server: {message}; try --help");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Serves until a signal arrives.
fn run(port: u16) -> io::Result<()> {
    stolon::convenience::raise_descriptor_limit()?;
    let signals = Signals::new(&[SIGINT, SIGTERM])?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("listening on {}", listener.local_addr()?);

    let chat = Rc::new(Chat::default());
    let clients = GreenPool::new(CLIENTS);
    let (its_chat, its_clients) = (Rc::clone(&chat), clients.clone());
    let acceptor = spawn(move || accept(&listener, &its_chat, &its_clients));
    signals.wait()?;
    acceptor.kill(); // its listener goes with it
    chat.stop();
    let _ = clients.waitall(); // each has its own time limit
    println!("stopped after {} clients, of which {} were slow", chat.joined.get(), chat.slow.get());
    Ok(())
}

fn accept(listener: &TcpListener, chat: &Rc<Chat>, clients: &GreenPool) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors: those who wait to be accepted wait some more.
            sleep(ACCEPT_PAUSE);
            continue;
        };
        let chat = Rc::clone(chat);
        clients.spawn_n(move || serve(stream, &chat));
    }
}

/// Serves a client to its end.
fn serve(stream: TcpStream, chat: &Chat) {
    let client = chat.join(stream);
    let _ = client.stream.set_read_timeout(Some(IDLE_TIMEOUT));
    let _ = client.stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let writes = Rc::clone(&client);
    let writer = spawn(move || writes.write_lines());
    chat.enter(&client, "lobby");
    if let Err(error) = read_lines(chat, &client) {
        client.tell(format!("* {error}"));
    }
    chat.leave(&client);
    chat.nicks.borrow_mut().remove(&*client.nick.borrow());
    chat.slow.set(chat.slow.get() + u64::from(client.is_slow.get()));
    // The last lines are written, if the client takes them in time.
    let _ = client.outbox.put_timeout(None, GRACE);
    let _ = with_timeout(GRACE, || writer.wait());
    writer.kill();
}

/// What all clients share. They run on one OS thread, so it needs no lock; and nothing that is done to it
/// waits, so whoever looks at it finds it in order.
#[derive(Default)]
struct Chat {
    /// The members of each room that somebody is in.
    rooms: RefCell<BTreeMap<String, Vec<Rc<Client>>>>,
    nicks: RefCell<BTreeSet<String>>,
    stopping: Cell<bool>,
    joined: Cell<u64>,
    slow: Cell<u64>,
}

impl Chat {
    /// A new client, which is nowhere yet, with a nickname that nobody has.
    fn join(&self, stream: TcpStream) -> Rc<Client> {
        self.joined.set(self.joined.get() + 1);
        let mut nick = format!("guest{}", self.joined.get());
        while !self.nicks.borrow_mut().insert(nick.clone()) {
            nick.push('_');
        }
        Rc::new(Client {
            stream,
            outbox: LightQueue::new(QUEUE_LINES),
            nick: RefCell::new(nick),
            room: RefCell::default(),
            is_slow: Cell::new(false),
        })
    }

    /// Takes a client to another room.
    fn enter(&self, client: &Rc<Client>, room: &str) {
        self.leave(client);
        *client.room.borrow_mut() = room.to_owned();
        self.rooms.borrow_mut().entry(room.to_owned()).or_default().push(Rc::clone(client));
        client.tell(format!("* you are {} in {room}; /help helps", client.nick.borrow()));
        self.tell_others(client, format!("* {} comes in", client.nick.borrow()));
    }

    fn leave(&self, client: &Rc<Client>) {
        self.tell_others(client, format!("* {} leaves", client.nick.borrow()));
        let (mut rooms, room) = (self.rooms.borrow_mut(), client.room.borrow());
        let Some(members) = rooms.get_mut(&*room) else { return };
        members.retain(|member| !Rc::ptr_eq(member, client));
        if members.is_empty() {
            rooms.remove(&*room);
        }
    }

    fn tell_others(&self, client: &Rc<Client>, line: String) {
        let line: Rc<str> = line.into(); // one for all queues
        let rooms = self.rooms.borrow();
        let members = rooms.get(&*client.room.borrow()).into_iter().flatten();
        for member in members.filter(|member| !Rc::ptr_eq(member, client)) {
            member.tell(Rc::clone(&line));
        }
    }

    /// Has all readers come to their end.
    fn stop(&self) {
        self.stopping.set(true);
        for client in self.rooms.borrow().values().flatten() {
            client.tell("* the server stops");
            let _ = client.stream.shutdown(Shutdown::Read);
        }
    }
}

struct Client {
    stream: TcpStream,
    /// What is still to be written. None ends the writer.
    outbox: LightQueue<Option<Rc<str>>>,
    nick: RefCell<String>,
    room: RefCell<String>,
    /// Whether its queue was full.
    is_slow: Cell<bool>,
}

impl Client {
    /// Queues a line. A client that has too many of them is as good as gone: to end its connection wakes
    /// its reader and its writer, which see to the rest.
    fn tell(&self, line: impl Into<Rc<str>>) {
        if self.outbox.put_nowait(Some(line.into())).is_err() {
            self.is_slow.set(true);
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }

    fn write_lines(&self) {
        while let Some(line) = self.outbox.get() {
            if (&self.stream).write_all(format!("{line}\n").as_bytes()).is_err() {
                // It has vanished, or takes nothing. The reader is to know.
                let _ = self.stream.shutdown(Shutdown::Both);
                break;
            }
        }
    }
}

/// Obeys a client until it has had enough, or the server.
fn read_lines(chat: &Chat, client: &Rc<Client>) -> io::Result<()> {
    let (mut unread, mut chunk) = (Vec::new(), [0; LINE_BYTES]);
    while !chat.stopping.get() && !client.is_slow.get() {
        match unread.iter().position(|&byte| byte == b'\n') {
            Some(end) if end <= LINE_BYTES => {
                let line: Vec<u8> = unread.drain(..=end).collect();
                // What could change the look of others' terminals is left out.
                let mut line = String::from_utf8_lossy(&line).into_owned();
                line.retain(|c| !c.is_control());
                if !obey(chat, client, line.trim()) {
                    break;
                }
                // A client may send a hundred lines at once. Each writer has its turn after each of them,
                // or queues would be full although nobody is slow.
                sleep(Duration::ZERO);
            }
            None if unread.len() <= LINE_BYTES => match (&client.stream).read(&mut chunk)? {
                0 => break,
                count => unread.extend_from_slice(&chunk[..count]),
            },
            _ => return Err(io::Error::other("that line is too long")),
        }
    }
    Ok(())
}

/// Does what a line says. False if the client wants to leave.
fn obey(chat: &Chat, client: &Rc<Client>, line: &str) -> bool {
    let (command, name) = line.split_once(' ').unwrap_or((line, ""));
    let is_name = (1..=NAME_BYTES).contains(&name.len()) && name.chars().all(char::is_alphanumeric);
    match command {
        "" => {}
        "/help" => client.tell(COMMANDS),
        "/quit" => return false,
        "/rooms" => client.tell(list(chat.rooms.borrow().keys())),
        "/who" => {
            let members = &chat.rooms.borrow()[&*client.room.borrow()];
            client.tell(list(members.iter().map(|member| member.nick.borrow().clone())));
        }
        "/join" | "/nick" if !is_name => client.tell("* that is no name"),
        "/join" => chat.enter(client, name),
        "/nick" if !chat.nicks.borrow_mut().insert(name.to_owned()) => {
            client.tell(format!("* {name} is taken"));
        }
        "/nick" => {
            let before = client.nick.replace(name.to_owned());
            chat.nicks.borrow_mut().remove(&before);
            client.tell(format!("* you are {name}"));
            chat.tell_others(client, format!("* {before} is now {name}"));
        }
        _ if command.starts_with('/') => client.tell("* that is no command; /help helps"),
        _ => chat.tell_others(client, format!("{}: {line}", client.nick.borrow())),
    }
    true
}

/// The first of some names, in a line.
fn list<S: AsRef<str>>(names: impl ExactSizeIterator<Item = S>) -> String {
    let head = format!("* {}:", names.len());
    names.take(LISTED).fold(head, |line, name| line + " " + name.as_ref())
}

/// Reads the arguments: the port. `None` asks for help.
fn port_of(mut args: impl Iterator<Item = String>) -> Result<Option<u16>, String> {
    let mut port = 7777;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--port" => {
                let text = args.next().ok_or("--port needs a value")?;
                port = text.parse().map_err(|_| format!("--port cannot be `{text}`"))?;
            }
            "--help" => return Ok(None),
            _ => return Err(format!("unknown argument `{arg}`")),
        }
    }
    Ok(Some(port))
}
