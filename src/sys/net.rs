//! Sockets: what std offers only in a blocking form.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::poll;
use super::trouble::{self, Call};

/// Maximum number of buffers that the kernel reads into or writes from in one call.
pub(crate) const MAX_BUFFERS: usize = libc::UIO_MAXIOV as usize;

/// Flags of every receiving call. `O_NONBLOCK` belongs to the file description, and a process that
/// shares it may clear it; a flag of the call is nobody else's.
const RECEIVE: libc::c_int = libc::MSG_DONTWAIT;

/// Flags of every sending call: also no `SIGPIPE`.
const SEND: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// A new TCP socket for addresses of `addr`'s family, non-blocking and closed on exec.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn tcp_socket(addr: &SocketAddr) -> io::Result<OwnedFd> {
    trouble::fails(Call::Socket, None)?;
    let family = match addr {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = syscall!(socket(family, kind, 0))?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts to connect.
///
/// # Errors
///
/// The kernel's, among them those that mean that it is under way ([`is_in_progress`]).
pub(crate) fn connect(socket: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
    let (storage, bytes) = encode(addr);
    // SAFETY: `storage` holds a socket address of `bytes` bytes.
    let result = syscall!(connect(socket.as_raw_fd(), (&raw const storage).cast(), bytes));
    trouble::connected(result.map(drop))
}

/// Whether a `connect` that failed so is still under way.
pub(crate) fn is_in_progress(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR))
}

/// Binds a socket to an address of its family.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn bind(socket: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
    let (storage, bytes) = encode(addr);
    // SAFETY: `storage` holds a socket address of `bytes` bytes.
    syscall!(bind(socket.as_raw_fd(), (&raw const storage).cast(), bytes))?;
    Ok(())
}

/// Lets as many connections wait to be accepted as the system allows (`net.core.somaxconn`).
///
/// # Errors
///
/// The kernel's.
pub(crate) fn raise_backlog(listener: BorrowedFd<'_>) -> io::Result<()> {
    set_backlog(listener, u32::MAX)
}

/// Lets `backlog` connections and one more wait to be accepted, or as many as the system allows.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn set_backlog(listener: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    let backlog = libc::c_int::try_from(backlog).unwrap_or(libc::c_int::MAX);
    // SAFETY: no pointers.
    syscall!(listen(listener.as_raw_fd(), backlog))?;
    Ok(())
}

/// A TCP socket that listens at `addr`, and lets others do so beside it (`SO_REUSEPORT`): each
/// connection goes to one of them. Non-blocking and closed on exec, with the longest queue.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn listen_beside_others(addr: &SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp_socket(addr)?;
    for option in [libc::SO_REUSEADDR, libc::SO_REUSEPORT] {
        let (on, bytes): (libc::c_int, _) = (1, size_of::<libc::c_int>() as libc::socklen_t);
        let fd = socket.as_raw_fd();
        // SAFETY: the kernel reads an integer of so many bytes.
        syscall!(setsockopt(fd, libc::SOL_SOCKET, option, (&raw const on).cast(), bytes))?;
    }
    bind(socket.as_fd(), addr)?;
    raise_backlog(socket.as_fd())?;
    Ok(socket)
}

/// Whether a descriptor or memory was lacking, so that it may go better later.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    let lacking = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| lacking.contains(&code))
}

/// Whether accepting failed for one connection only, which had gone or was refused meanwhile.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    let gone = [
        libc::ECONNABORTED,
        libc::EPROTO,
        libc::EPERM,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::ENONET,
        libc::ENOPROTOOPT,
    ];
    error.raw_os_error().is_some_and(|code| gone.contains(&code))
}

/// Reads from a socket, without blocking.
///
/// # Errors
///
/// The kernel's.
#[inline]
pub(crate) fn recv(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    recv_with(socket, buf, RECEIVE)
}

/// Reads from a socket, without blocking and without taking what is read.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn peek(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    recv_with(socket, buf, RECEIVE | libc::MSG_PEEK)
}

#[inline(always)]
fn recv_with(socket: BorrowedFd<'_>, buf: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: the kernel writes at most as many bytes as `buf` has.
    let bytes = syscall!(recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags))?;
    Ok(bytes as usize)
}

/// Writes to a socket, without blocking.
///
/// # Errors
///
/// The kernel's.
#[inline]
pub(crate) fn send(socket: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads at most as many bytes as `buf` has.
    let bytes = syscall!(send(socket.as_raw_fd(), buf.as_ptr().cast(), buf.len(), SEND))?;
    Ok(bytes as usize)
}

/// Reads from a socket into several buffers, at most [`MAX_BUFFERS`], without blocking.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn recv_vectored(
    socket: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
) -> io::Result<usize> {
    let mut message = message(bufs.as_mut_ptr().cast(), bufs.len());
    // SAFETY: an `IoSliceMut` is laid out as an `iovec` is, the message names no more of them than
    // there are, and the kernel writes into those buffers only.
    let bytes = syscall!(recvmsg(socket.as_raw_fd(), &raw mut message, RECEIVE))?;
    Ok(bytes as usize)
}

/// Writes several buffers to a socket, at most [`MAX_BUFFERS`], without blocking.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn send_vectored(socket: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let message = message(bufs.as_ptr().cast_mut().cast(), bufs.len());
    // SAFETY: an `IoSlice` is laid out as an `iovec` is, the message names no more of them than there
    // are, and the kernel only reads.
    let bytes = syscall!(sendmsg(socket.as_raw_fd(), &raw const message, SEND))?;
    Ok(bytes as usize)
}

/// A message of these buffers, or of the first [`MAX_BUFFERS`].
fn message(bufs: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: all zeros is a valid `msghdr`, without addresses.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = bufs;
    message.msg_iovlen = count.min(MAX_BUFFERS) as _;
    message
}

/// Whether a descriptor is a TCP socket without another protocol over it (as TLS in the kernel, or
/// Multipath TCP), so that a short read or write of it means that there is no more for now. False if
/// the kernel does not tell.
pub(crate) fn is_plain_tcp(fd: BorrowedFd<'_>) -> bool {
    let mut name = [0_u8; 16];
    let mut bytes = name.len() as libc::socklen_t;
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_ULP);
    let (value, number) = (name.as_mut_ptr().cast(), fd.as_raw_fd());
    // SAFETY: the kernel writes at most `bytes` bytes to `value`, which has as many.
    let known = syscall!(getsockopt(number, level, option, value, &raw mut bytes));
    known.is_ok() && bytes == 0
}

/// Accepts a connection, non-blocking and closed on exec.
///
/// There is no flag of the call against blocking, so the listener is asked first whether it has a
/// connection: instead of accepting in vain, mostly. If another process both shares the file
/// description and has made it blocking, and takes the connection between these two calls, this one
/// waits for the next.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    trouble::fails(Call::Accept, Some(listener))?;
    poll::check_readable(listener)?;
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut bytes = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes at most `bytes` bytes into `storage`, which has as many.
    let fd = syscall!(accept4(
        listener.as_raw_fd(),
        storage.as_mut_ptr().cast(),
        &raw mut bytes,
        flags
    ))?;
    // SAFETY: the descriptor is new, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeros is a valid `sockaddr_storage`, and so is what the kernel wrote.
    let storage = unsafe { storage.assume_init() };
    Ok((fd, decode(&storage)?))
}

/// The address of a socket itself and that of its peer, as far as it has them and they are IP
/// addresses.
pub(crate) fn addresses(fd: RawFd) -> [Option<SocketAddr>; 2] {
    type Name =
        unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;
    let address = |name: Name| {
        let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let mut bytes = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `bytes` bytes into `storage`, which has as many. A number
        // that is no socket's gives an error.
        if unsafe { name(fd, storage.as_mut_ptr().cast(), &raw mut bytes) } != 0 {
            return None;
        }
        // SAFETY: all zeros is a valid `sockaddr_storage`, and so is what the kernel wrote.
        decode(&unsafe { storage.assume_init() }).ok()
    };
    [address(libc::getsockname), address(libc::getpeername)]
}

/// An address in the kernel's form, and how many bytes of it count.
fn encode(addr: &SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let bytes = match addr {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a `sockaddr_storage` is large and aligned enough for each kind of address.
            unsafe { storage.as_mut_ptr().cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { storage.as_mut_ptr().cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    // SAFETY: it was zeroed, and then one of the forms that it may have was written into it.
    (unsafe { storage.assume_init() }, bytes as libc::socklen_t)
}

fn decode(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which form the storage has.
            let raw = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Ok(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        family => {
            let text = format!("a peer's address is of family {family}, not an IP address");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, encode, is_plain_tcp};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn tcp_is_told_from_other_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(is_plain_tcp(listener.as_fd()) && is_plain_tcp(stream.as_fd()));
        let (unix, _) = UnixStream::pair().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(![unix.as_fd(), udp.as_fd(), file.as_fd()].into_iter().any(is_plain_tcp));
    }

    #[test]
    fn an_address_survives_the_kernels_form() {
        for text in ["127.0.0.1:8080", "0.0.0.0:0", "[::1]:65535", "[fe80::1%7]:22"] {
            let addr = text.parse().expect("a socket address");
            assert_eq!(decode(&encode(&addr).0).expect("an IP address"), addr);
        }
    }
}
