//! Sockets and pipes in the states that tests need.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use stolon::green::net::{TcpListener, TcpStream};
use stolon::{GreenThread, spawn};

/// The two ends of a connection.
pub fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    (near, far)
}

/// The two ends of a pipe, the one to read from first. The oldest compiler that has to build this
/// lacks std's own.
pub fn pipe() -> (File, File) {
    let mut ends = [-1; 2];
    // SAFETY: the kernel writes the two numbers into the array, which lives through the call.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: both were just opened, and nobody else knows them.
    ends.map(|end| unsafe { File::from_raw_fd(end) }).into()
}

/// Starts to read once, up to 8 bytes.
pub fn read_once(stream: &Rc<TcpStream>) -> GreenThread<Result<Vec<u8>, ErrorKind>> {
    let stream = Rc::clone(stream);
    spawn(move || {
        let mut bytes = vec![0; 8];
        let count = (&*stream).read(&mut bytes).map_err(|error| error.kind())?;
        bytes.truncate(count);
        Ok(bytes)
    })
}

/// Writes until there is no room any more.
pub fn fill(mut stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[1; 65536]).is_ok() {}
    stream.set_nonblocking(false).unwrap();
}

/// An address where nobody listens.
pub fn closed_addr() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// An address that does not answer for as long as what is returned with it lives: its queue is
/// full.
pub fn silent_addr() -> (SocketAddr, impl Sized) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    set_backlog(&listener, 0);
    let addr = listener.local_addr().unwrap();
    let first = std::net::TcpStream::connect(addr).unwrap();
    (addr, (listener, first))
}

/// Sets how many connections wait to be accepted, less one.
pub fn set_backlog(listener: &impl AsRawFd, backlog: i32) {
    // SAFETY: a plain system call on an open descriptor.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), backlog) }, 0);
}

fn set_option<V>(fd: RawFd, option: libc::c_int, value: V) {
    let bytes = mem::size_of::<V>() as libc::socklen_t;
    // SAFETY: the option reads `bytes` bytes of a live value.
    let failed =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const value).cast(), bytes) };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
}

/// Closes a connection by a reset, as a peer does that vanishes.
pub fn reset(stream: impl AsRawFd) {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(stream.as_raw_fd(), libc::SO_LINGER, at_once);
}

/// Gives a socket the smallest buffer for sending that there is.
pub fn shrink_send_buffer(stream: &impl AsRawFd) {
    set_option::<libc::c_int>(stream.as_raw_fd(), libc::SO_SNDBUF, 1);
}

/// Sends one byte of urgent data.
pub fn send_urgent(stream: &impl AsRawFd) {
    let byte = [b'!'];
    // SAFETY: the pointer is valid for reading one byte.
    let sent = unsafe { libc::send(stream.as_raw_fd(), byte.as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1, "{}", io::Error::last_os_error());
}

/// The two ends of a connection within this process: what is written is there at once.
pub fn unix_pair() -> (TcpStream, TcpStream) {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    // To read and write, it is a stream like another.
    (OwnedFd::from(near).into(), OwnedFd::from(far).into())
}

/// Sends `text` over a Unix socket together with a duplicate of a descriptor.
pub fn send_with_descriptor(socket: &impl AsRawFd, text: &[u8], passed: &impl AsRawFd) {
    let part = std::io::IoSlice::new(text);
    // Words, to be aligned as a header of control data is.
    let mut control = [0_usize; 8];
    // SAFETY: all zeros is a valid header, without addresses.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = (&raw const part).cast_mut().cast();
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: it only computes.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as _;
    assert!(message.msg_controllen as usize <= size_of_val(&control));
    // SAFETY: the control data have room for one header with a descriptor, as was asserted.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(passed.as_raw_fd());
    }
    // SAFETY: the message refers to what lives through the call, and the kernel only reads.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
    assert_eq!(usize::try_from(sent).ok(), Some(text.len()), "{}", io::Error::last_os_error());
}
