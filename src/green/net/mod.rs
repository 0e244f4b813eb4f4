//! TCP, as `std::net` has it; and [`MemoryStream`], a connection without a network, for tests.
//!
//! A socket belongs to the thread that made it, as its registration with that thread's hub does:
//! unlike std's it is not `Send`. To move one, turn it into an [`OwnedFd`](std::os::fd::OwnedFd) or
//! a `std::net` socket, and make a green one of that on the other thread.
//!
//! A descriptor is in non-blocking mode from the moment that a green socket is made of it, and
//! this crate leaves it so. That mode belongs to the file description, so that another process, or
//! the owner of a duplicate, may end it. A read or a write never blocks the thread even then.
//! [`TcpListener::accept`] does if, in addition, another process takes the connection in the moment
//! between the check for one and the call.
//!
//! One green thread at a time may wait to read from a socket, and one to write to it: a
//! second one gets an error that names the first, unless
//! [`hub_prevent_multiple_readers(false)`](crate::debug::hub_prevent_multiple_readers) has them line
//! up. Nobody can drop a socket that another waits on, but [`notify_close`](crate::hub::notify_close)
//! wakes who does.
//!
//! Host names are resolved by the system's resolver, which blocks the whole thread; addresses in
//! digits are not.

mod listener;
mod memory;
mod stream;

pub use listener::{Incoming, TcpListener};
pub use memory::MemoryStream;
pub use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
pub use stream::TcpStream;

use std::io;
use std::os::fd::BorrowedFd;

use crate::hub::Short;
use crate::sys;

/// What a short read or write of a socket of somebody else's means.
fn meaning_of_short(socket: BorrowedFd<'_>) -> Short {
    if sys::net::is_plain_tcp(socket) { Short::Drained } else { Short::Nothing }
}

/// Calls `f` with each address until it succeeds, and returns the last error if it never does.
fn each_addr<R>(
    addrs: impl ToSocketAddrs,
    mut f: impl FnMut(&SocketAddr) -> io::Result<R>,
) -> io::Result<R> {
    let mut last = None;
    for addr in addrs.to_socket_addrs()? {
        match f(&addr) {
            Ok(result) => return Ok(result),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any addresses")
    }))
}

/// The accessors that are the same for all green sockets.
macro_rules! socket_accessors {
    ($socket:ident) => {
        impl $socket {
            /// Sets the time-to-live of this socket's packets, in hops.
            ///
            /// # Errors
            ///
            /// The kernel's.
            pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
                self.source.io().set_ttl(ttl)
            }

            /// The time-to-live of this socket's packets, in hops.
            ///
            /// # Errors
            ///
            /// The kernel's.
            pub fn ttl(&self) -> io::Result<u32> {
                self.source.io().ttl()
            }

            /// The error that is pending on the socket, which is cleared.
            ///
            /// # Errors
            ///
            /// The kernel's, when it cannot be asked.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.source.io().take_error()
            }

            /// Whether operations return [`WouldBlock`](io::ErrorKind::WouldBlock) instead of
            /// waiting.
            ///
            /// It is a property of this handle; the descriptor is in non-blocking mode in any case.
            ///
            /// # Errors
            ///
            /// None; std's signature.
            pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
                self.source.set_nonblocking(nonblocking);
                Ok(())
            }
        }
    };
}
use socket_accessors;

/// The conversions that a green socket shares with std's socket of the same name.
macro_rules! descriptor_conversions {
    ($socket:ident) => {
        impl AsFd for $socket {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.source.io().as_fd()
            }
        }

        impl AsRawFd for $socket {
            fn as_raw_fd(&self) -> RawFd {
                self.source.io().as_raw_fd()
            }
        }

        impl IntoRawFd for $socket {
            fn into_raw_fd(self) -> RawFd {
                OwnedFd::from(self).into_raw_fd()
            }
        }

        impl From<$socket> for OwnedFd {
            fn from(socket: $socket) -> Self {
                OwnedFd::from(std::net::$socket::from(socket))
            }
        }

        impl From<$socket> for std::net::$socket {
            /// Takes the socket out of the hub. It stays in non-blocking mode.
            fn from(socket: $socket) -> Self {
                socket.source.into_io()
            }
        }

        impl From<OwnedFd> for $socket {
            /// Takes a socket over, and puts it into non-blocking mode.
            ///
            /// # Panics
            ///
            /// If it has no such mode, so is no socket.
            fn from(fd: OwnedFd) -> Self {
                Self::from(std::net::$socket::from(fd))
            }
        }

        impl From<std::net::$socket> for $socket {
            /// Takes a socket over, and puts it into non-blocking mode.
            ///
            /// # Panics
            ///
            /// If it has no such mode, so is no socket.
            fn from(socket: std::net::$socket) -> Self {
                socket.set_nonblocking(true).expect("a socket has a non-blocking mode");
                let short = super::meaning_of_short(socket.as_fd());
                Self::from_nonblocking(socket, short)
            }
        }
    };
}
use descriptor_conversions;
