//! Frames: a header the bus may read, a body it may not, and the descriptors that travel with them.
//!
//! A frame as bytes: `u32` length of what follows, `u16` length of the header (both big-endian), the header in
//! postcard, the body. These bytes are cut into Noise messages of at most [`PAYLOAD_BYTES_MAX`] bytes; only the
//! first begins with a frame's length, so the receiver always knows what is missing.

use std::os::fd::OwnedFd;

use core_types::header::Header;
use core_types::limits::{DESCRIPTORS_MAX, FRAME_BYTES_MAX};
use zeroize::Zeroizing;

use super::connection::WireError;

/// Bytes of the length at the start of a frame.
pub(crate) const LENGTH_BYTES: usize = 4;
const HEADER_LENGTH_BYTES: usize = 2;

/// One frame, decoded as far as the bus decodes it.
#[derive(Debug)]
pub struct Frame {
    /// What the bus reads.
    pub header: Header,
    /// What it does not.
    pub body: Zeroizing<Vec<u8>>,
    /// As many as `header.descriptors` says.
    pub descriptors: Vec<OwnedFd>,
}

/// Lays out the bytes of a frame, its own length first.
///
/// # Errors
/// The frame would be larger than [`FRAME_BYTES_MAX`], or names more descriptors than allowed.
pub fn encode(header: &Header, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let header_length = postcard::experimental::serialized_size(header).map_err(|_| WireError::Malformed)?;
    let length = HEADER_LENGTH_BYTES + header_length + body.len();
    if length > FRAME_BYTES_MAX || usize::from(header.descriptors) > DESCRIPTORS_MAX {
        return Err(WireError::TooLarge);
    }
    let mut bytes = Zeroizing::new(vec![0; LENGTH_BYTES + length]);
    let header_start = LENGTH_BYTES + HEADER_LENGTH_BYTES;
    bytes[..LENGTH_BYTES]
        .copy_from_slice(&u32::try_from(length).map_err(|_| WireError::TooLarge)?.to_be_bytes());
    bytes[LENGTH_BYTES..header_start]
        .copy_from_slice(&u16::try_from(header_length).map_err(|_| WireError::TooLarge)?.to_be_bytes());
    postcard::to_slice(header, &mut bytes[header_start..header_start + header_length])
        .map_err(|_| WireError::Malformed)?;
    bytes[header_start + header_length..].copy_from_slice(body);
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

/// Takes the bytes of a frame (without its length) apart; its descriptors are still to come.
///
/// # Errors
/// The header is cut short, malformed, or followed by bytes of its own.
pub fn decode(bytes: &[u8]) -> Result<Frame, WireError> {
    let (length, rest) = bytes.split_first_chunk::<HEADER_LENGTH_BYTES>().ok_or(WireError::Malformed)?;
    let (header, body) =
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(WireError::Malformed)?;
    let header: Header = core_types::protocol::decode(header).map_err(|_| WireError::Malformed)?;
    if usize::from(header.descriptors) > DESCRIPTORS_MAX {
        return Err(WireError::TooLarge);
    }
    Ok(Frame { header, body: Zeroizing::new(body.to_vec()), descriptors: Vec::new() })
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
        let frame = decode(&bytes[4..]).unwrap();
        assert_eq!((frame.header, frame.body.as_slice()), (header(7), &b"body"[..]));
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
        for cut in 0..bytes.len() - LENGTH_BYTES {
            assert!(decode(&bytes[LENGTH_BYTES..LENGTH_BYTES + cut]).is_err(), "{cut}");
        }
        let mut lying = bytes[LENGTH_BYTES..].to_vec();
        lying.push(0);
        lying[1] += 1;
        assert_eq!(decode(&lying).err(), Some(WireError::Malformed));
    }
}
