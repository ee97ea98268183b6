//! Programs that are pinned: `--pin`, and secrets that rules leave to programs by what is in their files.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use core_crypto::checksum;
use tests::{Spec, System};

/// Copies a program of the machine to where it can be changed.
fn program(system: &System, original: &str, name: &str) -> PathBuf {
    let path = system.folder().join(name);
    std::fs::copy(original, &path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn digest(path: &Path) -> String {
    format!("blake3:{}", checksum(&std::fs::read(path).unwrap()))
}

/// Adds a byte at the end, where a program does not miss it.
fn change(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes.push(0);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_was_checked_is_what_is_executed() {
    let system = System::boot(Spec::ready().secret("api-key", "value").secret("tls", "another value"));
    let tool = program(&system, "/bin/sh", "tool");
    let command = tool.to_str().unwrap();
    let run = |pin: &str, line: &str| system.pds(["run", "--pin", pin, "--", command, "-c", line]);
    run(&digest(&tool), "echo $API_KEY $0").run().done().prints(format!("value {command}\n"));
    run(&digest(&tool), "exit 7").run().exits(7);
    let executed = run(&digest(&tool), "readlink /proc/$$/exe").run().done();
    assert!(executed.text().contains("memfd:pds-program"), "{}", executed.text());
    // By its name alone, and with all that a run may have besides.
    let given = ["run", "--pin", &digest(&tool), "--fd", "tls", "--files", "--mask", "--"];
    let line = "cat <&$TLS_FD; echo; cat $PDS_SECRETS_DIR/api-key; echo; ls /proc/self/fd | wc -l";
    let shown = system.pds(given.into_iter().chain(["tool", "-c", line]));
    let path = format!("{}:/usr/bin:/bin", system.folder().display());
    shown.env("PATH", path).run().done().prints("[REDACTED]\n[REDACTED]\n5\n");

    // The file changes while the program runs, and the program does not.
    let line = "mv -f $0.new $0; echo still; exec 2>/dev/null; cmp -s $0 /proc/$$/exe || echo other";
    std::fs::copy("/bin/true", system.folder().join("tool.new")).unwrap();
    run(&digest(&tool), line).run().done().prints("still\nother\n");
}

#[test]
fn what_was_checked_is_what_pds_becomes() {
    let system = System::boot(Spec::ready().secret("api-key", "value").secret("tls", "another value"));
    let tool = program(&system, "/bin/sh", "tool");
    let command = tool.to_str().unwrap();
    let here = |line: &str| {
        let given = ["run", "--here", "--pin", &digest(&tool), "--fd", "tls", "--", command, "-c", line];
        system.pds(given).run()
    };
    here("echo $API_KEY $0; cat <&$TLS_FD").done().prints(format!("value {command}\nanother value"));
    here("exit 7").exits(7);
    let executed = here("readlink /proc/$$/exe").done();
    assert!(executed.text().contains("memfd:pds-program"), "{}", executed.text());
    let script = system.folder().join("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let pin = digest(&script);
    system.pds(["run", "--here", "--pin", &pin, "--", "./script"]).run().exits(125).says("script");
}

#[test]
fn another_program_is_not_started() {
    let system = System::boot(Spec::ready().secret("api-key", "value"));
    let tool = program(&system, "/bin/sh", "tool");
    let (before, started) = (digest(&tool), system.folder().join("started"));
    let line = format!("touch {}", started.display());
    change(&tool);
    let run = |pin: &str, command: &str| system.pds(["run", "--pin", pin, "--", command, "-c", &line]).run();
    run(&before, tool.to_str().unwrap())
        .exits(125)
        .says(&before)
        .says(&digest(&tool))
        .says("find out who changed it");
    let script = system.folder().join("script");
    std::fs::write(&script, "#!/bin/sh\ntouch started\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    run(&digest(&script), script.to_str().unwrap()).exits(125).says("script");
    run(&before, "/").exits(126);
    run(&before, "no-such-command").exits(127);
    assert!(!started.exists());
    for bad in ["blake3:00", "sha256:00", &before[7..], "blake3:"] {
        run(bad, "true").exits(2).says("64 hex digits");
    }
    system
        .pds(["run", "--here", "--pin", &before, "--", tool.to_str().unwrap(), "-c", &line])
        .run()
        .exits(125)
        .says(&before)
        .says(&digest(&tool));
    let log = system.audit(20);
    let failed = log.iter().filter(|entry| entry["operation"] == "run" && entry["outcome"] != "done");
    assert!(failed.count() >= 2, "what was refused is recorded: {log:?}");
}

#[test]
fn a_secret_that_is_for_a_program_goes_to_no_other() {
    let system = System::boot(Spec::ready().secret("api-key", "k").secret("db/url", "u"));
    let tool = program(&system, "/usr/bin/env", "tool");
    let whole = tool.canonicalize().unwrap();
    let rule = |path: &Path, image: &str| {
        let path = path.display();
        system.write_config(&format!(
            "[profiles.default.run]\n'db/*' = [{{ path = '{path}', image = '{image}' }}]\n"
        ));
    };
    rule(&whole, &digest(&tool));
    let run = |command: &Path, only: &[&str]| {
        let command = command.to_str().unwrap().to_owned();
        system.pds([&["run"], only, &["--", &command]].concat()).run()
    };
    let given = |command: &Path| {
        let text = run(command, &[]).done().text();
        let has = |line: &str| text.lines().any(|shown| shown == line);
        (has("API_KEY=k"), has("DB_URL=u"))
    };
    assert_eq!(given(&tool), (true, true));
    assert_eq!(given(Path::new("/usr/bin/env")), (true, false), "all that it may have");
    run(Path::new("/usr/bin/env"), &["--only", "db/url"]).exits(125).says("db/url");
    run(Path::new("/usr/bin/env"), &["--only", "api-key", "--env", "A=db/url"]).exits(125).says("db/url");
    let referred = system.pds(["run", "--none", "--", "env"]).env("URL", "pds://default/db/url");
    referred.run().exits(125).says("URL").prints("");
    // A script is no program that rules could name; it goes on with what is left.
    let script = system.folder().join("script");
    std::fs::write(&script, "#!/bin/sh\necho \"$API_KEY.$DB_URL.\"\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    run(&script, &[]).done().prints("k..\n");
    // By reference, from a profile that nothing else of the run is about.
    system.pds(["init", "-p", "other"]).password().run().done();
    let refers = |command: &Path| {
        let command = command.to_str().unwrap().to_owned();
        system.pds(["run", "-p", "other", "--", &command]).env("URL", "pds://default/db/url").run()
    };
    refers(&tool).done().prints_among("\nURL=u\n");
    refers(Path::new("/usr/bin/env")).exits(125).says("URL");
    // A link to it is it, and a copy is not.
    let link = system.folder().join("link");
    std::os::unix::fs::symlink(&tool, &link).unwrap();
    assert_eq!(given(&link), (true, true));
    let copy = program(&system, "/usr/bin/env", "copy");
    assert_eq!(given(&copy), (true, false));
    // What the command line may do itself is for its own rules to say.
    system.pds(["get", "db/url"]).run().done().prints("u");
    let explained = system.pds(["explain", "db/url", "--operation", "run"]).run().done();
    explained.prints_among("[profiles.default.run] \"db/*\" names other programs");

    change(&tool);
    assert_eq!(given(&tool), (true, false), "its file is another one now");
    rule(&whole, &digest(&tool));
    assert_eq!(given(&tool), (true, true), "a change of the rules holds at once");
    rule(&copy.canonicalize().unwrap(), &digest(&tool));
    assert_eq!(given(&copy), (true, false), "path and image go together");
}
