//! The program of a run that is pinned: what is in its file, in memory where nobody changes it, to be executed from there.
//!
//! The caller opens the file, for the launcher's sandbox has no way to it.

use std::os::fd::OwnedFd;

use core_crypto::program_image;
use core_types::program::{ImageDigest, Program};
use core_types::protocol::launcher::{LauncherDenial, Pin};

/// A program's file in memory.
pub(crate) struct Image {
    /// It.
    pub(crate) file: OwnedFd,
    /// What rules know it by.
    pub(crate) program: Program,
}

/// Reads a program's file, and compares it with what is asked for. Takes as long as its bytes do. Nothing is read of a
/// program that cannot be executed from memory, which is no fault where only rules might name it: they then name another.
///
/// # Errors
/// It is another one than is asked for, or one that cannot be executed from memory.
pub(crate) fn read(file: OwnedFd, pin: Pin) -> Result<Option<Image>, LauncherDenial> {
    let image = match (program_image(file), pin) {
        (Ok(image), _) => image,
        (Err(_), Pin::Ruled) => return Ok(None),
        (Err(reason), Pin::Image(_)) => return Err(LauncherDenial::Unpinnable(reason.to_string())),
    };
    let program = Program { path: image.path, image: ImageDigest::new(image.hash) };
    match pin {
        Pin::Image(expected) if expected != program.image => {
            Err(LauncherDenial::OtherImage { expected, found: program.image })
        }
        _ => Ok(Some(Image { file: image.file, program })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    use core_crypto::digest;

    fn opened(bytes: &[u8]) -> (tempfile::NamedTempFile, OwnedFd) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let opened = File::open(file.path()).unwrap().into();
        (file, opened)
    }

    #[test]
    fn a_program_is_known_by_its_path_and_all_its_bytes() {
        let bytes = b"\x7fELF and more";
        let (file, descriptor) = opened(bytes);
        let own = ImageDigest::new(digest(bytes));
        let image = read(descriptor.try_clone().unwrap(), Pin::Ruled).unwrap().unwrap();
        let path = file.path().canonicalize().unwrap().to_string_lossy().into_owned();
        assert_eq!(image.program, Program { path, image: own });
        assert!(read(descriptor.try_clone().unwrap(), Pin::Image(own)).is_ok(), "wherever it stood");
        let other = ImageDigest::new(digest(b"other"));
        let denial = read(descriptor, Pin::Image(other)).err();
        assert_eq!(denial, Some(LauncherDenial::OtherImage { expected: other, found: own }));
    }

    #[test]
    fn what_cannot_be_executed_from_memory_is_refused() {
        let (_file, script) = opened(b"#!/bin/sh\n");
        let folder = File::open("/").unwrap().into();
        for (descriptor, told) in [(script, "script"), (folder, "ordinary file")] {
            let descriptor: OwnedFd = descriptor;
            let nothing = read(descriptor.try_clone().unwrap(), Pin::Ruled);
            assert!(matches!(nothing, Ok(None)), "rules name it by no image");
            let denial = read(descriptor, Pin::Image(ImageDigest::new([0; 32]))).err();
            let Some(LauncherDenial::Unpinnable(reason)) = denial else { panic!("{denial:?}") };
            assert!(reason.contains(told), "{reason}");
        }
    }
}
