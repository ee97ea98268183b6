//! The forms in which a value may show itself: as it is, and as programs write it into other text.
//!
//! Whoever looks for values, or hides them, looks for these. Base64 is looked for in all three places that a value can
//! have among the groups of three bytes that base64 encodes: only the characters that follow from the value alone are
//! taken, since those at its ends depend on its neighbours.

use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding as _};
use zeroize::Zeroizing;

/// Fewest bytes of a value that is looked for: shorter ones are found in texts by chance.
pub(crate) const VALUE_BYTES_MIN: usize = 8;

/// How a value shows itself, as told to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Encoding {
    /// Byte for byte.
    Plain,
    /// Base64, of either alphabet (RFC 4648, sections 4 and 5).
    Base64,
    /// Hex digits, of either case.
    Hex,
    /// Percent-encoded (RFC 3986, section 2.1), or as a form is sent.
    Url,
    /// Within a string of JSON (RFC 8259, section 7).
    Json,
}

impl Encoding {
    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Base64 => "base64",
            Self::Hex => "hex",
            Self::Url => "url",
            Self::Json => "json",
        }
    }

    /// Whether who writes it breaks it into lines wherever he likes.
    pub(crate) fn is_wrapped(self) -> bool {
        matches!(self, Self::Base64 | Self::Hex)
    }
}

/// One way of writing a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Plain,
    /// Base64 behind so many bytes of a group, in one of the two alphabets.
    Base64 { behind: usize, for_urls: bool },
    /// Hex digits.
    Hex { upper: bool },
    /// Percent-encoded.
    Url { upper: bool, kept: &'static [u8], plus: bool },
    /// Escaped for JSON.
    Json { ascii: bool, slash: bool },
}

/// What percent-encoding leaves alone besides letters and digits: RFC 3986 (curl, Go); JavaScript's
/// `encodeURIComponent`; Python's `quote`; forms.
const UNRESERVED: &[u8] = b"-._~";
const JAVASCRIPT: &[u8] = b"-._~!'()*";
const PATHS: &[u8] = b"-._~/";
const FORMS: &[u8] = b"-._*";

/// All forms; of a given value several may be the same.
pub(crate) const FORMS_ALL: [Form; 19] = [
    Form::Plain,
    Form::Base64 { behind: 0, for_urls: false },
    Form::Base64 { behind: 1, for_urls: false },
    Form::Base64 { behind: 2, for_urls: false },
    Form::Base64 { behind: 0, for_urls: true },
    Form::Base64 { behind: 1, for_urls: true },
    Form::Base64 { behind: 2, for_urls: true },
    Form::Hex { upper: false },
    Form::Hex { upper: true },
    Form::Url { upper: true, kept: UNRESERVED, plus: false },
    Form::Url { upper: false, kept: UNRESERVED, plus: false },
    Form::Url { upper: true, kept: JAVASCRIPT, plus: false },
    Form::Url { upper: true, kept: PATHS, plus: false },
    Form::Url { upper: true, kept: FORMS, plus: true },
    Form::Url { upper: true, kept: UNRESERVED, plus: true },
    Form::Json { ascii: false, slash: false },
    Form::Json { ascii: false, slash: true },
    Form::Json { ascii: true, slash: false },
    Form::Json { ascii: true, slash: true },
];

impl Form {
    /// What it is called.
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Self::Plain => Encoding::Plain,
            Self::Base64 { .. } => Encoding::Base64,
            Self::Hex { .. } => Encoding::Hex,
            Self::Url { .. } => Encoding::Url,
            Self::Json { .. } => Encoding::Json,
        }
    }

    /// The value written so, in a buffer that never grew. What begins a value begins its form too, but for the last
    /// character of base64. A value that is no text has no form in JSON: then it is given as it is.
    pub(crate) fn of(self, value: &[u8]) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Plain => Zeroizing::new(value.to_vec()),
            Self::Base64 { behind, for_urls } => base64(value, behind, for_urls),
            Self::Hex { upper } => hex(value, upper),
            Self::Url { upper, kept, plus } => url(value, upper, kept, plus),
            Self::Json { ascii, slash } => json(value, ascii, slash),
        }
    }
}

/// All different forms of a value.
pub(crate) fn shown_forms(value: &[u8]) -> Vec<(Encoding, Zeroizing<Vec<u8>>)> {
    let mut forms: Vec<(Encoding, Zeroizing<Vec<u8>>)> = Vec::with_capacity(FORMS_ALL.len());
    for form in FORMS_ALL {
        let text = form.of(value);
        if !forms.iter().any(|(_, other)| *other == text) {
            forms.push((form.encoding(), text));
        }
    }
    forms
}

/// The characters that follow from the value alone when `behind` other bytes stand before it in its first group.
fn base64(value: &[u8], behind: usize, for_urls: bool) -> Zeroizing<Vec<u8>> {
    let mut padded = Zeroizing::new(Vec::with_capacity(behind + value.len()));
    padded.resize(behind, 0);
    padded.extend_from_slice(value);
    let text = Zeroizing::new(if for_urls {
        Base64UrlUnpadded::encode_string(&padded)
    } else {
        Base64Unpadded::encode_string(&padded)
    });
    // Six bits to a character: those that have a bit of a neighbour in them are left out.
    let (first, end) = ((behind * 8).div_ceil(6), padded.len() * 8 / 6);
    Zeroizing::new(text.as_bytes().get(first..end).unwrap_or_default().to_vec())
}

fn digit(nibble: u8, upper: bool) -> u8 {
    match nibble & 0x0f {
        digit @ 0..=9 => b'0' + digit,
        letter if upper => b'A' + letter - 10,
        letter => b'a' + letter - 10,
    }
}

fn hex(value: &[u8], upper: bool) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(2 * value.len()));
    for byte in value {
        text.extend([digit(byte >> 4, upper), digit(*byte, upper)]);
    }
    text
}

fn url(value: &[u8], upper: bool, kept: &[u8], plus: bool) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(3 * value.len()));
    for byte in value {
        match byte {
            b' ' if plus => text.push(b'+'),
            _ if byte.is_ascii_alphanumeric() || kept.contains(byte) => text.push(*byte),
            _ => text.extend([b'%', digit(byte >> 4, upper), digit(*byte, upper)]),
        }
    }
    text
}

fn json(value: &[u8], ascii: bool, slash: bool) -> Zeroizing<Vec<u8>> {
    let Ok(characters) = std::str::from_utf8(value) else { return Zeroizing::new(value.to_vec()) };
    let mut text = Zeroizing::new(Vec::with_capacity(6 * value.len()));
    for character in characters.chars() {
        match character {
            '"' => text.extend(b"\\\""),
            '\\' => text.extend(b"\\\\"),
            '/' if slash => text.extend(b"\\/"),
            '\n' => text.extend(b"\\n"),
            '\r' => text.extend(b"\\r"),
            '\t' => text.extend(b"\\t"),
            '\u{8}' => text.extend(b"\\b"),
            '\u{c}' => text.extend(b"\\f"),
            _ if character < ' ' || (ascii && !character.is_ascii()) => escape(&mut text, character),
            _ => text.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    text
}

/// The escapes of a character: one for each unit of its UTF-16.
fn escape(text: &mut Vec<u8>, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        let [high, low] = unit.to_be_bytes();
        text.extend(b"\\u");
        text.extend([high >> 4, high, low >> 4, low].map(|nibble| digit(nibble, false)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const VALUES: [&[u8]; 6] = [
        b"hunter2!",
        b"tr0ub4dor & 3/4+5=\"x\"\\",
        b"-----BEGIN KEY-----\nabc/def+\n-----END KEY-----\n",
        b"\xff\xfe\xfd\x00\x01\x02\x03\x04\x05",
        "pässwörd €uro 😀".as_bytes(),
        b"????>>>>~~~~",
    ];

    fn contains(text: &[u8], part: &[u8]) -> bool {
        text.windows(part.len()).any(|window| window == part)
    }

    fn is_found(value: &[u8], text: &[u8], encoding: Encoding) {
        let forms = shown_forms(value);
        let found = forms.iter().any(|(kind, form)| *kind == encoding && contains(text, form));
        assert!(found, "{encoding:?} of a value of {} bytes", value.len());
    }

    /// Other writers' text: base64 of a whole that the value stands in, by the crate that decodes it strictly.
    #[test]
    fn base64_is_found_wherever_the_value_stands_in_what_was_encoded() {
        for value in VALUES {
            for before in 0..7 {
                for after in 0..4 {
                    let whole = [&b"#########"[..before], value, &b"}}}}"[..after]].concat();
                    for text in [
                        base64ct::Base64::encode_string(&whole),
                        Base64Unpadded::encode_string(&whole),
                        base64ct::Base64Url::encode_string(&whole),
                    ] {
                        is_found(value, text.as_bytes(), Encoding::Base64);
                    }
                }
            }
        }
    }

    #[test]
    fn base64_takes_no_character_that_a_neighbour_changes() {
        for value in VALUES {
            for behind in 0..3 {
                let form = base64(value, behind, false);
                for neighbour in [0, 0x55, 0xff] {
                    let whole = [vec![neighbour; behind], value.to_vec(), vec![neighbour; 2]].concat();
                    assert!(contains(Base64Unpadded::encode_string(&whole).as_bytes(), &form));
                }
                // No more than two characters at either end are given up.
                assert!(form.len() + 3 > value.len() * 8 / 6, "{behind}");
            }
        }
    }

    #[test]
    fn known_answers() {
        let of = |form: Form, value: &[u8]| String::from_utf8(form.of(value).to_vec()).unwrap();
        assert_eq!(of(Form::Hex { upper: true }, b"\x00\xab~"), "00AB7E");
        assert_eq!(of(Form::Hex { upper: false }, b"\x00\xab~"), "00ab7e");
        let url = |upper, kept, plus| of(Form::Url { upper, kept, plus }, b"a b/c~*\xff+");
        assert_eq!(url(true, UNRESERVED, false), "a%20b%2Fc~%2A%FF%2B");
        assert_eq!(url(false, UNRESERVED, false), "a%20b%2fc~%2a%ff%2b");
        assert_eq!(url(true, JAVASCRIPT, false), "a%20b%2Fc~*%FF%2B");
        assert_eq!(url(true, PATHS, false), "a%20b/c~%2A%FF%2B");
        assert_eq!(url(true, FORMS, true), "a+b%2Fc%7E*%FF%2B");
        let json = |ascii, slash| of(Form::Json { ascii, slash }, "a\"\\/\n\u{1}ä😀".as_bytes());
        assert_eq!(json(false, false), "a\\\"\\\\/\\n\\u0001ä😀");
        assert_eq!(json(true, true), "a\\\"\\\\\\/\\n\\u0001\\u00e4\\ud83d\\ude00");
    }

    #[test]
    fn json_is_what_serde_writes() {
        for value in VALUES.iter().filter_map(|value| std::str::from_utf8(value).ok()) {
            let written = serde_json::to_string(value).unwrap();
            assert_eq!(
                *Form::Json { ascii: false, slash: false }.of(value.as_bytes()),
                written.as_bytes()[1..written.len() - 1]
            );
        }
    }

    #[test]
    fn no_form_is_there_twice_and_none_is_shorter_than_what_is_looked_for() {
        for value in VALUES {
            let forms = shown_forms(value);
            let texts: BTreeSet<&[u8]> = forms.iter().map(|(_, form)| form.as_slice()).collect();
            assert_eq!(texts.len(), forms.len());
            assert!(forms.iter().all(|(_, form)| form.len() >= VALUE_BYTES_MIN));
        }
        assert_eq!(shown_forms(b"jklmnopq").len(), 1 + 3 + 2);
    }

    #[test]
    fn what_begins_a_value_begins_its_forms() {
        for value in VALUES {
            for form in FORMS_ALL {
                let ends = (8..value.len()).filter(|end| {
                    std::str::from_utf8(value).is_err() || std::str::from_utf8(&value[..*end]).is_ok()
                });
                for end in ends {
                    assert!(form.of(value).starts_with(&form.of(&value[..end])), "{form:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_broken_into_lines_is_what_is_longer_than_the_value() {
        let wrapped = FORMS_ALL.map(Form::encoding).into_iter().filter(|encoding| encoding.is_wrapped());
        let names: BTreeSet<&str> = wrapped.map(Encoding::as_str).collect();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["base64", "hex"]);
    }

    #[test]
    fn no_buffer_grows() {
        for value in VALUES {
            for form in [Form::Hex { upper: true }, FORMS_ALL[9], FORMS_ALL[18]] {
                assert!(form.of(value).capacity() <= 6 * value.len());
            }
        }
    }
}
