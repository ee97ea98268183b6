//! How fast a child writes into a pipe, with `pds run` around it and without.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use tests::System;

use crate::measure::{Row, median};

const BYTES: u64 = 1 << 29;
/// So many where each is looked at.
const LOOKED_AT: u64 = 1 << 26;
const ROUNDS: usize = 15;

/// The rows: as it is, and with values looked for in it.
pub(crate) fn all(system: &System) -> Vec<Row> {
    vec![
        pipe(system, "a child's pipe throughput under `pds run`", &[], BYTES, 0.98),
        // Nothing is promised of that yet.
        pipe(system, "the same with --mask", &["--mask"], LOOKED_AT, 0.0),
    ]
}

fn pipe(system: &System, name: &str, options: &[&str], bytes: u64, budget: f64) -> Row {
    let writer = ["head", "-c", &bytes.to_string(), "/dev/zero"].map(str::to_owned);
    let pds = system.programs().join("pds").display().to_string();
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    let around = [vec![pds, "run".to_owned()], options, vec!["--".to_owned()], writer.to_vec()].concat();
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.push(mebibytes_per_second(system, &writer, bytes));
        ours.push(mebibytes_per_second(system, &around, bytes));
    }
    Row {
        name: name.to_owned(),
        unit: "MB/s",
        floor: Some(median(floor)),
        ours: median(ours),
        budget,
        more_is_better: true,
    }
}

/// From the first byte to the end, so that starting is not counted.
fn mebibytes_per_second(system: &System, arguments: &[String], bytes: u64) -> f64 {
    let mut child = Command::new(&arguments[0])
        .args(&arguments[1..])
        .env_clear()
        .envs(system.environment())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a program that can be started");
    let mut pipe = child.stdout.take().expect("a pipe");
    let mut buffer = vec![0; 1 << 16];
    let mut read = pipe.read(&mut buffer).expect("the first bytes") as u64;
    let began = Instant::now();
    loop {
        match pipe.read(&mut buffer).expect("a pipe that can be read") {
            0 => break,
            count => read += count as u64,
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(read, bytes);
    assert!(child.wait().expect("a child").success());
    bytes as f64 / f64::from(1 << 20) / seconds
}
