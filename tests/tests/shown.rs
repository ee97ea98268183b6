//! What `pds` draws on a terminal: QR codes, which a reader of them reads, and the choice of a name.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tests::terminal::Terminal;
use tests::{Spec, System};

/// Modules of a drawing, dark ones true: two lines of them in each line of text.
fn modules(text: &str) -> Vec<Vec<bool>> {
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.contains("\x1b[38;5;16;48;5;231m")) {
        let inner = line.split("48;5;231m").nth(1).unwrap().split('\x1b').next().unwrap();
        rows.push(inner.chars().map(|letter| "█▀".contains(letter)).collect());
        rows.push(inner.chars().map(|letter| "█▄".contains(letter)).collect());
    }
    rows
}

/// What a reader of QR codes sees, each module being some dots of a picture.
fn read(rows: &[Vec<bool>]) -> String {
    const DOTS: usize = 4;
    let (width, height) = (rows[0].len() * DOTS, rows.len() * DOTS);
    let mut picture =
        rqrr::PreparedImage::prepare_from_bitmap(width, height, |x, y| rows[y / DOTS][x / DOTS]);
    let grids = picture.detect_grids();
    assert_eq!(grids.len(), 1, "one code is seen");
    grids[0].decode().unwrap().1
}

#[test]
fn a_reader_reads_the_value_from_the_terminal() {
    let long = "0aB/+=äあ".repeat(60);
    let values =
        ["x", "0123456789", "otpauth://totp/ACME?secret=GEZDGNBVGY3TQOJQ", "grüße, 東京", long.as_str()];
    let mut spec = Spec::new().profile("default").secret("bytes", b"\xff\xfe");
    for (number, value) in values.iter().enumerate() {
        spec = spec.secret(&format!("s{number}"), value);
    }
    let system = System::boot(spec);
    let mut terminal = Terminal::bash(&system);
    terminal.resize(200, 300);
    for (number, value) in values.iter().enumerate() {
        terminal.line(&format!("pds qr s{number}; echo ended-$?"));
        let text = terminal.wait_for("ended-0");
        assert_eq!(read(&modules(&text)), *value);
        let told = system.pds(["qr", &format!("s{number}"), "--yes"]).run().done();
        assert_eq!(modules(&String::from_utf8(told.stdout).unwrap()), modules(&text));
    }
    terminal.resize(20, 300);
    terminal.line("pds qr s2; echo ended-$?");
    let text = terminal.wait_for("ended-1");
    assert!(text.contains("make the window larger") && modules(&text).is_empty());
    terminal.line("exit");
    terminal.wait();
    system.pds(["qr", "s0"]).run().exits(2).prints("").says("--yes");
    system.pds(["qr", "bytes", "--yes"]).run().exits(1).prints("").says("not text");
    system.pds(["qr", "nothing", "--yes"]).run().exits(4).prints("");
    let told = system.pds(["qr", "s0", "--yes", "--json"]).run().done().json();
    assert_eq!(told["modules"].as_array().unwrap().len(), 21);
}

#[test]
fn a_name_is_chosen_by_some_of_its_letters_and_the_terminal_is_as_it_was() {
    let system = System::boot(
        Spec::new()
            .profile("default")
            .secret("db/password", "first-value")
            .secret("db/user", "me")
            .secret("api", "k"),
    );
    let mut terminal = Terminal::bash(&system);
    let shape = |terminal: &Terminal<'_>| {
        let settings = terminal.settings();
        (settings.local_modes, settings.input_modes, settings.output_modes)
    };
    let before = shape(&terminal);
    for (keys, ended, expected) in [
        ("dbpw\r", "ended-0", "first-value"),
        ("\x1b[B\x1b[B\r", "ended-0", "me"),
        ("nothing\r\x15\r", "ended-0", "k"),
        ("\x1b", "ended-1", ""),
        ("\x04", "ended-1", ""),
    ] {
        terminal.line("pds get >out; echo ended-$?");
        terminal.wait_for("3 of 3");
        terminal.keys(keys);
        let shown = terminal.wait_for(ended);
        assert!(!shown.contains("first-value"), "names only");
        terminal.wait_for(tests::terminal::PROMPT);
        assert_eq!(std::fs::read_to_string(system.folder().join("out")).unwrap(), expected);
        assert_eq!(shape(&terminal), before);
    }
    // The interrupt key ends it as it ends other programs, which bash notices.
    terminal.line("pds get >out; echo not-reached");
    terminal.wait_for("3 of 3");
    terminal.keys("\x03");
    terminal.wait_for(tests::terminal::PROMPT);
    assert_eq!(shape(&terminal), before);
    // Stopped and taken up again.
    terminal.line("pds get >out; echo ended-$?");
    terminal.wait_for("3 of 3");
    terminal.keys("\x1a");
    terminal.wait_for("Stopped");
    assert_eq!(shape(&terminal), before);
    terminal.wait_for(tests::terminal::PROMPT);
    terminal.line("fg; echo back-$?");
    terminal.wait_for("3 of 3");
    terminal.keys("api\r");
    terminal.wait_for("back-0");
    assert_eq!(std::fs::read_to_string(system.folder().join("out")).unwrap(), "k");
    terminal.line("pds -q get; TERM=dumb pds get; pds get </dev/null; echo ended-$?");
    let told = terminal.wait_for("ended-2");
    assert_eq!(told.matches("<NAME> is missing").count(), 3, "{told}");
    terminal.line("exit");
    terminal.wait();
    system.pds(["get"]).run().exits(2).prints("").says("<NAME> is missing");
}
