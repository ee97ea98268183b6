//! `--env-file`: variables of a file in the dotenv format.
//!
//! There is no standard of that format, and the parser quietly does what others do not: it puts variables of this
//! process in the place of `$NAME`, drops a backslash at the end, and reads on over lines where a quote stands in the
//! middle of a value. So the file is taken apart into assignments here, what readers disagree on is refused by its line
//! and variable, and the parser gets one plain assignment at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_types::WireSecret;
use core_types::protocol::launcher::OsBytes;

use crate::input::{InputError, Source};

/// Largest file, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Longest beginning of a line that is repeated as the name of a variable, in characters.
const NAME_SHOWN_MAX: usize = 64;

/// Why a file cannot be used. No value is repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvFileError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(InputError),
    /// There is more of it than is read.
    #[error("the file {} is larger than {FILE_BYTES_MAX} bytes, the most it may have", path.display())]
    TooLarge { path: PathBuf },
    /// Its bytes are no text.
    #[error("the file {} is not UTF-8 text, or has a NUL byte", path.display())]
    NotText { path: PathBuf },
    /// A line that readers of such files would understand differently, or not at all.
    #[error("line {line} of {}{}: {problem}", path.display(), variable.as_ref().map(|name| format!(", {name}")).unwrap_or_default())]
    Line { path: PathBuf, line: usize, variable: Option<String>, problem: Problem },
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("it is no assignment NAME=value")]
    NoAssignment,
    #[error("a quote is not closed")]
    Unclosed,
    #[error("something follows the closing quote")]
    AfterQuote,
    #[error("a quote, a backslash or a control character stands in a value without quotes")]
    NeedsQuotes,
    #[error("nothing is put in the place of $; write it in single quotes, or as \\$ in double quotes")]
    Dollar,
    #[error("a backslash stands before a single quote; write the value in double quotes")]
    QuotedBackslash,
    #[error(
        "it has a blank without quotes, an escape other than \\n \\\" \\\\ \\$, or a name that no variable has"
    )]
    Unparsable,
}

/// The variables of a file, in its order; the last of a name counts.
///
/// # Errors
/// It cannot be read, or a line of it cannot be understood in one way only.
fn read(path: &Path) -> Result<Vec<(String, WireSecret)>, EnvFileError> {
    let path_of = || path.to_owned();
    let bytes =
        Source::file(path).and_then(|source| source.read(FILE_BYTES_MAX)).map_err(|error| match error {
            InputError::TooLarge { .. } => EnvFileError::TooLarge { path: path_of() },
            other => EnvFileError::Unreadable(other),
        })?;
    let text = str::from_utf8(&bytes).map_err(|_| EnvFileError::NotText { path: path_of() })?;
    let pair = |Assignment { name, value, .. }| (name, value);
    Ok(assignments(text, path)?.into_iter().map(pair).collect())
}

/// The variables of several files as `NAME=value`, each name once: a later file wins over an earlier one.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Vec<OsBytes>, EnvFileError> {
    let mut variables = BTreeMap::new();
    for path in paths {
        variables.extend(read(path)?);
    }
    let pair = |(name, value): (String, WireSecret)| {
        WireSecret::new([name.as_bytes(), b"=", value.expose()].concat())
    };
    Ok(variables.into_iter().map(pair).collect())
}

/// A variable of a file, and the line that it begins in.
pub(crate) struct Assignment {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) value: WireSecret,
}

/// All assignments of a text, also several to one name; `path` is what the text is called in messages.
///
/// # Errors
/// A line cannot be understood in one way only.
pub(crate) fn assignments(text: &str, path: &Path) -> Result<Vec<Assignment>, EnvFileError> {
    if text.contains('\0') {
        return Err(EnvFileError::NotText { path: path.to_owned() });
    }
    parse(text).map_err(|Fault { line, variable, problem }| EnvFileError::Line {
        path: path.to_owned(),
        line,
        variable,
        problem,
    })
}

/// A line that cannot be used.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    line: usize,
    variable: Option<String>,
    problem: Problem,
}

fn parse(text: &str) -> Result<Vec<Assignment>, Fault> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut line, mut variables) = (1, Vec::new());
    while !rest.is_empty() {
        let length = match rest.trim_start_matches([' ', '\t']) {
            blank if blank.is_empty() || blank.starts_with(['#', '\n']) || blank.starts_with("\r\n") => {
                line_length(rest)
            }
            _ => {
                let (length, (name, value)) = assignment(rest).map_err(|problem| {
                    let variable = variable_of(rest);
                    Fault { line, variable, problem }
                })?;
                variables.push(Assignment { line, name, value });
                length
            }
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    Ok(variables)
}

/// The bytes of the first line with its end.
fn line_length(text: &str) -> usize {
    text.find('\n').map_or(text.len(), |end| end + 1)
}

/// The name on the left of an assignment, for messages.
fn variable_of(text: &str) -> Option<String> {
    let (left, _) = text[..line_length(text)].split_once('=')?;
    let name = left.split_ascii_whitespace().next_back()?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (plain && name.len() <= NAME_SHOWN_MAX).then(|| name.to_owned())
}

/// Reads the assignment at the beginning of a text: how many bytes it has with the rest of its line, and what it says.
fn assignment(text: &str) -> Result<(usize, (String, WireSecret)), Problem> {
    let equals = text[..line_length(text)].find('=').ok_or(Problem::NoAssignment)?;
    let right = &text[equals + 1..];
    let value = equals + 1 + (right.len() - right.trim_start_matches([' ', '\t']).len());
    let end = value + value_length(&text[value..])?;
    let after = &text[end..][..line_length(&text[end..])];
    let trailing = after.trim_end_matches(['\r', '\n']);
    let blanks = trailing.trim_start_matches([' ', '\t']);
    let is_comment = blanks.starts_with('#') && (blanks.len() < trailing.len() || value == end);
    if !blanks.is_empty() && !is_comment {
        return Err(if text[value..].starts_with(['"', '\'']) {
            Problem::AfterQuote
        } else {
            Problem::Unparsable
        });
    }
    let mut parsed = dotenvy::from_read_iter(&text.as_bytes()[..end]);
    match (parsed.next(), parsed.next()) {
        (Some(Ok((name, value))), None) => {
            Ok((end + after.len(), (name, WireSecret::new(value.into_bytes()))))
        }
        _ => Err(Problem::Unparsable),
    }
}

/// How long the value at the beginning of a text is, with its quotes.
fn value_length(text: &str) -> Result<usize, Problem> {
    match text.as_bytes().first() {
        Some(b'\'') => single_quoted(text),
        Some(b'"') => double_quoted(text),
        _ => unquoted(text),
    }
}

fn single_quoted(text: &str) -> Result<usize, Problem> {
    let inner = text[1..].find('\'').ok_or(Problem::Unclosed)?;
    if text[1..=inner].ends_with('\\') { Err(Problem::QuotedBackslash) } else { Ok(inner + 2) }
}

fn double_quoted(text: &str) -> Result<usize, Problem> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Ok(index + 1),
            b'$' => return Err(Problem::Dollar),
            _ => {}
        }
    }
    Err(Problem::Unclosed)
}

fn unquoted(text: &str) -> Result<usize, Problem> {
    let line = text[..line_length(text)].trim_end_matches('\n');
    let line = line.strip_suffix('\r').unwrap_or(line);
    let mut end = line.len();
    for (index, character) in line.char_indices() {
        match character {
            '#' if index == 0 || line[..index].ends_with([' ', '\t']) => {
                end = index;
                break;
            }
            '$' => return Err(Problem::Dollar),
            '\'' | '"' | '\\' => return Err(Problem::NeedsQuotes),
            '\t' => {}
            other if other.is_control() => return Err(Problem::NeedsQuotes),
            _ => {}
        }
    }
    let value = line[..end].trim_end_matches([' ', '\t']);
    // The parser would cut off other blanks, which may be meant.
    if value.trim() == value { Ok(value.len()) } else { Err(Problem::NeedsQuotes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        let shown =
            |Assignment { name, value, .. }| (name, String::from_utf8(value.expose().to_vec()).unwrap());
        parse(text).unwrap_or_else(|fault| panic!("{text:?}: {fault:?}")).into_iter().map(shown).collect()
    }

    fn value(text: &str) -> String {
        let mut all = parsed(text);
        assert_eq!(all.len(), 1, "{text:?}");
        all.remove(0).1
    }

    #[test]
    fn plain_values_are_taken_as_they_are() {
        assert_eq!(value("A=pds://work/db/password"), "pds://work/db/password");
        for (text, expected) in [
            ("A=", ""),
            ("A= \t", ""),
            ("A=#", ""),
            ("A=x#y", "x#y"),
            ("A=x # y", "x"),
            ("A = x ", "x"),
            ("  export A=x\n", "x"),
            ("A=a=b==", "a=b=="),
            ("A=`{}|&;<>*?~!", "`{}|&;<>*?~!"),
            ("A=\u{e4}\u{1f511}", "\u{e4}\u{1f511}"),
        ] {
            assert_eq!(value(text), expected, "{text:?}");
        }
    }

    #[test]
    fn quotes_keep_everything_between_them() {
        for (text, expected) in [
            ("A='a $HOME \"x\" \\n #y'", "a $HOME \"x\" \\n #y"),
            ("A=\"a 'x' \\\"y\\\" \\\\ \\$HOME \\n#\" # comment", "a 'x' \"y\" \\ $HOME \n#"),
            ("A='line 1\nline 2\n'", "line 1\nline 2\n"),
            ("A=\"line 1\r\nB=2\n\"\n", "line 1\r\nB=2\n"),
            ("A=''", ""),
            ("A=\"\"  ", ""),
        ] {
            assert_eq!(value(text), expected, "{text:?}");
        }
    }

    #[test]
    fn ends_of_lines_marks_and_comments_are_no_part_of_a_value() {
        let text = "\u{feff}# first\r\nA=1\r\n\r\n  # B=2\r\nC='3'\r\nexport D=\"4\" # x\r\nE=";
        let expected = [("A", "1"), ("C", "3"), ("D", "4"), ("E", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parsed(text), expected);
    }

    #[test]
    fn what_readers_disagree_on_is_refused_by_line_and_variable() {
        for (text, problem) in [
            ("A", Problem::NoAssignment),
            ("A='x", Problem::Unclosed),
            ("A=\"x\\\"", Problem::Unclosed),
            ("A='x'y", Problem::AfterQuote),
            ("A='x'#y", Problem::AfterQuote),
            ("A=\"x\" 'y'", Problem::AfterQuote),
            ("A=it's\nB=that's", Problem::NeedsQuotes),
            ("A={\"a\":1}", Problem::NeedsQuotes),
            ("A=C:\\dir\\", Problem::NeedsQuotes),
            ("A=x\u{7}", Problem::NeedsQuotes),
            ("A=x\ry", Problem::NeedsQuotes),
            ("A=x\u{a0}", Problem::NeedsQuotes),
            ("A=$HOME", Problem::Dollar),
            ("A=x${HOME}", Problem::Dollar),
            ("A=\"$HOME\"", Problem::Dollar),
            ("A='C:\\'\nB='x'", Problem::QuotedBackslash),
            ("A=\"\\t\"", Problem::Unparsable),
            ("A=hello world", Problem::Unparsable),
            ("1A=x", Problem::Unparsable),
            ("A-B=x", Problem::Unparsable),
            ("=x", Problem::Unparsable),
        ] {
            let fault = parse(&format!("OK=1\n\nM='a\nb'\n{text}\n")).err().unwrap();
            assert_eq!((fault.line, fault.problem), (5, problem), "{text:?}");
            let expected = text.starts_with("A=").then(|| "A".to_owned());
            assert!(fault.variable == expected || expected.is_none(), "{text:?}: {:?}", fault.variable);
        }
    }

    #[test]
    fn a_file_that_is_no_text_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = |bytes: &[u8]| {
            let path = folder.path().join("env");
            std::fs::write(&path, bytes).unwrap();
            read(&path)
        };
        assert!(matches!(file(b"A=\xff"), Err(EnvFileError::NotText { .. })));
        assert!(matches!(file(b"A=x\0"), Err(EnvFileError::NotText { .. })));
        let large = [&b"A="[..], &vec![b'x'; FILE_BYTES_MAX]].concat();
        assert!(matches!(file(&large), Err(EnvFileError::TooLarge { .. })));
        assert!(matches!(read(folder.path()), Err(EnvFileError::Unreadable(_))));
        assert_eq!(file(b"A=x").unwrap().len(), 1);
    }
}
