//! Finds values in bytes, in every form that they may show themselves in.
//!
//! The first bytes of each form are looked for all at once; whether the rest follows is asked of the value itself, which is
//! written in that form anew, so that no forms of values are kept. What is kept in memory outside of the values are eight
//! bytes of each form.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, MatchKind};
use core_types::WireSecret;

use crate::shown_forms::{FORMS_ALL, Form, VALUE_BYTES_MIN};

/// Bytes of a form that are looked for first: as many as the shortest form has.
const ANCHOR_BYTES: usize = VALUE_BYTES_MIN;
/// Bytes of a value that decide on the anchors of its forms.
const HEAD_BYTES: usize = 2 * ANCHOR_BYTES + 4;

/// A place in a form of a value.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    secret: usize,
    form: Form,
    /// Where in the form the anchor begins. Base64 and hex digits have a second one, in case a line ends in the first.
    offset: usize,
}

/// Values that are looked for.
pub(super) struct Needles {
    secrets: Vec<(String, WireSecret)>,
    automaton: Option<AhoCorasick>,
    anchors: Vec<Vec<Anchor>>,
}

impl Needles {
    /// Looks for these values, each of at least [`VALUE_BYTES_MIN`] bytes, and tells them by these names.
    pub(super) fn new(secrets: Vec<(String, WireSecret)>) -> Self {
        let mut anchors: BTreeMap<Vec<u8>, Vec<Anchor>> = BTreeMap::new();
        for (secret, (_, value)) in secrets.iter().enumerate() {
            let value = value.expose();
            for form in FORMS_ALL {
                let head = form.of(head(value));
                let mut add = |offset: usize| {
                    if let Some(anchor) = head.get(offset..offset + ANCHOR_BYTES) {
                        let anchors = anchors.entry(anchor.to_vec()).or_default();
                        // Forms that begin alike are the same for most values.
                        let same =
                            |other: &Anchor| other.secret == secret && other.form.of(value) == form.of(value);
                        if !anchors.iter().any(same) {
                            anchors.push(Anchor { secret, form, offset });
                        }
                    }
                };
                add(0);
                if form.encoding().is_wrapped() {
                    add(ANCHOR_BYTES);
                }
            }
        }
        let (texts, anchors): (Vec<Vec<u8>>, Vec<Vec<Anchor>>) = anchors.into_iter().unzip();
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(&texts).ok();
        Self { secrets, automaton: automaton.filter(|_| !texts.is_empty()), anchors }
    }

    /// Where values begin in `text`, with the name and the form of each.
    pub(super) fn find(&self, text: &[u8]) -> Vec<(usize, String, &'static str)> {
        let mut found = Vec::new();
        let Some(automaton) = &self.automaton else { return found };
        let mut from = 0;
        // All anchors are of one length, so at each place there is at most one.
        while let Some(hit) = automaton.find(&text[from..]) {
            let at = from + hit.start();
            for anchor in &self.anchors[hit.pattern().as_usize()] {
                let (name, value) = &self.secrets[anchor.secret];
                let form = anchor.form.of(value.expose());
                let wrapped = anchor.form.encoding().is_wrapped();
                if let Some(start) = stands_at(text, at, &form, anchor.offset, wrapped) {
                    found.push((start, name.clone(), anchor.form.encoding().as_str()));
                }
            }
            from = at + 1;
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// What of a value its anchors are made of: no more than needed, and whole characters of what is text.
fn head(value: &[u8]) -> &[u8] {
    let end = value.len().min(HEAD_BYTES);
    if end == value.len() || std::str::from_utf8(value).is_err() {
        return &value[..end];
    }
    let whole = (0..=end).rev().find(|end| value[*end] & 0xc0 != 0x80);
    &value[..whole.unwrap_or(end)]
}

/// Where a form begins whose byte `offset` is at `at`; line ends within it are passed over where it may be wrapped.
fn stands_at(text: &[u8], at: usize, form: &[u8], offset: usize, wrapped: bool) -> Option<usize> {
    let is_break = |byte: u8| wrapped && matches!(byte, b'\n' | b'\r');
    let mut position = at;
    for expected in form.get(offset..)? {
        while text.get(position).copied().is_some_and(is_break) {
            position += 1;
        }
        if text.get(position) != Some(expected) {
            return None;
        }
        position += 1;
    }
    let mut start = at;
    for expected in form[..offset].iter().rev() {
        while start > 0 && is_break(text[start - 1]) {
            start -= 1;
        }
        start = start.checked_sub(1)?;
        if text[start] != *expected {
            return None;
        }
    }
    Some(start)
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding as _};

    use super::*;

    fn needles(values: &[&[u8]]) -> Needles {
        let named = values.iter().enumerate();
        Needles::new(
            named.map(|(number, value)| (format!("p/{number}"), WireSecret::new(value.to_vec()))).collect(),
        )
    }

    fn found(needles: &Needles, text: &[u8]) -> Vec<(usize, String, &'static str)> {
        needles.find(text)
    }

    #[test]
    fn a_value_is_found_in_each_form_wherever_it_stands() {
        for value in
            [&b"hunter2!"[..], b"a \"longer\" / value with 30 bytes", "pässwörd €uro".as_bytes(), &[0xff; 40]]
        {
            let needles = needles(&[value, b"another value"]);
            for form in FORMS_ALL {
                for before in [0, 1, 5000] {
                    let text = [&vec![b'.'; before][..], &form.of(value), b"..."].concat();
                    let expected = |(at, name, _): &(usize, String, &str)| *at == before && name == "p/0";
                    assert!(found(&needles, &text).iter().any(expected), "{form:?} behind {before}");
                }
            }
        }
    }

    #[test]
    fn a_piece_of_a_value_is_not_a_value() {
        let value = b"-----BEGIN PRIVATE KEY-----\nabcdef";
        let needles = needles(&[value]);
        for form in FORMS_ALL {
            let text = form.of(value);
            assert!(found(&needles, &text[..text.len() - 1]).is_empty(), "{form:?}");
            assert!(found(&needles, &text[1..]).is_empty(), "{form:?}");
            let mut other = text.to_vec();
            other[10] ^= 1;
            assert!(found(&needles, &other).is_empty(), "{form:?}");
        }
    }

    #[test]
    fn lines_may_end_anywhere_in_base64_and_hex_but_not_in_text() {
        let value: Vec<u8> = (0..200).map(|number: u8| number.wrapping_mul(7)).collect();
        let needles = needles(&[&value]);
        for width in [60, 64, 76] {
            for before in 0..width {
                let whole = [vec![b'#'; before], value.clone(), b"###".to_vec()].concat();
                for text in [
                    Base64::encode_string(&whole).into_bytes(),
                    Form::Hex { upper: false }.of(&whole).to_vec(),
                ] {
                    let lines: Vec<&[u8]> = text.chunks(width).collect();
                    assert!(!found(&needles, &lines.join(&b"\r\n"[..])).is_empty(), "{before} of {width}");
                }
            }
        }
        let plain = [&value[..50], b"\n", &value[50..]].concat();
        assert!(found(&needles, &plain).is_empty());
    }

    #[test]
    fn values_that_overlap_and_begin_alike_are_all_found() {
        let needles = needles(&[b"password1", b"password12345", b"word12345", b"password1"]);
        let mut names: Vec<String> =
            found(&needles, b"x password12345").into_iter().map(|(_, name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["p/0", "p/1", "p/2", "p/3"]);
        assert!(found(&needles, b"password").is_empty());
        assert!(Needles::new(Vec::new()).find(b"anything").is_empty());
    }
}
