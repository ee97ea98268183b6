//! Exports of 1Password: a zip archive with `export.data`, which is JSON (<https://support.1password.com/1pux-format/>).
//! Nothing of the archive is ever written to a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;
use zip::ZipArchive;

use super::item::Item;
use super::{Contents, FILE_BYTES_MAX, Format, Helper, ImportError};

/// The part of the archive with the items.
const DATA: &str = "export.data";
/// Largest archive, in bytes: it holds attached documents too, which are not read.
const ARCHIVE_BYTES_MAX: u64 = 4 << 30;
/// Most files in it.
const FILES_MAX: usize = 100_000;

pub(super) struct OnePux;

#[derive(Deserialize)]
struct Export {
    accounts: Vec<Account>,
}

#[derive(Deserialize)]
struct Account {
    attrs: Option<Attributes>,
    vaults: Vec<Vault>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attributes {
    account_name: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Vault {
    attrs: Option<Attributes>,
    items: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    overview: Option<Overview>,
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Overview {
    title: Option<String>,
    url: Option<String>,
    urls: Option<Vec<Url>>,
}

#[derive(Deserialize)]
struct Url {
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    login_fields: Option<Vec<LoginField>>,
    notes_plain: Option<String>,
    password: Option<String>,
    sections: Option<Vec<Section>>,
    password_history: Option<Vec<Value>>,
    document_attributes: Option<Value>,
}

#[derive(Deserialize)]
struct LoginField {
    value: Option<String>,
    name: Option<String>,
    designation: Option<String>,
}

#[derive(Deserialize)]
struct Section {
    title: Option<String>,
    fields: Option<Vec<Field>>,
}

#[derive(Deserialize)]
struct Field {
    title: Option<String>,
    id: Option<String>,
    value: Option<BTreeMap<String, Value>>,
}

impl Format for OnePux {
    fn read(&self, source: &Path, _: &mut dyn Helper) -> Result<Contents, ImportError> {
        let json = |error: serde_json::Error| ImportError::json(&error);
        let data = data_of(source)?;
        contents(serde_json::from_slice(&data).map_err(json)?)
    }
}

/// The JSON of an archive.
fn data_of(source: &Path) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let failed = |source_error| ImportError::Io {
        place: format!("the file {}", source.display()),
        source: source_error,
    };
    let broken = ImportError::Whole {
        problem: "it is not a whole zip archive",
        next: "export it again, and see that --format is what it is",
    };
    // Whoever opens a pipe the usual way waits for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(source, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?);
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(ImportError::Whole {
            problem: "an archive cannot be read from a pipe or a folder",
            next: "name the file",
        });
    }
    if found.len() > ARCHIVE_BYTES_MAX {
        return Err(ImportError::TooLarge {
            limit: usize::try_from(ARCHIVE_BYTES_MAX).unwrap_or(usize::MAX),
        });
    }
    let Ok(mut archive) = ZipArchive::new(BufReader::new(file)) else { return Err(broken) };
    if archive.len() > FILES_MAX {
        return Err(ImportError::TooMany);
    }
    if archive.file_names_raw().any(leads_out) {
        return Err(ImportError::Whole {
            problem: "a path in the archive leads out of it, which 1Password does not write",
            next: "do not trust the file",
        });
    }
    let Ok(part) = archive.by_name(DATA) else {
        return Err(ImportError::Whole {
            problem: "there is no export.data in the archive",
            next: "export it again as 1PUX",
        });
    };
    let declared = usize::try_from(part.size()).ok().filter(|bytes| *bytes <= FILE_BYTES_MAX);
    let too_large = || ImportError::TooLarge { limit: FILE_BYTES_MAX };
    // What is unpacked is counted too: the archive may say less than there is.
    let declared = declared.ok_or_else(too_large)?;
    let mut data = Zeroizing::new(Vec::with_capacity(declared + 1));
    let limit = u64::try_from(declared + 1).unwrap_or(u64::MAX);
    match part.take(limit).read_to_end(&mut data) {
        Ok(read) if read <= declared => Ok(data),
        Ok(_) | Err(_) => Err(broken),
    }
}

fn leads_out(name: &[u8]) -> bool {
    let is_separator = |byte: &u8| matches!(byte, b'/' | b'\\');
    name.first().is_some_and(is_separator) || name.split(is_separator).any(|part| part == b"..")
}

fn contents(export: Export) -> Result<Contents, ImportError> {
    let mut contents = Contents::default();
    let (mut documents, mut old, mut number) = (0, 0, 0);
    let several = export.accounts.len() > 1;
    for account in export.accounts {
        let name = account.attrs.and_then(|attrs| attrs.account_name.or(attrs.name)).unwrap_or_default();
        for vault in account.vaults {
            let vault_name = vault.attrs.and_then(|attrs| attrs.name).unwrap_or_default();
            let mut folders = vec![vault_name.as_str()];
            if several {
                folders.insert(0, &name);
            }
            for entry in vault.items {
                number += 1;
                let title = entry.overview.as_ref().and_then(|overview| overview.title.as_deref());
                let place = format!("item {number}");
                let mut item = Item::new(&mut contents, &folders, title.unwrap_or_default(), place);
                fields(&mut item, &entry)?;
                let Some(details) = entry.details else { continue };
                documents += usize::from(details.document_attributes.is_some());
                old += details.password_history.map_or(0, |history| history.len());
            }
        }
    }
    for (count, what) in [(documents, "documents"), (old, "old passwords")] {
        if count > 0 {
            contents.left_out.push(format!("{count} {what}"));
        }
    }
    Ok(contents)
}

fn fields(item: &mut Item<'_>, entry: &Entry) -> Result<(), ImportError> {
    let Some(details) = &entry.details else { return Ok(()) };
    for field in details.login_fields.iter().flatten() {
        let name = field.designation.as_deref().filter(|designation| !designation.is_empty());
        item.field(name.or(field.name.as_deref()).unwrap_or_default(), field.value.as_deref())?;
    }
    item.field("password", details.password.as_deref())?;
    if let Some(overview) = &entry.overview {
        let urls: Vec<&str> = overview.urls.iter().flatten().filter_map(|url| url.url.as_deref()).collect();
        if !overview.url.as_deref().is_some_and(|url| urls.contains(&url)) {
            item.field("url", overview.url.as_deref())?;
        }
        urls.iter().try_for_each(|url| item.field("url", Some(url)))?;
    }
    for section in details.sections.iter().flatten() {
        let title = section.title.as_deref().unwrap_or_default();
        for field in section.fields.iter().flatten() {
            let own = field.title.as_deref().filter(|title| !title.is_empty()).or(field.id.as_deref());
            let own = own.unwrap_or_default();
            for (kind, value) in field.value.iter().flatten() {
                let own = if kind == "totp" { "totp" } else { own };
                let name = if title.is_empty() || kind == "totp" {
                    own.to_owned()
                } else {
                    format!("{title}/{own}")
                };
                flat(item, &name, value)?;
            }
        }
    }
    item.field("notes", details.notes_plain.as_deref())
}

/// The value of a field; one that has parts is one secret for each.
fn flat(item: &mut Item<'_>, name: &str, value: &Value) -> Result<(), ImportError> {
    match value {
        Value::String(text) => item.field(name, Some(text)),
        Value::Number(number) => item.field(name, Some(&number.to_string())),
        Value::Object(parts) => {
            // The parser has bounded how deep they are in each other.
            parts.iter().try_for_each(|(part, value)| flat(item, &format!("{name}/{part}"), value))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use zip::CompressionMethod;
    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::super::tests::read;
    use super::*;
    use crate::args::ImportFormat;

    const DATA_SAMPLE: &str = include_str!("samples/1password.json");

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        for (name, bytes) in files {
            writer.start_file(*name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn refused(bytes: &[u8]) -> String {
        read(ImportFormat::OnePux, bytes, None).err().unwrap().to_string()
    }

    #[test]
    fn the_documented_sample_is_read_with_all_its_fields() {
        let bytes = archive(&[
            ("export.attributes", b"{\"version\":3}"),
            ("export.data", DATA_SAMPLE.as_bytes()),
            ("files/abc___note.txt", b"document"),
        ]);
        let (found, left_out) = read(ImportFormat::OnePux, &bytes, None).unwrap();
        let expected = [
            ("Personal/Dropbox/username", "most-secure-username@gmail.com"),
            ("Personal/Dropbox/password", "most-secure-password-ever!"),
            ("Personal/Dropbox/url", "https://www.dropbox.com/"),
            ("Personal/Dropbox/url-2", "https://db.example"),
            ("Personal/Dropbox/Security/PIN", "12345"),
            ("Personal/Dropbox/totp", "otpauth://totp/a?secret=JBSWY3DPEHPK3PXP"),
            ("Personal/Dropbox/Security/expires", "1577880000"),
            ("Personal/Dropbox/Security/mail/email_address", "a@example.com"),
            ("Personal/Dropbox/notes", "This is a note. *bold*\nsecond line"),
            ("Personal/Server/password", "root \u{e4}\u{1f511}"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert_eq!(found, expected);
        assert_eq!(left_out, ["1 documents", "1 old passwords"]);
    }

    #[test]
    fn what_is_cut_off_lies_or_leads_out_is_refused() {
        let whole = archive(&[("export.data", DATA_SAMPLE.as_bytes())]);
        for end in [0, 1, 10, whole.len() / 2, whole.len() - 1] {
            assert!(read(ImportFormat::OnePux, &whole[..end], None).is_err(), "{end}");
        }
        for position in (0..whole.len()).step_by(7) {
            let mut changed = whole.clone();
            changed[position] ^= 0x55;
            // It may be a byte that says nothing; what is read then is what was written.
            if let Ok((found, _)) = read(ImportFormat::OnePux, &changed, None) {
                assert_eq!(found.len(), 10, "{position}");
            }
        }
        for path in ["../x", "/etc/x", "a/../../x", "files\\..\\x"] {
            let refusal = refused(&archive(&[("export.data", b"{}"), (path, b"")]));
            assert!(refusal.contains("leads out"), "{path}: {refusal}");
        }
        assert!(refused(&archive(&[("other", b"{}")])).contains("export.data"));
        assert!(refused(&archive(&[("export.data", b"\xff")])).contains("line 1"));
    }

    #[test]
    fn a_zip_bomb_is_refused_whatever_it_says_of_its_size() {
        let bomb = archive(&[("export.data", &vec![b' '; FILE_BYTES_MAX + 1])]);
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(read(ImportFormat::OnePux, &bomb, None), Err(ImportError::TooLarge { .. })));
        // The same archive, saying in both places that it unpacks to 16 bytes.
        let real = u32::try_from(FILE_BYTES_MAX + 1).unwrap().to_le_bytes();
        let mut lying = bomb;
        let mut places = 0;
        for position in 0..lying.len() - 4 {
            if lying[position..position + 4] == real {
                lying[position..position + 4].copy_from_slice(&16_u32.to_le_bytes());
                places += 1;
            }
        }
        assert!(places > 0);
        assert!(refused(&lying).contains("not a whole zip archive"));
    }
}
