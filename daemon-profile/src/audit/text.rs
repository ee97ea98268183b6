//! Texts from others, made fit for the log.
//!
//! Names in entries come from whoever asked, so nothing of them stands in the file as it came: everything but
//! printable ASCII is escaped, which keeps line feeds, terminal sequences and text-direction marks out of it,
//! and long texts are cut.

use std::io;

use serde::Serializer;

/// Longest text of one field, in bytes before escaping; what is longer is cut, and says so.
const TEXT_BYTES_MAX: usize = 512;
/// Longest executable path of one entry, in bytes before escaping.
const PATH_BYTES_MAX: usize = 4096;

fn shortened<S: Serializer>(text: &str, limit: usize, serializer: S) -> Result<S::Ok, S::Error> {
    if text.len() <= limit {
        return serializer.serialize_str(text);
    }
    let end = (0..=limit).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    serializer.collect_str(&format_args!("{}... ({} bytes)", &text[..end], text.len()))
}

pub(crate) fn cut<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    shortened(text, TEXT_BYTES_MAX, serializer)
}

pub(crate) fn cut_option<S: Serializer>(text: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        None => serializer.serialize_none(),
        Some(text) => shortened(text, TEXT_BYTES_MAX, serializer),
    }
}

pub(crate) fn cut_path<S: Serializer>(text: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        None => serializer.serialize_none(),
        Some(text) => shortened(text, PATH_BYTES_MAX, serializer),
    }
}

/// Compact JSON in which everything but printable ASCII is written as `\uXXXX`.
pub(crate) struct Ascii;

impl serde_json::ser::Formatter for Ascii {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, special)) = rest.char_indices().find(|(_, c)| !(' '..='~').contains(c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            for unit in special.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + special.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}
