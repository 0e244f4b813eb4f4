//! Green TCP sockets beside std's: the same code over both comes to the same.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use crate::util::leak::guarded;
use crate::util::sockets::{closed_addr, pair, reset};
use stolon::{green, sleep, spawn};

const MS: Duration = Duration::from_millis(1);

/// Makes of each function a test that runs it twice, with the `TcpListener` and the `TcpStream` of
/// std and with green ones. `pair()` in it makes the two ends of a connection.
macro_rules! of_std_and_green {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => {
        $(
            $(#[$attribute])*
            #[test]
            fn $name() {
                fn of_std() {
                    #[allow(unused_imports)]
                    use std::net::{TcpListener, TcpStream};
                    #[allow(dead_code)]
                    fn pair() -> (TcpStream, TcpStream) {
                        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                        (near, listener.accept().unwrap().0)
                    }
                    $body
                }
                fn of_green() {
                    #[allow(unused_imports)]
                    use stolon::green::net::{TcpListener, TcpStream};
                    $body
                }
                guarded(of_std);
                guarded(of_green);
            }
        )*
    };
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

of_std_and_green! {
    // Connecting.

    fn both_ends_know_their_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let near = TcpStream::connect(addr).unwrap();
        let (far, peer) = listener.accept().unwrap();
        assert_ne!(addr.port(), 0);
        assert_eq!(near.peer_addr().unwrap(), addr);
        assert_eq!(far.local_addr().unwrap(), addr);
        assert_eq!(far.peer_addr().unwrap(), peer);
        assert_eq!(near.local_addr().unwrap(), peer);
        for text in [format!("{near:?}"), format!("{listener:?}")] {
            assert!(text.contains(&addr.to_string()), "{text}");
        }
    }

    fn version_6_addresses_work_alike() {
        // Not every machine has them.
        let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
        let addr = listener.local_addr().unwrap();
        let mut near = TcpStream::connect(addr).unwrap();
        let (mut far, peer) = listener.accept().unwrap();
        assert!(addr.is_ipv6() && peer == near.local_addr().unwrap());
        near.write_all(b"six").unwrap();
        let mut bytes = [0; 3];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"six");
    }

    fn a_closed_port_refuses() {
        let addr = closed_addr();
        let refused = Some(ErrorKind::ConnectionRefused);
        assert_eq!(kind(TcpStream::connect(addr)), refused);
        assert_eq!(kind(TcpStream::connect_timeout(&addr, Duration::from_secs(10))), refused);
    }

    fn of_several_addresses_the_first_that_works_is_taken() {
        let closed = closed_addr();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let near = TcpStream::connect(&[closed, open][..]).unwrap();
        assert_eq!(near.peer_addr().unwrap(), open);
        let refused = TcpStream::connect(&[closed, closed][..]);
        assert_eq!(kind(refused), Some(ErrorKind::ConnectionRefused));
        let other = TcpListener::bind(&[open, ([127, 0, 0, 1], 0).into()][..]).unwrap();
        assert_ne!(other.local_addr().unwrap(), open);
    }

    fn no_address_at_all_is_invalid() {
        let none: &[SocketAddr] = &[];
        assert_eq!(kind(TcpStream::connect(none)), Some(ErrorKind::InvalidInput));
        assert_eq!(kind(TcpListener::bind(none)), Some(ErrorKind::InvalidInput));
        assert_eq!(kind(TcpStream::connect("no address")), Some(ErrorKind::InvalidInput));
    }

    fn an_address_in_use_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let again = TcpListener::bind(listener.local_addr().unwrap());
        assert_eq!(kind(again), Some(ErrorKind::AddrInUse));
    }

    fn connect_timeout_connects() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut near = TcpStream::connect_timeout(&addr, Duration::from_secs(10)).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(b"byte").unwrap();
        drop(near);
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "byte");
    }

    fn connections_come_in_the_order_in_which_they_were_made() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let nears: Vec<_> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for (near, far) in nears.iter().zip(listener.incoming()) {
            assert_eq!(near.local_addr().unwrap(), far.unwrap().peer_addr().unwrap());
        }
    }

    // Options.

    fn zero_is_no_timeout() {
        let (near, _far) = pair();
        let invalid = Some(ErrorKind::InvalidInput);
        let addr = near.peer_addr().unwrap();
        assert_eq!(kind(near.set_read_timeout(Some(Duration::ZERO))), invalid);
        assert_eq!(kind(near.set_write_timeout(Some(Duration::ZERO))), invalid);
        assert_eq!(kind(TcpStream::connect_timeout(&addr, Duration::ZERO)), invalid);
    }

    fn timeouts_are_what_was_set() {
        let (near, _far) = pair();
        assert_eq!(near.read_timeout().unwrap(), None);
        assert_eq!(near.write_timeout().unwrap(), None);
        near.set_read_timeout(Some(400 * MS)).unwrap();
        near.set_write_timeout(Some(800 * MS)).unwrap();
        assert_eq!(near.read_timeout().unwrap(), Some(400 * MS));
        assert_eq!(near.write_timeout().unwrap(), Some(800 * MS));
        assert_eq!(near.try_clone().unwrap().read_timeout().unwrap(), Some(400 * MS));
        near.set_read_timeout(None).unwrap();
        assert_eq!(near.read_timeout().unwrap(), None);
    }

    fn options_are_what_was_set() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_ttl(41).unwrap();
        assert_eq!(listener.ttl().unwrap(), 41);
        assert!(listener.take_error().unwrap().is_none());
        let (near, _far) = pair();
        assert!(!near.nodelay().unwrap());
        near.set_nodelay(true).unwrap();
        near.set_ttl(42).unwrap();
        assert!(near.nodelay().unwrap() && near.ttl().unwrap() == 42);
        assert!(near.take_error().unwrap().is_none());
    }

    fn who_asks_not_to_block_gets_would_block() {
        let would_block = Some(ErrorKind::WouldBlock);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        listener.set_nonblocking(true).unwrap();
        near.set_nonblocking(true).unwrap();
        assert_eq!(kind(listener.accept()), would_block);
        assert_eq!(kind((&near).read(&mut [0; 8])), would_block);
        assert_eq!(kind(near.peek(&mut [0; 8])), would_block);
        let full = loop {
            if let Err(error) = (&near).write(&[0; 65536]) {
                break error.kind();
            }
        };
        assert_eq!(Some(full), would_block);
        near.set_nonblocking(false).unwrap();
        (&far).write_all(b"byte").unwrap();
        assert_eq!((&near).read(&mut [0; 8]).unwrap(), 4);
    }

    // Reading and writing.

    fn a_peek_takes_nothing() {
        let (mut near, mut far) = pair();
        near.write_all(b"abcdef").unwrap();
        let mut bytes = [0; 4];
        for _ in 0..2 {
            assert_eq!(far.peek(&mut bytes).unwrap(), 4);
            assert_eq!(&bytes, b"abcd");
        }
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"abcd");
        assert_eq!(far.read(&mut bytes).unwrap(), 2);
    }

    fn several_buffers_are_filled_and_written_in_order() {
        let (near, mut far) = pair();
        let words: [&[u8]; 4] = [b"ab", b"", b"cde", b"f"];
        assert_eq!((&near).write_vectored(&words.map(IoSlice::new)).unwrap(), 6);
        let (mut one, mut other) = ([0; 4], [0; 4]);
        let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
        assert_eq!(far.read_vectored(&mut bufs).unwrap(), 6);
        assert_eq!((&one, &other), (b"abcd", b"ef\0\0"));
    }

    fn a_clone_is_the_same_connection() {
        let (near, mut far) = pair();
        let clone = near.try_clone().unwrap();
        assert_ne!(clone.as_raw_fd(), near.as_raw_fd());
        (&near).write_all(b"one ").unwrap();
        (&clone).write_all(b"two").unwrap();
        drop(near);
        let mut bytes = [0; 7];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"one two");
        far.write_all(b"back").unwrap();
        assert_eq!((&clone).read(&mut bytes).unwrap(), 4);
    }

    fn a_clone_of_a_listener_accepts_too() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clone = listener.try_clone().unwrap();
        drop(listener);
        let near = TcpStream::connect(clone.local_addr().unwrap()).unwrap();
        assert_eq!(clone.accept().unwrap().1, near.local_addr().unwrap());
    }

    // Ending.

    fn a_closed_peer_is_the_end_of_the_stream() {
        let (mut near, mut far) = pair();
        near.write_all(b"last words").unwrap();
        drop(near);
        let mut text = String::new();
        assert_eq!(far.read_to_string(&mut text).unwrap(), 10);
        assert_eq!((text.as_str(), far.read(&mut [0; 8]).unwrap()), ("last words", 0));
    }

    fn shut_down_for_writing_it_can_still_read() {
        let (mut near, mut far) = pair();
        near.write_all(b"request").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(kind(near.write(b"more")), Some(ErrorKind::BrokenPipe));
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        far.write_all(b" answered").unwrap();
        drop(far);
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "request answered");
    }

    fn shut_down_for_reading_it_is_at_its_end() {
        let (mut near, mut far) = pair();
        near.shutdown(Shutdown::Read).unwrap();
        assert_eq!(near.read(&mut [0; 8]).unwrap(), 0);
        near.write_all(b"byte").unwrap();
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 4);
        near.shutdown(Shutdown::Both).unwrap();
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 0);
    }

    fn a_peer_that_vanishes_resets_the_connection() {
        let (near, mut far) = pair();
        reset(near);
        assert_eq!(kind(far.read(&mut [0; 8])), Some(ErrorKind::ConnectionReset));
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(kind(far.write(&[0; 8])), Some(ErrorKind::BrokenPipe));
        assert_eq!(kind(far.shutdown(Shutdown::Both)), Some(ErrorKind::NotConnected));
        assert_eq!(kind(far.peer_addr()), Some(ErrorKind::NotConnected));
    }

    fn a_reset_is_an_error_to_be_taken() {
        let (near, far) = pair();
        reset(near);
        let error = far.take_error().unwrap().expect("a pending error");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(far.take_error().unwrap().is_none());
    }
}

// Between the two worlds.

#[test]
fn sockets_go_back_and_forth_between_std_and_green() {
    guarded(|| {
        let (near, mut far) = pair();
        let fd = near.as_raw_fd();
        let mut std_stream = std::net::TcpStream::from(near);
        assert_eq!(std_stream.as_raw_fd(), fd);
        // It stays in non-blocking mode, as documented.
        assert_eq!(kind(std_stream.read(&mut [0; 8])), Some(ErrorKind::WouldBlock));
        std_stream.write_all(b"std ").unwrap();
        let mut near = green::net::TcpStream::from(std_stream);
        near.write_all(b"green ").unwrap();
        let owned = OwnedFd::from(near);
        assert_eq!(owned.as_raw_fd(), fd);
        let mut near = green::net::TcpStream::from(owned);
        near.write_all(b"owned").unwrap();
        assert_eq!(near.as_fd().as_raw_fd(), fd);
        drop(near);
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "std green owned");
    });
}

#[test]
fn a_std_socket_made_green_blocks_the_green_thread_only() {
    guarded(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = green::net::TcpListener::from(listener);
        let accepted = spawn(move || {
            let (mut far, _) = listener.accept().unwrap();
            let mut text = String::new();
            far.read_to_string(&mut text).unwrap();
            let back = std::net::TcpListener::from(listener);
            (text, kind(back.accept()))
        });
        // It waits, and this one runs.
        sleep(MS);
        let near = std::net::TcpStream::connect(addr).unwrap();
        let mut near = green::net::TcpStream::from(near);
        near.write_all(b"byte").unwrap();
        sleep(MS);
        drop(near);
        assert_eq!(accepted.wait(), ("byte".to_owned(), Some(ErrorKind::WouldBlock)));
    });
}

#[test]
fn a_socket_that_has_waited_can_leave_its_hub_and_come_back() {
    guarded(|| {
        let (near, mut far) = pair();
        for turn in 0..3 {
            near.set_read_timeout(Some(MS)).unwrap();
            assert_eq!(kind(near.peek(&mut [0; 8])), Some(ErrorKind::TimedOut), "{turn}");
        }
        let listener = green::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let raw = near.into_raw_fd();
        // A new owner of the number; only std can make one of it.
        #[allow(unsafe_code)]
        // SAFETY: the number was given up just now.
        let owned = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(raw) };
        let mut near = green::net::TcpStream::from(owned);
        far.write_all(b"byte").unwrap();
        assert_eq!(near.read(&mut [0; 8]).unwrap(), 4);
        drop(listener);
    });
}
