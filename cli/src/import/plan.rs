//! What becomes of each secret that was found: its name here, whether it is new, and what is done where it is not.

use std::collections::{BTreeMap, HashMap, HashSet};

use core_types::limits::VALUE_BYTES_MAX;
use core_types::protocol::import::Comparison;
use core_types::{Note, SecretName};
use zeroize::Zeroizing;

use super::names::{self, Mapped};
use super::{Found, ImportError};
use crate::args::Policy;

/// How a secret that was found stands to what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// There is none of its name.
    New,
    /// There is one with the same value.
    Same,
    /// There is one with another value.
    Changed,
    /// There is one whose value may not be read.
    Exists,
    /// One of the same name came before it.
    Duplicate,
    /// It cannot be stored.
    Invalid,
}

impl State {
    /// What it is called in output.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Same => "same",
            Self::Changed => "changed",
            Self::Exists => "exists",
            Self::Duplicate => "duplicate",
            Self::Invalid => "invalid",
        }
    }
}

/// What is done with a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It is stored under its name.
    Store,
    /// It becomes the next version of what there is.
    Replace,
    /// It is stored under this other name.
    Rename(String),
    /// It is in the vault without that.
    Nothing,
    /// It is left out.
    Skip,
    /// It stands in the way of the whole import.
    Refuse,
}

impl Deed {
    /// What it is called in output.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Replace => "replace",
            Self::Rename(_) => "rename",
            Self::Nothing => "nothing",
            Self::Skip => "skip",
            Self::Refuse => "refuse",
        }
    }
}

/// A secret that was found, and what becomes of it.
pub(crate) struct Planned {
    pub(crate) found: Found,
    /// Its name here; of what is invalid, the original one.
    pub(crate) name: String,
    pub(crate) note: Option<Note>,
    pub(crate) state: State,
    pub(crate) deed: Deed,
    /// Why it is invalid, or which one it is a duplicate of.
    pub(crate) why: Option<String>,
    /// The version that is read now.
    pub(crate) version: Option<u64>,
}

impl Planned {
    /// The name it is stored under.
    pub(crate) fn stored_as(&self) -> &str {
        match &self.deed {
            Deed::Rename(name) => name,
            _ => &self.name,
        }
    }

    /// Whether it is handed over.
    pub(crate) fn is_stored(&self) -> bool {
        matches!(self.deed, Deed::Store | Deed::Replace | Deed::Rename(_))
    }
}

/// All secrets that were found, and the names that there are.
pub(crate) struct Plan {
    pub(crate) secrets: Vec<Planned>,
    existing: BTreeMap<String, u64>,
}

impl Plan {
    /// Gives each its name below `prefix`; `existing` are the names that there are, with the versions that are read.
    pub(crate) fn new(found: Vec<Found>, prefix: &str, existing: BTreeMap<String, u64>) -> Self {
        let secrets = found.into_iter().map(|found| named(found, prefix, &existing)).collect();
        let mut plan = Self { secrets, existing };
        plan.find_duplicates();
        plan
    }

    /// Marks what came before under the same name. What is the same in all is there twice, and no conflict.
    fn find_duplicates(&mut self) {
        let mut first: HashMap<String, usize> = HashMap::new();
        for index in 0..self.secrets.len() {
            let secret = &self.secrets[index];
            if secret.state == State::Invalid {
                continue;
            }
            let name = secret.name.clone();
            let Some(&before) = first.get(&name) else {
                first.insert(name, index);
                continue;
            };
            let (before, secret) = (&self.secrets[before].found, &secret.found);
            let is_same = before.value == secret.value && before.original == secret.original;
            let why = format!("it has the name of {} ('{}')", before.place, before.original);
            let secret = &mut self.secrets[index];
            secret.state = if is_same { State::Same } else { State::Duplicate };
            secret.why = Some(why);
        }
    }

    /// Those whose values are to be compared with what is there, by their places in the plan.
    pub(crate) fn to_compare(&self) -> Vec<usize> {
        let changed = |(index, secret): (usize, &Planned)| (secret.state == State::Changed).then_some(index);
        self.secrets.iter().enumerate().filter_map(changed).collect()
    }

    /// Takes note of what was found of one of [`Self::to_compare`]; `None` where its value may not be read.
    pub(crate) fn compared(&mut self, index: usize, comparison: Option<Comparison>) {
        let Some(secret) = self.secrets.get_mut(index) else { return };
        secret.state = match comparison {
            Some(Comparison::Same) => State::Same,
            Some(Comparison::Different) => State::Changed,
            // It went meanwhile.
            Some(Comparison::Missing) => State::New,
            None => State::Exists,
        };
        if secret.state == State::New {
            secret.version = None;
        }
    }

    /// Decides what is done with each.
    pub(crate) fn decide(&mut self, policy: Policy, skip_invalid: bool) {
        let mut taken: HashSet<String> = self.existing.keys().cloned().collect();
        taken.extend(self.secrets.iter().map(|secret| secret.name.clone()));
        // The last of several takes the place of those before it.
        let mut last: HashMap<String, usize> = HashMap::new();
        for index in 0..self.secrets.len() {
            let secret = &mut self.secrets[index];
            let deed = match (&secret.state, policy) {
                (State::Invalid, _) if skip_invalid => Deed::Skip,
                (State::Invalid, _) => Deed::Refuse,
                (State::New, _) => Deed::Store,
                (State::Same, _) => Deed::Nothing,
                (State::Changed | State::Exists, Policy::Replace) => Deed::Replace,
                (State::Duplicate, Policy::Replace) => {
                    if secret.version.is_some() {
                        Deed::Replace
                    } else {
                        Deed::Store
                    }
                }
                (_, Policy::Skip) => Deed::Skip,
                (_, Policy::Fail) => Deed::Refuse,
                (_, Policy::Rename) => match free_name(&secret.name, &taken) {
                    Some(name) => {
                        taken.insert(name.clone());
                        // Where the name is not what it was, the note says so.
                        secret.note = secret.note.take().or_else(|| names::note(&secret.found.original).ok());
                        Deed::Rename(name)
                    }
                    None => Deed::Refuse,
                },
            };
            secret.deed = deed;
            if policy == Policy::Replace && matches!(secret.deed, Deed::Store | Deed::Replace | Deed::Nothing)
            {
                self.supersede(index, &mut last);
            }
        }
    }

    /// Leaves out those of the same name before this one, which is the one that counts.
    fn supersede(&mut self, index: usize, last: &mut HashMap<String, usize>) {
        let name = self.secrets[index].name.clone();
        let Some(before) = last.insert(name, index) else { return };
        let is_repeated = self.secrets[index].deed == Deed::Nothing;
        if is_repeated && self.secrets[index].found.value == self.secrets[before].found.value {
            last.insert(self.secrets[index].name.clone(), before);
            return;
        }
        if self.secrets[before].is_stored() {
            self.secrets[before].deed = Deed::Skip;
        }
        if is_repeated {
            // The same as an earlier one that was replaced meanwhile by another.
            let secret = &mut self.secrets[index];
            secret.deed = if secret.version.is_some() { Deed::Replace } else { Deed::Store };
        }
    }

    /// What stands in the way of the import.
    ///
    /// # Errors
    /// Something does.
    pub(crate) fn check(&self) -> Result<(), ImportError> {
        let names = |wanted: fn(&State) -> bool| -> Vec<String> {
            let refused =
                self.secrets.iter().filter(|secret| secret.deed == Deed::Refuse && wanted(&secret.state));
            refused.map(shown).collect()
        };
        let invalid = names(|state| *state == State::Invalid);
        if !invalid.is_empty() {
            return Err(ImportError::Invalid { names: invalid });
        }
        let conflicts = names(|state| *state != State::Invalid);
        if conflicts.is_empty() { Ok(()) } else { Err(ImportError::Conflicts { names: conflicts }) }
    }

    /// How many have this deed.
    pub(crate) fn count(&self, wanted: impl Fn(&Deed) -> bool) -> usize {
        self.secrets.iter().filter(|secret| wanted(&secret.deed)).count()
    }
}

fn shown(secret: &Planned) -> String {
    match &secret.why {
        Some(why) => format!("'{}' ({why})", secret.name),
        None => format!("'{}'", secret.name),
    }
}

fn named(mut found: Found, prefix: &str, existing: &BTreeMap<String, u64>) -> Planned {
    let is_too_large = found.value.len() > VALUE_BYTES_MAX;
    let mapped = names::mapped(&found.original, prefix).and_then(|mapped| {
        if is_too_large {
            Err(format!("its value is larger than {VALUE_BYTES_MAX} bytes"))
        } else {
            Ok(mapped)
        }
    });
    match mapped {
        Ok(Mapped { name, note }) => {
            let version = existing.get(&name).copied();
            let state = if version.is_some() { State::Changed } else { State::New };
            Planned { found, name, note, state, deed: Deed::Skip, why: None, version }
        }
        Err(why) => {
            found.value = Zeroizing::default();
            let name = found.original.clone();
            Planned {
                found,
                name,
                note: None,
                state: State::Invalid,
                deed: Deed::Skip,
                why: Some(why),
                version: None,
            }
        }
    }
}

/// The first name with a number that is free.
fn free_name(name: &str, taken: &HashSet<String>) -> Option<String> {
    let mut numbered = (2..10_000).map(|number| format!("{name}-{number}"));
    numbered.find(|name| !taken.contains(name)).filter(|name| SecretName::parse(name.as_str()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(original: &str, value: &str) -> Found {
        Found {
            original: original.to_owned(),
            place: "line 1".to_owned(),
            value: Zeroizing::new(value.into()),
        }
    }

    /// Name and deed of each of some secrets, where `a` has the value `old` and `s` the value `same` already.
    fn decided(secrets: &[(&str, &str)], policy: Policy) -> Vec<String> {
        let existing = [("a", 3), ("s", 1), ("a-2", 1)];
        let existing = existing.map(|(name, version)| (name.to_owned(), version)).into();
        let all = secrets.iter().map(|(name, value)| found(name, value)).collect();
        let mut plan = Plan::new(all, "", existing);
        for index in plan.to_compare() {
            let is_same = &plan.secrets[index].found.value[..] == b"same";
            plan.compared(index, Some(if is_same { Comparison::Same } else { Comparison::Different }));
        }
        plan.decide(policy, false);
        let shown = |secret: &Planned| format!("{} {}", secret.stored_as(), secret.deed.as_str());
        plan.secrets.iter().map(shown).collect()
    }

    #[test]
    fn each_policy_does_what_it_says() {
        let secrets = [("n", "1"), ("a", "2"), ("s", "same")];
        assert_eq!(decided(&secrets, Policy::Fail), ["n store", "a refuse", "s nothing"]);
        assert_eq!(decided(&secrets, Policy::Skip), ["n store", "a skip", "s nothing"]);
        assert_eq!(decided(&secrets, Policy::Replace), ["n store", "a replace", "s nothing"]);
        assert_eq!(decided(&secrets, Policy::Rename), ["n store", "a-3 rename", "s nothing"]);
    }

    #[test]
    fn of_two_with_one_name_the_policy_says_which_counts() {
        let twice = [("n", "1"), ("n", "2"), ("n", "1")];
        assert_eq!(decided(&twice, Policy::Fail), ["n store", "n refuse", "n nothing"]);
        assert_eq!(decided(&twice, Policy::Skip), ["n store", "n skip", "n nothing"]);
        assert_eq!(decided(&twice, Policy::Rename), ["n store", "n-2 rename", "n nothing"]);
        assert_eq!(decided(&twice, Policy::Replace), ["n skip", "n skip", "n store"]);
        assert_eq!(decided(&[("n", "1"), ("n", "1")], Policy::Replace), ["n store", "n nothing"]);
        assert_eq!(decided(&[("a", "1"), ("a", "2")], Policy::Replace), ["a skip", "a replace"]);
        assert_eq!(decided(&[("x y", "1"), ("x_y", "1")], Policy::Fail), ["x_y store", "x_y refuse"]);
    }

    #[test]
    fn what_cannot_be_stored_is_refused_or_left_out() {
        let large = "x".repeat(VALUE_BYTES_MAX + 1);
        let mut plan = Plan::new(vec![found("big", &large), found("ok", "")], "p/", BTreeMap::new());
        plan.decide(Policy::Skip, false);
        assert!(matches!(plan.check(), Err(ImportError::Invalid { names }) if names.len() == 1));
        plan.decide(Policy::Skip, true);
        plan.check().unwrap();
        assert_eq!((plan.secrets[1].name.as_str(), plan.count(|deed| *deed == Deed::Store)), ("p/ok", 1));
    }
}
