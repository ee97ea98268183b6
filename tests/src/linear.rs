//! Whether what several clients saw of one register can have happened one operation after the other, each between its
//! beginning and its end (Herlihy, Wing, "Linearizability", 1990; the search is that of Wing and Gong, 1993, with the
//! memory of Lowe, 2017).

use std::collections::HashSet;
use std::time::Instant;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Deed {
    /// The register was set to this; 0 is nothing.
    Write(u64),
    /// The register was this.
    Read(u64),
    /// What was there was taken away; false if nothing was there.
    Remove(bool),
}

/// One operation of one client.
#[derive(Debug, Clone)]
pub struct Operation {
    /// What was done.
    pub deed: Deed,
    /// When it was asked for.
    pub began: Instant,
    /// When it was answered.
    pub ended: Instant,
}

/// The register after a deed, if the deed can be done to it as it was.
fn after(register: u64, deed: &Deed) -> Option<u64> {
    match *deed {
        Deed::Write(value) => Some(value),
        Deed::Read(value) => (value == register).then_some(register),
        Deed::Remove(there) => (there == (register != 0)).then_some(0),
    }
}

/// Whether there is an order in which all operations can have happened, beginning with an empty register.
#[must_use]
pub fn is_linearizable(mut operations: Vec<Operation>) -> bool {
    operations.sort_by_key(|operation| operation.began);
    let mut search = Search { done: vec![false; operations.len()], seen: HashSet::new(), operations };
    let mut path = match search.step(0, 0) {
        Next::Possible(step) => vec![step],
        Next::AllDone => return true,
        Next::KnownToFail => return false,
    };
    while let Some(step) = path.last_mut() {
        if let Some(undone) = step.taken.take() {
            search.done[undone] = false;
        }
        let Some(place) = step.candidates.pop() else {
            path.pop();
            continue;
        };
        let Some(register) = after(step.register, &search.operations[place].deed) else { continue };
        let first = step.first;
        search.done[place] = true;
        step.taken = Some(place);
        match search.step(first, register) {
            Next::Possible(step) => path.push(step),
            Next::AllDone => return true,
            Next::KnownToFail => {}
        }
    }
    false
}

struct Search {
    operations: Vec<Operation>,
    done: Vec<bool>,
    /// Situations that were looked at: how many operations are done without a gap, which are behind the gap, and the
    /// register.
    seen: HashSet<(usize, Vec<usize>, u64)>,
}

/// A place on the way to an order.
struct Step {
    /// The first operation that is not done.
    first: usize,
    register: u64,
    /// What can come next and was not tried.
    candidates: Vec<usize>,
    /// What is being tried.
    taken: Option<usize>,
}

enum Next {
    AllDone,
    KnownToFail,
    Possible(Step),
}

impl Search {
    /// What can come next; all operations before `first` are done.
    fn step(&mut self, first: usize, register: u64) -> Next {
        let Some(first) = (first..self.done.len()).find(|&place| !self.done[place]) else {
            return Next::AllDone;
        };
        // Only what began before the first of the others ended can come next.
        let (mut candidates, mut behind) = (Vec::new(), Vec::new());
        let mut earliest_end: Option<Instant> = None;
        for place in first..self.done.len() {
            let operation = &self.operations[place];
            if earliest_end.is_some_and(|end| operation.began > end) {
                break;
            }
            if self.done[place] {
                behind.push(place);
            } else {
                earliest_end = Some(earliest_end.map_or(operation.ended, |end| end.min(operation.ended)));
                candidates.push(place);
            }
        }
        if !self.seen.insert((first, behind, register)) {
            return Next::KnownToFail;
        }
        // What changes nothing and can be done now need not wait: later it is at most as possible.
        let observes = |place: &&usize| after(register, &self.operations[**place].deed) == Some(register);
        if let Some(&observer) = candidates.iter().find(observes) {
            candidates = vec![observer];
        }
        // What ended first is tried first.
        candidates.sort_by_key(|&place| std::cmp::Reverse(self.operations[place].ended));
        Next::Possible(Step { first, register, candidates, taken: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Operations by their deeds and the times at which they began and ended.
    fn check(deeds: &[(Deed, u64, u64)]) -> bool {
        let zero = Instant::now();
        let at = |time: u64| zero + Duration::from_secs(time);
        let operation = |(deed, began, ended): &(Deed, u64, u64)| Operation {
            deed: deed.clone(),
            began: at(*began),
            ended: at(*ended),
        };
        is_linearizable(deeds.iter().map(operation).collect())
    }

    #[test]
    fn one_after_the_other() {
        assert!(check(&[]));
        assert!(check(&[(Deed::Read(0), 0, 1), (Deed::Write(1), 2, 3), (Deed::Read(1), 4, 5)]));
        assert!(check(&[(Deed::Write(1), 0, 1), (Deed::Remove(true), 2, 3), (Deed::Read(0), 4, 5)]));
        assert!(!check(&[(Deed::Write(1), 0, 1), (Deed::Read(0), 2, 3)]), "stale");
        assert!(!check(&[(Deed::Write(1), 0, 1), (Deed::Read(2), 2, 3)]), "never written");
        assert!(!check(&[(Deed::Remove(true), 0, 1)]), "nothing was there");
    }

    #[test]
    fn side_by_side() {
        let writes = [(Deed::Write(1), 0, 9), (Deed::Write(2), 0, 9)];
        let with = |reads: &[(Deed, u64, u64)]| check(&[&writes[..], reads].concat());
        assert!(with(&[(Deed::Read(2), 3, 4), (Deed::Read(1), 5, 6)]));
        assert!(with(&[(Deed::Read(0), 1, 2), (Deed::Read(2), 3, 4)]));
        assert!(!with(&[(Deed::Read(1), 1, 2), (Deed::Read(2), 3, 4), (Deed::Read(1), 5, 6)]), "back again");
        assert!(!with(&[(Deed::Read(1), 1, 2), (Deed::Read(0), 3, 4)]), "gone again");
    }

    #[test]
    fn many_at_once_are_decided_soon() {
        let mut deeds = Vec::new();
        for round in 0..200_u64 {
            for client in 0..16 {
                let deed =
                    if client % 2 == 0 { Deed::Write(round * 16 + client) } else { Deed::Read(round * 16) };
                deeds.push((deed, round * 10 + client % 3, round * 10 + 8));
            }
        }
        assert!(check(&deeds));
        let place = deeds.len() / 2 + 1;
        deeds[place].0 = Deed::Read(3);
        assert!(!check(&deeds));
    }
}
