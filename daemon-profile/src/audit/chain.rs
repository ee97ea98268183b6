//! The check of the chain, pure: lines in, the first fault out.
//!
//! A plain hash chain shows every change before its last entry, unless all hashes after it were made anew. The proofs
//! show that too, to who can make the keys again: whoever changed an entry did not have its key any more. A cut tail
//! shows to who knows where the log ends, and by the proof of the entry that is written after it.

use std::collections::BTreeMap;

use core_crypto::hash_chain::Link;
use core_crypto::log_key::LogKey;
use core_types::ProfileName;
use core_types::protocol::profile::{AuditFault, AuditPoint, AuditReport, Unproved};

use super::line::{Head, Torn, is_proved};

/// Longest piece of a file that is kept in memory, in bytes: an entry is far shorter, a torn piece may be longer.
pub(crate) const PIECE_BYTES_MAX: usize = 4 << 20;

/// Where a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Sequence number of the entry to come.
    pub(crate) next: u64,
    /// Hash of the last entry.
    pub(crate) link: Link,
}

impl End {
    /// The end of a log without entries.
    pub(crate) const EMPTY: Self = Self { next: 1, link: Link::GENESIS };

    /// The last entry, and all before it.
    pub(crate) fn point(self) -> AuditPoint {
        AuditPoint { sequence: self.next - 1, link: *self.link.as_bytes() }
    }
}

/// The keys that can be made again, by the number of the entry that each begins after.
pub(crate) type Keys = BTreeMap<u64, LogKey>;

/// Follows a chain from its first line on.
pub(crate) struct Verifier {
    end: End,
    entries: u64,
    /// Lines that are no entries, until the entry that marks them as torn.
    pending: Option<Vec<u8>>,
    /// Where the first line begins, if that is not the beginning of a log: until an entry says that what was before
    /// was removed because of its age.
    unvouched: Option<End>,
    keys: Keys,
    /// The key of the entry to come, where it is known, and the profile that has it.
    key: Option<LogKey>,
    profile: Option<ProfileName>,
    unproved: Vec<Unproved>,
}

impl Verifier {
    /// A check that has seen nothing yet, and can check proofs with these keys.
    pub(crate) fn new(keys: Keys) -> Self {
        let (key, profile) = (None, None);
        let (pending, unvouched, unproved) = (None, None, Vec::new());
        Self { end: End::EMPTY, entries: 0, pending, unvouched, keys, key, profile, unproved }
    }

    /// How far the chain has been found good.
    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// Takes the next line, without its line feed.
    ///
    /// # Errors
    /// The chain breaks here; nothing more may be given.
    pub(crate) fn line(&mut self, line: &[u8]) -> Result<(), AuditFault> {
        self.follow(line).map_err(|fault| self.not_the_beginning().unwrap_or(fault))
    }

    fn follow(&mut self, line: &[u8]) -> Result<(), AuditFault> {
        let Some(head) = Head::parse(line) else { return self.not_an_entry(line) };
        if self.entries == 0 && head.sequence > 1 && self.pending.is_none() {
            self.end = End { next: head.sequence, link: head.previous };
            self.unvouched = Some(self.end);
        }
        self.check_torn(head.torn.as_ref())?;
        self.check_sequence(&head)?;
        if head.previous != self.end.link {
            return Err(self.broken_link());
        }
        self.check_proof(&head, line)?;
        self.end = End { next: head.sequence + 1, link: self.end.link.next(line) };
        self.entries += 1;
        self.take_note(head)
    }

    /// Ends the check. With `expected`, the chain must end just there.
    pub(crate) fn finish(self, expected: Option<End>) -> AuditReport {
        let fault = match (&self.pending, expected) {
            _ if self.unvouched.is_some() => self.not_the_beginning(),
            (Some(_), _) => Some(self.unreadable()),
            (None, Some(expected)) if self.end.next < expected.next => {
                Some(fault(self.end.next, "it is missing: the log ends before it".to_owned()))
            }
            (None, Some(expected)) if self.end != expected => {
                Some(fault(self.end.next - 1, "it is not the entry that was written last".to_owned()))
            }
            (None, _) => None,
        };
        self.report(fault)
    }

    /// The report of a check that ended with `fault`.
    pub(crate) fn report(&self, fault: Option<AuditFault>) -> AuditReport {
        AuditReport { entries: self.entries, fault, unproved: self.unproved.clone() }
    }

    fn check_proof(&mut self, head: &Head, line: &[u8]) -> Result<(), AuditFault> {
        let sequence = head.sequence;
        match &mut self.key {
            Some(key) if is_proved(key, &self.end.link, line) => key.advance(),
            Some(_) => {
                return Err(fault(sequence, "it is not proved: another than this log wrote it".to_owned()));
            }
            None => match self.unproved.last_mut() {
                Some(last) if last.last + 1 == sequence && last.profile == self.profile => {
                    last.last = sequence
                }
                _ => {
                    let profile = self.profile.clone();
                    self.unproved.push(Unproved { first: sequence, last: sequence, profile });
                }
            },
        }
        Ok(())
    }

    /// Takes over what an entry says of the log.
    fn take_note(&mut self, head: Head) -> Result<(), AuditFault> {
        if let Some((profile, _)) = head.key {
            self.key = self.keys.remove(&head.sequence);
            self.profile = Some(profile);
        }
        if let (Some(kept), Some(beginning)) = (head.kept, self.unvouched)
            && (kept.sequence, kept.previous) == (beginning.next, beginning.link.to_hex())
        {
            self.unvouched = None;
        }
        match head.broken {
            Some((sequence, reason)) => Err(fault(sequence, reason)),
            None => Ok(()),
        }
    }

    fn not_the_beginning(&self) -> Option<AuditFault> {
        let next = self.unvouched?.next;
        Some(fault(1, format!("it is missing: the log begins with entry {next}")))
    }

    fn not_an_entry(&mut self, line: &[u8]) -> Result<(), AuditFault> {
        let pending = match self.pending.take() {
            None => line.to_vec(),
            Some(mut pieces) => {
                pieces.push(b'\n');
                pieces.extend_from_slice(line);
                pieces
            }
        };
        if pending.len() > PIECE_BYTES_MAX {
            return Err(self.unreadable());
        }
        self.pending = Some(pending);
        Ok(())
    }

    fn check_torn(&mut self, marked: Option<&Torn>) -> Result<(), AuditFault> {
        match (self.pending.take(), marked) {
            (None, None) => Ok(()),
            (Some(pieces), Some(marked)) if Torn::of(&pieces) == *marked => Ok(()),
            (Some(_), _) => Err(self.unreadable()),
            (None, Some(_)) => {
                Err(fault(self.end.next, "the torn line that it marks is missing or was changed".to_owned()))
            }
        }
    }

    fn check_sequence(&self, head: &Head) -> Result<(), AuditFault> {
        let (found, expected) = (head.sequence, self.end.next);
        if found == expected {
            Ok(())
        } else if found > expected {
            Err(fault(expected, format!("it is missing: entry {found} stands in its place")))
        } else if found == expected - 1 && head.previous != self.end.link {
            Err(fault(found, "it stands there twice".to_owned()))
        } else {
            Err(fault(expected, format!("it says that it is entry {found}")))
        }
    }

    fn broken_link(&self) -> AuditFault {
        match self.end.next {
            1 => fault(1, "it is not the beginning of a log: it continues another entry".to_owned()),
            next => fault(next - 1, format!("its hash is not the one that entry {next} holds")),
        }
    }

    fn unreadable(&self) -> AuditFault {
        fault(self.end.next, "what stands in its place is no entry".to_owned())
    }
}

fn fault(sequence: u64, reason: String) -> AuditFault {
    AuditFault { sequence, reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::line::{Entry, KeyMark, Mark, Recorder, samples, write_line};
    use super::*;

    fn intact(entries: u64) -> AuditReport {
        let unproved = Unproved { first: 1, last: entries, profile: None };
        AuditReport { entries, fault: None, unproved: Vec::from_iter((entries > 0).then_some(unproved)) }
    }

    fn verify<'a>(lines: impl IntoIterator<Item = &'a Vec<u8>>, expected: Option<End>) -> AuditReport {
        let mut verifier = Verifier::new(Keys::new());
        for line in lines {
            if let Err(fault) = verifier.line(line) {
                return verifier.report(Some(fault));
            }
        }
        verifier.finish(expected)
    }

    fn faulty_sequence(lines: &[Vec<u8>]) -> Option<u64> {
        verify(lines, None).fault.map(|fault| fault.sequence)
    }

    fn end_of(lines: &[Vec<u8>]) -> End {
        lines.iter().fold(End::EMPTY, |end, line| End { next: end.next + 1, link: end.link.next(line) })
    }

    #[test]
    fn an_untouched_log_is_whole() {
        for count in [0, 1, 2, 200] {
            let lines = samples::lines(count);
            assert_eq!(verify(&lines, None), intact(count));
            assert_eq!(verify(&lines, Some(end_of(&lines))).fault, None);
        }
    }

    /// The lines of a log: an entry each, or the mark of a key of a profile, from which on that key proves the rest.
    fn kept_by(profiles: &[Option<(&str, &LogKey)>]) -> Vec<Vec<u8>> {
        let (mut end, mut key, mut lines) = (End::EMPTY, None::<LogKey>, Vec::new());
        for profile in profiles {
            let mark = profile.map(|(profile, _)| Mark::Key {
                profile: ProfileName::parse(profile).unwrap(),
                key: KeyMark { nonce: "00".repeat(16), id: "00".repeat(8) },
            });
            let (event, recorder) = (samples::event("a"), Recorder::own());
            let entry = match &mark {
                Some(mark) => Entry::Own { unix_ms: 7, mark },
                None => Entry::Event { event: &event, recorder },
            };
            let mut line = Vec::new();
            end.link = write_line(&mut line, end.next, end.link, &entry, key.as_ref()).unwrap();
            end.next += 1;
            line.pop();
            lines.push(line);
            match profile {
                Some((_, new)) => key = Some((*new).clone()),
                None => key.iter_mut().for_each(LogKey::advance),
            }
        }
        lines
    }

    #[test]
    fn entries_without_a_proof_are_told_by_where_they_stand_and_who_would_prove_them() {
        let (home, work) = (LogKey::of(&[1; 32]).unwrap(), LogKey::of(&[2; 32]).unwrap());
        let (home, known) = (Some(("home", &home)), Some(("work", &work)));
        let lines = kept_by(&[None, home, None, known, None, home, None, home, None]);
        let mut verifier = Verifier::new(Keys::from([(4, work.clone())]));
        lines.iter().for_each(|line| verifier.line(line).unwrap());
        let report = verifier.finish(Some(end_of(&lines)));
        assert_eq!((report.entries, report.fault), (9, None));
        let told: Vec<_> = report
            .unproved
            .iter()
            .map(|stretch| (stretch.first, stretch.last, stretch.profile.as_ref().map(ProfileName::as_str)))
            .collect();
        assert_eq!(told, [(1, 2, None), (3, 4, Some("home")), (7, 9, Some("home"))]);
    }

    #[test]
    fn a_fault_says_what_is_wrong() {
        let lines = samples::lines(5);
        let reason = |lines: &[Vec<u8>]| verify(lines, None).fault.unwrap().reason;
        let without = [&lines[..2], &lines[3..]].concat();
        assert_eq!(reason(&without), "it is missing: entry 4 stands in its place");
        let again = [&lines[..2], &lines[1..]].concat();
        assert_eq!(reason(&again), "it stands there twice");
    }

    /// A torn piece that is just as long as what is kept of one is marked like any other.
    #[test]
    fn the_longest_piece_that_is_kept_is_good_with_its_mark() {
        for (bytes, is_good) in [(PIECE_BYTES_MAX, true), (PIECE_BYTES_MAX + 1, false)] {
            let piece = vec![b'x'; bytes];
            let torn = Torn::of(&piece);
            let mut mark = Vec::new();
            let entry = Entry::Torn { unix_ms: 7, torn: &torn };
            write_line(&mut mark, 1, Link::GENESIS, &entry, None).unwrap();
            mark.pop();
            assert_eq!(verify(&[piece, mark], None).fault.is_none(), is_good, "{bytes}");
        }
    }

    #[test]
    fn every_deletion_swap_and_duplicate_is_found_where_it_is() {
        let lines = samples::lines(200);
        for index in 0..lines.len() {
            let sequence = index as u64 + 1;
            let mut duplicated = lines.clone();
            duplicated.insert(index, lines[index].clone());
            assert_eq!(faulty_sequence(&duplicated), Some(sequence), "duplicate");
            if index + 1 == lines.len() {
                continue;
            }
            let mut deleted = lines.clone();
            deleted.remove(index);
            assert_eq!(faulty_sequence(&deleted), Some(sequence), "delete");
            let mut swapped = lines.clone();
            swapped.swap(index, index + 1);
            assert_eq!(faulty_sequence(&swapped), Some(sequence), "swap");
        }
    }

    /// Whoever forges an entry knows the hash it has to carry; the entry that was there before it tells.
    #[test]
    fn every_inserted_entry_is_found_where_it_is() {
        let lines = samples::lines(200);
        for index in 0..lines.len() {
            let sequence = index as u64 + 1;
            let before = end_of(&lines[..index]);
            let forged = samples::line(sequence, before.link, 999);
            let mut inserted = lines.clone();
            inserted.insert(index, forged);
            assert_eq!(faulty_sequence(&inserted), Some(sequence));
        }
    }

    /// What a file alone cannot show, who holds the end can.
    #[test]
    fn a_cut_tail_and_a_changed_last_entry_show_to_who_knows_the_end() {
        let lines = samples::lines(20);
        let end = end_of(&lines);
        for kept in 0..lines.len() {
            let fault = verify(&lines[..kept], Some(end)).fault.unwrap();
            assert_eq!(fault.sequence, kept as u64 + 1);
        }
        let forged = samples::line(20, end_of(&lines[..19]).link, 999);
        let changed: Vec<_> = lines[..19].iter().cloned().chain([forged]).collect();
        assert_eq!(verify(&changed, Some(end)).fault.unwrap().sequence, 20);
    }

    #[test]
    fn a_torn_line_is_good_only_with_the_entry_that_marks_it() {
        let whole = samples::lines(3);
        for pieces in
            [vec![b"{\"sequence\":4,".to_vec()], vec![Vec::new()], vec![b"a".to_vec(), b"b".to_vec()]]
        {
            let mut lines = whole.clone();
            let torn = Torn::of(&pieces.join(&b'\n'));
            lines.extend(pieces);
            assert_eq!(faulty_sequence(&lines), Some(4), "not marked yet");
            let mut marker = Vec::new();
            let entry = Entry::Torn { unix_ms: 0, torn: &torn };
            write_line(&mut marker, 4, end_of(&whole).link, &entry, None).unwrap();
            marker.pop();
            lines.push(marker);
            assert_eq!(verify(&lines, None), intact(4));

            let mut edited = lines.clone();
            edited[3].push(b'x');
            assert_eq!(faulty_sequence(&edited), Some(4));
            let mut deleted = lines.clone();
            deleted.remove(3);
            assert_eq!(faulty_sequence(&deleted), Some(4));
        }
    }

    #[test]
    fn bytes_without_end_are_a_fault_and_not_kept() {
        let mut verifier = Verifier::new(Keys::new());
        let line = vec![0; PIECE_BYTES_MAX / 2];
        assert!(verifier.line(&line).is_ok());
        assert_eq!(verifier.line(&line).unwrap_err().sequence, 1);
    }

    /// Whether the change at this byte is in the hash of the entry before: then nothing tells which of the two
    /// entries is wrong, and the first of them is named.
    fn is_in_link(line: &[u8], at: usize) -> bool {
        let contains = |text: &[u8]| line[..at].windows(text.len()).any(|window| window == text);
        contains(b"\"previous\":\"") && !contains(b"\",\"time\"")
    }

    fn assert_change_is_found(lines: &[Vec<u8>], index: usize, at: usize, byte: u8) {
        let mut edited = lines.to_vec();
        edited[index][at] = byte;
        let sequence = index as u64 + 1;
        let found = faulty_sequence(&edited);
        let may_be_the_one_before = is_in_link(&lines[index], at) && found == Some(sequence - 1);
        assert!(found == Some(sequence) || may_be_the_one_before, "{index} {at} {byte}: {found:?}");
    }

    /// Every byte before the last entry, replaced by each of those that mean something in a line.
    #[test]
    fn every_changed_byte_is_found() {
        let lines = samples::lines(4);
        for index in 0..3 {
            for at in 0..lines[index].len() {
                for byte in *b"0123456789abcdef\"{}[]:,.- \\xX\0\xff" {
                    if lines[index][at] != byte {
                        assert_change_is_found(&lines, index, at, byte);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_found(index in 0_usize..29, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let lines = samples::lines(30);
            let at = at.index(lines[index].len());
            prop_assume!(lines[index][at] != byte);
            assert_change_is_found(&lines, index, at, byte);
        }

        /// A line feed put into a line, or taken from its end, is a change like any other.
        #[test]
        fn a_split_line_is_found(index in 0_usize..29, at in any::<prop::sample::Index>()) {
            let mut lines = samples::lines(30);
            let rest = { let at = at.index(lines[index].len()); lines[index].split_off(at) };
            lines.insert(index + 1, rest);
            prop_assert_eq!(faulty_sequence(&lines), Some(index as u64 + 1));
        }
    }
}
