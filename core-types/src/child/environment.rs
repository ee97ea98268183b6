//! The child's environment: the caller's, with the secrets put into it. Decides; does nothing.

use std::collections::BTreeMap;

use crate::env_name::{forbidden, is_variable_name, variable_name};
use crate::limits::ENVIRONMENT_STRING_BYTES_MAX;
use crate::protocol::launcher::{LauncherDenial, OsBytes, Run};
use crate::protocol::secrets::{NamedSecret, SecretsDenial, Selection};
use crate::{SecretName, WireSecret};

use super::references::Resolved;

/// The variable that tells the child which profile it runs with: the first of the request.
const PROFILE_VARIABLE: &str = "PDS_PROFILE";

/// Number of the first descriptor with a secret, where nothing else decides: the one after the standard streams.
pub const FIRST_DESCRIPTOR: u32 = 3;

/// What a variable is made of.
#[derive(Debug, Clone, Copy)]
enum Content<'a> {
    /// The value itself.
    Value(&'a NamedSecret),
    /// The number of the descriptor from which the value can be read.
    Descriptor(&'a NamedSecret, u32),
    /// The value that the variable of the caller's refers to.
    Referred(&'a Resolved),
}

impl<'a> Content<'a> {
    fn name(self) -> &'a SecretName {
        match self {
            Self::Value(secret) | Self::Descriptor(secret, _) => &secret.name,
            Self::Referred(resolved) => &resolved.referral.reference.name,
        }
    }

    /// The secret as messages name it.
    fn shown(self) -> String {
        match self {
            Self::Referred(resolved) => resolved.referral.reference.to_string(),
            other => other.name().to_string(),
        }
    }

    /// The value, where that is what the variable holds.
    fn value(self) -> Option<&'a [u8]> {
        match self {
            Self::Value(secret) => Some(secret.value.expose()),
            Self::Referred(resolved) => Some(resolved.value.expose()),
            Self::Descriptor(..) => None,
        }
    }

    /// Whether it makes no difference which of the two becomes a variable. Profiles cannot tell, because which of several
    /// a selected secret is from is not known here; values can.
    fn is_same(self, other: Self) -> bool {
        let same_value = self.value().is_some_and(|value| other.value() == Some(value));
        self.name() == other.name() && same_value
    }

    fn entry(self, variable: &str) -> OsBytes {
        match self {
            Self::Descriptor(_, number) => entry(variable, number.to_string().as_bytes()),
            other => entry(variable, other.value().unwrap_or_default()),
        }
    }
}

/// Makes the child's environment, as `NAME=value`, from a request, the secrets selected for it, and those that its
/// variables refer to. The secrets that the child gets as descriptors have these numbers, in the order of the request.
///
/// A secret takes the place of a variable of the caller's that has the same name. `secrets` holds no name twice.
///
/// # Errors
/// A secret cannot become the variable it would become, or a named one is not among `secrets`.
pub fn environment(
    run: &Run,
    secrets: &[NamedSecret],
    resolved: &[Resolved],
    numbers: impl IntoIterator<Item = u32>,
) -> Result<Vec<OsBytes>, LauncherDenial> {
    let assigned = assign(run, secrets, resolved, numbers)?;
    for (variable, content) in &assigned {
        check(variable, *content)?;
    }
    let profile = run.profiles.first().map(|profile| entry(PROFILE_VARIABLE, profile.as_str().as_bytes()));
    let replaced = |name: &[u8]| {
        name == PROFILE_VARIABLE.as_bytes()
            || std::str::from_utf8(name).is_ok_and(|name| assigned.contains_key(name))
    };
    let inherited = run.environment.iter().filter(|pair| !replaced(name_of(pair.expose()))).cloned();
    let added = assigned.iter().map(|(variable, content)| content.entry(variable));
    Ok(inherited.chain(added).chain(profile).collect())
}

/// The variables that secrets or the numbers of their descriptors become, each with its secret, in order; for the record
/// of a run.
#[must_use]
pub fn given(run: &Run, secrets: &[NamedSecret], resolved: &[Resolved]) -> Vec<(String, SecretName)> {
    let assigned = assign(run, secrets, resolved, FIRST_DESCRIPTOR..).unwrap_or_default();
    assigned.into_iter().map(|(variable, content)| (variable, content.name().clone())).collect()
}

/// Finds the secret that a request names.
///
/// # Errors
/// It is not among those that were fetched.
pub fn find<'a>(secrets: &'a [NamedSecret], name: &SecretName) -> Result<&'a NamedSecret, LauncherDenial> {
    secrets
        .iter()
        .find(|secret| secret.name == *name)
        .ok_or_else(|| LauncherDenial::Secrets(SecretsDenial::NoSuchSecret(name.to_string())))
}

/// Says which secret becomes which variable.
fn assign<'a>(
    run: &Run,
    secrets: &'a [NamedSecret],
    resolved: &'a [Resolved],
    numbers: impl IntoIterator<Item = u32>,
) -> Result<BTreeMap<String, Content<'a>>, LauncherDenial> {
    if !run.prefix.is_empty() && !is_variable_name(&run.prefix) {
        return Err(LauncherDenial::InvalidVariable(run.prefix.clone()));
    }
    let mut assigned = BTreeMap::new();
    let are_files = run.handed.files.is_some();
    for secret in secrets.iter().filter(|secret| !are_files && is_wanted(run, &secret.name)) {
        add(&mut assigned, variable_name(&run.prefix, &secret.name), Content::Value(secret))?;
    }
    for mapping in &run.mappings {
        if !is_variable_name(&mapping.variable) {
            return Err(LauncherDenial::InvalidVariable(mapping.variable.clone()));
        }
        let secret = find(secrets, &mapping.name)?;
        add(&mut assigned, mapping.variable.clone(), Content::Value(secret))?;
    }
    for (name, number) in run.handed.descriptors.iter().zip(numbers) {
        let secret = find(secrets, name)?;
        let variable = descriptor_variable(&run.prefix, name);
        add(&mut assigned, variable, Content::Descriptor(secret, number))?;
    }
    for resolved in resolved {
        add(&mut assigned, resolved.referral.variable.clone(), Content::Referred(resolved))?;
    }
    Ok(assigned)
}

/// Adds a variable; the same secret may become it twice, as long as it becomes the same.
fn add<'a>(
    assigned: &mut BTreeMap<String, Content<'a>>,
    variable: String,
    content: Content<'a>,
) -> Result<(), LauncherDenial> {
    match assigned.get(&variable) {
        Some(other) if !other.is_same(content) => {
            Err(LauncherDenial::Collision { variable, first: other.shown(), second: content.shown() })
        }
        _ => {
            assigned.insert(variable, content);
            Ok(())
        }
    }
}

/// The variable with the number of the descriptor of a secret: the one that the secret would become, and `_FD`.
fn descriptor_variable(prefix: &str, name: &SecretName) -> String {
    variable_name(prefix, name) + "_FD"
}

/// Whether a secret becomes a variable, or a file, by its own name. One that the child gets otherwise does only if it is selected by
/// its name or a pattern, and not because all are.
pub(super) fn is_wanted(run: &Run, name: &SecretName) -> bool {
    match run.selection {
        Selection::All => !run.handed.names().any(|handed| handed == name),
        Selection::Only(_) => selects(&run.selection, name),
    }
}

/// Whether a selection wants a secret under its own name.
pub(crate) fn selects(selection: &Selection, name: &SecretName) -> bool {
    match selection {
        Selection::All => true,
        Selection::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
    }
}

fn check(variable: &str, content: Content<'_>) -> Result<(), LauncherDenial> {
    let name = content.name().to_string();
    if let Some(class) = forbidden(variable) {
        let (variable, reason) = (variable.to_owned(), class.reason.to_owned());
        return Err(LauncherDenial::ForbiddenVariable { variable, name, reason });
    }
    let Some(value) = content.value() else { return Ok(()) };
    if value.contains(&0) {
        return Err(LauncherDenial::NulByte(name));
    }
    let bytes = variable.len() + "=".len() + value.len() + "\0".len();
    if bytes > ENVIRONMENT_STRING_BYTES_MAX {
        let limit = ENVIRONMENT_STRING_BYTES_MAX as u64;
        return Err(LauncherDenial::ValueTooLong { name, bytes: bytes as u64, limit });
    }
    Ok(())
}

/// An environment with one more variable, which takes the place of the caller's.
#[must_use]
pub fn with_variable(environment: Vec<OsBytes>, variable: &str, value: &[u8]) -> Vec<OsBytes> {
    let kept = environment.into_iter().filter(|pair| name_of(pair.expose()) != variable.as_bytes());
    kept.chain([entry(variable, value)]).collect()
}

/// Splits a string of an environment into the variable's name and its value, which is empty where there is no `=`. The
/// first byte belongs to the name even if it is one, as it does in the C library.
#[must_use]
pub fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    let end = pair.iter().skip(1).position(|byte| *byte == b'=').map_or(pair.len(), |position| position + 1);
    (&pair[..end], pair.get(end + 1..).unwrap_or_default())
}

fn name_of(pair: &[u8]) -> &[u8] {
    split(pair).0
}

/// One string of an environment, in a buffer of just its size: a grown one leaves pieces of the value behind.
fn entry(variable: &str, value: &[u8]) -> OsBytes {
    let mut text = Vec::with_capacity(variable.len() + 1 + value.len());
    text.extend_from_slice(variable.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value);
    WireSecret::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProfileName;
    use crate::pattern::Pattern;
    use crate::protocol::launcher::{Handed, Mapping};
    use proptest::prelude::*;

    #[test]
    fn a_variable_is_split_at_the_first_equals_sign_after_its_first_byte() {
        for (pair, name, value) in [
            ("A=b=c", "A", "b=c"),
            ("A=", "A", ""),
            ("A", "A", ""),
            ("=A=b", "=A", "b"),
            ("=", "=", ""),
            ("", "", ""),
        ] {
            assert_eq!(split(pair.as_bytes()), (name.as_bytes(), value.as_bytes()), "{pair}");
        }
    }

    /// As it is where the launcher starts the child.
    fn environment(run: &Run, secrets: &[NamedSecret]) -> Result<Vec<OsBytes>, LauncherDenial> {
        super::environment(run, secrets, &[], FIRST_DESCRIPTOR..)
    }

    fn named(name: &str, value: &[u8]) -> NamedSecret {
        NamedSecret { name: SecretName::parse(name).unwrap(), value: WireSecret::new(value.to_vec()) }
    }

    fn run(environment: &[&str]) -> Run {
        Run {
            profiles: vec![ProfileName::parse("work").unwrap(), ProfileName::parse("home").unwrap()],
            environment: environment.iter().map(|pair| WireSecret::new(pair.as_bytes().to_vec())).collect(),
            ..Run::default()
        }
    }

    fn handed(descriptors: Vec<SecretName>) -> Box<Handed> {
        Box::new(Handed { descriptors, ..Handed::default() })
    }

    fn mapping(variable: &str, name: &str) -> Mapping {
        Mapping { variable: variable.to_owned(), name: SecretName::parse(name).unwrap() }
    }

    fn texts(environment: &[OsBytes]) -> Vec<&str> {
        environment.iter().map(|pair| std::str::from_utf8(pair.expose()).unwrap()).collect()
    }

    #[test]
    fn secrets_join_the_callers_environment_and_win_over_it() {
        let request = run(&["PATH=/bin", "API_KEY=old", "PDS_PROFILE=other", "EMPTY="]);
        let made = environment(&request, &[named("api-key", b"new"), named("db/pass", b"a=b")]).unwrap();
        assert_eq!(texts(&made), ["PATH=/bin", "EMPTY=", "API_KEY=new", "DB_PASS=a=b", "PDS_PROFILE=work"]);
    }

    #[test]
    fn a_mapping_adds_a_variable_and_a_mapped_secret_outside_the_selection_keeps_no_other() {
        let mut request = run(&[]);
        request.selection = Selection::Only(vec![Pattern::parse("api-*").unwrap()]);
        request.mappings = vec![mapping("PGPASSWORD", "db/pass"), mapping("KEY", "api-key")];
        let made = environment(&request, &[named("api-key", b"k"), named("db/pass", b"p")]).unwrap();
        assert_eq!(texts(&made), ["API_KEY=k", "KEY=k", "PGPASSWORD=p", "PDS_PROFILE=work"]);
        let missing = environment(&request, &[named("api-key", b"k")]).unwrap_err();
        assert_eq!(missing, LauncherDenial::Secrets(SecretsDenial::NoSuchSecret("db/pass".to_owned())));
    }

    #[test]
    fn a_record_tells_which_secret_became_which_variable() {
        let mut request = run(&[]);
        request.mappings = vec![mapping("KEY", "a/b")];
        let given = given(&request, &[named("a/b", b"x"), named("c", b"y")], &[]);
        let shown: Vec<_> = given.iter().map(|(variable, name)| format!("{variable}={name}")).collect();
        assert_eq!(shown, ["A_B=a/b", "C=c", "KEY=a/b"]);
    }

    #[test]
    fn a_secret_that_is_an_open_file_is_a_variable_only_if_the_selection_names_it() {
        let secrets = [named("a", b"x"), named("b/c", b"nul\0"), named("in", b"\0")];
        let mut request = run(&["B_C_FD=old"]);
        request.handed.descriptors = vec![SecretName::parse("b/c").unwrap(), SecretName::parse("a").unwrap()];
        request.handed.stdin = Some(SecretName::parse("in").unwrap());
        let made = environment(&request, &secrets).unwrap();
        assert_eq!(texts(&made), ["A_FD=4", "B_C_FD=3", "PDS_PROFILE=work"]);
        request.selection = Selection::Only(vec![Pattern::parse("a").unwrap()]);
        request.prefix = "P_".to_owned();
        let made = environment(&request, &secrets).unwrap();
        assert_eq!(texts(&made), ["B_C_FD=old", "P_A=x", "P_A_FD=4", "P_B_C_FD=3", "PDS_PROFILE=work"]);
        let missing = environment(&request, &secrets[..1]).unwrap_err();
        assert_eq!(missing, LauncherDenial::Secrets(SecretsDenial::NoSuchSecret("b/c".to_owned())));
    }

    #[test]
    fn the_variable_of_a_number_is_one_like_any_other() {
        let name = |name: &str| SecretName::parse(name).unwrap();
        for (descriptors, secrets) in [
            (vec![name("a")], vec![named("a", b"x"), named("a-fd", b"y")]),
            (vec![name("a"), name("A")], vec![named("a", b"x"), named("A", b"y")]),
            (vec![name("a"), name("a")], vec![named("a", b"x")]),
        ] {
            let denial = environment(&Run { handed: handed(descriptors), ..run(&[]) }, &secrets).unwrap_err();
            assert!(matches!(denial, LauncherDenial::Collision { variable, .. } if variable == "A_FD"));
        }
        let request = Run { handed: handed(vec![name("preload")]), prefix: "LD_".to_owned(), ..run(&[]) };
        let denial = environment(&request, &[named("preload", b"x")]).unwrap_err();
        assert!(matches!(denial, LauncherDenial::ForbiddenVariable { .. }));
    }

    #[test]
    fn two_secrets_on_one_variable_are_named() {
        let denial = environment(&run(&[]), &[named("api-key", b"1"), named("api.key", b"2")]).unwrap_err();
        assert_eq!(
            denial,
            LauncherDenial::Collision {
                variable: "API_KEY".to_owned(),
                first: "api-key".to_owned(),
                second: "api.key".to_owned()
            }
        );
        let mut request = run(&[]);
        request.mappings = vec![mapping("API_KEY", "other")];
        let denial = environment(&request, &[named("api-key", b"1"), named("other", b"1")]).unwrap_err();
        assert!(matches!(denial, LauncherDenial::Collision { .. }));
    }

    #[test]
    fn a_variable_that_steers_code_is_refused_however_it_is_made() {
        let forbidden = |denial| matches!(denial, LauncherDenial::ForbiddenVariable { .. });
        assert!(forbidden(environment(&run(&[]), &[named("ld-preload", b"x")]).unwrap_err()));
        let mut request = run(&[]);
        request.prefix = "LD_".to_owned();
        assert!(forbidden(environment(&request, &[named("preload", b"x")]).unwrap_err()));
        let mut request = run(&[]);
        request.mappings = vec![mapping("bash_env", "ok")];
        assert!(forbidden(environment(&request, &[named("ok", b"x")]).unwrap_err()));
    }

    #[test]
    fn a_prefix_or_mapping_that_is_no_variable_name_is_refused() {
        for bad in ["A=B", "A-", "9", "A\0"] {
            let mut request = run(&[]);
            request.prefix = bad.to_owned();
            assert_eq!(
                environment(&request, &[]).unwrap_err(),
                LauncherDenial::InvalidVariable(bad.to_owned())
            );
            let mut request = run(&[]);
            request.mappings = vec![mapping(bad, "ok")];
            let denial = environment(&request, &[named("ok", b"x")]).unwrap_err();
            assert_eq!(denial, LauncherDenial::InvalidVariable(bad.to_owned()));
        }
    }

    #[test]
    fn values_no_environment_can_hold_are_refused_and_the_longest_possible_is_not() {
        let denial = environment(&run(&[]), &[named("a", b"x\0y")]).unwrap_err();
        assert_eq!(denial, LauncherDenial::NulByte("a".to_owned()));
        let longest = vec![b'x'; ENVIRONMENT_STRING_BYTES_MAX - "A=\0".len()];
        assert!(environment(&run(&[]), &[named("a", &longest)]).is_ok());
        let denial = environment(&run(&[]), &[named("a", &[longest, vec![b'x']].concat())]).unwrap_err();
        assert_eq!(
            denial,
            LauncherDenial::ValueTooLong { name: "a".to_owned(), bytes: 131_073, limit: 131_072 }
        );
    }

    proptest! {
        #[test]
        fn every_variable_stands_once_and_every_selected_value_arrives_exactly(
            inherited in proptest::collection::btree_map("[A-Z_][A-Z0-9_]{0,6}", "[ -~]{0,8}", 0..8),
            values in proptest::collection::btree_map("[a-z0-9]{1,6}", proptest::collection::vec(1u8..=255, 0..20), 0..8),
        ) {
            let pairs: Vec<String> = inherited.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let request = run(&pairs.iter().map(String::as_str).collect::<Vec<_>>());
            let secrets: Vec<NamedSecret> = values.iter().map(|(name, value)| named(name, value)).collect();
            let made = match environment(&request, &secrets) {
                Err(LauncherDenial::ForbiddenVariable { variable, .. }) => {
                    prop_assert!(forbidden(&variable).is_some());
                    return Ok(());
                }
                made => made.unwrap(),
            };
            let mut names: Vec<&[u8]> = made.iter().map(|pair| name_of(pair.expose())).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            prop_assert_eq!(names.len(), count);
            for secret in &secrets {
                let expected = entry(&variable_name("", &secret.name), secret.value.expose());
                prop_assert!(made.iter().any(|pair| pair.expose() == expected.expose()));
            }
            for pair in pairs {
                let name = name_of(pair.as_bytes());
                let taken = secrets.iter().any(|secret| variable_name("", &secret.name).as_bytes() == name);
                prop_assert!(taken || made.iter().any(|kept| kept.expose() == pair.as_bytes()));
            }
        }
    }
}
