//! `pds factor`: the ways to unlock a profile.

use std::path::Path;

use base64ct::{Base64, Encoding};
use core_crypto::SecureBytes;
use core_types::factor::{AGENT_NONCE_BYTES, AgentKeyKind, agent_challenge};
use core_types::limits::AGENT_KEY_BYTES_MAX;
use core_types::protocol::secrets::{
    AddFactor, AgentKey, FactorEntry, FactorKind, FactorLabel, FactorPolicy, FactorSheet, Factors, NewFactor,
    RemoveFactor, SetPolicy,
};
use serde::Serialize;

use crate::agent::{Agent, Fingerprint, Identity};
use crate::args::{AddCommand, AddOptions, FactorCommand, NewPasswordOptions, PolicyArgument};
use crate::error::Failure;
use crate::input::Source;
use crate::output::{shown, time};
use crate::prompt::PasswordSource;
use crate::proofs::{Presenter, Sources, wire};
use crate::session::{PASSWORD_DEADLINE, Session};

/// `pds factor list --json`.
#[derive(Serialize)]
struct Listing<'a> {
    profile: &'a str,
    policy: String,
    needed: Option<u8>,
    factors: Vec<Shown>,
}

/// A factor in `--json`; times are RFC 3339 in UTC, `fingerprint` is `null` for what is no SSH key.
#[derive(Serialize)]
struct Shown {
    id: u32,
    kind: &'static str,
    label: String,
    created_at: String,
    fingerprint: Option<String>,
}

impl From<&FactorEntry> for Shown {
    fn from(entry: &FactorEntry) -> Self {
        Self {
            id: entry.id,
            kind: entry.kind.name(),
            label: entry.label.as_str().to_owned(),
            created_at: time(entry.created_unix_ms),
            fingerprint: entry.agent.as_ref().map(|key| Fingerprint(&key.public_key).to_string()),
        }
    }
}

impl Shown {
    fn line(&self) -> String {
        let mut line = format!("{:>3}  {:<9}  {}", self.id, self.kind, self.created_at);
        for more in [self.fingerprint.as_deref(), Some(self.label.as_str())].into_iter().flatten() {
            if !more.is_empty() {
                line.push_str("  ");
                line.push_str(&shown(more));
            }
        }
        line
    }
}

/// `--json` of the commands that change something.
#[derive(Serialize)]
struct Done<'a> {
    profile: &'a str,
    factor: Option<u32>,
    policy: Option<String>,
}

pub(super) fn run(session: &mut Session, command: &FactorCommand) -> Result<(), Failure> {
    match command {
        FactorCommand::List => list(session),
        FactorCommand::Add(AddCommand::SshAgent { key, options }) => {
            add_key(session, key.as_deref(), options)
        }
        FactorCommand::Add(AddCommand::Password { new, options }) => add_password(session, new, options),
        FactorCommand::Remove { factor, proofs } => {
            let sources = Sources::open(&proofs.password, &proofs.code)?;
            remove(session, *factor, sources)
        }
        FactorCommand::Policy { policy, proofs } => {
            let sources = Sources::open(&proofs.password, &proofs.code)?;
            set_policy(session, *policy, sources)
        }
    }
}

fn list(session: &mut Session) -> Result<(), Failure> {
    let profile = session.profile()?;
    let sheet = session.call(&Factors { profile: profile.clone() })?;
    let factors: Vec<Shown> = sheet.factors.iter().map(Shown::from).collect();
    let policy = sheet.policy.shown(factors.len());
    let output = &mut session.output;
    if output.wants_json() {
        let needed = sheet.policy.needed(factors.len());
        return output.object(&Listing { profile: profile.as_str(), policy, needed, factors });
    }
    output.line(format_args!("policy: {policy}"))?;
    factors.iter().try_for_each(|factor| output.line(factor.line()))
}

/// How many factors have to be presented to add one.
fn needed_to_add(sheet: &FactorSheet) -> usize {
    if sheet.policy == FactorPolicy::Any { 1 } else { sheet.factors.len() }
}

fn add_key(session: &mut Session, wanted: Option<&str>, options: &AddOptions) -> Result<(), Failure> {
    let sources = Sources::open(&options.proofs.password, &options.proofs.code)?;
    let profile = session.profile()?;
    let sheet = session.call(&Factors { profile: profile.clone() })?;
    let mut agent = Agent::connect()?;
    let identity = chosen(agent.identities()?, wanted)?;
    let nonce = SecureBytes::random(AGENT_NONCE_BYTES).map_err(Failure::Entropy)?;
    let nonce: [u8; AGENT_NONCE_BYTES] = nonce.expose().try_into().unwrap_or([0; AGENT_NONCE_BYTES]);
    let signature = agent.sign_alike(&identity.public_key, &agent_challenge(&profile, &nonce))?;
    let label = options.label.clone().unwrap_or_else(|| FactorLabel::of(&identity.comment));
    let key = AgentKey { public_key: identity.public_key, nonce };
    let new = NewFactor::SshAgent { key, signature: wire(signature) };
    add(session, &sheet, sources, label, new)
}

fn add_password(
    session: &mut Session,
    new: &NewPasswordOptions,
    options: &AddOptions,
) -> Result<(), Failure> {
    let sources = Sources::open(&options.proofs.password, &options.proofs.code)?;
    let new = PasswordSource::open(&new.source())?;
    let profile = session.profile()?;
    let sheet = session.call(&Factors { profile: profile.clone() })?;
    let present =
        Presenter::new(&profile, &sheet, session.messages).collect(sources, needed_to_add(&sheet))?;
    let password = new.new_one(&format!("New password for profile '{profile}': "), "The same again: ")?;
    let new = NewFactor::Password { password: wire(password) };
    let label = options.label.clone().unwrap_or_default();
    let call = AddFactor { profile, present, label, new };
    let id = session.call_within(&call, PASSWORD_DEADLINE)?;
    added(session, &call, id)
}

/// Adds a factor whose secret is there already.
fn add(
    session: &mut Session,
    sheet: &FactorSheet,
    sources: Sources,
    label: FactorLabel,
    new: NewFactor,
) -> Result<(), Failure> {
    let profile = session.profile()?;
    let present = Presenter::new(&profile, sheet, session.messages).collect(sources, needed_to_add(sheet))?;
    let call = AddFactor { profile, present, label, new };
    let id = session.call_within(&call, PASSWORD_DEADLINE)?;
    added(session, &call, id)
}

fn added(session: &mut Session, call: &AddFactor, id: u32) -> Result<(), Failure> {
    session.messages.note(format!("added factor {id} to profile '{}'", call.profile));
    let done = Done { profile: call.profile.as_str(), factor: Some(id), policy: None };
    session.output.object_if_wanted(&done)
}

fn remove(session: &mut Session, factor: u32, sources: Sources) -> Result<(), Failure> {
    let profile = session.profile()?;
    let sheet = session.call(&Factors { profile: profile.clone() })?;
    let presenter = Presenter::new(&profile, &sheet, session.messages);
    let needed = presenter.to_unlock();
    let present = presenter.collect(sources, needed)?;
    session.call_within(&RemoveFactor { profile: profile.clone(), present, factor }, PASSWORD_DEADLINE)?;
    session.messages.note(format!("removed factor {factor} of profile '{profile}'"));
    session.output.object_if_wanted(&Done { profile: profile.as_str(), factor: Some(factor), policy: None })
}

fn set_policy(session: &mut Session, policy: PolicyArgument, sources: Sources) -> Result<(), Failure> {
    let PolicyArgument(policy) = policy;
    let profile = session.profile()?;
    let sheet = session.call(&Factors { profile: profile.clone() })?;
    let number = sheet.factors.len();
    if policy.needed(number).is_none() {
        let factors = u8::try_from(number).unwrap_or(u8::MAX);
        return Err(core_types::protocol::secrets::SecretsDenial::PolicyImpossible { policy, factors }.into());
    }
    let present = Presenter::new(&profile, &sheet, session.messages).collect(sources, number)?;
    session.call_within(&SetPolicy { profile: profile.clone(), present, policy }, PASSWORD_DEADLINE)?;
    let policy = policy.shown(number);
    session.messages.note(format!("profile '{profile}' needs '{policy}' of its factors from now on"));
    session.output.object_if_wanted(&Done { profile: profile.as_str(), factor: None, policy: Some(policy) })
}

/// The key that `--key` means among those that the agent holds; without it, the only one that can unlock.
fn chosen(held: Vec<Identity>, wanted: Option<&str>) -> Result<Identity, Failure> {
    let from_file = wanted.map(Path::new).filter(|path| path.is_file()).map(public_key_of).transpose()?;
    let is_wanted = |identity: &Identity| match (&from_file, wanted) {
        (Some(key), _) => identity.public_key == *key,
        (None, Some(text)) => {
            identity.comment == text || Fingerprint(&identity.public_key).to_string() == text
        }
        (None, None) => AgentKeyKind::of(&identity.public_key).is_ok(),
    };
    let mut found: Vec<Identity> = held.into_iter().filter(is_wanted).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::NoSuchKey { asked: wanted.is_some() }),
        _ => Err(Failure::SeveralKeys {
            keys: found
                .iter()
                .map(|key| format!("{} {}", Fingerprint(&key.public_key), shown(&key.comment)))
                .collect(),
        }),
    }
}

/// The key in a public key file of ssh-keygen: its kind, itself in Base64, and a comment.
fn public_key_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = Source::file(path)?.read(4 * AGENT_KEY_BYTES_MAX)?;
    let key = std::str::from_utf8(&text).ok().and_then(|text| text.split_ascii_whitespace().nth(1));
    let key = key.and_then(|key| Base64::decode_vec(key).ok());
    key.ok_or_else(|| Failure::NotAPublicKey { path: path.to_owned() })
}

/// The kinds that there are of a profile's factors.
pub(super) fn has(sheet: &FactorSheet, kind: FactorKind) -> bool {
    sheet.factors.iter().any(|factor| factor.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: &str, byte: u8) -> Vec<u8> {
        let mut key = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
        key.extend_from_slice(kind.as_bytes());
        key.extend_from_slice(&[0, 0, 0, 32]);
        key.extend_from_slice(&[byte; 32]);
        key
    }

    fn identity(kind: &str, byte: u8, comment: &str) -> Identity {
        Identity { public_key: key(kind, byte), comment: comment.to_owned() }
    }

    #[test]
    fn a_key_is_chosen_by_fingerprint_comment_or_file_or_because_it_is_the_only_one() {
        let (one, other) = (identity("ssh-ed25519", 1, "one"), identity("ssh-ed25519", 2, "other"));
        let sk = identity("sk-ssh-ed25519@openssh.com", 3, "token");
        let held = || vec![one.clone(), other.clone(), sk.clone()];
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id.pub");
        let line = format!("ssh-ed25519 {} me@here\n", Base64::encode_string(&other.public_key));
        std::fs::write(&file, line).unwrap();
        let fingerprint = Fingerprint(&one.public_key).to_string();
        assert_eq!(chosen(held(), Some(&fingerprint)).unwrap(), one);
        assert_eq!(chosen(held(), Some("other")).unwrap(), other);
        assert_eq!(chosen(held(), Some(file.to_str().unwrap())).unwrap(), other);
        assert_eq!(chosen(held(), Some("token")).unwrap(), sk, "why it cannot unlock is told later");
        assert_eq!(chosen(vec![one.clone(), sk.clone()], None).unwrap(), one);
        let several = chosen(held(), None).unwrap_err();
        assert!(matches!(several, Failure::SeveralKeys { keys } if keys.len() == 2));
        assert!(matches!(chosen(held(), Some("none")), Err(Failure::NoSuchKey { asked: true })));
        assert!(matches!(chosen(vec![sk.clone()], None), Err(Failure::NoSuchKey { asked: false })));
        std::fs::write(&file, "no key").unwrap();
        assert!(matches!(chosen(held(), file.to_str()), Err(Failure::NotAPublicKey { .. })));
    }

    #[test]
    fn a_factor_is_shown_on_one_line() {
        let entry = FactorEntry {
            id: 2,
            kind: FactorKind::SshAgent,
            label: FactorLabel::of("me@here"),
            created_unix_ms: 0,
            agent: Some(AgentKey { public_key: Vec::new(), nonce: [0; 32] }),
        };
        assert_eq!(
            Shown::from(&entry).line(),
            "  2  ssh-agent  1970-01-01T00:00:00Z  SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU  me@here"
        );
        let plain = FactorEntry {
            id: 1,
            kind: FactorKind::Password,
            label: FactorLabel::default(),
            agent: None,
            ..entry
        };
        assert_eq!(Shown::from(&plain).line(), "  1  password   1970-01-01T00:00:00Z");
    }
}
