//! Where the programs under test lie: in the folder into which cargo built this test as well.

use std::path::{Path, PathBuf};

/// All programs of a system.
pub const PROGRAMS: [&str; 5] = ["pds", "daemon-bus", "daemon-secrets", "daemon-profile", "daemon-launcher"];

/// The folder of the programs.
///
/// # Panics
/// One of them has not been built.
#[must_use]
pub fn folder() -> PathBuf {
    let ourselves = std::env::current_exe().expect("the path of the test itself");
    // A test lies in `deps` below the programs, a program of this package beside them.
    let mut folder = ourselves.parent().expect("a folder around the test");
    if folder.ends_with("deps") {
        folder = folder.parent().expect("a folder around deps");
    }
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| !folder.join(name).is_file()).collect();
    assert!(
        missing.is_empty(),
        "{} not in {}: run `cargo build --workspace --bins` first (with --release for a release build)",
        missing.join(", "),
        folder.display()
    );
    folder.to_owned()
}

/// One program of the folder.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    folder().join(name)
}

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of a package is in the workspace")
}
