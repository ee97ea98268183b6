//! The user's terminal while a child has a pseudo-terminal of its own: made raw and put back, its size handed on,
//! and the bytes carried between the two.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;
use rustix::process::{Signal, getpgrp, getsid};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetpgrp,
    tcgetsid, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::flow::Flow;
use crate::mask::{Forms, Mask};

/// Most that a pseudo-terminal can still hold of what an ended child wrote (the buffers of tty_buffer.c and n_tty.c);
/// what comes beyond it is from others who go on writing.
const LEFT_BEHIND_BYTES_MAX: usize = 128 << 10;

/// The user's terminal. Dropping it puts it back as it was found.
struct Terminal {
    device: OwnedFd,
    /// The state it was found in, while it is raw.
    found: Option<Termios>,
    /// Whether others write to it as well, so that it must go on turning line feeds into new lines.
    shared: bool,
}

impl Terminal {
    /// Whether this process may read it and change it. A terminal that does not control this process has no
    /// foreground.
    fn in_foreground(&self) -> bool {
        match tcgetpgrp(&self.device) {
            Ok(group) => group == getpgrp(),
            Err(error) => error == Errno::NOTTY,
        }
    }

    /// Makes it raw, so that every key reaches the child's terminal. Does so again if somebody else changed it. `announce`
    /// is told before what it is like, and what it will be like.
    fn take(&mut self, announce: impl FnOnce(&OwnedFd, &Termios, &Termios)) -> io::Result<()> {
        let found = match &self.found {
            Some(found) => found.clone(),
            None => tcgetattr(&self.device)?,
        };
        let mut raw = found.clone();
        raw.make_raw();
        if self.shared {
            raw.output_modes = found.output_modes;
        }
        announce(&self.device, &found, &raw);
        tcsetattr(&self.device, OptionalActions::Now, &raw)?;
        self.found = Some(found);
        Ok(())
    }

    /// Puts it back, unless somebody else has it now who sets it as they like.
    fn give_back(&mut self) {
        if let Some(found) = self.found.take()
            && self.in_foreground()
        {
            let _ = tcsetattr(&self.device, OptionalActions::Now, &found);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The user's terminal and the child's pseudo-terminal, joined.
pub(crate) struct Screen {
    terminal: Terminal,
    master: OwnedFd,
    typed: Flow,
    shown: Flow,
    /// Bytes shown since the child ended.
    left_behind: usize,
    /// Whether the child's terminal was kept from making new lines, which it would do by itself.
    output_is_plain: bool,
}

impl Screen {
    /// If one of the caller's streams is a terminal, puts a new pseudo-terminal in the place of every stream that
    /// is that terminal. If none is, and there is a terminal that the child could ask on nevertheless (/dev/tty), gives
    /// the pseudo-terminal that stands for it.
    ///
    /// # Errors
    /// There is no pseudo-terminal left, or the terminal is gone.
    pub(crate) fn replace(streams: &mut [OwnedFd; 3]) -> io::Result<(Option<Self>, Option<OwnedFd>)> {
        let Some(device) = streams.iter().find(|stream| isatty(stream)) else {
            let Some(device) = controlling() else { return Ok((None, None)) };
            // Others have it as well, since nothing of the child's leads there.
            let (screen, slave) = Self::join(Terminal { device, found: None, shared: true })?;
            return Ok((Some(screen), Some(slave)));
        };
        let number = fstat(device)?.st_rdev;
        let shared = streams.iter().any(leads_to_another_program);
        let terminal = Terminal { device: own_description(device)?, found: None, shared };
        let (screen, slave) = Self::join(terminal)?;
        for stream in streams {
            if isatty(&*stream) && fstat(&*stream)?.st_rdev == number {
                *stream = slave.try_clone()?;
            }
        }
        Ok((Some(screen), None))
    }

    /// Makes the pseudo-terminal, of the same size and in the same state as the terminal.
    fn join(terminal: Terminal) -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        tcsetattr(&slave, OptionalActions::Now, &tcgetattr(&terminal.device)?)?;
        let mut screen = Self {
            terminal,
            master,
            typed: Flow::new(),
            shown: Flow::new(),
            left_behind: 0,
            output_is_plain: false,
        };
        if !screen.is_the_childs_from_the_start() {
            screen.leave();
        }
        screen.copy_size();
        Ok((screen, slave))
    }

    /// Whether the child shall have the terminal from its first moment. In a pipeline others may want it, so there the
    /// child gets it when it first reads or changes it.
    pub(crate) fn is_the_childs_from_the_start(&self) -> bool {
        !self.terminal.shared && self.in_foreground()
    }

    /// Has values hidden in what is shown from now on.
    pub(crate) fn hide(&mut self, forms: &Rc<Forms>) {
        self.shown.hide(Mask::new(forms));
    }

    /// Until when to wait at most.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.shown.due()
    }

    /// Whether this process may read and change the user's terminal.
    pub(crate) fn in_foreground(&self) -> bool {
        self.terminal.in_foreground()
    }

    /// Whether what is typed goes to others, although this child could have it.
    pub(crate) fn is_behind(&self) -> bool {
        self.terminal.found.is_none() && !self.terminal.shared
    }

    /// Makes the user's terminal raw and carries what is typed to the child from now on. `announce` is told before which
    /// terminal that is, what it is like, and what it will be like.
    pub(crate) fn take(&mut self, announce: impl FnOnce(&OwnedFd, &Termios, &Termios)) -> io::Result<()> {
        self.terminal.take(announce)?;
        if self.output_is_plain && !self.terminal.shared {
            self.set_output_processing(true);
            self.output_is_plain = false;
        }
        Ok(())
    }

    /// Has the child go on without the user's terminal, which, not being raw, turns line feeds into new lines itself:
    /// one of the two has to, and not both.
    pub(crate) fn leave(&mut self) {
        let processed = |state: Termios| state.output_modes.contains(OutputModes::OPOST);
        if tcgetattr(&self.master).is_ok_and(processed)
            && tcgetattr(&self.terminal.device).is_ok_and(processed)
        {
            self.set_output_processing(false);
            self.output_is_plain = true;
        }
    }

    fn set_output_processing(&self, processed: bool) {
        if let Ok(mut state) = tcgetattr(&self.master) {
            state.output_modes.set(OutputModes::OPOST, processed);
            let _ = tcsetattr(&self.master, OptionalActions::Now, &state);
        }
    }

    /// Puts the user's terminal back and leaves what is typed to others.
    pub(crate) fn give_back(&mut self) {
        self.terminal.give_back();
    }

    /// Gives the pseudo-terminal the size of the terminal; the kernel tells the child if that is a change.
    pub(crate) fn copy_size(&self) {
        if let Ok(size) = tcgetwinsize(&self.terminal.device) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// What to wait for before [`Self::carry`] has something to do.
    pub(crate) fn waits_for(&self) -> Vec<PollFd<'_>> {
        let wants = |fills: bool, drains: bool| {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, fills);
            wanted.set(PollFlags::OUT, drains);
            wanted
        };
        let device = wants(self.terminal.found.is_some() && self.typed.takes_more(), !self.shown.is_empty());
        let master = wants(self.shown.takes_more(), !self.typed.is_empty());
        // One that nothing is wanted from is left out: its hang-up would be reported without end.
        [(&self.terminal.device, device), (&self.master, master)]
            .into_iter()
            .filter(|(_, wanted)| !wanted.is_empty())
            .map(|(descriptor, wanted)| PollFd::from_borrowed_fd(descriptor.as_fd(), wanted))
            .collect()
    }

    /// Picks out of polled descriptors what concerns this screen.
    pub(crate) fn ready(&self, polled: &[PollFd<'_>]) -> Ready {
        let of = |descriptor: &OwnedFd| {
            let same = |polled: &&PollFd<'_>| polled.as_fd().as_raw_fd() == descriptor.as_raw_fd();
            polled.iter().find(same).map_or(PollFlags::empty(), PollFd::revents)
        };
        Ready { terminal: of(&self.terminal.device), master: of(&self.master) }
    }

    /// Carries what can be carried without waiting. Answers which signal the child's terminal makes of a key that was
    /// typed.
    pub(crate) fn carry(&mut self, ready: Ready) -> Option<Signal> {
        let mut pressed = None;
        let (device, master) = (&self.terminal.device, &self.master);
        // Whoever can neither be read nor written any more answers both at once, which ends that direction.
        let gone = PollFlags::ERR | PollFlags::HUP;
        let typed = ready.terminal.intersects(PollFlags::IN | gone) && self.terminal.found.is_some();
        if typed && self.typed.fill(device) > 0 {
            pressed = self.pressed();
        }
        if ready.master.intersects(PollFlags::IN | gone) {
            self.shown.fill(master);
        }
        self.shown.let_go();
        if ready.master.intersects(PollFlags::OUT | gone) {
            self.typed.drain(master);
        }
        if ready.terminal.intersects(PollFlags::OUT | gone) {
            self.shown.drain(device);
        }
        pressed
    }

    /// Which signal the child's terminal will make of what is typed next; it tells its foreground group alone.
    fn pressed(&self) -> Option<Signal> {
        let state = tcgetattr(&self.master).ok()?;
        if !state.local_modes.contains(LocalModes::ISIG) {
            return None;
        }
        let keys = [(SpecialCodeIndex::VINTR, Signal::INT), (SpecialCodeIndex::VQUIT, Signal::QUIT)];
        let typed = |key: u8| key != 0 && self.typed.waiting().contains(&key);
        keys.into_iter().find_map(|(index, signal)| typed(state.special_codes[index]).then_some(signal))
    }

    /// Whether this group is the foreground of the child's terminal.
    pub(crate) fn shows(&self, group: u32) -> bool {
        let foreground = tcgetpgrp(&self.master).map(|found| found.as_raw_nonzero().get().unsigned_abs());
        foreground == Ok(group)
    }

    /// Shows what a stopped child wrote before it stopped, as far as the user's terminal takes it.
    pub(crate) fn show_what_is_there(&mut self) {
        let mut most = LEFT_BEHIND_BYTES_MAX;
        while most > 0 {
            if self.shown.is_empty() {
                match self.shown.fill(&self.master) {
                    0 => return,
                    count => most = most.saturating_sub(count),
                }
            }
            let before = self.shown.position();
            self.shown.drain(&self.terminal.device);
            if self.shown.position() == before {
                return;
            }
        }
    }

    /// Takes up what an ended child left in its terminal; true when all of it has been shown.
    pub(crate) fn has_shown_the_rest(&mut self) -> bool {
        if self.shown.is_empty() && self.left_behind < LEFT_BEHIND_BYTES_MAX {
            // A read looks into the kernel's queue of pending output first, which poll does not promise to do.
            let came = self.shown.fill(&self.master);
            self.left_behind += came;
            if came == 0 && self.shown.is_empty() {
                self.shown.let_all_go();
            }
        }
        self.shown.is_empty()
    }
}

/// What a wait found out about the two ends of a [`Screen`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    terminal: PollFlags,
    master: PollFlags,
}

/// Whether a stream leads to another program, which may use the terminal too.
fn leads_to_another_program(stream: &OwnedFd) -> bool {
    let kind = fstat(stream).map(|found| FileType::from_raw_mode(found.st_mode));
    matches!(kind, Ok(FileType::Fifo | FileType::Socket))
}

/// An open file of our own on a terminal, so that it can be made non-blocking for nobody else, and can be read and
/// written even if the stream could not. Where it cannot be had, the stream itself.
fn own_description(stream: &OwnedFd) -> io::Result<OwnedFd> {
    let controls_us = tcgetsid(stream).is_ok_and(|session| getsid(None) == Ok(session));
    match controlling() {
        Some(device) if controls_us => Ok(device),
        _ => stream.try_clone(),
    }
}

/// The terminal that controls this process, if there is one (tty(4)).
fn controlling() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::poll;
    use rustix::termios::Winsize;

    /// The user's side of a terminal, and a stream that leads to it.
    fn user() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let user = openpt(flags).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let stream = ioctl_tiocgptpeer(&user, flags).unwrap();
        (user, stream)
    }

    fn null() -> OwnedFd {
        std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap().into()
    }

    fn pipe_end() -> OwnedFd {
        std::io::pipe().unwrap().1.into()
    }

    fn on(stream: &OwnedFd, others: OwnedFd) -> (Screen, [OwnedFd; 3]) {
        let mut streams = [stream.try_clone().unwrap(), stream.try_clone().unwrap(), others];
        (Screen::replace(&mut streams).unwrap().0.unwrap(), streams)
    }

    fn shape(terminal: &OwnedFd) -> (LocalModes, OutputModes) {
        let state = tcgetattr(terminal).unwrap();
        (state.local_modes, state.output_modes)
    }

    /// Carries as `pds` does, until `done`.
    fn carry_until(screen: &mut Screen, mut done: impl FnMut(&mut Screen) -> bool) {
        while !done(screen) {
            let mut waiting = screen.waits_for();
            poll(&mut waiting, None).unwrap();
            let ready = screen.ready(&waiting);
            screen.carry(ready);
        }
    }

    fn write_all(sink: &OwnedFd, bytes: &[u8]) {
        assert_eq!(rustix::io::write(sink, bytes), Ok(bytes.len()));
    }

    fn read_exactly(source: &OwnedFd, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut taken = 0;
        while taken < count {
            taken += rustix::io::read(source, &mut bytes[taken..]).unwrap();
        }
        bytes
    }

    #[test]
    fn without_a_terminal_there_is_no_screen() {
        // Where the test itself has a terminal, it stands in for that.
        let (screen, apart) = Screen::replace(&mut [null(), null(), pipe_end()]).unwrap();
        assert_eq!((screen.is_some(), apart.is_some()), (controlling().is_some(), controlling().is_some()));
    }

    #[test]
    fn only_the_terminals_streams_are_replaced() {
        let (_user, stream) = user();
        let (_screen, streams) = on(&stream, null());
        let number = |stream: &OwnedFd| fstat(stream).unwrap().st_rdev;
        assert!(isatty(&streams[0]) && isatty(&streams[1]) && !isatty(&streams[2]));
        assert_ne!(number(&streams[0]), number(&stream));
        assert_eq!(number(&streams[0]), number(&streams[1]));
    }

    #[test]
    fn the_terminal_is_raw_while_taken_and_put_back_whenever_it_is_dropped() {
        let (_user, stream) = user();
        let before = shape(&stream);
        let (mut screen, streams) = on(&stream, null());
        assert_eq!(shape(&streams[0]), before);
        screen.take(|_, _, _| {}).unwrap();
        assert!(!shape(&stream).0.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        assert!(!shape(&stream).1.contains(OutputModes::OPOST));
        screen.take(|_, _, _| {}).unwrap();
        screen.give_back();
        assert_eq!(shape(&stream), before);
        screen.take(|_, _, _| {}).unwrap();
        drop(screen);
        assert_eq!(shape(&stream), before);
    }

    #[test]
    fn of_the_two_terminals_one_makes_the_new_lines() {
        let (user, stream) = user();
        let (mut screen, streams) = on(&stream, null());
        screen.leave();
        assert!(!shape(&streams[0]).1.contains(OutputModes::OPOST));
        write_all(&streams[1], b"background\n");
        carry_until(&mut screen, Screen::has_shown_the_rest);
        assert_eq!(read_exactly(&user, 12), b"background\r\n");
        screen.take(|_, _, _| {}).unwrap();
        write_all(&streams[1], b"foreground\n");
        carry_until(&mut screen, Screen::has_shown_the_rest);
        assert_eq!(read_exactly(&user, 12), b"foreground\r\n");
    }

    #[test]
    fn in_a_pipeline_the_users_terminal_makes_the_new_lines_and_the_childs_does_not() {
        let (_user, stream) = user();
        let (mut screen, streams) = on(&stream, pipe_end());
        assert!(!screen.is_the_childs_from_the_start());
        screen.take(|_, _, _| {}).unwrap();
        assert!(shape(&stream).1.contains(OutputModes::OPOST));
        assert!(!shape(&streams[0]).1.contains(OutputModes::OPOST));
    }

    #[test]
    fn the_size_is_handed_on() {
        let (user, stream) = user();
        let size = |rows, columns| Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&user, size(33, 101)).unwrap();
        let (screen, streams) = on(&stream, null());
        let found = || tcgetwinsize(&streams[0]).map(|size| (size.ws_row, size.ws_col)).unwrap();
        assert_eq!(found(), (33, 101));
        tcsetwinsize(&user, size(7, 9)).unwrap();
        screen.copy_size();
        assert_eq!(found(), (7, 9));
    }

    #[test]
    fn what_is_typed_reaches_the_child_only_while_the_terminal_is_taken() {
        let (user, stream) = user();
        let (mut screen, streams) = on(&stream, null());
        write_all(&user, b"early\n");
        assert!(
            screen
                .waits_for()
                .iter()
                .all(|waiting| waiting.as_fd().as_raw_fd() != screen.terminal.device.as_raw_fd())
        );
        screen.take(|_, _, _| {}).unwrap();
        write_all(&user, b"x\x00\xff\r");
        let mut echoed = 0;
        carry_until(&mut screen, |screen| {
            echoed = rustix::io::ioctl_fionread(&streams[0]).unwrap();
            echoed >= 6 && screen.typed.is_empty()
        });
        assert!(read_exactly(&streams[0], 6).starts_with(b"early\n"));
    }

    #[test]
    fn all_that_an_ended_child_wrote_is_shown_before_the_end() {
        let (user, stream) = user();
        let (mut screen, streams) = on(&stream, null());
        screen.take(|_, _, _| {}).unwrap();
        let text = "0123456789\n".repeat(300);
        write_all(&streams[1], text.as_bytes());
        drop(streams);
        let expected = text.replace('\n', "\r\n");
        let reader = std::thread::spawn(move || read_exactly(&user, expected.len()) == expected.as_bytes());
        carry_until(&mut screen, Screen::has_shown_the_rest);
        assert!(reader.join().unwrap());
    }

    #[test]
    fn a_terminal_that_is_gone_holds_nobody_up() {
        let (user, stream) = user();
        let (mut screen, streams) = on(&stream, null());
        screen.take(|_, _, _| {}).unwrap();
        write_all(&streams[1], b"nobody reads this\n");
        drop(user);
        carry_until(&mut screen, |screen| screen.typed.has_ended() && screen.has_shown_the_rest());
        let none_left: Vec<PollFlags> = screen.waits_for().iter().map(PollFd::revents).collect();
        assert_eq!(none_left.len(), 1, "only the child's terminal is still waited for");
    }
}
