//! Contenders take turns; each gets the median of its rounds.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How often each contender runs.
pub const ROUNDS: usize = 7;

/// About how long one run of a contender takes.
const BATCH: Duration = Duration::from_millis(30);

/// Runs so many iterations, and says how long they took; or why they cannot be run.
pub type Batch = Box<dyn FnMut(u64) -> Result<Duration, String>>;

/// One of those who take turns.
pub struct Contender {
    per_iteration: usize,
    batch: Batch,
    iterations: u64,
    samples: Vec<f64>,
}

/// The median of a contender's rounds.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub median: f64,
    /// The distance between the quartiles, as a part of the median.
    pub noise: f64,
}

impl Contender {
    /// What is measured happens `per_iteration` times in one iteration of `batch`.
    pub fn new(per_iteration: usize, batch: Batch) -> Self {
        Self { per_iteration, batch, iterations: 1, samples: Vec::new() }
    }

    /// Finds out how many iterations take as long as a run should.
    pub fn calibrate(&mut self) -> Result<(), String> {
        loop {
            let took = (self.batch)(self.iterations)?.max(Duration::from_nanos(100));
            if took >= BATCH / 8 {
                let scale = BATCH.as_secs_f64() / took.as_secs_f64();
                self.iterations = ((self.iterations as f64 * scale) as u64).max(1);
                return Ok(());
            }
            self.iterations *= 4;
        }
    }

    /// Runs once, and keeps how many nanoseconds each took.
    pub fn round(&mut self) -> Result<(), String> {
        let took = (self.batch)(self.iterations)?;
        let happened = self.iterations as f64 * self.per_iteration as f64;
        self.samples.push(took.as_nanos() as f64 / happened);
        Ok(())
    }

    pub fn measured(&self) -> Measured {
        Measured::of(self.samples.clone())
    }
}

impl Measured {
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |part: f64| samples[((samples.len() - 1) as f64 * part).round() as usize];
        let median = at(0.5);
        Self { median, noise: (at(0.75) - at(0.25)) / median }
    }
}

/// How long `run` takes.
pub fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// Binds the calling thread, and those that it makes from now on, to one core: the last that it may
/// use.
pub fn pin() {
    if let Some(&last) = cores().last() {
        pin_to(last);
    }
}

/// As [`pin`], to a core by its number.
pub fn pin_to(core: usize) {
    // SAFETY: a set of cores is plain data; the call gets its size.
    unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut one);
        libc::sched_setaffinity(0, size_of_val(&one), &one);
    }
}

/// The first core that this process could use when it began.
pub fn first_core() -> usize {
    cores().first().copied().unwrap_or(0)
}

/// The cores that this process could use when it was first asked.
fn cores() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(|| {
        // SAFETY: a set of cores is plain data; the call gets its size and writes no further.
        unsafe {
            let mut allowed: libc::cpu_set_t = std::mem::zeroed();
            if libc::sched_getaffinity(0, size_of_val(&allowed), &mut allowed) != 0 {
                return Vec::new();
            }
            (0..libc::CPU_SETSIZE as usize).filter(|&c| libc::CPU_ISSET(c, &allowed)).collect()
        }
    })
}
