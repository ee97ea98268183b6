//! Calls of `daemon-secrets` with what tests mostly want, each in one line.

use core_types::protocol::secrets::{Delete, FactorProof, Get, GetBatch, Init, List, Selection, Set, Unlock};
use core_types::{ProfileName, WireSecret};

/// A profile by its name.
///
/// # Panics
/// It is none.
#[must_use]
pub fn profile(name: &str) -> ProfileName {
    ProfileName::parse(name).expect("a profile name")
}

/// A password as it is presented.
#[must_use]
pub fn password(password: impl AsRef<[u8]>) -> FactorProof {
    FactorProof { factor: 1, secret: WireSecret::new(password.as_ref().to_vec()) }
}

/// Makes a vault.
#[must_use]
pub fn init(name: &str, password: impl AsRef<[u8]>) -> Init {
    Init { profile: profile(name), password: WireSecret::new(password.as_ref().to_vec()) }
}

/// Unlocks with a password.
#[must_use]
pub fn unlock(name: &str, with: impl AsRef<[u8]>) -> Unlock {
    Unlock { profile: profile(name), factors: vec![password(with)] }
}

/// Reads the newest version.
#[must_use]
pub fn get(of: &str, name: &str) -> Get {
    Get { profile: profile(of), name: name.to_owned(), version: None }
}

/// Reads all that match a pattern.
///
/// # Panics
/// It is no pattern.
#[must_use]
pub fn batch(of: &str, pattern: &str) -> GetBatch {
    let pattern = core_types::pattern::Pattern::parse(pattern).expect("a pattern");
    GetBatch { profile: profile(of), selection: Selection::Only(vec![pattern]), program: None }
}

/// Writes a value that does not expire.
#[must_use]
pub fn set(of: &str, name: &str, value: impl AsRef<[u8]>) -> Set {
    Set {
        profile: profile(of),
        name: name.to_owned(),
        value: WireSecret::new(value.as_ref().to_vec()),
        expires_unix_ms: None,
        note: None,
    }
}

/// Removes a secret.
#[must_use]
pub fn delete(of: &str, name: &str) -> Delete {
    Delete { profile: profile(of), name: name.to_owned() }
}

/// Lists the first page.
#[must_use]
pub fn list(of: &str) -> List {
    List { profile: profile(of), pattern: None, after: None }
}
