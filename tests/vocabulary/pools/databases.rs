//! A connector has one pool for each database of each host, and credentials for the hosts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use stolon::pools::{ConnectionPoolBuilder, DatabaseConnector, GetError, Manager};
use stolon::{sleep, spawn};

use super::{MS, NOW, panics};
use crate::util::leak::guarded;

/// Opens connections that say what they were opened with, and notes when one is closed.
struct Opens {
    target: String,
    closed: Rc<RefCell<Vec<String>>>,
}

struct Open(String, Rc<RefCell<Vec<String>>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0.clone());
    }
}

impl Manager for Opens {
    type Connection = Open;
    type Error = String;

    fn connect(&self) -> Result<Open, String> {
        sleep(NOW);
        Ok(Open(self.target.clone(), Rc::clone(&self.closed)))
    }
}

type Closed = Rc<RefCell<Vec<String>>>;
type Connector = DatabaseConnector<&'static str, Opens>;

fn connector(credentials: &[(&'static str, &'static str)]) -> (Connector, Closed) {
    let closed = Closed::default();
    let closes = Rc::clone(&closed);
    let connector =
        DatabaseConnector::new(credentials.to_vec(), move |host, database, user: &&str| Opens {
            target: format!("{user}@{host}/{database}"),
            closed: Rc::clone(&closes),
        });
    (connector, closed)
}

fn target(connector: &Connector, host: &str, database: &str) -> String {
    connector.get(host, database).unwrap().get().unwrap().0.clone()
}

#[test]
fn each_database_of_each_host_has_a_pool_of_its_own_that_is_made_once() {
    guarded(|| {
        let (databases, closed) = connector(&[("db1", "root"), ("db2", "admin")]);
        assert!(databases.is_empty());
        assert_eq!(target(&databases, "db1", "users"), "root@db1/users");
        assert_eq!(target(&databases, "db1", "stock"), "root@db1/stock");
        assert_eq!(target(&databases, "db2", "users"), "admin@db2/users");
        assert_eq!((databases.len(), closed.borrow().len()), (3, 0));
        // What one handle has lent, another finds lent.
        let lent = databases.get("db1", "users").unwrap().get().unwrap();
        assert_eq!(databases.clone().get("db1", "users").unwrap().free(), 3);
        assert_eq!(databases.get("db1", "stock").unwrap().free(), 4);
        drop(lent);
        drop(databases);
        assert_eq!(closed.borrow().len(), 3);
    });
}

#[test]
fn hosts_without_credentials_have_the_default_ones_and_else_there_is_an_error() {
    guarded(|| {
        let (databases, _) = connector(&[("db1", "root"), ("default", "guest")]);
        assert_eq!(target(&databases, "db1", "users"), "root@db1/users");
        assert_eq!(target(&databases, "db9", "users"), "guest@db9/users");
        assert_eq!(databases.credentials_for("db9"), Some(&"guest"));
        let (databases, _) = connector(&[("db1", "root")]);
        assert_eq!(databases.credentials_for("db9"), None);
        let error = databases.get("db9", "users").unwrap_err();
        assert_eq!(error.host(), "db9");
        let text = "no credentials for the host `db9`, and no default ones";
        assert_eq!((error.to_string().as_str(), databases.len()), (text, 0));
        assert!(!format!("{databases:?}").contains("root"));
    });
}

#[test]
fn its_pools_are_of_the_size_and_the_times_that_it_was_told() {
    guarded(|| {
        let options = ConnectionPoolBuilder::new().max_size(1).max_idle(Duration::ZERO);
        let closed = Closed::default();
        let closes = Rc::clone(&closed);
        let make = move |host: &str, _: &str, (): &()| Opens {
            target: host.to_owned(),
            closed: Rc::clone(&closes),
        };
        let databases = DatabaseConnector::with_pools(options, [("db1", ())], make);
        let pool = databases.get("db1", "users").unwrap();
        let lent = pool.get().unwrap();
        assert!(matches!(pool.get_timeout(MS), Err(GetError::Exhausted(_))));
        drop(lent);
        assert_eq!((closed.take(), pool.free()), (vec![String::from("db1")], 1));
    });
}

#[test]
fn a_pool_that_is_removed_ends_with_its_handles_and_the_next_is_another() {
    guarded(|| {
        let (databases, closed) = connector(&[("default", "guest")]);
        let lent = databases.get("db1", "users").unwrap().get().unwrap();
        assert!(databases.remove("db1", "stock").is_none());
        assert!(databases.remove("db1", "users").is_some());
        assert!(databases.is_empty() && databases.remove("db1", "users").is_none());
        assert_eq!(databases.get("db1", "users").unwrap().free(), 4);
        assert!(closed.borrow().is_empty());
        drop(lent);
        assert_eq!(closed.take(), ["guest@db1/users"]);
    });
}

#[test]
fn what_makes_a_manager_may_block_and_fail_and_two_at_once_get_one_pool() {
    guarded(|| {
        let (made, fails) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(true)));
        let make = {
            let (made, fails) = (Rc::clone(&made), Rc::clone(&fails));
            move |host: &str, _: &str, (): &()| {
                sleep(MS);
                assert!(!fails.get(), "makes no manager");
                made.set(made.get() + 1);
                Opens { target: format!("{host}{}", made.get()), closed: Closed::default() }
            }
        };
        let databases = DatabaseConnector::new([("default", ())], make);
        assert!(panics(|| databases.get("db", "users")));
        assert!(databases.is_empty());
        fails.set(false);
        let greens = [0; 2].map(|_| {
            let databases = databases.clone();
            spawn(move || databases.get("db", "users").unwrap().get().unwrap().0.clone())
        });
        let targets = greens.map(|green| green.join().unwrap());
        assert_eq!((targets, made.get(), databases.len()), (["db1"; 2].map(String::from), 2, 1));
    });
}
