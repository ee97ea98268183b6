//! The references in a caller's environment: which variables have one, what has to be read for them, and which of them
//! is to blame when that cannot be read. Decides; does nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::SELECTION_MAX;
use crate::protocol::launcher::{LauncherDenial, OsBytes};
use crate::protocol::secrets::{GetBatch, NamedSecret, SecretsDenial, Selection};
use crate::reference::SecretReference;
use crate::{ProfileName, SecretName, WireSecret};

use super::batches::exact;
use super::environment::split;

/// A variable whose value is a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referral {
    /// The variable.
    pub variable: String,
    /// What it refers to.
    pub reference: SecretReference,
}

/// A variable whose reference has been followed.
#[derive(Debug)]
pub struct Resolved {
    /// The variable and what it refers to.
    pub referral: Referral,
    /// The secret.
    pub value: WireSecret,
}

/// All references in an environment, in its order.
///
/// # Errors
/// A value that begins as a reference is none, its variable is not text, or there are more than a batch may have.
pub fn find(environment: &[OsBytes]) -> Result<Vec<Referral>, LauncherDenial> {
    let mut found = Vec::new();
    for pair in environment {
        let (variable, value) = split(pair.expose());
        if !SecretReference::is_meant_by(value) {
            continue;
        }
        let Ok(variable) = str::from_utf8(variable) else {
            return Err(LauncherDenial::InvalidVariable(String::from_utf8_lossy(variable).into_owned()));
        };
        let variable = variable.to_owned();
        let reference = SecretReference::parse(&String::from_utf8_lossy(value)).map_err(|error| {
            let text = SecretReference::beginning_of(value);
            LauncherDenial::MalformedReference { variable: variable.clone(), text, error }
        })?;
        found.push(Referral { variable, reference });
    }
    match found.len() {
        count if count > SELECTION_MAX => {
            Err(LauncherDenial::Invalid(format!("{count} references, at most {SELECTION_MAX}")))
        }
        _ => Ok(found),
    }
}

/// What has to be read for them: one batch for each profile.
#[must_use]
pub fn batches(referrals: &[Referral]) -> Vec<GetBatch> {
    let mut wanted: BTreeMap<&ProfileName, BTreeSet<&SecretName>> = BTreeMap::new();
    for SecretReference { profile, name } in referrals.iter().map(|referral| &referral.reference) {
        wanted.entry(profile).or_default().insert(name);
    }
    let batch = |(profile, names): (&ProfileName, BTreeSet<&SecretName>)| GetBatch {
        program: None,
        profile: profile.clone(),
        selection: Selection::Only(names.into_iter().filter_map(exact).collect()),
    };
    wanted.into_iter().map(batch).collect()
}

/// Puts the secrets of the batches to the variables that refer to them.
///
/// # Errors
/// A batch did not give what was asked for.
pub fn resolve(
    referrals: Vec<Referral>,
    read: Vec<(ProfileName, Vec<NamedSecret>)>,
) -> Result<Vec<Resolved>, LauncherDenial> {
    let secrets: BTreeMap<SecretReference, WireSecret> = read
        .into_iter()
        .flat_map(|(profile, secrets)| {
            let place = move |name| SecretReference { profile: profile.clone(), name };
            secrets.into_iter().map(move |NamedSecret { name, value }| (place(name), value))
        })
        .collect();
    let resolved = |referral: Referral| match secrets.get(&referral.reference) {
        Some(value) => Ok(Resolved { value: value.clone(), referral }),
        None => {
            let denial = Box::new(SecretsDenial::NoSuchSecret(referral.reference.name.to_string()));
            let Referral { variable, reference } = referral;
            Err(LauncherDenial::UnresolvedReference { variable, reference, denial })
        }
    };
    referrals.into_iter().map(resolved).collect()
}

/// The refusal of a run because one of these batches was denied: it names the variable that is to blame.
#[must_use]
pub fn refusal(referrals: &[Referral], batch: &GetBatch, denial: SecretsDenial) -> LauncherDenial {
    use SecretsDenial::{Expired, ForbiddenName, NoSuchSecret};
    let denied = match &denial {
        NoSuchSecret(name) | ForbiddenName(name) | Expired { name, .. } => Some(name.as_str()),
        _ => None,
    };
    let is_to_blame = |referral: &&Referral| {
        let SecretReference { profile, name } = &referral.reference;
        *profile == batch.profile && denied.is_none_or(|denied| denied == name.as_str())
    };
    match referrals.iter().find(is_to_blame) {
        Some(Referral { variable, reference }) => LauncherDenial::UnresolvedReference {
            variable: variable.clone(),
            reference: reference.clone(),
            denial: Box::new(denial),
        },
        None => LauncherDenial::Secrets(denial),
    }
}

#[cfg(test)]
mod tests {
    use super::super::environment::{FIRST_DESCRIPTOR, environment as child_environment};
    use super::*;
    use crate::pattern::Pattern;
    use crate::protocol::launcher::Run;

    fn environment(pairs: &[&[u8]]) -> Vec<OsBytes> {
        pairs.iter().map(|pair| WireSecret::new(pair.to_vec())).collect()
    }

    fn referrals(pairs: &[&[u8]]) -> Vec<Referral> {
        find(&environment(pairs)).unwrap()
    }

    #[test]
    fn only_a_value_that_is_a_reference_as_a_whole_is_one() {
        let found = referrals(&[
            b"A=pds://work/a",
            b"B=see pds://work/a",
            b"C=PDS://work/a",
            b"D=",
            b"pds://work/a",
            b"E=a=pds://work/a",
            b"F=pds://home/x/y",
        ]);
        let shown: Vec<_> = found.iter().map(|one| format!("{} {}", one.variable, one.reference)).collect();
        assert_eq!(shown, ["A pds://work/a", "F pds://home/x/y"]);
    }

    #[test]
    fn a_malformed_one_is_named_with_its_variable_and_without_what_follows() {
        let denial = find(&environment(&[b"OK=pds://work/a", b"DSN=pds://me:hunter2@host/db"])).unwrap_err();
        let text = denial.to_string();
        assert!(text.contains("DSN") && text.contains("pds://me...") && !text.contains("hunter2"), "{text}");
        for bad in [&b"X=pds://work/\xff"[..], b"X=pds://work", b"X=pds://work/a\r", b"X=pds://"] {
            let denial = find(&environment(&[bad])).unwrap_err();
            assert!(matches!(denial, LauncherDenial::MalformedReference { .. }), "{bad:?}");
        }
        let denial = find(&environment(&[b"\xff=pds://work/a"])).unwrap_err();
        assert!(matches!(denial, LauncherDenial::InvalidVariable(_)));
    }

    #[test]
    fn each_profile_is_asked_once_for_all_names_of_it() {
        let found = referrals(&[b"A=pds://work/b", b"B=pds://home/x", b"C=pds://work/a", b"D=pds://work/b"]);
        let shown: Vec<_> = batches(&found)
            .iter()
            .map(|batch| match &batch.selection {
                Selection::All => panic!("all of {}", batch.profile),
                Selection::Only(names) => {
                    let names: Vec<_> = names.iter().map(Pattern::as_str).collect();
                    format!("{}: {}", batch.profile, names.join(","))
                }
            })
            .collect();
        assert_eq!(shown, ["home: x", "work: a,b"]);
    }

    #[test]
    fn each_variable_gets_the_secret_of_its_own_profile() {
        let found = referrals(&[b"A=pds://work/a", b"B=pds://home/a", b"C=pds://work/a"]);
        let read = |profile: &str, value: &[u8]| {
            let name = SecretName::parse("a").unwrap();
            let value = WireSecret::new(value.to_vec());
            (ProfileName::parse(profile).unwrap(), vec![NamedSecret { name, value }])
        };
        let resolved = resolve(found.clone(), vec![read("home", b"h"), read("work", b"w")]).unwrap();
        let values: Vec<_> = resolved.iter().map(|one| one.value.expose()).collect();
        assert_eq!(values, [b"w", b"h", b"w"]);
        let missing = resolve(found, vec![read("work", b"w")]).unwrap_err();
        assert!(matches!(missing, LauncherDenial::UnresolvedReference { variable, .. } if variable == "B"));
    }

    fn child(
        pairs: &[&[u8]],
        selected: &[(&str, &[u8])],
        referred: &[Resolved],
    ) -> Result<Vec<String>, LauncherDenial> {
        let run = Run { environment: environment(pairs), ..Run::default() };
        let secrets: Vec<NamedSecret> = selected
            .iter()
            .map(|(name, value)| NamedSecret {
                name: SecretName::parse(*name).unwrap(),
                value: WireSecret::new(value.to_vec()),
            })
            .collect();
        let made = child_environment(&run, &secrets, referred, FIRST_DESCRIPTOR..)?;
        Ok(made.iter().map(|pair| String::from_utf8(pair.expose().to_vec()).unwrap()).collect())
    }

    fn resolved(variable: &str, reference: &str, value: &[u8]) -> Resolved {
        let reference = SecretReference::parse(reference).unwrap();
        let referral = Referral { variable: variable.to_owned(), reference };
        Resolved { referral, value: WireSecret::new(value.to_vec()) }
    }

    #[test]
    fn a_reference_is_replaced_by_its_secret_and_by_the_rules_of_any_other() {
        let pairs: [&[u8]; 3] = [b"A=pds://home/a", b"PATH=/bin", b"PATH2=pds://home/a"];
        let referred = [resolved("A", "pds://home/a", b"v"), resolved("PATH2", "pds://home/a", b"v")];
        let made = child(&pairs, &[("b", b"w")], &referred).unwrap();
        assert_eq!(made, ["PATH=/bin", "A=v", "B=w", "PATH2=v"]);
        let denied = |variable: &str, value: &[u8]| {
            child(&pairs, &[], &[resolved(variable, "pds://home/a", value)]).unwrap_err()
        };
        assert!(matches!(denied("LD_PRELOAD", b"x"), LauncherDenial::ForbiddenVariable { .. }));
        assert_eq!(denied("A", b"x\0"), LauncherDenial::NulByte("a".to_owned()));
        assert!(matches!(denied("A", &vec![b'x'; 200_000]), LauncherDenial::ValueTooLong { .. }));
    }

    #[test]
    fn a_reference_and_another_secret_on_one_variable_are_named_unless_they_are_the_same() {
        let pairs: [&[u8]; 1] = [b"API_KEY=pds://home/api-key"];
        let referred = [resolved("API_KEY", "pds://home/api-key", b"home's")];
        let denial = child(&pairs, &[("api-key", b"work's")], &referred).unwrap_err();
        assert_eq!(
            denial,
            LauncherDenial::Collision {
                variable: "API_KEY".to_owned(),
                first: "api-key".to_owned(),
                second: "pds://home/api-key".to_owned()
            }
        );
        assert!(child(&pairs, &[("api-key", b"home's")], &referred).is_ok());
    }

    #[test]
    fn the_variable_to_blame_is_the_one_of_the_name_or_else_the_first_of_the_profile() {
        let found = referrals(&[b"A=pds://home/x", b"B=pds://work/a", b"C=pds://work/b"]);
        let batches = batches(&found);
        let blamed = |batch: usize, denial| match refusal(&found, &batches[batch], denial) {
            LauncherDenial::UnresolvedReference { variable, .. } => variable,
            other => panic!("{other}"),
        };
        assert_eq!(blamed(1, SecretsDenial::NoSuchSecret("b".to_owned())), "C");
        assert_eq!(blamed(1, SecretsDenial::ForbiddenName("b".to_owned())), "C");
        assert_eq!(blamed(1, SecretsDenial::Expired { name: "b".to_owned(), since_unix_ms: 1 }), "C");
        let locked = SecretsDenial::ProfileNotActive(found[1].reference.profile.clone());
        assert_eq!(blamed(1, locked), "B");
        assert_eq!(blamed(0, SecretsDenial::Locked), "A");
    }
}
