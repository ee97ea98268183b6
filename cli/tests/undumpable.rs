//! `pds` is closed to the user's other processes before it reads anything.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};

/// A user without rights, for a test that runs as root: everything of root's belongs to root anyway.
const NOBODY: &str = "65534";

/// The kernel gives the files of a process in `/proc` to root when it may not be dumped (proc(5), `/proc/pid`).
#[test]
fn its_memory_and_environment_belong_to_root_while_it_reads_a_value() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let pds = folder.path().join("pds");
    fs::copy(env!("CARGO_BIN_EXE_pds"), &pds).unwrap();
    fs::set_permissions(&pds, Permissions::from_mode(0o755)).unwrap();
    let value = folder.path().join("value");
    mknodat(CWD, &value, FileType::Fifo, Mode::empty(), 0).unwrap();
    fs::set_permissions(&value, Permissions::from_mode(0o644)).unwrap();

    let mut child = without_rights(&pds)
        .args(["--no-start", "set", "x", "--file"])
        .arg(&value)
        .env("HOME", folder.path())
        .env("XDG_RUNTIME_DIR", folder.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Opens when pds has opened the other end.
    let writer = OpenOptions::new().write(true).open(&value).unwrap();
    for file in ["environ", "mem", "maps"] {
        let owner = fs::metadata(format!("/proc/{}/{file}", child.id())).unwrap().uid();
        assert_eq!(owner, 0, "{file}");
    }
    drop(writer);
    child.wait().unwrap();
}

fn without_rights(program: &Path) -> Command {
    if !rustix::process::getuid().is_root() {
        return Command::new(program);
    }
    // setpriv(1) from util-linux becomes the program.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program);
    command
}
