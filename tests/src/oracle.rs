//! What a store may answer after a death: for each name the value that was acknowledged last, or that of the one
//! operation whose answer never came.

use std::collections::BTreeMap;

/// A value, or that there is none.
pub type State = Option<Vec<u8>>;

/// What is known of one name.
#[derive(Debug, Clone, Default)]
struct Known {
    acknowledged: State,
    /// What was asked for and not answered, if anything: it may have taken effect or not.
    open: Option<State>,
}

/// What is known of all names of one writer, who waits for each answer before the next operation.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    known: BTreeMap<String, Known>,
}

/// How a store broke its promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// What had been acknowledged is gone, or replaced by something older.
    Lost,
    /// A value that nobody wrote under this name.
    NeverWritten,
}

impl Oracle {
    /// An operation is about to be asked for, after which the name shall be in this state.
    pub fn begins(&mut self, name: &str, wanted: State) {
        self.known.entry(name.to_owned()).or_default().open = Some(wanted);
    }

    /// The operation on this name was acknowledged.
    ///
    /// # Panics
    /// None had begun.
    pub fn acknowledged(&mut self, name: &str) {
        let known = self.known.get_mut(name).expect("an operation on the name has begun");
        known.acknowledged = known.open.take().expect("an operation on the name is open");
    }

    /// The operation on this name was refused: it had no effect.
    pub fn refused(&mut self, name: &str) {
        self.known.entry(name.to_owned()).or_default().open = None;
    }

    /// All names that were ever used.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// Takes what a store answers for a name after it came back: from now on it is what is acknowledged.
    ///
    /// # Errors
    /// The store broke its promise; `is_old` says whether the name ever had this value.
    pub fn finds(
        &mut self,
        name: &str,
        found: State,
        is_old: impl FnOnce(&[u8]) -> bool,
    ) -> Result<(), Broken> {
        let known = self.known.entry(name.to_owned()).or_default();
        let allowed = found == known.acknowledged || known.open.as_ref() == Some(&found);
        let result = match &found {
            _ if allowed => Ok(()),
            Some(value) if !is_old(value) => Err(Broken::NeverWritten),
            _ => Err(Broken::Lost),
        };
        *known = Known { acknowledged: found, open: None };
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> State {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn only_the_last_acknowledged_value_or_the_open_one_is_right() {
        let mut oracle = Oracle::default();
        oracle.begins("a", some("1"));
        oracle.acknowledged("a");
        oracle.begins("a", some("2"));
        for (found, expected) in [
            (some("1"), Ok(())),
            (some("2"), Ok(())),
            (None, Err(Broken::Lost)),
            (some("0"), Err(Broken::Lost)),
            (some("x"), Err(Broken::NeverWritten)),
        ] {
            assert_eq!(oracle.clone().finds("a", found, |value| value != b"x"), expected);
        }
        oracle.finds("a", some("2"), |_| true).unwrap();
        assert_eq!(oracle.finds("a", some("1"), |_| true), Err(Broken::Lost), "it was there and went back");
    }

    #[test]
    fn a_refused_operation_has_no_effect() {
        let mut oracle = Oracle::default();
        oracle.begins("a", some("1"));
        oracle.refused("a");
        assert_eq!(oracle.clone().finds("a", some("1"), |_| true), Err(Broken::Lost));
        assert_eq!(oracle.finds("a", None, |_| true), Ok(()));
    }
}
