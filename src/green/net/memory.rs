//! `MemoryStream`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use super::stream::not_zero;
use crate::clock::Deadline;
use crate::hub::{self, Direction, Hub, Wait, WaitId, WaitsFor, Wake};

/// So many bytes may be under way, if nothing else is said.
const CAPACITY_BYTES: usize = 64 * 1024;

/// One end of a connection in memory: what a [`TcpStream`](super::TcpStream) is without a network.
///
/// Nothing of it is in the kernel, so a program that is connected by these on a
/// [simulated hub](crate::hub::Simulated) does the same again under the same seed. Both it and a
/// reference to it implement [`Read`] and [`Write`].
///
/// | | rule |
/// |---|---|
/// | a read | waits for a byte, and takes what there is |
/// | a write | waits for room for a byte, and gives what there is room for |
/// | the other end is dropped, or shut down for writing | reads go on to the last byte, then return zero |
/// | the other end is dropped, or shut down for reading | writes return [`BrokenPipe`](io::ErrorKind::BrokenPipe) |
/// | a second green thread waits to read, or to write | it gets an error that says so |
///
/// ```
/// use std::io::{Read, Write};
/// use stolon::green::net::MemoryStream;
///
/// let (mut client, mut server) = MemoryStream::pair();
/// stolon::spawn(move || {
///     let mut request = [0; 4];
///     server.read_exact(&mut request)?;
///     server.write_all(b"pong")
/// });
/// client.write_all(b"ping")?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer)?;
/// assert_eq!(answer, "pong");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct MemoryStream {
    incoming: Rc<Pipe>,
    outgoing: Rc<Pipe>,
    nonblocking: Cell<bool>,
    /// Of reading and of writing.
    timeouts: [Cell<Option<Duration>>; 2],
}

impl MemoryStream {
    /// The two ends of a new connection, with room for 64 KiB each way.
    pub fn pair() -> (Self, Self) {
        Self::pair_with_capacity(CAPACITY_BYTES)
    }

    /// The two ends of a new connection, with room for so many bytes each way.
    ///
    /// # Panics
    ///
    /// When there is no room at all.
    pub fn pair_with_capacity(capacity_bytes: usize) -> (Self, Self) {
        assert!(capacity_bytes > 0, "a stream needs room for a byte");
        let [there, back] = [(); 2].map(|()| Rc::new(Pipe::new(capacity_bytes)));
        (Self::new(&back, &there), Self::new(&there, &back))
    }

    fn new(incoming: &Rc<Pipe>, outgoing: &Rc<Pipe>) -> Self {
        Self {
            incoming: Rc::clone(incoming),
            outgoing: Rc::clone(outgoing),
            nonblocking: Cell::new(false),
            timeouts: Default::default(),
        }
    }

    /// Ends reading, writing or both: here, and so at the other end. Who waits for that is woken.
    ///
    /// # Errors
    ///
    /// None; std's signature.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Write {
            self.incoming.close(&self.incoming.reader_left);
        }
        if how != Shutdown::Read {
            self.outgoing.close(&self.outgoing.writer_left);
        }
        Ok(())
    }

    /// Whether operations return [`WouldBlock`](io::ErrorKind::WouldBlock) instead of waiting.
    ///
    /// # Errors
    ///
    /// None; std's signature.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.nonblocking.set(nonblocking);
        Ok(())
    }

    /// Limits each read. After that time it returns [`TimedOut`](io::ErrorKind::TimedOut); `None`
    /// is no limit.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a duration of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeouts[Direction::Read as usize].set(not_zero(timeout)?);
        Ok(())
    }

    /// Limits each write. After that time it returns [`TimedOut`](io::ErrorKind::TimedOut); `None`
    /// is no limit.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a duration of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeouts[Direction::Write as usize].set(not_zero(timeout)?);
        Ok(())
    }

    /// The limit on each read.
    ///
    /// # Errors
    ///
    /// None; std's signature.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.timeouts[Direction::Read as usize].get())
    }

    /// The limit on each write.
    ///
    /// # Errors
    ///
    /// None; std's signature.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.timeouts[Direction::Write as usize].get())
    }

    /// Runs `op` until it says something, and waits at `pipe` meanwhile.
    fn run(
        &self,
        direction: Direction,
        pipe: &Pipe,
        mut op: impl FnMut() -> Option<io::Result<usize>>,
    ) -> io::Result<usize> {
        let hub = hub::try_current()?;
        // Before anything is moved, as a kill that comes now would lose it.
        hub.spend_io();
        let (mut deadline, mut is_over) = (None, false);
        loop {
            pipe.may_go_ahead(direction)?;
            if let Some(result) = op() {
                return result;
            }
            if self.nonblocking.get() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let timeout = self.timeouts[direction as usize].get();
            let deadline = *deadline.get_or_insert_with(|| hub.deadline_after(timeout));
            if is_over || deadline.is_past(hub.now()) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"));
            }
            is_over = pipe.wait(direction, &hub, deadline)? == Wake::Expired;
        }
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        // It cannot fail.
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Read for &MemoryStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.run(Direction::Read, &self.incoming, || self.incoming.read(buf))
    }
}

impl Write for &MemoryStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.run(Direction::Write, &self.outgoing, || self.outgoing.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for MemoryStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for MemoryStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for MemoryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [to_read, under_way] = [&self.incoming, &self.outgoing].map(|pipe| pipe.len());
        write!(f, "MemoryStream({to_read} bytes to read, {under_way} under way)")
    }
}

/// One direction of a connection.
struct Pipe {
    bytes: RefCell<VecDeque<u8>>,
    capacity_bytes: usize,
    /// Whether nobody reads any more.
    reader_left: Cell<bool>,
    /// Whether nobody writes any more.
    writer_left: Cell<bool>,
    /// Who waits to read, and to write.
    waiters: [Cell<Option<WaitId>>; 2],
}

impl Pipe {
    fn new(capacity_bytes: usize) -> Self {
        Self {
            bytes: RefCell::default(),
            capacity_bytes,
            reader_left: Cell::new(false),
            writer_left: Cell::new(false),
            waiters: Default::default(),
        }
    }

    fn len(&self) -> usize {
        self.bytes.borrow().len()
    }

    /// None when it has to wait.
    fn read(&self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        if buf.is_empty() || self.reader_left.get() {
            return Some(Ok(0));
        }
        if self.len() == 0 {
            return self.writer_left.get().then_some(Ok(0));
        }
        let mut bytes = self.bytes.borrow_mut();
        // It may lie in two pieces. Reading them does not fail.
        let count = bytes.read(buf).and_then(|count| Ok(count + bytes.read(&mut buf[count..])?));
        drop(bytes);
        self.wake(Direction::Write);
        Some(count)
    }

    /// None when it has to wait.
    fn write(&self, buf: &[u8]) -> Option<io::Result<usize>> {
        if self.reader_left.get() || self.writer_left.get() {
            return Some(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = buf.len().min(self.capacity_bytes - self.len());
        if count == 0 {
            return buf.is_empty().then_some(Ok(0));
        }
        self.bytes.borrow_mut().extend(&buf[..count]);
        self.wake(Direction::Read);
        Some(Ok(count))
    }

    fn close(&self, end: &Cell<bool>) {
        end.set(true);
        self.wake(Direction::Read);
        self.wake(Direction::Write);
    }

    /// Who is woken looks again, and takes itself out when its turn has come.
    fn wake(&self, direction: Direction) {
        if let Some(waiter) = self.waiters[direction as usize].get() {
            // Where there is no hub any more nobody waits.
            if let Ok(hub) = hub::try_current() {
                hub.wake(waiter, Wake::Ready);
            }
        }
    }

    /// # Errors
    ///
    /// When another green thread waits in this direction, or was woken and has not had its turn yet.
    fn may_go_ahead(&self, direction: Direction) -> io::Result<()> {
        if self.waiters[direction as usize].get().is_none() {
            return Ok(());
        }
        let what = if direction == Direction::Read { "read from" } else { "write to" };
        let message = format!("another green thread waits to {what} this stream in memory");
        Err(io::Error::other(message))
    }

    /// # Errors
    ///
    /// When the thread is exiting.
    fn wait(&self, direction: Direction, hub: &Rc<Hub>, deadline: Deadline) -> io::Result<Wake> {
        let wait = Wait::begin(hub, WaitsFor::MemoryStream);
        let _waiting = Waiting::new(&self.waiters[direction as usize], wait.id());
        match wait.park(deadline) {
            Wake::Closed => Err(io::Error::other("cannot wait: this thread is exiting")),
            wake => Ok(wake),
        }
    }
}

/// Holds one direction of a pipe for who waits there, until that is over: it may be killed.
struct Waiting<'a>(&'a Cell<Option<WaitId>>);

impl<'a> Waiting<'a> {
    fn new(waiter: &'a Cell<Option<WaitId>>, id: WaitId) -> Self {
        waiter.set(Some(id));
        Self(waiter)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}
