//! The program of a run that is pinned: what is in its file, in memory where nobody changes it, to be executed from there.
//!
//! The caller opens the file, for the launcher's sandbox has no way to it. What the caller could lie about, the path among
//! it, is asked of the kernel.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use core_crypto::sealed_image;
use core_types::program::{ImageDigest, Program};
use core_types::protocol::launcher::{LauncherDenial, Pin};

/// Largest file, in bytes: it is held in memory as long as the program runs.
const IMAGE_BYTES_MAX: u64 = 512 << 20;

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
    match (sealed(File::from(file)), pin) {
        (Ok(image), Pin::Image(expected)) if expected != image.program.image => {
            Err(LauncherDenial::OtherImage { expected, found: image.program.image })
        }
        (Ok(image), _) => Ok(Some(image)),
        (Err(_), Pin::Ruled) => Ok(None),
        (Err(reason), Pin::Image(_)) => Err(LauncherDenial::Unpinnable(reason)),
    }
}

/// What is in the file, or why it cannot be executed from memory.
fn sealed(mut file: File) -> Result<Image, String> {
    let cannot = |error: io::Error| error.to_string();
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err("it is not an ordinary file".to_owned());
    }
    if is_script(&mut file).map_err(cannot)? {
        return Err(
            "it is a script, and what reads it would not be pinned; pin that one, with the script as its argument"
                .to_owned(),
        );
    }
    let (image, hash) = sealed_image(&file, IMAGE_BYTES_MAX).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => format!("it has more than {IMAGE_BYTES_MAX} bytes"),
        _ => cannot(error),
    })?;
    let program = Program { path: path.to_string_lossy().into_owned(), image: ImageDigest::new(hash) };
    Ok(Image { file: image, program })
}

/// Whether the kernel would have another program read it (execve(2)).
fn is_script(file: &mut File) -> io::Result<bool> {
    let mut beginning = Vec::new();
    file.rewind()?;
    file.by_ref().take(2).read_to_end(&mut beginning)?;
    file.rewind()?;
    Ok(beginning == b"#!")
}

#[cfg(test)]
mod tests {
    use super::*;
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
