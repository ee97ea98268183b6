//! A checksum against accidents: it tells a damaged file from a wrong password. It proves nothing about who
//! wrote the file, since anyone can compute it.

/// The BLAKE3 hash of `bytes`, as 64 lower-case hex digits.
#[must_use]
pub fn checksum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The BLAKE3 hash of `bytes`.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first of the official test vectors.
    #[test]
    fn known_answer() {
        assert_eq!(checksum(b""), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    }
}
