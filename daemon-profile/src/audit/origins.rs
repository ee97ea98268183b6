//! What each sending process has had recorded, so that what it sends again is not recorded again.

use std::collections::VecDeque;

use super::line::Recorder;

/// Most processes remembered: two daemons send, so this is many restarts of them.
const ORIGINS_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    by: String,
    number: u64,
    next: u64,
}

/// The next entry expected of each process, the one heard of last in front.
#[derive(Debug, Default)]
pub(crate) struct Origins(VecDeque<Origin>);

impl Origins {
    /// How many of the entries from `first` on, sent by this process, are recorded already.
    pub(crate) fn recorded(&self, by: &str, origin: u64, first: u64) -> u64 {
        self.position(by, origin).map_or(0, |index| self.0[index].next.saturating_sub(first))
    }

    /// Takes note that all entries before `next` of this process are recorded.
    pub(crate) fn advance(&mut self, by: &str, origin: u64, next: u64) {
        let known = self.position(by, origin).and_then(|index| self.0.remove(index));
        let next = known.map_or(next, |known| known.next.max(next));
        self.0.push_front(Origin { by: by.to_owned(), number: origin, next });
        self.0.truncate(ORIGINS_MAX);
    }

    /// Takes over the recorder of a line of the log, when they are read from the last to the first.
    pub(crate) fn read_back(&mut self, recorder: &Recorder) {
        let Some((origin, number)) = recorder.numbered() else { return };
        let next = number.saturating_add(1);
        match self.position(&recorder.by, origin) {
            Some(index) => self.0[index].next = self.0[index].next.max(next),
            None if self.0.len() < ORIGINS_MAX => {
                self.0.push_back(Origin { by: recorder.by.clone(), number: origin, next });
            }
            None => {}
        }
    }

    fn position(&self, by: &str, origin: u64) -> Option<usize> {
        self.0.iter().position(|known| known.number == origin && known.by == by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_known_per_process_of_a_daemon() {
        let mut origins = Origins::default();
        origins.advance("a", 1, 5);
        assert_eq!(origins.recorded("a", 1, 3), 2);
        assert_eq!(origins.recorded("a", 1, 5), 0);
        assert_eq!(origins.recorded("a", 1, 9), 0);
        assert_eq!(origins.recorded("a", 2, 3), 0);
        assert_eq!(origins.recorded("b", 1, 3), 0);
        origins.advance("a", 1, 4);
        assert_eq!(origins.recorded("a", 1, 0), 5, "a repetition takes nothing back");
    }

    #[test]
    fn the_process_heard_of_longest_ago_is_forgotten_first() {
        let mut origins = Origins::default();
        for number in 0..ORIGINS_MAX as u64 {
            origins.advance("a", number, 1);
        }
        origins.advance("a", 0, 2);
        origins.advance("a", 1_000, 1);
        assert_eq!(origins.0.len(), ORIGINS_MAX);
        assert_eq!(origins.recorded("a", 0, 0), 2);
        assert_eq!(origins.recorded("a", 1, 0), 0);
    }

    #[test]
    fn the_last_line_of_a_process_says_what_was_recorded() {
        let mut origins = Origins::default();
        for number in (0..3).rev() {
            origins.read_back(&Recorder::daemon("a", 9, number));
        }
        origins.read_back(&Recorder::own());
        assert_eq!(origins.recorded("a", 9, 0), 3);
        assert_eq!(origins.0.len(), 1);
    }
}
