//! `pds completions`, the scripts by which shells complete command lines of `pds`, and the question that these scripts ask:
//! `pds --complete-words SHELL NUMBER WORD...`, which is answered at once or not at all, and never with a word on
//! standard error.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use core_types::ProfileName;
use core_types::pattern::Pattern;
use core_types::protocol::secrets::{List, Profiles, SecretPage};

use crate::args::{Args, Colour, Options, Shell};
use crate::completion::{Names, Offer, joined, offer};
use crate::error::Failure;
use crate::session::Session;

/// How long whoever pressed the key waits at most, from the first question to the last answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Most names that are offered; nobody reads more.
const OFFERED_MAX: usize = 2_000;

/// Writes the script for a shell.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn run(shell: Shell) -> Result<(), Failure> {
    let script = match shell {
        Shell::Bash => include_str!("completions/pds.bash"),
        Shell::Zsh => include_str!("completions/_pds.zsh"),
        Shell::Fish => include_str!("completions/pds.fish"),
    };
    std::io::stdout().lock().write_all(script.as_bytes()).map_err(Failure::Output)
}

/// A line that a shell wants completed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    shell: Shell,
    /// The words after the name of the program; the last one is to be completed.
    words: Vec<String>,
}

impl Question {
    /// The question that a command line asks, if it is one. Bytes that are no text are in no name either.
    pub(crate) fn of(arguments: &[OsString]) -> Option<Self> {
        let [_, asked, shell, number, line @ ..] = arguments else { return None };
        if asked != "--complete-words" {
            return None;
        }
        let shell = clap::ValueEnum::from_str(shell.to_str()?, false).ok()?;
        let number: usize = number.to_str()?.parse().ok()?;
        let before = line.get(1..=number)?;
        Some(Self {
            shell,
            words: before.iter().map(|word| unquoted(shell, &word.to_string_lossy())).collect(),
        })
    }

    /// Writes what may stand there: the kind of it on the first line, then a word on each.
    pub(crate) fn answer(self) -> ExitCode {
        let (words, before) = match self.shell {
            Shell::Bash => joined(&self.words),
            Shell::Zsh | Shell::Fish => (self.words.clone(), 0),
        };
        let mut root = Args::description();
        root.build();
        let mut text = String::new();
        match offer(&root, &words, &mut Asked::now()) {
            Offer::Words(offered) => {
                text.push_str("words\n");
                for (word, said) in offered {
                    text.push_str(word.get(before..).unwrap_or_default());
                    if self.shell != Shell::Bash && !said.is_empty() {
                        text.push('\t');
                        text.push_str(&said);
                    }
                    text.push('\n');
                }
            }
            Offer::Files => text.push_str("files\n"),
            Offer::Program => {
                // Counted as the shell counts: pds is word 0.
                let dashes = self.words.iter().position(|word| word == "--").unwrap_or_default();
                text.push_str(&format!("program\n{}\n", dashes + 2));
            }
        }
        let _nobody_to_tell = std::io::stdout().lock().write_all(text.as_bytes());
        ExitCode::SUCCESS
    }
}

/// Bash hands over words as they were typed. No name has a character that needs quotes, so without them it is the name.
fn unquoted(shell: Shell, word: &str) -> String {
    match shell {
        Shell::Bash => word.replace(['\'', '"', '\\'], ""),
        Shell::Zsh | Shell::Fish => word.to_owned(),
    }
}

/// Names from the daemons that run. Without them, with a locked profile, or when it takes too long, there are none.
struct Asked {
    end: Instant,
}

impl Asked {
    fn now() -> Self {
        Self { end: Instant::now() + PATIENCE }
    }

    fn session(&self, profile: Option<&str>) -> Option<Session> {
        let profiles = profile.map(ProfileName::parse).transpose().ok()?;
        let options = Options {
            profiles: Vec::from_iter(profiles),
            json: false,
            quiet: true,
            verbose: false,
            color: Colour::Never,
            timeout: Some(self.end.checked_duration_since(Instant::now())?),
            no_start: true,
        };
        Session::new(options).ok()
    }

    fn page(&self, session: &mut Session, call: &List) -> Option<SecretPage> {
        session.call_until(call, self.end).ok()
    }
}

impl Names for Asked {
    fn secrets(&mut self, profile: Option<&str>, beginning: &str) -> Vec<String> {
        let mut found = Vec::new();
        let Some(mut session) = self.session(profile) else { return found };
        let (Ok(profile), Ok(pattern)) = (session.profile(), Pattern::parse(format!("{beginning}*"))) else {
            return found;
        };
        let mut call = List { profile, pattern: Some(pattern), after: None };
        while let Some(SecretPage { entries, more }) = self.page(&mut session, &call) {
            call.after = entries.last().map(|entry| entry.name.clone());
            found.extend(entries.into_iter().map(|entry| String::from(entry.name)));
            if !more || call.after.is_none() || found.len() >= OFFERED_MAX {
                break;
            }
        }
        found
    }

    fn profiles(&mut self) -> Vec<String> {
        let profiles =
            self.session(None).and_then(|mut session| session.call_until(&Profiles {}, self.end).ok());
        profiles.unwrap_or_default().into_iter().map(|profile| String::from(profile.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(line: &[&str]) -> Option<Question> {
        Question::of(&line.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn only_a_whole_question_is_one() {
        let asked = ["pds", "--complete-words", "fish", "2", "pds", "get", "a b"];
        let words = vec!["get".to_owned(), "a b".to_owned()];
        assert_eq!(question(&asked), Some(Question { shell: Shell::Fish, words }));
        for wrong in [
            &["pds"][..],
            &["pds", "get", "fish", "1", "pds"],
            &["pds", "--complete-words", "csh", "1", "pds", ""],
            &["pds", "--complete-words", "bash", "x", "pds", ""],
            &["pds", "--complete-words", "bash", "5", "pds", ""],
        ] {
            assert_eq!(question(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_word_in_quotes_is_the_word() {
        let asked = ["pds", "--complete-words", "bash", "3", "pds", "-p", "\"work\"", "'db/pa", "after"];
        let words = ["-p", "work", "db/pa"].map(str::to_owned).into();
        assert_eq!(question(&asked), Some(Question { shell: Shell::Bash, words }));
    }
}
