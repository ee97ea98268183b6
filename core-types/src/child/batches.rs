//! Which secrets a run reads from which profile. Decides; does nothing.
//!
//! With one profile `daemon-secrets` does the selecting. With several, the first that has a name wins, so their
//! names are listed first and each secret is then read from the one profile it comes from, and from no other.

use std::collections::BTreeSet;

use crate::limits::SELECTION_MAX;
use crate::pattern::Pattern;
use crate::protocol::launcher::{LauncherDenial, Run};
use crate::protocol::secrets::{GetBatch, SecretsDenial, Selection};
use crate::{ProfileName, SecretName};

use super::environment::selects;

/// The one batch of a run with one profile.
#[must_use]
pub fn single(profile: &ProfileName, run: &Run) -> GetBatch {
    let selection = match &run.selection {
        Selection::All => Selection::All,
        Selection::Only(patterns) => {
            let named = run.named().filter_map(exact);
            Selection::Only(patterns.iter().cloned().chain(named).collect())
        }
    };
    GetBatch { profile: profile.clone(), selection, program: None }
}

/// The batches of a run with several profiles, given the names in each, in the order of the request.
///
/// # Errors
/// A name or pattern that no profile has anything for, or more names than a batch may have.
pub fn divided(
    listings: &[(ProfileName, Vec<SecretName>)],
    run: &Run,
) -> Result<Vec<GetBatch>, LauncherDenial> {
    if let Some(absent) = unmatched(listings, run) {
        return Err(LauncherDenial::Secrets(SecretsDenial::NoSuchSecret(absent)));
    }
    let named = |name: &SecretName| run.named().any(|wanted| wanted == name);
    let mut taken = BTreeSet::new();
    let mut batches = Vec::new();
    for (profile, names) in listings {
        let wanted = names.iter().filter(|name| selects(&run.selection, name) || named(name));
        let won: Vec<Pattern> = wanted.filter(|name| taken.insert(*name)).filter_map(exact).collect();
        if !won.is_empty() {
            batches.push(GetBatch {
                profile: profile.clone(),
                selection: Selection::Only(won),
                program: None,
            });
        }
    }
    if taken.len() > SELECTION_MAX {
        return Err(LauncherDenial::Invalid(format!("{} secrets, at most {SELECTION_MAX}", taken.len())));
    }
    Ok(batches)
}

/// The first name or pattern of the request that no profile has anything for.
fn unmatched(listings: &[(ProfileName, Vec<SecretName>)], run: &Run) -> Option<String> {
    let found =
        |wanted: &dyn Fn(&SecretName) -> bool| listings.iter().any(|(_, names)| names.iter().any(wanted));
    if let Selection::Only(patterns) = &run.selection
        && let Some(pattern) = patterns.iter().find(|pattern| !found(&|name| pattern.matches(name)))
    {
        return Some(pattern.as_str().to_owned());
    }
    run.named().find(|wanted| !found(&|name| name == *wanted)).map(ToString::to_string)
}

/// The pattern that matches just this name; every secret name is one.
pub(crate) fn exact(name: &SecretName) -> Option<Pattern> {
    Pattern::parse(name.as_str()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::launcher::Mapping;

    fn run(only: Option<&[&str]>, mapped: &[&str]) -> Run {
        Run {
            selection: only.map_or(Selection::All, |patterns| {
                Selection::Only(patterns.iter().map(|text| Pattern::parse(*text).unwrap()).collect())
            }),
            mappings: mapped
                .iter()
                .map(|name| Mapping { variable: "X".to_owned(), name: SecretName::parse(*name).unwrap() })
                .collect(),
            ..Run::default()
        }
    }

    fn listing(profile: &str, names: &[&str]) -> (ProfileName, Vec<SecretName>) {
        let names = names.iter().map(|name| SecretName::parse(*name).unwrap()).collect();
        (ProfileName::parse(profile).unwrap(), names)
    }

    fn shown(batches: &[GetBatch]) -> Vec<String> {
        let names = |selection: &Selection| match selection {
            Selection::All => "*".to_owned(),
            Selection::Only(patterns) => patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(","),
        };
        batches.iter().map(|batch| format!("{}: {}", batch.profile, names(&batch.selection))).collect()
    }

    #[test]
    fn one_profile_is_asked_for_the_selection_and_the_mapped_names() {
        let profile = ProfileName::parse("a").unwrap();
        assert_eq!(shown(&[single(&profile, &run(None, &["m"]))]), ["a: *"]);
        assert_eq!(shown(&[single(&profile, &run(Some(&["x/*"]), &["m"]))]), ["a: x/*,m"]);
    }

    #[test]
    fn the_first_profile_that_has_a_name_is_the_only_one_asked_for_it() {
        let listings = [listing("a", &["k", "x/1"]), listing("b", &["k", "x/2", "z"]), listing("c", &["k"])];
        assert_eq!(shown(&divided(&listings, &run(None, &[])).unwrap()), ["a: k,x/1", "b: x/2,z"]);
        assert_eq!(shown(&divided(&listings, &run(Some(&["x/*"]), &["z"])).unwrap()), ["a: x/1", "b: x/2,z"]);
    }

    #[test]
    fn what_no_profile_has_stops_the_run() {
        let listings = [listing("a", &["k"]), listing("b", &["z"])];
        for (only, mapped, absent) in
            [(Some(&["q"][..]), &[][..], "q"), (Some(&["k", "x/*"]), &[], "x/*"), (None, &["m"], "m")]
        {
            let denial = divided(&listings, &run(only, mapped)).unwrap_err();
            assert_eq!(denial, LauncherDenial::Secrets(SecretsDenial::NoSuchSecret(absent.to_owned())));
        }
    }
}
