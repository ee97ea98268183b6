//! The reading ends of the log: its last entries, and the check of the whole chain.
//!
//! Both open the files anew and take no lock, so neither ever holds up the writer.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;

use core_crypto::private_fs;
use core_types::ProfileName;
use core_types::limits::{AUDIT_PAGE_MAX, BODY_BYTES_MAX};
use core_types::protocol::profile::{AuditLine, AuditPoint, AuditReport};

use super::LogError;
use super::chain::{End, Keys, Verifier};
use super::line::{Head, KeyMark};
use super::scan::{Backwards, Forwards};
use super::segment::Segment;

/// Most bytes of JSON in one page; what an answer adds to each line has room beside it.
pub(crate) const PAGE_BYTES_MAX: usize = BODY_BYTES_MAX / 2;

/// Entries of one answer, filled from the newest to the oldest.
struct Page {
    lines: VecDeque<AuditLine>,
    bytes: usize,
    count: usize,
}

impl Page {
    fn is_over(&self) -> bool {
        self.lines.len() > self.count || self.bytes > PAGE_BYTES_MAX
    }

    fn push_older(&mut self, line: AuditLine) {
        self.bytes += line.json.len();
        self.lines.push_front(line);
    }

    fn drop_newest(&mut self) {
        self.bytes -= self.lines.pop_back().map_or(0, |line| line.json.len());
    }

    fn drop_oldest(&mut self) {
        self.bytes -= self.lines.pop_front().map_or(0, |line| line.json.len());
    }
}

/// Reads the last `count` entries; or, given `after`, the first `count` entries after that sequence number, so that
/// a reader who follows the log page by page misses none. Lines that are no entries are passed over.
///
/// # Errors
/// The files cannot be read.
pub(crate) fn tail(folder: &Path, count: u32, after: Option<u64>) -> Result<Vec<AuditLine>, LogError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(AUDIT_PAGE_MAX);
    let mut page = Page { lines: VecDeque::new(), bytes: 0, count };
    private_fs::check_private_dir(folder)?;
    for segment in Segment::list(folder)?.iter().rev() {
        let failed = |error| segment.failed(error);
        let mut pieces = Backwards::new(segment.open_read()?).map_err(failed)?;
        while let Some(piece) = pieces.next_piece().map_err(failed)? {
            let Some(line) = piece.bytes.and_then(entry) else { continue };
            if after.is_some_and(|after| line.sequence <= after) {
                return Ok(page.lines.into());
            }
            page.push_older(line);
            if !page.is_over() {
                continue;
            }
            if after.is_none() {
                page.drop_oldest();
                return Ok(page.lines.into());
            }
            page.drop_newest();
        }
    }
    Ok(page.lines.into())
}

fn entry(line: Vec<u8>) -> Option<AuditLine> {
    let sequence = Head::parse(&line)?.sequence;
    Some(AuditLine { sequence, json: String::from_utf8(line).ok()? })
}

/// Checks the whole chain up to `end`, where its writer knows it to end; what was written since is left out.
///
/// # Errors
/// The files cannot be read. A fault of the chain is no error but the answer.
pub(crate) fn verify(folder: &Path, end: End, keys: Keys) -> Result<AuditReport, LogError> {
    let mut verifier = Verifier::new(keys);
    private_fs::check_private_dir(folder)?;
    for segment in Segment::list(folder)? {
        let mut lines = Forwards::new(segment.open_read()?);
        while verifier.end().next < end.next {
            let Some(line) = lines.next_line().map_err(|error| segment.failed(error))? else { break };
            if let Err(fault) = verifier.line(line) {
                return Ok(verifier.report(Some(fault)));
            }
        }
    }
    Ok(verifier.finish(Some(end)))
}

/// Gives every entry from `first` on to `each`, in order, until it says to stop. Segments before are not read.
///
/// # Errors
/// The files cannot be read.
pub(crate) fn entries(
    folder: &Path,
    first: u64,
    mut each: impl FnMut(Head, &[u8]) -> ControlFlow<()>,
) -> Result<(), LogError> {
    private_fs::check_private_dir(folder)?;
    let segments = Segment::list(folder)?;
    let begins = |segment: &Segment| -> Result<Option<u64>, LogError> {
        Ok(segment.first()?.map(|head| head.sequence))
    };
    let mut start = 0;
    for (index, segment) in segments.iter().enumerate() {
        match begins(segment)? {
            Some(sequence) if sequence <= first => start = index,
            Some(_) => break,
            None => {}
        }
    }
    for segment in &segments[start.min(segments.len())..] {
        let mut lines = Forwards::new(segment.open_read()?);
        while let Some(line) = lines.next_line().map_err(|error| segment.failed(error))? {
            let Some(head) = Head::parse(line).filter(|head| head.sequence >= first) else { continue };
            if each(head, line).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A stretch of entries that a key of a vault proves.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    /// The entry after which it begins.
    pub(crate) sequence: u64,
    /// Whose key.
    pub(crate) profile: ProfileName,
    /// Which.
    pub(crate) key: KeyMark,
}

/// All stretches of the log, in order.
///
/// # Errors
/// The files cannot be read.
pub(crate) fn stretches(folder: &Path) -> Result<Vec<Stretch>, LogError> {
    let mut found = Vec::new();
    entries(folder, 1, |head, _| {
        let sequence = head.sequence;
        found.extend(head.key.map(|(profile, key)| Stretch { sequence, profile, key }));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Whether the log holds this point; also if it is from before the oldest entry that was kept.
///
/// # Errors
/// The files cannot be read.
pub(crate) fn holds(folder: &Path, point: &AuditPoint) -> Result<bool, LogError> {
    let mut holds = point.sequence == 0;
    entries(folder, point.sequence, |head, line| {
        let link = head.previous.next(line);
        holds = head.sequence > point.sequence
            || (head.sequence == point.sequence && *link.as_bytes() == point.link);
        ControlFlow::Break(())
    })?;
    Ok(holds)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::super::line::samples;
    use super::*;

    fn folder() -> (TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("audit");
        private_fs::ensure_private_dir(&folder).unwrap();
        (home, folder)
    }

    /// A log of 30 entries in two segments, with an unmarked torn line at its end.
    fn two_segments() -> (TempDir, PathBuf) {
        let (home, folder) = folder();
        let lines = samples::lines(30);
        let text = |lines: &[Vec<u8>]| [lines.join(&b'\n'), vec![b'\n']].concat();
        fs::write(folder.join("000001.jsonl"), text(&lines[..20])).unwrap();
        fs::write(folder.join("000002.jsonl"), [text(&lines[20..]), b"{\"seq".to_vec()].concat()).unwrap();
        (home, folder)
    }

    fn end() -> End {
        samples::lines(30)
            .iter()
            .fold(End::EMPTY, |end, line| End { next: end.next + 1, link: end.link.next(line) })
    }

    fn sequences(folder: &Path, count: u32, after: Option<u64>) -> Vec<u64> {
        tail(folder, count, after).unwrap().iter().map(|line| line.sequence).collect()
    }

    #[test]
    fn the_last_entries_come_in_order_across_segments() {
        let (_home, folder) = two_segments();
        assert_eq!(sequences(&folder, 3, None), [28, 29, 30]);
        assert_eq!(sequences(&folder, 12, None), Vec::from_iter(19..=30));
        assert_eq!(sequences(&folder, 0, None), [0; 0]);
        assert_eq!(sequences(&folder, u32::MAX, None), Vec::from_iter(1..=30));
        let lines = tail(&folder, 1, None).unwrap();
        assert_eq!(lines[0].json.as_bytes(), samples::lines(30)[29]);
    }

    #[test]
    fn a_follower_gets_every_entry_once() {
        let (_home, folder) = two_segments();
        assert_eq!(sequences(&folder, 4, Some(18)), [19, 20, 21, 22]);
        assert_eq!(sequences(&folder, 4, Some(28)), [29, 30]);
        assert_eq!(sequences(&folder, 4, Some(30)), [0; 0]);
        assert_eq!(sequences(&folder, 4, Some(0)), [1, 2, 3, 4]);
    }

    #[test]
    fn a_page_fits_into_an_answer() {
        let (_home, folder) = folder();
        let entry = |sequence: u64| {
            let fill = "x".repeat(100_000);
            let link = core_crypto::hash_chain::Link::GENESIS.to_hex();
            format!("{{\"sequence\":{sequence},\"previous\":\"{link}\",\"fill\":\"{fill}\"}}\n")
        };
        fs::write(folder.join("000001.jsonl"), (1..=40).map(entry).collect::<String>()).unwrap();
        assert_eq!(sequences(&folder, 1000, None), Vec::from_iter(31..=40));
        assert_eq!(sequences(&folder, 1000, Some(5)), Vec::from_iter(6..=15));
        let page = tail(&folder, 1000, None).unwrap();
        assert!(core_types::protocol::encode(&page).is_ok());
    }

    #[test]
    fn the_chain_is_checked_across_segments_up_to_its_end() {
        let (_home, folder) = two_segments();
        let report = verify(&folder, end(), Keys::new()).unwrap();
        assert_eq!((report.entries, report.fault), (30, None));
        fs::remove_file(folder.join("000002.jsonl")).unwrap();
        assert_eq!(verify(&folder, end(), Keys::new()).unwrap().fault.unwrap().sequence, 21);
        fs::remove_file(folder.join("000001.jsonl")).unwrap();
        assert_eq!(verify(&folder, end(), Keys::new()).unwrap().fault.unwrap().sequence, 1);
    }

    #[test]
    fn entries_are_found_from_any_number_on_and_points_are_known() {
        let (_home, folder) = two_segments();
        for first in [1, 2, 20, 21, 22, 30, 31] {
            let mut found = Vec::new();
            entries(&folder, first, |head, _| {
                found.push(head.sequence);
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(found, Vec::from_iter(first..=30));
        }
        let mut point = AuditPoint { sequence: 30, link: *end().link.as_bytes() };
        assert!(holds(&folder, &point).unwrap());
        point.sequence = 29;
        assert!(!holds(&folder, &point).unwrap());
        point.sequence = 31;
        assert!(!holds(&folder, &point).unwrap());
        fs::remove_file(folder.join("000001.jsonl")).unwrap();
        point.sequence = 5;
        assert!(holds(&folder, &point).unwrap(), "it may have been removed because of its age");
    }

    #[test]
    fn a_segment_that_others_can_change_is_not_trusted() {
        let (_home, folder) = two_segments();
        let path = folder.join("000001.jsonl");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        for error in [verify(&folder, end(), Keys::new()).unwrap_err(), tail(&folder, 30, None).unwrap_err()]
        {
            assert!(error.to_string().contains("000001.jsonl"), "{error}");
        }
    }

    #[test]
    fn a_link_in_place_of_a_segment_is_not_followed() {
        let (_home, folder) = two_segments();
        let path = folder.join("000001.jsonl");
        fs::rename(&path, folder.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        let error = verify(&folder, end(), Keys::new()).unwrap_err().to_string();
        assert!(error.contains("000001.jsonl"), "{error}");
    }
}
