//! A crawler: many URLs at once, few at each host, again what fails, results in order.
//!
//! ```text
//! cargo run --release --example crawler -- --urls 60 --workers 16 --per-host 2
//! ```
//!
//! The hosts are three servers that the example starts itself, in green threads beside the crawler's.
//! They are bad ones, as hosts are: some pages are missing, some work only at the second or third try,
//! some never answer. Each host notes how polite its visitor was, and the last lines tell.
//!
//! Read it from top to bottom: the pool and its results, a host's share, one URL, one attempt, and then
//! the other side.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use stolon::convenience::{connect, listen, serve};
use stolon::green::net::TcpStream;
use stolon::semaphore::Semaphore;
use stolon::timeout::with_timeout;
use stolon::{GreenPool, sleep, spawn_n};

const HELP: &str = "\
Fetches many URLs from three servers of its own on 127.0.0.1.

Usage: crawler [--urls NUMBER] [--workers NUMBER] [--per-host NUMBER] [--delay MS]

  --urls NUMBER      how many URLs are fetched (default 60)
  --workers NUMBER   how many at once (default 16)
  --per-host NUMBER  how many at once from one host (default 2)
  --delay MS         the pause of each of those between two requests (default 5)
  --help             print this and exit
";

/// How long one attempt may take, from connecting to the last byte.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often a URL is tried, and the pause after the first failure; each later one is twice as long.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The most that is taken of an answer.
const ANSWER_BYTES: u64 = 64 * 1024;

const HOSTS: usize = 3;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)) {
        Ok(None) => print!("{HELP}"),
        Ok(Some(options)) => {
            if let Err(error) = run(options) {
                eprintln!("crawler: {error}");
                return ExitCode::FAILURE;
            }
        }
        Err(message) => {
            eprintln!("crawler: {message}; try --help");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn run(options: Options) -> io::Result<()> {
    let hosts = (0..HOSTS).map(|_| Host::start()).collect::<io::Result<Vec<_>>>()?;
    let addrs: Vec<_> = hosts.iter().map(|host| host.addr).collect();
    println!("crawling {} URLs of {HOSTS} hosts", options.urls);

    // The hosts take turns, as one at its limit holds up those workers that have a URL of it.
    let urls = 0..options.urls as usize;
    let urls = urls.map(move |n| Url { host: addrs[n % HOSTS], page: n / HOSTS });
    let pool = GreenPool::new(options.workers as usize);
    let crawler = Rc::new(Crawler::new(options, &hosts));
    // Lazy: no more of them are under way, or have been fetched and wait to be looked at here, than the
    // pool is large. The results come in the order of the URLs, whichever is there first.
    let fetches = Rc::clone(&crawler);
    let results = pool.imap(move |url: Url| (fetches.fetch(&url), url), urls);
    let (mut fetched, mut bytes, mut given_up) = (0, 0, Vec::new());
    for (result, url) in results {
        match result {
            Ok(body) => {
                fetched += 1;
                bytes += body.len();
            }
            Err(failure) => given_up.push((url, failure)),
        }
    }
    eprintln!();
    println!("fetched {fetched} pages with {bytes} bytes, after {} retries", crawler.retries.get());
    for (url, failure) in given_up {
        println!("gave up on {url}: {}", failure.what);
    }
    hosts.iter().for_each(|host| println!("{host}"));
    Ok(())
}

struct Url {
    host: SocketAddr,
    page: usize,
}

/// What all workers share.
struct Crawler {
    options: Options,
    /// How many more may ask each host at this moment.
    shares: HashMap<SocketAddr, Semaphore>,
    done: Cell<u32>,
    retries: Cell<u32>,
}

impl Crawler {
    fn new(options: Options, hosts: &[Host]) -> Crawler {
        let share = |host: &Host| (host.addr, Semaphore::new(options.per_host as usize));
        let shares = hosts.iter().map(share).collect();
        Crawler { options, shares, done: Cell::new(0), retries: Cell::new(0) }
    }

    /// Fetches a page, at the second or third try if need be.
    fn fetch(&self, url: &Url) -> Result<String, Failure> {
        let mut pause = FIRST_PAUSE;
        let mut result = self.attempt(url);
        for _ in 1..ATTEMPTS {
            if !matches!(&result, Err(failure) if failure.may_pass) {
                break;
            }
            // Other workers may ask the host meanwhile.
            sleep(pause);
            pause *= 2;
            self.retries.set(self.retries.get() + 1);
            result = self.attempt(url);
        }
        self.done.set(self.done.get() + 1);
        self.show_progress();
        result
    }

    /// Asks for a page once, when it is this worker's turn at the host, and for so long that the host
    /// has its pause.
    fn attempt(&self, url: &Url) -> Result<String, Failure> {
        let _share = self.shares[&url.host].access();
        let answer = with_timeout(PATIENCE, || ask(url));
        sleep(Duration::from_millis(self.options.delay_ms.into()));
        match answer.unwrap_or_else(|timed_out| Err(io::Error::other(timed_out))) {
            Ok(answer) => page_of(&answer),
            Err(error) => Err(Failure { what: error.to_string(), may_pass: true }),
        }
    }

    /// One line, which the next one overwrites.
    fn show_progress(&self) {
        let (done, urls, retries) = (self.done.get(), self.options.urls, self.retries.get());
        let _ = write!(io::stderr(), "\r{done} of {urls} done, {retries} retries");
    }
}

/// Why there is no page.
struct Failure {
    what: String,
    /// Whether it may be otherwise when it is tried again.
    may_pass: bool,
}

/// A request and the bytes of its answer. It waits in four places, and needs no timeout in any of them.
fn ask(url: &Url) -> io::Result<Vec<u8>> {
    let mut stream = connect(url.host)?;
    write!(stream, "GET /{} HTTP/1.0\r\nHost: {}\r\n\r\n", url.page, url.host)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES + 1).read_to_end(&mut answer)?;
    Ok(answer)
}

fn page_of(answer: &[u8]) -> Result<String, Failure> {
    let fails = |what: &str, may_pass| Err(Failure { what: what.to_owned(), may_pass });
    if answer.len() as u64 > ANSWER_BYTES {
        return fails("the answer is too long", false);
    }
    let answer = String::from_utf8_lossy(answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return fails("the answer breaks off", true);
    };
    let status = head.lines().next().unwrap_or_default().trim_start_matches("HTTP/1.0 ");
    match status.as_bytes() {
        [b'2', ..] => Ok(body.to_owned()),
        // The host's fault.
        [b'5', ..] => fails(status, true),
        _ => fails(status, false),
    }
}

/// A server, and what it has seen of its visitor.
struct Host {
    addr: SocketAddr,
    log: Rc<Log>,
}

#[derive(Default)]
struct Log {
    requests: Cell<u32>,
    at_once: Cell<u32>,
    most_at_once: Cell<u32>,
    /// How often each page was asked for.
    visits: RefCell<HashMap<usize, u32>>,
}

impl Host {
    fn start() -> io::Result<Host> {
        let listener = listen("127.0.0.1:0")?;
        let host = Host { addr: listener.local_addr()?, log: Rc::default() };
        let log = Rc::clone(&host.log);
        spawn_n(move || {
            // A visitor that has gone is no reason to stop.
            let ended = serve(listener, 1000, move |stream, _| drop(log.answer(stream)));
            eprintln!("crawler: a host ends: {ended:?}");
        });
        Ok(host)
    }
}

impl Log {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        self.requests.set(self.requests.get() + 1);
        self.at_once.set(self.at_once.get() + 1);
        self.most_at_once.set(self.most_at_once.get().max(self.at_once.get()));
        let result = self.answer_badly(&mut stream);
        self.at_once.set(self.at_once.get() - 1);
        result
    }

    /// Every tenth page is missing, every tenth has its bad days, and so on.
    fn answer_badly(&self, stream: &mut TcpStream) -> io::Result<()> {
        let mut request = [0; 512];
        let count = stream.read(&mut request)?;
        let request = String::from_utf8_lossy(&request[..count]);
        let path = request.split(' ').nth(1).unwrap_or_default();
        let page: usize = path.trim_start_matches('/').parse().unwrap_or(0);
        let visit = *self.visits.borrow_mut().entry(page).and_modify(|n| *n += 1).or_insert(1);
        sleep(Duration::from_millis(2));
        match page % 10 {
            3 => stream.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n"),
            5 if visit < 3 => stream.write_all(b"HTTP/1.0 503 Service Unavailable\r\n\r\n"),
            // No answer at all, for as long as the visitor waits.
            7 if visit < 2 => stream.read(&mut [0]).map(drop),
            8 => stream.write_all(b"HTTP/1.0 200 O"),
            9 => loop {
                stream.write_all(&[b'!'; 1024])?;
            },
            _ => write!(stream, "HTTP/1.0 200 OK\r\n\r\nThis is page {page}.\n"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, most) = (self.log.requests.get(), self.log.most_at_once.get());
        write!(f, "host {} had {requests} requests, at most {most} at once", self.addr)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}/{}", self.host, self.page)
    }
}

/// What the command line asks for.
struct Options {
    urls: u32,
    workers: u32,
    per_host: u32,
    delay_ms: u32,
}

impl Options {
    /// Reads the arguments; `None` asks for help.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options { urls: 60, workers: 16, per_host: 2, delay_ms: 5 };
        while let Some(arg) = args.next() {
            let option = match arg.as_str() {
                "--urls" => &mut options.urls,
                "--workers" => &mut options.workers,
                "--per-host" => &mut options.per_host,
                "--delay" => &mut options.delay_ms,
                "--help" => return Ok(None),
                _ => return Err(format!("unknown argument `{arg}`")),
            };
            let text = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            let number: NonZeroU32 =
                text.parse().map_err(|_| format!("{arg} cannot be `{text}`"))?;
            *option = number.get();
        }
        Ok(Some(options))
    }
}
