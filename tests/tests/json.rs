//! What every command prints with `--json`, held against what `docs/json.md` says of it.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use serde_json::Value;
use tests::schema::Schemas;
use tests::ssh::SshAgent;
use tests::{Invocation, Output, Spec, System};

/// Runs commands and checks what they print.
struct Checked<'a> {
    system: &'a System,
    page: Schemas,
}

impl<'a> Checked<'a> {
    /// A command of these words, which must work; more words may follow.
    fn run(&mut self, command: &str, more: &[&str]) -> Value {
        self.given(command, more, |invocation| invocation, |output| output.done().json())
    }

    fn given(
        &mut self,
        command: &str,
        more: &[&str],
        prepare: impl FnOnce(Invocation<'a>) -> Invocation<'a>,
        look: impl FnOnce(Output) -> Value,
    ) -> Value {
        let words: Vec<&str> = command.split(' ').chain(more.iter().copied()).chain(["--json"]).collect();
        let object = look(prepare(self.system.pds(words)).run());
        self.page.check(command, &object);
        object
    }

    fn with_password(&mut self, command: &str, more: &[&str]) -> Value {
        self.given(command, more, Invocation::password, |output| output.done().json())
    }
}

fn words_file(folder: &Path, made: &Value) -> String {
    let words: Vec<&str> = made["words"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let file = folder.join("words");
    std::fs::write(&file, words.join(" ")).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn every_object_is_as_it_is_described() {
    let agent = SshAgent::start();
    agent.add("ed25519", "work");
    let system = System::boot(
        Spec::new()
            .below(Path::new("/dev/shm"))
            .profile("default")
            .secret("otp", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
            .secret("bytes", b"\xff")
            .variable("SSH_AUTH_SOCK", agent.socket().to_str().unwrap())
            .config("[profiles.default.access.backup]\nget = [\"a*\"]\n"),
    );
    let mut page = Checked { system: &system, page: Schemas::read(include_str!("../../docs/json.md")) };
    secrets(&mut page);
    moving(&mut page);
    judging(&mut page);
    unlocking(&mut page);
    daemons(&mut page);
    assert_eq!(page.page.unchecked(), [""; 0], "these were not run");
}

fn secrets(page: &mut Checked<'_>) {
    page.given(
        "set",
        &["a", "--note", "x", "--expires", "30d"],
        |set| set.stdin("1234567890-value"),
        |set| set.done().json(),
    );
    page.run("set", &["b", "--generate"]);
    page.run("get", &["a"]);
    page.run("get", &["bytes"]);
    page.run("read", &["pds://default/a"]);
    page.given("edit", &["a"], |edit| edit.env("EDITOR", "sed -i s/1/2/"), |edit| edit.done().json());
    page.run("qr", &["a", "--yes"]);
    page.run("totp", &["otp"]);
    page.run("list", &["--long"]);
    page.run("mv", &["b", "c", "--yes"]);
    page.run("rm", &["c", "--yes"]);
    page.run("history", &["c"]);
    page.run("restore", &["c"]);
    page.run("purge", &["a", "--yes"]);
    page.run("env", &["--only", "a"]);
    page.run("audit tail", &[]);
    page.run("audit show", &["--secret", "a"]);
    page.run("audit verify", &[]);
    page.run("audit unused", &["--since", "0s"]);
    page.run("audit age", &["--over", "0s"]);
}

fn moving(page: &mut Checked<'_>) {
    let at = |name: &str| page.system.folder().join(name).to_str().unwrap().to_owned();
    let (source, backup) = (at("source.env"), at("backup"));
    std::fs::write(&source, "IMPORTED=1234567890-value\n").unwrap();
    page.given("scan", &[&source], |scan| scan, |scan| scan.any().json());
    page.run("import", &["--format", "dotenv", "--dry-run", &source]);
    page.run("import", &["--format", "dotenv", &source]);
    let mounted = at("mounted");
    page.run("mount", &["--only", "a", &mounted]);
    page.run("umount", &[&mounted]);
    page.run("backup", &[&backup]);
    page.with_password("restore-backup", &["--yes", &backup]);
    let child = page.system.pds(["run", "--only", "a", "--", "cat"]).stdin_stays_open().start();
    let ps = tests::system::wait_for("the child runs", || {
        let told = page.system.pds(["ps", "--json"]).run().done().json();
        (told["children"].as_array().is_some_and(|children| children.len() == 1)).then_some(told)
    });
    page.page.check("ps", &ps);
    drop(child);
}

fn judging(page: &mut Checked<'_>) {
    page.run("enroll", &["backup"]);
    page.run("enrolled", &[]);
    page.run("grant", &["otp", "--to", "backup", "--uses", "3"]);
    page.run("grants", &[]);
    let explained = page.run("explain", &["otp", "--as", "backup"]);
    assert!(explained["grant"].is_object());
    assert!(page.run("explain", &["a", "--as", "backup"])["rule"].is_object());
    page.run("explain", &["a"]);
    let grant = page.run("grants", &[])["grants"][0]["id"].as_str().unwrap().to_owned();
    page.run("revoke-grant", &[&grant]);
    page.run("revoke", &["backup"]);
    page.run("config check", &[]);
    let tested = page.system.folder().join("tested.toml");
    let test = "[[test]]\nrequester = \"cli\"\noperation = \"get\"\nname = \"a\"\nexpected = \"deny\"\n";
    std::fs::write(&tested, test).unwrap();
    let failed =
        page.given("config check", &[tested.to_str().unwrap()], |check| check, |check| check.exits(1).json());
    assert_eq!(failed["tests"][0]["passed"], false);
    std::fs::write(&tested, "nonsense").unwrap();
    page.given("config check", &[tested.to_str().unwrap()], |check| check, |check| check.exits(1).json());
}

fn unlocking(page: &mut Checked<'_>) {
    let new = page.system.folder().join("new");
    std::fs::write(&new, "another password\n").unwrap();
    let new = new.to_str().unwrap().to_owned();
    page.with_password("init", &["-p", "other"]);
    page.run("wait", &["-p", "other"]);
    page.run("lock", &["-p", "other"]);
    page.with_password("unlock", &["-p", "other"]);
    page.with_password("factor add password", &["-p", "other", "--new-password-file", &new]);
    page.with_password("factor add ssh-agent", &["-p", "other"]);
    page.run("factor list", &["-p", "other"]);
    page.with_password("factor remove", &["2", "-p", "other"]);
    page.with_password("factor policy", &["any", "-p", "other"]);
    let made = page.with_password("recovery new", &["-p", "other", "--yes"]);
    let words = words_file(page.system.folder(), &made);
    page.run("recovery check", &["-p", "other", "--code-file", &words]);
    page.run("lock", &["-p", "other"]);
    page.run("recovery use", &["-p", "other", "--code-file", &words]);
    page.with_password("passwd", &["-p", "other", "--new-password-file", &new]);
    page.with_password("rekey", &["-p", "default"]);
    page.run("profile list", &[]);
}

fn daemons(page: &mut Checked<'_>) {
    page.run("status", &[]);
    page.given("doctor", &[], |doctor| doctor, |doctor| doctor.any().json());
    page.run("daemon logs", &["-n", "3"]);
    page.run("daemon restart", &[]);
    page.run("daemon stop", &[]);
    page.run("daemon start", &[]);
    page.with_password("unlock", &[]);
}
