//! Hides values in a stream of bytes: wherever one of their forms is written, `[REDACTED]` stands instead.
//!
//! A form may come in several pieces, so what could be the beginning of one is held back until more has come or a short
//! time is over. What was let go then is not taken back, but the rest of the form is still hidden. Bytes that belong to
//! no form pass as they are.

use std::rc::Rc;

use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::noncontiguous::NFA;
use aho_corasick::{Anchored, MatchKind};
use core_types::WireSecret;
use zeroize::Zeroizing;

use crate::shown_forms::{VALUE_BYTES_MIN, shown_forms};

/// What stands in the place of a value.
pub(crate) const REDACTED: &[u8] = b"[REDACTED]";
/// Fewest bytes of a value that is hidden; one or two or three letters stand in nearly every text.
pub(crate) const HIDDEN_BYTES_MIN: usize = 4;

/// All that is looked for.
pub(crate) struct Forms {
    straight: Automaton,
    /// Those that whoever writes them breaks into lines; looked for as if there were no line ends.
    wrapped: Automaton,
}

impl Forms {
    /// The forms of all values, and of each line of those with several; of values that are too short, none.
    /// `None` if there is nothing to look for, or more than an automaton can hold.
    pub(crate) fn of(values: &[WireSecret]) -> Option<Rc<Self>> {
        let (mut straight, mut wrapped) = (Vec::new(), Vec::new());
        for value in values.iter().map(WireSecret::expose).filter(|value| value.len() >= HIDDEN_BYTES_MIN) {
            // The ends of lines belong to a value, and yet are often not written with it.
            let trimmed = value.trim_ascii_end();
            let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            let lines = lines.filter(|line| line.len() >= VALUE_BYTES_MIN && line.len() < trimmed.len());
            for text in
                [value, trimmed].into_iter().chain(lines).filter(|text| text.len() >= HIDDEN_BYTES_MIN)
            {
                for (encoding, form) in shown_forms(text) {
                    if form.len() >= HIDDEN_BYTES_MIN {
                        if encoding.is_wrapped() {
                            wrapped.push(form.clone());
                        }
                        straight.push(form);
                    }
                }
            }
        }
        if straight.is_empty() {
            return None;
        }
        Some(Rc::new(Self { straight: Automaton::of(&straight)?, wrapped: Automaton::of(&wrapped)? }))
    }
}

/// An automaton that knows of each of its states how many bytes have led to it from the beginning of a form.
struct Automaton {
    states: NFA,
    start: StateID,
    depths: Vec<u32>,
}

impl Automaton {
    fn of(forms: &[Zeroizing<Vec<u8>>]) -> Option<Self> {
        let states = NFA::builder().match_kind(MatchKind::Standard).prefilter(false).build(forms).ok()?;
        let start = states.start_state(Anchored::No).ok()?;
        let mut depths = Vec::new();
        for form in forms {
            let (mut state, mut depth) = (start, 0);
            for byte in form.iter() {
                state = states.next_state(Anchored::No, state, *byte);
                depth += 1;
                let index = state.as_usize();
                if depths.len() <= index {
                    depths.resize(index + 1, 0);
                }
                *depths.get_mut(index)? = depth;
            }
        }
        Some(Self { states, start, depths })
    }

    fn next(&self, state: StateID, byte: u8) -> StateID {
        self.states.next_state(Anchored::No, state, byte)
    }

    /// Length of the longest form that ends here; 0 if none does.
    fn ended(&self, state: StateID) -> usize {
        if !self.states.is_match(state) {
            return 0;
        }
        let forms = (0..self.states.match_len(state)).map(|index| self.states.match_pattern(state, index));
        forms.map(|form| self.states.pattern_len(form)).max().unwrap_or(0)
    }

    /// How many of the last bytes may be the beginning of a form.
    fn depth(&self, state: StateID) -> usize {
        self.depths.get(state.as_usize()).map_or(0, |depth| usize::try_from(*depth).unwrap_or(usize::MAX))
    }
}

/// One stream that values are hidden in.
pub(crate) struct Mask {
    forms: Rc<Forms>,
    straight: StateID,
    wrapped: StateID,
    /// What came and was not let go.
    held: Zeroizing<Vec<u8>>,
    /// Which bytes of it belong to a form.
    hidden: Vec<bool>,
    /// Whether the byte that was let go last was hidden.
    redacting: bool,
}

impl Mask {
    pub(crate) fn new(forms: &Rc<Forms>) -> Self {
        Self {
            straight: forms.straight.start,
            wrapped: forms.wrapped.start,
            forms: Rc::clone(forms),
            held: Zeroizing::default(),
            hidden: Vec::new(),
            redacting: false,
        }
    }

    /// Whether something is held back.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes what came, and adds to `shown` what can be let go.
    pub(crate) fn push(&mut self, bytes: &[u8], shown: &mut Vec<u8>) {
        for byte in bytes {
            self.held.push(*byte);
            self.hidden.push(false);
            self.straight = self.forms.straight.next(self.straight, *byte);
            let ended = self.forms.straight.ended(self.straight);
            if ended > 0 {
                self.hide(ended);
            }
            if !is_line_end(*byte) {
                self.wrapped = self.forms.wrapped.next(self.wrapped, *byte);
                let ended = self.forms.wrapped.ended(self.wrapped);
                if ended > 0 {
                    self.hide(self.with_line_ends(ended));
                }
            }
        }
        let depth = self.forms.straight.depth(self.straight);
        let kept = depth.max(self.with_line_ends(self.forms.wrapped.depth(self.wrapped)));
        self.let_go(self.held.len().saturating_sub(kept), shown);
    }

    /// Adds to `shown` all that is held back.
    pub(crate) fn let_all_go(&mut self, shown: &mut Vec<u8>) {
        self.let_go(self.held.len(), shown);
    }

    /// How many of the last bytes hold so many that are no line ends; line ends before the first of them are not counted.
    fn with_line_ends(&self, count: usize) -> usize {
        if count == 0 {
            return 0;
        }
        let counted = self.held.iter().rev().enumerate().filter(|(_, byte)| !is_line_end(**byte));
        counted.map(|(position, _)| position + 1).nth(count - 1).unwrap_or(self.held.len())
    }

    fn hide(&mut self, count: usize) {
        self.hidden.iter_mut().rev().take(count).for_each(|hidden| *hidden = true);
    }

    fn let_go(&mut self, count: usize, shown: &mut Vec<u8>) {
        for (byte, hidden) in self.held.drain(..count).zip(self.hidden.drain(..count)) {
            match hidden {
                true if !self.redacting => shown.extend_from_slice(REDACTED),
                true => {}
                false => shown.push(byte),
            }
            self.redacting = hidden;
        }
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding as _};
    use proptest::prelude::*;

    use super::*;

    fn mask(values: &[&[u8]]) -> Mask {
        let values: Vec<WireSecret> = values.iter().map(|value| WireSecret::new(value.to_vec())).collect();
        Mask::new(&Forms::of(&values).unwrap())
    }

    /// What is shown of pieces, with everything let go at the end.
    fn shown<'a>(values: &[&[u8]], pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut mask, mut shown) = (mask(values), Vec::new());
        pieces.into_iter().for_each(|piece| mask.push(piece, &mut shown));
        mask.let_all_go(&mut shown);
        shown
    }

    fn text(values: &[&[u8]], written: &[u8]) -> String {
        let whole = shown(values, [written]);
        // However it is cut, it is the same.
        for length in [1, 2, 3, 7] {
            assert_eq!(shown(values, written.chunks(length)), whole, "in pieces of {length}");
        }
        String::from_utf8_lossy(&whole).into_owned()
    }

    #[test]
    fn a_value_is_hidden_in_each_form_and_nothing_else_is() {
        let value = b"s3cr3t/with \"quotes\" & more";
        for (encoding, form) in shown_forms(value) {
            let written = [b"before ".as_slice(), &form, b" after\n"].concat();
            assert_eq!(text(&[value], &written), "before [REDACTED] after\n", "{encoding:?}");
        }
        assert_eq!(text(&[value], b"s3cr3t/with \"quotes\" & mor"), "s3cr3t/with \"quotes\" & mor");
        for before in [&b"x"[..], b"xy", b"xyz"] {
            let encoded = Base64::encode_string(&[before, value, b"zzz"].concat());
            assert!(text(&[value], encoded.as_bytes()).contains("[REDACTED]"));
        }
    }

    #[test]
    fn of_values_that_overlap_or_follow_each_other_nothing_is_left() {
        let values: [&[u8]; 3] = [b"abcd", b"abcdefgh", b"ghijklmn"];
        assert_eq!(
            text(&values, b"<abcd> <abcdefgh> <abcdefghijklmn> <abcdefg>"),
            "<[REDACTED]> <[REDACTED]> <[REDACTED]> <[REDACTED]efg>"
        );
        assert_eq!(text(&values, b"<abcdabcd>"), "<[REDACTED]>");
    }

    #[test]
    fn lines_of_a_value_and_a_value_broken_into_lines_are_hidden() {
        let key = b"-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG9w0B\n-----END KEY-----\n";
        assert_eq!(text(&[key], b"key: MIIBVgIBADANBgkqhkiG9w0B."), "key: [REDACTED].");
        // As a terminal writes it.
        let on_terminal = String::from_utf8_lossy(key).replace('\n', "\r\n");
        assert!(!text(&[key], on_terminal.as_bytes()).contains("MIIB"));
        let encoded = Base64::encode_string(&[&b"#"[..], &key[..], b"##"].concat());
        let wrapped: Vec<String> =
            encoded.as_bytes().chunks(20).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        let left = text(&[key], wrapped.join("\n").as_bytes());
        assert!(left.len() < REDACTED.len() + 8, "{left}");
    }

    #[test]
    fn what_was_let_go_is_not_taken_back_and_the_rest_is_hidden() {
        let (mut mask, mut shown) = (mask(&[b"hunter2-hunter2"]), Vec::new());
        mask.push(b"pw: hunter2", &mut shown);
        assert_eq!((shown.as_slice(), mask.holds()), (&b"pw: "[..], true));
        mask.let_all_go(&mut shown);
        mask.push(b"-hunter2.", &mut shown);
        assert_eq!(shown, b"pw: hunter2[REDACTED].");
        assert!(!mask.holds());
    }

    #[test]
    fn what_is_too_short_is_not_looked_for() {
        assert!(Forms::of(&[WireSecret::new(b"abc".to_vec()), WireSecret::new(Vec::new())]).is_none());
    }

    proptest! {
        #[test]
        fn no_cut_makes_a_difference_and_no_value_is_left(
            values in prop::collection::vec(prop::collection::vec(b'a'..b'd', 4..9), 1..4),
            text in prop::collection::vec(b'a'..b'd', 0..200),
            cut in 1_usize..9,
        ) {
            let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            let whole = shown(&values, [text.as_slice()]);
            prop_assert_eq!(&shown(&values, text.chunks(cut)), &whole);
            let left = whole.windows(4).any(|window| values.contains(&window));
            prop_assert!(!left);
        }

        #[test]
        fn without_a_value_in_it_every_byte_passes(text in prop::collection::vec(any::<u8>(), 0..300), cut in 1_usize..9) {
            let value: &[u8] = b"0123456789abcdef0123456789abcdef";
            prop_assert_eq!(shown(&[value], text.chunks(cut)), text);
        }
    }
}
