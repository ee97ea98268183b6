//! Whose turn it is: registered daemons, strangers and strangers that press each have a share of the bus, and among
//! strangers each process has one place, however many connections it has.
//!
//! A process presses for a while after it has asked for more than it waits for. What such processes send is taken
//! too, but at a pace that leaves the processor to the others.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::router::ConnectionId;

/// A process, as far as strangers are told apart by it: the number that the kernel gives for the connection.
pub(crate) type Account = i32;

/// Who gets a turn out of so many, if there is one: the daemons, whose answers others wait for, once each time.
const ROUND: [Class; 6] =
    [Class::Daemon, Class::Stranger, Class::Stranger, Class::Stranger, Class::Stranger, Class::Pressing];
/// Between two turns of those that press: what makes them send more, namely an answer, comes no faster.
const PRESSING_PACE: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Daemon,
    Stranger,
    Pressing,
}

/// Where a connection waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// With the registered daemons.
    Daemon,
    /// With the connections of its process.
    Stranger(Account),
    /// With the connections of its process, which presses.
    Pressing(Account),
}

/// One place for each key, and behind it what waits there.
struct Ring<K> {
    order: VecDeque<K>,
    waiting: BTreeMap<K, VecDeque<ConnectionId>>,
}

impl<K: Copy + Ord> Ring<K> {
    fn new() -> Self {
        Self { order: VecDeque::new(), waiting: BTreeMap::new() }
    }

    fn push(&mut self, key: K, id: ConnectionId) {
        let line = self.waiting.entry(key).or_default();
        if line.is_empty() {
            self.order.push_back(key);
        }
        line.push_back(id);
    }

    fn remove(&mut self, key: K, id: ConnectionId) {
        let Some(line) = self.waiting.get_mut(&key) else { return };
        line.retain(|waiting| *waiting != id);
        if line.is_empty() {
            self.waiting.remove(&key);
            self.order.retain(|other| *other != key);
        }
    }

    fn pop(&mut self) -> Option<ConnectionId> {
        let key = self.order.pop_front()?;
        let line = self.waiting.get_mut(&key)?;
        let id = line.pop_front();
        if line.is_empty() {
            self.waiting.remove(&key);
        } else {
            self.order.push_back(key);
        }
        id
    }
}

/// All connections that wait for their turn.
pub(crate) struct Turns {
    daemons: VecDeque<ConnectionId>,
    strangers: Ring<Account>,
    pressing: Ring<Account>,
    place: usize,
    pressing_again: Option<Instant>,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self {
            daemons: VecDeque::new(),
            strangers: Ring::new(),
            pressing: Ring::new(),
            place: 0,
            pressing_again: None,
        }
    }

    /// Has a connection wait for its turn.
    pub(crate) fn push(&mut self, id: ConnectionId, lane: Lane) {
        match lane {
            Lane::Daemon => self.daemons.push_back(id),
            Lane::Stranger(account) => self.strangers.push(account, id),
            Lane::Pressing(account) => self.pressing.push(account, id),
        }
    }

    /// A connection of a process has ended. That of one that presses must not keep its place from the next one.
    pub(crate) fn remove(&mut self, id: ConnectionId, account: Account) {
        self.pressing.remove(account, id);
    }

    /// The connection whose turn it is; `None` when nobody's is now.
    pub(crate) fn next(&mut self, now: Instant) -> Option<ConnectionId> {
        for step in 0..ROUND.len() {
            let place = (self.place + step) % ROUND.len();
            let next = match ROUND[place] {
                Class::Daemon => self.daemons.pop_front(),
                Class::Stranger => self.strangers.pop(),
                Class::Pressing if self.pressing_again.is_some_and(|again| now < again) => None,
                Class::Pressing => self.pressing.pop(),
            };
            if next.is_some() {
                if ROUND[place] == Class::Pressing {
                    self.pressing_again = Some(now + PRESSING_PACE);
                }
                self.place = place + 1;
                return next;
            }
        }
        None
    }

    /// When [`Self::next`] has someone; `None` for never, as it is now.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        if !self.daemons.is_empty() || !self.strangers.order.is_empty() {
            Some(now)
        } else if self.pressing.order.is_empty() {
            None
        } else {
            Some(self.pressing_again.unwrap_or(now))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_one_place_among_the_strangers() {
        let (mut turns, now) = (Turns::new(), Instant::now());
        for id in 1..=200 {
            turns.push(id, Lane::Stranger(1));
        }
        turns.push(500, Lane::Stranger(2));
        let order: Vec<_> = std::iter::from_fn(|| turns.next(now)).collect();
        assert_eq!(order[..3], [1, 500, 2]);
        assert_eq!(order.len(), 201);
        assert_eq!(turns.next_due(now), None);
        assert!(turns.strangers.waiting.is_empty());
    }

    #[test]
    fn those_that_press_come_after_the_others_and_at_their_pace() {
        let (mut turns, now) = (Turns::new(), Instant::now());
        for id in 1..=20 {
            turns.push(id, Lane::Pressing(i32::try_from(id).unwrap()));
        }
        turns.push(100, Lane::Stranger(100));
        turns.push(200, Lane::Daemon);
        assert_eq!([turns.next(now), turns.next(now), turns.next(now)], [Some(200), Some(100), Some(1)]);
        assert_eq!(turns.next(now), None);
        let again = turns.next_due(now).unwrap();
        assert_eq!(again, now + PRESSING_PACE);
        turns.push(100, Lane::Stranger(100));
        assert_eq!(turns.next_due(now), Some(now));
        turns.remove(2, 2);
        assert_eq!([turns.next(now), turns.next(again), turns.next(again)], [Some(100), Some(3), None]);
    }

    #[test]
    fn daemons_and_strangers_share_however_many_of_each_wait() {
        let (mut turns, now) = (Turns::new(), Instant::now());
        for id in 0..50 {
            turns.push(id, Lane::Daemon);
            turns.push(100 + id, Lane::Stranger(i32::try_from(id).unwrap()));
        }
        let first: Vec<_> = (0..10).filter_map(|_| turns.next(now)).collect();
        assert_eq!(first.iter().filter(|id| **id < 100).count(), 2);
    }
}
