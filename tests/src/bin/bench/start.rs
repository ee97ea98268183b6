//! Starting a program with secrets: few and many, and beside what else is installed that does the like.

use std::path::Path;
use std::process::{Command, Stdio};

use tests::{Spec, System};

use crate::RATES;
use crate::measure::{Rounds, Row, pair};

const STARTS: Rounds = Rounds { rounds: 30, each: 3 };
/// What others are given as well.
const USUAL: usize = 30;

/// The rows: each against the program alone.
pub(crate) fn all() -> Vec<Row> {
    let mut rows: Vec<Row> = [1, USUAL, 1_000].into_iter().map(pds).collect();
    rows.extend(Other::installed().into_iter().map(|other| other.row()));
    rows
}

fn pds(count: usize) -> Row {
    let spec = Spec::new().config(RATES).profile("default");
    let system =
        System::boot((0..count).fold(spec, |spec, number| spec.secret(&format!("s{number}"), value(number))));
    let mut command = Command::new(system.programs().join("pds"));
    command.args(["run", "--", "/bin/true"]).env_clear().envs(system.environment());
    row(&format!("`pds run -- true` with {count} secrets"), command)
}

fn value(number: usize) -> String {
    format!("{number:032}")
}

fn row(name: &str, mut command: Command) -> Row {
    let mut floor = Command::new("/bin/true");
    Row::times(name, pair(STARTS, || start(&mut floor), || start(&mut command)), f64::INFINITY)
}

fn start(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("a program that can be started").success(), "{command:?}");
}

/// Another program that starts programs.
enum Other {
    /// Values that are encrypted each by itself in a file, with their key beside it.
    Dotenvx,
    /// Values that are encrypted in a file each by itself, with age.
    Fnox,
    /// No values at all: a program in a unit of its own.
    SystemdRun,
}

impl Other {
    fn installed() -> Vec<Self> {
        let all = [(Self::Dotenvx, "dotenvx"), (Self::Fnox, "fnox"), (Self::SystemdRun, "systemd-run")];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
        let works = |other: &Self| !matches!(other, Self::SystemdRun) || has_user_manager();
        all.into_iter().filter(|(other, name)| found(name) && works(other)).map(|(other, _)| other).collect()
    }

    fn row(&self) -> Row {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        match self {
            Self::Dotenvx => {
                let lines: String = (0..USUAL).map(|n| format!("S{n}={}\n", value(n))).collect();
                std::fs::write(folder.join(".env"), lines).expect("a file");
                done(folder, "dotenvx", &["encrypt", "-f", ".env"]);
                let arguments = ["run", "--quiet", "-f", ".env", "--", "/bin/true"];
                row(&format!("dotenvx run, {USUAL} encrypted values"), command(folder, "dotenvx", &arguments))
            }
            Self::Fnox => {
                done(folder, "age-keygen", &["-o", "key.txt"]);
                let key = std::fs::read_to_string(folder.join("key.txt")).expect("a key");
                let public =
                    key.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("a public key");
                let provider =
                    format!("[providers.age]\ntype = \"age\"\nrecipients = [\"{public}\"]\n\n[secrets]\n");
                std::fs::write(folder.join("fnox.toml"), provider).expect("a file");
                for number in 0..USUAL {
                    done(
                        folder,
                        "fnox",
                        &["set", &format!("S{number}"), &value(number), "--provider", "age"],
                    );
                }
                let arguments = ["exec", "--", "/bin/true"];
                row(&format!("fnox exec, {USUAL} encrypted values"), command(folder, "fnox", &arguments))
            }
            Self::SystemdRun => {
                let arguments = ["--user", "--pipe", "--wait", "--quiet", "--collect", "--", "/bin/true"];
                row("systemd-run --user --pipe, no values", command(folder, "systemd-run", &arguments))
            }
        }
    }
}

fn has_user_manager() -> bool {
    let mut asked = Command::new("systemctl");
    asked.args(["--user", "show", "--property=Version"]).stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}

fn command(folder: &Path, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env("FNOX_AGE_KEY_FILE", folder.join("key.txt"));
    command
}

fn done(folder: &Path, program: &str, arguments: &[&str]) {
    start(&mut command(folder, program, arguments));
}
