//! Hostile values, written in each format as its own program would, are found again byte for byte.

use std::io::{Cursor, Write as _};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::tests::read;
use crate::args::{EnvFormat, ImportFormat};
use crate::assignments;

/// What quotes, escapes, comments, ends of lines and markup are made of.
const PIECES: [&str; 32] = [
    "a",
    "0",
    " ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "'",
    "\"",
    "\\",
    "$",
    "${HOME}",
    "`",
    "#",
    " #",
    "=",
    "&",
    "&amp;",
    "<",
    ">",
    "]]>",
    "<!--",
    "%",
    "{",
    "}",
    "/",
    ",",
    ":",
    "\u{e4}",
    "\u{1f511}",
    "\u{2028}",
    "\u{feff}",
];

fn text() -> impl Strategy<Value = String> {
    vec(select(&PIECES[..]), 1..24).prop_map(|pieces| pieces.concat())
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 1..6)
}

/// The values that a format finds.
fn values(format: ImportFormat, bytes: &[u8]) -> Vec<String> {
    let (found, _) = read(format, bytes, None).unwrap_or_else(|error| panic!("{format}: {error}"));
    found.into_iter().map(|(_, value)| String::from_utf8(value).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn dotenv_gives_back_what_export_wrote(texts in texts()) {
        let can_be_written = |text: &&String| assignments::written(EnvFormat::Dotenv, &[(b"A", text.as_bytes())]).is_ok();
        let texts: Vec<String> = texts.iter().filter(can_be_written).cloned().collect();
        let pairs: Vec<(&[u8], &[u8])> = texts.iter().map(|text| (&b"A"[..], text.as_bytes())).collect();
        let written = assignments::written(EnvFormat::Dotenv, &pairs).unwrap();
        prop_assert_eq!(values(ImportFormat::Dotenv, &written), texts);
    }

    #[test]
    fn json_gives_back_keys_and_values(texts in texts()) {
        let object: serde_json::Map<_, _> =
            texts.iter().map(|text| (text.clone(), json!({"v\0": text}))).collect();
        let (found, _) = read(ImportFormat::Json, &serde_json::to_vec(&object).unwrap(), None).unwrap();
        let expected: Vec<_> =
            object.keys().map(|key| (format!("{key}/v\0"), key.as_bytes().to_vec())).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn bitwarden_gives_back_every_field(texts in texts()) {
        let item = |text: &String| json!({"type": 1, "name": text, "login": {"password": text}, "notes": text});
        let export = json!({"encrypted": false, "items": texts.iter().map(item).collect::<Vec<_>>()});
        let expected: Vec<String> = texts.iter().flat_map(|text| [text.clone(), text.clone()]).collect();
        prop_assert_eq!(values(ImportFormat::Bitwarden, &serde_json::to_vec(&export).unwrap()), expected);
    }

    #[test]
    fn one_password_gives_back_every_field(texts in texts()) {
        let item = |text: &String| json!({"overview": {"title": text}, "details": {
            "loginFields": [{"designation": "password", "value": text}],
            "sections": [{"title": text, "fields": [{"title": text, "value": {"concealed": text}}]}],
        }});
        let export = json!({"accounts": [{"vaults": [{"items": texts.iter().map(item).collect::<Vec<_>>()}]}]});
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        archive.start_file("export.data", SimpleFileOptions::default()).unwrap();
        archive.write_all(&serde_json::to_vec(&export).unwrap()).unwrap();
        let expected: Vec<String> = texts.iter().flat_map(|text| [text.clone(), text.clone()]).collect();
        prop_assert_eq!(values(ImportFormat::OnePux, &archive.finish().unwrap().into_inner()), expected);
    }

    #[test]
    fn keepass_gives_back_every_string(texts in texts(), as_data in any::<bool>()) {
        let written = |text: &str| match as_data && !text.contains(['\r']) && !text.contains("]]>") {
            true => format!("<![CDATA[{text}]]>"),
            false => text.replace('&', "&amp;").replace('<', "&lt;").replace("]]>", "]]&gt;").replace('\r', "&#13;"),
        };
        let entry = |text: &String| format!(
            "<Entry><String><Key>Title</Key><Value>t</Value></String>\
             <String><Key>Password</Key><Value ProtectInMemory=\"True\">{}</Value></String></Entry>",
            written(text),
        );
        let entries: String = texts.iter().map(entry).collect();
        let file = format!("<?xml version=\"1.0\"?><KeePassFile><Root><Group>{entries}</Group></Root></KeePassFile>");
        prop_assert_eq!(values(ImportFormat::KeepassXml, file.as_bytes()), texts);
    }

    #[test]
    fn no_reader_breaks_on_any_bytes(bytes in vec(any::<u8>(), 0..200), texts in texts()) {
        for format in [ImportFormat::Dotenv, ImportFormat::Json, ImportFormat::Bitwarden, ImportFormat::OnePux, ImportFormat::KeepassXml] {
            let _refused_or_not = read(format, &bytes, Some("x"));
            let _refused_or_not = read(format, texts.concat().as_bytes(), Some("x"));
        }
    }
}
