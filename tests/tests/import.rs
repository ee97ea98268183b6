//! `pds import` and `pds export`, end to end: what they say, what they leave alone, and what comes back.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::{PASSWORD, Spec, System};

fn write(system: &System, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = system.folder().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.into_os_string().into_string().unwrap()
}

fn get(system: &System, name: &str) -> Vec<u8> {
    system.pds(["get", name]).run().done().stdout.clone()
}

/// Name, state and action of each secret of a report.
fn lines(report: &Value) -> Vec<String> {
    let secrets = report["secrets"].as_array().unwrap();
    let text = |secret: &Value, key: &str| secret[key].as_str().unwrap().to_owned();
    secrets
        .iter()
        .map(|secret| {
            format!("{} {} {}", text(secret, "name"), text(secret, "state"), text(secret, "action"))
        })
        .collect()
}

#[test]
fn a_preview_tells_and_changes_nothing_and_each_policy_does_what_it_says() {
    let system = System::boot(Spec::ready().secret("A", "1").secret("B", "old"));
    let file = write(&system, ".env", "A=1\nB=new-value\nC=3\n");
    let preview = system.pds(["import", "--format", "dotenv", &file, "--dry-run", "--json"]).run().done();
    assert_eq!(lines(&preview.json()), ["A same nothing", "B changed refuse", "C new store"]);
    assert!(!String::from_utf8_lossy(&preview.stdout).contains("new-value"));
    let table = system.pds(["import", "--format", "dotenv", &file, "--dry-run"]).run().done();
    table.prints("same       nothing  A\nchanged    refuse   B\nnew        store    C\n");
    let refused = system.pds(["import", "--format", "dotenv", &file]).run().exits(10);
    refused.says("'B'").says("--on-conflict");
    system.pds(["list"]).run().done().prints("A\nB\n");
    system
        .pds(["import", "--format", "dotenv", &file, "--on-conflict", "skip"])
        .run()
        .done()
        .says("1 left out");
    assert_eq!((get(&system, "B"), get(&system, "C")), (b"old".to_vec(), b"3".to_vec()));
    system.pds(["import", "--format", "dotenv", &file, "--on-conflict", "rename"]).run().done();
    assert_eq!(get(&system, "B-2"), b"new-value");
    system
        .pds(["import", "--format", "dotenv", &file, "--on-conflict", "replace"])
        .run()
        .done()
        .says("1 replaced");
    assert_eq!(get(&system, "B"), b"new-value");
    let again = system.pds(["import", "--format", "dotenv", &file, "--json"]).run().done().json();
    assert_eq!((again["stored"].as_u64(), lines(&again).len()), (Some(0), 3));
    let below = system.pds(["import", "--format", "dotenv", &file, "--prefix", "app/"]).run().done();
    below.says("imported 3 secrets").says("still holds the values in clear");
    assert_eq!(get(&system, "app/C"), b"3");
    let history = system.pds(["history", "B", "--json"]).run().done().json();
    assert_eq!(history["versions"].as_array().unwrap().len(), 2, "what was the same made no version");
}

#[test]
fn names_that_are_none_are_mapped_and_come_back() {
    let system = System::boot(Spec::ready());
    let object = json!({"My Key": "1", "fine": "2", "a/b": "3", "\u{e4}\u{1f511}": "4", "My_Key": "5"});
    let file = write(&system, "in.json", object.to_string());
    let refused = system.pds(["import", "--format", "json", &file]).run().exits(10);
    refused.says("My_Key");
    let done = ["import", "--format", "json", &file, "--on-conflict", "rename"];
    system.pds(done).run().done().says("1 under another name");
    let exported = system.pds(["export", "--format", "json", "--original-names"]).run().done().json();
    assert_eq!(exported, object);
    let plain = system.pds(["export", "--format", "json"]).run().done().json();
    assert_eq!(plain["My_Key"].as_str().map(str::len), Some(1));
    assert_eq!((plain["a/b"].as_str(), plain["__"].as_str()), (Some("3"), Some("4")));
}

#[test]
fn what_is_exported_as_json_is_imported_exactly() {
    let values = ["", "\0\u{1}\u{7f}\"\\/\n\r\t", "\u{2028}\u{1f511}\u{feff}", "it's ${HOME} `x` $(y)\n\n"];
    let spec = values.iter().enumerate().fold(Spec::ready().profile("other"), |spec, (number, value)| {
        spec.secret(&format!("deep/name-{number}"), value)
    });
    let system = System::boot(spec);
    let list = system.pds(["profile", "list", "--json"]).run().done().json().to_string();
    assert!(list.contains("other"), "{list}");
    let line = "pds export -p other --format json | pds import -p default --format json -";
    system.shell(line).run().done();
    for (number, value) in values.iter().enumerate() {
        assert_eq!(get(&system, &format!("deep/name-{number}")), value.as_bytes());
    }
}

#[test]
fn an_export_is_read_back_by_its_named_readers_or_refused() {
    let system = System::boot(Spec::ready().secret("no", [0xff, b'\n', 1]).secret("text/pem", "a\n'b'\n"));
    let out = system.folder().join("secret.yaml");
    let path = out.to_str().unwrap();
    let made =
        system.pds(["export", "--format", "kubernetes", "--name", "my-app", "--out", path]).run().done();
    made.says("careful").prints("");
    assert_eq!(out.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let script = "import yaml, base64, sys\n\
        data = yaml.safe_load(open(sys.argv[1]))\n\
        assert (data['kind'], data['metadata']['name']) == ('Secret', 'my-app')\n\
        sys.stdout.buffer.write(b'|'.join(k.encode() + b'=' + base64.b64decode(v) for k, v in sorted(data['data'].items())))";
    let read = system.program("/usr/bin/python3", ["-c", script, path]).run().done();
    read.prints(b"NO=\xff\n\x01|TEXT_PEM=a\n'b'\n");
    system.pds(["export", "--format", "kubernetes", "--out", path]).run().exits(10);
    system.pds(["export", "--format", "kubernetes", "--out", path, "--force"]).run().done();
    system.pds(["export", "--format", "docker"]).run().exits(1).prints("").says("NO");
    system.pds(["export", "--format", "json"]).run().exits(1).prints("").says("no cannot be written as json");
    for (format, reader) in [("shell", "dash"), ("shell", "bash"), ("fish", "fish --no-config")] {
        let line = format!(
            "pds export --format {format} --out v --force && {reader} -c '. ./v; printf %s \"$NO$TEXT_PEM\"'"
        );
        let line = line.replace(". ./v", if format == "fish" { "source ./v" } else { ". ./v" });
        system.shell(&line).env("LC_ALL", "C.UTF-8").run().done().prints(b"\xff\n\x01a\n'b'\n");
    }
    system
        .pds(["export", "--format", "dotenv", "--only", "text/*"])
        .run()
        .done()
        .prints("TEXT_PEM=\"a\n'b'\n\"\n");
    system.pds(["export", "--format", "json", "--prefix", "X"]).run().exits(2).says("--prefix");
}

#[test]
fn the_source_is_removed_when_everything_in_it_is_in_the_vault() {
    let system = System::boot(Spec::ready());
    let file = write(&system, "all.env", "A=1\nB=2\n");
    write(&system, "all.env~", "A=1\n");
    let done = system.pds(["import", "--format", "dotenv", &file, "--remove-source", "--json"]).run().done();
    done.says("removed").says("all.env~").says("SSD");
    assert_eq!(done.json()["source"]["removed"], true);
    assert!(!std::path::Path::new(&file).exists());
    let part = write(&system, "part.json", r#"{"A": "other", "N": "1", "Z": null}"#);
    let kept = ["import", "--format", "json", &part, "--on-conflict", "skip", "--remove-source"];
    system.pds(kept).run().done().says("not everything").says("still holds");
    assert!(std::path::Path::new(&part).exists());
    system.pds(["import", "--format", "json", "-", "--remove-source"]).run().exits(2);
}

#[test]
fn a_password_protected_export_and_one_of_keepassxc_come_in() {
    let system = System::boot(Spec::ready());
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/src/import/samples");
    let bitwarden = format!("{samples}/bitwarden-pbkdf2.json");
    let wrong = ["import", "--format", "bitwarden", &bitwarden, "--password-file", "-"];
    system.pds(wrong).stdin("wrong\n").run().exits(8).says("password of the export is wrong");
    system
        .pds(wrong)
        .stdin("export password \u{e4}\n")
        .run()
        .done()
        .says("imported 13 secrets")
        .says("1 passkeys");
    assert_eq!(get(&system, "Work/My_Login/password"), "p\u{e4}ss \"w\u{f6}rd\"\\".as_bytes());
    let keepass = format!("{samples}/keepassxc.xml");
    system.pds(["import", "--format", "keepass-xml", &keepass]).run().done().says("recycle bin");
    assert_eq!(get(&system, "Work/Deep_Group/Entry__two/password"), b"  blanks  ");
}

#[test]
fn a_real_store_of_pass_is_imported_with_gpg() {
    let system = System::boot(Spec::ready());
    let (home, store) = (system.folder().join("g"), system.folder().join("store"));
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
    let run = |line: &str| {
        system.shell(line).env("GNUPGHOME", &home).env("PASSWORD_STORE_DIR", &store).run().done();
    };
    run("gpg --batch --quiet --passphrase '' --quick-generate-key tester default default never");
    run("pass init tester");
    run("printf 'single pass\\n' | pass insert -m -f mail/work");
    run("printf 'first\\nuser: me\\nurl: x\\n' | pass insert -m -f 'web/My Site'");
    run("printf -- '-----BEGIN KEY-----\\nabc\\n' | pass insert -m -f key");
    let path = store.to_str().unwrap();
    let import = || system.pds(["import", "--format", "pass", path]).env("GNUPGHOME", &home);
    import().run().done().says("imported 4 secrets");
    assert_eq!(get(&system, "mail/work"), b"single pass");
    assert_eq!(get(&system, "web/My_Site"), b"first");
    assert_eq!(get(&system, "web/My_Site/notes"), b"user: me\nurl: x\n");
    assert_eq!(get(&system, "key"), b"-----BEGIN KEY-----\nabc\n");
    std::fs::write(store.join("broken.gpg"), "no message").unwrap();
    import().run().exits(1).says("broken.gpg");
    std::os::unix::fs::symlink("/etc/passwd", store.join("link.gpg")).unwrap();
    import().run().exits(1).says("symbolic link");
    let ended = Command::new("gpgconf")
        .args(["--kill", "all"])
        .env("GNUPGHOME", &home)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(ended.success());
}

#[test]
fn bad_files_change_nothing_and_show_nothing() {
    let system = System::boot(Spec::ready());
    let refuses = |format: &str, bytes: &[u8], text: &str| {
        let file = write(&system, "bad", bytes);
        let ended = system.pds(["import", "--format", format, &file]).run().exits(1);
        ended.prints("").says(text);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!said.contains("t0p"), "{format}: {said}");
    };
    refuses("dotenv", b"A=1\nB=t0p secret\n", "line 2");
    refuses("dotenv", b"A=t0p\n\xff", "line 2");
    refuses("json", b"{\"a\": \"t0p\"", "line 1");
    refuses("bitwarden", br#"{"encrypted": true, "items": []}"#, "account");
    refuses("1pux", b"PK\x03\x04t0p", "zip");
    refuses("keepass-xml", b"<KeePassFile>t0p", "ends in the middle");
    let file = std::fs::File::create(system.folder().join("huge")).unwrap();
    file.set_len(1 << 30).unwrap();
    let began = std::time::Instant::now();
    for format in ["dotenv", "json", "bitwarden", "keepass-xml"] {
        system.pds(["import", "--format", format, "huge"]).run().exits(1).says("larger than 64 MiB");
    }
    system.pds(["import", "--format", "1pux", "huge"]).run().exits(1).says("zip");
    assert!(began.elapsed().as_secs() < 20, "a large file is refused before it is read");
    system.pds(["import", "--format", "json", "missing"]).run().exits(1).says("missing");
    system.pds(["list"]).run().done().prints("");
    system.pds(["lock"]).run().done();
    let fine = write(&system, "fine", "A=1\n");
    system.pds(["import", "--format", "dotenv", &fine]).run().exits(3);
    system.pds(["unlock"]).password().run().done();
    assert!(!PASSWORD.is_empty());
}
