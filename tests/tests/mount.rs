//! `pds mount`: secrets as files for containers that are started later, and a container that reads them.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Spec, System};

/// A folder in memory.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a folder in memory")
}

/// All files below a folder, with what is in them.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for path in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if path.symlink_metadata().unwrap().is_dir() {
                folders.push(path);
            } else if name != ".pds@mount" {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn expected(files: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect()
}

fn mount<'a>(system: &'a System, folder: &Path, options: &[&str]) -> tests::Invocation<'a> {
    system.pds(["mount"].into_iter().chain(options.iter().copied())).arg(folder)
}

#[test]
fn a_folder_has_the_files_and_follows_the_vault_when_told_and_is_left_as_it_was() {
    let system = System::boot(
        Spec::ready()
            .secret("api-key", "k\0\n")
            .secret("db/url", "u")
            .secret("db/sub/password", "p")
            .secret("empty", ""),
    );
    let memory = in_memory();
    let folder = memory.path().join("secrets");
    mount(&system, &folder, &[]).run().done().says("4 secrets").says("pds umount").prints("");
    let whole =
        expected(&[("api-key", b"k\0\n"), ("db/url", b"u"), ("db/sub/password", b"p"), ("empty", b"")]);
    assert_eq!(files(&folder), whole);
    for (name, mode) in [("", 0o700), ("db", 0o700), ("db/sub", 0o700), ("api-key", 0o400), ("db/url", 0o400)]
    {
        let found = std::fs::metadata(folder.join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode, "{name}");
    }
    // Once more, with what has become of the vault: changed, gone, new, and a file where a folder was.
    system.pds(["set", "api-key"]).stdin("new").run().done();
    system.pds(["rm", "--yes", "db/url", "db/sub/password", "empty"]).run().done();
    system.pds(["set", "db/sub"]).stdin("file").run().done();
    mount(&system, &folder, &[]).run().done();
    assert_eq!(files(&folder), expected(&[("api-key", b"new"), ("db/sub", b"file")]));
    mount(&system, &folder, &["--only", "api-key"]).run().done();
    assert_eq!(files(&folder), expected(&[("api-key", b"new")]));
    assert!(!folder.join("db").exists());
    // What cannot be had changes nothing of what lies there.
    mount(&system, &folder, &["--only", "none"]).run().exits(4);
    system.pds(["set", "api-key/below"]).stdin("x").run().done();
    mount(&system, &folder, &[]).run().exits(1).says("a folder for 'api-key/below'");
    system.pds(["lock"]).run().done();
    mount(&system, &folder, &["--only", "api-key"]).run().exits(3);
    assert_eq!(files(&folder), expected(&[("api-key", b"new")]));

    // Locked or not, and with somebody else's file in it.
    std::fs::write(folder.join("mine"), "mine").unwrap();
    system.pds(["umount"]).arg(&folder).run().done();
    assert_eq!(files(&folder), expected(&[("mine", b"mine")]));
    system.pds(["umount"]).arg(&folder).run().exits(1).says("was not filled by pds mount");
    system.pds(["unlock"]).password().run().done();
    mount(&system, &folder, &["--only", "api-key"]).run().exits(1).says("is not empty");
    std::fs::remove_file(folder.join("mine")).unwrap();
    mount(&system, &folder, &["--only", "api-key"]).run().done();
    system.pds(["umount"]).arg(&folder).run().done();
    assert!(!folder.exists());
}

#[test]
fn a_folder_on_a_disk_or_of_others_is_refused_and_no_link_in_it_is_followed() {
    let system = System::boot(Spec::ready().secret("api-key", "value").secret("db/url", "u"));
    let disk = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let on_disk = tempfile::tempdir_in(&disk).unwrap();
    for folder in [on_disk.path().to_owned(), on_disk.path().join("new")] {
        mount(&system, &folder, &[]).run().exits(1).says("lies on a disk").says("$XDG_RUNTIME_DIR");
    }
    assert_eq!(std::fs::read_dir(on_disk.path()).unwrap().count(), 0);
    let memory = in_memory();
    let shared = memory.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).unwrap();
    mount(&system, &shared, &[]).run().exits(1).says("nobody else can write");
    mount(&system, Path::new("/dev/null"), &[]).run().exits(1);

    // Whoever may write there puts links in the place of what is ours.
    let folder = memory.path().join("secrets");
    mount(&system, &folder, &[]).run().done();
    let (outside, target) = (memory.path().join("outside"), memory.path().join("target"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(&target, "theirs").unwrap();
    std::fs::remove_dir_all(folder.join("db")).unwrap();
    symlink(&outside, folder.join("db")).unwrap();
    mount(&system, &folder, &[]).run().exits(1);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    std::fs::write(outside.join("url"), "theirs").unwrap();
    std::fs::remove_file(folder.join("api-key")).unwrap();
    symlink(&target, folder.join("api-key")).unwrap();
    symlink(&target, folder.join(".pds@new")).unwrap();
    mount(&system, &folder, &["--only", "api-key"]).run().done();
    assert_eq!(std::fs::read(folder.join("api-key")).unwrap(), b"value");
    assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
    system.pds(["umount"]).arg(&folder).run().done();
    assert_eq!(std::fs::read(outside.join("url")).unwrap(), b"theirs", "nor when they are removed");
}

/// podman(1) as root on a machine that may itself be a container: no control groups of its own, and no higher limits.
struct Podman {
    folder: tempfile::TempDir,
}

impl Podman {
    /// With an image of nothing but busybox.
    fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let at = |name: &str| folder.path().join(name);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(1 << 20);
        std::fs::write(
            at("storage.conf"),
            format!(
                "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/graph\"\nrunroot = \"{0}/run\"\n",
                folder.path().display()
            ),
        )
        .unwrap();
        std::fs::write(
            at("containers.conf"),
            format!("[containers]\ncgroups = \"disabled\"\ndefault_ulimits = [\"nofile={limit}:{limit}\", \"nproc=4096:4096\"]\n[engine]\nruntime = \"crun\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n"),
        )
        .unwrap();
        let podman = Self { folder };
        std::fs::create_dir_all(podman.folder.path().join("root/bin")).unwrap();
        std::fs::create_dir_all(podman.folder.path().join("root/run/secrets")).unwrap();
        std::fs::copy("/bin/busybox", podman.folder.path().join("root/bin/sh")).unwrap();
        podman.run(&[
            "sh",
            "-c",
            "tar -C $0/root -c . | podman import -q - localhost/sh:1",
            &podman.folder.path().display().to_string(),
        ]);
        podman
    }

    /// Runs a command in a mount namespace with nothing but the newer kind of control groups; gives its output.
    fn run(&self, command: &[&str]) -> String {
        let line =
            "umount -R /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec \"$@\"";
        let output = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", line, "sh"])
            .args(command)
            .env("CONTAINERS_STORAGE_CONF", self.folder.path().join("storage.conf"))
            .env("CONTAINERS_CONF", self.folder.path().join("containers.conf"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {} {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn a_container_of_an_unprivileged_user_reads_its_secrets() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let system = System::boot(
        Spec::ready()
            .secret("openai-api-key", "sk-1\n")
            .secret("database-url", "postgres://u:p@h/d")
            .secret("other", "x"),
    );
    let (memory, podman) = (in_memory(), Podman::new());
    // The way to it is no way for others; the container gets the folder itself.
    let folder = memory.path().join("secrets");
    let wanted = ["--only", "openai-api-key,database-url", "--owner", "65534:65534"];
    mount(&system, &folder, &wanted).run().done();
    let owner = |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
    assert_eq!((owner(&folder), owner(&folder.join("database-url"))), ((65534, 65534), (65534, 65534)));
    let volume = format!("{}:/run/secrets:ro", folder.display());
    let container = |line: &str| {
        podman.run(&[
            "podman",
            "run",
            "--rm",
            "--network=none",
            "--user=65534:65534",
            "--read-only",
            "--cap-drop=all",
            "-v",
            &volume,
            "localhost/sh:1",
            "/bin/sh",
            "-c",
            line,
        ])
    };
    let read = "cd /run/secrets; for f in *; do echo $f; while IFS= read -r l || test -n \"$l\"; do echo $l; done <$f; done";
    let shown = "database-url\npostgres://u:p@h/d\nopenai-api-key\nsk-1\n";
    assert_eq!(container(read), shown);
    assert_eq!(container("(echo x >/run/secrets/new) 2>/dev/null || echo read-only"), "read-only\n");
    // A changed secret reaches the next start.
    system.pds(["set", "database-url"]).stdin("new").run().done();
    mount(&system, &folder, &wanted).run().done();
    assert_eq!(container(read), shown.replace("postgres://u:p@h/d", "new"));
    system.pds(["umount"]).arg(&folder).run().done();
    assert!(!folder.exists());
}
