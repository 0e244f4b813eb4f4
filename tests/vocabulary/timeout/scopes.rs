//! What a scope and its timeout do: TO-01 to TO-09.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use stolon::event::Event;
use stolon::green::net::{TcpListener, TcpStream};
use stolon::pools::GetError;
use stolon::timeout::{AlreadyStarted, IsTimeout, TimedOut, Timeout, is_timeout, with_timeout};
use stolon::{hub, sleep, spawn};

use super::{HOUR, MS, NOW, compute, raised_by};
use crate::util::leak::guarded;

// TO-01
#[test]
fn of_nested_timeouts_the_one_that_expires_first_is_raised() {
    guarded(|| {
        let outer = Timeout::new(MS);
        let inner = Timeout::new(HOUR);
        assert!(outer.pending() && inner.pending());
        let payload = raised_by(|| inner.catch(|| sleep(HOUR)));
        assert!(outer.is(&*payload) && !inner.is(&*payload));
        assert!(!outer.pending() && !inner.pending());

        let outer = Timeout::new(HOUR);
        let inner = Timeout::new(MS);
        let ended = inner.catch(|| sleep(HOUR));
        assert!(ended.unwrap_err().is_of(&inner));
        assert!(outer.pending() && !inner.pending());
    });
}

// TO-03
#[test]
fn the_outer_timeout_escapes_an_inner_one_with_a_value() {
    guarded(|| {
        let ended = with_timeout(MS, || with_timeout(HOUR, || sleep(HOUR)).is_err());
        assert_eq!(ended.unwrap_err().duration(), MS);
        let value = with_timeout(HOUR, || with_timeout(MS, || sleep(HOUR)).map_or(2, |()| 1));
        assert_eq!(value, Ok(2));
    });
}

// TO-04
#[test]
fn what_never_yields_is_not_interrupted_but_at_its_next_yield() {
    guarded(|| {
        assert_eq!(with_timeout(MS, || compute(3 * MS)), Ok(()));
        // Alone, and with another that is runnable.
        for others in 0..2 {
            let green = (others > 0).then(|| spawn(|| (0..10).for_each(|_| sleep(NOW))));
            let reached = Cell::new(0);
            let ended = with_timeout(MS, || {
                compute(3 * MS);
                reached.set(1);
                sleep(NOW);
                reached.set(2);
            });
            assert!(ended.is_err());
            assert_eq!(reached.get(), 1);
            green.inspect(|green| green.wait());
        }
    });
}

#[test]
fn one_that_only_ever_yields_is_interrupted_in_time() {
    guarded(|| {
        let start = Instant::now();
        let ended = with_timeout(5 * MS, || {
            loop {
                sleep(NOW);
            }
        });
        assert!(ended.is_err() && start.elapsed() >= 5 * MS);
    });
}

// TO-05
#[test]
fn a_scope_that_ends_early_cancels_its_timeout() {
    guarded(|| {
        let start = Instant::now();
        assert_eq!(with_timeout(5 * MS, || 1), Ok(1));
        drop(Timeout::new(5 * MS));
        sleep(10 * MS);
        // That it is over is an error of nobody's, and the hub has nothing left to wait for.
        assert!(start.elapsed() >= 10 * MS);
        let never = Event::<()>::new();
        let text = raised_by(|| never.wait());
        assert!(text.downcast_ref::<String>().unwrap().contains("block forever"));
    });
}

// TO-06
#[test]
fn what_is_raised_can_be_chosen() {
    guarded(|| {
        let timeout = Timeout::raising(MS, "too late");
        let payload = raised_by(|| sleep(HOUR));
        assert_eq!(payload.downcast_ref(), Some(&"too late"));
        assert!(!timeout.is(&*payload) && !is_timeout(&*payload) && !timeout.pending());

        let timeout = Timeout::new(MS);
        let payload = raised_by(|| timeout.scope(|| sleep(HOUR)));
        assert!(timeout.is(&*payload) && is_timeout(&*payload));

        let silent = Timeout::silent(MS);
        assert_eq!(silent.scope(|| sleep(HOUR)), None);
        assert_eq!(silent.scope(|| 5), Some(5));
        // Silent is a matter of its own scope.
        let outer = Timeout::silent(MS);
        assert!(outer.is(&*raised_by(|| Timeout::silent(HOUR).scope(|| sleep(HOUR)))));

        let never = Timeout::new(None);
        assert!(!never.pending() && never.duration().is_none());
        assert_eq!(never.catch(|| sleep(MS)), Ok(()));
        assert_eq!(with_timeout(None, || 1), Ok(1));
    });
}

#[test]
fn timeouts_tell_how_long_they_are() {
    guarded(|| {
        let text = |timeout: Timeout| timeout.to_string();
        assert_eq!(text(Timeout::new(Duration::from_secs(1))), "1 second");
        assert_eq!(text(Timeout::new(Duration::from_secs(2))), "2 seconds");
        assert_eq!(text(Timeout::silent(Duration::from_secs(2))), "2 seconds (silent)");
        assert_eq!(text(Timeout::new(None)), "");
        let timed_out = with_timeout(MS, || sleep(HOUR)).unwrap_err();
        let error = io::Error::from(timed_out);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "timed out after 0.001 seconds");
        assert!(is_timeout(&error) && !is_timeout(&"timeout"));
    });
}

#[test]
fn errors_of_any_type_may_say_that_they_are_timeouts() {
    #[derive(Debug)]
    struct Wrapped(TimedOut);
    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }
    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }
    fn is(error: impl IsTimeout) -> bool {
        error.is_timeout()
    }
    guarded(|| {
        let timed_out = with_timeout(MS, || sleep(HOUR)).unwrap_err();
        assert!(is(timed_out.clone()) && is(io::Error::from(timed_out.clone())));
        assert!(is(io::Error::from(io::ErrorKind::TimedOut)));
        assert!(!is(io::Error::from(io::ErrorKind::WouldBlock)));
        assert!(is(RecvTimeoutError::Timeout) && !is(RecvTimeoutError::Disconnected));
        let connect = |kind: io::ErrorKind| GetError::Connect(io::Error::from(kind));
        assert!(is(connect(io::ErrorKind::TimedOut)) && !is(connect(io::ErrorKind::NotFound)));
        assert!(is(GetError::<io::Error>::Exhausted(MS)));
        assert!(is(GetError::<io::Error>::ConnectTimeout(MS)));
        // Behind `dyn`, and as a cause.
        let boxed = |error: Box<dyn Error + Send + Sync>| {
            let same = error.is_timeout();
            let error: Box<dyn Error> = error;
            assert_eq!(error.is_timeout(), same);
            same
        };
        assert!(boxed(timed_out.clone().into()) && boxed(Wrapped(timed_out).into()));
        assert!(boxed(io::Error::from(io::ErrorKind::TimedOut).into()));
        assert!(boxed(RecvTimeoutError::Timeout.into()));
        assert!(!boxed(io::Error::from(io::ErrorKind::NotFound).into()) && !boxed("late".into()));
    });
}

// TO-07
#[test]
fn a_timeout_cancelled_in_its_scope_does_nothing_and_a_pending_one_cannot_be_started() {
    guarded(|| {
        let timeout = Timeout::new(MS);
        let cancelled = timeout.catch(|| {
            timeout.cancel();
            timeout.cancel();
            sleep(5 * MS);
        });
        assert_eq!(cancelled, Ok(()));
        assert_eq!(timeout.start(), Ok(()));
        assert_eq!(timeout.start(), Err(AlreadyStarted));
        assert!(timeout.pending());
        // Once more after it has expired.
        for _ in 0..2 {
            assert!(timeout.catch(|| sleep(HOUR)).is_err() && !timeout.pending());
            timeout.start().unwrap();
        }
    });
}

// TO-08
#[test]
fn a_timeout_is_no_error_that_ordinary_code_could_handle() {
    guarded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let handled = Cell::new(false);
        let ended = with_timeout(MS, || {
            // A library that takes any error for the end.
            handled.set(client.read(&mut [0; 8]).is_err());
        });
        assert!(ended.is_err() && !handled.get());
        // The socket is as it was.
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    });
}

// TO-09
#[test]
fn a_timeout_of_zero_beats_a_sleep_of_zero() {
    guarded(|| {
        let reached = Cell::new(false);
        let ended = with_timeout(NOW, || {
            sleep(NOW);
            reached.set(true);
        });
        assert!(ended.is_err() && !reached.get());
        assert_eq!(with_timeout(NOW, || 1), Ok(1));
    });
}

#[test]
fn a_timeout_wins_over_a_sleep_that_ends_at_the_same_moment() {
    guarded(|| {
        for seed in 0..20 {
            hub::simulated(seed).run(|| {
                assert!(with_timeout(HOUR, || sleep(HOUR)).is_err());
                let later = HOUR + Duration::from_nanos(1);
                assert_eq!(with_timeout(later, || sleep(HOUR)), Ok(()));
            });
        }
    });
}

#[test]
fn who_sets_timeouts_of_zero_in_a_loop_starves_nobody() {
    guarded(|| {
        let done = Rc::new(Cell::new(false));
        let sets = Rc::clone(&done);
        spawn(move || {
            sleep(MS);
            sets.set(true);
        });
        while !done.get() {
            assert!(with_timeout(NOW, || sleep(HOUR)).is_err());
        }
        done.set(false);
        let sets = Rc::clone(&done);
        spawn(move || sets.set(true));
        assert!(with_timeout(NOW, || sleep(NOW)).is_err());
        assert!(done.get());
    });
}
