//! JSON: an object of names and values. An object in it is a folder, an array one of numbers. A number, `true` and
//! `false` are taken as they are written.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Contents, Format, Helper, ImportError, text_of};

/// Most objects in each other.
const DEPTH_MAX: usize = 32;

pub(super) struct Json;

impl Format for Json {
    fn read(&self, source: &Path, _: &mut dyn Helper) -> Result<Contents, ImportError> {
        let text = text_of(source)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| ImportError::json(&error))?;
        if !whole.get().starts_with('{') {
            return Err(ImportError::Whole {
                problem: "it is JSON, but no object of names and values",
                next: "write it as {\"NAME\": \"value\"}",
            });
        }
        let mut walk = Walk { contents: Contents::default(), nulls: 0 };
        walk.node(String::new(), whole, 0)?;
        if walk.nulls > 0 {
            walk.contents.left_out.push(format!("{} names with the value null", walk.nulls));
        }
        Ok(walk.contents)
    }
}

/// The members of an object in their order, also those that have the same name.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

struct Walk {
    contents: Contents,
    nulls: usize,
}

impl Walk {
    fn node(&mut self, name: String, raw: &RawValue, depth: usize) -> Result<(), ImportError> {
        let text = raw.get();
        let wrong = |_| ImportError::at(shown(&name), "it is not what JSON has for a text");
        if depth > DEPTH_MAX {
            return Err(ImportError::at(shown(&name), "too many objects stand in each other"));
        }
        let below = |member: &str| if depth == 0 { member.to_owned() } else { format!("{name}/{member}") };
        match text.as_bytes().first() {
            Some(b'{') => {
                let Members(members) = serde_json::from_str(text).map_err(wrong)?;
                members.into_iter().try_for_each(|(member, raw)| self.node(below(&member), raw, depth + 1))
            }
            Some(b'[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(wrong)?;
                let mut numbered = elements.into_iter().enumerate();
                numbered.try_for_each(|(number, raw)| self.node(below(&number.to_string()), raw, depth + 1))
            }
            Some(b'"') => {
                let value: String = serde_json::from_str(text).map_err(wrong)?;
                self.contents.add(name.clone(), shown(&name), value.into_bytes())
            }
            Some(b'n') => {
                self.nulls += 1;
                Ok(())
            }
            _ => self.contents.add(name.clone(), shown(&name), text.as_bytes().to_vec()),
        }
    }
}

fn shown(name: &str) -> String {
    format!("'{}'", crate::output::shown(name))
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use crate::args::ImportFormat;

    fn found(text: &str) -> Vec<(String, String)> {
        let (found, _) = read(ImportFormat::Json, text.as_bytes(), None).unwrap();
        found.into_iter().map(|(name, value)| (name, String::from_utf8(value).unwrap())).collect()
    }

    fn refused(text: &str) -> String {
        read(ImportFormat::Json, text.as_bytes(), None).err().unwrap().to_string()
    }

    #[test]
    fn flat_and_nested_objects_are_read_in_their_order() {
        let text = "\u{feff} {\"b\": \"x\\u0000\\n\\ud83d\\udd11\", \"a/c\": \"\", \"d\": {\"e\": [\"f\", {\"g\": 1}]},
            \"n\": 12345678901234567890.10, \"t\": true, \"z\": null, \"b\": \"again\"}";
        let expected = [
            ("b", "x\0\n\u{1f511}"),
            ("a/c", ""),
            ("d/e/0", "f"),
            ("d/e/1/g", "1"),
            ("n", "12345678901234567890.10"),
            ("t", "true"),
            ("b", "again"),
        ];
        assert_eq!(found(text), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let (_, left_out) = read(ImportFormat::Json, b"{\"z\": null}", None).unwrap();
        assert_eq!(left_out, ["1 names with the value null"]);
    }

    #[test]
    fn bad_json_is_refused_at_its_place_without_what_stands_there() {
        for text in
            ["{\"a\": \"top secret\"", "{\"a\": top secret}", "{\"a\":\"top secret\"} x", "", "{\"a\"}"]
        {
            let error = refused(text);
            assert!(error.starts_with("line ") && !error.contains("secret"), "{error}");
        }
        assert!(refused("[\"secret\"]").contains("no object"));
        assert!(refused("{\"a\": \"\\ud800 secret\"}").contains("'a'"));
        let deep = format!("{}\"x\"{}", "{\"a\":".repeat(40), "}".repeat(40));
        assert!(refused(&deep).contains("in each other"));
        let deepest = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(refused(&format!("{{\"a\":{deepest}}}")).len() < 1_000);
    }
}
