//! An example as a child process, and a plain client that speaks HTTP to it.
#![allow(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

const RUNNER: &str = "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER";

/// The runner that starts programs of this architecture where the machine is of another one.
pub fn runner() -> Option<String> {
    env::var(RUNNER).ok().filter(|_| cfg!(target_arch = "aarch64"))
}

/// Whether time and memory are those of an emulator.
pub fn is_emulated() -> bool {
    runner().is_some()
}

/// The words that start the example `name`.
fn words(name: &str) -> Vec<OsString> {
    let test = env::current_exe().expect("the path of this test");
    let deps = test.parent().expect("a test lies in a directory");
    let path = deps.with_file_name("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build --example {name}", path.display());
    let runner = runner().unwrap_or_default();
    runner.split_whitespace().map(OsString::from).chain([path.into()]).collect()
}

/// The command that starts the example `name`.
pub fn example(name: &str) -> Command {
    let words = words(name);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The same under a limit of its own on descriptors.
pub fn example_with_descriptors(name: &str, limit: u32) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {limit} && exec \"$@\""), "sh"]).args(words(name));
    command
}

/// A running server; it is killed when the test is done with it.
pub struct Server {
    child: Child,
    address: SocketAddr,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Server {
    /// Starts a server that says where it listens in its first line.
    pub fn start(mut command: Command) -> Server {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let stdout = lines(child.stdout.take().expect("a pipe"));
        let stderr = lines(child.stderr.take().expect("a pipe"));
        let mut server = Server { child, address: ([127, 0, 0, 1], 0).into(), stdout, stderr };
        let first = server.line();
        let address = first.strip_prefix("listening on ").and_then(|rest| {
            let rest = rest.trim_start_matches("http://");
            rest.split(['/', ',']).next()?.parse().ok()
        });
        server.address = address.expect("the line names an address");
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next line that the server prints.
    pub fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("a line on the server's stdout")
    }

    /// The next line that the server complains in.
    pub fn error_line(&self) -> String {
        self.stderr.recv_timeout(PATIENCE).expect("a line on the server's stderr")
    }

    /// Whether the server has complained and nobody has read it.
    pub fn has_error_line(&self) -> bool {
        self.stderr.try_recv().is_ok()
    }

    pub fn signal(&self, number: i32) {
        let pid = self.child.id() as libc::pid_t;
        // SAFETY: a plain system call; the child was not waited for, so the number is still its.
        assert_eq!(unsafe { libc::kill(pid, number) }, 0);
    }

    /// Waits for the end of the server: its status, and the lines it printed last.
    pub fn wait(&mut self) -> (ExitStatus, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Vec::new();
        loop {
            match self.stdout.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => last.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the server does not stop: {last:?}"),
            }
        }
        (self.child.wait().expect("a status"), last)
    }

    fn proc(&self, what: &str) -> String {
        format!("/proc/{}/{what}", self.child.id())
    }

    /// How many descriptors the server has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).expect("the server's descriptors").count()
    }

    /// How many of them are sockets.
    pub fn sockets(&self) -> usize {
        let entries = fs::read_dir(self.proc("fd")).expect("the server's descriptors");
        let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }

    /// How many descriptors the server's epoll instances watch, without those of its pollers.
    pub fn watched(&self) -> usize {
        let entries = fs::read_dir(self.proc("fdinfo")).expect("the server's descriptors");
        let infos = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
        let of_others = |line: &&str| line.starts_with("tfd:") && !line.contains("ffffffff ");
        infos.map(|info| info.lines().filter(of_others).count()).sum()
    }

    /// The processor time that the server has used.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(self.proc("stat")).expect("the server's statistics");
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        // SAFETY: a plain library call.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Duration::from_millis(ticks * 1000 / per_second as u64)
    }

    /// The server's resident memory together with its page tables, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let status = fs::read_to_string(self.proc("status")).expect("the server's status");
        let value = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let kib = |name| value(name).trim().trim_end_matches(" kB").parse::<usize>().unwrap();
        (kib("VmRSS:") + kib("VmPTE:")) * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the server's stderr: {:?}", self.stderr.iter().collect::<Vec<_>>());
        }
    }
}

/// Reads lines in a thread of its own, so that a test can wait for one for a bounded time.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into();
            line.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Asks again and again until the answer is yes, and fails if that takes too long.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A client's side of a connection. None of its calls waits longer than [`PATIENCE`].
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// An answer as it was received.
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// The value of a field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1).next()
    }
}

impl Client {
    pub fn connect(server: &Server) -> Client {
        let stream = TcpStream::connect_timeout(&server.address, PATIENCE).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream: BufReader::with_capacity(512, stream) }
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).expect("the server takes it");
    }

    /// Reads one answer with its body.
    pub fn response(&mut self) -> Response {
        let mut response = self.response_without_body();
        let length = response.field("content-length").expect("a length").parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("a whole body");
        response.body = String::from_utf8(body).expect("a body of text");
        response
    }

    /// Reads one answer to a request that asks for no body.
    pub fn response_without_body(&mut self) -> Response {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let count = self.stream.read_line(&mut head).expect("a line of the answer");
            assert_ne!(count, 0, "the connection ends after {head:?}");
        }
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Response { status: status.expect("a status line"), head, body: String::new() }
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.response()
    }

    /// Reads to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("an orderly end");
        rest
    }

    /// Checks that the server has nothing more to say.
    pub fn expect_end(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.rest()), "");
    }

    /// Ends the connection by a reset, as a client does that vanishes.
    pub fn reset(self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let bytes = mem::size_of_val(&linger) as libc::socklen_t;
        let (fd, option) = (self.stream().as_raw_fd(), libc::SO_LINGER);
        // SAFETY: the descriptor is open, and the option reads `bytes` bytes of a live `linger`.
        let failed = unsafe {
            libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const linger).cast(), bytes)
        };
        assert_eq!(failed, 0, "{}", io::Error::last_os_error());
    }
}

/// Lets this process open as many descriptors as the system allows, and returns that number.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a live `rlimit`.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    limit.rlim_cur
}
