//! What the strangers of each process have of the bus, so that no process has more than its share: plain data.
//!
//! All processes of a user may make as many keys as they like, so a key says nothing about whose share it is; the
//! number of the process that connected does, as the kernel tells it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use core_types::limits::{PRESSING_DELIVERED_MAX, PROCESS_DELIVERED_MAX};

use crate::router::ConnectionId;
use crate::turns::Account;

/// How long a process presses after it was last seen asking for more than it waits for.
const PRESSES_FOR: Duration = Duration::from_secs(1);
/// From so many accounts on, those of which nothing is left are forgotten.
const FORGET_FROM: usize = 512;

#[derive(Default)]
struct State {
    /// Open connections that are not registered daemons'.
    connections: usize,
    /// Requests of theirs that services have and have not answered.
    delivered: usize,
    /// Connections whose oldest held request may go on when there is room.
    ready: VecDeque<ConnectionId>,
    presses_until: Option<Instant>,
    /// Whether it is among those that wait for room among the pressing ones.
    waits: bool,
}

/// A request of a stranger that was delivered, until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivered {
    account: Account,
    pressing: bool,
}

/// All processes with strangers.
#[derive(Default)]
pub(crate) struct Accounts {
    accounts: BTreeMap<Account, State>,
    /// Accounts with something ready, for which there may be room now.
    freed: VecDeque<Account>,
    waiting: VecDeque<Account>,
    pressing_delivered: usize,
}

impl Accounts {
    /// A connection of the process is there.
    pub(crate) fn join(&mut self, account: Account, now: Instant) {
        if self.accounts.len() >= FORGET_FROM {
            let presses = |state: &State| state.presses_until.is_some_and(|until| now < until);
            self.accounts.retain(|_, state| state.connections + state.delivered > 0 || presses(state));
        }
        self.accounts.entry(account).or_default().connections += 1;
    }

    /// A connection of the process has gone, or is a registered daemon's.
    pub(crate) fn leave(&mut self, account: Account) {
        if let Some(state) = self.accounts.get_mut(&account) {
            state.connections -= 1;
        }
    }

    /// How many connections the process has.
    pub(crate) fn connections(&self, account: Account) -> usize {
        self.accounts.get(&account).map_or(0, |state| state.connections)
    }

    /// The process asked for more than it waits for.
    pub(crate) fn press(&mut self, account: Account, now: Instant) {
        self.accounts.entry(account).or_default().presses_until = Some(now + PRESSES_FOR);
    }

    /// Whether it did so lately.
    pub(crate) fn is_pressing(&self, account: Account, now: Instant) -> bool {
        let until = self.accounts.get(&account).and_then(|state| state.presses_until);
        until.is_some_and(|until| now < until)
    }

    /// Whether a service may get one more request of the process.
    pub(crate) fn has_room(&self, account: Account, now: Instant) -> bool {
        self.accounts.get(&account).is_none_or(|state| state.delivered < PROCESS_DELIVERED_MAX)
            && (self.pressing_delivered < PRESSING_DELIVERED_MAX || !self.is_pressing(account, now))
    }

    /// A service gets a request of the process.
    pub(crate) fn deliver(&mut self, account: Account, now: Instant) -> Delivered {
        let pressing = self.is_pressing(account, now);
        self.accounts.entry(account).or_default().delivered += 1;
        self.pressing_delivered += usize::from(pressing);
        Delivered { account, pressing }
    }

    /// A request that was delivered is no longer waited for.
    pub(crate) fn settle(&mut self, delivered: Delivered) {
        self.pressing_delivered -= usize::from(delivered.pressing);
        if let Some(state) = self.accounts.get_mut(&delivered.account) {
            state.delivered -= 1;
            if !state.ready.is_empty() {
                self.freed.push_back(delivered.account);
            }
        }
    }

    /// The oldest held request of a connection of the process may go on as soon as there is room.
    pub(crate) fn ready(&mut self, account: Account, connection: ConnectionId) {
        self.accounts.entry(account).or_default().ready.push_back(connection);
        self.freed.push_back(account);
    }

    /// A connection whose oldest held request is to go on now; of each process the one that is ready for longest.
    pub(crate) fn next_ready(&mut self, now: Instant) -> Option<ConnectionId> {
        loop {
            let account = match self.freed.pop_front() {
                Some(account) => account,
                None if self.pressing_delivered < PRESSING_DELIVERED_MAX => {
                    let account = self.waiting.pop_front()?;
                    if let Some(state) = self.accounts.get_mut(&account) {
                        state.waits = false;
                    }
                    account
                }
                None => return None,
            };
            let room = self.has_room(account, now);
            let Some(state) = self.accounts.get_mut(&account) else { continue };
            if room {
                let Some(connection) = state.ready.pop_front() else { continue };
                if !state.ready.is_empty() {
                    self.freed.push_back(account);
                }
                return Some(connection);
            }
            // With its own share used up, an answer to it frees it again.
            if state.delivered < PROCESS_DELIVERED_MAX && !state.ready.is_empty() && !state.waits {
                state.waits = true;
                self.waiting.push_back(account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_no_more_delivered_than_its_share_and_others_go_on() {
        let (mut accounts, now) = (Accounts::default(), Instant::now());
        let taken: Vec<_> = (0..PROCESS_DELIVERED_MAX).map(|_| accounts.deliver(1, now)).collect();
        assert!(!accounts.has_room(1, now) && accounts.has_room(2, now));
        accounts.ready(1, 10);
        accounts.ready(1, 11);
        assert_eq!(accounts.next_ready(now), None);
        accounts.settle(taken[0]);
        assert_eq!(accounts.next_ready(now), Some(10));
        accounts.deliver(1, now);
        assert_eq!(accounts.next_ready(now), None);
        accounts.settle(taken[1]);
        assert_eq!((accounts.next_ready(now), accounts.next_ready(now)), (Some(11), None));
    }

    #[test]
    fn processes_that_press_share_a_few_places_in_turn() {
        let (mut accounts, now) = (Accounts::default(), Instant::now());
        let mut taken = VecDeque::new();
        for account in 1..=20 {
            accounts.press(account, now);
            accounts.ready(account, u64::try_from(account).unwrap());
        }
        let mut order = Vec::new();
        for _ in 0..20 {
            while let Some(connection) = accounts.next_ready(now) {
                order.push(connection);
                taken.push_back(accounts.deliver(i32::try_from(connection).unwrap(), now));
            }
            assert!(taken.len() <= PRESSING_DELIVERED_MAX);
            assert!(accounts.has_room(99, now), "who does not press is not held up");
            accounts.settle(taken.pop_front().unwrap());
        }
        assert_eq!(order, (1..=20).collect::<Vec<_>>());
        assert!(!accounts.is_pressing(1, now + PRESSES_FOR));
    }

    #[test]
    fn what_is_left_of_processes_that_have_gone_is_forgotten() {
        let (mut accounts, now) = (Accounts::default(), Instant::now());
        for account in 0..5_000 {
            accounts.join(account, now);
            accounts.leave(account);
        }
        assert!(accounts.accounts.len() <= FORGET_FROM);
    }
}
