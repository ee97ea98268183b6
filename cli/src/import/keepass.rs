//! Exports of KeePass 2 and KeePassXC as XML. No entity is expanded but the five that XML itself knows, and numbers.

use std::path::Path;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::item::Item;
use super::{Contents, Format, Helper, ImportError, text_of};

/// Most elements in each other.
const DEPTH_MAX: usize = 64;

pub(super) struct KeepassXml;

impl Format for KeepassXml {
    fn read(&self, source: &Path, _: &mut dyn Helper) -> Result<Contents, ImportError> {
        let text = text_of(source)?;
        let mut reader = Reader::from_str(&text);
        reader.config_mut().expand_empty_elements = true;
        let walk = Walk {
            reader,
            text: &text,
            open: Vec::new(),
            groups: Vec::new(),
            entry: None,
            bin: None,
            left: Left::default(),
            contents: Contents::default(),
            entries: 0,
        };
        walk.run()
    }
}

#[derive(Default)]
struct Group {
    uuid: String,
    name: String,
}

#[derive(Default)]
struct Entry {
    /// Pairs of key and value.
    strings: Vec<(String, String)>,
}

/// What is not imported.
#[derive(Default)]
struct Left {
    histories: usize,
    attachments: usize,
    removed: usize,
}

struct Walk<'a> {
    reader: Reader<&'a [u8]>,
    text: &'a str,
    /// The elements that are open.
    open: Vec<String>,
    groups: Vec<Group>,
    entry: Option<Entry>,
    /// The group of what was removed.
    bin: Option<String>,
    left: Left,
    contents: Contents,
    entries: usize,
}

impl<'a> Walk<'a> {
    fn run(mut self) -> Result<Contents, ImportError> {
        loop {
            match self.next()? {
                Event::Start(start) => self.start(&start)?,
                Event::End(_) => self.end()?,
                Event::Eof if self.open.is_empty() && self.entries + self.left.removed > 0 => break,
                Event::Eof if self.open.is_empty() => {
                    return Err(ImportError::Whole {
                        problem: "there is no entry in it",
                        next: "export the database as XML: `keepassxc-cli export FILE >FILE.xml`",
                    });
                }
                Event::Eof => return Err(self.wrong("it ends in the middle")),
                _ => {}
            }
        }
        let Left { histories, attachments, removed } = self.left;
        for (count, what) in [
            (histories, "histories of entries"),
            (attachments, "attachments"),
            (removed, "entries of the recycle bin"),
        ] {
            if count > 0 {
                self.contents.left_out.push(format!("{count} {what}"));
            }
        }
        Ok(self.contents)
    }

    fn next(&mut self) -> Result<Event<'a>, ImportError> {
        match self.reader.read_event() {
            Ok(Event::DocType(_)) => Err(self.wrong("it defines entities, which KeePass does not")),
            Ok(event) => Ok(event),
            Err(_) => Err(self.wrong("it is not XML")),
        }
    }

    /// An error at the place that was read last.
    fn wrong(&self, problem: &'static str) -> ImportError {
        let end = usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX).min(self.text.len());
        let before = &self.text.as_bytes()[..end];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        ImportError::at(format!("line {line}"), problem)
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), ImportError> {
        let name = start.name().as_ref().to_owned();
        let parent = self.open.last().map(String::as_str).unwrap_or_default().to_owned();
        if self.open.is_empty() && name != "KeePassFile" {
            return Err(self.wrong("it is XML, but no export of KeePass"));
        }
        match (parent.as_str(), name.as_str()) {
            ("Meta", "RecycleBinUUID") => self.bin = Some(self.content(&name)?),
            ("Group", "UUID") => {
                let uuid = self.content(&name)?;
                self.groups.iter_mut().last().into_iter().for_each(|group| group.uuid.clone_from(&uuid));
            }
            ("Group", "Name") => {
                let called = self.content(&name)?;
                self.groups.iter_mut().last().into_iter().for_each(|group| group.name.clone_from(&called));
            }
            ("Entry", "History") => self.history()?,
            ("Entry", "Binary") => {
                self.left.attachments += usize::from(!self.is_in_bin());
                self.skip(&name)?;
            }
            ("String", "Key") => {
                let key = self.content(&name)?;
                self.entry.iter_mut().for_each(|entry| entry.strings.push((key.clone(), String::new())));
            }
            ("String", "Value") => {
                if is_encrypted(start) {
                    return Err(self.wrong("a value is encrypted; export the database as unencrypted XML"));
                }
                let value = self.content(&name)?;
                let last = self.entry.iter_mut().filter_map(|entry| entry.strings.last_mut());
                last.for_each(|(_, known)| known.clone_from(&value));
            }
            _ => self.enter(name)?,
        }
        Ok(())
    }

    fn enter(&mut self, name: String) -> Result<(), ImportError> {
        if self.open.len() == DEPTH_MAX {
            return Err(self.wrong("too many elements stand in each other"));
        }
        match name.as_str() {
            "Group" => self.groups.push(Group::default()),
            "Entry" => self.entry = Some(Entry::default()),
            _ => {}
        }
        self.open.push(name);
        Ok(())
    }

    fn end(&mut self) -> Result<(), ImportError> {
        match self.open.pop().as_deref() {
            Some("Group") => drop(self.groups.pop()),
            Some("Entry") => {
                let entry = self.entry.take().unwrap_or_default();
                if self.is_in_bin() {
                    self.left.removed += 1;
                } else {
                    self.entries += 1;
                    self.take(&entry)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_in_bin(&self) -> bool {
        self.groups.iter().any(|group| !group.uuid.is_empty() && Some(&group.uuid) == self.bin.as_ref())
    }

    fn take(&mut self, entry: &Entry) -> Result<(), ImportError> {
        let of =
            |key: &str| entry.strings.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        // The first group is the database itself.
        let folders: Vec<&str> = self.groups.iter().skip(1).map(|group| group.name.as_str()).collect();
        let place = format!("entry {}", self.entries);
        let mut item = Item::new(&mut self.contents, &folders, of("Title").unwrap_or_default(), place);
        for (key, name) in [
            ("UserName", "username"),
            ("Password", "password"),
            ("URL", "url"),
            ("otp", "totp"),
            ("Notes", "notes"),
        ] {
            item.field(name, of(key))?;
        }
        let known = ["Title", "UserName", "Password", "URL", "otp", "Notes"];
        let others = entry.strings.iter().filter(|(key, _)| !known.contains(&key.as_str()));
        others.into_iter().try_for_each(|(key, value)| item.field(key, Some(value)))
    }

    /// The text of an element that has begun, up to its end.
    fn content(&mut self, name: &str) -> Result<String, ImportError> {
        let mut text = String::new();
        loop {
            match self.next()? {
                Event::Text(part) => text.push_str(&part.xml10_content()),
                Event::CData(part) => text.push_str(&part.xml10_content()),
                Event::GeneralRef(reference) => {
                    let known = match &*reference {
                        "lt" => Some('<'),
                        "gt" => Some('>'),
                        "amp" => Some('&'),
                        "apos" => Some('\''),
                        "quot" => Some('"'),
                        _ => reference.resolve_char_ref().ok().flatten(),
                    };
                    text.push(known.ok_or_else(|| self.wrong("it has an entity that XML does not know"))?);
                }
                Event::End(end) if end.name().as_ref() == name => return Ok(text),
                Event::Comment(_) => {}
                Event::Eof => return Err(self.wrong("it ends in the middle")),
                _ => return Err(self.wrong("an element stands where only text may")),
            }
        }
    }

    /// Passes over the old versions of an entry.
    fn history(&mut self) -> Result<(), ImportError> {
        let before = self.reader.buffer_position();
        self.skip("History")?;
        // `<History/>` has nothing in it.
        let is_empty = self.reader.buffer_position() == before;
        let counts = !is_empty && !self.is_in_bin();
        self.left.histories += usize::from(counts);
        Ok(())
    }

    /// Passes over an element that has begun, up to its end.
    fn skip(&mut self, name: &str) -> Result<(), ImportError> {
        let mut depth = 0_usize;
        loop {
            match self.next()? {
                Event::Start(start) if start.name().as_ref() == name => depth += 1,
                Event::End(end) if end.name().as_ref() == name => match depth.checked_sub(1) {
                    Some(left) => depth = left,
                    None => return Ok(()),
                },
                Event::Eof => return Err(self.wrong("it ends in the middle")),
                _ => {}
            }
        }
    }
}

/// Whether a value is encrypted once more (KeePass 2.x, inside of databases), and not only marked as one to be.
fn is_encrypted(start: &BytesStart<'_>) -> bool {
    let mut attributes = start.attributes().flatten();
    attributes.any(|attribute| {
        attribute.key.as_ref() == "Protected" && attribute.value.as_ref().eq_ignore_ascii_case("true")
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use crate::args::ImportFormat;

    /// Made by `keepassxc-cli` 2.7.4: `export -f xml`.
    const SAMPLE: &str = include_str!("samples/keepassxc.xml");

    fn file(entry: &str) -> String {
        format!("<KeePassFile><Root><Group><Name>R</Name><Entry>{entry}</Entry></Group></Root></KeePassFile>")
    }

    fn string(key: &str, value: &str) -> String {
        format!("<String><Key>{key}</Key><Value>{value}</Value></String>")
    }

    fn refused(text: &str) -> String {
        read(ImportFormat::KeepassXml, text.as_bytes(), None).err().unwrap().to_string()
    }

    #[test]
    fn what_the_real_program_wrote_is_read_exactly() {
        let (found, left_out) = read(ImportFormat::KeepassXml, SAMPLE.as_bytes(), None).unwrap();
        let expected = [
            ("Top/password", "second"),
            ("Work/GitHub/username", "user <name>"),
            ("Work/GitHub/password", "s3cr<t&\"x']]>"),
            ("Work/GitHub/url", "https://example.com/?a=1&b=2"),
            ("Work/GitHub/notes", "line 1\nline 2 \u{e9}\u{1f511}"),
            ("Work/Deep Group/Entry  two/password", "  blanks  "),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert_eq!(found, expected);
        assert_eq!(left_out, ["1 histories of entries", "1 attachments", "1 entries of the recycle bin"]);
    }

    #[test]
    fn texts_are_read_as_xml_has_them() {
        let value = "a&#xD;\r\nb\r<![CDATA[<&amp;>]]>&#x1F511;<!-- c -->\t ";
        let text = file(&[string("Title", "T"), string("Key &amp; more", value)].concat());
        let (found, _) = read(ImportFormat::KeepassXml, text.as_bytes(), None).unwrap();
        let expected = "a\r\nb\n<&amp;>\u{1f511}\t ".as_bytes().to_vec();
        assert_eq!(found, [("T/Key & more".to_owned(), expected)]);
    }

    #[test]
    fn hostile_and_broken_files_are_refused_at_their_line() {
        let bomb = format!("<!DOCTYPE x [<!ENTITY a \"top secret\">]>{}", file(&string("Password", "&a;")));
        assert!(refused(&bomb).contains("entities"));
        assert!(refused(&file(&string("Password", "&a;"))).contains("entity"));
        let deep = format!("<KeePassFile>{}", "<Group>".repeat(1_000_000));
        assert!(refused(&deep).contains("in each other"));
        let protected = "<String><Key>Password</Key><Value Protected=\"True\">c2VjcmV0</Value></String>";
        assert!(refused(&file(protected)).contains("encrypted"));
        assert!(refused("<html/>").contains("no export"));
        assert!(refused("<KeePassFile/>").contains("no entry"));
        assert!(refused("").contains("no entry"));
        let whole = file(&string("Password", "top secret"));
        for end in 1..whole.len() {
            let error = refused(&whole[..end]);
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
