//! Which names a batch means, out of those that are there. Pure.

use std::collections::BTreeSet;

use core_types::name::SecretName;
use core_types::protocol::secrets::{Gate, SecretsDenial, Selection};

use crate::crud::Refusal;

/// The names that `selection` means among `names`, in order, each once.
///
/// A pattern without `*` must be there and be readable, one with `*` must match something readable; else nothing is
/// selected, and whose fault it is is told as the gate would tell it.
pub(crate) fn select(
    selection: &Selection,
    names: &[SecretName],
    may_read: impl Fn(&SecretName) -> bool,
) -> Result<Vec<SecretName>, Refusal> {
    let Selection::Only(patterns) = selection else {
        return Ok(names.iter().filter(|name| may_read(name)).cloned().collect());
    };
    let mut selected = BTreeSet::new();
    for pattern in patterns {
        let missing = || Refusal {
            gate: Gate::Vault,
            denial: SecretsDenial::NoSuchSecret(pattern.as_str().to_owned()),
        };
        if pattern.is_wild() {
            let before = names.iter().filter(|name| pattern.matches(name) && may_read(name));
            let matching: Vec<&SecretName> = before.collect();
            if matching.is_empty() {
                return Err(missing());
            }
            selected.extend(matching);
        } else {
            let name = SecretName::parse(pattern.as_str())
                .map_err(|error| Refusal { gate: Gate::Name, denial: SecretsDenial::InvalidName(error) })?;
            if !may_read(&name) {
                return Err(Refusal {
                    gate: Gate::AccessRule,
                    denial: SecretsDenial::ForbiddenName(name.to_string()),
                });
            }
            let found = names.binary_search(&name).map_err(|_| missing())?;
            selected.insert(&names[found]);
        }
    }
    Ok(selected.into_iter().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::name::NameError;
    use core_types::pattern::Pattern;

    /// What is selected of `a`, `db/user`, `db/word` and `hidden`, the last of which may not be read.
    fn check(patterns: Option<&[&str]>, expected: Result<&str, (Gate, SecretsDenial)>) {
        let names = ["a", "db/user", "db/word", "hidden"].map(|name| SecretName::parse(name).unwrap());
        let selection = match patterns {
            None => Selection::All,
            Some(patterns) => {
                Selection::Only(patterns.iter().map(|text| Pattern::parse(*text).unwrap()).collect())
            }
        };
        let found = select(&selection, &names, |name| name.as_str() != "hidden")
            .map(|names| names.iter().map(SecretName::as_str).collect::<Vec<_>>().join(" "))
            .map_err(|refusal| (refusal.gate, refusal.denial));
        assert_eq!(found, expected.map(str::to_owned), "{patterns:?}");
    }

    fn missing(text: &str) -> Result<&'static str, (Gate, SecretsDenial)> {
        Err((Gate::Vault, SecretsDenial::NoSuchSecret(text.to_owned())))
    }

    #[test]
    fn a_selection_is_exactly_what_it_says_or_an_error() {
        check(None, Ok("a db/user db/word"));
        check(Some(&[]), Ok(""));
        check(Some(&["*"]), Ok("a db/user db/word"));
        check(Some(&["db/word", "a", "db/*"]), Ok("a db/user db/word"));
        check(Some(&["a", "none"]), missing("none"));
        check(Some(&["a", "none/*"]), missing("none/*"));
        check(Some(&["hid*"]), missing("hid*"));
        let forbidden = SecretsDenial::ForbiddenName("hidden".to_owned());
        check(Some(&["a", "hidden"]), Err((Gate::AccessRule, forbidden)));
        check(Some(&["a//b"]), Err((Gate::Name, SecretsDenial::InvalidName(NameError::Slash))));
    }
}
