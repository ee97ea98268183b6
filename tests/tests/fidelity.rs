//! `pds run` changes nothing but the environment: the same lines are run without it and with it, and what a user could
//! see of them is compared. Each row of the table is one line; `--no-capture` shows them.
//!
//! In a line, `$RUN` stands for `pds run --` or for nothing. Where pds differs and says so in the README, the row tells
//! what it does instead.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The table is for whoever asks to see it.
#![allow(clippy::print_stdout)]

use core_types::name::{BUS, LAUNCHER};
use rustix::process::Signal;
use tests::system::wait_for;
use tests::terminal::{PROMPT, Terminal};
use tests::{Spec, System};

/// What stands before a command: nothing.
const WITHOUT: &str = "";
/// What stands before it under pds.
const WITH: &str = "pds run --";
/// What stands before it where pds becomes the command itself.
const HERE: &str = "pds run --here --";

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// Most characters of a cell of the table.
const CELL: usize = 60;

fn booted() -> System {
    System::boot(Spec::ready().secret("api-key", "s3cret value"))
}

/// Shows one row.
fn show(row: &str, without: &str, with: &str) {
    let cell = |text: &str| text.escape_debug().to_string().chars().take(CELL).collect::<String>();
    println!("{row:<56} | {:<CELL$} | {}", cell(without), cell(with));
}

/// Shows one row, of which both sides have to be the same.
fn same(row: &str, without: &str, with: &str) {
    show(row, without, with);
    assert_eq!(without, with, "{row}");
}

/// Shows one row, of which each side has to be what the documentation says.
fn documented(row: &str, found: [&str; 2], expected: [&str; 2]) {
    let [without, with] = found;
    show(row, without, with);
    assert_eq!(found, expected, "{row}");
}

/// What is seen of a line of bash in a shell without a terminal.
fn seen(system: &System, run: &str, line: &str) -> String {
    let ended = system.shell(line).env("RUN", run).run().any();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let mut seen = format!("{} {}", ended.status().code().unwrap(), text(&ended.stdout));
    if !ended.stderr.is_empty() {
        seen = format!("{seen} 2> {}", text(&ended.stderr));
    }
    seen
}

/// A row of a line of bash, without a terminal.
fn line(system: &System, row: &str, line: &str) {
    same(row, &seen(system, WITHOUT, line), &seen(system, WITH, line));
}

/// What is seen of some use of an interactive bash on a terminal, with `$RUN` set.
fn typed(system: &System, run: &str, use_it: &dyn Fn(&mut Terminal<'_>) -> String) -> String {
    let mut terminal = Terminal::bash(system);
    terminal.line(&format!("RUN='{run}'; export RUN; ulimit -c 0"));
    terminal.wait_for(PROMPT);
    use_it(&mut terminal)
}

/// A row of some use of a terminal.
fn on_terminal(system: &System, row: &str, use_it: impl Fn(&mut Terminal<'_>) -> String) {
    same(row, &typed(system, WITHOUT, &use_it), &typed(system, WITH, &use_it));
}

/// One word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Types a line that says `ready`, presses a key, and gives what is shown up to the prompt, with the exit code.
fn key_pressed(terminal: &mut Terminal<'_>, command: &str, key: &str) -> String {
    key_pressed_in(terminal, &format!("$RUN {command}"), key)
}

/// As [`key_pressed`], with the whole line.
fn key_pressed_in(terminal: &mut Terminal<'_>, line: &str, key: &str) -> String {
    terminal.line(line);
    terminal.wait_for("\nready");
    terminal.keys(key);
    let shown = terminal.wait_for(PROMPT);
    terminal.line("echo code=$?.");
    terminal.wait_for("\ncode=");
    let code = terminal.wait_for(".");
    terminal.wait_for(PROMPT);
    format!("{} code {code}", shown.trim())
}

/// The settings of the terminal, which are the same before and after something is done.
fn unchanged(terminal: &mut Terminal<'_>, do_it: impl Fn(&mut Terminal<'_>)) -> String {
    let before = settings(terminal);
    do_it(terminal);
    assert_eq!(settings(terminal), before, "other settings than before");
    before
}

/// The settings of the terminal as `stty -g` tells them to the shell.
fn settings(terminal: &mut Terminal<'_>) -> String {
    terminal.line("echo set''tings $(stty -g).");
    terminal.wait_for("\nsettings ");
    let settings = terminal.wait_for(".");
    terminal.wait_for(PROMPT);
    settings
}

#[test]
fn exit_codes() {
    let system = booted();
    let codes = "for n in $(seq 0 255); do $RUN sh -c \"exit $n\"; echo -n \"$? \"; done";
    line(&system, "exit codes 0 to 255", codes);
    line(&system, "no such command", "$RUN /nonexistent 2>/dev/null");
    line(&system, "not executable", "echo >file; $RUN ./file 2>/dev/null");
    line(&system, "a folder", "$RUN / 2>/dev/null");
    line(&system, "under pds itself", "$RUN $RUN sh -c 'echo nested; exit 7'");
    line(&system, "in the background", "$RUN sh -c 'exit 3' & wait $!");
}

#[test]
fn ends_by_signals() {
    let system = booted();
    // Without 19 to 22, which stop.
    for signal in (1..=18).chain(23..=31) {
        let script =
            format!("ulimit -c 0; {{ $RUN sh -c 'kill -{signal} $$; echo lives'; }} 2>/dev/null; echo $?");
        line(&system, &format!("ended by signal {signal}"), &script);
    }
    line(
        &system,
        "a reader that goes (SIGPIPE)",
        "set +o pipefail; $RUN yes | head -1; echo ${PIPESTATUS[0]}",
    );
}

/// A program that waits for all signals it can, and says which came, until it reads the end of its input.
const TELLS_SIGNALS: &str = "import signal, threading, sys
held = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
signal.pthread_sigmask(signal.SIG_BLOCK, held)
print('ready', flush=True)
while True:
    came = signal.sigwait(held)
    print(int(came), flush=True)
    if came == signal.SIGTERM:
        break
";

#[test]
fn signals_that_are_passed_on() {
    let system = booted();
    // Everything but what cannot be held, what is a fault of the process itself, what tells a process of its own
    // children, limits and terminal, and SIGTERM, which is the last.
    let signals = [1, 2, 3, 10, 12, 14, 16, 18, 20, 23, 26, 27, 28, 29, 30, 15];
    let collected = |run: &str| {
        let told = system.folder().join("told");
        let _old = std::fs::remove_file(&told);
        let script = format!("exec $RUN /usr/bin/python3 -c \"$PROGRAM\" >{}", told.display());
        let running =
            system.program("bash", ["-c", &script]).env("RUN", run).env("PROGRAM", TELLS_SIGNALS).start();
        let told_lines = || std::fs::read_to_string(&told).unwrap_or_default().lines().count();
        wait_for("the program runs", || (told_lines() == 1).then_some(()));
        if run == WITH {
            running.process().wait_until_it_handles(Signal::USR1);
        }
        for (before, signal) in signals.into_iter().enumerate() {
            running.process().signal(Signal::from_named_raw(signal).unwrap());
            wait_for("the signal arrives", || (told_lines() == before + 2).then_some(()));
        }
        let code = running.wait().status().code().unwrap();
        format!("{code} {}", std::fs::read_to_string(&told).unwrap().replace('\n', " "))
    };
    same("signals sent to it, one after the other", &collected(WITHOUT), &collected(WITH));
}

#[test]
fn bytes() {
    let system = booted();
    system.shell("head -c 104857600 /dev/urandom >big").run().done();
    let lines = [
        ("100 MiB in, from a file", "$RUN sha256sum <big"),
        ("100 MiB in, through a pipe", "cat big | $RUN sha256sum"),
        ("100 MiB out, through a pipe", "$RUN cat big | sha256sum"),
        ("100 MiB out, into a file", "$RUN cat big >copy; sha256sum <copy"),
        ("100 MiB of errors, through a pipe", "$RUN sh -c 'cat big >&2' 2>&1 >/dev/null | sha256sum"),
        (
            "one reads where the other stopped",
            "printf '1\\n2\\n3\\n' >f; { read a; $RUN sh -c 'read b; echo $b'; cat; } <f",
        ),
        ("both streams into one file", "$RUN sh -c 'echo a; echo b >&2; echo c' >all 2>&1; cat all"),
        ("the file itself", "$RUN readlink /proc/self/fd/1 >where; cat where"),
        ("added to a file", "echo first >log; $RUN echo second >>log; cat log"),
        ("no input", "$RUN cat </dev/null"),
    ];
    for (row, script) in lines {
        line(&system, row, script);
    }
    let row = "100 MiB through descriptor 3";
    let script = "$RUN sh -c 'sha256sum <&3' 3<big 2>/dev/null";
    let without = seen(&system, WITHOUT, script);
    same(&format!("{row}, --here"), &without, &seen(&system, HERE, script));
    documented(row, [&without, &seen(&system, WITH, script)], [&without, "2 "]);
}

#[test]
fn odd_descriptors() {
    let system = booted();
    let lines = [
        ("no errors", "$RUN sh -c 'echo x >&2 && echo wrote; exit 5' 2>/dev/full"),
        ("a full disk", "$RUN sh -c 'echo x 2>/dev/null || exit 9' >/dev/full"),
        ("a folder as input", "$RUN cat <. 2>&1 | sed 's/.*: //'"),
        ("input that can be written", "$RUN sh -c 'echo x >&0' 0<>file; cat file"),
        ("output that can only be read", ": >f; $RUN sh -c 'echo x 2>/dev/null || exit 9' 1<f"),
        ("a named pipe", "rm -f p; mkfifo p; (echo through >p) & $RUN cat <p"),
        (
            "a socket",
            "coproc $RUN cat; echo x >&${COPROC[1]}; read l <&${COPROC[0]}; echo $l; exec {COPROC[1]}>&-; wait $COPROC_PID",
        ),
    ];
    for (row, script) in lines {
        line(&system, row, script);
    }
    // Rust's own start opens /dev/null in the place of what is closed, before pds can see it.
    let closed = [
        ("closed input", "$RUN cat <&- 2>/dev/null", ["1 ", "0 "]),
        ("closed output", "$RUN echo x >&- 2>/dev/null", ["1 ", "0 "]),
        ("closed errors", "$RUN sh -c 'echo x >&2 || exit 6' 2>&-", ["6 ", "0 "]),
    ];
    for (row, script, expected) in closed {
        documented(row, [&seen(&system, WITHOUT, script), &seen(&system, WITH, script)], expected);
    }
}

#[test]
fn what_a_process_inherits() {
    let system = booted();
    std::fs::create_dir(system.folder().join("some where")).unwrap();
    let status = |fields: &str| format!("grep -E '^({fields}):' /proc/self/status");
    let facts = status("Uid|Gid|Groups|CapBnd|CapEff|NoNewPrivs|Seccomp|Cpus_allowed");
    // The C library keeps 32 and 33 to itself.
    let ignored = |run: &str| {
        let read = r"sed -n 's/^SigIgn:\t//p' /proc/self/status";
        format!("printf '%x\\n' $((0x$({run} {read}) & ~(3 << 31)))")
    };
    let lines = [
        ("user, groups and rights", format!("$RUN {facts}")),
        ("directory", "cd 'some where'; $RUN pwd".to_owned()),
        ("a directory that has gone", "mkdir gone; cd gone; rmdir ../gone; $RUN true".to_owned()),
        ("umask", "umask 027; $RUN sh -c umask".to_owned()),
        (
            "limits",
            "ulimit -S -n 77; ulimit -c 0; ulimit -S -s 4096; $RUN bash -c 'ulimit -a; ulimit -H -a'"
                .to_owned(),
        ),
        ("niceness", "renice -n 5 $$ >/dev/null; $RUN nice".to_owned()),
        ("no ignored signals", ignored("$RUN")),
        ("ignored signals", format!("trap '' HUP INT USR1; {}", ignored("$RUN"))),
        ("nohup", ignored("nohup $RUN")),
        (
            "blocked signals",
            format!(
                "/usr/bin/python3 -c 'import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1, signal.SIGTERM}})
os.execvp(sys.argv[1], sys.argv[1:])' $RUN {}",
                status("SigBlk")
            ),
        ),
        ("namespaces", "$RUN readlink /proc/self/ns/{mnt,pid,user,net,uts,ipc,cgroup}".to_owned()),
    ];
    for (row, script) in lines {
        line(&system, row, &script);
    }
    let row = "an ignored SIGPIPE";
    let script = format!("trap '' PIPE; {}", ignored("$RUN"));
    let found = [&*seen(&system, WITHOUT, &script), &*seen(&system, WITH, &script)];
    documented(row, found, ["0 1000", "0 0"]);
}

#[test]
fn keys_that_are_signals() {
    let system = booted();
    for (row, key) in [("Ctrl-C", CTRL_C), ("Ctrl-\\", CTRL_BACKSLASH)] {
        let child = "sh -c 'echo rea\"\"dy; exec sleep 1000'";
        on_terminal(&system, row, |terminal| key_pressed(terminal, child, key));
        // What comes next in the list, and in the loop of a script that the key is meant for as well.
        on_terminal(&system, &format!("{row}, in a list of commands"), |terminal| {
            key_pressed(terminal, &format!("{child}; echo we''nt-on"), key)
        });
        on_terminal(&system, &format!("{row}, in a loop"), |terminal| {
            let script = r#"for n in 1 2; do $RUN sh -c "test $n = 2 || { echo rea''dy; exec sleep 1000; }"; done; echo we''nt-on"#;
            key_pressed_in(terminal, &format!("bash -c {} 2>/dev/null", quoted(script)), key)
        });
        on_terminal(&system, &format!("{row}, within an interactive shell in a loop"), |terminal| {
            let shell = "bash --norc --noediting -i";
            // Put together, so that the line as it is typed is not taken for the prompt.
            let script = format!("for n in 1 2; do PS1=pds-\"test> \" $RUN {shell}; done");
            terminal.line(&format!("bash -c {}", quoted(&script)));
            terminal.wait_for(PROMPT);
            let shown = key_pressed_in(terminal, "sh -c 'echo rea\"\"dy; exec sleep 1000'", key);
            for _ in 0..2 {
                terminal.line("exit 4");
                terminal.wait_for(PROMPT);
            }
            shown
        });
        on_terminal(&system, &format!("{row}, caught"), |terminal| {
            let child = "bash -c 'trap \"echo caught; exit 7\" INT QUIT; echo rea\"\"dy; until read -t 0.05 line; do :; done'";
            key_pressed(terminal, child, key)
        });
    }
    on_terminal(&system, "Ctrl-D", |terminal| {
        key_pressed(terminal, "sh -c 'echo rea\"\"dy; cat; exit 4'", CTRL_D)
    });
}

/// A job that says when it goes on, and waits for a line.
const JOB: &str = "import os, signal, sys
signal.signal(signal.SIGCONT, lambda *_: os.write(1, b'goes-on\\n'))
os.write(1, b'ready\\n')
os.write(1, b'got-' + os.read(0, 100))
sys.exit(5)
";

#[test]
fn jobs() {
    let system = booted();
    std::fs::write(system.folder().join("job"), JOB).unwrap();
    on_terminal(&system, "Ctrl-Z, jobs, fg, twice", |terminal| {
        terminal.line("$RUN /usr/bin/python3 job; echo code=$?.");
        terminal.wait_for("\nready");
        let mut at_the_prompt = String::new();
        for _ in 0..2 {
            terminal.keys(CTRL_Z);
            terminal.wait_for("Stopped");
            terminal.wait_for(PROMPT);
            // The terminal is the shell's again, with its echo.
            at_the_prompt = settings(terminal);
            terminal.line("jobs");
            terminal.wait_for("Stopped");
            terminal.wait_for(PROMPT);
            terminal.line("fg; echo code=$?.");
            terminal.wait_for("goes-on");
        }
        terminal.line("hello");
        terminal.wait_for("got-hello");
        terminal.wait_for("\ncode=");
        let code = terminal.wait_for(".");
        terminal.wait_for(PROMPT);
        format!("stopped, went on, code {code}, {at_the_prompt}")
    });
    on_terminal(&system, "a job in the background that wants to read", |terminal| {
        terminal.line("$RUN sh -c 'read line; echo got-$line; exit 6' &");
        terminal.wait_for(PROMPT);
        wait_for("the job stops for input", || {
            terminal.line("jobs");
            terminal.wait_for(PROMPT).contains("Stopped").then_some(())
        });
        terminal.line("fg; echo code=$?.");
        terminal.wait_for("exit 6'");
        terminal.line("typed");
        terminal.wait_for("got-typed");
        terminal.wait_for("\ncode=");
        format!("stopped, got the line, code {}", terminal.wait_for("."))
    });
    on_terminal(&system, "a job in the background that writes", |terminal| {
        terminal.line("$RUN sh -c 'echo in-the-ba\"\"ck; exit 8' & wait $!; echo code=$?.");
        terminal.wait_for("\nin-the-back\r\n");
        terminal.wait_for("code=");
        format!("seen, code {}", terminal.wait_for("."))
    });
}

#[test]
fn windows() {
    let system = booted();
    on_terminal(&system, "size of the window, before and after a change", |terminal| {
        terminal.resize(31, 97);
        terminal.line(r"$RUN bash -c 'trap '\''stty size; exit 3'\'' WINCH; stty size; echo rea''dy; until read -t 0.05 line; do :; done'; echo code=$?.");
        let before = terminal.wait_for("\nready");
        terminal.resize(40, 120);
        terminal.wait_for("\n40 120");
        terminal.wait_for("\ncode=");
        let code = terminal.wait_for(".");
        terminal.resize(31, 97);
        format!("{}, 40 120, code {code}", before.lines().last().unwrap_or_default())
    });
}

#[test]
fn screens() {
    let system = booted();
    // All that a session on a terminal shows, byte for byte, without a shell around it.
    let session = |run: &str, script: &str, use_it: &dyn Fn(&mut Terminal<'_>)| {
        let _old = std::fs::remove_file(system.folder().join("text"));
        let set = format!("RUN='{run}'; {script}");
        let mut terminal = Terminal::open(&system, (24, 80), "bash", ["--norc", "-c", &set]);
        use_it(&mut terminal);
        let (status, shown) = terminal.wait_for_all();
        let text = std::fs::read_to_string(system.folder().join("text")).unwrap_or_default();
        (format!("{} bytes, {status}, {}", shown.len(), text.trim_end()), shown)
    };
    let compare = |row: &str, script: &str, use_it: &dyn Fn(&mut Terminal<'_>)| {
        let (without, bytes) = session(WITHOUT, script, use_it);
        let (with, same_bytes) = session(WITH, script, use_it);
        let place = bytes.iter().zip(&same_bytes).position(|(one, other)| one != other);
        let around = |bytes: &[u8]| {
            let from = place.unwrap_or_default().saturating_sub(CELL);
            bytes[from..].escape_ascii().take(2 * CELL).map(char::from).collect::<String>()
        };
        assert_eq!(place, None, "{row}: {} and {}", around(&bytes), around(&same_bytes));
        same(row, &without, &with);
    };
    compare(
        "an editor's screen, its text",
        "TERM=vt100 $RUN vi -u NONE -i NONE text; stty -g",
        &|terminal| {
            terminal.wait_for("\"text\" [New");
            // One by one: an editor shows what comes at once otherwise than what comes later.
            terminal.keys("i");
            for key in ["s", "o", "m", "e"] {
                terminal.keys(key);
                terminal.wait_for(key);
            }
            for (keys, shown) in [("\x1b:", ":"), ("w", "w"), ("q", "q")] {
                terminal.keys(keys);
                terminal.wait_for(shown);
            }
            terminal.keys("\r");
        },
    );
    compare("a pager's screen", "seq 500 >numbers; $RUN less -X numbers; stty -g", &|terminal| {
        terminal.wait_for("23");
        terminal.keys("G");
        terminal.wait_for("500");
        terminal.keys("q");
    });
    compare("1 MiB on a terminal", "yes 0123456789 | head -c 1048576 >m; $RUN cat m", &|_| ());
    compare(
        "raw mode and its settings",
        "$RUN sh -c 's=$(stty -g); stty raw -echo; stty -g; stty $s'; stty -g",
        &|_| (),
    );
    let left = |run: &str| session(run, "$RUN stty -echo; stty -a | grep -o '.echo ' >text", &|_| ()).0;
    documented(
        "settings that it leaves behind",
        [&left(WITHOUT), &left(WITH)],
        ["0 bytes, exit status: 0, -echo", "0 bytes, exit status: 0,  echo"],
    );
    compare("settings of the caller's", "stty -ixon erase x; $RUN stty -g", &|_| ());
    compare(
        "which streams are the terminal",
        "$RUN sh -c 'test -t 0; echo $?; test -t 1; echo $?; test -t 2; echo $?' 2>/dev/null",
        &|_| (),
    );
    let asks = "stty -echo </dev/tty; printf 'Password: ' >/dev/tty; read word </dev/tty; stty echo </dev/tty; test \"$word\" = secret && echo right >text; exit 5";
    for (row, streams) in [
        ("a password asked for on /dev/tty", ""),
        ("the same, in a pipe", "</dev/null 2>&1 | cat"),
        ("the same, without any stream of the terminal", "</dev/null >/dev/null 2>&1"),
    ] {
        compare(
            row,
            &format!(
                "set -o pipefail; $RUN sh -c '{}' {streams}; echo code=$?; stty -g",
                asks.replace('\'', "'\\''")
            ),
            &|terminal| {
                terminal.wait_for("Password: ");
                terminal.keys("secret\r");
            },
        );
    }
}

#[test]
fn the_terminal_after_a_violent_end() {
    let system = booted();
    let finish = |terminal: &mut Terminal<'_>, code: &str| {
        terminal.wait_for(&format!("\ncode={code}."));
        terminal.wait_for(PROMPT);
    };
    on_terminal(&system, "its settings, after SIGKILL of the child", |terminal| {
        unchanged(terminal, |terminal| {
            terminal.line("$RUN sh -c 'kill -9 $$'; echo code=$?.");
            finish(terminal, "137");
        })
    });
    let child = "$RUN sh -c 'echo rea''dy; read line; exit 3'; echo code=$?.";
    for daemon in [LAUNCHER, BUS] {
        on_terminal(&system, &format!("after SIGKILL of {daemon} meanwhile"), |terminal| {
            unchanged(terminal, |terminal| {
                terminal.line(child);
                terminal.wait_for("\nready");
                let old = system.kill(daemon);
                system.wait_until_back(daemon, old);
                terminal.keys("x\r");
                finish(terminal, "3");
            })
        });
    }
    // Without pds, what is killed is the shell's child.
    on_terminal(&system, "after SIGKILL of what the shell started", |terminal| {
        unchanged(terminal, |terminal| {
            terminal.line("$RUN sh -c 'echo rea''dy; read line; exit 3' & fg; echo code=$?.");
            terminal.wait_for("\nready");
            let session = terminal.process().pid();
            let started = wait_for("the shell's child", || {
                let path = format!("/proc/{session}/task/{session}/children");
                std::fs::read_to_string(path).ok()?.split_whitespace().last()?.parse().ok()
            });
            tests::process::Pinned::open(started).unwrap().signal(Signal::KILL);
            finish(terminal, "137");
        })
    });
    // A script that was started by the shell leaves the terminal as it is, and the shell takes it so. The script waits for
    // it here, because nothing says who of the monitor and the script's shell sees the end of pds first.
    on_terminal(&system, "after SIGKILL of what a script started", |terminal| {
        unchanged(terminal, |terminal| {
            let script = "$RUN sh -c \"echo rea\"dy\"; read line; exit 3\"; code=$?; until stty -a | grep -q \" icanon\"; do :; done; exit $code";
            terminal.line(&format!("sh -c '{script}'; echo code=$?."));
            terminal.wait_for("\nready");
            let mut started = terminal.process().pid();
            for _generation in 0..2 {
                started = wait_for("a child of it", || {
                    let path = format!("/proc/{started}/task/{started}/children");
                    std::fs::read_to_string(path).ok()?.split_whitespace().last()?.parse().ok()
                });
            }
            tests::process::Pinned::open(started).unwrap().signal(Signal::KILL);
            finish(terminal, "137");
        })
    });
}

/// A first process of a pid namespace: waits for an orphan that it did not start, and then for a signal.
const FIRST_PROCESS: &str = "import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if os.fork() == 0:
    if os.fork() == 0:
        while os.getppid() != 1:
            pass
        os._exit(3)
    os._exit(0)
codes = sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2))
print(os.getpid(), codes, flush=True)
print(signal.sigwait([signal.SIGTERM]).name)
sys.exit(9)
";

#[test]
fn the_first_process_of_a_container() {
    let system = booted();
    if !rustix::process::geteuid().is_root() {
        return println!("only root can make a pid namespace without another one: nothing was tested");
    }
    let script = "mkfifo told
        unshare --pid --fork --mount-proc bash -c 'exec $RUN /usr/bin/python3 -c \"$PROGRAM\"' >told & pid=$!
        { read first; kill -TERM $(cat /proc/$pid/task/$pid/children); read second; } <told
        wait $pid; echo \"$first $second $?\"; rm told";
    let run =
        |run: &str| system.shell(script).env("RUN", run).env("PROGRAM", FIRST_PROCESS).run().done().text();
    same("process 1: reaps an orphan, gets SIGTERM (--here)", &run(WITHOUT), &run(HERE));
}
