//! Exports of Bitwarden as JSON, plain or protected with a password of their own
//! (<https://bitwarden.com/help/encrypted-export/>).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::bitwarden_key::{Kdf, Keys};
use super::item::Item;
use super::{Contents, Format, Helper, ImportError, text_of};

pub(super) struct Bitwarden;

/// What tells the kinds of exports apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    encrypted: Option<bool>,
    password_protected: Option<bool>,
}

/// An export that is protected with a password.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protected {
    salt: String,
    #[serde(flatten)]
    kdf: Kdf,
    #[serde(rename = "encKeyValidation_DO_NOT_EDIT")]
    validation: String,
    data: String,
}

#[derive(Deserialize)]
struct Export {
    #[serde(default)]
    folders: Vec<Folder>,
    #[serde(default)]
    collections: Vec<Folder>,
    items: Vec<Entry>,
}

#[derive(Deserialize)]
struct Folder {
    id: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    folder_id: Option<String>,
    collection_ids: Option<Vec<String>>,
    name: Option<String>,
    notes: Option<String>,
    login: Option<Login>,
    card: Option<BTreeMap<String, Value>>,
    identity: Option<BTreeMap<String, Value>>,
    ssh_key: Option<BTreeMap<String, Value>>,
    fields: Option<Vec<Field>>,
    password_history: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Login {
    username: Option<String>,
    password: Option<String>,
    totp: Option<String>,
    uris: Option<Vec<Uri>>,
    fido2_credentials: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Uri {
    uri: Option<String>,
}

#[derive(Deserialize)]
struct Field {
    name: Option<String>,
    value: Option<String>,
}

impl Format for Bitwarden {
    fn read(&self, source: &Path, helper: &mut dyn Helper) -> Result<Contents, ImportError> {
        let text = text_of(source)?;
        let json = |error: serde_json::Error| ImportError::json(&error);
        let head: Head = serde_json::from_str(&text).map_err(json)?;
        match (head.encrypted, head.password_protected) {
            (Some(true), Some(true)) => {
                let protected: Protected = serde_json::from_str(&text).map_err(json)?;
                let password = helper.password()?;
                let keys = Keys::derive(&password, &protected.salt, &protected.kdf)?;
                keys.open(&protected.validation).map_err(|_| ImportError::WrongPassword)?;
                let plain = keys.open(&protected.data)?;
                contents(serde_json::from_slice(&plain).map_err(json)?)
            }
            (Some(true), _) => Err(ImportError::Whole {
                problem: "it is encrypted with the key of a Bitwarden account, which only Bitwarden has",
                next: "export it again as .json, or as .json (Encrypted) with the type \"Password protected\"",
            }),
            _ => contents(serde_json::from_str(&text).map_err(json)?),
        }
    }
}

fn contents(export: Export) -> Result<Contents, ImportError> {
    let folders = export.folders.into_iter().chain(export.collections);
    let folders: BTreeMap<String, String> = folders.map(|folder| (folder.id, folder.name)).collect();
    let mut contents = Contents::default();
    let (mut passkeys, mut old) = (0, 0);
    for (number, entry) in export.items.into_iter().enumerate() {
        let of_collection = entry.collection_ids.as_ref().and_then(|ids| ids.first());
        let folder = entry.folder_id.as_ref().or(of_collection).and_then(|id| folders.get(id));
        let folder: Vec<&str> = folder.map(String::as_str).into_iter().collect();
        let title = entry.name.as_deref().unwrap_or_default();
        let mut item = Item::new(&mut contents, &folder, title, format!("item {}", number + 1));
        if let Some(login) = &entry.login {
            item.field("username", login.username.as_deref())?;
            item.field("password", login.password.as_deref())?;
            for uri in login.uris.iter().flatten() {
                item.field("url", uri.uri.as_deref())?;
            }
            item.field("totp", login.totp.as_deref())?;
            passkeys += login.fido2_credentials.as_ref().map_or(0, Vec::len);
        }
        for (name, value) in [&entry.card, &entry.identity, &entry.ssh_key].into_iter().flatten().flatten() {
            item.field(name, value.as_str())?;
        }
        for field in entry.fields.iter().flatten() {
            item.field(field.name.as_deref().unwrap_or_default(), field.value.as_deref())?;
        }
        item.field("notes", entry.notes.as_deref())?;
        old += entry.password_history.as_ref().map_or(0, Vec::len);
    }
    for (count, what) in [(passkeys, "passkeys"), (old, "old passwords")] {
        if count > 0 {
            contents.left_out.push(format!("{count} {what}"));
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;
    use crate::args::ImportFormat;

    const PLAIN: &str = include_str!("samples/bitwarden.json");

    fn expected() -> Vec<(String, Vec<u8>)> {
        let expected = [
            ("Work/My Login/username", "me@example.com"),
            ("Work/My Login/password", "p\u{e4}ss \"w\u{f6}rd\"\\"),
            ("Work/My Login/url", "https://example.com/?a=1&b=2"),
            ("Work/My Login/url-2", "https://example.org"),
            ("Work/My Login/totp", "otpauth://totp/x?secret=JBSWY3DPEHPK3PXP"),
            ("Work/My Login/PIN", "0012"),
            ("Work/My Login/PIN-2", "0013"),
            ("Work/My Login/notes", "line 1\nline 2"),
            ("A Note/notes", " kept  "),
            ("My Card/brand", "visa"),
            ("My Card/code", "123"),
            ("My Card/number", "4242424242424242"),
            (
                "untitled/privateKey",
                "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n",
            ),
        ];
        expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).to_vec()
    }

    #[test]
    fn every_field_of_every_kind_of_item_is_a_secret() {
        let (found, left_out) = read(ImportFormat::Bitwarden, PLAIN.as_bytes(), None).unwrap();
        assert_eq!(found, expected());
        assert_eq!(left_out, ["1 passkeys", "1 old passwords"]);
    }

    #[test]
    fn an_export_with_a_password_opens_with_it_alone() {
        for sample in [
            &include_bytes!("samples/bitwarden-pbkdf2.json")[..],
            include_bytes!("samples/bitwarden-argon2id.json"),
        ] {
            let (found, _) = read(ImportFormat::Bitwarden, sample, Some("export password \u{e4}")).unwrap();
            assert_eq!(found, expected());
            let wrong = read(ImportFormat::Bitwarden, sample, Some("export password"));
            assert!(matches!(wrong, Err(ImportError::WrongPassword)));
        }
        let sample = include_str!("samples/bitwarden-pbkdf2.json");
        let data = sample.find("\"data\":\"2.").unwrap() + 60;
        let mut changed = sample.as_bytes().to_vec();
        changed[data] = if changed[data] == b'A' { b'B' } else { b'A' };
        let changed = read(ImportFormat::Bitwarden, &changed, Some("export password \u{e4}"));
        assert!(matches!(changed, Err(ImportError::At { place, .. }) if place == "its encrypted part"));
    }

    #[test]
    fn what_nobody_else_can_open_or_is_none_is_refused() {
        let account =
            br#"{"encrypted": true, "encKeyValidation_DO_NOT_EDIT": "2.x", "folders": [], "items": []}"#;
        let refused = read(ImportFormat::Bitwarden, account, None).err().unwrap().to_string();
        assert!(refused.contains("account"), "{refused}");
        for text in ["{}", "[]", "{\"items\": [{\"name\": 5}]}", "{\"items\": [{\"name\": \"x\"", "x"] {
            assert!(read(ImportFormat::Bitwarden, text.as_bytes(), None).is_err(), "{text}");
        }
        let costly = include_str!("samples/bitwarden-pbkdf2.json").replace("600000", "4000000000");
        let refused = read(ImportFormat::Bitwarden, costly.as_bytes(), Some("x")).err().unwrap();
        assert!(refused.to_string().contains("key derivation"), "{refused}");
    }
}
