//! One end of a connection after its handshake: owns partial input and pending output, so that no read or write,
//! cut short anywhere, loses a byte.
//!
//! Methods come in four kinds. Input: [`Connection::take_bytes`], [`Connection::take_descriptors`]. Result of it:
//! [`Connection::next_frame`], to be called until it has none. Mutators: [`Connection::send`] and
//! [`Connection::send_behind_descriptors`]. Output: [`Connection::output`] and [`Connection::sent`], to be called until
//! there is none. None of them blocks, reads a clock or knows a socket.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use core_types::header::Header;
use core_types::limits::{DESCRIPTORS_MAX, KEY_SECONDS_MAX, OUTGOING_BYTES_MAX};
use zeroize::Zeroizing;

use super::frame::{self, Frame, LENGTH_BYTES};
use super::noise::{MESSAGE_BYTES_MAX, NoiseError, PAYLOAD_BYTES_MAX, PublicKey, Session, TAG_BYTES};

/// Bytes of the length before each Noise message.
const RECORD_LENGTH_BYTES: usize = 2;
/// Bytes that a Noise message takes besides its payload.
const RECORD_OVERHEAD_BYTES: usize = RECORD_LENGTH_BYTES + TAG_BYTES;
/// Most descriptors that may have arrived before the frames they belong to.
const EARLY_DESCRIPTORS_MAX: usize = 2 * DESCRIPTORS_MAX;

/// Why a connection cannot go on, or a frame cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame, or what waits to be written, is over its limit.
    #[error("a frame is over its limit")]
    TooLarge,
    /// Bytes that are not a frame.
    #[error("a frame is malformed")]
    Malformed,
    /// A Noise message that does not open.
    #[error("{0}")]
    Noise(#[from] NoiseError),
    /// More descriptors than any frame announced, or fewer.
    #[error("descriptors do not match their frame")]
    Descriptors,
    /// The kernel passes no descriptors now; nothing of the frame was sent.
    #[error("no descriptors can be passed now")]
    NotPassed,
    /// The peer does not read and too much waits for it.
    #[error("the peer does not read")]
    Full,
}

/// The state of one end.
pub struct Connection {
    session: Session,
    input: Vec<u8>,
    input_start: usize,
    partial: Zeroizing<Vec<u8>>,
    expected: Option<usize>,
    arrived: VecDeque<OwnedFd>,
    output: Vec<u8>,
    output_start: usize,
    fresh_since: Option<Instant>,
}

impl Connection {
    /// Starts with an established session and whatever arrived behind its last handshake message.
    #[must_use]
    pub fn new(session: Session, early_input: &[u8]) -> Self {
        Self {
            session,
            input: early_input.to_vec(),
            input_start: 0,
            partial: Zeroizing::default(),
            expected: None,
            arrived: VecDeque::new(),
            output: Vec::new(),
            output_start: 0,
            fresh_since: None,
        }
    }

    /// The peer's static key.
    #[must_use]
    pub fn remote(&self) -> PublicKey {
        self.session.remote()
    }

    /// Takes bytes as they came from the peer.
    pub fn take_bytes(&mut self, bytes: &[u8]) {
        if self.input_start > 0 && self.input_start == self.input.len() {
            self.input.clear();
            self.input_start = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// Takes descriptors as they came from the peer; those over the limit are closed here.
    ///
    /// # Errors
    /// More have come than frames in flight can account for: the connection must end.
    pub fn take_descriptors(
        &mut self,
        descriptors: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<(), WireError> {
        for descriptor in descriptors {
            if self.arrived.len() == EARLY_DESCRIPTORS_MAX {
                return Err(WireError::Descriptors);
            }
            self.arrived.push_back(descriptor);
        }
        Ok(())
    }

    /// The next frame that has arrived whole, if one has.
    ///
    /// # Errors
    /// The peer broke the protocol: the connection must end.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        loop {
            if let Some(expected) = self.expected
                && self.partial.len() == expected
            {
                return self.finish_frame().map(Some);
            }
            if !self.open_record()? {
                return Ok(None);
            }
        }
    }

    /// Opens one Noise message of the input into the partial frame; says whether there was one.
    fn open_record(&mut self) -> Result<bool, WireError> {
        let input = &self.input[self.input_start..];
        let Some((length, rest)) = input.split_first_chunk::<RECORD_LENGTH_BYTES>() else { return Ok(false) };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some(record) = rest.get(..length) else {
            self.compact();
            return Ok(false);
        };
        self.session.open(record, &mut self.partial)?;
        if length == TAG_BYTES {
            // A new key, between two frames.
            self.input_start += RECORD_LENGTH_BYTES + length;
            return if self.expected.is_none() { Ok(true) } else { Err(WireError::Malformed) };
        }
        let expected = match self.expected {
            Some(expected) => expected,
            None => {
                let length = self.partial.first_chunk::<LENGTH_BYTES>().ok_or(WireError::Malformed)?;
                let expected = LENGTH_BYTES + frame::length(*length)?;
                if expected > self.partial.len() {
                    // Room for all of it at once: a buffer that grows leaves pieces of what it held behind.
                    let mut whole = Zeroizing::new(Vec::with_capacity(expected));
                    whole.extend_from_slice(&self.partial);
                    self.partial = whole;
                }
                *self.expected.insert(expected)
            }
        };
        self.input_start += RECORD_LENGTH_BYTES + length;
        if self.partial.len() > expected { Err(WireError::Malformed) } else { Ok(true) }
    }

    fn compact(&mut self) {
        if self.input_start > 0 {
            self.input.drain(..self.input_start);
            self.input_start = 0;
        }
    }

    fn finish_frame(&mut self) -> Result<Frame, WireError> {
        let mut frame = frame::decode(std::mem::take(&mut self.partial))?;
        self.expected = None;
        let count = usize::from(frame.header.descriptors);
        if self.arrived.len() < count {
            return Err(WireError::Descriptors);
        }
        frame.descriptors = self.arrived.drain(..count).collect();
        Ok(frame)
    }

    /// Whether nothing of a frame is left over: the peer ended in order.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.expected.is_none() && self.input_start == self.input.len()
    }

    /// Seals a frame without descriptors into the output.
    ///
    /// # Errors
    /// The header names descriptors, the frame is over its limit, or the peer has not read what was sent before
    /// ([`WireError::Full`]); in all cases nothing was added and the connection may go on.
    pub fn send(&mut self, header: &Header, body: &[u8]) -> Result<(), WireError> {
        if header.descriptors != 0 {
            return Err(WireError::Descriptors);
        }
        self.seal_frame(header, body, None::<fn(u8) -> bool>)
    }

    /// Seals a frame whose descriptors leave before it: `pass` sends them with the byte that it is given, the first one
    /// of the frame, and says whether they have left. For what has been sealed must be sent, and the kernel may refuse
    /// descriptors at any time.
    ///
    /// # Errors
    /// As [`Self::send`], or [`WireError::NotPassed`]: they have not left, or something else waits to be written before
    /// them. Nothing was added and the connection may go on.
    pub fn send_behind_descriptors(
        &mut self,
        header: &Header,
        body: &[u8],
        pass: impl FnOnce(u8) -> bool,
    ) -> Result<(), WireError> {
        if self.pending_output() > 0 {
            return Err(WireError::NotPassed);
        }
        self.seal_frame(header, body, Some(pass))
    }

    fn seal_frame(
        &mut self,
        header: &Header,
        body: &[u8],
        pass: Option<impl FnOnce(u8) -> bool>,
    ) -> Result<(), WireError> {
        let mut first = frame::encode_head(header, body.len(), body.len().min(PAYLOAD_BYTES_MAX))?;
        let (fitting, rest) = body.split_at(body.len().min(PAYLOAD_BYTES_MAX.saturating_sub(first.len())));
        let length = first.len() + body.len();
        if self.pending_output() + length > OUTGOING_BYTES_MAX {
            return Err(WireError::Full);
        }
        if self.output_start == self.output.len() {
            self.output.clear();
            self.output_start = 0;
        }
        first.extend_from_slice(fitting);
        let passed = pass.is_some();
        if let Some(pass) = pass {
            let [start, _] = record_length(&first)?;
            if !pass(start) {
                return Err(WireError::NotPassed);
            }
        }
        self.output.reserve(length + length.div_ceil(PAYLOAD_BYTES_MAX) * RECORD_OVERHEAD_BYTES);
        self.seal_record(&first)?;
        self.output_start += usize::from(passed);
        rest.chunks(PAYLOAD_BYTES_MAX).try_for_each(|payload| self.seal_record(payload))
    }

    /// To be called before [`Self::send`], with the time: has a new key follow when the present one is too old. The
    /// other end needs no clock for it.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn keep_fresh(&mut self, now: Instant) -> Result<(), WireError> {
        let since = *self.fresh_since.get_or_insert(now);
        if now < since + Duration::from_secs(KEY_SECONDS_MAX) {
            return Ok(());
        }
        self.fresh_since = Some(now);
        if self.session.is_fresh() { Ok(()) } else { self.seal_record(&[]) }
    }

    fn seal_record(&mut self, payload: &[u8]) -> Result<(), WireError> {
        self.output.extend_from_slice(&record_length(payload)?);
        Ok(self.session.seal(payload, &mut self.output)?)
    }

    /// How many bytes this end keeps: of frames that have not arrived whole, and of those that wait to be written.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.input.len() - self.input_start + self.partial.capacity() + self.pending_output()
    }

    /// How many descriptors this end keeps, of frames that have not arrived whole.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.arrived.len()
    }

    /// How many bytes wait to be written.
    #[must_use]
    pub fn pending_output(&self) -> usize {
        self.output.len() - self.output_start
    }

    /// The bytes to write next.
    #[must_use]
    pub fn output(&self) -> Option<&[u8]> {
        Some(&self.output[self.output_start..]).filter(|pending| !pending.is_empty())
    }

    /// Says that the first `count` bytes of the last [`Self::output`] have been written.
    pub fn sent(&mut self, count: usize) {
        self.output_start += count;
        if self.output_start == self.output.len() && self.output.capacity() > MESSAGE_BYTES_MAX {
            self.output = Vec::new();
            self.output_start = 0;
        }
    }
}

/// What stands before the record of a payload.
fn record_length(payload: &[u8]) -> Result<[u8; RECORD_LENGTH_BYTES], WireError> {
    let length = u16::try_from(payload.len() + TAG_BYTES).map_err(|_| WireError::TooLarge)?;
    Ok(length.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::header;
    use super::super::noise::{Identity, Initiator, Responder};
    use super::*;
    use core_types::limits::FRAME_BYTES_MAX;
    use proptest::prelude::*;

    /// Two ends in one thread, with whatever chunking a test wants between them.
    struct Pair {
        a: Connection,
        b: Connection,
    }

    impl Pair {
        fn new() -> Self {
            let (ours, theirs) = (Identity::generate().unwrap(), Identity::generate().unwrap());
            let (initiator, message) = Initiator::start(&ours, theirs.public(), b"p").unwrap();
            let (b, reply) = Responder::new(&theirs, b"p").unwrap().respond(&message).unwrap();
            let a = initiator.finish(&reply).unwrap();
            Self { a: Connection::new(a, &[]), b: Connection::new(b, &[]) }
        }

        fn drain(from: &mut Connection) -> Vec<u8> {
            let mut bytes = Vec::new();
            while let Some(output) = from.output() {
                bytes.extend_from_slice(output);
                let count = output.len();
                from.sent(count);
            }
            bytes
        }
    }

    #[test]
    fn a_frame_of_the_largest_size_arrives_byte_by_byte() {
        let mut pair = Pair::new();
        let body: Vec<u8> = (0..200_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        pair.a.send(&header(1), &body).unwrap();
        let bytes = Pair::drain(&mut pair.a);
        for byte in &bytes[..bytes.len() - 1] {
            pair.b.take_bytes(&[*byte]);
            assert!(pair.b.next_frame().unwrap().is_none());
        }
        pair.b.take_bytes(&bytes[bytes.len() - 1..]);
        assert_eq!(*pair.b.next_frame().unwrap().unwrap().body, body);
        assert!(pair.b.is_between_frames());
    }

    #[test]
    fn what_waits_for_a_peer_that_does_not_read_is_bounded() {
        let mut pair = Pair::new();
        let body = vec![0; 1 << 20];
        let sent = (0..).take_while(|_| pair.a.send(&header(1), &body).is_ok()).count();
        assert_eq!(sent, OUTGOING_BYTES_MAX / (1 << 20) - 1);
        assert_eq!(pair.a.send(&header(1), &body), Err(WireError::Full));
        pair.b.take_bytes(&Pair::drain(&mut pair.a));
        assert_eq!((0..).take_while(|_| pair.b.next_frame().unwrap().is_some()).count(), sent);
    }

    fn with_descriptors(count: u8) -> Header {
        Header { descriptors: count, ..header(1) }
    }

    #[test]
    fn descriptors_leave_and_arrive_with_their_frame() {
        let mut pair = Pair::new();
        let pipe = || rustix::pipe::pipe().unwrap().0;
        for body in [vec![2; 2], vec![2; 200_000]] {
            pair.a
                .send_behind_descriptors(&with_descriptors(2), &body, |byte| {
                    pair.b.take_bytes(&[byte]);
                    true
                })
                .unwrap();
            pair.b.take_descriptors([pipe(), pipe()]).unwrap();
            pair.b.take_bytes(&Pair::drain(&mut pair.a));
            let frame = pair.b.next_frame().unwrap().unwrap();
            assert_eq!((frame.descriptors.len(), &*frame.body), (2, &*body));
        }
        assert_eq!(pair.a.send(&with_descriptors(1), b""), Err(WireError::Descriptors));
    }

    #[test]
    fn descriptors_that_cannot_leave_cost_their_frame_and_nothing_else() {
        let mut pair = Pair::new();
        let refused = pair.a.send_behind_descriptors(&with_descriptors(1), b"with", |_| false);
        assert_eq!(refused, Err(WireError::NotPassed));
        assert_eq!(pair.a.pending_output(), 0);
        pair.a.send(&header(1), b"without").unwrap();
        // The kernel is not asked while other bytes would have to go first.
        let behind = pair.a.send_behind_descriptors(&with_descriptors(1), b"behind", |_| panic!("asked"));
        assert_eq!(behind, Err(WireError::NotPassed));
        pair.b.take_bytes(&Pair::drain(&mut pair.a));
        assert_eq!(&*pair.b.next_frame().unwrap().unwrap().body, b"without");
        pair.a
            .send_behind_descriptors(&with_descriptors(1), b"later", |byte| {
                pair.b.take_bytes(&[byte]);
                true
            })
            .unwrap();
        pair.b.take_descriptors([rustix::pipe::pipe().unwrap().0]).unwrap();
        pair.b.take_bytes(&Pair::drain(&mut pair.a));
        assert_eq!(&*pair.b.next_frame().unwrap().unwrap().body, b"later");
        assert!(pair.b.is_between_frames());
    }

    #[test]
    fn keys_change_by_time_and_count_under_traffic_both_ways_and_nothing_is_lost() {
        const FRAMES: u64 = 10_000;
        let mut pair = Pair::new();
        // Soon worn by count, at the same message on both sides.
        pair.a.session.wear_until(300);
        pair.b.session.wear_until(300);
        let mut now = Instant::now();
        let (mut heard_a, mut heard_b, mut changes) = (0, 0, 0);
        for number in 1..=FRAMES {
            now += Duration::from_secs(if number % 100 == 0 { KEY_SECONDS_MAX } else { 1 });
            let body = vec![7; usize::try_from(number % 700).unwrap()];
            for end in [&mut pair.a, &mut pair.b] {
                changes += usize::from(
                    end.fresh_since.is_some_and(|since| now >= since + Duration::from_secs(KEY_SECONDS_MAX)),
                );
                end.keep_fresh(now).unwrap();
                end.send(&header(number), &body).unwrap();
            }
            // What one end has sent is on its way for a while, and arrives in pieces.
            if number % 7 == 0 || number == FRAMES {
                let (to_b, to_a) = (Pair::drain(&mut pair.a), Pair::drain(&mut pair.b));
                for piece in to_b.chunks(501) {
                    pair.b.take_bytes(piece);
                    while let Some(frame) = pair.b.next_frame().unwrap() {
                        heard_b += 1;
                        assert_eq!(frame.header.id, heard_b);
                    }
                }
                for piece in to_a.chunks(97) {
                    pair.a.take_bytes(piece);
                    while let Some(frame) = pair.a.next_frame().unwrap() {
                        heard_a += 1;
                        assert_eq!(frame.header.id, heard_a);
                    }
                }
            }
        }
        assert_eq!((heard_a, heard_b), (FRAMES, FRAMES));
        assert!(changes >= 200, "{changes}");
    }

    #[test]
    fn a_new_key_is_taken_between_frames_and_not_twice_in_a_row() {
        let mut pair = Pair::new();
        assert!(pair.a.seal_record(&[]).is_ok());
        pair.b.take_bytes(&Pair::drain(&mut pair.a));
        assert_eq!(pair.b.next_frame().err(), Some(WireError::Noise(NoiseError)), "the key is new already");
        let mut pair = Pair::new();
        pair.a.seal_record(&[0, 0, 0, 99, 1]).unwrap();
        pair.a.seal_record(&[]).unwrap();
        pair.b.take_bytes(&Pair::drain(&mut pair.a));
        assert_eq!(pair.b.next_frame().err(), Some(WireError::Malformed), "in the middle of a frame");
    }

    #[test]
    fn descriptors_without_a_frame_end_the_connection() {
        let mut pair = Pair::new();
        let pipes = (0..=EARLY_DESCRIPTORS_MAX).map(|_| rustix::pipe::pipe().unwrap().0);
        assert_eq!(pair.b.take_descriptors(pipes), Err(WireError::Descriptors));
        let mut pair = Pair::new();
        let mut bytes = Vec::new();
        pair.a
            .send_behind_descriptors(&with_descriptors(1), b"", |byte| {
                bytes.push(byte);
                true
            })
            .unwrap();
        bytes.extend(Pair::drain(&mut pair.a));
        pair.b.take_bytes(&bytes);
        assert_eq!(pair.b.next_frame().err(), Some(WireError::Descriptors));
    }

    #[test]
    fn a_flipped_dropped_swapped_or_repeated_record_ends_the_connection() {
        let records = |pair: &mut Pair| {
            (0..3u64)
                .map(|id| {
                    pair.a.send(&header(id), b"text").unwrap();
                    Pair::drain(&mut pair.a)
                })
                .collect::<Vec<_>>()
        };
        let outcome = |tamper: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let mut pair = Pair::new();
            let mut list = records(&mut pair);
            tamper(&mut list);
            pair.b.take_bytes(&list.concat());
            loop {
                match pair.b.next_frame() {
                    Ok(Some(_)) => {}
                    other => return other.map(|_| ()),
                }
            }
        };
        assert_eq!(outcome(&|_| ()), Ok(()));
        assert!(outcome(&|list| list[1][5] ^= 1).is_err());
        assert!(outcome(&|list| drop(list.remove(1))).is_err());
        assert!(outcome(&|list| list.swap(1, 2)).is_err());
        assert!(outcome(&|list| list.insert(1, list[0].clone())).is_err());
    }

    #[test]
    fn a_length_over_the_limit_ends_the_connection_before_its_bytes_come() {
        let mut pair = Pair::new();
        for claimed in [u32::MAX, u32::try_from(FRAME_BYTES_MAX).unwrap() + 1] {
            let mut output = Vec::new();
            pair.a.session.seal(&claimed.to_be_bytes(), &mut output).unwrap();
            let mut b = std::mem::replace(&mut pair, Pair::new()).b;
            b.take_bytes(&u16::try_from(output.len()).unwrap().to_be_bytes());
            b.take_bytes(&output);
            assert_eq!(b.next_frame().err(), Some(WireError::TooLarge));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn frames_survive_any_chunking(
            bodies in proptest::collection::vec(0usize..150_000, 1..4),
            chunks in proptest::collection::vec(1usize..70_000, 1..50),
        ) {
            let mut pair = Pair::new();
            for (id, size) in (1..).zip(&bodies) {
                pair.a.send(&header(id), &vec![u8::try_from(id).unwrap(); *size]).unwrap();
            }
            let bytes = Pair::drain(&mut pair.a);
            let (mut rest, mut chunks, mut seen) = (bytes.as_slice(), chunks.iter().cycle(), Vec::new());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at((*chunks.next().unwrap()).min(rest.len()));
                rest = after;
                pair.b.take_bytes(chunk);
                while let Some(frame) = pair.b.next_frame().unwrap() {
                    seen.push((frame.header.id, frame.body.len()));
                }
            }
            let expected: Vec<_> = (1u64..).zip(bodies.iter().copied()).collect();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn no_input_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut pair = Pair::new();
            pair.b.take_bytes(&bytes);
            while let Ok(Some(_)) = pair.b.next_frame() {}
        }
    }
}
