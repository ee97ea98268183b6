//! Command lines of `pds` that bash, zsh and fish themselves complete.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tests::terminal::Terminal;
use tests::{Spec, System};

const VALUE: &str = "canary-value-of-completion";

fn system() -> System {
    System::boot(
        Spec::new()
            .profile("default")
            .secret("db/password", VALUE)
            .secret("db/user", VALUE)
            .secret("api.key-1", VALUE)
            .profile("work")
            .secret("work/token", VALUE)
            .profile("away")
            .locked(),
    )
}

/// What bash offers for a line whose last word is unfinished, with its own way to take lines apart.
fn bash(system: &System, line: &str) -> Vec<String> {
    // COMP_WORDS as bash makes it: a break character is a word of its own (bash(1), COMP_WORDBREAKS).
    let script = r#"
        source <(pds completions bash) || exit 9
        compopt() { :; }
        COMP_LINE=$1 COMP_POINT=${#1}
        mapfile -t COMP_WORDS < <(sed -E 's/ /\n/g; s/([=:]+)/\n\1\n/g' <<<"$1" | sed '/^$/{$!d}')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _pds pds "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    lines(
        &system
            .program("bash", ["--norc", "--noprofile", "-c", script, "bash", line])
            .run()
            .done()
            .says_nothing()
            .text(),
    )
}

fn fish(system: &System, line: &str) -> Vec<String> {
    let script = "pds completions fish | source; complete -C $argv[1]";
    let told = system.program("fish", ["-c", script, line]).run().done().says_nothing().text();
    lines(&told).iter().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn shells_complete_names_of_secrets_and_profiles() {
    let system = system();
    for (line, expected) in [
        ("pds get db/", &["db/password", "db/user"][..]),
        ("pds get db/p", &["db/password"]),
        ("pds -p work get ", &["work/token"]),
        ("pds get nothing", &[]),
        ("pds get -p wo", &["work"]),
        ("pds audit ver", &["verify"]),
        ("pds run --only api.key-1,db/u", &["api.key-1,db/user"]),
    ] {
        assert_eq!(bash(&system, line), expected, "{line}");
        assert_eq!(fish(&system, line), expected, "{line}");
    }
    // Where bash takes a word apart, it completes the last part.
    assert_eq!(bash(&system, "pds get --profile=wo"), ["work"]);
    assert_eq!(fish(&system, "pds get --profile=wo"), ["--profile=work"]);
    assert_eq!(bash(&system, "pds read pds://work/w"), ["//work/work/token"]);
    assert_eq!(fish(&system, "pds read pds://work/w"), ["pds://work/work/token"]);
    assert!(fish(&system, "pds run -- env -").contains(&"-i".to_owned()), "the options of env");
    let audited = system.audit(200);
    let operations: Vec<_> = audited.iter().filter_map(|entry| entry["operation"].as_str()).collect();
    assert!(operations.contains(&"list") && !operations.contains(&"get"), "{operations:?}");
}

#[test]
fn zsh_completes_at_its_prompt() {
    let system = system();
    let mut zsh = Terminal::open(&system, (30, 120), "zsh", ["-f", "-i"]);
    zsh.line("PS1='zsh> '; autoload -U compinit && compinit -D && source <(pds completions zsh); echo ready-$((1+1))");
    zsh.wait_for("ready-2");
    zsh.wait_for("zsh> ");
    zsh.keys("pds get db/p\t");
    // What was typed is not written again.
    zsh.wait_for("assword");
    zsh.keys("\x15pds -p wo\tlist; echo listed-$((1+2))\r");
    zsh.wait_for("work/token");
    zsh.wait_for("listed-3");
    zsh.line("exit");
    assert!(zsh.wait().success());
}

#[test]
fn a_bash_at_its_prompt_completes_names_and_files() {
    let system = system();
    std::fs::write(system.folder().join("a template"), "x").unwrap();
    let mut bash = Terminal::open(&system, (30, 120), "bash", ["--norc", "--noprofile", "-i"]);
    bash.line("source <(pds completions bash); echo ready-$((1+1))");
    bash.wait_for("ready-2");
    bash.keys("pds get db/p\t");
    bash.wait_for("db/password ");
    bash.keys("\x15pds -p=; pds inject -i a\t");
    bash.wait_for("a\\ template ");
    bash.keys("\x15exit\r");
    assert!(bash.wait().success());
}

#[test]
fn where_there_is_nothing_to_offer_nothing_is_said_and_nothing_started() {
    let mut system = system();
    for shell in ["bash", "zsh", "fish"] {
        let asked = |profile: &str| {
            system
                .pds(["--complete-words", shell, "4", "pds", "-p", profile, "get", ""])
                .run()
                .done()
                .says_nothing()
                .text()
        };
        assert_eq!(asked("away"), "words", "locked");
        assert_eq!(asked("missing"), "words");
        assert_eq!(asked("NO NAME"), "words");
        assert_eq!(asked("work"), "words\nwork/token");
    }
    system.write_config("not a configuration");
    let asked =
        || system.pds(["--complete-words", "bash", "2", "pds", "get", ""]).run().done().says_nothing().text();
    assert_eq!(asked(), "words");
    system.write_config("");
    assert_eq!(asked(), "words\napi.key-1\ndb/password\ndb/user");
    system.kill_all();
    assert_eq!(asked(), "words");
    assert!(system.processes().is_empty(), "no daemon was started");
    system.start();
}

#[test]
fn nobody_waits_for_a_bus_that_does_not_answer() {
    let system = system();
    let bus = system.process("daemon-bus").unwrap();
    bus.stop();
    let began = std::time::Instant::now();
    let told =
        system.pds(["--complete-words", "bash", "2", "pds", "get", ""]).run().done().says_nothing().text();
    let took = began.elapsed();
    bus.signal(rustix::process::Signal::CONT);
    assert_eq!(told, "words");
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}
