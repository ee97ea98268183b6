//! Large imports, and imports that are cut short at any moment: all of them is there afterwards, or nothing is.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use core_types::name::{BUS, SECRETS};
use core_types::protocol::secrets::List;
use core_types::{ProfileName, SecretName};
use rustix::process::Signal;
use tests::chance::{Chance, tries};
use tests::system::call;
use tests::{PASSWORD, Spec, System, calls};

/// Secrets of the large import, and bytes of each.
const MANY: usize = 10_000;
const BYTES: usize = 3_000;
/// Secrets of an import that is cut short: enough for it to take some time.
const SOME: usize = 1_500;

/// The name of every secret that there is, page by page.
fn names(system: &System) -> Vec<String> {
    let (mut client, mut names) = (system.client(), Vec::new());
    let mut list = List { profile: ProfileName::parse("default").unwrap(), pattern: None, after: None };
    loop {
        let page = call(&mut client, &list);
        names.extend(page.entries.iter().map(|entry| entry.name.as_str().to_owned()));
        match names.last() {
            Some(last) if page.more => list.after = Some(SecretName::parse(last.as_str()).unwrap()),
            _ => return names,
        }
    }
}

fn file(system: &System, round: usize, count: usize, bytes: usize) -> String {
    let value = "v\u{e4}lue ".repeat(bytes / 7);
    let members = (0..count).map(|number| format!("\"round-{round}/{number}\":\"{number} {value}\""));
    let path = system.folder().join(format!("{round}.json"));
    std::fs::write(&path, format!("{{{}}}", members.collect::<Vec<_>>().join(","))).unwrap();
    path.into_os_string().into_string().unwrap()
}

#[test]
fn ten_thousand_secrets_are_imported_at_once() {
    let system = System::boot(Spec::ready());
    let path = file(&system, 0, MANY, BYTES);
    let began = Instant::now();
    system.pds(["import", "--format", "json", &path]).run().done().says("imported 10000 secrets");
    let took = began.elapsed();
    assert_eq!(names(&system).len(), MANY);
    let value = system.pds(["get", "round-0/9999"]).run().done();
    assert!(value.stdout.starts_with(b"9999 v"));
    let began = Instant::now();
    let again = system.pds(["import", "--format", "json", &path, "--json"]).run().done();
    assert_eq!(again.json()["stored"], 0);
    eprintln!("{MANY} secrets of {BYTES} bytes: imported in {took:?}, compared in {:?}", began.elapsed());
    let began = Instant::now();
    let exported = system.pds(["export", "--format", "json"]).run().done().stdout.len();
    assert!(exported > MANY * BYTES / 2);
    eprintln!("exported in {:?}", began.elapsed());
    system.pds(["lock"]).run().done();
    system.pds(["unlock"]).password().run().done();
    assert_eq!(names(&system).len(), MANY, "the vault is as it was left");
    let recorded = system.pds(["audit", "show", "--secret", "round-0/7"]).run().done();
    assert!(!recorded.stdout.is_empty());
    system.pds(["audit", "verify"]).run().done();
}

/// Starts imports, does `kill` at a moment of chance, and sees what there is; answers what came out.
fn cut_short(rounds: usize, name: &str, kill: impl Fn(&System, &tests::process::Pinned)) -> String {
    let mut chance = Chance::of(name);
    let mut system = System::boot(Spec::ready());
    let path = file(&system, 0, SOME, 400);
    let began = Instant::now();
    system.pds(["import", "--format", "json", &path]).run().done();
    let usual = began.elapsed();
    let (mut expected, mut whole) = (SOME, 0);
    for round in 1..=rounds {
        let path = file(&system, round, SOME, 400);
        let running = system.pds(["import", "--format", "json", &path]).start();
        let moment = Duration::from_micros(chance.below(usize::try_from(usual.as_micros()).unwrap()) as u64);
        // The moment itself is what is left to chance.
        std::thread::sleep(moment);
        kill(&system, running.process());
        let ended = running.wait();
        let acknowledged = ended.status().success();
        system.kill_all();
        system.start();
        call(&mut system.client(), &calls::unlock("default", PASSWORD));
        let there = names(&system).len();
        assert!(there == expected || there == expected + SOME, "round {round}: {there} after {expected}");
        assert!(!acknowledged || there == expected + SOME, "what was acknowledged is there");
        whole += usize::from(there > expected);
        expected = there;
    }
    system.pds(["audit", "verify"]).run().done();
    format!("{name}: {rounds} cuts within {usual:?}, {whole} of them after it was stored")
}

#[test]
fn an_import_whose_pds_is_killed_is_whole_or_nothing() {
    let told = cut_short(tries(4), "import without pds", |_, pds| {
        pds.signal(Signal::KILL);
    });
    eprintln!("{told}");
}

#[test]
fn an_import_whose_daemon_is_killed_is_whole_or_nothing() {
    let told = cut_short(tries(4), "import without daemon-secrets", |system, _| {
        system.kill(SECRETS);
    });
    eprintln!("{told}");
}

#[test]
fn an_import_whose_bus_is_killed_is_whole_or_nothing() {
    let told = cut_short(tries(4), "import without the bus", |system, _| {
        system.kill(BUS);
    });
    eprintln!("{told}");
}
