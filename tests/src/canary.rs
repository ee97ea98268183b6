//! Looks for a secret where none may be: in files, and in the arguments and environments of all processes.
//!
//! A secret is looked for as it is, in hex, and in base64 whatever stands before it. Nothing found is ever shown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64ct::{Base64Unpadded, Encoding as _};

/// Fewest bytes of a secret: shorter ones are found by chance.
const BYTES_MIN: usize = 12;

/// Where a secret was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A file, or `/proc/PID/...`.
    pub place: PathBuf,
    /// As what.
    pub form: &'static str,
}

/// A secret that must not be found.
pub struct Canary {
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Canary {
    /// A secret to look for.
    ///
    /// # Panics
    /// It is too short to be looked for.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        assert!(secret.len() >= BYTES_MIN, "a canary has at least {BYTES_MIN} bytes");
        let mut forms = vec![
            ("as it is", secret.to_vec()),
            ("in hex", hex::encode(secret).into_bytes()),
            ("in upper case hex", hex::encode_upper(secret).into_bytes()),
            ("as a list of numbers", list(secret, ", ")),
            ("as a close list of numbers", list(secret, ",")),
        ];
        // Three bytes become four letters; so the letters depend on how many bytes stand before, modulo three. The
        // first and last letters depend on the neighbours and are left out.
        for before in 0..3 {
            let padded = [&b"\0\0"[..before], secret].concat();
            let letters = Base64Unpadded::encode_string(&padded).into_bytes();
            let whole = &letters[4 * usize::from(before > 0)..letters.len() / 4 * 4 - 4];
            forms.push(("in base64", whole.to_vec()));
            let url = whole.iter().map(|letter| match letter {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            });
            forms.push(("in URL-safe base64", url.collect()));
        }
        Self { forms }
    }

    /// What it is looked for as.
    pub(crate) fn forms(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.forms.iter().map(|(form, bytes)| (*form, bytes.as_slice()))
    }

    /// In which form it stands in these bytes, if it does.
    #[must_use]
    pub fn found_in(&self, bytes: &[u8]) -> Option<&'static str> {
        self.forms.iter().find(|(_, form)| contains(bytes, form)).map(|(name, _)| *name)
    }

    /// Looks into all files below a folder, by their names and contents.
    ///
    /// # Panics
    /// A file cannot be read.
    #[must_use]
    pub fn in_files(&self, folder: &Path) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            // What a running system removes meanwhile is not there.
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let place = entry.path();
                let Ok(kind) = entry.file_type() else { continue };
                let name = self.found_in(place.as_os_str().as_encoded_bytes());
                let content = match kind {
                    kind if kind.is_dir() => {
                        folders.push(place.clone());
                        None
                    }
                    kind if kind.is_file() => {
                        std::fs::read(&place).ok().and_then(|bytes| self.found_in(&bytes))
                    }
                    _ => None,
                };
                found.extend(name.or(content).map(|form| Finding { place, form }));
            }
        }
        found
    }

    /// Looks into the arguments and the environment of every process but those in `knowing`.
    #[must_use]
    pub fn in_processes(&self, knowing: &BTreeSet<u32>) -> Vec<Finding> {
        let mut found = Vec::new();
        for pid in processes().into_iter().filter(|pid| !knowing.contains(pid)) {
            for part in ["cmdline", "environ", "comm"] {
                let place = PathBuf::from(format!("/proc/{pid}/{part}"));
                // A process that has ended, or one of another user, shows nothing.
                let form = std::fs::read(&place).ok().and_then(|bytes| self.found_in(&bytes));
                found.extend(form.map(|form| Finding { place, form }));
            }
        }
        found
    }
}

/// The numbers of all processes.
///
/// # Panics
/// There is no /proc.
#[must_use]
pub fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn list(secret: &[u8], separator: &str) -> Vec<u8> {
    let numbers: Vec<String> = secret.iter().map(u8::to_string).collect();
    numbers.join(separator).into_bytes()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return false };
    let mut from = 0;
    while let Some(place) = bytes.get(from..).and_then(|tail| tail.iter().position(|byte| byte == first)) {
        if bytes[from + place + 1..].starts_with(rest) {
            return true;
        }
        from += place + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use core_crypto::SecureBytes;

    use super::*;
    use crate::system::wait_for;

    const SECRET: &[u8] = b"canary-7f3a91\xffz?";

    #[test]
    fn every_form_is_found_wherever_it_stands() {
        let canary = Canary::new(SECRET);
        for before in 0..4 {
            let text = [&b"abc"[..before.min(3)], SECRET, b"tail"].concat();
            assert!(canary.found_in(&text).is_some());
            assert!(canary.found_in(Base64Unpadded::encode_string(&text).as_bytes()).is_some(), "{before}");
            let url = base64ct::Base64Url::encode_string(&text);
            assert!(canary.found_in(url.as_bytes()).is_some(), "{before}");
        }
        assert!(canary.found_in(hex::encode(SECRET).as_bytes()).is_some());
        assert!(canary.found_in(format!("{SECRET:?}").as_bytes()).is_some());
        assert_eq!(canary.found_in(&SECRET[..SECRET.len() - 1]), None);
        assert_eq!(canary.found_in(b""), None);
    }

    #[test]
    fn files_are_searched_to_the_bottom_and_processes_by_what_they_show() {
        let folder = tempfile::tempdir().unwrap();
        let canary = Canary::new(SECRET);
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/clean"), "nothing").unwrap();
        assert_eq!(canary.in_files(folder.path()), []);
        std::fs::write(folder.path().join("a/b/c"), [b"xx", SECRET].concat()).unwrap();
        let place = folder.path().join("a/b/c");
        assert_eq!(canary.in_files(folder.path()), [Finding { place, form: "as it is" }]);

        // Another run of this test on the same machine has a process of its own.
        let value = SecureBytes::random(32).unwrap();
        let value: Vec<u8> = value.expose().iter().map(|byte| b'a' + byte % 26).collect();
        let canary = Canary::new(&value);
        let value = OsString::from_vec(value);
        let mut child = std::process::Command::new("sleep").arg("60").env("LEAK", value).spawn().unwrap();
        let environment = PathBuf::from(format!("/proc/{}/environ", child.id()));
        // The kernel lets the parent go on before the new program's environment can be read.
        wait_for("the child has an environment", || {
            std::fs::read(&environment).is_ok_and(|bytes| !bytes.is_empty()).then_some(())
        });
        let found = canary.in_processes(&BTreeSet::new());
        let hidden = canary.in_processes(&BTreeSet::from([child.id()]));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&Finding { place: environment, form: "as it is" }), "{found:?}");
        assert_eq!(hidden, []);
    }
}
