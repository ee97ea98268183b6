//! Calls of `daemon-secrets` by which many secrets come in at once, and what is compared before.

use serde::{Deserialize, Serialize};

use crate::name::ProfileName;
use crate::note::Note;
use crate::wire_secret::WireSecret;

/// Stores many secrets: all of them become visible at once, or none ever does. They come as a descriptor of a sealed
/// file in memory, each an [`ImportedSecret`] that is encrypted for its place in it. Answered with how many were stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Import {
    /// The profile.
    pub profile: ProfileName,
    /// The key of the file, made for it alone.
    pub key: WireSecret,
    /// How many secrets are in it.
    pub count: u32,
}

/// One secret of an [`Import`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportedSecret {
    /// Its name, as given by the user.
    pub name: String,
    /// Its value: 0 bytes to 1 MiB, any bytes.
    pub value: WireSecret,
    /// From when on the value is not given any more, in milliseconds of the Unix epoch.
    pub expires_unix_ms: Option<u64>,
    /// What is noted down beside it.
    pub note: Option<Note>,
    /// The version that is read until now; `None` where none is. If it is another one by then, nothing is stored.
    pub replaces: Option<u64>,
}

/// What an [`Import`] calls its file, so that it opens as nothing else.
pub const IMPORT_FILE: &str = "pds import";

/// Asks whether secrets have these values. Whoever asks could read them: it takes the same right.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compare {
    /// The profile.
    pub profile: ProfileName,
    /// The secrets, each with the value it may have.
    pub secrets: Vec<Supposed>,
}

/// A secret and the value it may have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Supposed {
    /// Its name, as given by the user.
    pub name: String,
    /// The value.
    pub value: WireSecret,
}

/// What [`Compare`] found of one secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// There is no such secret.
    Missing,
    /// It has this value.
    Same,
    /// It has another one, or its value has expired.
    Different,
}
