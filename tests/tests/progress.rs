//! Progress of long work: on a terminal while it lasts, and never a byte of it in a pipe.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::path::Path;

use tests::system::wait_for;
use tests::terminal::Terminal;
use tests::{PASSWORD, Spec, System};

/// Values of the largest size, so many that each of the works takes far longer than until it shows a bar.
const VALUES: usize = 24;

fn values(path: &Path, prefix: &str) {
    let mut text = "{".to_owned();
    for number in 0..VALUES {
        let separator = if number == 0 { "" } else { "," };
        let value = format!("{number:04}").repeat(1 << 18);
        write!(text, "{separator}\"{prefix}{number}\":\"{value}\"").unwrap();
    }
    text.push('}');
    std::fs::write(path, text).unwrap();
}

/// What a command shows on a terminal, to its end.
fn shown(terminal: &mut Terminal<'_>, command: &str) -> String {
    terminal.line(&format!("{command}; echo ended-$((1+1))-$?"));
    let text = terminal.wait_for("ended-2-0");
    terminal.wait_for(tests::terminal::PROMPT);
    text
}

/// The bar came again and again over itself, and was wiped off at the end: nothing of it is in what a reader sees then.
fn came_and_went(text: &str, bar: &str) {
    assert!(text.contains(&format!("\r{bar}")), "{text:?}");
    let mut line = Vec::new();
    let mut column = 0;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' => column = 0,
            '\n' => {
                line.clear();
                column = 0;
            }
            '\x1b' if letters.next_if_eq(&'[').is_some() => {
                let end = letters.by_ref().find(char::is_ascii_alphabetic);
                if end == Some('K') {
                    line.truncate(column);
                }
            }
            other => {
                line.resize(line.len().max(column + 1), ' ');
                line[column] = other;
                column += 1;
            }
        }
    }
    let left: String = line.into_iter().collect();
    assert_eq!(left.trim(), "", "what is left on the line of the bar");
}

#[test]
fn a_bar_is_on_a_terminal_while_work_lasts_and_in_no_pipe() {
    let system = System::boot(Spec::new().profile("default"));
    let at = |name: &str| system.folder().join(name);
    values(&at("one.json"), "one/");
    values(&at("two.json"), "two/");
    std::fs::write(at("password"), PASSWORD).unwrap();
    let mut terminal = Terminal::bash(&system);
    let text = shown(&mut terminal, "pds import --format json one.json </dev/null");
    came_and_went(text.split("imported").next().unwrap(), "storing  [");
    came_and_went(&shown(&mut terminal, "pds backup kept"), "writing  [");
    let restore = "pds restore-backup --yes kept --password-file password";
    came_and_went(&shown(&mut terminal, restore), "checking  [");
    came_and_went(&shown(&mut terminal, "pds rekey --password-file password"), "\x1b[K[");
    let quiet = shown(&mut terminal, "pds -q backup quiet");
    assert!(!quiet.contains("writing"), "-q says nothing");
    terminal.line("exit");
    terminal.wait();
    for line in [
        "pds import --format json two.json",
        "pds backup other",
        "pds restore-backup --yes other --password-file password",
        "pds rekey --password-file password",
    ] {
        let ended = system.shell(line).run().done();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(!said.contains(['\r', '\x1b', '[']), "{line}: {said:?}");
        assert!(ended.stdout.is_empty(), "{line}");
    }
}

#[test]
fn a_question_is_on_the_terminal_and_nothing_of_it_in_a_pipe() {
    let system = System::boot(Spec::new().profile("default").secret("a", "value"));
    let mut terminal = Terminal::bash(&system);
    terminal.line("pds rm a >out 2>err; echo ended-$?");
    terminal.wait_for("[y/N] ");
    terminal.line("n");
    terminal.wait_for("ended-1");
    terminal.line("pds set b >out 2>>err; echo ended-$?");
    terminal.wait_for("Value of 'b': ");
    terminal.line("typed-value");
    let text = terminal.wait_for("ended-0");
    assert!(!text.contains("typed-value"), "what is typed is hidden");
    terminal.line("exit");
    terminal.wait();
    for name in ["out", "err"] {
        let kept = wait_for(name, || std::fs::read_to_string(system.folder().join(name)).ok());
        assert!(!kept.contains("[y/N]") && !kept.contains("Value of"), "{name}: {kept}");
    }
    assert_eq!(system.pds(["get", "b"]).run().done().text(), "typed-value");
}
