//! A small disk, to be filled and freed again.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system over a folder of a system; it goes with this.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of so many mebibytes; `None` where nobody may mount.
    ///
    /// # Panics
    /// There is no mount(8).
    #[must_use]
    pub fn over(folder: &Path, mebibytes: u32) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0700"), "pds-test"])
            .arg(folder)
            .output()
            .expect("mount(8) can be started");
        mounted.status.success().then(|| Self(folder.to_owned()))
    }

    /// Takes all room that is left.
    ///
    /// # Panics
    /// Not even an empty file can be made.
    pub fn fill(&self) {
        self.fill_but(0);
    }

    /// Takes all room but about so many bytes.
    ///
    /// # Panics
    /// Not even an empty file can be made.
    pub fn fill_but(&self, bytes: u64) {
        let mut filler = std::fs::File::create(self.filler()).expect("a file");
        for piece in [&[0; 4096][..], &[0; 1]] {
            while filler.write_all(piece).is_ok() {}
        }
        let length = filler.metadata().expect("a file that is open").len();
        filler.set_len(length.saturating_sub(bytes)).expect("a shorter file");
    }

    /// Gives the room back.
    ///
    /// # Panics
    /// It was not taken.
    pub fn empty(&self) {
        std::fs::remove_file(self.filler()).expect("the file that takes the room");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Lets nothing be written any more, or lets it again.
    ///
    /// # Panics
    /// It cannot be mounted anew.
    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        let mounted = Command::new("mount").args(["-o", options]).arg(&self.0).status();
        assert!(mounted.is_ok_and(|status| status.success()), "mount -o {options}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
