//! Files in the dotenv format, by the parser of `--env-file`.

use std::path::Path;

use super::{Contents, FILE_BYTES_MAX, Format, Helper, ImportError};
use crate::env_file;

pub(super) struct Dotenv;

impl Format for Dotenv {
    fn read(&self, source: &Path, _: &mut dyn Helper) -> Result<Contents, ImportError> {
        let mut contents = Contents::default();
        // The same limits and the same words as for every other format.
        let text = super::text_of(source)?;
        debug_assert!(text.len() <= FILE_BYTES_MAX);
        for assignment in env_file::assignments(&text, source)? {
            let value = assignment.value.expose().to_vec();
            contents.add(assignment.name, format!("line {}", assignment.line), value)?;
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use crate::args::ImportFormat::Dotenv;

    #[test]
    fn every_assignment_is_found_also_the_second_of_a_name() {
        let text = b"# note\nA=1\nexport PEM='-----BEGIN\nx y\n'\nA=\"it's\\n\"\nEMPTY=\n";
        let (found, left_out) = read(Dotenv, text, None).unwrap();
        let expected = [("A", "1"), ("PEM", "-----BEGIN\nx y\n"), ("A", "it's\n"), ("EMPTY", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert_eq!((found.as_slice(), left_out.len()), (expected.as_slice(), 0));
    }

    #[test]
    fn a_line_that_readers_disagree_on_is_told_and_not_shown() {
        let error = read(Dotenv, b"A=1\nB=top $ecret\n", None).err().unwrap().to_string();
        assert!(error.contains("line 2") && error.contains('B') && !error.contains("ecret"), "{error}");
    }
}
