//! `pds inject`: fills the references of a template, all of them or none.

use std::io::Write as _;
use std::path::Path;

use core_types::child::references::{Referral, Resolved};
use core_types::limits::SELECTION_MAX;
use core_types::protocol::launcher::LauncherDenial;
use core_types::reference::SecretReference;
use zeroize::Zeroizing;

use crate::args::InjectOptions;
use crate::error::Failure;
use crate::fetch::{self, denied};
use crate::input::Source;
use crate::new_file::NewFile;
use crate::session::Session;

/// Largest template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// Largest filled template, in bytes.
const FILLED_BYTES_MAX: usize = 32 << 20;

pub(super) fn run(session: &mut Session, options: &InjectOptions) -> Result<(), Failure> {
    let input = options.input.as_deref().unwrap_or(Path::new("-"));
    let output = options.output.as_deref().filter(|path| *path != Path::new("-"));
    output.map_or(Ok(()), replaceable)?;
    let template = Source::file(input)?.read(TEMPLATE_BYTES_MAX)?;
    let pieces = pieces(&template).map_err(denied)?;
    let resolved = fetch::referred(session, referrals(&pieces))?;
    let filled = filled(&pieces, &resolved)?;
    drop(resolved);
    match output {
        None => session.output.prepared(&filled),
        Some(path) => write(path, &filled),
    }
}

/// Refuses a place where something stands that is no file: replacing it would take it away from everyone who uses it.
fn replaceable(path: &Path) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(found) if !found.is_file() => Err(Failure::NotAFile { path: path.to_owned() }),
        _ => Ok(()),
    }
}

fn write(path: &Path, filled: &[u8]) -> Result<(), Failure> {
    let mut new = NewFile::beside(path)?;
    let written = new.file.write_all(filled).and_then(|()| new.file.sync_all());
    written.map_err(|source| Failure::File { what: "written", path: path.to_owned(), source })?;
    new.put_in_place(true)
}

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// What stays as it is.
    Text(&'a [u8]),
    /// A reference, and the line it stands on.
    Reference(SecretReference, usize),
}

/// Takes a template apart. Only `{{ pds://` begins a reference; braces of other templates stay.
fn pieces(template: &[u8]) -> Result<Vec<Piece<'_>>, LauncherDenial> {
    let (mut pieces, mut text, mut at, mut line) = (Vec::new(), 0, 0, 1);
    while let Some(found) = find(&template[at..], b"{{") {
        let opening = at + found;
        let inner = opening + 2 + blanks(&template[opening + 2..]);
        line += count_lines(&template[at..opening]);
        if !SecretReference::is_meant_by(&template[inner..]) {
            at = opening + 1;
            continue;
        }
        let (reference, length) = reference(&template[inner..], line)?;
        pieces.push(Piece::Text(&template[text..opening]));
        pieces.push(Piece::Reference(reference, line));
        at = inner + length;
        text = at;
    }
    pieces.push(Piece::Text(&template[text..]));
    let references = pieces.len() / 2;
    if references > SELECTION_MAX {
        return Err(LauncherDenial::Invalid(format!("{references} references, at most {SELECTION_MAX}")));
    }
    Ok(pieces)
}

/// Reads a reference up to the braces that close it: it, and how many bytes it takes with them.
fn reference(text: &[u8], line: usize) -> Result<(SecretReference, usize), LauncherDenial> {
    let end = text.iter().position(|byte| b" \t\r\n}".contains(byte)).unwrap_or(text.len());
    let after = end + blanks(&text[end..]);
    let malformed = |error| LauncherDenial::MalformedReference {
        variable: format!("line {line}"),
        text: SecretReference::beginning_of(&text[..end]),
        error,
    };
    let reference = SecretReference::parse(&String::from_utf8_lossy(&text[..end])).map_err(malformed)?;
    if !text[after..].starts_with(b"}}") {
        return Err(malformed(core_types::reference::ReferenceError::Unclosed));
    }
    Ok((reference, after + 2))
}

fn blanks(text: &[u8]) -> usize {
    text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

fn find(text: &[u8], sought: &[u8]) -> Option<usize> {
    text.windows(sought.len()).position(|window| window == sought)
}

fn count_lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

fn referrals(pieces: &[Piece<'_>]) -> Vec<Referral> {
    let referral = |piece: &Piece<'_>| match piece {
        Piece::Reference(reference, line) => {
            Some(Referral { variable: format!("line {line}"), reference: reference.clone() })
        }
        Piece::Text(_) => None,
    };
    pieces.iter().filter_map(referral).collect()
}

/// Puts the template together again, with the secrets in their places, in a buffer that never grows.
fn filled(pieces: &[Piece<'_>], resolved: &[Resolved]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut values = resolved.iter().map(|resolved| resolved.value.expose());
    let parts: Vec<&[u8]> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Reference(..) => values.next().unwrap_or_default(),
        })
        .collect();
    let size = parts.iter().map(|part| part.len()).sum();
    if size > FILLED_BYTES_MAX {
        return Err(Failure::TooMuch { bytes: size, limit: FILLED_BYTES_MAX });
    }
    let mut whole = Zeroizing::new(Vec::with_capacity(size));
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use core_types::WireSecret;

    use super::*;

    /// A template with `<REFERENCE>` in the place of each secret.
    fn shown(template: &[u8]) -> Vec<u8> {
        let pieces = pieces(template).unwrap();
        let resolved = referrals(&pieces).into_iter().map(|referral| Resolved {
            value: WireSecret::new(format!("<{}>", referral.reference).into_bytes()),
            referral,
        });
        filled(&pieces, &resolved.collect::<Vec<_>>()).unwrap().to_vec()
    }

    #[test]
    fn references_in_braces_are_filled_and_nothing_else_is_touched() {
        for (template, expected) in [
            (&b"a: {{ pds://work/a }}\n"[..], &b"a: <pds://work/a>\n"[..]),
            (b"{{pds://w/a}}{{\tpds://w/b/c  }}", b"<pds://w/a><pds://w/b/c>"),
            (b"{{{ pds://w/a }}}", b"{<pds://w/a>}"),
            (b"{{ .Values.x }} pds://w/a { pds://w/a } {{", b"{{ .Values.x }} pds://w/a { pds://w/a } {{"),
            (b"{{ PDS://w/a }} {{ x pds://w/a }}", b"{{ PDS://w/a }} {{ x pds://w/a }}"),
            (b"\xff\0{{ pds://w/a }}\r\n", b"\xff\0<pds://w/a>\r\n"),
            (b"", b""),
        ] {
            assert_eq!(shown(template), expected, "{}", String::from_utf8_lossy(template));
        }
    }

    #[test]
    fn what_begins_as_a_reference_and_is_none_is_named_by_its_line() {
        for template in [
            &b"\n\n{{ pds://work/a"[..],
            b"\n{{ x }}\n{{ pds://work/a }",
            b"\n\n{{ pds://work/a b }}",
            b"\n\n{{ pds://work }}",
            b"\n\n{{ pds://work/a\n}}",
            b"\n\n{{ pds://w:hunter2@x/a }}",
        ] {
            let denial = pieces(template).unwrap_err();
            let text = denial.to_string();
            assert!(text.contains("line 3") && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn what_would_become_too_large_is_refused_before_it_is_made() {
        let template = b"{{ pds://w/a }}".repeat(33);
        let pieces = pieces(&template).unwrap();
        let value = vec![b'x'; 1 << 20];
        let resolved: Vec<Resolved> = referrals(&pieces)
            .into_iter()
            .map(|referral| Resolved { referral, value: WireSecret::new(value.clone()) })
            .collect();
        assert!(matches!(filled(&pieces, &resolved), Err(Failure::TooMuch { .. })));
    }

    #[test]
    fn only_a_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/stdout", &link).unwrap();
        for place in [folder.path(), &link, Path::new("/dev/null")] {
            assert!(matches!(replaceable(place), Err(Failure::NotAFile { .. })), "{}", place.display());
        }
        assert!(replaceable(&folder.path().join("new")).is_ok());
    }
}
