//! Producer and consumer at once: workers take work from a queue, and put what they find into the same
//! queue.
//!
//! ```text
//! cargo run --release --example producer_consumer -- --workers 8
//! ```
//!
//! The work is to visit all pages of a site that can be reached from the first one. Whoever visits a
//! page finds links, which are new work, so nobody knows beforehand how much there will be. The site is
//! made up, and a page takes its time as one of a network does; `crawler.rs` has real connections.
//!
//! Three questions come up in each program of this kind, and the code below answers them where they do:
//! what is bounded, how one knows that all is done, and what becomes of work that fails.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stolon::queue::Queue;
use stolon::{GreenPool, sleep, spawn};

const HELP: &str = "\
Visits all pages of a made-up site, each of which may link to others.

Usage: producer_consumer [--workers NUMBER] [--pages NUMBER]

  --workers NUMBER  how many pages are visited at once (default 8)
  --pages NUMBER    how many pages the site has (default 400)
  --help            print this and exit
";

/// How long it takes to visit a page.
const VISIT_TIME: Duration = Duration::from_millis(2);

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)) {
        Ok(None) => print!("{HELP}"),
        Ok(Some(options)) => run(&options),
        Err(message) => {
            eprintln!("producer_consumer: {message}; try --help");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn run(options: &Options) {
    let start = Instant::now();
    let crawl = Rc::new(Crawl::new(options.pages));
    crawl.found(1);

    // The pool is what bounds the work: no more than so many pages at once, and this loop waits while
    // there are. The queue must not be bounded, too. If it were, workers would wait for room in it, and
    // this loop, which makes room, for a worker to end.
    let pool = GreenPool::new(options.workers);
    let dispatcher = spawn({
        let crawl = Rc::clone(&crawl);
        move || loop {
            let page = crawl.queue.get();
            let task = Task { crawl: Rc::clone(&crawl) };
            pool.spawn_n(move || task.visit(page));
        }
    });

    // The queue is empty now and then while workers are still at pages that link to others, and no
    // worker runs while the first page is on its way to one. So neither says that all is done. The queue
    // counts: each page that was put is a task until somebody says that it is done, and a worker says
    // so of its page after it has put what that page links to.
    crawl.queue.join();
    dispatcher.kill();
    crawl.report(start.elapsed(), options.workers);
}

/// What all workers share. They run on one OS thread, so it needs no lock.
struct Crawl {
    site: Site,
    queue: Queue<u32>,
    /// All pages that ever were in the queue.
    seen: RefCell<HashSet<u32>>,
    visited: Cell<u32>,
    dead_links: Cell<u32>,
    links_again: Cell<u32>,
    at_once: Cell<usize>,
    most_at_once: Cell<usize>,
}

impl Crawl {
    fn new(pages: u32) -> Crawl {
        Crawl {
            site: Site { pages },
            queue: Queue::new(None),
            seen: RefCell::default(),
            visited: Cell::new(0),
            dead_links: Cell::new(0),
            links_again: Cell::new(0),
            at_once: Cell::new(0),
            most_at_once: Cell::new(0),
        }
    }

    /// Puts a page into the queue, unless it was there before: sites link in circles.
    fn found(&self, page: u32) {
        if self.seen.borrow_mut().insert(page) {
            self.queue.put(page);
        } else {
            self.links_again.set(self.links_again.get() + 1);
        }
    }

    fn report(&self, took: Duration, workers: usize) {
        let (visited, dead) = (self.visited.get(), self.dead_links.get());
        println!("visited {visited} pages, and followed {dead} links to pages that are not there");
        println!("found {} links to pages that were known", self.links_again.get());
        println!("were at up to {} pages at once, of {workers}", self.most_at_once.get());
        let (took, one_by_one) = (took.as_millis(), (VISIT_TIME * (visited + dead)).as_millis());
        println!("took {took} ms, where one by one takes {one_by_one} ms");
    }
}

/// One page's worth of work. It is done when it is dropped: at the end of the visit, and also if that
/// panics, or its worker is killed. A task that is not done would leave `join` waiting for ever.
struct Task {
    crawl: Rc<Crawl>,
}

impl Task {
    fn visit(self, page: u32) {
        let crawl = &*self.crawl;
        crawl.at_once.set(crawl.at_once.get() + 1);
        crawl.most_at_once.set(crawl.most_at_once.get().max(crawl.at_once.get()));
        // Others have their turn meanwhile.
        let links = crawl.site.visit(page);
        crawl.at_once.set(crawl.at_once.get() - 1);
        match links {
            Ok(links) => {
                crawl.visited.set(crawl.visited.get() + 1);
                links.into_iter().for_each(|link| crawl.found(link));
            }
            Err(NotFound) => crawl.dead_links.set(crawl.dead_links.get() + 1),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let _ = self.crawl.queue.task_done();
    }
}

/// A site of so many pages, with numbers from 1.
struct Site {
    pages: u32,
}

struct NotFound;

impl Site {
    /// What a page links to: two pages further down, of which the last ones' are not there, and one
    /// further up.
    fn visit(&self, page: u32) -> Result<[u32; 3], NotFound> {
        sleep(VISIT_TIME);
        if page > self.pages {
            return Err(NotFound);
        }
        Ok([2 * page, 2 * page + 1, 1 + page / 3])
    }
}

/// What the command line asks for.
struct Options {
    workers: usize,
    pages: u32,
}

impl Options {
    /// Reads the arguments; `None` asks for help.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options { workers: 8, pages: 400 };
        while let Some(arg) = args.next() {
            let mut value = || {
                let text = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
                let number: NonZeroU32 =
                    text.parse().map_err(|_| format!("{arg} cannot be `{text}`"))?;
                Ok::<u32, String>(number.get())
            };
            match arg.as_str() {
                "--workers" => options.workers = value()? as usize,
                // Links are to pages with twice the number.
                "--pages" => options.pages = value()?.min(u32::MAX / 4),
                "--help" => return Ok(None),
                _ => return Err(format!("unknown argument `{arg}`")),
            }
        }
        Ok(Some(options))
    }
}
