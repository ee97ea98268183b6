//! Presenting the factors of a profile: which of them, and where their secrets come from.
//!
//! A key of a running ssh-agent costs the user nothing, so it comes first, then a password, then the recovery code; what
//! is given on the command line comes before anything is asked.

use core_types::factor::agent_challenge;
use core_types::protocol::secrets::{FactorEntry, FactorKind, FactorProof, FactorSheet, SecretsDenial};
use core_types::{ProfileName, WireSecret};

use crate::agent::{Agent, AgentError, Fingerprint};
use crate::args::{CodeOptions, PasswordOptions};
use crate::error::Failure;
use crate::input::{InputError, Source};
use crate::output::{Messages, shown};
use crate::prompt::{PasswordSource, PromptError, Terminal, Typed};
use crate::words;

/// Where the words of a recovery code come from.
pub(crate) enum CodeSource {
    /// The controlling terminal.
    Terminal,
    /// A descriptor or a file.
    Given(Source),
}

impl CodeSource {
    /// Opens what the options name. To be called before the process opens any descriptor of its own.
    ///
    /// # Errors
    /// The descriptor or file cannot be read.
    pub(crate) fn open(options: &CodeOptions) -> Result<Self, InputError> {
        match (options.code_descriptor, &options.code_file) {
            (Some(number), _) => Source::descriptor(number).map(Self::Given),
            (None, Some(path)) => Source::file(path).map(Self::Given),
            (None, None) => Ok(Self::Terminal),
        }
    }

    /// The code.
    ///
    /// # Errors
    /// There is none, or the words are none.
    pub(crate) fn code(self, question: &str) -> Result<Typed, Failure> {
        let text = match self {
            Self::Given(source) => source.read(words::TEXT_BYTES_MAX)?,
            Self::Terminal => {
                Terminal::open()?.hidden_lines(question, words::TEXT_BYTES_MAX, words::are_enough)?
            }
        };
        if text.trim_ascii().is_empty() {
            return Err(PromptError::Cancelled.into());
        }
        Ok(words::to_code(&text)?)
    }
}

/// What the command line gives besides an agent.
pub(crate) struct Sources {
    /// The password.
    pub(crate) password: PasswordSource,
    /// The recovery code.
    pub(crate) code: CodeSource,
    /// Whether the recovery code shall be asked for before the password.
    pub(crate) recovery_first: bool,
}

impl Sources {
    /// Opens what the options name. To be called before the process opens any descriptor of its own.
    ///
    /// # Errors
    /// A descriptor or file cannot be read.
    pub(crate) fn open(password: &PasswordOptions, code: &CodeOptions) -> Result<Self, Failure> {
        Ok(Self {
            password: PasswordSource::open(password)?,
            code: CodeSource::open(code)?,
            recovery_first: code.recovery,
        })
    }

    /// The kinds in the order in which they are presented.
    fn order(&self) -> Vec<FactorKind> {
        use FactorKind::{Password, Recovery, SshAgent};
        let mut order = Vec::new();
        if matches!(self.password, PasswordSource::Given(_)) {
            order.push(Password);
        }
        if self.recovery_first || matches!(self.code, CodeSource::Given(_)) {
            order.push(Recovery);
        }
        for kind in [SshAgent, Password, Recovery] {
            if !order.contains(&kind) {
                order.push(kind);
            }
        }
        order
    }
}

/// What is presented for one command.
pub(crate) struct Presenter<'a> {
    profile: &'a ProfileName,
    sheet: &'a FactorSheet,
    messages: Messages,
    proofs: Vec<FactorProof>,
}

impl<'a> Presenter<'a> {
    /// Nothing yet, of the factors of a profile.
    pub(crate) fn new(profile: &'a ProfileName, sheet: &'a FactorSheet, messages: Messages) -> Self {
        Self { profile, sheet, messages, proofs: Vec::new() }
    }

    /// How many factors unlock.
    pub(crate) fn to_unlock(&self) -> usize {
        self.sheet.policy.needed(self.sheet.factors.len()).map_or(usize::MAX, usize::from)
    }

    /// Presents factors until there are `needed`, asking for no more than that.
    ///
    /// # Errors
    /// Nothing is left that could be presented, or one was not given.
    pub(crate) fn collect(mut self, sources: Sources, needed: usize) -> Result<Vec<FactorProof>, Failure> {
        self.check_given(&sources)?;
        let order = sources.order();
        let (mut password, mut code) = (Some(sources.password), Some(sources.code));
        for kind in order {
            while self.proofs.len() < needed {
                let Some(factor) = self.next(kind) else { break };
                match kind {
                    FactorKind::SshAgent => {
                        self.agent_keys(needed);
                        break;
                    }
                    FactorKind::Password => {
                        // Given once on the command line; asked for as often as there are passwords.
                        let source = password.take().unwrap_or(PasswordSource::Terminal);
                        self.password(factor, source)?;
                    }
                    FactorKind::Recovery => {
                        let question =
                            format!("Recovery code of profile '{}' (24 words, not shown): ", self.profile);
                        let code = code.take().unwrap_or(CodeSource::Terminal).code(&question)?;
                        self.present(factor.id, code);
                    }
                }
            }
        }
        self.enough(needed)
    }

    /// Refuses what is given for a factor that the profile has not, rather than asking for another in silence.
    fn check_given(&self, sources: &Sources) -> Result<(), Failure> {
        let has = |kind| self.sheet.factors.iter().any(|factor| factor.kind == kind);
        let code = sources.recovery_first || matches!(sources.code, CodeSource::Given(_));
        if code && !has(FactorKind::Recovery) {
            return Err(Failure::NoRecoveryCode);
        }
        if matches!(sources.password, PasswordSource::Given(_)) && !has(FactorKind::Password) {
            return Err(Failure::NoPassword);
        }
        Ok(())
    }

    fn enough(self, needed: usize) -> Result<Vec<FactorProof>, Failure> {
        if self.proofs.len() >= needed {
            return Ok(self.proofs);
        }
        let count = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        let (given, of) = (count(self.proofs.len()), count(self.sheet.factors.len()));
        Err(SecretsDenial::NotEnoughFactors { given, needed: count(needed), of }.into())
    }

    fn password(&mut self, factor: &FactorEntry, source: PasswordSource) -> Result<(), Failure> {
        let several =
            self.sheet.factors.iter().filter(|other| other.kind == FactorKind::Password).count() > 1;
        let which = match (several, self.proofs.is_empty()) {
            (true, false) => "Another password",
            _ => "Password",
        };
        let password = source.existing(&format!("{which} for profile '{}': ", self.profile))?;
        self.present(factor.id, password);
        Ok(())
    }

    /// Presents the enrolled keys that the agent holds. One that does not sign is left out: there may be other ways.
    fn agent_keys(&mut self, needed: usize) {
        let mut agent = match Agent::connect() {
            Ok(agent) => agent,
            Err(AgentError::Absent) => return,
            Err(error) => return self.messages.note(format_args!("note: {error}")),
        };
        let held = match agent.identities() {
            Ok(held) => held,
            Err(error) => return self.messages.note(format_args!("note: {error}")),
        };
        for factor in &self.sheet.factors {
            let Some(key) = &factor.agent else { continue };
            let holds = held.iter().any(|identity| identity.public_key == key.public_key);
            if self.proofs.len() >= needed || !holds {
                continue;
            }
            match agent.sign(&key.public_key, &agent_challenge(self.profile, &key.nonce)) {
                Ok(signature) => {
                    let name = Fingerprint(&key.public_key);
                    self.messages.detail(format_args!(
                        "the ssh-agent signed with {name} '{}'",
                        shown(factor.label.as_str())
                    ));
                    self.present(factor.id, signature);
                }
                Err(error) => self.messages.note(format_args!("note: {error}")),
            }
        }
    }

    /// The first factor of a kind that has not been presented.
    fn next(&self, kind: FactorKind) -> Option<&'a FactorEntry> {
        let presented = |factor: &FactorEntry| self.proofs.iter().any(|proof| proof.factor == factor.id);
        self.sheet.factors.iter().find(|factor| factor.kind == kind && !presented(factor))
    }

    /// Presents a secret of a factor.
    pub(crate) fn present(&mut self, factor: u32, secret: Typed) {
        self.proofs.push(FactorProof { factor, secret: wire(secret) });
    }
}

/// A secret as part of a message.
pub(crate) fn wire(mut secret: Typed) -> WireSecret {
    WireSecret::new(std::mem::take(&mut *secret))
}

#[cfg(test)]
mod tests {
    use core_types::protocol::secrets::{FactorLabel, FactorPolicy};

    use super::*;

    fn entry(id: u32, kind: FactorKind) -> FactorEntry {
        FactorEntry { id, kind, label: FactorLabel::default(), created_unix_ms: 0, agent: None }
    }

    fn sheet(policy: FactorPolicy) -> FactorSheet {
        let factors = vec![entry(1, FactorKind::Password), entry(4, FactorKind::Recovery)];
        FactorSheet { policy, factors }
    }

    fn given(text: &str) -> Source {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Source::file(file.path()).unwrap()
    }

    fn sources(password: bool, code: bool) -> Sources {
        let words = words::to_words(&core_crypto::SecureBytes::zeroed(32));
        Sources {
            password: if password { PasswordSource::Given(given("pw\n")) } else { PasswordSource::Terminal },
            code: if code { CodeSource::Given(given(&words)) } else { CodeSource::Terminal },
            recovery_first: false,
        }
    }

    fn collected(policy: FactorPolicy, sources: Sources, needed: usize) -> Result<Vec<u32>, Failure> {
        let (profile, sheet) = (ProfileName::parse("work").unwrap(), sheet(policy));
        let presenter = Presenter::new(&profile, &sheet, Messages::plain());
        Ok(presenter.collect(sources, needed)?.iter().map(|proof| proof.factor).collect())
    }

    #[test]
    fn what_is_given_is_presented_and_no_more_than_needed() {
        assert_eq!(collected(FactorPolicy::Any, sources(true, false), 1).unwrap(), [1]);
        assert_eq!(collected(FactorPolicy::Any, sources(false, true), 1).unwrap(), [4]);
        assert_eq!(collected(FactorPolicy::All, sources(true, true), 2).unwrap(), [1, 4]);
    }

    #[test]
    fn too_few_are_told_with_their_numbers() {
        let denied = collected(FactorPolicy::All, sources(true, true), 3).unwrap_err();
        assert_eq!(denied.to_string(), "it needs 3 of the 2 factors, and 2 of them were given");
    }

    #[test]
    fn the_agent_comes_first_unless_something_else_is_given() {
        use FactorKind::{Password, Recovery, SshAgent};
        assert_eq!(sources(false, false).order(), [SshAgent, Password, Recovery]);
        assert_eq!(sources(true, false).order(), [Password, SshAgent, Recovery]);
        assert_eq!(sources(false, true).order(), [Recovery, SshAgent, Password]);
        let asked = Sources { recovery_first: true, ..sources(false, false) };
        assert_eq!(asked.order(), [Recovery, SshAgent, Password]);
    }
}
