//! The cryptography of pds on one screen, the memory its keys live in, and the files it may write.
//!
//! Nothing here knows a vault, a message or a policy. The `unsafe` code of the workspace is in [`memory`], but for two
//! calls: the launcher's spawner copies itself, and a child ignores signals as its caller does.

pub mod aead;
mod checksum;
#[cfg(feature = "ipc-field-encryption")]
pub mod field;
pub mod hash_chain;
#[cfg(feature = "kdf")]
pub mod kdf;
pub mod key_schedule;
pub mod keyed_hash;
pub mod log_key;
pub mod memory;
pub mod multiset_hash;
pub mod private_fs;
mod program_image;
pub mod random;
mod sealed_file;
mod sealed_frames;
mod sealed_image;
mod secure_bytes;
#[cfg(feature = "sharing")]
pub mod sharing;
mod stack;

pub use checksum::{checksum, digest};
pub use program_image::{ProgramImage, ProgramImageError, program_image};
pub use random::EntropyError;
pub use sealed_file::sealed_file;
pub use sealed_frames::{FrameReader, FrameWriter, FramesError};
pub use sealed_image::sealed_image;
pub use secure_bytes::SecureBytes;
pub use stack::scrubbed;
