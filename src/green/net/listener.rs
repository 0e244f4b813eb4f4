//! `TcpListener`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use super::{SocketAddr, TcpStream, ToSocketAddrs, descriptor_conversions, socket_accessors};
use crate::clock::Deadline;
use crate::hub::{Direction, Drained, Short, Source};
use crate::sys;

/// A TCP server socket, as [`std::net::TcpListener`]; accepting blocks only the green thread.
///
/// ```
/// use std::io::{Read, Write};
/// use stolon::green::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let addr = listener.local_addr()?;
/// stolon::spawn(move || {
///     let (mut connection, _) = listener.accept().unwrap();
///     connection.write_all(b"hello").unwrap();
/// });
/// let mut text = String::new();
/// TcpStream::connect(addr)?.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener {
    source: Source<std::net::TcpListener>,
}

impl TcpListener {
    /// Binds to the first of the addresses that can be bound to, and listens; `SO_REUSEADDR` is
    /// set. As many connections as the system allows wait to be accepted, where std has 128.
    ///
    /// # Errors
    ///
    /// As [`std::net::TcpListener::bind`].
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(addr)?;
        sys::net::raise_backlog(listener.as_fd())?;
        listener.set_nonblocking(true)?;
        Ok(Self::from_nonblocking(listener, Short::Drained))
    }

    /// `short` is for the connections that are accepted.
    fn from_nonblocking(listener: std::net::TcpListener, short: Short) -> Self {
        Self { source: Source::new(listener, short) }
    }

    /// The address that this socket is bound to.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.io().local_addr()
    }

    /// Another handle to the same socket, with a registration of its own.
    ///
    /// # Errors
    ///
    /// The kernel's, `EMFILE` if there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::from_nonblocking(self.source.io().try_clone()?, self.source.short()))
    }

    /// Waits for a connection, and returns it with its peer's address.
    ///
    /// # Errors
    ///
    /// The kernel's: `EMFILE` and `ENFILE` when there is no descriptor left, `ECONNABORTED` when
    /// the peer has gone already. The listener stays usable.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, addr) = self.source.run(
            Direction::Read,
            |_| Deadline::NEVER,
            |listener| Ok((sys::net::accept(listener.as_fd())?, Drained::No)),
        )?;
        Ok((TcpStream::from_nonblocking(fd.into(), self.source.short()), addr))
    }

    /// The connections that are received, one after the other; the iterator never ends.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }
}

socket_accessors!(TcpListener);
descriptor_conversions!(TcpListener);

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.io().fmt(f)
    }
}

/// The connections that a [`TcpListener`] receives.
#[derive(Debug)]
#[must_use = "connections are accepted when it is iterated over"]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl std::iter::FusedIterator for Incoming<'_> {}
