//! The objects of `--json` as `docs/json.md` describes them, and whether one is as described.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A field of a table there.
struct Field {
    /// Like `a[].b`.
    path: String,
    /// What its values are, without `or null`.
    kind: String,
    may_be_null: bool,
    is_optional: bool,
}

/// The page, by its sections: the commands of each, and the fields of their object.
pub struct Schemas {
    sections: Vec<(Vec<String>, Vec<Field>)>,
    seen: BTreeSet<usize>,
}

impl Schemas {
    /// Reads the page.
    ///
    /// # Panics
    /// A table of it is not one.
    #[must_use]
    pub fn read(page: &str) -> Self {
        let mut sections: Vec<(Vec<String>, Vec<Field>)> = Vec::new();
        for line in page.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                let commands = heading.split('`').filter_map(|word| word.strip_prefix("pds "));
                sections.push((commands.map(str::to_owned).collect(), Vec::new()));
            } else if let (Some(row), Some((_, fields))) = (line.strip_prefix("| `"), sections.last_mut()) {
                let (path, rest) = row.split_once("` | ").expect("a field and its type");
                let kind = rest.split(" |").next().unwrap_or_default();
                let (kind, is_optional) = cut(kind, ", optional");
                let (kind, may_be_null) = cut(kind, " or null");
                fields.push(Field { path: path.to_owned(), kind: kind.to_owned(), may_be_null, is_optional });
            }
        }
        sections.retain(|(commands, _)| !commands.is_empty());
        Self { sections, seen: BTreeSet::new() }
    }

    /// Checks what a command printed.
    ///
    /// # Panics
    /// It is not as described.
    pub fn check(&mut self, command: &str, object: &Value) {
        let is_its =
            |(commands, _): &&(Vec<String>, Vec<Field>)| commands.iter().any(|known| known == command);
        let place = self.sections.iter().position(|section| is_its(&section));
        let place = place.unwrap_or_else(|| panic!("`pds {command}` is not described"));
        self.seen.insert(place);
        if let Err(wrong) = object_is(&self.sections[place].1, "", object) {
            panic!("`pds {command} --json`: {wrong}");
        }
    }

    /// The commands of sections of which none was checked.
    #[must_use]
    pub fn unchecked(&self) -> Vec<&str> {
        let sections = self.sections.iter().enumerate().filter(|(place, _)| !self.seen.contains(place));
        sections.map(|(_, (commands, _))| commands[0].as_str()).collect()
    }
}

fn cut<'a>(text: &'a str, end: &str) -> (&'a str, bool) {
    text.strip_suffix(end).map_or((text, false), |text| (text, true))
}

/// The fields right below a path, by their names.
fn below<'a>(fields: &'a [Field], path: &str) -> BTreeMap<&'a str, &'a Field> {
    let names = fields.iter().filter_map(|field| {
        let name = field.path.strip_prefix(path)?;
        (!name.contains(['.', '['])).then_some((name, field))
    });
    names.collect()
}

fn object_is(fields: &[Field], path: &str, value: &Value) -> Result<(), String> {
    let object = value.as_object().ok_or_else(|| format!("`{path}` is no object"))?;
    let known = below(fields, path);
    for (name, value) in object {
        let field = known.get(name.as_str()).or_else(|| known.get("*"));
        let field = field.ok_or_else(|| format!("the field `{path}{name}` is not described"))?;
        value_is(fields, field, value)?;
    }
    let missing = known.values().find(|field| {
        let name = &field.path[path.len()..];
        name != "*" && !field.is_optional && !object.contains_key(name)
    });
    missing.map_or(Ok(()), |field| Err(format!("the field `{}` is missing", field.path)))
}

fn value_is(fields: &[Field], field: &Field, value: &Value) -> Result<(), String> {
    let Field { path, kind, may_be_null, .. } = field;
    let each = |is: fn(&Value) -> bool| value.as_array().is_some_and(|list| list.iter().all(is));
    let is_so = match kind.as_str() {
        _ if value.is_null() => *may_be_null,
        "text" => value.is_string(),
        "number" => value.is_number(),
        "true or false" => value.is_boolean(),
        "time" => value.as_str().is_some_and(is_time),
        "list of text" => each(Value::is_string),
        "list of objects" => each(Value::is_object),
        "list" => {
            let list = value.as_array().ok_or_else(|| format!("`{path}` is no list"))?;
            return list.iter().try_for_each(|item| object_is(fields, &format!("{path}[]."), item));
        }
        "object" => return object_is(fields, &format!("{path}."), value),
        words if words.starts_with('`') => {
            value.as_str().is_some_and(|word| words.split(", ").any(|known| known == format!("`{word}`")))
        }
        other => return Err(format!("`{path}` has a type that is none: {other}")),
    };
    if is_so { Ok(()) } else { Err(format!("`{path}` is not {kind}")) }
}

/// Whether it is like `2030-12-31T23:59:59Z`.
fn is_time(text: &str) -> bool {
    let shape: String =
        text.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    shape == "0000-00-00T00:00:00Z"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PAGE: &str = "# Page\n\n## `pds a`, `pds b c`\n\n| field | type | what it is |\n| --- | --- | --- |\n\
        | `name` | text | |\n| `at` | time or null | |\n| `more` | number, optional | |\n| `list` | list | |\n\
        | `list[].state` | `on`, `off` | |\n| `map` | object | |\n| `map.*` | list of text | |\n\n## Others\n\n`pds d`\n";

    fn wrong(object: Value) -> bool {
        let page = Schemas::read(PAGE);
        object_is(&page.sections[0].1, "", &object).is_err()
    }

    #[test]
    fn only_what_is_described_passes_and_all_of_it() {
        let right = json!({"name": "x", "at": null, "list": [{"state": "on"}], "map": {"k": ["v"]}});
        assert!(!wrong(right.clone()));
        let with = |name: &str, value: Value| {
            let mut object = right.clone();
            object[name] = value;
            object
        };
        assert!(!wrong(with("more", json!(1))) && !wrong(with("at", json!("2030-12-31T23:59:59Z"))));
        for (name, value) in [
            ("name", json!(1)),
            ("name", json!(null)),
            ("at", json!("soon")),
            ("more", json!("1")),
            ("unknown", json!(1)),
            ("list", json!([{"state": "other"}])),
            ("list", json!([{}])),
            ("list", json!([{"state": "on", "more": 1}])),
            ("map", json!({"k": "v"})),
        ] {
            assert!(wrong(with(name, value.clone())), "{name}: {value}");
        }
        for name in ["name", "at", "list", "map"] {
            let mut object = right.clone();
            object.as_object_mut().unwrap().remove(name);
            assert!(wrong(object), "without {name}");
        }
        let mut page = Schemas::read(PAGE);
        assert_eq!(page.unchecked(), ["a"]);
        page.check("b c", &right);
        assert_eq!(page.unchecked(), [""; 0]);
    }
}
