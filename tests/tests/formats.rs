//! What leaves pds as text for other programs: `pds read`, `pds inject` and `pds env`, read back by those programs.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;

use tests::{Spec, System};

const PEM: &str =
    "-----BEGIN KEY-----\nline 'two' \"$x\" `date` $(date) !! \\n \\\\ \\'\n-----END KEY-----\n\n";

/// Values that a shell would like to change: every byte that a variable can hold, then what reads like code.
fn hard() -> Vec<(&'static str, Vec<u8>)> {
    let mut values = vec![("all-bytes", (1..=255).collect::<Vec<u8>>())];
    let texts = [
        ("empty", ""),
        ("pem", PEM),
        ("quotes", "'\"'\"'\\''\"\\\"'"),
        ("ends", "a\\"),
        ("blanks", "  a \t b  "),
        ("lines", "\n\na\n\n"),
        ("returns", "a\r\nb\r"),
        ("code", "$(touch it-ran)`touch it-ran`;touch it-ran;${HOME}$HOME~ *"),
        ("unicode", "\u{e4}\u{1f511}\u{2028}\u{feff}"),
        ("dash", "-n"),
    ];
    values.extend(texts.map(|(name, text)| (name, text.as_bytes().to_vec())));
    values
}

/// Values that every format with quotes can hold.
const PLAIN: [(&str, &str); 7] = [
    ("empty", ""),
    ("quotes", "it's \"quoted\""),
    ("dollar", "pa$word $x"),
    ("lines", "line 1\n  line 2 # not a comment\n\n"),
    ("backslash", "C:\\new\\table 'x'"),
    ("blanks", "  a # b = c  "),
    ("unicode", "\u{e4}\u{1f511}"),
];

fn system_with<'a>(values: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> System {
    System::boot(values.into_iter().fold(Spec::ready(), |spec, (name, value)| spec.secret(name, value)))
}

/// The child's variables, as `NAME=value` with NUL between.
fn expected(values: &[(&str, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = values
        .iter()
        .map(|(name, value)| {
            let name = name.to_ascii_uppercase().replace('-', "_");
            [name.as_bytes(), b"=", value].concat()
        })
        .collect();
    all.sort();
    all
}

/// Those of the entries that `env -0` printed whose names are among the values.
fn found(printed: &[u8], values: &[(&str, Vec<u8>)]) -> Vec<Vec<u8>> {
    let names: Vec<String> =
        values.iter().map(|(name, _)| name.to_ascii_uppercase().replace('-', "_") + "=").collect();
    let is_ours = |entry: &&[u8]| names.iter().any(|name| entry.starts_with(name.as_bytes()));
    let mut all: Vec<Vec<u8>> =
        printed.split(|byte| *byte == 0).filter(is_ours).map(<[u8]>::to_vec).collect();
    all.sort();
    all
}

#[test]
fn shells_read_back_every_byte() {
    let values = hard();
    let system = system_with(values.iter().map(|(name, value)| (*name, value.as_slice())));
    for line in [
        "eval \"$(pds env)\"; env -0",
        "dash -c 'eval \"$(pds env)\"; env -0'",
        "pds env >assignments; . ./assignments; env -0",
        "fish --no-config -c 'pds env --format fish | source; env -0'",
    ] {
        let ended = system.shell(line).env("LC_ALL", "C.UTF-8").run().done();
        assert!(found(&ended.stdout, &values) == expected(&values), "{line}");
    }
    assert!(!system.folder().join("it-ran").exists(), "a value was executed");
    let ended = system.pds(["env"]).run().done();
    assert!(!ended.stdout.windows(11).any(|window| window == b"PDS_PROFILE"), "only secrets are printed");
}

#[test]
fn json_and_dotenv_readers_read_back_what_they_can_hold() {
    let values: Vec<(&str, Vec<u8>)> =
        PLAIN.iter().map(|(name, value)| (*name, value.as_bytes().to_vec())).collect();
    let system = system_with(PLAIN.iter().map(|(name, value)| (*name, value.as_bytes())));
    let object = system.pds(["env", "--format", "json"]).run().done().json();
    for (name, value) in PLAIN {
        assert_eq!(object[name.to_ascii_uppercase()], value);
    }
    assert_eq!(object.as_object().unwrap().len(), PLAIN.len());
    system.pds(["env", "--json"]).run().done().prints(format!("{object}\n"));

    let script = "import dotenv, sys\n\
        for name, value in dotenv.dotenv_values('.env').items():\n    \
        sys.stdout.buffer.write(f'{name}={value}\\0'.encode())";
    system.shell("pds env --format dotenv >.env").run().done();
    let python = system.program("/usr/bin/python3", ["-c", script]).env("LC_ALL", "C.UTF-8").run().done();
    assert!(found(&python.stdout, &values) == expected(&values), "python-dotenv");
    let own = system.pds(["run", "--none", "--env-file", ".env", "--", "env", "-0"]).run().done();
    assert!(found(&own.stdout, &values) == expected(&values), "--env-file");
}

#[test]
fn what_a_format_cannot_hold_is_named_and_nothing_is_printed() {
    let system = system_with([("pem", PEM.as_bytes()), ("raw", b"\xff"), ("fine", b"x")]);
    let refused = |format: &str, name: &str, variable: &str| {
        let ended = system.pds(["env", "--format", format, "--only", &format!("fine,{name}")]).run().exits(1);
        ended.prints("").says(variable).says(format);
    };
    refused("docker", "pem", "PEM");
    refused("docker", "raw", "RAW");
    refused("json", "raw", "RAW");
    refused("dotenv", "raw", "RAW");
    system.pds(["env", "--format", "docker", "--only", "fine"]).run().done().prints("FINE=x\n");
    system.pds(["env", "--only", "missing"]).run().exits(4).prints("").says("missing");
}

#[test]
fn a_selection_decides_what_is_printed_as_it_does_for_run() {
    let spec = Spec::ready().secret("a", "1").secret("b", "2").profile("work").secret("c", "3");
    let system = System::boot(spec);
    std::fs::write(system.folder().join(".env"), "REF=pds://work/c\nPLAIN='x y'\n").unwrap();
    let prints = |options: &[&str], text: &str| {
        system.pds([&["env"], options].concat()).run().done().prints(text);
    };
    prints(&["--only", "a", "--prefix", "P_"], "export P_A='1'\n");
    prints(&["--none", "--env", "X=b"], "export X='2'\n");
    prints(&["-p", "work", "-p", "default", "--only", "a,c"], "export A='1'\nexport C='3'\n");
    let ended = system.pds(["env", "--none", "--env-file", ".env"]).run().done();
    ended.prints_among("export REF='3'\n").prints_among("export PLAIN='x y'\n");
}

#[test]
fn direnv_loads_the_documented_envrc_and_takes_it_back() {
    let system = system_with([("pem", PEM.as_bytes())]);
    let project = system.folder().join("project");
    std::fs::create_dir(&project).unwrap();
    std::fs::write(project.join(".envrc"), "vars=$(pds env --only pem) || exit\neval \"$vars\"\n").unwrap();
    let script = "export DIRENV_LOG_FORMAT=; direnv allow project; cd project; eval \"$(direnv export bash)\"; \
        printf '%s' \"$PEM\"; cd ..; eval \"$(direnv export bash)\"; printf '<%s>' \"${PEM-gone}\"";
    system.shell(script).run().done().prints(format!("{PEM}<gone>"));
    system.pds(["lock"]).run().done();
    let locked = system.shell("cd project; direnv exec . true").run();
    assert_ne!(locked.status().code(), Some(0), "{}", locked.said());
}

#[test]
fn read_writes_exactly_the_value_of_a_reference() {
    let value: Vec<u8> = (0..=255).collect();
    let spec = Spec::ready().profile("work").secret("db/raw", value.clone()).profile("shut").secret("a", "x");
    let system = System::boot(spec.locked());
    system.pds(["read", "pds://work/db/raw"]).run().done().prints(&value);
    system.pds(["read", "pds://work/missing"]).run().exits(4).prints("").says("pds list -p work");
    system.pds(["read", "pds://shut/a"]).run().exits(3).says("pds unlock -p shut");
    for wrong in ["work/db/raw", "pds://work", "pds://work/a b"] {
        system.pds(["read", wrong]).run().exits(2).prints("");
    }
}

#[test]
fn a_template_is_filled_whole_or_not_at_all() {
    let spec = Spec::ready().secret("a", "A's").profile("work").secret("pem", PEM).secret("shut", "x");
    let system = System::boot(spec);
    let file = |name: &str| system.folder().join(name);
    let template =
        "key: {{ pds://work/pem }}\nhelm: {{ .Values.x }}\ntwice: {{pds://default/a}}{{pds://default/a}}\n";
    let filled = format!("key: {PEM}\nhelm: {{{{ .Values.x }}}}\ntwice: A'sA's\n");
    system.pds(["inject"]).stdin(template).run().done().prints(&filled);
    std::fs::write(file("template"), template).unwrap();
    std::fs::write(file("out"), "the old content").unwrap();
    std::fs::set_permissions(file("out"), std::fs::Permissions::from_mode(0o644)).unwrap();

    std::fs::write(file("broken"), format!("{template}{{{{ pds://work/missing }}}}")).unwrap();
    let ended = system.pds(["inject", "-i", "broken", "-o", "out"]).run().exits(4);
    ended.prints("").says("line 4").says("pds://work/missing");
    assert_eq!(std::fs::read(file("out")).unwrap(), b"the old content");
    system.pds(["inject", "-i", "broken"]).run().exits(4).prints("");

    system.pds(["inject", "-i", "template", "-o", "out"]).run().done().prints("");
    assert_eq!(std::fs::read(file("out")).unwrap(), filled.as_bytes());
    assert_eq!(std::fs::metadata(file("out")).unwrap().permissions().mode() & 0o777, 0o600);
    let names = std::fs::read_dir(system.folder())
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert!(names.into_iter().all(|name| !name.contains(".new")), "nothing is left beside it");

    system.pds(["inject", "-i", "template", "-o", "/dev/stdout"]).run().exits(1).says("/dev/stdout");
    system.pds(["inject"]).stdin(vec![b'x'; (1 << 20) + 1]).run().exits(1).prints("");
    system.write_config("[profiles.work.access.cli]\nget = ['shut']\n");
    let ended = system.pds(["inject", "-i", "template"]).run().exits(5);
    ended.prints("").says("line 1").says("pds://work/pem");
}
