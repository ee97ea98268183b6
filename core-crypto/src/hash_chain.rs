//! A chain of hashes over entries: each link depends on every entry before it, so one changed entry changes
//! all links after it.

use std::fmt;

/// The BLAKE3 hash of a link and the entry after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link([u8; 32]);

/// The text is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a link is 64 lower-case hex digits")]
pub struct NotALink;

impl Link {
    /// The link before the first entry.
    pub const GENESIS: Self = Self([0; 32]);

    /// The link after `entry`: BLAKE3 of the 32 bytes of this link, then the entry.
    #[must_use]
    pub fn next(&self, entry: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(entry);
        Self(hasher.finalize().into())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The link with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As 64 lower-case hex digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Reads what [`Self::to_hex`] wrote, and nothing else: each link has one text only.
    ///
    /// # Errors
    /// The text is not exactly 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Result<Self, NotALink> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotALink)?;
        let link = Self(bytes);
        if link.to_hex() == text { Ok(link) } else { Err(NotALink) }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer() {
        let link = Link::GENESIS.next(b"one").next(b"two");
        assert_eq!(link.to_hex(), "cbe13bc024fe1b634382574361c837d3acdda6e2a1992ba2e74b907dfa3eceb9");
    }

    #[test]
    fn a_link_depends_on_every_entry_their_order_and_their_borders() {
        let chain =
            |entries: &[&str]| entries.iter().fold(Link::GENESIS, |link, entry| link.next(entry.as_bytes()));
        let link = chain(&["a", "b", "c"]);
        for other in [&["a", "b"][..], &["b", "a", "c"], &["a", "b", "d"], &["x", "b", "c"], &["ab", "c"]] {
            assert_ne!(link, chain(other));
        }
    }

    #[test]
    fn each_link_has_one_text() {
        let link = Link::GENESIS.next(b"x");
        assert_eq!(Link::from_hex(&link.to_hex()), Ok(link));
        let text = link.to_hex();
        for bad in
            [text.to_uppercase(), text[1..].to_owned(), format!("{text}0"), "zz".repeat(32), String::new()]
        {
            assert_eq!(Link::from_hex(&bad), Err(NotALink), "{bad}");
        }
    }
}
