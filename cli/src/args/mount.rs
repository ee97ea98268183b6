//! Options of `pds mount` and `pds umount`.

use std::path::PathBuf;

use core_types::pattern::Pattern;

use super::{owner, pattern};

/// Put secrets into a folder as files, for containers that are started later
///
/// A secret NAME is the file NAME of mode 0400, `/` standing between folders. The folder has to lie in memory (tmpfs or ramfs),
/// be yours alone, and be empty, not there yet, or filled by this command before: then it is put right. The files stay
/// until `pds umount`, also when the profile is locked.
#[derive(Debug, clap::Args)]
pub(crate) struct MountOptions {
    /// Only these secrets, with commas between; `*` stands for any characters
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = pattern)]
    pub(crate) only: Vec<Pattern>,
    /// The user and group that the files and the folder belong to, as numbers; for root
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    pub(crate) owner: Option<(u32, u32)>,
    /// The folder
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

/// Remove what `pds mount` put into a folder
#[derive(Debug, clap::Args)]
pub(crate) struct UmountOptions {
    /// The folder
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}
