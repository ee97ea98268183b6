//! `pds edit` with real editors, and what is left when it ends in any way.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tests::canary::Canary;
use tests::system::wait_for;
use tests::terminal::Terminal;
use tests::{Running, Spec, System};

const VALUE: &str = "canary-5d41402abc4b2a76b9719d911017c592";

/// In memory, as a user's runtime folder is.
fn spec() -> Spec {
    Spec::new().below(Path::new("/dev/shm")).profile("default").secret("a", VALUE)
}

fn places(system: &System) -> PathBuf {
    system.paths().runtime().join("edit")
}

fn is_clean(system: &System) {
    let left: Vec<_> = places(system).read_dir().unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(Canary::new(VALUE.as_bytes()).in_files(system.folder()), []);
}

fn value(system: &System, name: &str) -> String {
    system.pds(["get", name]).run().done().text()
}

/// An editor of one line of shell, `$1` being the file.
fn shell(line: &str) -> String {
    format!("sh -c '{line}' sh")
}

#[test]
fn what_the_editor_changed_is_the_next_version_and_all_else_stays() {
    let system = System::boot(spec());
    system.pds(["set", "b", "--note", "of ACME", "--expires", "2099-01-01"]).stdin("old").run().done();
    let edit = |name: &str, editor: &str| system.pds(["edit", name]).without("VISUAL").env("EDITOR", editor);
    edit("b", "sed -i s/old/new/").run().done().says("stored 'b'").prints("");
    assert_eq!(value(&system, "b"), "new");
    let shown = system.pds(["list", "b", "--json"]).run().done().json();
    let secret = &shown["secrets"][0];
    assert_eq!((&secret["note"], &secret["version"]), (&"of ACME".into(), &2.into()));
    assert_eq!(secret["expires_at"], "2099-01-01T00:00:00Z");
    edit("b", "true").run().done().says("unchanged");
    edit("b", "false").run().exits(1).says("nothing is stored");
    edit("b", &shell("rm \"$1\"")).run().exits(1).says("left no file");
    edit("b", &shell("rm \"$1\"; ln -s /etc/passwd \"$1\"")).run().exits(1).says("left no file");
    edit("b", &shell("head -c 2000000 /dev/zero >\"$1\"")).run().exits(1).says("larger than");
    edit("b", "/nonexistent/editor").run().exits(1).says("127");
    assert_eq!(system.pds(["list", "b", "--json"]).run().done().json()["secrets"][0]["version"], 2);
    // The final line feed that ed adds is no part of the value. VISUAL comes first.
    let ed = edit("b", "false").env("VISUAL", "ed -s").stdin("s/new/newer/\nw\nq\n").run().done();
    ed.says("left out");
    system.pds(["get", "b"]).run().done().prints("newer");
    edit("new/one", &shell("echo made >\"$1\"")).run().done();
    system.pds(["get", "new/one"]).run().done().prints("made");
    edit("new/none", "true").run().done().says("unchanged");
    system.pds(["get", "new/none"]).run().exits(4);
    let told = edit("b", "true").arg("--json").run().done().json();
    assert_eq!(told, serde_json::json!({"profile": "default", "name": "b", "changed": false, "bytes": 5}));
    edit("../b", "true").run().exits(2);
    is_clean(&system);
}

#[test]
fn the_file_is_private_in_memory_and_gone_with_what_lay_beside_it() {
    let system = System::boot(spec());
    let facts = system.folder().join("facts");
    let line = format!(
        "{{ stat -c %a \"$1\" \"$(dirname \"$1\")\"; stat -f -c %T \"$1\"; grep core /proc/self/limits; }} >{}; cp \"$1\" \"$1~\"; printf x >>\"$1\"",
        facts.display()
    );
    system.pds(["edit", "a"]).env("EDITOR", shell(&line)).run().done();
    let facts = std::fs::read_to_string(facts).unwrap();
    assert!(facts.starts_with("600\n700\ntmpfs\n"), "{facts}");
    let core: Vec<&str> = facts.lines().last().unwrap().split_ascii_whitespace().collect();
    assert_eq!(core[4], "1", "no core can be made of one byte");
    assert_eq!(value(&system, "a"), format!("{VALUE}x"));
    is_clean(&system);
}

#[test]
fn vim_writes_nothing_elsewhere_whatever_its_configuration_says() {
    let system = System::boot(spec().variable("EDITOR", "vi"));
    let home = system.folder().join("home");
    std::fs::create_dir(home.join("kept")).unwrap();
    let vimrc =
        "set backup writebackup backupdir=~/kept directory=~/kept\nsilent! set undofile undodir=~/kept\n";
    for name in [".vimrc", ".virc"] {
        std::fs::write(home.join(name), vimrc).unwrap();
    }
    let mut terminal = Terminal::bash(&system);
    terminal.line("pds edit a; echo ended-$?");
    terminal.wait_for(VALUE);
    terminal.keys("yyAx\x1b:w\rAy\x1b:wq\r");
    terminal.wait_for("ended-0");
    terminal.line("exit");
    assert!(terminal.wait().success());
    assert_eq!(value(&system, "a"), format!("{VALUE}xy"));
    is_clean(&system);
}

#[test]
fn what_somebody_else_stored_meanwhile_stays() {
    let system = System::boot(spec());
    let edit = |name: &str, line: &str| {
        let ended =
            system.pds(["edit", name]).env("EDITOR", shell(&format!("{line}; printf mine >\"$1\""))).run();
        ended.exits(1).says("somebody else");
    };
    edit("a", "printf theirs | pds set a");
    assert_eq!(value(&system, "a"), "theirs");
    edit("new", "printf theirs | pds set new");
    assert_eq!(value(&system, "new"), "theirs");
    edit("new", "pds rm --yes new");
    system.pds(["get", "new"]).run().exits(4);
    is_clean(&system);
}

/// `pds edit a`, with an editor that has written and does not end; its number.
fn amid(system: &System) -> (Running<'_>, u32) {
    let mark = system.folder().join("mark");
    let _none_yet = std::fs::remove_file(&mark);
    let line =
        format!("printf mine >\"$1\"; echo $$ >{0}.new; mv {0}.new {0}; exec sleep 600", mark.display());
    let running = system.pds(["edit", "a"]).env("EDITOR", shell(&line)).stdin_stays_open().start();
    let text = wait_for("the editor runs", || std::fs::read_to_string(&mark).ok());
    (running, text.trim().parse().unwrap())
}

#[test]
fn a_signal_in_the_middle_leaves_nothing_and_stores_nothing() {
    let system = System::boot(spec());
    for signal in [Signal::TERM, Signal::HUP] {
        let (running, editor) = amid(&system);
        assert_eq!(places(&system).read_dir().unwrap().count(), 1);
        running.process().signal(signal);
        running.wait().killed_by(signal.as_raw());
        assert!(!Path::new(&format!("/proc/{editor}")).exists(), "the editor has ended");
        is_clean(&system);
    }
    assert_eq!(value(&system, "a"), VALUE);
}

#[test]
fn what_a_kill_left_is_removed_by_the_next_edit() {
    let system = System::boot(spec());
    let (running, editor) = amid(&system);
    running.process().signal(Signal::KILL);
    assert!(running.process().wait_end(tests::deadline()));
    // The editor has its output.
    let editor = tests::process::Pinned::open(editor).unwrap();
    editor.signal(Signal::KILL);
    assert!(editor.wait_end(tests::deadline()));
    running.wait().killed_by(9);
    assert_eq!(places(&system).read_dir().unwrap().count(), 1);
    system.pds(["edit", "a"]).env("EDITOR", "true").run().done();
    is_clean(&system);
}

#[test]
fn the_interrupt_key_is_the_editors_and_ends_pds_with_it() {
    let system = System::boot(spec());
    // An editor that makes something else of it.
    let fifo = system.folder().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let line = format!("printf mine >\"$1\"; read line <{}", fifo.display());
    let running = system.pds(["edit", "a"]).env("EDITOR", shell(&line)).start();
    let mut writer = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    running.process().signal(Signal::INT);
    std::io::Write::write_all(&mut writer, b"go on\n").unwrap();
    running.wait().done();
    assert_eq!(value(&system, "a"), "mine");
    // One that ends of it, on a terminal.
    let mut terminal = Terminal::bash(&system);
    terminal.line("EDITOR='sh -c \"echo run-$((1+1)); exec sleep 600\"' pds edit a; echo ended-$?");
    terminal.wait_for("run-2");
    terminal.keys("\x03");
    terminal.line("echo still-$((1+1))");
    terminal.wait_for("still-2");
    terminal.line("exit");
    terminal.wait();
    is_clean(&system);
}
