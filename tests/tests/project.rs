//! `pds.toml`: what the commands of a project are given, said beside its sources.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::PathBuf;

use tests::invocation::Invocation;
use tests::{Spec, System};

/// A system with three secrets, and a project with a folder below.
fn project(text: &str) -> (System, PathBuf) {
    let system =
        System::boot(Spec::ready().secret("api-key", "k").secret("db/url", "u").secret("db/password", "p"));
    let below = system.folder().join("project/src/deep");
    std::fs::create_dir_all(&below).unwrap();
    write(&system, text);
    (system, below)
}

fn file(system: &System) -> PathBuf {
    system.folder().join("project/pds.toml")
}

fn write(system: &System, text: &str) {
    std::fs::write(file(system), text).unwrap();
    std::fs::set_permissions(file(system), std::fs::Permissions::from_mode(0o644)).unwrap();
}

/// `pds run` in the project with these options: the variables that the command has of the secrets.
fn run<'a>(system: &'a System, below: &std::path::Path, options: &[&str]) -> Invocation<'a> {
    let command = ["--", "sh", "-c", "env | grep -E '^(APP_|API_KEY|DB_|URL)' | sort"];
    let arguments = [&["-v", "run"], options, &command[..]].concat();
    system.pds(arguments).current_dir(below)
}

#[test]
fn the_nearest_file_above_says_what_a_command_is_given_and_the_command_line_has_the_last_word() {
    let (system, below) = project("only = ['db/*']\nprefix = 'APP_'\n[env]\nURL = 'db/url'\n");
    let ended = run(&system, &below, &[]).run().done();
    ended.prints("APP_DB_PASSWORD=p\nAPP_DB_URL=u\nURL=u\n");
    ended.says(&file(&system).display().to_string());
    run(&system, &below, &["--only", "api-key"]).run().done().prints("APP_API_KEY=k\nURL=u\n");
    run(&system, &below, &["--none", "--prefix", "", "--env", "URL=api-key"]).run().done().prints("URL=k\n");
    run(&system, &below, &["--no-project"]).run().done().prints("API_KEY=k\nDB_PASSWORD=p\nDB_URL=u\n");
    system
        .pds(["env"])
        .current_dir(&below)
        .run()
        .done()
        .prints("export APP_DB_PASSWORD='p'\nexport APP_DB_URL='u'\nexport URL='u'\n");
    // What leaves is for the command line alone to say.
    let left = system.pds(["export", "--format", "json"]).current_dir(&below).run().done();
    assert_eq!(left.json().as_object().unwrap().len(), 3);

    std::fs::write(below.join("pds.toml"), "only = []\n").unwrap();
    run(&system, &below, &[]).run().done().prints("");
    write(&system, "");
    std::fs::remove_file(below.join("pds.toml")).unwrap();
    run(&system, &below, &[]).run().done().prints("API_KEY=k\nDB_PASSWORD=p\nDB_URL=u\n");
}

#[test]
fn the_profile_of_a_project_counts_for_more_than_the_configurations_and_for_less_than_what_is_said() {
    let (system, below) = project("profile = 'other'\n");
    let denied = run(&system, &below, &[]).run().exits(125);
    denied.says("'other'");
    run(&system, &below, &["--only", "api-key", "-p", "default"]).run().done().prints("API_KEY=k\n");
    run(&system, &below, &["--only", "api-key"])
        .env("PDS_PROFILE", "default")
        .run()
        .done()
        .prints("API_KEY=k\n");
}

#[test]
fn a_project_may_ask_for_files() {
    let (system, below) = project("only = ['db/*']\nfiles = true\n");
    let listed = ["run", "--", "sh", "-c", "cd $PDS_SECRETS_DIR && find . -type f | sort; env | grep -c DB_"];
    let shown = system.pds(listed).current_dir(&below).run().exits(1);
    shown.prints("./db/password\n./db/url\n0\n");
    for (options, told) in [
        (vec!["--env", "A=api-key"], "--env"),
        (vec!["--prefix", "X"], "--prefix"),
        (vec!["--here"], "--here"),
    ] {
        run(&system, &below, &options).run().exits(125).says(told);
    }
    // A folder is one of the project's.
    std::fs::create_dir(system.folder().join("project/secrets")).unwrap();
    write(&system, "only = ['api-key']\nfiles = 'secrets'\n");
    let shown = system.pds(["run", "--", "sh", "-c", "cat ../../secrets/api-key"]).current_dir(&below);
    shown.run().done().prints("k");
    write(&system, "only = ['db/url']\nprefix = 'A'\n");
    let shown =
        system.pds(["run", "--files", "--", "sh", "-c", "cat $PDS_SECRETS_DIR/db/url"]).current_dir(&below);
    shown.run().done().prints("u");
}

#[test]
fn a_file_that_others_can_write_or_that_is_no_project_file_stops_the_run() {
    let (system, below) = project("only = ['db/url']\n");
    let path = file(&system);
    for mode in [0o664, 0o646, 0o666] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        run(&system, &below, &[]).run().exits(125).says("others can write").says("chmod go-w").prints("");
        system.pds(["env"]).current_dir(&below).run().exits(1).prints("");
        run(&system, &below, &["--no-project", "--only", "db/url"]).run().done().prints("DB_URL=u\n");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    run(&system, &below, &[]).run().done().prints("DB_URL=u\n");
    if rustix::process::geteuid().is_root() {
        chown(&path, Some(1234), None).unwrap();
        run(&system, &below, &[]).run().exits(125).says("others can write");
        chown(&path, Some(0), None).unwrap();
    }

    // Where a link leads is what counts.
    let real = system.folder().join("real");
    std::fs::rename(&path, &real).unwrap();
    symlink(&real, &path).unwrap();
    run(&system, &below, &[]).run().done().prints("DB_URL=u\n");
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o666)).unwrap();
    run(&system, &below, &[]).run().exits(125).says("others can write");
    std::fs::remove_file(&path).unwrap();

    let value = "c4nary-v4lue";
    for (text, told) in [
        (format!("[env]\nKEY = '{value} '"), "line 2"),
        (format!("API_KEY = '{value}'"), "API_KEY"),
        (format!("API_KEY={value}"), "line 1"),
        ("x".repeat(70 << 10), "larger than"),
        ("\u{0}".repeat(9), "line 1"),
        ("files = true\nprefix = 'A'".to_owned(), "files are asked for"),
    ] {
        write(&system, &text);
        let ended = run(&system, &below, &[]).run().exits(125);
        ended.says(told).prints("");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!said.contains("c4nary"), "{said}");
    }
    std::fs::write(&path, b"\xff\xfe").unwrap();
    run(&system, &below, &[]).run().exits(125).says("UTF-8");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    run(&system, &below, &[]).run().exits(125).says("ordinary file");
}
