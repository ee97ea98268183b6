//! An entry of a password manager: each of its fields becomes a secret under its name.

use std::collections::HashSet;

use super::{Contents, ImportError};

/// An entry while its fields are taken note of.
pub(super) struct Item<'a> {
    contents: &'a mut Contents,
    base: String,
    place: String,
    fields: HashSet<String>,
}

impl<'a> Item<'a> {
    /// An entry with this title in these folders; folders and titles of no characters have names of their own.
    pub(super) fn new(
        contents: &'a mut Contents,
        folders: &[&str],
        title: &str,
        place: impl Into<String>,
    ) -> Self {
        let title = if title.is_empty() { "untitled" } else { title };
        let parts: Vec<&str> = folders.iter().copied().chain([title]).collect();
        Self { contents, base: parts.join("/"), place: place.into(), fields: HashSet::new() }
    }

    /// Takes note of a field. One without a value is none; the second of a name gets a number.
    pub(super) fn field(&mut self, name: &str, value: Option<&str>) -> Result<(), ImportError> {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(()) };
        let name = if name.is_empty() { "field" } else { name };
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let free = [name.to_owned()].into_iter().chain(numbered).find(|name| !self.fields.contains(name));
        let name = free.unwrap_or_default();
        let original = format!("{}/{name}", self.base);
        self.fields.insert(name);
        self.contents.add(original, self.place.clone(), value.as_bytes().to_vec())
    }
}
