//! A store of pass(1): a folder of files that gpg(1) decrypts, with the user's own keys and agent.
//!
//! The first line of a file is the password, as for `pass --clip`, and what follows it becomes NAME/notes. A file that
//! is no text, or begins as a PEM block, is one value as a whole.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use core_types::limits::{IMPORT_SECRETS_MAX, VALUE_BYTES_MAX};
use zeroize::Zeroizing;

use super::{Contents, Format, Helper, ImportError};

/// Most folders in each other.
const DEPTH_MAX: usize = 32;
/// Most bytes of what gpg says that are read.
const REASON_BYTES_MAX: usize = 4 << 10;

pub(super) struct Pass;

impl Format for Pass {
    fn read(&self, source: &Path, helper: &mut dyn Helper) -> Result<Contents, ImportError> {
        let mut files = Vec::new();
        find(source, "", 0, &mut files)?;
        if files.is_empty() {
            return Err(ImportError::Whole {
                problem: "there is no .gpg file in the folder",
                next: "name the folder of the store, mostly ~/.password-store",
            });
        }
        let mut contents = Contents::default();
        let total = files.len();
        for (done, (name, path)) in files.into_iter().enumerate() {
            helper.progress(done, total);
            let value = decrypted(&name, &path)?;
            take(&mut contents, &name, value)?;
        }
        Ok(contents)
    }
}

fn take(contents: &mut Contents, name: &str, mut value: Zeroizing<Vec<u8>>) -> Result<(), ImportError> {
    let place = format!("{name}.gpg");
    let line_end = value.iter().position(|byte| *byte == b'\n');
    if str::from_utf8(&value).is_err() || value.starts_with(b"-----BEGIN ") || line_end.is_none() {
        return contents.add(name, place, std::mem::take(&mut *value));
    }
    let (first, rest) = value.split_at(line_end.unwrap_or(value.len()));
    contents.add(name, place.clone(), first.to_vec())?;
    match rest.get(1..) {
        None | Some([]) => Ok(()),
        Some(notes) => contents.add(format!("{name}/notes"), place, notes.to_vec()),
    }
}

/// The files of a folder and those below it, in the order of their names. What begins with a point is not of the store.
fn find(
    folder: &Path,
    above: &str,
    depth: usize,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<(), ImportError> {
    let failed = |source| ImportError::Io { place: format!("the folder {}", folder.display()), source };
    if depth > DEPTH_MAX {
        return Err(ImportError::at(above, "too many folders stand in each other"));
    }
    let mut entries: Vec<_> = folder.read_dir().map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else {
            return Err(ImportError::at(
                format!("the folder {}", folder.display()),
                "a file of it has a name that is not UTF-8 text",
            ));
        };
        if name.starts_with('.') {
            continue;
        }
        let whole = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_symlink() {
            return Err(ImportError::at(whole, "it is a symbolic link, which may lead anywhere"));
        }
        if kind.is_dir() {
            find(&entry.path(), &whole, depth + 1, files)?;
        } else if let Some(stem) = whole.strip_suffix(".gpg") {
            if files.len() == IMPORT_SECRETS_MAX {
                return Err(ImportError::TooMany);
            }
            files.push((stem.to_owned(), entry.path()));
        }
    }
    Ok(())
}

/// What is in a file.
fn decrypted(name: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let place = || format!("{name}.gpg");
    let failed = |source| ImportError::Io { place: "what gpg writes".to_owned(), source };
    let mut gpg = Command::new("gpg");
    // As pass itself runs it; the path is a whole one or begins with the folder's, so that it is no option.
    gpg.args(["--quiet", "--yes", "--batch", "--use-agent", "--decrypt", "--"]).arg(path);
    gpg.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        gpg.spawn().map_err(|error| ImportError::Gpg { place: place(), reason: error.to_string() })?;
    let errors = child.stderr.take().map(|mut errors| {
        std::thread::spawn(move || {
            let mut text = vec![0; REASON_BYTES_MAX];
            let mut filled = 0;
            while let Ok(read @ 1..) = errors.read(&mut text[filled..]) {
                filled += read;
            }
            // What is more is read so that gpg does not wait for us.
            let _nobody_needs_it = std::io::copy(&mut errors, &mut std::io::sink());
            text.truncate(filled);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let mut value = Zeroizing::new(vec![0; VALUE_BYTES_MAX + 1]);
    let mut filled = 0;
    if let Some(output) = &mut child.stdout {
        while filled < value.len() {
            match output.read(&mut value[filled..]).map_err(failed)? {
                0 => break,
                read => filled += read,
            }
        }
    }
    drop(child.stdout.take());
    let ended = child.wait().map_err(failed)?;
    let reason = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
    if filled > VALUE_BYTES_MAX {
        return Err(ImportError::at(place(), "it is larger than 1 MiB, the most that a secret has"));
    }
    if !ended.success() {
        let last = reason.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
        return Err(ImportError::Gpg { place: place(), reason: crate::output::shown(last.trim()) });
    }
    value.truncate(filled);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(value: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut contents = Contents::default();
        take(&mut contents, "a/b", Zeroizing::new(value.to_vec())).unwrap();
        contents.found.into_iter().map(|found| (found.original, found.value.to_vec())).collect()
    }

    fn pairs<const N: usize>(pairs: [(&str, &[u8]); N]) -> Vec<(String, Vec<u8>)> {
        pairs.map(|(name, value)| (name.to_owned(), value.to_vec())).to_vec()
    }

    #[test]
    fn the_first_line_is_the_password_and_the_rest_its_notes() {
        assert_eq!(taken(b"pw\n"), pairs([("a/b", b"pw")]));
        assert_eq!(taken(b"pw"), pairs([("a/b", b"pw")]));
        assert_eq!(taken(b""), pairs([("a/b", b"")]));
        assert_eq!(taken(b"pw\nuser: me\n\n"), pairs([("a/b", b"pw"), ("a/b/notes", b"user: me\n\n")]));
        assert_eq!(taken(b"-----BEGIN KEY-----\nx\n"), pairs([("a/b", b"-----BEGIN KEY-----\nx\n")]));
        assert_eq!(taken(b"\xff\n1\n"), pairs([("a/b", b"\xff\n1\n")]));
    }

    #[test]
    fn links_are_refused_and_what_begins_with_a_point_is_not_of_the_store() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.gpg", "a.gpg", ".gpg-id", "README"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        for name in [".git", "c"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("d.gpg"), "").unwrap();
        }
        let mut files = Vec::new();
        find(folder.path(), "", 0, &mut files).unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c/d"]);
        std::os::unix::fs::symlink("/etc", folder.path().join("out")).unwrap();
        let refused = find(folder.path(), "", 0, &mut Vec::new()).unwrap_err().to_string();
        assert!(refused.contains("symbolic link"), "{refused}");
    }
}
