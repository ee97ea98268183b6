//! What a header promises, tried with headers that were changed.

use super::file::{Content, File, canonical};
use super::*;

const CHEAP: Argon2Params = Argon2Params::FLOOR;

fn profile() -> ProfileName {
    ProfileName::parse("work").unwrap()
}

fn header() -> (VaultHeader, SecureBytes) {
    VaultHeader::create(&profile(), b"right", CHEAP).unwrap()
}

/// The text of a header after `change`, with a checksum that fits, as someone who tampers would make it.
fn tampered(header: &VaultHeader, change: impl FnOnce(&mut Content)) -> Vec<u8> {
    let mut content = header.content.clone();
    change(&mut content);
    let checksum = checksum(&canonical(&content).unwrap());
    serde_json::to_vec(&File { format: FORMAT, content, checksum, mac: header.mac }).unwrap()
}

fn parse(bytes: &[u8]) -> Result<VaultHeader, HeaderError> {
    VaultHeader::parse(bytes, &profile())
}

fn set_cost(content: &mut Content, cost: Argon2Params) {
    let Factor::Password { argon2, .. } = &mut content.factors[0];
    *argon2 = cost.into();
}

#[test]
fn the_password_unwraps_the_master_key_and_another_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("header.json");
    let (header, master) = header();
    header.save(&path).unwrap();
    let loaded = VaultHeader::load(&path, &profile()).unwrap();
    assert_eq!(loaded, header);
    assert!(loaded.unlock(b"right").unwrap().ct_eq(master.expose()));
    for wrong in [&b"wrong"[..], b"", b"right\n", b"RIGHT"] {
        assert!(matches!(loaded.unlock(wrong), Err(HeaderError::WrongFactor)));
    }
}

#[test]
fn two_vaults_with_one_password_share_nothing() {
    let (first, first_master) = header();
    let (second, second_master) = header();
    assert!(!first_master.ct_eq(second_master.expose()));
    assert_ne!(first.content.factors, second.content.factors);
}

#[test]
fn a_new_password_opens_the_same_master_key_and_the_old_one_nothing() {
    let (header, master) = header();
    let changed = header.with_password(b"right", b"new", CHEAP).unwrap();
    assert!(changed.unlock(b"new").unwrap().ct_eq(master.expose()));
    assert!(matches!(changed.unlock(b"right"), Err(HeaderError::WrongFactor)));
    assert!(matches!(header.with_password(b"wrong", b"new", CHEAP), Err(HeaderError::WrongFactor)));
    let salt = |header: &VaultHeader| match &header.factors()[0] {
        Factor::Password { salt, .. } => *salt,
    };
    assert_ne!(salt(&header), salt(&changed));
}

#[test]
fn a_changed_header_is_not_a_wrong_password() {
    let (header, _) = header();
    let changed = parse(&tampered(&header, |content| content.created_unix_ms += 1)).unwrap();
    let error = changed.unlock(b"right").unwrap_err();
    assert!(matches!(error, HeaderError::Tampered) && error.is_damage());
    assert!(matches!(changed.unlock(b"wrong"), Err(HeaderError::WrongFactor)));
}

#[test]
fn costs_out_of_range_are_refused_before_a_password_is_needed() {
    let (header, _) = header();
    let costs = [
        Argon2Params { memory_kib: 8 << 20, ..CHEAP },
        Argon2Params { memory_kib: 19 * 1024 - 1, ..CHEAP },
        Argon2Params { passes: 1, ..CHEAP },
        Argon2Params { passes: u32::MAX, ..CHEAP },
        Argon2Params { lanes: 0, ..CHEAP },
    ];
    for cost in costs {
        let error = parse(&tampered(&header, |content| set_cost(content, cost))).unwrap_err();
        assert!(matches!(error, HeaderError::Kdf(_)) && error.is_damage(), "{cost:?}: {error}");
    }
}

#[test]
fn another_format_another_profile_and_no_factor_are_named() {
    let (header, _) = header();
    let text = String::from_utf8(tampered(&header, |_| {})).unwrap();
    let later = text.replacen("\"format\":1", "\"format\":2,\"more\":[]", 1);
    assert!(matches!(parse(later.as_bytes()), Err(HeaderError::Format { found: 2 })));
    let other = ProfileName::parse("home").unwrap();
    assert!(matches!(VaultHeader::parse(text.as_bytes(), &other), Err(HeaderError::OtherProfile { .. })));
    let none = tampered(&header, |content| content.factors.clear());
    assert!(matches!(parse(&none), Err(HeaderError::Factors { found: 0 })));
    let many = tampered(&header, |content| content.factors = vec![content.factors[0].clone(); 33]);
    assert!(matches!(parse(&many), Err(HeaderError::Factors { found: 33 })));
}

#[test]
fn a_cut_salt_and_an_unknown_field_are_refused() {
    let (header, _) = header();
    let text = String::from_utf8(tampered(&header, |_| {})).unwrap();
    let Factor::Password { salt, .. } = &header.factors()[0];
    let salt = hex::encode(salt);
    for (from, to) in [
        (salt.as_str(), &salt[2..]),
        (salt.as_str(), ""),
        ("\"policy\":\"any\"", "\"policy\":\"none\""),
        ("\"policy\":", "\"also\":1,\"policy\":"),
        ("\"checksum\":", "\"also\":1,\"checksum\":"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        assert!(matches!(parse(changed.as_bytes()), Err(HeaderError::Syntax { .. })), "{from}");
    }
}

/// Each bit of the file in turn: never a panic, never taken for a wrong password, never unnoticed.
#[test]
fn every_flipped_bit_is_found_without_a_password() {
    let (header, _) = header();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("header.json");
    header.save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let mac_at = good.windows(5).position(|window| window == b"\"mac\"").unwrap();
    for bit in 0..mac_at * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match parse(&bytes) {
            Err(error) => assert!(error.is_damage(), "bit {bit}: {error}"),
            // White space, or a digit in the other case, means the same.
            Ok(same) => assert_eq!(same, header, "bit {bit}"),
        }
    }
}

#[test]
fn a_flipped_bit_in_the_authentication_code_is_found_when_unlocking() {
    let (mut header, _) = header();
    header.mac[3] ^= 1;
    assert!(matches!(header.unlock(b"right"), Err(HeaderError::Tampered)));
}

#[test]
fn errors_quote_nothing_of_the_file() {
    let error = parse(br#"{"format":1,"content":"hunter2"}"#).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}
