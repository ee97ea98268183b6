//! Options of values that are made by chance.

use core_types::limits::VALUE_BYTES_MAX;

use crate::generate::{Charset, Recipe, WORDS_MAX};

/// Characters of a value when nothing else is said: 190 bits.
const LENGTH: usize = 32;

/// How a value is made.
#[derive(Debug, clap::Args)]
pub(crate) struct GenerateOptions {
    /// Make the value by chance; it is not shown, but how much chance is in it
    #[arg(long, conflicts_with_all = ["file", "trim"])]
    generate: bool,
    /// How many characters [default: 32]
    #[arg(long, value_name = "N", requires = "generate", value_parser = length)]
    length: Option<usize>,
    /// Which: alnum, all, letters, digits, hex, or chars: and the characters themselves [default: alnum]
    #[arg(long, value_name = "WHICH", requires = "generate", value_parser = Charset::parse)]
    charset: Option<Charset>,
    /// Words instead, with points between, of the EFF's long list
    #[arg(long, value_name = "N", requires = "generate", conflicts_with_all = ["length", "charset"], value_parser = words)]
    words: Option<usize>,
}

impl GenerateOptions {
    /// What to make, if anything.
    pub(crate) fn recipe(&self) -> Option<Recipe> {
        if !self.generate {
            return None;
        }
        Some(match self.words {
            Some(count) => Recipe::Words(count),
            None => Recipe::Characters {
                length: self.length.unwrap_or(LENGTH),
                charset: self.charset.clone().unwrap_or_default(),
            },
        })
    }
}

fn within(text: &str, limit: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=limit).contains(number));
    number.ok_or_else(|| format!("it is not a number from 1 to {limit}"))
}

fn length(text: &str) -> Result<usize, String> {
    within(text, VALUE_BYTES_MAX)
}

fn words(text: &str) -> Result<usize, String> {
    within(text, WORDS_MAX)
}
