//! `pds run --fd` and `--stdin`: secrets that a program reads, and that no environment holds.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core_crypto::SecureBytes;
use tests::terminal::{PROMPT, Terminal};
use tests::{Spec, System};

/// Any bytes that no environment would take.
fn binary(bytes: usize) -> Vec<u8> {
    let mut value = SecureBytes::random(bytes).unwrap().expose().to_vec();
    value[0] = 0;
    value
}

#[test]
fn a_descriptor_gives_the_value_exactly_whatever_its_bytes_and_size() {
    let large = binary(1 << 20);
    let system =
        System::boot(Spec::ready().secret("large/one", &large).secret("empty", "").secret("other", "x"));
    let run = |options: &[&str], script: &str| {
        system.pds([&["run"], options, &["--", "sh", "-c", script]].concat()).run().done()
    };
    run(&["--fd", "large/one"], r"cat <&$LARGE_ONE_FD").prints(&large);
    run(&["--fd", "large/one"], "cat /proc/self/fd/$LARGE_ONE_FD").prints(&large);
    let two = &["--fd", "empty", "--fd", "large/one", "--prefix", "P_"][..];
    run(two, "echo $P_EMPTY_FD $P_LARGE_ONE_FD; cat <&3; cat <&4 | wc -c").prints("3 4\n1048576\n");
    run(&["--stdin", "large/one"], "cat").prints(&large);
    run(&["--stdin", "empty", "--fd", "large/one"], "cat; cat <&3").prints(&large);
    // Standard input is the secret and not what the caller has there.
    let read = ["run", "--stdin", "other", "--only", "empty", "--", "cat"];
    system.pds(read).stdin("the caller's").run().done().prints("x");
}

#[test]
fn nobody_can_change_what_a_descriptor_gives() {
    let system = System::boot(Spec::ready().secret("a", "value"));
    let script =
        "exec 2>/dev/null; echo x >&3 && echo written; echo x >/proc/self/fd/3 && echo opened; cat <&3";
    system.pds(["run", "--fd", "a", "--", "sh", "-c", script]).run().done().prints("value");
    system.pds(["run", "--stdin", "a", "--", "sh", "-c", "echo x >&0 && echo written; cat"]).run().done();
}

#[test]
fn what_is_handed_on_is_no_variable_unless_the_selection_names_it() {
    let system = System::boot(Spec::ready().secret("a", "1").secret("b", "2").secret("c", "3"));
    let shows = |options: &[&str], expected: &str| {
        let script = "env | grep -E '^(A|B|C)(_FD)?=' | sort; ls /proc/self/fd | wc -l";
        let arguments = [&["run"], options, &["--", "sh", "-c", script]].concat();
        system.pds(arguments).run().done().prints(expected);
    };
    // The three streams, the listing's own, and what is handed on.
    shows(&[], "A=1\nB=2\nC=3\n4\n");
    shows(&["--fd", "a", "--stdin", "b"], "A_FD=3\nC=3\n5\n");
    shows(&["--fd", "a", "--only", "c"], "A_FD=3\nC=3\n5\n");
    shows(&["--fd", "a", "--only", "a,c"], "A=1\nA_FD=3\nC=3\n5\n");
    shows(&["--fd", "a", "--fd", "b", "--fd", "c"], "A_FD=3\nB_FD=4\nC_FD=5\n7\n");
    shows(&["--fd", "a", "--only", "c", "--env", "B=a"], "A_FD=3\nB=1\nC=3\n5\n");
}

#[test]
fn several_profiles_give_descriptors_by_the_same_rule_as_variables() {
    let spec = Spec::ready().secret("a", "mine").profile("other").secret("a", "theirs").secret("b", "2");
    let system = System::boot(spec);
    let run = ["run", "-p", "default", "-p", "other", "--only", "a", "--fd", "a", "--stdin", "b"];
    system.pds([&run[..], &["--", "sh", "-c", "cat; cat <&3"]].concat()).run().done().prints("2mine");
}

#[test]
fn what_cannot_be_handed_on_is_refused_before_anything_runs() {
    let system = System::boot(Spec::ready().secret("a", "1").secret("a-fd", "2"));
    let refused = |options: &[&str], word: &str| {
        let proof = system.folder().join("it-ran");
        let command = ["--", "touch", proof.to_str().unwrap()];
        system.pds([&["run"], options, &command].concat()).run().exits(125).says(word);
        assert!(!proof.exists());
    };
    refused(&["--fd", "missing"], "missing");
    refused(&["--stdin", "missing", "--only", "a"], "missing");
    refused(&["--fd", "a"], "A_FD");
    refused(&["--fd", "a", "--fd", "a", "--only", "a"], "A_FD");
    system.pds(["run", "--stdin", "a", "--stdin", "a-fd", "--", "true"]).run().exits(2);
    system.pds(["run", "--fd", "../a", "--", "true"]).run().exits(2);
    system.pds(["run", "--fd", "a", "--only", "a", "--", "/nonexistent"]).run().exits(127);
}

#[test]
fn a_value_that_no_variable_takes_says_how_to_hand_it_on() {
    let system = System::boot(Spec::ready().secret("nul", b"a\0b").secret("long", vec![b'x'; 200_000]));
    for name in ["nul", "long"] {
        let run = ["run", "--only", name, "--", "true"];
        system.pds(run).run().exits(125).says(&format!("--fd {name}"));
    }
}

#[test]
fn on_a_terminal_the_secret_is_standard_input_and_the_rest_stays_the_terminal() {
    let system = System::boot(Spec::ready().secret("a", "from the vault\n"));
    let mut terminal = Terminal::bash(&system);
    terminal.line("pds run --stdin a -- sh -c 'read line; test -t 0; echo got-$line-$?; test -t 1; echo out-$?; read typed </dev/tty; echo typed-$typed'; echo code=$?");
    terminal.wait_for("got-from the vault-1");
    terminal.wait_for("out-0");
    terminal.line("hello");
    terminal.wait_for("typed-hello");
    terminal.wait_for("code=0");
    terminal.wait_for(PROMPT);
}

#[test]
fn the_log_tells_of_what_was_handed_on() {
    let system = System::boot(Spec::ready().secret("a", "1").secret("b", "2").secret("c", "3"));
    system.pds(["run", "--fd", "a", "--stdin", "b", "--only", "c", "--", "true"]).run().done();
    let entries = system.audit(100);
    let run = entries.iter().find(|entry| entry["operation"] == "run").unwrap();
    assert_eq!(run["child"]["secrets"], serde_json::json!(["a", "b", "c"]));
    assert_eq!(run["child"]["variables"], serde_json::json!(["A_FD", "C"]));
}
