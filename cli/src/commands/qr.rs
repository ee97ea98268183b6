//! `pds qr`: a value as a QR code on the terminal, for a telephone to read.
//!
//! What the crate keeps of the value are vectors of bits and modules, which nothing wipes but the allocator of this program,
//! when they are freed; they are freed before this returns.

use std::io::IsTerminal as _;

use core_types::protocol::secrets::Get;
use qrcode::bits::Bits;
use qrcode::types::QrError;
use qrcode::{Color, EcLevel, QrCode, Version};
use rustix::termios::tcgetwinsize;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::args::QrOptions;
use crate::error::Failure;
use crate::fields;
use crate::session::Session;

/// Light modules around the code (ISO/IEC 18004, "quiet zone"): readers find it by them.
const QUIET: usize = 4;
/// The largest code (ISO/IEC 18004: 177 modules a side).
const VERSION_MAX: i16 = 40;

/// Why there is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodeError {
    /// Readers show text.
    #[error("the value is not text")]
    NotText,
    /// No code holds so much.
    #[error("the value has {bytes} bytes, more than a QR code holds")]
    TooLong { bytes: usize },
    /// Cut off it could not be read.
    #[error(
        "the code needs {columns} columns and {rows} rows, and the terminal has {has_columns} and {has_rows}"
    )]
    NoRoom { columns: usize, rows: usize, has_columns: usize, has_rows: usize },
    /// It would go into a file.
    #[error("the code would go into a pipe or a file, and not onto a terminal")]
    WouldBeKept,
}

impl CodeError {
    /// What to do next.
    pub(crate) fn next(&self) -> &'static str {
        match self {
            Self::NotText | Self::TooLong { .. } => "take it as a file: `pds get NAME > FILE`",
            Self::NoRoom { .. } => "make the window larger, or its letters smaller",
            Self::WouldBeKept => "say --yes if that is what you want",
        }
    }
}

/// `pds qr --json`: the modules without the light ones around them, line by line, `1` for a dark one.
#[derive(Serialize)]
struct Shown<'a> {
    profile: &'a str,
    name: &'a str,
    modules: Vec<String>,
}

pub(super) fn run(session: &mut Session, options: &QrOptions) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() && !options.yes {
        return Err(CodeError::WouldBeKept.into());
    }
    let profile = session.profile()?;
    let name = options.name.as_str();
    let value = session.call(&Get { profile: profile.clone(), name: name.to_owned(), version: None })?;
    let value = fields::opened(session, &profile, name, value)?;
    let code = code(value.expose())?;
    drop(value);
    if session.output.wants_json() {
        let modules = (0..code.width()).map(|row| digits(&code, row)).collect();
        return session.output.secret_object(&Shown { profile: profile.as_str(), name, modules });
    }
    if std::io::stdout().is_terminal() {
        check_room(code.width())?;
    }
    session.output.prepared(drawing(&code).as_bytes())
}

/// The smallest code that holds the value, in one piece, so that a reader sees these bytes and no other reading of them.
fn code(value: &[u8]) -> Result<QrCode, CodeError> {
    std::str::from_utf8(value).map_err(|_| CodeError::NotText)?;
    let sizes = [EcLevel::M, EcLevel::L]
        .into_iter()
        .flat_map(|level| (1..=VERSION_MAX).map(move |number| (level, Version::Normal(number))));
    for (level, version) in sizes {
        let mut bits = Bits::new(version);
        let filled = push(&mut bits, value).and_then(|()| bits.push_terminator(level));
        if let Ok(code) = filled.and_then(|()| QrCode::with_bits(bits, level)) {
            return Ok(code);
        }
    }
    Err(CodeError::TooLong { bytes: value.len() })
}

/// The value as digits or bytes. The crate's own choice would take some UTF-8 for Shift JIS, which it is not.
fn push(bits: &mut Bits, value: &[u8]) -> Result<(), QrError> {
    if !value.is_empty() && value.iter().all(u8::is_ascii_digit) {
        bits.push_numeric_data(value)
    } else {
        bits.push_byte_data(value)
    }
}

fn check_room(width: usize) -> Result<(), CodeError> {
    let Ok(size) = tcgetwinsize(rustix::stdio::stdout()) else { return Ok(()) };
    let (has_columns, has_rows) = (usize::from(size.ws_col), usize::from(size.ws_row));
    let (columns, rows) = (width + 2 * QUIET, (width + 2 * QUIET).div_ceil(2));
    // A terminal that does not know its size says 0. The line of the prompt comes below.
    if (has_columns > 0 && columns > has_columns) || (has_rows > 0 && rows + 1 > has_rows) {
        return Err(CodeError::NoRoom { columns, rows: rows + 1, has_columns, has_rows });
    }
    Ok(())
}

/// Two modules in one character, black on white by their numbers among 256 colours, whatever the terminal's own are.
fn drawing(code: &QrCode) -> Zeroizing<String> {
    const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
    const PLAIN: &str = "\x1b[0m\n";
    let width = code.width();
    let side = width + 2 * QUIET;
    let is_dark = |row: usize, column: usize| {
        let inside = |place: usize| place.checked_sub(QUIET).filter(|place| *place < width);
        matches!((inside(row), inside(column)), (Some(row), Some(column)) if code[(column, row)] == Color::Dark)
    };
    let line = BLACK_ON_WHITE.len() + PLAIN.len() + side * '█'.len_utf8();
    let mut text = Zeroizing::new(String::with_capacity(side.div_ceil(2) * line));
    for row in (0..side).step_by(2) {
        text.push_str(BLACK_ON_WHITE);
        text.extend((0..side).map(|column| match (is_dark(row, column), is_dark(row + 1, column)) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        }));
        text.push_str(PLAIN);
    }
    text
}

fn digits(code: &QrCode, row: usize) -> String {
    (0..code.width()).map(|column| if code[(column, row)] == Color::Dark { '1' } else { '0' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_in_no_code_or_is_no_text_is_refused() {
        assert!(code(b"").is_ok());
        assert!(code(&[b'x'; 2953]).is_ok(), "the most that there is (ISO/IEC 18004, table 7)");
        assert!(code(&[b'7'; 7089]).is_ok());
        assert_eq!(code(&[b'x'; 2954]).err(), Some(CodeError::TooLong { bytes: 2954 }));
        assert_eq!(code(b"\xff").err(), Some(CodeError::NotText));
    }

    #[test]
    fn the_drawing_has_its_quiet_zone_its_colours_and_never_grows() {
        let code = code(b"value").unwrap();
        let text = drawing(&code);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), (code.width() + 8).div_ceil(2));
        for line in &lines {
            let inner = line.strip_prefix("\x1b[38;5;16;48;5;231m").unwrap().strip_suffix("\x1b[0m").unwrap();
            assert_eq!(inner.chars().count(), code.width() + 8);
            assert!(inner.starts_with("    ") && inner.ends_with("    "));
        }
        assert!(lines[0].contains(&" ".repeat(code.width() + 8)));
        let capacity = text.capacity();
        assert!(text.len() <= capacity && capacity <= lines.len() * (21 + 4 + 3 * (code.width() + 8)));
    }
}
