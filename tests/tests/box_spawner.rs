//! The spawner as a unit of its own: it works for the launcher that systemd started and for nobody else, and the launcher takes
//! nobody else for it.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tests::machine::Machine;
use tests::system::wait_for;

fn works(machine: &Machine) {
    wait_for("the launcher serves", || {
        let run = machine.user("pds --no-start run -- sh -c 'echo $API_KEY'");
        (run.code() == 0 && run.text() == "value").then_some(())
    });
}

/// Asks for a monitor as the launcher does, with sockets of its own making: one at the place of the launcher's name, and as
/// if it had the spawner's. Prints how many bytes it is answered.
const STRANGER: &str = "import os, socket, sys
runtime = os.environ['XDG_RUNTIME_DIR'] + '/pds/'
def listening(path):
    name = socket.socket(socket.AF_UNIX)
    name.bind(path)
    name.listen()
    return name
os.rename(runtime + 'daemon-launcher.name', runtime + 'kept')
name = listening(runtime + 'daemon-launcher.name')
os.rename(runtime + 'kept', runtime + 'daemon-launcher.name')
spawner = socket.socket(socket.AF_UNIX)
spawner.connect(runtime + 'spawner.sock')
word = os.memfd_create('pds-witness:word')
socket.send_fds(spawner, [bytes(4)], [word, name.fileno()])
spawner.settimeout(20)
print(len(spawner.recv(1)))";

/// Listens where the spawner's socket is, and prints how many bytes come of the first that connects.
const IMPOSTOR: &str = "import os, socket
path = os.environ['XDG_RUNTIME_DIR'] + '/pds/spawner.sock'
os.rename(path, path + '.kept')
spawner = socket.socket(socket.AF_UNIX)
spawner.bind(path)
spawner.listen()
spawner.settimeout(20)
print('listens', flush=True)
launcher, _ = spawner.accept()
launcher.settimeout(20)
print(len(launcher.recv(1)), flush=True)
os.rename(path + '.kept', path)";

#[test]
fn who_is_not_the_launcher_gets_no_monitor_and_who_is_not_the_spawner_no_request() {
    let Some(machine) = Machine::with_a_secret() else { return };
    for (name, text) in [("stranger", STRANGER), ("impostor", IMPOSTOR)] {
        machine.user(&format!("cat >{name} <<'END'\n{text}\nEND")).ok();
    }
    works(&machine);

    machine.user("systemctl --user stop pds-launcher.service").ok();
    assert_eq!(machine.user("/usr/bin/python3 stranger").ok(), "0", "an end, and no answer");
    // One that says nothing at all does not hold it up for long.
    machine.user("/usr/bin/python3 -c 'import os, socket, time; s = socket.socket(socket.AF_UNIX); s.connect(os.environ[\"XDG_RUNTIME_DIR\"] + \"/pds/spawner.sock\"); time.sleep(300)' >/dev/null 2>&1 & echo $! >silent").ok();
    machine.user("systemctl --user start pds-launcher.service").ok();
    works(&machine);
    machine.user("kill $(cat silent)").ok();

    machine.user("/usr/bin/python3 impostor >answered 2>&1 &").ok();
    wait_for("the impostor listens", || (machine.user("grep -c listens answered").code() == 0).then_some(()));
    machine
        .user("systemctl --user reset-failed; systemctl --user restart --no-block pds-launcher.service")
        .ok();
    wait_for("the launcher comes", || (machine.user("wc -l <answered").text() == "2").then_some(()));
    assert_eq!(machine.user("tail -n 1 answered").text(), "0", "it goes without a word");
    machine.user("systemctl --user reset-failed; systemctl --user restart pds-launcher.service").ok();
    works(&machine);
}

#[test]
fn programs_outlive_the_spawner() {
    let Some(machine) = Machine::with_a_secret() else { return };
    works(&machine);
    machine
        .user("pds run -- sh -c 'echo $$ >child; exec sleep 300' >/dev/null 2>&1 & until test -s child; do :; done")
        .ok();

    // The witness is for all to look at; what they find is its word, and nothing that leads anywhere.
    let files = machine.user("witness=$(readlink $XDG_RUNTIME_DIR/pds/witness | cut -d/ -f3); ls /proc/$witness/fd; readlink /proc/$witness/fd/0 /proc/$witness/fd/1").ok();
    let files: Vec<&str> = files.lines().collect();
    assert_eq!(files[..4], ["0", "1", "2", "/dev/null"], "{files:?}");
    assert!(files.len() == 5 && files[4].contains("memfd:"), "{files:?}");

    // Each of the two that the launcher needs takes it along, and all come again.
    for gone in ["pds-spawner", "pds-witness"] {
        let old = machine.main_process("pds-launcher.service");
        machine.user(&format!("kill -KILL $(pgrep -u alice -x {gone})")).ok();
        wait_for("another launcher", || {
            (![0, old].contains(&machine.main_process("pds-launcher.service"))).then_some(())
        });
        works(&machine);
    }
    assert!(!machine.user("systemctl --user is-failed pds-launcher.service").text().contains("failed"));
    machine.user("kill $(cat child)").ok();
}
