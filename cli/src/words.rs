//! A recovery code as words for paper: 256 random bits and a checksum in 24 English words (BIP 39).

use bip39::{Language, Mnemonic};
use core_crypto::{EntropyError, SecureBytes};
use core_types::factor::RECOVERY_CODE_BYTES;
use zeroize::Zeroizing;

use crate::prompt::Typed;

/// Number of the words.
const WORDS: usize = 24;
const WORDS_ON_A_LINE: usize = 6;
/// Longest text that is taken for a code, in bytes: the longest words with much space around them.
pub(crate) const TEXT_BYTES_MAX: usize = 1024;

/// Why a text is no recovery code. No word of it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WordsError {
    /// Not the right number of words.
    #[error("a recovery code has {WORDS} words, and these are {found}")]
    Number { found: usize },
    /// A word that is not in the list.
    #[error("word {position} is not a word of recovery codes")]
    Unknown { position: usize },
    /// All are words, and they do not belong together.
    #[error("the words do not belong together: one is another's, or two have changed places")]
    Checksum,
}

/// A new random code.
///
/// # Errors
/// The kernel gave no random bytes.
pub(crate) fn new_code() -> Result<SecureBytes, EntropyError> {
    SecureBytes::random(RECOVERY_CODE_BYTES)
}

/// The words of a code, some on each line.
pub(crate) fn to_words(code: &SecureBytes) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX));
    let Ok(mnemonic) = Mnemonic::from_entropy_in(Language::English, code.expose()) else { return text };
    for (number, word) in mnemonic.words().enumerate() {
        text.push_str(match number {
            0 => "",
            number if number % WORDS_ON_A_LINE == 0 => "\n",
            _ => " ",
        });
        text.push_str(word);
    }
    text
}

/// Whether these are as many words as a code has, or more.
pub(crate) fn are_enough(text: &[u8]) -> bool {
    count(text) >= WORDS
}

/// The code that these words stand for, in capitals or not and with any space between them.
///
/// # Errors
/// They stand for none.
pub(crate) fn to_code(text: &[u8]) -> Result<Typed, WordsError> {
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    let text = std::str::from_utf8(&lower)
        .map_err(|error| WordsError::Unknown { position: count(&lower[..error.valid_up_to()]).max(1) })?;
    let found = text.split_whitespace().count();
    if found != WORDS {
        return Err(WordsError::Number { found });
    }
    match Mnemonic::parse_in_normalized(Language::English, text) {
        Ok(mnemonic) => Ok(Zeroizing::new(mnemonic.to_entropy_array().0[..RECOVERY_CODE_BYTES].to_vec())),
        Err(bip39::Error::UnknownWord(at)) => Err(WordsError::Unknown { position: at + 1 }),
        Err(_) => Err(WordsError::Checksum),
    }
}

fn count(text: &[u8]) -> usize {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(byte: u8) -> SecureBytes {
        SecureBytes::copy_of(&[byte; RECOVERY_CODE_BYTES])
    }

    /// The words are those of the test vectors of BIP 39.
    #[test]
    fn known_answers() {
        let zeros = format!("{} art", ["abandon"; 23].join(" "));
        let ones = format!("{} vote", ["zoo"; 23].join(" "));
        for (byte, words) in [(0, zeros), (0xff, ones)] {
            let text = to_words(&code(byte));
            assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), words);
            assert_eq!(text.lines().count(), 4);
            assert_eq!(*to_code(words.as_bytes()).unwrap(), code(byte).expose());
        }
    }

    #[test]
    fn words_are_read_however_they_are_spaced_and_written() {
        for _ in 0..50 {
            let code = new_code().unwrap();
            let text = to_words(&code);
            assert!(text.len() < TEXT_BYTES_MAX / 2);
            let shouted = format!("\n  {}\t\r\n", text.to_uppercase().replace(' ', " \t "));
            assert_eq!(*to_code(shouted.as_bytes()).unwrap(), code.expose());
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_its_place_and_never_repeated() {
        let good = to_words(&code(3)).replace('\n', " ");
        let mut words: Vec<&str> = good.split(' ').collect();
        assert_eq!(to_code(words[..23].join(" ").as_bytes()), Err(WordsError::Number { found: 23 }));
        assert_eq!(to_code(b""), Err(WordsError::Number { found: 0 }));
        words[4] = "hunter2";
        let error = to_code(words.join(" ").as_bytes()).unwrap_err();
        assert_eq!(error, WordsError::Unknown { position: 5 });
        assert!(!error.to_string().contains("hunter2"));
        assert!(matches!(to_code(b"abandon \xff\xfe abandon"), Err(WordsError::Unknown { .. })));
        let random = to_words(&SecureBytes::copy_of(&(0..32).collect::<Vec<u8>>())).replace('\n', " ");
        let mut swapped: Vec<&str> = random.split(' ').collect();
        swapped.swap(0, 1);
        assert_eq!(to_code(swapped.join(" ").as_bytes()), Err(WordsError::Checksum));
    }
}
