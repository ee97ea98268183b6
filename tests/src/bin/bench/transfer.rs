//! Taking over many secrets, and looking through many files for them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::chance::Chance;
use tests::{Spec, System};

use crate::RATES;
use crate::measure::{Row, median, time};

const ROUNDS: usize = 5;
/// The tree that is looked through.
const FILES: usize = 1_000;
const FILE_BYTES: usize = 256 << 10;
/// The values that are looked for.
const VALUES: usize = 100;
/// The secrets that are taken over at once.
const IMPORTED: usize = 10_000;

/// The rows.
pub(crate) fn all() -> Vec<Row> {
    vec![scan(), import()]
}

/// `pds scan` for all values in all their forms, and for tokens, against grep(1) for the same values as they are.
fn scan() -> Row {
    let mut chance = Chance::of("scan");
    let values: Vec<String> = (0..VALUES).map(|_| word(&mut chance, 24)).collect();
    let spec = Spec::new().config(RATES).profile("default");
    let named = values.iter().enumerate();
    let system =
        System::boot(named.fold(spec, |spec, (number, value)| spec.secret(&format!("s{number}"), value)));
    let tree = system.folder().join("tree");
    make_tree(&tree, &mut chance);
    let patterns = system.folder().join("patterns");
    std::fs::write(&patterns, values.join("\n")).expect("a file");

    let mut grep = Command::new("grep");
    grep.args(["-r", "-F", "-f"]).arg(&patterns).arg(&tree);
    let mut pds = Command::new(system.programs().join("pds"));
    pds.args(["-q", "scan"]).arg(&tree).env_clear().envs(system.environment());
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // grep ends with 1 where it finds nothing.
        floor.push(mebibytes_per_second(&mut grep, 1));
        ours.push(mebibytes_per_second(&mut pds, 0));
    }
    Row {
        name: format!("pds scan of a tree for {VALUES} values, against grep -F"),
        unit: "MB/s",
        floor: Some(median(floor)),
        ours: median(ours),
        budget: 1.0,
        more_is_better: true,
    }
}

fn make_tree(folder: &Path, chance: &mut Chance) {
    for number in 0..FILES {
        let place = folder.join(format!("d{}", number % 40));
        std::fs::create_dir_all(&place).expect("a folder");
        let mut text = String::with_capacity(FILE_BYTES + 128);
        while text.len() < FILE_BYTES {
            let length = 3 + chance.below(9);
            let end = if chance.below(9) == 0 { '\n' } else { ' ' };
            text.push_str(&word(chance, length));
            text.push(end);
        }
        std::fs::write(place.join(format!("f{number}.txt")), text).expect("a file");
    }
}

fn word(chance: &mut Chance, length: usize) -> String {
    (0..length).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[chance.below(36)])).collect()
}

fn mebibytes_per_second(command: &mut Command, code: i32) -> f64 {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let taken = time(&mut || {
        let status = command.status().expect("a program that can be started");
        assert_eq!(status.code(), Some(code), "{command:?}");
    });
    (FILES * FILE_BYTES) as f64 / f64::from(1 << 20) / (taken / 1e6)
}

/// All at once, from a file of JSON.
fn import() -> Row {
    let system = System::boot(Spec::new().config(RATES));
    let mut text = String::from("{");
    let mut chance = Chance::of("import");
    for number in 0..IMPORTED {
        let comma = if number == 0 { "" } else { "," };
        write!(text, "{comma}\"team/s{number}\":\"{}\"", word(&mut chance, 100)).expect("memory");
    }
    text.push('}');
    let source = system.folder().join("many.json");
    std::fs::write(&source, text).expect("a file");
    let mut taken = Vec::new();
    for round in 0..ROUNDS {
        let profile = format!("p{round}");
        system.pds(["init", "-p", &profile]).password().run().done();
        taken.push(time(&mut || {
            system.pds(["import", "-p", &profile, "--format", "json"]).arg(&source).run().done();
        }));
    }
    Row {
        name: format!("pds import of {IMPORTED} secrets"),
        unit: "ms",
        floor: None,
        ours: median(taken) / 1e3,
        budget: 2_000.0,
        more_is_better: false,
    }
}
