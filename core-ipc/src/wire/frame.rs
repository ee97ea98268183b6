//! Frames: a header the bus may read, a body it may not, and the descriptors that travel with them.
//!
//! A frame as bytes: `u32` length of what follows, `u16` length of the header (both big-endian), the header in
//! postcard, the body. These bytes are cut into Noise messages of at most [`PAYLOAD_BYTES_MAX`] bytes; only the
//! first begins with a frame's length, so the receiver always knows what is missing.

use std::ops::Deref;
use std::os::fd::OwnedFd;

use core_types::header::Header;
use core_types::limits::{DESCRIPTORS_MAX, FRAME_BYTES_MAX};
use zeroize::Zeroizing;

use super::connection::WireError;

/// Bytes of the length at the start of a frame.
pub(crate) const LENGTH_BYTES: usize = 4;
const HEADER_LENGTH_BYTES: usize = 2;
/// What most headers fit into.
const HEADER_BYTES_USUAL: usize = 256;

/// One frame, decoded as far as the bus decodes it.
#[derive(Debug)]
pub struct Frame {
    /// What the bus reads.
    pub header: Header,
    /// What it does not.
    pub body: Body,
    /// As many as `header.descriptors` says.
    pub descriptors: Vec<OwnedFd>,
}

/// The end of a buffer in which something stood before it, so that nothing need be copied to take it out. Wiped when
/// dropped.
#[derive(Default)]
pub struct Body {
    bytes: Zeroizing<Vec<u8>>,
    start: usize,
}

impl Body {
    /// What stands in `bytes` from `start` on.
    pub(crate) fn behind(start: usize, bytes: Zeroizing<Vec<u8>>) -> Self {
        Self { start: start.min(bytes.len()), bytes }
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Its content may be a secret.
impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// Lays out what stands before the body of a frame, the frame's own length first, in a buffer with room for `spare`
/// bytes more.
///
/// # Errors
/// The frame would be larger than [`FRAME_BYTES_MAX`], or names more descriptors than allowed.
pub(crate) fn encode_head(
    header: &Header,
    body_length: usize,
    spare: usize,
) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let header_start = LENGTH_BYTES + HEADER_LENGTH_BYTES;
    let mut room = Vec::with_capacity(header_start + HEADER_BYTES_USUAL + spare);
    room.resize(header_start, 0);
    let mut bytes = Zeroizing::new(postcard::to_extend(header, room).map_err(|_| WireError::Malformed)?);
    let header_length = bytes.len() - header_start;
    let length = HEADER_LENGTH_BYTES + header_length + body_length;
    if length > FRAME_BYTES_MAX || usize::from(header.descriptors) > DESCRIPTORS_MAX {
        return Err(WireError::TooLarge);
    }
    let length = u32::try_from(length).map_err(|_| WireError::TooLarge)?.to_be_bytes();
    let header_length = u16::try_from(header_length).map_err(|_| WireError::TooLarge)?.to_be_bytes();
    bytes[..LENGTH_BYTES].copy_from_slice(&length);
    bytes[LENGTH_BYTES..header_start].copy_from_slice(&header_length);
    // Before anything secret is in it.
    bytes.reserve(spare);
    Ok(bytes)
}

/// Lays out the bytes of a frame, its own length first.
///
/// # Errors
/// The frame would be larger than [`FRAME_BYTES_MAX`], or names more descriptors than allowed.
pub fn encode(header: &Header, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let mut bytes = encode_head(header, body.len(), body.len())?;
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// Reads the length at the start of a frame.
///
/// # Errors
/// It is larger than a frame may be; nothing has been allocated for it.
pub fn length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, WireError> {
    let length = u32::from_be_bytes(bytes) as usize;
    if length > FRAME_BYTES_MAX { Err(WireError::TooLarge) } else { Ok(length) }
}

/// Takes the bytes of a frame, its length first, apart; its descriptors are still to come.
///
/// # Errors
/// The header is cut short, malformed, or followed by bytes of its own.
pub fn decode(bytes: Zeroizing<Vec<u8>>) -> Result<Frame, WireError> {
    let rest = bytes.get(LENGTH_BYTES..).ok_or(WireError::Malformed)?;
    let (length, rest) = rest.split_first_chunk::<HEADER_LENGTH_BYTES>().ok_or(WireError::Malformed)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let header = rest.get(..length).ok_or(WireError::Malformed)?;
    let header: Header = core_types::protocol::decode(header).map_err(|_| WireError::Malformed)?;
    if usize::from(header.descriptors) > DESCRIPTORS_MAX {
        return Err(WireError::TooLarge);
    }
    let body = Body::behind(LENGTH_BYTES + HEADER_LENGTH_BYTES + length, bytes);
    Ok(Frame { header, body, descriptors: Vec::new() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use core_types::header::{Destination, Kind, Seal};

    pub(crate) fn header(id: u64) -> Header {
        Header {
            kind: Kind::Request,
            id,
            correlation: 0,
            destination: Destination::Service("daemon-x".parse().unwrap()),
            method: 1,
            sender: None,
            deadline_ms: 1000,
            descriptors: 0,
            seal: Seal::None,
        }
    }

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let bytes = encode(&header(7), b"body").unwrap();
        assert_eq!(length(bytes[..4].try_into().unwrap()).unwrap(), bytes.len() - 4);
        let frame = decode(bytes).unwrap();
        assert_eq!((frame.header, &*frame.body), (header(7), &b"body"[..]));
    }

    #[test]
    fn a_body_is_not_shown() {
        let frame = decode(encode(&header(7), b"hunter2").unwrap()).unwrap();
        assert!(!format!("{frame:?}").contains("hunter2") && !format!("{frame:?}").contains("104, 117"));
    }

    #[test]
    fn limits_are_exact_and_checked_before_anything_is_made() {
        let overhead = encode(&header(1), b"").unwrap().len() - LENGTH_BYTES;
        assert!(encode(&header(1), &vec![0; FRAME_BYTES_MAX - overhead]).is_ok());
        assert_eq!(
            encode(&header(1), &vec![0; FRAME_BYTES_MAX - overhead + 1]).err(),
            Some(WireError::TooLarge)
        );
        assert_eq!(length(u32::MAX.to_be_bytes()), Err(WireError::TooLarge));
        let many = u32::try_from(FRAME_BYTES_MAX).unwrap();
        assert_eq!(length((many + 1).to_be_bytes()), Err(WireError::TooLarge));
        assert_eq!(length(many.to_be_bytes()), Ok(FRAME_BYTES_MAX));
    }

    #[test]
    fn cut_lying_and_trailing_bytes_are_refused() {
        let bytes = encode(&header(1), b"").unwrap();
        for cut in 0..bytes.len() {
            assert!(decode(Zeroizing::new(bytes[..cut].to_vec())).is_err(), "{cut}");
        }
        let mut lying = bytes;
        lying.push(0);
        lying[LENGTH_BYTES + 1] += 1;
        assert_eq!(decode(lying).err(), Some(WireError::Malformed));
    }
}
