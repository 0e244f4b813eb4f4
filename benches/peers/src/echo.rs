//! Echo over loopback TCP: servers in processes of their own, and the load for them in this one.
//!
//! All servers are there at the same time, each with its connections; they take turns, and rest while
//! another's turn it is. In a turn each connection has one message under way, and sends the next when
//! the answer has come. What a request costs the server is read off its process's clock, by the load.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::measure::{self, Measured};
use crate::peers::raw::{Epoll, receive, send};
use crate::peers::{may, monoio, raw, stolon, tokio};
use crate::wake::MESSAGE;

/// For so long each server is under load in a round.
const TURN: Duration = Duration::from_millis(400);

/// What a server is called, and how it serves.
type Server = (&'static str, fn(TcpListener) -> io::Result<()>);

/// The first is stolon's, the second the floor.
const SERVERS: [Server; 5] = [
    ("stolon", stolon::serve),
    ("raw epoll", raw::serve),
    ("tokio", tokio::serve),
    ("may", may::serve),
    ("monoio (epoll)", monoio::serve),
];

/// What one turn showed of a server.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// The server's processor time for one request, in us.
    cpu_us: f64,
    /// Between sending and the answer, in us: 99 of 100 were faster.
    p99_us: f64,
}

/// All turns of one server.
pub struct Standing {
    pub name: &'static str,
    pub cpu_us: Measured,
    pub p99_us: Measured,
}

/// What `--serve NAME CORE` does: prints the port, and serves until it is killed.
pub fn child(name: &str, core: &str) -> ExitCode {
    let Some((_, serve)) = SERVERS.iter().find(|(server, _)| *server == name) else {
        eprintln!("no server is called {name}");
        return ExitCode::FAILURE;
    };
    if let Ok(core) = core.parse() {
        measure::pin_to(core);
    }
    let served = TcpListener::bind("127.0.0.1:0").and_then(|listener| {
        println!("{}", listener.local_addr()?.port());
        io::stdout().flush()?;
        serve(listener)
    });
    eprintln!("{name}: {served:?}");
    ExitCode::FAILURE
}

/// Measures all servers, with so many connections each; and says of whom it could not, and why.
pub fn standings(
    connections: usize,
    rounds: usize,
) -> (Vec<Standing>, Vec<(&'static str, String)>) {
    let mut failed = Vec::new();
    let mut running = Vec::new();
    for (name, _) in SERVERS {
        match Running::start(name, connections) {
            Ok(server) => running.push((name, server, Vec::new())),
            Err(e) => failed.push((name, e.to_string())),
        }
    }
    for _ in 0..rounds {
        running.retain_mut(|(name, server, turns)| match server.turn() {
            Ok(turn) => {
                turns.push(turn);
                true
            }
            Err(e) => {
                failed.push((*name, e.to_string()));
                false
            }
        });
    }
    let standing = |(name, _, turns): (_, Running, Vec<Turn>)| Standing {
        name,
        cpu_us: Measured::of(turns.iter().map(|turn| turn.cpu_us).collect()),
        p99_us: Measured::of(turns.iter().map(|turn| turn.p99_us).collect()),
    };
    (running.into_iter().map(standing).collect(), failed)
}

/// A server's process and the connections to it.
struct Running {
    process: Child,
    epoll: Epoll,
    clients: Vec<Client>,
}

struct Client {
    stream: TcpStream,
    /// How much of the answer has come.
    arrived: usize,
    sent_at: Instant,
}

impl Running {
    fn start(name: &str, connections: usize) -> io::Result<Self> {
        let core = measure::first_core().to_string();
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--serve", name, &core])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let mut running = Self { process, epoll: Epoll::new()?, clients: Vec::new() };
        let port = line.trim().parse().map_err(|_| io::Error::other("it does not listen"))?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        for index in 0..connections {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            running.epoll.add(stream.as_raw_fd(), index as u64)?;
            running.clients.push(Client { stream, arrived: 0, sent_at: Instant::now() });
        }
        // So that all are accepted and have been served.
        running.drive(Duration::from_millis(50))?;
        Ok(running)
    }

    fn turn(&mut self) -> io::Result<Turn> {
        let before = self.processor_time()?;
        let mut latencies = self.drive(TURN)?;
        let used = self.processor_time()? - before;
        let cpu_us = used.as_secs_f64() * 1e6 / latencies.len() as f64;
        let place = latencies.len() * 99 / 100;
        let (_, p99, _) = latencies.select_nth_unstable(place);
        Ok(Turn { cpu_us, p99_us: f64::from(*p99) / 1e3 })
    }

    /// What the server's process has used of its processor.
    fn processor_time(&self) -> io::Result<Duration> {
        let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: the pointers are valid for writing what the calls give.
        let read = unsafe {
            libc::clock_getcpuclockid(self.process.id() as libc::pid_t, &mut clock) == 0
                && libc::clock_gettime(clock, &mut time) == 0
        };
        if !read {
            return Err(io::Error::other("it is gone"));
        }
        Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    /// Keeps a message under way on each connection for so long, and waits for the last answers.
    /// Returns what each took, in ns.
    fn drive(&mut self, during: Duration) -> io::Result<Vec<u32>> {
        let (mut latencies, mut buffer) = (Vec::with_capacity(1 << 18), [0; 1024]);
        let start = Instant::now();
        for client in &mut self.clients {
            client.send()?;
        }
        let mut under_way = self.clients.len();
        while under_way > 0 {
            let mut anything = false;
            for (index, flags) in self.epoll.wait(5_000)? {
                anything = true;
                let client = &mut self.clients[index as usize];
                if flags & libc::EPOLLIN as u32 == 0 || !client.has_answer(&mut buffer)? {
                    continue;
                }
                let now = Instant::now();
                latencies.push((now - client.sent_at).as_nanos() as u32);
                if now - start < during {
                    client.send()?;
                } else {
                    under_way -= 1;
                }
            }
            if !anything {
                return Err(io::Error::other("no answer for five seconds"));
            }
        }
        Ok(latencies)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Client {
    fn send(&mut self) -> io::Result<()> {
        self.sent_at = Instant::now();
        match send(self.stream.as_raw_fd(), &MESSAGE)? {
            sent if sent == MESSAGE.len() => Ok(()),
            _ => Err(io::Error::other("no room for a message")),
        }
    }

    fn has_answer(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match receive(self.stream.as_raw_fd(), buffer) {
            Ok(0) => Err(io::Error::other("it hung up")),
            Ok(bytes) => {
                self.arrived += bytes;
                let whole = self.arrived == MESSAGE.len();
                if whole {
                    self.arrived = 0;
                }
                Ok(whole)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}
