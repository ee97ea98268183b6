//! What other programs keep secrets in: one file per format, each of which only reads. What becomes of the secrets is
//! decided by `plan.rs`, the same for all.

mod bitwarden;
mod bitwarden_key;
mod dotenv;
mod error;
mod item;
mod json;
mod keepass;
pub(crate) mod leftovers;
pub(crate) mod names;
mod one_password;
mod pass;
pub(crate) mod plan;
#[cfg(test)]
mod properties;

use std::path::Path;

use core_types::limits::{IMPORT_BYTES_MAX, IMPORT_SECRETS_MAX};
use zeroize::Zeroizing;

pub(crate) use self::error::ImportError;
use crate::args::ImportFormat;
use crate::input::Source;
use crate::prompt::{PromptError, Typed};

/// Largest file that is read as a whole, in bytes.
pub(crate) const FILE_BYTES_MAX: usize = 64 << 20;
/// Bytes that a secret takes in an import besides its name and value, at most.
const AROUND: usize = 2 << 10;

/// A secret as it was found.
pub(crate) struct Found {
    /// What it is called there, `/` standing between folders, item and field.
    pub(crate) original: String,
    /// Where it stands, for messages.
    pub(crate) place: String,
    /// Its value.
    pub(crate) value: Zeroizing<Vec<u8>>,
}

/// All that was found.
#[derive(Default)]
pub(crate) struct Contents {
    /// What can be imported, in the order in which it was found.
    pub(crate) found: Vec<Found>,
    /// What is in the source and is not imported, in words.
    pub(crate) left_out: Vec<String>,
    bytes: usize,
}

impl Contents {
    /// Takes note of a secret.
    ///
    /// # Errors
    /// It is more than one import may have.
    fn add(
        &mut self,
        original: impl Into<String>,
        place: impl Into<String>,
        value: Vec<u8>,
    ) -> Result<(), ImportError> {
        let (original, place) = (original.into(), place.into());
        self.bytes = self.bytes.saturating_add(original.len() + value.len() + AROUND);
        if self.found.len() == IMPORT_SECRETS_MAX || self.bytes > IMPORT_BYTES_MAX {
            return Err(ImportError::TooMany);
        }
        self.found.push(Found { original, place, value: Zeroizing::new(value) });
        Ok(())
    }
}

/// What a format needs of the user.
pub(crate) trait Helper {
    /// The password that the source is protected with.
    ///
    /// # Errors
    /// There is none.
    fn password(&mut self) -> Result<Typed, PromptError>;
    /// Takes note that so many of so many parts are read.
    fn progress(&mut self, done: usize, total: usize);
}

/// A format, as it is read.
pub(crate) trait Format {
    /// Reads everything in the source.
    ///
    /// # Errors
    /// It is not of this format, damaged, too large, or cannot be read; no error repeats a value.
    fn read(&self, source: &Path, helper: &mut dyn Helper) -> Result<Contents, ImportError>;
}

/// The reader of a format.
pub(crate) fn format_of(format: ImportFormat) -> &'static dyn Format {
    match format {
        ImportFormat::Dotenv => &dotenv::Dotenv,
        ImportFormat::Json => &json::Json,
        ImportFormat::Bitwarden => &bitwarden::Bitwarden,
        ImportFormat::OnePux => &one_password::OnePux,
        ImportFormat::KeepassXml => &keepass::KeepassXml,
        ImportFormat::Pass => &pass::Pass,
    }
}

/// The bytes of a file, or of standard input.
fn bytes_of(path: &Path) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let too_large = || ImportError::TooLarge { limit: FILE_BYTES_MAX };
    let source = Source::file(path)?;
    // Nothing is set aside for what would be refused, and no more than is there for what is not.
    let limit = match source.length() {
        Some(length) if length > FILE_BYTES_MAX as u64 => return Err(too_large()),
        Some(length) => usize::try_from(length).unwrap_or(FILE_BYTES_MAX),
        None => FILE_BYTES_MAX,
    };
    source.read(limit).map_err(|error| match error {
        crate::input::InputError::TooLarge { .. } => too_large(),
        other => other.into(),
    })
}

/// The text of a file, or of standard input.
fn text_of(path: &Path) -> Result<Zeroizing<String>, ImportError> {
    let mut bytes = bytes_of(path)?;
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let bytes = Zeroizing::new(error.into_bytes());
            let line = 1 + bytes[..valid].iter().filter(|byte| **byte == b'\n').count();
            Err(ImportError::at(format!("line {line}"), "it is not UTF-8 text"))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Answers with a password, if there is one.
    pub(crate) struct Given(pub(crate) Option<&'static str>);

    impl Helper for Given {
        fn password(&mut self) -> Result<Typed, PromptError> {
            self.0.map(|password| Zeroizing::new(password.into())).ok_or(PromptError::Cancelled)
        }
        fn progress(&mut self, _: usize, _: usize) {}
    }

    /// Names and values.
    type Pairs = Vec<(String, Vec<u8>)>;

    /// What a format finds in these bytes, as names and values, and what it leaves out.
    pub(crate) fn read(
        format: ImportFormat,
        bytes: &[u8],
        password: Option<&'static str>,
    ) -> Result<(Pairs, Vec<String>), ImportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source");
        std::fs::write(&path, bytes).unwrap();
        let contents = format_of(format).read(&path, &mut Given(password))?;
        let found = contents.found.into_iter().map(|found| (found.original, found.value.to_vec())).collect();
        Ok((found, contents.left_out))
    }

    #[test]
    fn a_huge_file_is_refused_before_it_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        for format in
            [ImportFormat::Dotenv, ImportFormat::Json, ImportFormat::Bitwarden, ImportFormat::KeepassXml]
        {
            let refused = format_of(format).read(file.path(), &mut Given(None));
            assert!(matches!(refused, Err(ImportError::TooLarge { .. })), "{format}");
        }
        let refused = format_of(ImportFormat::OnePux).read(file.path(), &mut Given(None));
        assert!(matches!(refused, Err(ImportError::TooLarge { .. })));
    }

    #[test]
    fn what_is_no_text_is_told_by_its_line_and_not_shown() {
        for format in
            [ImportFormat::Json, ImportFormat::KeepassXml, ImportFormat::Bitwarden, ImportFormat::Dotenv]
        {
            let error = read(format, b"first\nsecond\xff", None).err().unwrap().to_string();
            assert!(error.contains("line 2") && !error.contains("second"), "{format}: {error}");
        }
    }

    #[test]
    fn no_more_is_taken_than_one_import_may_have() {
        let mut contents = Contents::default();
        for number in 0..IMPORT_SECRETS_MAX {
            contents.add(number.to_string(), "", Vec::new()).unwrap();
        }
        assert!(matches!(contents.add("one", "", Vec::new()), Err(ImportError::TooMany)));
        let mut contents = Contents::default();
        assert!(matches!(contents.add("one", "", vec![0; IMPORT_BYTES_MAX]), Err(ImportError::TooMany)));
    }
}
