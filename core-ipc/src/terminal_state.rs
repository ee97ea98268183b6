//! What `pds run` changes of the user's terminal, and whoever puts it back afterwards: `pds` itself, or the child's monitor
//! if `pds` was killed.

use core_types::protocol::launcher::TerminalState;
use rustix::termios::{ControlModes, InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios};

/// The part of a terminal's whole state.
#[must_use]
pub fn of(whole: &Termios) -> TerminalState {
    TerminalState {
        modes: [
            whole.input_modes.bits(),
            whole.output_modes.bits(),
            whole.control_modes.bits(),
            whole.local_modes.bits(),
        ],
        waits: [whole.special_codes[SpecialCodeIndex::VMIN], whole.special_codes[SpecialCodeIndex::VTIME]],
    }
}

/// A terminal's whole state with another part.
#[must_use]
pub fn with(mut whole: Termios, part: &TerminalState) -> Termios {
    let [input, output, control, local] = part.modes;
    whole.input_modes = InputModes::from_bits_retain(input);
    whole.output_modes = OutputModes::from_bits_retain(output);
    whole.control_modes = ControlModes::from_bits_retain(control);
    whole.local_modes = LocalModes::from_bits_retain(local);
    let [least, time] = part.waits;
    whole.special_codes[SpecialCodeIndex::VMIN] = least;
    whole.special_codes[SpecialCodeIndex::VTIME] = time;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

    #[test]
    fn a_terminal_that_was_made_raw_is_as_before_with_the_part_it_had() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let terminal = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let mut found = tcgetattr(&terminal).unwrap();
        found.special_codes[SpecialCodeIndex::VTIME] = 7;
        tcsetattr(&terminal, OptionalActions::Now, &found).unwrap();
        let part = of(&found);
        let mut raw = found.clone();
        raw.make_raw();
        assert_ne!(of(&raw), part);
        tcsetattr(&terminal, OptionalActions::Now, &raw).unwrap();
        let back = with(tcgetattr(&terminal).unwrap(), &part);
        tcsetattr(&terminal, OptionalActions::Now, &back).unwrap();
        assert_eq!(format!("{:?}", tcgetattr(&terminal).unwrap()), format!("{found:?}"));
    }
}
