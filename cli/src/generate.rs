//! Values made by chance: characters of a set, or words of the EFF's long list.
//!
//! The list is that of "EFF Dice-Generated Passphrases" (Joseph Bonneau, Electronic Frontier Foundation, 2016, CC BY 3.0):
//! 7776 words, each 12.9 bits.

use core_crypto::EntropyError;
use core_crypto::random;
use diceware_wordlists::EFF_LONG_WORDLIST;
use zeroize::Zeroizing;

use crate::prompt::Typed;

/// Most words that are made.
pub(crate) const WORDS_MAX: usize = 1024;
/// Between words. No word has one, so that different words never make the same value.
const SEPARATOR: u8 = b'.';
/// Longest word of the list, with room to spare.
const WORD_BYTES_MAX: usize = 16;

/// Different characters, at least two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Charset(Vec<u8>);

impl Default for Charset {
    fn default() -> Self {
        Self::of(|byte| byte.is_ascii_alphanumeric())
    }
}

impl Charset {
    fn of(wanted: impl Fn(&u8) -> bool) -> Self {
        Self((b'!'..=b'~').filter(|byte| wanted(byte)).collect())
    }

    /// The set of that name, or the characters that follow `chars:`.
    ///
    /// # Errors
    /// There is no such set, or it is none. The text is not repeated.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        Ok(match text {
            "alnum" => Self::default(),
            "all" => Self::of(|_| true),
            "letters" => Self::of(u8::is_ascii_alphabetic),
            "digits" => Self::of(u8::is_ascii_digit),
            "hex" => Self(b"0123456789abcdef".to_vec()),
            _ => {
                let characters = text
                    .strip_prefix("chars:")
                    .ok_or("it is not alnum, all, letters, digits, hex or chars:...")?;
                let mut bytes = characters.as_bytes().to_vec();
                bytes.sort_unstable();
                bytes.dedup();
                if bytes.len() < 2
                    || bytes.len() != characters.len()
                    || !bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
                {
                    return Err("chars: takes two or more different characters of ASCII");
                }
                Self(bytes)
            }
        })
    }
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// So many characters of a set.
    Characters { length: usize, charset: Charset },
    /// So many words.
    Words(usize),
}

impl Recipe {
    /// Bits of entropy of what it makes: each choice is as likely as any other.
    pub(crate) fn bits(&self) -> f64 {
        let (count, choices) = match self {
            Self::Characters { length, charset } => (*length, charset.0.len()),
            Self::Words(count) => (*count, EFF_LONG_WORDLIST.len()),
        };
        let exact = |number: usize| u32::try_from(number).map_or(f64::INFINITY, f64::from);
        exact(count) * exact(choices).log2()
    }

    /// Makes a value, in a buffer that never grows.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    pub(crate) fn make(&self) -> Result<Typed, EntropyError> {
        match self {
            Self::Characters { length, charset } => {
                let mut value = Zeroizing::new(Vec::with_capacity(*length));
                for _ in 0..*length {
                    value.push(charset.0[chosen(charset.0.len())?]);
                }
                Ok(value)
            }
            Self::Words(count) => {
                let mut value = Zeroizing::new(Vec::with_capacity(count * WORD_BYTES_MAX));
                for number in 0..*count {
                    if number > 0 {
                        value.push(SEPARATOR);
                    }
                    value.extend_from_slice(EFF_LONG_WORDLIST[chosen(EFF_LONG_WORDLIST.len())?].as_bytes());
                }
                Ok(value)
            }
        }
    }
}

/// A number below `choices`, which are at most 65,536, each as likely: what would favour some is drawn again.
fn chosen(choices: usize) -> Result<usize, EntropyError> {
    const DRAWN: usize = 1 << 16;
    let fair = DRAWN - DRAWN % choices;
    loop {
        let mut bytes = Zeroizing::new([0; 2]);
        random::fill(&mut *bytes)?;
        let drawn = usize::from(u16::from_le_bytes(*bytes));
        if drawn < fair {
            return Ok(drawn % choices);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_value_has_its_length_and_only_its_characters() {
        for (name, characters) in
            [("alnum", 62), ("all", 94), ("letters", 52), ("digits", 10), ("hex", 16), ("chars:ab ", 3)]
        {
            let charset = Charset::parse(name).unwrap();
            let recipe = Recipe::Characters { length: 4000, charset: charset.clone() };
            let value = recipe.make().unwrap();
            assert_eq!((value.len(), value.capacity()), (4000, 4000));
            // All of them come: that one of 94 is missing from 4000 happens once in 10^16 times.
            assert_eq!(value.iter().copied().collect::<BTreeSet<_>>(), charset.0.iter().copied().collect());
            assert_eq!(charset.0.len(), characters);
        }
        for wrong in ["", "Alnum", "chars:", "chars:a", "chars:aa", "chars:aba", "chars:ä€", "chars:a\n"] {
            assert!(Charset::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn entropy_is_that_of_the_choices() {
        let near = |recipe: Recipe, bits: f64| assert!((recipe.bits() - bits).abs() < 0.001, "{recipe:?}");
        near(Recipe::Words(6), 77.549);
        near(Recipe::Characters { length: 32, charset: Charset::default() }, 190.534);
        near(Recipe::Characters { length: 64, charset: Charset::parse("hex").unwrap() }, 256.0);
    }

    #[test]
    fn words_are_those_of_the_list_and_can_be_told_apart() {
        assert_eq!(EFF_LONG_WORDLIST.iter().collect::<BTreeSet<_>>().len(), 7776);
        assert_eq!((EFF_LONG_WORDLIST[0], EFF_LONG_WORDLIST[7775]), ("abacus", "zoom"));
        assert!(
            EFF_LONG_WORDLIST
                .iter()
                .all(|word| word.len() < WORD_BYTES_MAX && !word.as_bytes().contains(&SEPARATOR))
        );
        let value = Recipe::Words(500).make().unwrap();
        let words: Vec<&str> = std::str::from_utf8(&value).unwrap().split('.').collect();
        assert_eq!(words.len(), 500);
        assert!(words.iter().all(|word| EFF_LONG_WORDLIST.contains(word)));
        assert_ne!(value, Recipe::Words(500).make().unwrap());
    }

    /// Of 40,000 choices 60,000 draws fall, without drawing again, on the lower 25,536 ones twice as often.
    #[test]
    fn no_choice_is_favoured() {
        let choices = 40_000;
        let lower = (0..60_000).filter(|_| chosen(choices).unwrap() < DRAWN_TWICE).count();
        // 38,304 are to be expected, 117 is one standard deviation; with a bias it would be 46,758.
        assert!((37_000..39_600).contains(&lower), "{lower}");
    }
    const DRAWN_TWICE: usize = (1 << 16) - 40_000;
}
