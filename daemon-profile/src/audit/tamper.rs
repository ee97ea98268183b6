//! Every way to change a log, tried on one of 200 entries: each has to be noticed after a restart, by a check with the
//! key that the vault makes again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use core_crypto::hash_chain::Link;
use core_crypto::log_key::LogKey;
use core_types::ProfileName;
use core_types::name::SECRETS;
use core_types::protocol::profile::Record;
use tempfile::TempDir;

use super::chain::{End, Keys};
use super::disk::RealDisk;
use super::key_file::{KeyFile, Stored};
use super::line::{Head, KeyMark, Mark, samples};
use super::log::{Log, Rotation};
use super::read;

const ENTRIES: u64 = 200;
/// The entry after which the vault's key proves the log.
const KEY_AT: u64 = 1;

/// What the attacker leaves of the file with the key.
#[derive(Debug, Clone, Copy, PartialEq)]
enum KeyLeft {
    /// As it was.
    Untouched,
    /// Removed.
    Removed,
    /// With the end of the changed log, so that it fits, and the key that was there.
    Fitted,
}

struct World {
    _home: TempDir,
    folder: PathBuf,
    lines: Vec<Vec<u8>>,
    key_file: Vec<u8>,
    key: LogKey,
}

fn log(folder: &Path) -> Log {
    Log::new(folder, Arc::new(RealDisk), Rotation::NEVER)
}

impl World {
    /// A log that begins with the key of a vault, and has 200 entries in all.
    fn new() -> Self {
        // In memory where that is possible: each change costs several writes that wait for a disk.
        let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let folder = home.path().join("audit");
        let mut log = log(&folder);
        let key = LogKey::of(&[9; 32]).unwrap();
        let mark = KeyMark { nonce: "00".repeat(16), id: "00".repeat(8) };
        let mark = Mark::Key { profile: ProfileName::parse("work").unwrap(), key: mark };
        assert!(log.begin_stretch(&mark, key.clone()).failure.is_none());
        let entries = (KEY_AT..ENTRIES).map(|number| samples::event(&format!("name-{number}"))).collect();
        let record = Record { origin: 5, first: 0, entries, missing: 0 };
        assert!(log.record(SECRETS, &record).failure.is_none());
        let content = fs::read(folder.join("000001.jsonl")).unwrap();
        let lines: Vec<_> = content.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let lines = lines[..lines.len() - 1].to_vec();
        assert_eq!(lines.len() as u64, ENTRIES);
        let key_file = fs::read(folder.join("key")).unwrap();
        Self { _home: home, folder, lines, key_file, key }
    }

    /// Whether a restarted log notices that its lines are these: at once, or after the next entry.
    fn notices(&self, lines: &[Vec<u8>], left: KeyLeft) -> bool {
        let mut content = lines.join(&b'\n');
        content.push(b'\n');
        fs::write(self.folder.join("000001.jsonl"), content).unwrap();
        let path = self.folder.join("key");
        fs::write(&path, &self.key_file).unwrap();
        match left {
            KeyLeft::Untouched => {}
            KeyLeft::Removed => fs::remove_file(&path).unwrap(),
            KeyLeft::Fitted => self.fit_key(lines),
        }
        let mut log = log(&self.folder);
        let next = Record { origin: 6, first: 0, entries: vec![samples::event("next")], missing: 0 };
        assert!(log.record(SECRETS, &next).failure.is_none());
        let keys = Keys::from([(KEY_AT, self.key.clone())]);
        read::verify(&self.folder, log.end(), keys).unwrap().fault.is_some()
    }

    fn fit_key(&self, lines: &[Vec<u8>]) {
        let Ok(Stored::Found(_, key, _)) = KeyFile::read(&self.folder) else { panic!("it is there") };
        let head = lines.last().and_then(|line| Some((line, Head::parse(line)?)));
        let end = head.map_or(End::EMPTY, |(line, head)| End {
            next: head.sequence + 1,
            link: head.previous.next(line),
        });
        KeyFile::open(&self.folder).unwrap().write(end, &key, None).unwrap();
    }
}

/// The same lines with all hashes and numbers after the first `from` made anew, so that the chain holds.
fn relinked(lines: &[Vec<u8>], from: usize) -> Vec<Vec<u8>> {
    let mut link = Link::GENESIS;
    let mut relinked = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let mut text = String::from_utf8(line.clone()).unwrap();
        if index >= from {
            let rest = text.split_once(",\"time\"").unwrap().1.to_owned();
            let previous = link.to_hex();
            text = format!("{{\"sequence\":{},\"previous\":\"{previous}\",\"time\"{rest}", index + 1);
        }
        link = link.next(text.as_bytes());
        relinked.push(text.into_bytes());
    }
    relinked
}

fn edited(line: &[u8]) -> Vec<u8> {
    String::from_utf8(line.to_vec()).unwrap().replace("/usr/bin/pds", "/usr/bin/pdx").into_bytes()
}

/// All single changes of the kinds there are, by name.
fn mutants(lines: &[Vec<u8>]) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut add = |kind, change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut changed = lines.to_vec();
        change(&mut changed);
        assert!(changed != lines, "{kind}");
        found.push((kind, changed));
    };
    for index in 1..lines.len() {
        let forged = samples::line(index as u64 + 1, Link::GENESIS, 999);
        add("edit", &|lines| lines[index] = edited(&lines[index]));
        add("delete", &|lines| drop(lines.remove(index)));
        add("duplicate", &|lines| lines.insert(index, lines[index].clone()));
        add("insert", &|lines| lines.insert(index, forged.clone()));
        add("cut tail", &|lines| lines.truncate(index));
        add("edit, with consistent hashes", &|lines| {
            lines[index] = edited(&lines[index]);
            *lines = relinked(lines, index);
        });
        add("delete, with consistent hashes", &|lines| {
            lines.remove(index);
            *lines = relinked(lines, index);
        });
        add("insert, with consistent hashes", &|lines| {
            lines.insert(index, edited(&lines[index]));
            *lines = relinked(lines, index);
        });
        if index + 1 < lines.len() {
            add("swap", &|lines| lines.swap(index, index + 1));
            add("swap, with consistent hashes", &|lines| {
                lines.swap(index, index + 1);
                *lines = relinked(lines, index);
            });
        }
    }
    found
}

#[test]
fn every_single_change_of_a_log_of_200_entries_is_noticed() {
    let world = World::new();
    assert!(!world.notices(&world.lines, KeyLeft::Untouched), "an untouched log is whole");
    let mutants = mutants(&world.lines);
    let (mut noticed, mut total) = (0, 0);
    for left in [KeyLeft::Untouched, KeyLeft::Removed, KeyLeft::Fitted] {
        for (kind, lines) in &mutants {
            total += 1;
            let is_noticed = world.notices(lines, left);
            assert!(is_noticed, "{kind}, {left:?}: {} lines", lines.len());
            noticed += u32::from(is_noticed);
        }
    }
    println!("changes of a log of {ENTRIES} entries: {noticed} of {total} noticed");
}
