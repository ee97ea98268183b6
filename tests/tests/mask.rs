//! `pds run --mask`: no value is left in what a program writes, and everything else arrives as it was written.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;

use core_crypto::private_fs;
use tests::terminal::Terminal;
use tests::{Spec, System};

const VALUE: &str = "hunter2+correct/horse";

fn system() -> System {
    System::boot(
        Spec::ready()
            .secret("api-key", VALUE)
            .secret("pem", "-----BEGIN-----\nMIIBVgIBADANBg\n-----END-----\n"),
    )
}

#[test]
fn a_value_is_hidden_in_pipes_raw_and_encoded_and_across_writes() {
    let system = system();
    let line = "printf 'raw %s.' \"$API_KEY\"; printf %s \"$API_KEY\" | base64; printf x%s \"$API_KEY\" | base64; \
        printf xy%s \"$API_KEY\" | base64; printf %s \"$API_KEY\" | od -An -tx1 | tr -d ' \\n'; \
        printf ' split hunter2+'; sleep 0; printf 'correct/horse.'; printf 'error %s' \"$API_KEY\" >&2";
    let ended = system.pds(["run", "--mask", "--", "sh", "-c", line]).run().exits(0);
    let shown = ended.text();
    assert!(shown.starts_with("raw [REDACTED].[REDACTED]"), "{shown}");
    assert_eq!(shown.matches("[REDACTED]").count(), 6, "{shown}");
    assert!(shown.ends_with(" split [REDACTED]."), "{shown}");
    ended.says("error [REDACTED]");
    let left = system
        .pds(["run", "--mask", "--", "sh", "-c", "echo \"$PEM\"; echo \"$PEM\" | base64 -w 20"])
        .run()
        .done();
    assert!(!left.text().contains("MIIB"), "{}", left.text());
}

#[test]
fn every_other_byte_arrives_and_both_streams_keep_their_order() {
    let system = system();
    let noise = system.folder().join("noise");
    let mut state = 1_u32;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(3 << 20)
    .collect();
    std::fs::write(&noise, &bytes).unwrap();
    let noise = noise.to_str().unwrap();
    system.pds(["run", "--mask", "--", "cat", noise]).run().done().prints(&bytes);
    // Also into a file, and with a reader that stops early.
    let pds = system.programs().join("pds");
    let pds = pds.display();
    system
        .shell(&format!("{pds} run --mask -- cat {noise} > {noise}.copy && cmp {noise} {noise}.copy"))
        .run()
        .done();
    system.shell(&format!("timeout 20 {pds} run --mask -- yes | head -1")).run().exits(141).prints("y\n");
    let both = "for i in 1 2 3; do echo out $i; echo err $i >&2; done";
    let mut expected = String::new();
    (1..=3).for_each(|number| writeln!(expected, "out {number}\nerr {number}").unwrap());
    system.shell(&format!("{pds} run --mask -- sh -c '{both}' 2>&1")).run().done().prints(expected);
}

#[test]
fn a_value_is_hidden_on_a_terminal_and_a_prompt_is_not_held_back() {
    let system = system();
    let line = "printf 'Key: '; read answer; echo \"<$API_KEY>\"; printf hunt; read answer; echo er2";
    let mut terminal = Terminal::open(&system, (24, 80), "pds", ["run", "--mask", "--", "sh", "-c", line]);
    terminal.wait_for("Key: ");
    terminal.line("x");
    terminal.wait_for("<[REDACTED]>");
    // The beginning of a value is shown when nothing follows it.
    terminal.wait_for("hunt");
    terminal.line("y");
    terminal.wait_for("er2");
    assert!(terminal.wait().success());
}

#[test]
fn the_end_of_the_program_is_the_end_and_its_code_the_code() {
    let system = system();
    system.pds(["run", "--mask", "--", "sh", "-c", "exit 7"]).run().exits(7);
    system.pds(["run", "--mask", "--", "sh", "-c", "kill -TERM $$"]).run().exits(143);
    system.pds(["run", "--mask", "--", "sh", "-c", "sleep 30 & printf now"]).run().done().prints("now");
    system.pds(["run", "--mask", "--here", "--", "true"]).run().exits(2);
}

#[test]
fn references_and_what_is_handed_on_are_hidden_and_too_much_is_refused() {
    let mut system = system();
    let read = |arguments: &[&str], line: &str| {
        let command = [&["run", "--mask", "--none"], arguments, &["--", "sh", "-c", line]].concat();
        system.pds(command).env("REFERENCE", "pds://default/api-key").run().done().text()
    };
    assert_eq!(read(&[], "echo $REFERENCE"), "[REDACTED]");
    assert_eq!(read(&["--stdin", "api-key"], "cat"), "[REDACTED]");
    assert_eq!(read(&["--fd", "api-key"], "cat <&$API_KEY_FD"), "[REDACTED]");
    let large = system.folder().join("large");
    private_fs::write_atomic(&large, &[b'x'; 70_000]).unwrap();
    system.keep_secret(b"unused");
    system.pds(["set", "large", "--file", large.to_str().unwrap()]).run().done();
    let refused =
        system.pds(["run", "--mask", "--", "touch", large.with_file_name("ran").to_str().unwrap()]).run();
    refused.exits(125).says("at most 65536");
    assert!(!large.with_file_name("ran").exists());
}
