//! `pds scan`: values and tokens where they should not be are found in every form, and never repeated.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Base64Unpadded, Base64UrlUnpadded, Encoding as _};
use serde_json::Value;
use tests::invocation::Invocation;
use tests::{Spec, System};

/// A value that every encoding changes, and no short piece of which is another's.
const VALUE: &str = "c0rrect/h0rse\"battery staple+?";

fn booted() -> System {
    let spec = Spec::new().profile("default").secret("db/password", VALUE).secret("pin", "1234");
    System::boot(spec.profile("shut").secret("other", "another-secret-value").locked())
}

fn url(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").unwrap();
        }
        text
    })
}

/// The value as other programs write it, with what pds calls that.
fn encodings() -> Vec<(&'static str, String)> {
    let around = |before: &str| format!("{before}{VALUE}behind it");
    let wrapped = Base64::encode_string(
        around("a line of text that makes this one so long that it is broken: ").as_bytes(),
    );
    let lines: Vec<&str> =
        wrapped.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    vec![
        ("plain", VALUE.to_owned()),
        ("base64", Base64::encode_string(around("").as_bytes())),
        ("base64", Base64Unpadded::encode_string(around("u").as_bytes())),
        ("base64", Base64UrlUnpadded::encode_string(around("me").as_bytes())),
        ("base64", lines.join("\n")),
        ("hex", hex::encode(VALUE)),
        ("hex", hex::encode_upper(VALUE)),
        ("url", url(VALUE)),
        ("json", serde_json::to_string(VALUE).unwrap()),
    ]
}

/// A token as GitHub makes them, not written out here.
fn token() -> String {
    format!("{}_{}", "ghp", "aB3".repeat(12))
}

fn git<'a>(system: &'a System, arguments: &[&str]) -> Invocation<'a> {
    let options = ["-C", "repository", "-c", "user.name=n", "-c", "user.email=e@e"];
    system.program("git", [&options[..], arguments].concat()).env("GIT_CONFIG_NOSYSTEM", "1")
}

/// An empty repository, with pds as its pre-commit hook where that is wanted.
fn repository(system: &System, hook: bool) -> PathBuf {
    let folder = system.folder().join("repository");
    fs::create_dir(&folder).unwrap();
    git(system, &["init", "-q", "-b", "main"]).run().done();
    if hook {
        let file = folder.join(".git/hooks/pre-commit");
        fs::write(&file, "#!/bin/sh\nexec pds scan --staged\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn findings(report: &Value) -> Vec<(String, u64, String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let all = report["findings"].as_array().unwrap().iter();
    all.map(|finding| {
        (
            text(finding, "file"),
            finding["line"].as_u64().unwrap(),
            text(finding, "what"),
            text(finding, "encoding"),
        )
    })
    .collect()
}

/// Nothing that was printed holds the value or the token in any form.
fn repeats_nothing(told: &[&[u8]]) {
    for text in told {
        for part in encodings().into_iter().map(|(_, part)| part).chain([token(), "1234".to_owned()]) {
            assert!(!text.windows(part.len()).any(|window| window == part.as_bytes()), "a value was printed");
        }
    }
}

#[test]
fn a_hook_stops_a_commit_of_a_value_in_any_encoding_and_lets_a_clean_one_pass() {
    let system = booted();
    let folder = repository(&system, true);
    let commit = || git(&system, &["commit", "-q", "-m", "x"]).run();
    fs::write(folder.join("clean"), "nothing to see\n").unwrap();
    git(&system, &["add", "."]).run().done();
    commit().done();
    for (number, (encoding, text)) in encodings().into_iter().enumerate() {
        fs::write(folder.join("clean"), format!("line one\nkey = {text};\n{number}\n")).unwrap();
        git(&system, &["add", "."]).run().done();
        // It is in the index alone.
        fs::write(folder.join("clean"), "nothing to see\n").unwrap();
        let stopped = commit().exits(1);
        let how = if encoding == "plain" { String::new() } else { format!(", as {encoding}") };
        let told = String::from_utf8([stopped.stdout.clone(), stopped.stderr.clone()].concat()).unwrap();
        // Where it is broken into lines, it begins behind the first.
        let line = if text.contains('\n') { 3 } else { 2 };
        assert!(
            told.contains(&format!("clean:{line}: secret default/db/password{how}\n")),
            "{encoding}: {told}"
        );
        repeats_nothing(&[&stopped.stdout, &stopped.stderr]);
    }
    fs::write(folder.join("clean"), format!("token: {}\n", token())).unwrap();
    git(&system, &["add", "."]).run().done();
    let stopped = commit().exits(1);
    repeats_nothing(&[&stopped.stdout, &stopped.stderr]);
    // Neither is in what is staged now.
    fs::write(folder.join("clean"), "clean again\n").unwrap();
    git(&system, &["add", "."]).run().done();
    commit().done();
    let count = git(&system, &["rev-list", "--count", "HEAD"]).run().done().text();
    assert_eq!(count, "2");
}

#[test]
fn a_tree_is_looked_through_but_for_what_git_ignores_and_nothing_is_followed() {
    let system = booted();
    let folder = repository(&system, false);
    let write = |name: &str, text: &[u8]| {
        let file = folder.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write("a b/\u{1b}[31mred", VALUE.as_bytes());
    write("binary", &[&[0, 255, 10, 10][..], hex::encode(VALUE).as_bytes(), &[0, 254]].concat());
    write(".gitignore", b"ignored\n");
    write("ignored", VALUE.as_bytes());
    write("token", token().as_bytes());
    write("harmless", b"1234 c0rrect");
    std::os::unix::fs::symlink(folder.join("ignored"), folder.join("link")).unwrap();
    std::os::unix::fs::symlink("/", folder.join("root")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("pipe"), rustix::fs::Mode::from_raw_mode(0o600))
        .unwrap();
    let scan = |arguments: &[&str]| system.pds([&["scan"], arguments].concat());
    let ended = scan(&["repository", "--json"]).run().exits(1);
    let secret = |file: &str, line: u64, encoding: &str| {
        (format!("repository/{file}"), line, "default/db/password".to_owned(), encoding.to_owned())
    };
    let mut expected = vec![
        secret("a b/\u{1b}[31mred", 1, "plain"),
        secret("binary", 3, "hex"),
        ("repository/token".to_owned(), 1, "GitHub token".to_owned(), "plain".to_owned()),
    ];
    expected.sort();
    assert_eq!(findings(&ended.json()), expected);
    assert_eq!(ended.json()["too_short"], serde_json::json!(["default/pin"]));
    repeats_nothing(&[&ended.stdout, &ended.stderr]);
    // As text: what steers a terminal is escaped, and what is too short is told.
    let text = scan(&["repository"]).run().exits(1);
    assert!(!text.stdout.contains(&0x1b));
    text.says("default/pin").prints_among("binary:3: secret default/db/password, as hex\n");
    // Outside of git, in a file alone, and where nothing is.
    fs::rename(folder.join(".git"), system.folder().join("gone")).unwrap();
    assert_eq!(findings(&scan(&["repository", "--json"]).run().exits(1).json()).len(), 4);
    scan(&["repository/ignored"]).run().exits(1);
    scan(&["repository/harmless"]).run().done().prints("");
    scan(&["nowhere"]).run().exits(1).says("cannot be read");
    scan(&["repository", "--staged"]).run().exits(1).says("git");
}

#[test]
fn a_history_is_looked_through_to_its_ends() {
    let system = booted();
    let folder = repository(&system, false);
    let commit = |text: &str, message: &str| {
        fs::write(folder.join("file"), text).unwrap();
        git(&system, &["add", "."]).run().done();
        git(&system, &["commit", "-q", "-m", message]).run().done();
    };
    commit("first\n", "harmless");
    system.pds(["scan", "--history", "repository"]).run().done().prints("");
    commit(&format!("\n\n{VALUE}\n"), "by mistake");
    commit("removed\n", "removed it");
    commit("more\n", &format!("the password was {VALUE}"));
    system.pds(["scan", "repository"]).run().done();
    system.pds(["scan", "--staged", "repository"]).run().done();
    let ended = system.pds(["scan", "--history", "--json", "repository"]).run().exits(1);
    let found = findings(&ended.json());
    assert_eq!(found.len(), 2);
    assert!(found.iter().any(|(file, line, ..)| file == "file" && *line == 3));
    assert!(found.iter().any(|(file, ..)| file.starts_with("commit ")));
    repeats_nothing(&[&ended.stdout, &ended.stderr]);
    let object = ended.json()["findings"][1]["object"].as_str().unwrap().to_owned();
    git(&system, &["cat-file", "-e", &object]).run().done();
}

#[test]
fn a_repository_makes_nothing_run() {
    let system = booted();
    let folder = repository(&system, false);
    fs::write(folder.join("file"), "text\n").unwrap();
    fs::write(folder.join(".gitattributes"), "* diff=evil filter=evil\n").unwrap();
    git(&system, &["add", "."]).run().done();
    let proof = system.folder().join("it-ran");
    let touch = format!("touch {}", proof.display());
    for key in [
        "core.fsmonitor",
        "diff.external",
        "diff.evil.command",
        "diff.evil.textconv",
        "core.pager",
        "filter.evil.clean",
        "filter.evil.smudge",
    ] {
        git(&system, &["config", key, &touch]).run().done();
    }
    git(&system, &["status"]).run().done();
    assert!(proof.exists(), "the trap works");
    fs::remove_file(&proof).unwrap();
    for how in [&["--staged"][..], &["--history"], &[]] {
        system.pds([&["scan"], how, &["repository"]].concat()).run().done();
        assert!(!proof.exists(), "{how:?}");
    }
}

#[test]
fn histories_of_shells_are_looked_through() {
    let system = booted();
    let home = system.folder().join("home");
    let scan = || system.pds(["scan", "--shell-history", "--json"]);
    scan().run().exits(1).says("no history");
    let write = |name: &str, text: String| {
        fs::create_dir_all(home.join(name).parent().unwrap()).unwrap();
        fs::write(home.join(name), text).unwrap();
    };
    write(".bash_history", "ls\n".to_owned());
    scan().run().done();
    write(".bash_history", format!("ls\ncurl -H 'X: {VALUE}'\n"));
    write(".zsh_history", format!(": 1700000000:0;export T={}\n", token()));
    write(".local/share/fish/fish_history", format!("- cmd: echo {}\n  when: 1\n", hex::encode(VALUE)));
    write("elsewhere", VALUE.to_owned());
    let ended = scan().env("HISTFILE", home.join("elsewhere")).run().exits(1);
    let found: Vec<String> = findings(&ended.json()).into_iter().map(|(file, ..)| name_of(&file)).collect();
    assert_eq!(found, [".bash_history", "fish_history", ".zsh_history", "elsewhere"]);
    repeats_nothing(&[&ended.stdout, &ended.stderr]);
}

fn name_of(file: &str) -> String {
    Path::new(file).file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn only_what_is_unlocked_is_looked_for_and_without_daemons_only_tokens() {
    let system = booted();
    let file = |text: &str| fs::write(system.folder().join("file"), text).unwrap();
    file("another-secret-value");
    system.pds(["scan", "file"]).run().done();
    system.pds(["scan", "-p", "shut", "file"]).run().exits(3).says("locked");
    file(VALUE);
    system.pds(["scan", "file"]).run().exits(1);
    system.pds(["lock"]).run().done();
    system.pds(["scan", "file"]).run().done().says("no profile is unlocked");
    file(&token());
    system.pds(["scan", "file"]).run().exits(1);
    system.kill_all();
    system.pds(["scan", "file"]).run().exits(1).says("no profile is unlocked");
}

#[test]
fn what_was_not_looked_at_is_told_and_is_no_success() {
    let system = booted();
    let folder = system.folder().join("tree");
    fs::create_dir_all(folder.join(["x"; 200].join("/"))).unwrap();
    fs::write(folder.join("clean"), "nothing").unwrap();
    let scanned = system.pds(["scan", "--json", folder.to_str().unwrap()]).run().exits(1);
    assert_eq!(scanned.json()["findings"], Value::Array(Vec::new()));
    assert_eq!(scanned.json()["skipped"].as_array().unwrap().len(), 1);
    scanned.says("was not looked at");
    fs::remove_dir_all(folder.join("x")).unwrap();
    system.pds(["scan", folder.to_str().unwrap()]).run().done();
}
