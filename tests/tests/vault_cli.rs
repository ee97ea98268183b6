//! The command line against real daemons: values, names, exit codes, locks, and what happens where nothing is in order.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use core_types::header::Refusal;
use core_types::limits::VALUE_BYTES_MAX;
use rustix::process::Signal;
use tests::cases::{self, World};
use tests::disk::SmallDisk;
use tests::{PASSWORD, Spec, System};

/// Bytes that tell each other apart at every place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from((place * 31 + place / 251) % 256).unwrap()).collect()
}

#[test]
fn values_come_back_byte_for_byte() {
    let system = System::boot(Spec::ready());
    let all_bytes: Vec<u8> = (0..=255).collect();
    let values: [(&str, Vec<u8>); 7] = [
        ("empty", Vec::new()),
        ("nul", b"s3cr\0et\n".to_vec()),
        ("line-feed", b"\n".to_vec()),
        ("two-line-feeds", b"a\n\n".to_vec()),
        ("all-bytes", all_bytes),
        ("not-text", b"\xff\xfe\x80".to_vec()),
        ("largest", pattern(VALUE_BYTES_MAX)),
    ];
    for (name, value) in &values {
        system.pds(["set", name]).stdin(value).run().done().prints("");
    }
    for (name, value) in &values {
        system.pds(["get", name]).run().done().prints(value).says_nothing();
    }
}

#[test]
fn the_pipeline_of_the_manual_gives_back_what_went_in() {
    let system = System::boot(Spec::ready());
    let line = r"printf 's3cr\0et\n' | pds set raw && pds get raw | cmp - <(printf 's3cr\0et\n')";
    system.shell(line).run().done();
    system
        .shell("pds set big < <(head -c 1048576 /dev/urandom | tee copy) && pds get big | cmp - copy")
        .run()
        .done();
}

#[test]
fn one_byte_too_many_is_refused_and_nothing_is_changed() {
    let system = System::boot(Spec::ready().secret("key", "before"));
    let value = pattern(VALUE_BYTES_MAX + 1);
    system.pds(["set", "key"]).stdin(&value).run().exits(1).says("1048576");
    std::fs::write(system.folder().join("large"), &value).unwrap();
    system.pds(["set", "key", "--file", "large"]).run().exits(1);
    system.pds(["get", "key"]).run().done().prints("before");
}

#[test]
fn an_input_that_never_ends_is_given_up() {
    let system = System::boot(Spec::ready().secret("key", "before"));
    system.shell("pds set key < /dev/zero").run().exits(1);
    system.shell("set +o pipefail; yes | pds set key; exit ${PIPESTATUS[1]}").run().exits(1);
    system.pds(["get", "key"]).stdin_stays_open().run().done().prints("before");
    system.pds(["lock"]).run().done();
    system.pds(["unlock", "--password-file", "/dev/zero"]).run().exits(8);
}

#[test]
fn a_locked_profile_gives_nothing_until_the_right_password_comes() {
    let system = System::boot(Spec::ready().secret("key", "value"));
    system.pds(["get", "key"]).run().done().prints("value");
    system.pds(["lock"]).run().done();
    for arguments in [&["get", "key"][..], &["set", "key"], &["list"], &["rm", "--yes", "key"]] {
        system.pds(arguments).stdin("other").run().exits(3).prints("").says("pds unlock");
    }
    system.pds(["unlock", "--password-file", "-"]).stdin("wrong").run().exits(8);
    system.pds(["get", "key"]).run().exits(3);
    system.pds(["unlock"]).password().run().done();
    system.pds(["get", "key"]).run().done().prints("value");
    system
        .pds(["unlock", "--password-file", "-"])
        .stdin("wrong, and not needed")
        .run()
        .done()
        .says("already");
}

#[test]
fn lock_with_a_profile_locks_that_one_and_without_it_all() {
    let spec = Spec::new().profile("a").secret("x", "1").profile("b").secret("x", "2").profile("c");
    let system = System::boot(spec);
    system.pds(["lock", "-p", "a"]).run().done();
    system.pds(["get", "x", "-p", "a"]).run().exits(3);
    system.pds(["get", "x", "-p", "b"]).run().done().prints("2");
    system.pds(["lock"]).run().done();
    system.pds(["get", "x", "-p", "b"]).run().exits(3);
    system.pds(["unlock", "-p", "a"]).password().run().done();
    system.pds(["get", "x"]).env("PDS_PROFILE", "a").run().done().prints("1");
    system.pds(["get", "x", "-p", "b"]).run().exits(3);
}

#[test]
fn what_is_not_there_and_what_is_there_already_have_codes_of_their_own() {
    let system = System::boot(Spec::ready());
    system.pds(["get", "unknown"]).run().exits(4).says("unknown");
    system.pds(["rm", "--yes", "unknown"]).run().exits(4);
    system.pds(["get", "x", "-p", "nobody"]).run().exits(4).says("nobody");
    system.pds(["unlock", "-p", "nobody"]).password().run().exits(4);
    system.pds(["init"]).password().run().exits(10).says("default");
    system.pds(["init", "-p", "new"]).password().run().done();
    system.pds(["set", "x", "-p", "new"]).stdin("unlocked").run().done();
}

#[test]
fn bad_names_are_refused_and_the_longest_good_one_is_taken() {
    let system = System::boot(Spec::ready());
    let longest = "x".repeat(256);
    system.pds(["set", &longest]).stdin("v").run().done();
    system.pds(["get", &longest]).run().done().prints("v");
    let long = "x".repeat(257);
    let bad = [&long, "a/../b", "..", "a/", "/a", "a//b", "a\nb", "a\u{1b}[31mb", "a b", "", "schlüssel"];
    for name in bad {
        for verb in ["set", "get"] {
            let ended = system.pds([verb, name]).stdin("v").run().exits(2);
            assert!(!ended.stderr.contains(&0x1b), "a control character reached the terminal");
        }
    }
    for profile in ["A", "../x", "a/b", "", &"p".repeat(65), "-x"] {
        system.pds([format!("--profile={profile}").as_str(), "status"]).run().exits(2);
    }
    system.pds(["get", "x"]).env("PDS_PROFILE", "../x").run().exits(2);
    assert_eq!(std::fs::read_dir(system.paths().vaults()).unwrap().count(), 1);
}

#[test]
fn a_secret_as_an_argument_is_refused_and_not_repeated() {
    let system = System::boot(Spec::ready());
    let ended = system.pds(["set", "key", "hunter2-on-the-command-line"]).run().exits(2);
    assert!(!String::from_utf8_lossy(&ended.stderr).contains("hunter2"));
    ended.says("standard input");
    system.pds(["get", "key"]).run().exits(4);
}

#[test]
fn a_password_can_be_changed_and_the_secrets_stay() {
    let system = System::boot(Spec::ready().secret("key", "value"));
    let change = "pds passwd --password-fd 3 --new-password-fd 4";
    system.shell(&format!("{change} 3<<<'wrong' 4<<<'new one'")).run().exits(8);
    system.shell(&format!("{change} 3<<<'{PASSWORD}' 4<<<'new one'")).run().done();
    system.pds(["lock"]).run().done();
    system.pds(["unlock"]).password().run().exits(8);
    system.pds(["unlock", "--password-file", "-"]).stdin("new one\n").run().done();
    system.pds(["get", "key"]).run().done().prints("value");
}

#[test]
fn status_and_listings_tell_what_is() {
    let system = System::boot(
        Spec::new().profile("work").secret("b", "2").secret("a/x", "1").profile("home").locked(),
    );
    let status = system.pds(["status", "--json"]).run().done().json();
    let daemons: BTreeMap<String, u64> = status["daemons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|daemon| {
            assert_eq!(daemon["running"], true, "{daemon}");
            (daemon["name"].as_str().unwrap().to_owned(), daemon["pid"].as_u64().unwrap_or_default())
        })
        .collect();
    for name in ["daemon-bus", "daemon-secrets", "daemon-profile", "daemon-launcher"] {
        assert_eq!(daemons.get(name), Some(&u64::from(system.pid_of(name))), "{name}");
    }
    let profiles = system.pds(["profile", "list", "--json"]).run().done();
    let text = String::from_utf8_lossy(&profiles.stdout).into_owned();
    assert!(text.contains("\"work\"") && text.contains("\"home\"") && text.contains("locked"), "{text}");
    system.pds(["list", "-p", "work"]).run().done().prints("a/x\nb\n");
    system.pds(["list", "a/*", "-p", "work"]).run().done().prints("a/x\n");
    let listed = system.pds(["list", "--json", "-p", "work"]).run().done().json();
    assert_eq!(listed["secrets"][0]["name"], "a/x");
    system.pds(["rm", "--yes", "a/x", "b", "-p", "work"]).run().done();
    system.pds(["list", "-p", "work"]).run().done().prints("");
}

#[test]
fn without_daemons_and_leave_to_start_them_there_is_no_answer() {
    let system = System::boot(Spec::new().not_started());
    system.pds(["status", "--no-start"]).run().exits(7).says("pds daemon start");
    system.pds(["get", "x"]).env("PDS_NO_START", "1").run().exits(7);
    assert!(system.process("supervisor").is_none() && system.process("daemon-bus").is_none());
}

#[test]
fn an_answer_that_does_not_come_in_time_has_a_code_of_its_own() {
    let system = System::boot(Spec::ready().secret("key", "value"));
    let secrets = system.process("daemon-secrets").unwrap();
    secrets.signal(Signal::STOP);
    system.pds(["get", "key", "--timeout", "0.3"]).run().exits(7).says(&Refusal::Timeout.to_string());
    secrets.signal(Signal::CONT);
    system.pds(["get", "key"]).run().done().prints("value");
}

#[test]
fn who_asks_too_often_is_told_so() {
    let rates =
        "[rate_limit.known]\nper_second = 1\nburst = 1\n[rate_limit.unknown]\nper_second = 1\nburst = 1\n";
    let system = System::boot(Spec::new().config(rates).profile("default"));
    let limited = (0..100).any(|_| {
        let ended = system.pds(["get", "x"]).run();
        match ended.status().code() {
            Some(6) => true,
            _ => {
                ended.exits(4);
                false
            }
        }
    });
    assert!(limited, "100 requests passed a limit of one in a second");
}

#[test]
fn a_configuration_with_an_unknown_key_is_refused_by_line_and_name() {
    let system = System::boot(Spec::new().config("[secrets]\ncache_tll_seconds = 3\n").not_started());
    let ended = system.pds(["get", "x"]).run().exits(1);
    ended.says("cache_tll_seconds").says("line 2").says("config.toml");
    assert!(system.process("daemon-bus").is_none());
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_runtime_folder_that_others_can_change_is_refused_by_name() {
    let system = System::boot(Spec::new().not_started());
    let place = system.paths().runtime().display().to_string();
    for mode in [0o770, 0o707, 0o777] {
        chmod(system.paths().runtime(), mode);
        system.pds(["status"]).run().exits(7).prints("").says(&place);
        assert!(system.process("daemon-bus").is_none(), "a bus runs in a folder of mode {mode:o}");
    }
    chmod(system.paths().runtime(), 0o700);
    system.pds(["status"]).run().done();
    // Daemons that run already are not talked to through such a folder either.
    chmod(system.paths().runtime(), 0o770);
    system.pds(["status"]).run().exits(7).prints("").says(&place);
    chmod(system.paths().runtime(), 0o700);
}

#[test]
fn folders_of_other_users_are_refused_by_name() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give a folder away.
        return;
    }
    for name in ["run", "data", "state"] {
        let system = System::boot(Spec::new().not_started());
        let place = system.folder().join(name);
        assert!(Command::new("chown").arg("nobody").arg(&place).status().unwrap().success());
        let ended = system.pds(["init", "--timeout", "20"]).password().run();
        assert_ne!(ended.status().code(), Some(0), "a {name} folder of another user was used");
        let said = [ended.any().stderr, system.log()].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(&place.display().to_string()), "{name} is not named:\n{said}");
        assert!(Command::new("chown").arg("root").arg(&place).status().unwrap().success());
    }
}

#[test]
fn without_a_place_for_sockets_or_a_home_nothing_is_guessed() {
    let system = System::boot(Spec::new().not_started());
    system.pds(["status"]).without("PDS_RUNTIME_DIR").run().exits(1).says("XDG_RUNTIME_DIR");
    system.pds(["status"]).without("HOME").without("PDS_DATA_DIR").run().exits(1).says("HOME");
    system.pds(["status"]).env("PDS_STATE_DIR", "relative").run().exits(1).says("PDS_STATE_DIR");
    // With every folder said, nobody needs HOME.
    system.pds(["status"]).without("HOME").run().done();
}

#[test]
fn xdg_folders_get_folders_of_our_own() {
    let system = System::boot(Spec::new().not_started());
    let at = |name: &str| system.folder().join(name);
    let places = [
        ("XDG_RUNTIME_DIR", at("run"), "PDS_RUNTIME_DIR"),
        ("XDG_DATA_HOME", at("data"), "PDS_DATA_DIR"),
        ("XDG_STATE_HOME", at("state"), "PDS_STATE_DIR"),
        ("XDG_CONFIG_HOME", at("config"), "PDS_CONFIG_DIR"),
    ];
    let pds = |arguments: &[&str]| {
        places
            .iter()
            .fold(system.pds(arguments), |command, (xdg, place, own)| command.without(own).env(xdg, place))
    };
    pds(&["init"]).password().run().done();
    pds(&["set", "x"]).stdin("v").run().done();
    for place in ["run/pds/bus.sock", "data/pds/vaults/default/vault.db", "state/pds/audit"] {
        assert!(at(place).exists(), "{place}");
    }
    let open: Vec<PathBuf> = open_to_others(system.folder());
    assert_eq!(open, [] as [PathBuf; 0], "files or folders that others can reach");
    pds(&["daemon", "stop"]).run().done();
}

/// Files and folders below a folder that group or others may use. Sockets count by their folder.
fn open_to_others(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = std::fs::symlink_metadata(entry.path()).unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            if (metadata.is_dir() || metadata.is_file()) && metadata.permissions().mode() & 0o077 != 0 {
                found.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn files_are_private_whatever_the_umask() {
    let system = System::boot(Spec::new().not_started());
    let line = format!("umask 000; printf '{PASSWORD}' | pds init --password-file - && printf v | pds set x");
    system.shell(&line).run().done();
    system.shell("umask 000; pds audit verify").run().done();
    assert_eq!(open_to_others(system.folder()), [] as [PathBuf; 0]);
}

#[test]
fn a_full_disk_changes_nothing_and_is_named() {
    let system = System::boot(Spec::new().not_started());
    let Some(disk) = SmallDisk::over(system.paths().data(), 1) else { return };
    system.pds(["init"]).password().run().done();
    system.pds(["set", "key"]).stdin("before").run().done();
    disk.fill();
    system.pds(["set", "key"]).stdin(pattern(100_000)).run().exits(1).says("full");
    system.pds(["init", "-p", "other"]).password().run().exits(1).says("full");
    system.pds(["get", "key"]).run().done().prints("before");
    disk.empty();
    system.pds(["init", "-p", "other"]).password().run().done();
    system.pds(["set", "key"]).stdin("after").run().done();
    system.pds(["get", "key"]).run().done().prints("after");
}

#[test]
fn an_audit_log_on_a_full_disk_is_shown_and_goes_on_when_there_is_room() {
    let system = System::boot(Spec::new().not_started());
    let Some(disk) = SmallDisk::over(system.paths().state(), 1) else { return };
    system.pds(["init"]).password().run().done();
    system.pds(["set", "key"]).stdin("value").run().done();
    disk.fill();
    let failing = tests::system::wait_for("the status tells of the full disk", || {
        // Entries until the last page of the file is full. Whether a value still leaves is the audit mode's affair;
        // that nothing hangs, and that it shows, is this one's.
        drop(system.pds(["get", "key"]).run().any());
        let status = system.pds(["status", "--json"]).run().any().json();
        status["audit"]["failing"].as_str().map(str::to_owned)
    });
    assert!(!failing.is_empty());
    disk.empty();
    tests::system::wait_for("the log goes on", || {
        let status = system.pds(["status", "--json"]).run().any().json();
        drop(system.pds(["get", "key"]).run().any());
        status["audit"]["failing"].is_null().then_some(())
    });
    system.pds(["audit", "verify"]).run().done();
    system.pds(["daemon", "stop"]).run().done();
}

#[test]
fn every_case_file_holds() {
    let folder = tests::programs::workspace().join("tests/cases");
    let cases = cases::read(&folder);
    assert!(!cases.is_empty());
    let mut systems: BTreeMap<World, System> = BTreeMap::new();
    for (name, case) in cases {
        eprintln!("case {name}");
        let system = systems.entry(case.system).or_insert_with(|| {
            System::boot(match case.system {
                World::None => Spec::new(),
                World::Locked => Spec::ready().locked(),
                World::Unlocked => Spec::ready(),
            })
        });
        case.check(system);
    }
}
