//! New keys for a vault, with real daemons that are killed while they make them.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core_ipc::CallOptions;
use core_types::protocol::secrets::{GetBatch, RekeyProgress, RekeyState, Selection};
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
    let call = GetBatch { profile: "default".parse().unwrap(), selection: Selection::All };
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

fn generation(system: &System) -> u64 {
    header(system)["content"]["generation"].as_u64().unwrap()
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

/// Waits until the work is so far, in percent, or has ended.
fn wait_until(system: &System, percent: u64) -> RekeyState {
    let mut client = system.client();
    let call = RekeyProgress { profile: "default".parse().unwrap() };
    loop {
        match client.call(&call, CallOptions::default()).unwrap() {
            RekeyState::Running { total: 0, .. } | RekeyState::Idle => {}
            RekeyState::Running { done, total } if done * 100 < total * percent => {}
            state => return state,
        }
    }
}

#[test]
fn killed_at_any_point_exactly_one_of_the_two_vaults_is_left_whole() {
    let system = filled();
    let mut generations = Vec::new();
    // Between the last row that is read back and the end lie the header, the anchor and the exchange: it is killed
    // there more than once.
    for percent in [0, 20, 60, 100, 100, 100] {
        let before = generation(&system);
        let rekeying = system.pds(["rekey"]).password().start();
        let state = wait_until(&system, percent);
        let old = system.kill("daemon-secrets");
        drop(rekeying.wait());
        system.wait_until_back("daemon-secrets", old);
        assert_eq!(
            vaults(&system),
            ["default"],
            "something is left of the vault that is not needed ({state:?})"
        );
        let after = generation(&system);
        assert!(after == before || after == before + 1, "from {before} to {after}");
        system.pds(["unlock"]).password().run().done();
        all_is_there(&system);
        system.pds(["set", "s/0000"]).stdin(value(0)).run().done();
        generations.push(after - before);
    }
    eprintln!("which of the two was left: {generations:?}");
    // The later kills may come when the work is done; the first comes when it has hardly begun.
    assert_eq!(generations[0], 0, "an early kill leaves the old vault: {generations:?}");
    // And without a kill it goes through, after all that.
    system.pds(["rekey"]).password().run().done();
    all_is_there(&system);
}
