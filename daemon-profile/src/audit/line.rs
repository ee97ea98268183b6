//! One entry of the audit log as one line of JSON, and what is read back from such a line.

use core_crypto::hash_chain::Link;
use core_crypto::log_key::{LogKey, PROOF_BYTES};
use core_types::grant::{GrantBounds, GrantRecord};
use core_types::name::{PROFILE, ProfileName};
use core_types::protocol::profile::{
    ChildRecord, LockCause, Operation, Outcome, Requester, SecretOperationAudit,
};
use serde::{Deserialize, Serialize};

use super::text;

/// Name of the operation of an entry that marks a torn line.
const TORN_LINE: &str = "torn-line";
/// What stands before the proof at the end of a line, and what after it.
const PROOF_FIELD: (&str, &str) = (",\"proof\":\"", "\"}");

/// An entry before it has a place in the chain.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    /// Something that happened.
    Event {
        /// What, as told by the daemon where it happened.
        event: &'a SecretOperationAudit,
        /// That daemon.
        recorder: Recorder,
    },
    /// The bytes before this entry are the piece of a line whose writing was cut short.
    Torn {
        /// When that was noticed, in milliseconds of the Unix epoch.
        unix_ms: u64,
        /// The bytes.
        torn: &'a Torn,
    },
    /// Something of the log's own.
    Own {
        /// When, in milliseconds of the Unix epoch.
        unix_ms: u64,
        /// What.
        mark: &'a Mark,
    },
}

/// What the log says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The entries after this one are proved with a key of a profile's vault.
    Key {
        /// The profile.
        profile: ProfileName,
        /// Which key.
        key: KeyMark,
    },
    /// The log is not what was written.
    Broken {
        /// The first entry that is not.
        sequence: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Entries were removed because of their age.
    Removed(Kept),
}

/// Which key of a vault proves the entries from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyMark {
    /// What makes it another one than those before, in hex.
    pub(crate) nonce: String,
    /// Tells the vault's keys from those that it has after a rekey, in hex.
    pub(crate) id: String,
}

/// The first entry that was kept when older ones were removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Its sequence number.
    pub(crate) sequence: u64,
    /// Hash of the entry before it.
    pub(crate) previous: String,
}

/// Which daemon handed an entry to the log, and as which of its own: that makes a repetition known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recorder {
    /// Registered name of the daemon.
    pub(crate) by: String,
    /// The number the daemon's process chose for itself, in hex; none for entries of `daemon-profile` itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    /// Number of the entry, counted by that process from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<u64>,
}

impl Recorder {
    /// The recorder of an entry that another daemon handed over.
    pub(crate) fn daemon(by: &str, origin: u64, number: u64) -> Self {
        Self { by: by.to_owned(), origin: Some(format!("{origin:016x}")), number: Some(number) }
    }

    /// The recorder of an entry made here.
    pub(crate) fn own() -> Self {
        Self { by: PROFILE.to_owned(), origin: None, number: None }
    }

    /// Origin and number, where the entry has them.
    pub(crate) fn numbered(&self) -> Option<(u64, u64)> {
        Some((u64::from_str_radix(self.origin.as_deref()?, 16).ok()?, self.number?))
    }
}

/// Bytes in the file that are no entry, pinned by the entry after them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Torn {
    /// How many, without the last line feed.
    pub(crate) bytes: u64,
    /// Their hash: the link that follows the first one of a chain, so that an edit of them shows too.
    pub(crate) hash: String,
}

impl Torn {
    /// Describes `bytes`, given without the last line feed.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, hash: Link::GENESIS.next(bytes).to_hex() }
    }
}

/// What the chain needs to know of a line that is an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its sequence number, from 1 to `u64::MAX - 1`.
    pub(crate) sequence: u64,
    /// Hash of the entry before it.
    pub(crate) previous: Link,
    /// Who handed it over.
    pub(crate) recorder: Option<Recorder>,
    /// The bytes it marks as torn.
    pub(crate) torn: Option<Torn>,
    /// The key that it begins, with its profile.
    pub(crate) key: Option<(ProfileName, KeyMark)>,
    /// The entry that it says is not what was written, and why.
    pub(crate) broken: Option<(u64, String)>,
    /// The first entry that it says was kept.
    pub(crate) kept: Option<Kept>,
    time: Option<String>,
}

impl Head {
    /// Reads a line (without its line feed); `None` if it is no entry.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let raw: RawHead = serde_json::from_slice(line).ok()?;
        let previous = Link::from_hex(&raw.previous).ok()?;
        let in_range = (1..u64::MAX).contains(&raw.sequence);
        let profile = raw.profile.and_then(|profile| ProfileName::parse(profile).ok());
        in_range.then_some(Self {
            sequence: raw.sequence,
            previous,
            recorder: raw.recorder,
            torn: raw.torn,
            key: profile.zip(raw.key),
            broken: raw.broken.map(|sequence| (sequence, raw.reason.unwrap_or_default())),
            kept: raw.kept,
            time: raw.time,
        })
    }

    /// When it happened, in milliseconds of the Unix epoch, where that can be read.
    pub(crate) fn unix_ms(&self) -> Option<u64> {
        let time: jiff::Timestamp = self.time.as_deref()?.parse().ok()?;
        u64::try_from(time.as_millisecond()).ok()
    }
}

/// Whether a line ends with the proof that `key` gives it.
pub(crate) fn is_proved(key: &LogKey, previous: &Link, line: &[u8]) -> bool {
    let length = PROOF_FIELD.0.len() + 2 * PROOF_BYTES + PROOF_FIELD.1.len();
    let Some((proved, end)) = line.len().checked_sub(length).map(|at| line.split_at(at)) else {
        return false;
    };
    end == proof_field(key, previous, proved).as_bytes()
}

fn proof_field(key: &LogKey, previous: &Link, proved: &[u8]) -> String {
    format!("{}{}{}", PROOF_FIELD.0, hex::encode(key.proof(previous, proved)), PROOF_FIELD.1)
}

#[derive(Deserialize)]
struct RawHead {
    sequence: u64,
    previous: String,
    recorder: Option<Recorder>,
    torn: Option<Torn>,
    profile: Option<String>,
    key: Option<KeyMark>,
    broken: Option<u64>,
    reason: Option<String>,
    kept: Option<Kept>,
    time: Option<String>,
}

/// The fields of a line, in the order in which they are written.
#[derive(Serialize)]
struct Fields<'a> {
    sequence: u64,
    previous: String,
    time: String,
    operation: OperationName,
    profile: Option<&'a str>,
    #[serde(serialize_with = "text::cut_option")]
    subject: Option<&'a str>,
    requester: RequesterFields<'a>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text::cut_option")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<LockCause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<&'a ChildRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<GrantFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    torn: Option<&'a Torn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a KeyMark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<&'a Kept>,
    recorder: Recorder,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OperationName {
    Event(Operation),
    Own(&'static str),
}

#[derive(Serialize)]
struct RequesterFields<'a> {
    #[serde(serialize_with = "text::cut")]
    name: &'a str,
    uid: u32,
    pid: Option<u32>,
    #[serde(serialize_with = "text::cut_path")]
    executable: Option<&'a str>,
    #[serde(serialize_with = "text::cut_option")]
    unit: Option<&'a str>,
}

impl<'a> From<&'a Requester> for RequesterFields<'a> {
    fn from(requester: &'a Requester) -> Self {
        Self {
            name: &requester.name,
            uid: requester.uid,
            pid: requester.pid,
            executable: requester.executable.as_deref(),
            unit: requester.unit.as_deref(),
        }
    }
}

/// A grant, with its bounds where it was made.
#[derive(Serialize)]
struct GrantFields<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    bounds: Option<&'a GrantBounds>,
}

impl<'a> From<&'a GrantRecord> for GrantFields<'a> {
    fn from(grant: &'a GrantRecord) -> Self {
        Self { id: grant.id.to_string(), bounds: grant.bounds.as_ref() }
    }
}

/// Adds `entry` to `buffer` as the line with this place in the chain, with its line feed, and with the proof of `key` if
/// there is one. Gives the link to it.
///
/// # Errors
/// The entry cannot be shown as JSON (none of today's can fail).
pub(crate) fn write_line(
    buffer: &mut Vec<u8>,
    sequence: u64,
    previous: Link,
    entry: &Entry<'_>,
    key: Option<&LogKey>,
) -> Result<Link, serde_json::Error> {
    let start = buffer.len();
    let fields = match entry {
        Entry::Event { event, recorder } => event_fields(sequence, previous, event, recorder),
        Entry::Torn { unix_ms, torn } => torn_fields(sequence, previous, *unix_ms, torn),
        Entry::Own { unix_ms, mark } => mark_fields(sequence, previous, *unix_ms, mark),
    };
    fields.serialize(&mut serde_json::Serializer::with_formatter(&mut *buffer, text::Ascii))?;
    if let Some(key) = key {
        // Without the brace that ends the object: the proof takes its place.
        buffer.pop();
        let field = proof_field(key, &previous, &buffer[start..]);
        buffer.extend_from_slice(field.as_bytes());
    }
    let link = previous.next(&buffer[start..]);
    buffer.push(b'\n');
    Ok(link)
}

fn event_fields<'a>(
    sequence: u64,
    previous: Link,
    event: &'a SecretOperationAudit,
    recorder: &Recorder,
) -> Fields<'a> {
    let (outcome, gate, reason) = match &event.outcome {
        Outcome::Done => ("done", None, None),
        Outcome::Denied { gate, reason } => ("denied", Some(gate.as_str()), Some(reason.as_str())),
        Outcome::Failed { reason } => ("failed", None, Some(reason.as_str())),
    };
    Fields {
        sequence,
        previous: previous.to_hex(),
        time: rfc3339(event.unix_ms),
        operation: OperationName::Event(event.operation),
        profile: event.profile.as_ref().map(|profile| profile.as_str()),
        subject: event.subject.as_deref(),
        requester: (&event.requester).into(),
        outcome,
        gate,
        reason,
        generation: event.generation,
        cause: event.cause,
        child: event.child.as_ref(),
        missing: event.missing,
        grant: event.grant.as_ref().map(GrantFields::from),
        torn: None,
        key: None,
        broken: None,
        kept: None,
        recorder: recorder.clone(),
    }
}

fn torn_fields(sequence: u64, previous: Link, unix_ms: u64, torn: &Torn) -> Fields<'_> {
    let reason = "the line before this one was not written to its end";
    Fields { torn: Some(torn), reason: Some(reason), ..own_fields(sequence, previous, unix_ms, TORN_LINE) }
}

fn mark_fields(sequence: u64, previous: Link, unix_ms: u64, mark: &Mark) -> Fields<'_> {
    let own = |operation| own_fields(sequence, previous, unix_ms, operation);
    match mark {
        Mark::Key { profile, key } => {
            Fields { outcome: "done", profile: Some(profile.as_str()), key: Some(key), ..own("key") }
        }
        Mark::Broken { sequence, reason } => {
            Fields { broken: Some(*sequence), reason: Some(reason), ..own("broken") }
        }
        Mark::Removed(kept) => Fields { outcome: "done", kept: Some(kept), ..own("removed") },
    }
}

/// The fields of an entry that the log makes itself.
fn own_fields<'a>(sequence: u64, previous: Link, unix_ms: u64, operation: &'static str) -> Fields<'a> {
    Fields {
        sequence,
        previous: previous.to_hex(),
        time: rfc3339(unix_ms),
        operation: OperationName::Own(operation),
        profile: None,
        subject: None,
        requester: RequesterFields {
            name: PROFILE,
            uid: rustix::process::geteuid().as_raw(),
            pid: Some(std::process::id()),
            executable: None,
            unit: None,
        },
        outcome: "failed",
        gate: None,
        reason: None,
        generation: None,
        cause: None,
        child: None,
        missing: None,
        grant: None,
        torn: None,
        key: None,
        broken: None,
        kept: None,
        recorder: Recorder::own(),
    }
}

/// RFC 3339 in UTC with milliseconds; a time after the year 9999 becomes the last one that can be written.
fn rfc3339(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or(jiff::Timestamp::MAX))
}

#[cfg(test)]
pub(crate) mod samples {
    //! Entries for the tests of the log.

    use core_types::name::CLI;

    use super::*;

    pub(crate) fn event(subject: &str) -> SecretOperationAudit {
        let requester = Requester {
            name: CLI.to_owned(),
            uid: 1000,
            pid: Some(4711),
            executable: Some("/usr/bin/pds".to_owned()),
            unit: None,
        };
        SecretOperationAudit::new(1_763_781_361_007, Operation::Get, requester, Outcome::Done)
            .about(Some(ProfileName::parse("default").unwrap()), Some(subject.to_owned()))
    }

    /// The line of an entry, without its line feed.
    pub(crate) fn line(sequence: u64, previous: Link, number: u64) -> Vec<u8> {
        let event = event(&format!("secret-{number}"));
        let recorder = Recorder::daemon("daemon-secrets", 0xabc, number);
        let mut line = Vec::new();
        write_line(&mut line, sequence, previous, &Entry::Event { event: &event, recorder }, None).unwrap();
        line.pop();
        line
    }

    /// The lines of a log of `count` entries.
    pub(crate) fn lines(count: u64) -> Vec<Vec<u8>> {
        let mut link = Link::GENESIS;
        let mut next_line = |number| {
            let line = line(number + 1, link, number);
            link = link.next(&line);
            line
        };
        (0..count).map(&mut next_line).collect()
    }
}

#[cfg(test)]
mod tests {
    use core_types::grant::GrantId;
    use core_types::name::SECRETS;
    use core_types::protocol::secrets::Gate;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn line_of(event: SecretOperationAudit) -> Vec<u8> {
        let mut line = Vec::new();
        let entry = Entry::Event { event: &event, recorder: Recorder::daemon(SECRETS, 7, 3) };
        write_line(&mut line, 9, Link::GENESIS, &entry, None).unwrap();
        assert_eq!(line.pop(), Some(b'\n'));
        line
    }

    #[test]
    fn a_line_holds_all_fields_in_their_order() {
        let mut event = samples::event("api-key");
        event.outcome = Outcome::Denied { gate: Gate::RateLimit, reason: "too many requests".to_owned() };
        event.generation = Some(12);
        let expected = format!(
            concat!(
                r#"{{"sequence":9,"previous":"{}","time":"2025-11-22T03:16:01.007Z","operation":"get","#,
                r#""profile":"default","subject":"api-key","requester":{{"name":"cli","uid":1000,"pid":4711,"#,
                r#""executable":"/usr/bin/pds","unit":null}},"outcome":"denied","gate":"rate-limit","#,
                r#""reason":"too many requests","generation":12,"recorder":{{"by":"daemon-secrets","#,
                r#""origin":"0000000000000007","number":3}}}}"#
            ),
            Link::GENESIS.to_hex()
        );
        assert_eq!(String::from_utf8(line_of(event)).unwrap(), expected);
    }

    #[test]
    fn the_head_is_read_back() {
        let head = Head::parse(&line_of(samples::event("a"))).unwrap();
        assert_eq!((head.sequence, head.previous), (9, Link::GENESIS));
        assert_eq!(head.recorder.unwrap().numbered(), Some((7, 3)));
        assert_eq!(head.torn, None);
        for bad in ["", "x", "{}", "{\"sequence\":1}", "[1]", "null"] {
            assert_eq!(Head::parse(bad.as_bytes()), None, "{bad}");
        }
        let line = String::from_utf8(line_of(samples::event("a"))).unwrap();
        for sequence in ["0", "18446744073709551615", "18446744073709551616", "-1", "1.5"] {
            let changed = line.replace("\"sequence\":9", &format!("\"sequence\":{sequence}"));
            assert_eq!(Head::parse(changed.as_bytes()), None, "{sequence}");
        }
    }

    #[test]
    fn a_proved_line_is_proved_by_its_key_at_its_place_only() {
        let (key, other) = (LogKey::of(&[1; 32]).unwrap(), LogKey::of(&[2; 32]).unwrap());
        let event = samples::event("a");
        let mut line = Vec::new();
        let entry = Entry::Event { event: &event, recorder: Recorder::own() };
        write_line(&mut line, 9, Link::GENESIS, &entry, Some(&key)).unwrap();
        line.pop();
        assert!(Head::parse(&line).is_some());
        assert!(is_proved(&key, &Link::GENESIS, &line));
        assert!(!is_proved(&other, &Link::GENESIS, &line));
        assert!(!is_proved(&key, &Link::GENESIS.next(b""), &line));
        for at in 0..line.len() {
            let mut changed = line.clone();
            changed[at] ^= 1;
            assert!(!is_proved(&key, &Link::GENESIS, &changed), "{at}");
        }
        assert!(!is_proved(&key, &Link::GENESIS, b""));
    }

    #[test]
    fn what_the_log_says_of_itself_is_read_back() {
        let key = KeyMark { nonce: "00".to_owned(), id: "11".to_owned() };
        let kept = Kept { sequence: 5, previous: Link::GENESIS.to_hex() };
        let profile = ProfileName::parse("work").unwrap();
        let head = |mark: Mark| {
            let mut line = Vec::new();
            let entry = Entry::Own { unix_ms: 0, mark: &mark };
            write_line(&mut line, 9, Link::GENESIS, &entry, None).unwrap();
            Head::parse(&line).unwrap()
        };
        assert_eq!(head(Mark::Key { profile: profile.clone(), key: key.clone() }).key, Some((profile, key)));
        let broken = head(Mark::Broken { sequence: 4, reason: "r".to_owned() }).broken;
        assert_eq!(broken, Some((4, "r".to_owned())));
        assert_eq!(head(Mark::Removed(kept.clone())).kept, Some(kept));
    }

    #[test]
    fn a_grant_is_told_with_its_bounds_where_it_was_made() {
        let told = |grant| {
            let event = SecretOperationAudit { grant: Some(grant), ..samples::event("a") };
            let value: Value = serde_json::from_slice(&line_of(event)).unwrap();
            value["grant"].clone()
        };
        let id = GrantId(0xa9_1c02);
        assert_eq!(told(GrantRecord { id, bounds: None }), serde_json::json!({ "id": "00a91c02" }));
        let bounds = GrantBounds { to: "backup".parse().unwrap(), seconds: 600, uses: None };
        let expected = serde_json::json!({ "id": "00a91c02", "to": "backup", "seconds": 600, "uses": null });
        assert_eq!(told(GrantRecord { id, bounds: Some(bounds) }), expected);
    }

    #[test]
    fn long_texts_are_cut_and_say_how_long_they_were() {
        let line = line_of(samples::event(&"ä".repeat(5000)));
        assert!(line.is_ascii());
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["subject"], format!("{}... (10000 bytes)", "ä".repeat(256)));
        let odd = format!("x{}", "ä".repeat(5000));
        let value: Value = serde_json::from_slice(&line_of(samples::event(&odd))).unwrap();
        assert_eq!(value["subject"], format!("x{}... (10001 bytes)", "ä".repeat(255)));
    }

    #[test]
    fn a_time_that_no_calendar_has_is_no_panic() {
        let mut event = samples::event("a");
        event.unix_ms = u64::MAX;
        let value: Value = serde_json::from_slice(&line_of(event)).unwrap();
        assert_eq!(value["time"], "9999-12-30T22:00:00.999Z");
    }

    proptest! {
        /// A name with a line feed, an escape sequence or a direction mark can neither forge a line nor reach a terminal.
        #[test]
        fn whatever_a_requester_sends_the_line_is_printable_ascii_and_says_it_exactly(
            letters in proptest::collection::vec(prop_oneof![any::<char>(), proptest::char::range('\0', '\u{a0}'), proptest::char::range('\u{2000}', '\u{2070}')], 0..60),
        ) {
            let text = String::from_iter(letters);
            let mut event = samples::event(&text);
            event.outcome = Outcome::Failed { reason: text.clone() };
            event.requester.name.clone_from(&text);
            event.requester.executable = Some(text.clone());
            event.requester.unit = Some(text.clone());
            let line = line_of(event);
            prop_assert!(line.iter().all(|byte| (0x20..0x7f).contains(byte)));
            let value: Value = serde_json::from_slice(&line).unwrap();
            let requester = &value["requester"];
            for found in [&value["subject"], &value["reason"], &requester["name"], &requester["executable"], &requester["unit"]] {
                prop_assert_eq!(found.as_str(), Some(text.as_str()));
            }
        }
    }
}
