//! `TcpStream`.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{SocketAddr, ToSocketAddrs, descriptor_conversions, each_addr, socket_accessors};
use crate::clock::Deadline;
use crate::hub::{self, Direction, Drained, Short, Source};
use crate::sys::{self, trouble};

/// A TCP connection, as [`std::net::TcpStream`]; reading, writing and connecting block only the
/// green thread.
///
/// Both it and a reference to it implement [`Read`] and [`Write`], so one green thread can read
/// while another writes.
pub struct TcpStream {
    source: Source<std::net::TcpStream>,
    /// Of reading and of writing.
    timeouts: [Cell<Option<Duration>>; 2],
}

impl TcpStream {
    /// Connects to the first of the addresses that can be connected to.
    ///
    /// # Errors
    ///
    /// As [`std::net::TcpStream::connect`]: of several addresses the last one's error.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        each_addr(addr, |addr| Self::connect_until(addr, Deadline::NEVER))
    }

    /// Connects to `addr`, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) when the time is over,
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is zero; else the kernel's.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        let timeout = not_zero(Some(timeout))?;
        Self::connect_until(addr, hub::try_current()?.deadline_after(timeout))
    }

    fn connect_until(addr: &SocketAddr, deadline: Deadline) -> io::Result<Self> {
        Self::connect_socket(sys::net::tcp_socket(addr)?, addr, deadline)
    }

    /// Connects from the address `local`, to one of the same family.
    pub(crate) fn connect_from(addr: &SocketAddr, local: &SocketAddr) -> io::Result<Self> {
        let socket = sys::net::tcp_socket(addr)?;
        sys::net::bind(socket.as_fd(), local)?;
        Self::connect_socket(socket, addr, Deadline::NEVER)
    }

    fn connect_socket(socket: OwnedFd, addr: &SocketAddr, deadline: Deadline) -> io::Result<Self> {
        let started = sys::net::connect(socket.as_fd(), addr);
        let stream = Self::from_nonblocking(socket.into(), Short::Drained);
        match started {
            Ok(()) => Ok(stream),
            Err(e) if sys::net::is_in_progress(&e) => {
                stream.source.wait_ready(Direction::Write, deadline)?;
                match stream.take_error()? {
                    Some(e) => Err(e),
                    None => Ok(stream),
                }
            }
            Err(e) => Err(e),
        }
    }

    pub(super) fn from_nonblocking(stream: std::net::TcpStream, short: Short) -> Self {
        Self { source: Source::new(stream, short), timeouts: [Cell::new(None), Cell::new(None)] }
    }

    /// The address of the other side.
    ///
    /// # Errors
    ///
    /// The kernel's, `ENOTCONN` if the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().peer_addr()
    }

    /// The address of this side.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().local_addr()
    }

    /// Shuts down reading, writing or both. Who waits for that direction is woken, and sees the
    /// end.
    ///
    /// # Errors
    ///
    /// The kernel's, `ENOTCONN` if the connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.source.io().shutdown(how)
    }

    /// Another handle to the same connection, with the same timeouts and a registration of its own.
    ///
    /// # Errors
    ///
    /// The kernel's, `EMFILE` if there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let clone = Self::from_nonblocking(self.source.io().try_clone()?, self.source.short());
        Ok(Self { timeouts: self.timeouts.clone(), ..clone })
    }

    /// Limits each read. After that time it returns [`TimedOut`](io::ErrorKind::TimedOut); `None`
    /// is no limit.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a duration of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeout(Direction::Read).set(not_zero(timeout)?);
        Ok(())
    }

    /// Limits each write. After that time it returns [`TimedOut`](io::ErrorKind::TimedOut); `None`
    /// is no limit.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a duration of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeout(Direction::Write).set(not_zero(timeout)?);
        Ok(())
    }

    /// The limit on each read.
    ///
    /// # Errors
    ///
    /// None; std's signature.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.timeout(Direction::Read).get())
    }

    /// The limit on each write.
    ///
    /// # Errors
    ///
    /// None; std's signature.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.timeout(Direction::Write).get())
    }

    /// Reads without taking what was read off the stream.
    ///
    /// # Errors
    ///
    /// As [`Read::read`] of this type.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        // What was peeked at is still there, however little it was.
        self.run(Direction::Read, |io| {
            let room = trouble::at_most(trouble::Call::Read, io.as_fd(), buf.len())?;
            Ok((sys::net::peek(io.as_fd(), &mut buf[..room])?, Drained::No))
        })
    }

    /// Whether small packets are sent at once (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.source.io().set_nodelay(nodelay)
    }

    /// Whether small packets are sent at once.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.source.io().nodelay()
    }

    fn timeout(&self, direction: Direction) -> &Cell<Option<Duration>> {
        &self.timeouts[direction as usize]
    }

    fn run<R>(
        &self,
        direction: Direction,
        op: impl FnMut(&std::net::TcpStream) -> io::Result<(R, Drained)>,
    ) -> io::Result<R> {
        let timeout = self.timeout(direction);
        self.source.run(direction, |hub| hub.deadline_after(timeout.get()), op)
    }
}

/// Whether moving `bytes` bytes into or out of buffers of these lengths has drained the stream.
fn drained_after(bytes: usize, lengths: impl ExactSizeIterator<Item = usize>) -> Drained {
    // The kernel is not asked for more buffers than it takes at once.
    if lengths.len() > sys::net::MAX_BUFFERS {
        return Drained::No;
    }
    Drained::after(bytes, lengths.sum())
}

/// A timeout as std takes them.
pub(super) fn not_zero(timeout: Option<Duration>) -> io::Result<Option<Duration>> {
    if timeout == Some(Duration::ZERO) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a 0 duration timeout"));
    }
    Ok(timeout)
}

/// [`Write::write_all`], where the first write of it has not written all.
#[cold]
#[inline(never)]
fn write_rest(
    mut stream: &TcpStream,
    mut buf: &[u8],
    mut written: io::Result<usize>,
) -> io::Result<()> {
    loop {
        match written {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::WriteZero,
                    "failed to write whole buffer",
                ));
            }
            Ok(bytes) => buf = &buf[bytes..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if buf.is_empty() {
            return Ok(());
        }
        written = stream.write(buf);
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.run(Direction::Read, |io| {
            let room = trouble::at_most(trouble::Call::Read, io.as_fd(), buf.len())?;
            let bytes = sys::net::recv(io.as_fd(), &mut buf[..room])?;
            Ok((bytes, Drained::after(bytes, room)))
        })
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.run(Direction::Read, |io| {
            trouble::fails(trouble::Call::Read, Some(io.as_fd()))?;
            let bytes = sys::net::recv_vectored(io.as_fd(), bufs)?;
            Ok((bytes, drained_after(bytes, bufs.iter().map(|buf| buf.len()))))
        })
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.run(Direction::Write, |io| {
            let room = trouble::at_most(trouble::Call::Write, io.as_fd(), buf.len())?;
            let bytes = sys::net::send(io.as_fd(), &buf[..room])?;
            Ok((bytes, Drained::after(bytes, room)))
        })
    }

    // Mostly there is room for all.
    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        match self.write(buf) {
            Ok(bytes) if bytes == buf.len() => Ok(()),
            begun => write_rest(self, buf, begun),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.run(Direction::Write, |io| {
            trouble::fails(trouble::Call::Write, Some(io.as_fd()))?;
            let bytes = sys::net::send_vectored(io.as_fd(), bufs)?;
            Ok((bytes, drained_after(bytes, bufs.iter().map(|buf| buf.len()))))
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    #[inline]
    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        (&*self).write_all(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

socket_accessors!(TcpStream);
descriptor_conversions!(TcpStream);

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.io().fmt(f)
    }
}
