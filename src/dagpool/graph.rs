//! What a pool knows: values, tasks, and who waits for which key.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::{Rc, Weak};

use super::values::Mailbox;
use super::{Key, Outcome, SpawnError};
use crate::greenthread::GreenThread;

pub(super) struct Graph<K, V: 'static> {
    values: HashMap<K, Outcome<K, V>>,
    /// By number, in the order in which they were spawned.
    tasks: BTreeMap<u64, Task<K>>,
    /// Which task a key has.
    numbers: HashMap<K, u64>,
    next_number: u64,
    /// Who is to be told when a key gets a value.
    mailboxes: HashMap<K, Vec<Weak<Mailbox<K>>>>,
}

/// A green thread that makes a value.
pub(super) struct Task<K> {
    key: K,
    depends: Vec<K>,
    /// None while it is being spawned.
    pub(super) green: Option<GreenThread<()>>,
}

impl<K: Key, V: 'static> Graph<K, V> {
    pub(super) fn new() -> Self {
        Self {
            values: HashMap::new(),
            tasks: BTreeMap::new(),
            numbers: HashMap::new(),
            next_number: 0,
            mailboxes: HashMap::new(),
        }
    }

    /// Enters tasks that are about to be spawned: all of them, or none.
    pub(super) fn plan(&mut self, tasks: Vec<(K, Vec<K>)>) -> Result<(), SpawnError<K>> {
        let mut keys = HashSet::new();
        for (key, _) in &tasks {
            if self.is_taken(key) || !keys.insert(key.clone()) {
                return Err(SpawnError::Collision(key.clone()));
            }
        }
        let first = self.next_number;
        let keys: Vec<K> = tasks.iter().map(|(key, _)| key.clone()).collect();
        for (key, depends) in tasks {
            self.numbers.insert(key.clone(), self.next_number);
            self.tasks.insert(self.next_number, Task { key, depends, green: None });
            self.next_number += 1;
        }
        for key in &keys {
            if let Some(cycle) = self.cycle_from(key) {
                self.tasks.split_off(&first);
                for key in &keys {
                    self.numbers.remove(key);
                }
                return Err(SpawnError::Cycle(cycle));
            }
        }
        Ok(())
    }

    fn is_taken(&self, key: &K) -> bool {
        self.values.contains_key(key) || self.numbers.contains_key(key)
    }

    /// The keys on a way along what tasks wait for, from `key` back to it; if there is one.
    fn cycle_from(&self, key: &K) -> Option<Vec<K>> {
        // Each key that was come to, and where from.
        let mut from: HashMap<&K, &K> = HashMap::new();
        let mut ahead = vec![key];
        while let Some(next) = ahead.pop() {
            let Some(task) = self.numbers.get(next).and_then(|number| self.tasks.get(number))
            else {
                continue;
            };
            for depend in task.depends.iter().filter(|depend| !self.values.contains_key(depend)) {
                if depend == key {
                    let mut way = vec![next.clone()];
                    while let Some(before) = from.get(&way[way.len() - 1]) {
                        way.push(K::clone(before));
                    }
                    way.reverse();
                    way.push(key.clone());
                    return Some(way);
                }
                if !from.contains_key(depend) {
                    from.insert(depend, next);
                    ahead.push(depend);
                }
            }
        }
        None
    }

    /// The number of the task that a key has been given.
    pub(super) fn number_of(&self, key: &K) -> u64 {
        self.numbers[key]
    }

    /// Notes the green thread of a task that was spawned.
    pub(super) fn set_green(&mut self, number: u64, green: GreenThread<()>) {
        if let Some(task) = self.tasks.get_mut(&number) {
            task.green = Some(green);
        }
    }

    /// Takes a task out, if it is there.
    pub(super) fn take_task(&mut self, number: u64) -> Option<Task<K>> {
        let task = self.tasks.remove(&number)?;
        self.numbers.remove(&task.key);
        Some(task)
    }

    /// Takes the task of a key out.
    pub(super) fn remove_task(&mut self, key: &K) -> Option<Task<K>> {
        let number = *self.numbers.get(key)?;
        self.take_task(number)
    }

    /// Whether a key may be posted here and now; if not, the key.
    pub(super) fn check_post(&self, key: &K, replaces: bool) -> Result<(), K> {
        let task = self.numbers.get(key).and_then(|number| self.tasks.get(number));
        let is_foreign =
            task.is_some_and(|task| task.green.as_ref().is_none_or(|green| !green.is_current()));
        let collides = is_foreign || (!replaces && self.values.contains_key(key));
        if collides { Err(key.clone()) } else { Ok(()) }
    }

    /// Sets what a key has, tells who waits for it, and returns what it had.
    pub(super) fn set(&mut self, key: K, outcome: Outcome<K, V>) -> Option<Outcome<K, V>> {
        for mailbox in self.mailboxes.remove(&key).into_iter().flatten() {
            if let Some(mailbox) = mailbox.upgrade() {
                mailbox.put(key.clone());
            }
        }
        self.values.insert(key, outcome)
    }

    pub(super) fn get(&self, key: &K) -> Option<Outcome<K, V>> {
        self.values.get(key).cloned()
    }

    /// Has `mailbox` get `key` when it has a value.
    pub(super) fn subscribe(&mut self, key: K, mailbox: &Rc<Mailbox<K>>) {
        let mailboxes = self.mailboxes.entry(key).or_default();
        // Of those who gave up, each time that there is no room.
        if mailboxes.len() == mailboxes.capacity() {
            mailboxes.retain(|mailbox| mailbox.strong_count() > 0);
        }
        mailboxes.push(Rc::downgrade(mailbox));
    }

    pub(super) fn keys(&self) -> Vec<K> {
        self.values.keys().cloned().collect()
    }

    /// All keys that have a value or a task, or that a task depends on.
    pub(super) fn known(&self) -> HashSet<K> {
        let depends = self.tasks.values().flat_map(|task| &task.depends);
        self.values.keys().chain(self.numbers.keys()).chain(depends).cloned().collect()
    }

    pub(super) fn running_keys(&self) -> Vec<K> {
        self.tasks.values().map(|task| task.key.clone()).collect()
    }

    pub(super) fn waiting_for(&self, key: &K) -> Vec<K> {
        let task = self.numbers.get(key).and_then(|number| self.tasks.get(number));
        let depends = task.into_iter().flat_map(|task| &task.depends);
        depends.filter(|depend| !self.values.contains_key(depend)).cloned().collect()
    }
}
