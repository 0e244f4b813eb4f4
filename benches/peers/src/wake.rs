//! Pairs of sockets in one thread, for `park_wake.socketpair`.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// How many there are.
pub const PAIRS: usize = 512;

/// What is sent through each.
pub const MESSAGE: [u8; 64] = [b'x'; 64];

/// A connected pair that does not block.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    Ok((near.into(), far.into()))
}
