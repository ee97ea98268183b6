//! What git, cargo, docker and ssh ask `pds` for, asked by the programs themselves.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tests::invocation::Invocation;
use tests::{Spec, System, programs};

const TOKEN: &str = "t0ken-of-the-server+/=";

fn booted() -> System {
    let system = System::boot(Spec::new().profile("default"));
    let links = system.folder().join("links");
    std::fs::create_dir(&links).unwrap();
    for name in ["git-credential-pds", "docker-credential-pds", "cargo-credential-pds", "pds-askpass"] {
        std::os::unix::fs::symlink(system.programs().join("pds"), links.join(name)).unwrap();
    }
    system
}

/// A program with the helpers on its `PATH`, and nobody to ask.
fn program<'a, I: IntoIterator<Item: AsRef<OsStr>>>(
    system: &'a System,
    name: &str,
    arguments: I,
) -> Invocation<'a> {
    let mut search = OsString::from(system.folder().join("links"));
    for (variable, value) in system.environment() {
        if variable == "PATH" {
            search.push(":");
            search.push(value);
        }
    }
    let links = system.folder().join("links").join(name);
    let name = if links.exists() { links.into_os_string() } else { name.into() };
    system
        .program(name.to_str().unwrap(), arguments)
        .env("PATH", search)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
}

fn git<'a>(system: &'a System, arguments: &[&str]) -> Invocation<'a> {
    let options = [
        "-c",
        "credential.helper=pds",
        "-c",
        "user.name=n",
        "-c",
        "user.email=e@e",
        "-c",
        "init.defaultBranch=main",
    ];
    program(system, "git", [&options[..], arguments].concat())
}

/// A server in Python; it ends when it is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(script: &str, arguments: &[&str]) -> Self {
        let script = programs::workspace().join("tests/python").join(script);
        let mut child = Command::new("/usr/bin/python3")
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().expect("the server says its port") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _status = self.child.wait();
    }
}

/// A repository with one commit, served to alice.
fn git_server(system: &System) -> Server {
    let folder = system.folder().join("repositories");
    let repository = folder.join("thing.git");
    std::fs::create_dir_all(&repository).unwrap();
    git(system, &["init", "--bare", repository.to_str().unwrap()]).run().done();
    git(system, &["--git-dir", repository.to_str().unwrap(), "config", "http.receivepack", "true"])
        .run()
        .done();
    Server::start("git_server.py", &[folder.to_str().unwrap(), "alice", TOKEN])
}

#[test]
fn git_clones_and_pushes_with_a_password_from_the_vault_and_erases_a_wrong_one() {
    let system = booted();
    let server = git_server(&system);
    let address = format!("http://127.0.0.1:{}/thing.git", server.port);
    let name = format!("git-http/127.0.0.1_3A{}/alice", server.port);
    // Nothing is stored: git has nobody else to ask.
    git(&system, &["clone", &address, "none"]).run().exits(128).says("could not read Username");

    system.pds(["set", &name]).stdin("wrong").run().done();
    git(&system, &["clone", &address, "none"]).run().exits(128).says("Authentication failed");
    system.pds(["get", &name]).run().exits(4);

    system.pds(["set", &name]).stdin(TOKEN).run().done();
    git(&system, &["clone", &address, "clone"]).run().done();
    let clone = system.folder().join("clone");
    std::fs::write(clone.join("file"), "text").unwrap();
    let at = ["-C", "clone"];
    git(&system, &[&at[..], &["add", "file"]].concat()).run().done();
    git(&system, &[&at[..], &["commit", "-m", "one"]].concat()).run().done();
    git(&system, &[&at[..], &["push", "origin", "HEAD:main"]].concat()).run().done();
    git(&system, &["clone", "-b", "main", &address, "again"]).run().done();
    assert_eq!(std::fs::read(system.folder().join("again/file")).unwrap(), b"text");
    // Git told the helper after each success to store it: there is no new version of what was the same.
    let history = system.pds(["history", &name, "--json"]).run().done().json();
    assert_eq!(history["versions"].as_array().map(Vec::len), Some(2), "the wrong one, and this");
}

#[test]
fn git_stores_what_was_typed_and_is_given_no_value_that_breaks_a_line() {
    let system = booted();
    let about = "protocol=https\nhost=example.com:8443\nusername=me@work\n";
    git(&system, &["credential", "approve"]).stdin(format!("{about}password=p=w \n\n")).run().done();
    system.pds(["get", "git/example.com_3A8443/me_40work"]).run().done().prints("p=w ");
    git(&system, &["credential", "fill"])
        .stdin("protocol=https\nhost=example.com:8443\n\n")
        .run()
        .done()
        .prints_among("password=p=w \n");
    // Not over http, not another host, and not for another user.
    for other in [
        "protocol=http\nhost=example.com:8443\n\n",
        "protocol=https\nhost=example.com\n\n",
        "protocol=https\nhost=example.com:8443\nusername=you\n\n",
    ] {
        git(&system, &["credential", "fill"]).stdin(other).run().exits(128);
    }
    // A password that someone else stored since is not erased.
    git(&system, &["credential", "reject"]).stdin(format!("{about}password=older\n\n")).run().done();
    system.pds(["get", "git/example.com_3A8443/me_40work"]).run().done();
    git(&system, &["credential", "reject"]).stdin(format!("{about}password=p=w \n\n")).run().done();
    system.pds(["get", "git/example.com_3A8443/me_40work"]).run().exits(4);

    for value in ["a\nhost=evil", "a\rb", "a\0b"] {
        system.pds(["set", "git/h/u"]).stdin(value).run().done();
        let asked = "protocol=https\nhost=h\n\n";
        program(&system, "git-credential-pds", ["get"])
            .stdin(asked)
            .run()
            .exits(1)
            .says("'git/h/u' holds")
            .prints("");
    }
    // One line feed at the end is what `echo` leaves.
    system.pds(["set", "git/h/u"]).stdin("pw\n").run().done();
    let get = || program(&system, "git-credential-pds", ["get"]);
    get().stdin("protocol=https\nhost=h\n\n").run().done().prints("username=u\npassword=pw\n");
    for attack in [
        "protocol=https\nhost=h\r\n",
        "host=h\n\n",
        "protocol=https\nhost=\n\n",
        "url=https://h\n\n",
        "protocol=https\nhost=h\0\n\n",
    ] {
        get().stdin(attack).run().exits(1).prints("");
    }
    get().stdin(vec![b'x'; 2 << 20]).run().exits(1).says("too long");
    program(&system, "git-credential-pds", ["frobnicate"]).run().done().prints("").says_nothing();
    system.pds(["set", "git/h/other"]).stdin("x").run().done();
    get().stdin("protocol=https\nhost=h\n\n").run().exits(1).says("several users");
    // A path is more than a host, and a password of the host does for its paths.
    system.pds(["set", "git/h/org/repo.git/u"]).stdin("for the repository").run().done();
    let path =
        |path: &str| get().stdin(format!("protocol=https\nhost=h\npath={path}\nusername=u\n\n")).run().done();
    path("org/repo.git").prints("username=u\npassword=for the repository\n");
    path("org/other.git").prints("username=u\npassword=pw\n");
    system.pds(["lock"]).run().done();
    get().stdin("protocol=https\nhost=h\n\n").run().exits(3).prints("").says("locked");
}

#[test]
fn docker_is_answered_as_its_protocol_has_it() {
    let system = booted();
    let docker = |operation: &str, stdin: &str| {
        program(&system, "docker-credential-pds", [operation]).stdin(stdin).run()
    };
    const HUB: &str = "https://index.docker.io/v1/";
    let missing = "credentials not found in native keychain\n";
    docker("get", "ghcr.io").exits(1).prints(missing);
    docker("erase", "ghcr.io").exits(1).prints(missing);
    docker("list", "").done().prints("{}\n");
    let store = |server: &str, user: &str, secret: &str| {
        let given = serde_json::json!({"ServerURL": server, "Username": user, "Secret": secret});
        docker("store", &given.to_string()).done().prints("");
    };
    store("ghcr.io", "alice", "s3cret \"\\\n ü");
    store(HUB, "<token>", "identity");
    system.pds(["get", "docker/ghcr.io/alice"]).run().done().prints("s3cret \"\\\n ü");
    let got = docker("get", "ghcr.io\n").done().json();
    assert_eq!(
        got,
        serde_json::json!({"ServerURL": "ghcr.io", "Username": "alice", "Secret": "s3cret \"\\\n ü"})
    );
    assert_eq!(docker("list", "").done().json(), serde_json::json!({"ghcr.io": "alice", HUB: "<token>"}));
    // A server has one user, as in docker's other stores.
    store("ghcr.io", "bob", "b");
    assert_eq!(docker("get", "ghcr.io").done().json()["Username"], "bob");
    docker("erase", "ghcr.io").done();
    docker("get", "ghcr.io").exits(1).prints(missing);
    docker("get", HUB).done();
    for wrong in [
        "",
        "{",
        "{\"ServerURL\":\"\",\"Username\":\"u\",\"Secret\":\"hunter2\"}",
        "{\"ServerURL\":\"a\\nb\",\"Username\":\"u\",\"Secret\":\"hunter2\"}",
        "{\"ServerURL\":\"a\",\"Username\":\"\",\"Secret\":\"hunter2\"}",
    ] {
        let ended = docker("store", wrong).exits(1);
        let told = [ended.stdout.clone(), ended.stderr.clone()].concat();
        assert!(!String::from_utf8_lossy(&told).contains("hunter2"));
    }
}

#[test]
fn cargo_logs_in_asks_for_its_token_and_logs_out() {
    let system = booted();
    let server = Server::start("cargo_registry.py", &[TOKEN]);
    let home = system.folder().join("cargo");
    std::fs::create_dir(&home).unwrap();
    let index = format!("sparse+http://127.0.0.1:{}/", server.port);
    let config = format!(
        "[registries.local]\nindex = \"{index}\"\ncredential-provider = [\"cargo-credential-pds\"]\n"
    );
    std::fs::write(home.join("config.toml"), config).unwrap();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| env!("CARGO").to_owned());
    let cargo = |arguments: &[&str]| program(&system, &cargo, arguments).env("CARGO_HOME", &home);
    let name = format!("cargo-http/127.0.0.1_3A{}", server.port);
    let owners = || cargo(&["owner", "--registry", "local", "--list", "thing"]).run();

    owners().exits(101).says("no token found");
    cargo(&["login", "--registry", "local"]).stdin(format!("{TOKEN}\n")).run().done();
    system.pds(["get", &name]).run().done().prints(TOKEN);
    assert!(owners().done().text().contains("the-owner"));
    assert!(!home.join("credentials.toml").exists());
    cargo(&["logout", "--registry", "local"]).run().done();
    system.pds(["get", &name]).run().exits(4);
    owners().exits(101);

    // The exchange as the Cargo Book has it, with what cargo itself would not send.
    let played = |lines: &str| {
        program(&system, "cargo-credential-pds", ["--cargo-plugin"]).stdin(lines).run().done().text()
    };
    let request = |kind: &str, url: &str| {
        format!(
            "{{\"v\":1,\"registry\":{{\"index-url\":\"{url}\"}},\"kind\":\"{kind}\",\"operation\":\"read\",\"args\":[]}}\n"
        )
    };
    let answers = played(
        &[
            request("get", "file:///x"),
            request("get", "https://x/"),
            request("frob", "https://x/"),
            "{}\n".to_owned(),
        ]
        .concat(),
    );
    let expected = [
        r#"{"v":[1]}"#,
        r#"{"Err":{"kind":"url-not-supported"}}"#,
        r#"{"Err":{"kind":"not-found"}}"#,
        r#"{"Err":{"kind":"operation-not-supported"}}"#,
        r#"{"Err":{"kind":"other","message":"the request is not one of its protocol: it is not its JSON"}}"#,
    ];
    assert_eq!(answers.lines().collect::<Vec<_>>(), expected);
}

/// A folder of sshd's own, and how ssh reaches it: over a pipe, so that it needs no port.
fn sshd(system: &System) -> PathBuf {
    let folder = system.folder().join("sshd");
    std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
    // Where sshd of root shuts itself in.
    if rustix::process::geteuid().is_root() {
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let dot_ssh = system.folder().join("home/.ssh");
    std::fs::DirBuilder::new().mode(0o700).create(&dot_ssh).unwrap();
    key(system, &folder.join("host"), "");
    key(system, &dot_ssh.join("id_ed25519"), "passphrase of the key");
    std::fs::copy(dot_ssh.join("id_ed25519.pub"), folder.join("authorized")).unwrap();
    std::fs::set_permissions(folder.join("authorized"), PermissionsExt::from_mode(0o600)).unwrap();
    let shown = folder.display();
    let config = format!(
        "HostKey {shown}/host\nAuthorizedKeysFile {shown}/authorized\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n"
    );
    std::fs::write(folder.join("config"), config).unwrap();
    folder
}

fn key(system: &System, file: &Path, passphrase: &str) {
    program(system, "ssh-keygen", ["-q", "-t", "ed25519", "-N", passphrase, "-f", file.to_str().unwrap()])
        .run()
        .done();
}

#[test]
fn ssh_gets_the_passphrase_of_a_key_and_never_a_yes() {
    let system = booted();
    let folder = sshd(&system);
    let key = system.folder().join("home/.ssh/id_ed25519").display().to_string();
    let ssh = |checking: &str, hosts: &str| {
        let proxy = format!("ProxyCommand=/usr/sbin/sshd -i -f {}/config", folder.display());
        let hosts = format!("UserKnownHostsFile={}", folder.join(hosts).display());
        let checking = format!("StrictHostKeyChecking={checking}");
        let options = [
            "-F",
            "none",
            "-i",
            &key,
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            &proxy,
            "-o",
            &hosts,
            "-o",
            &checking,
        ];
        program(&system, "ssh", [&options[..], &["test-host", "echo it ran"]].concat())
            .env("SSH_ASKPASS", system.folder().join("links/pds-askpass"))
            .env("SSH_ASKPASS_REQUIRE", "force")
    };
    ssh("accept-new", "known").run().exits(255).says("no secret 'ssh/id_ed25519'");
    system.pds(["set", "ssh/id_ed25519"]).stdin("passphrase of the key\n").run().done();
    ssh("yes", "known").run().done().prints("it ran\n");
    // A secret by its name does for any question but one for a yes.
    system.pds(["mv", "ssh/id_ed25519", "elsewhere"]).run().done();
    ssh("yes", "known").env("PDS_ASKPASS", "elsewhere").run().done().prints("it ran\n");
    system.pds(["set", "elsewhere"]).stdin("yes").run().done();
    ssh("ask", "unknown").env("PDS_ASKPASS", "elsewhere").run().exits(255).says("wants a yes");
    assert!(!folder.join("unknown").exists());
}

#[test]
fn a_question_is_answered_by_the_secret_that_is_named_and_by_no_other() {
    let system = booted();
    system.pds(["set", "sudo/me"]).stdin("pw").run().done();
    system.pds(["set", "ssh/id"]).stdin("phrase").run().done();
    let asked = |question: &str| program(&system, "pds-askpass", [question]);
    asked("[sudo] password for me: ").env("PDS_ASKPASS", "sudo/me").run().done().prints("pw\n");
    asked("-x --json").env("PDS_ASKPASS", "sudo/me").run().done().prints("pw\n");
    for (variable, value) in [("SSH_ASKPASS_PROMPT", "confirm"), ("SSH_ASKPASS_PROMPT", "none")] {
        asked("Allow?").env("PDS_ASKPASS", "sudo/me").env(variable, value).run().exits(1).prints("");
    }
    let home = system.folder().join("home/.ssh/id").display().to_string();
    asked(&format!("Enter passphrase for key '{home}': ")).run().done().prints("phrase\n");
    // What a server asks, ssh shows with this before it.
    asked(&format!("(me@host) Enter passphrase for key '{home}': ")).run().exits(1).prints("");
    asked("me@host's password: ").run().exits(1).prints("").says("PDS_ASKPASS");
    asked("Password:").env("PDS_ASKPASS", "not a name").run().exits(1).prints("");
}
