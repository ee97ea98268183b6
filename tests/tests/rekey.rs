//! New keys for a vault, with real daemons.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core_ipc::CallOptions;
use core_types::protocol::secrets::{GetBatch, Selection};
use tests::terminal::Terminal;
use tests::{PASSWORD, PATIENCE, Spec, System};

const SECRETS: usize = 120;

fn value(number: usize) -> Vec<u8> {
    format!("value {number} ").repeat(1 + number % 200).into_bytes()
}

fn filled() -> System {
    let spec = (0..SECRETS)
        .fold(Spec::ready(), |spec, number| spec.secret(&format!("s/{number:04}"), value(number)));
    System::boot(spec)
}

/// Every secret, read in one batch.
fn all_is_there(system: &System) {
    let call = GetBatch { profile: "default".parse().unwrap(), selection: Selection::All, program: None };
    let options = CallOptions { deadline: PATIENCE, descriptors: Vec::new() };
    let mut found = system.client().call(&call, options).unwrap();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(found.len(), SECRETS);
    for (number, secret) in found.iter().enumerate() {
        assert_eq!(secret.name.as_str(), format!("s/{number:04}"));
        assert!(secret.value.expose() == value(number), "the value of {} is another", secret.name);
    }
}

fn header(system: &System) -> serde_json::Value {
    let place = system.paths().vault(&"default".parse().unwrap()).join("header.json");
    serde_json::from_slice(&std::fs::read(place).unwrap()).unwrap()
}

fn vaults(system: &System) -> Vec<String> {
    let entries = std::fs::read_dir(system.paths().vaults()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_vault_gets_new_keys_and_keeps_its_state_and_its_secrets() {
    let system = filled();
    system.pds(["set", "s/0000"]).stdin("older").run().done();
    system.pds(["set", "s/0000"]).stdin(value(0)).run().done();
    for locked in [false, true] {
        if locked {
            system.pds(["lock"]).run().done();
        }
        let before = header(&system);
        system.pds(["rekey", "--password-file", "-"]).stdin("wrong").run().exits(8);
        let done = system.pds(["rekey", "--json"]).password().run().done();
        assert_eq!(done.json()["rekeyed"], true);
        // Nothing but the last line stands where no terminal is.
        assert!(!done.stderr.contains(&b'\r'), "a bar was drawn into a pipe");
        let after = header(&system);
        assert_ne!(before["content"]["factors"][0]["sealed"], after["content"]["factors"][0]["sealed"]);
        if locked {
            system.pds(["get", "s/0001"]).run().exits(3);
            system.pds(["unlock"]).password().run().done();
        }
        all_is_there(&system);
        system.pds(["get", "--version", "2", "s/0000"]).run().done().prints("older");
        assert_eq!(vaults(&system), ["default"]);
    }
    let entries = system.audit(1_000);
    let rekeys = entries.iter().filter(|entry| entry["operation"] == "rekey").count();
    assert_eq!(rekeys, 4, "two right ones and two wrong ones");
}

#[test]
fn on_a_terminal_a_bar_shows_how_far_it_is() {
    let large = (0..20)
        .fold(Spec::ready(), |spec, number| spec.secret(&format!("large/{number}"), vec![number; 1 << 20]));
    let system = System::boot(large);
    let mut terminal = Terminal::open(&system, (24, 80), "pds", ["rekey"]);
    terminal.wait_for("Password for profile 'default': ");
    terminal.line(PASSWORD);
    terminal.wait_for(" %");
    terminal.wait_for("has new keys");
    assert!(terminal.wait().success());
}
