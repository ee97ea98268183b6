//! The rules of the house, as tests: who may depend on whom, where `unsafe` may stand, what every file says first.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::programs::workspace;

/// Which crate of the workspace may use which, from the top down; nothing depends on a daemon, on `cli` or on `tests`.
const ARROWS: &[(&str, &[&str])] = &[
    ("core-types", &[]),
    ("core-crypto", &["core-types"]),
    ("core-secrets", &["core-types", "core-crypto"]),
    ("core-ipc", &["core-types", "core-crypto"]),
    ("core-daemon", &["core-types", "core-crypto", "core-ipc"]),
    ("daemon-bus", &["core-types", "core-crypto", "core-ipc", "core-daemon"]),
    ("daemon-secrets", &["core-types", "core-crypto", "core-ipc", "core-daemon", "core-secrets"]),
    ("daemon-profile", &["core-types", "core-crypto", "core-ipc", "core-daemon"]),
    ("daemon-launcher", &["core-types", "core-crypto", "core-ipc", "core-daemon"]),
    ("cli", &["core-types", "core-crypto", "core-ipc"]),
    ("tests", &["core-types", "core-crypto", "core-secrets", "core-ipc"]),
];

/// What a crate must not link by itself: the command line has no vault, no key stretching and no runtime; the bus
/// and the launcher have no storage; nobody but `core-secrets` opens a database.
const KEPT_OUT: &[(&str, &[&str])] = &[
    // It has Argon2 for exports of Bitwarden, whose password no daemon of ours has any business with.
    ("cli", &["rusqlite", "tokio", "core-secrets", "core-daemon"]),
    ("core-types", &["tokio", "rustix", "libc", "nix", "snow", "blake3", "aes-gcm"]),
    ("core-ipc", &["rusqlite", "argon2"]),
    ("daemon-bus", &["rusqlite", "argon2", "aes-gcm", "snow"]),
    ("daemon-launcher", &["rusqlite", "argon2", "aes-gcm"]),
    ("daemon-profile", &["rusqlite", "argon2"]),
];

/// Names that say nothing about what is inside.
const CATCH_ALLS: [&str; 7] = ["common", "util", "utils", "helper", "helpers", "misc", "manager"];

fn packages() -> Vec<serde_json::Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline", "--manifest-path"])
        .arg(workspace().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The dependencies of a package by name, of every kind and under every feature.
fn dependencies(package: &serde_json::Value) -> BTreeSet<String> {
    let name = |dependency: &serde_json::Value| dependency["name"].as_str().unwrap().to_owned();
    package["dependencies"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let packages = packages();
    let names: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    assert_eq!(names, arrows.keys().copied().collect(), "the crates of the workspace");
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let used = dependencies(package);
        let wrong: Vec<&String> = used
            .iter()
            // A crate may name itself to turn on its own features in its tests.
            .filter(|used| {
                names.contains(used.as_str()) && *used != name && !arrows[name].contains(&used.as_str())
            })
            .collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn what_a_crate_must_not_hold_it_does_not_link() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let used = dependencies(&package);
        let kept_out = KEPT_OUT.iter().filter(|(of, _)| *of == name).flat_map(|(_, out)| *out);
        let wrong: Vec<_> = kept_out.filter(|out| used.contains(**out)).collect();
        assert!(wrong.is_empty(), "{name} links {wrong:?}");
    }
}

/// All Rust files of the workspace, outside of what cargo builds.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![workspace().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap().display().to_string()
}

#[test]
fn every_file_says_first_why_it_exists() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|path| !std::fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|path| shown(path))
        .collect();
    assert!(silent.is_empty(), "files that do not open with `//!`: {silent:?}");
}

#[test]
fn unsafe_code_stands_in_three_places() {
    let homes = ["core-crypto/src/memory", "daemon-launcher/src/fork.rs", "daemon-launcher/src/ignored.rs"];
    let homes = homes.map(|home| workspace().join(home));
    // The words are put together here, so that this file does not find itself.
    let (keyword, lint) = ("unsafe", "unsafe_code");
    let mut wrong = Vec::new();
    for path in sources().iter().filter(|path| !homes.iter().any(|home| path.starts_with(home))) {
        let text = std::fs::read_to_string(path).unwrap();
        let uses = ["{", "fn", "impl", "extern", "trait"].map(|next| format!("{keyword} {next}"));
        let allows = [format!("allow({lint})"), format!("expect({lint})")];
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if uses.iter().chain(&allows).any(|words| code.contains(words.as_str())) {
                wrong.push(format!("{}:{}", shown(path), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{keyword} code elsewhere: {wrong:?}");
}

#[test]
fn every_crate_keeps_the_lints_of_the_workspace() {
    for package in packages() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", package["name"]);
    }
}

#[test]
fn no_module_is_a_catch_all() {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|path| {
            path.iter().any(|part| CATCH_ALLS.contains(&part.to_string_lossy().trim_end_matches(".rs")))
        })
        .map(|path| shown(path))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Each takes away what a test is for; one that does not fit the sources any more, or names no test, shows nothing.
#[test]
fn every_control_fits_the_sources_and_names_tests() {
    let texts: Vec<String> = sources().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let controls = std::fs::read_dir(workspace().join("tests/controls")).unwrap();
    let patches =
        controls.map(|entry| entry.unwrap().path()).filter(|path| path.extension() == Some("patch".as_ref()));
    for patch in patches {
        let fits = Command::new("git")
            .args(["apply", "--check"])
            .arg(&patch)
            .current_dir(workspace())
            .output()
            .unwrap();
        assert!(fits.status.success(), "{}: {}", patch.display(), String::from_utf8_lossy(&fits.stderr));
        let text = std::fs::read_to_string(&patch).unwrap();
        let red = text.lines().find_map(|line| line.strip_prefix("Red: ")).unwrap_or_default();
        // What is a name and no regular expression.
        let plain = |name: &&str| !name.starts_with('/');
        let mut named = red.split("test(").skip(1).filter_map(|rest| rest.split(')').next()).filter(plain);
        let missing = named.find(|name| {
            let own = name.rsplit("::").next().unwrap_or(name);
            !texts.iter().any(|text| text.contains(own))
        });
        assert!(!red.is_empty() && missing.is_none(), "{}: no test is named by {red:?}", patch.display());
    }
}
