//! Holds the description of the file format in `docs/audit-log.md` to what is written.

use core_crypto::hash_chain::Link;
use core_types::protocol::profile::Outcome;
use core_types::protocol::secrets::Gate;

use super::chain::{Keys, Verifier};
use super::line::{Entry, Recorder, Torn, samples, write_line};

const DESCRIPTION: &str = include_str!("../../../docs/audit-log.md");
/// The beginning of a line that never got an end, as in the description.
const PIECE: &str = r#"{"sequence":3,"previous":"#;

/// The file of the description, line by line, and the link after each entry.
fn example() -> (Vec<String>, Vec<Link>) {
    let mut denied = samples::event("stripe/live");
    denied.unix_ms += 1_234;
    denied.outcome = Outcome::Denied { gate: Gate::AccessRule, reason: "no rule allows it".to_owned() };
    let torn = Torn::of(PIECE.as_bytes());
    let daemon = |number| Recorder::daemon("daemon-secrets", 0x0123_4567_89ab_cdef, number);
    let entries = [
        Entry::Event { event: &samples::event("api-key"), recorder: daemon(0) },
        Entry::Event { event: &denied, recorder: daemon(1) },
        Entry::Torn { unix_ms: 1_763_781_399_000, torn: &torn },
    ];
    let (mut lines, mut links) = (Vec::new(), vec![Link::GENESIS]);
    for (sequence, entry) in (1..).zip(&entries) {
        let mut line = Vec::new();
        links.push(write_line(&mut line, sequence, links[links.len() - 1], entry, None).unwrap());
        lines.push(String::from_utf8(line).unwrap().trim_end().to_owned());
    }
    // User and process of the test are not those of the description.
    lines.insert(2, PIECE.to_owned());
    (lines, links)
}

#[test]
fn the_example_of_the_description_is_what_is_written() {
    let (lines, links) = example();
    let block = DESCRIPTION.split("```jsonl\n").nth(1).unwrap().split("```").next().unwrap();
    let described: Vec<&str> = block.lines().collect();
    assert_eq!(described[..3], lines[..3], "expected:\n{}\n", lines.join("\n"));
    let start = |line: &str| line.split("\"requester\"").next().unwrap().to_owned();
    let end = |line: &str| line.split("\"outcome\"").nth(1).unwrap().to_owned();
    assert_eq!((start(described[3]), end(described[3])), (start(&lines[3]), end(&lines[3])), "{}", lines[3]);
    for link in &links[..3] {
        assert!(DESCRIPTION.contains(&link.to_hex()), "{link}");
    }
}

#[test]
fn the_example_of_the_description_is_a_whole_log() {
    let block = DESCRIPTION.split("```jsonl\n").nth(1).unwrap().split("```").next().unwrap();
    let mut verifier = Verifier::new(Keys::new());
    for line in block.lines() {
        verifier.line(line.as_bytes()).unwrap();
    }
    assert!(DESCRIPTION.contains(&verifier.end().link.to_hex()), "{}", verifier.end().link);
    assert_eq!(verifier.finish(None).fault, None);
}
