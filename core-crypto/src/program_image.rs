//! What is in a program's file, in memory where nobody changes it: to be compared with what it should be, and executed from
//! there.
//!
//! What whoever opened the file could lie about, the path among it, is asked of the kernel.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::sealed_image;

/// Largest file, in bytes: it is held in memory as long as the program runs.
const IMAGE_BYTES_MAX: u64 = 512 << 20;

/// A program's file in memory.
#[derive(Debug)]
pub struct ProgramImage {
    /// It, close-on-exec.
    pub file: OwnedFd,
    /// Where the file lies, as the kernel says (proc(5)).
    pub path: String,
    /// The BLAKE3 hash of what is in it.
    pub hash: [u8; 32],
}

/// Why a file cannot be executed from memory.
#[derive(Debug, thiserror::Error)]
pub enum ProgramImageError {
    /// A folder, a device or the like.
    #[error("it is not an ordinary file")]
    NotOrdinary,
    /// The kernel would have another program read it (execve(2)).
    #[error(
        "it is a script, and what reads it would not be pinned; pin that one, with the script as its argument"
    )]
    Script,
    /// More than is held in memory.
    #[error("it has more than {IMAGE_BYTES_MAX} bytes")]
    TooLarge,
    /// It cannot be read, or there is no memory for it.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads a program's file. Takes as long as its bytes do.
///
/// # Errors
/// It cannot be executed from memory.
pub fn program_image(file: OwnedFd) -> Result<ProgramImage, ProgramImageError> {
    let mut file = File::from(file);
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if !file.metadata()?.is_file() {
        return Err(ProgramImageError::NotOrdinary);
    }
    if is_script(&mut file)? {
        return Err(ProgramImageError::Script);
    }
    let (image, hash) = sealed_image(&file, IMAGE_BYTES_MAX).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => ProgramImageError::TooLarge,
        _ => error.into(),
    })?;
    Ok(ProgramImage { file: image, path: path.to_string_lossy().into_owned(), hash })
}

fn is_script(file: &mut File) -> io::Result<bool> {
    let mut beginning = Vec::new();
    file.rewind()?;
    file.by_ref().take(2).read_to_end(&mut beginning)?;
    file.rewind()?;
    Ok(beginning == b"#!")
}
