//! Choosing one of many names on the terminal: a line to type on, and below it the names that match, the best first.

use std::io::IsTerminal as _;

use nucleo_matcher::pattern::{AtomKind, CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher};

use crate::output::shown;
use crate::prompt::{PromptError, Terminal};

/// Most names that are shown at once.
const SHOWN_MAX: usize = 12;
/// Most characters that can be typed.
const TYPED_MAX: usize = 256;

/// Whether somebody is there to choose: a terminal to read from and to show on, which can move its cursor.
pub(crate) fn is_possible() -> bool {
    let moves = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    moves && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Has the user choose one of the names; `None` when he leaves it.
///
/// # Errors
/// The terminal failed.
pub(crate) fn pick(names: &[String]) -> Result<Option<&str>, PromptError> {
    let mut picker = Picker::new(names);
    Terminal::open()?.each_key(|step| match step {
        Keys::Draw { rows, columns } => Drawn::Show(picker.drawing(rows, columns)),
        Keys::Typed(bytes) => match picker.take(bytes) {
            Choice::Open => Drawn::Nothing,
            Choice::Left => Drawn::Done(None),
            Choice::Made(name) => Drawn::Done(Some(name)),
        },
    })
}

/// What [`Terminal::each_key`] asks for.
pub(crate) enum Keys<'a> {
    /// What to show in so many rows and columns.
    Draw { rows: usize, columns: usize },
    /// What to do with typed bytes.
    Typed(&'a [u8]),
}

/// What is answered.
pub(crate) enum Drawn<T> {
    /// This is to be shown.
    Show(String),
    /// Nothing, yet.
    Nothing,
    /// It is over.
    Done(T),
}

/// What became of the choice.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'n> {
    Open,
    Left,
    Made(&'n str),
}

/// The choice so far.
struct Picker<'n> {
    names: &'n [String],
    typed: String,
    matching: Vec<&'n str>,
    /// Place in `matching`.
    chosen: usize,
    matcher: Matcher,
}

impl<'n> Picker<'n> {
    fn new(names: &'n [String]) -> Self {
        let matching = names.iter().map(String::as_str).collect();
        Self {
            names,
            typed: String::new(),
            matching,
            chosen: 0,
            matcher: Matcher::new(Config::DEFAULT.match_paths()),
        }
    }

    fn filter(&mut self) {
        let pattern = Pattern::new(&self.typed, CaseMatching::Smart, Normalization::Never, AtomKind::Fuzzy);
        let names = self.names.iter().map(String::as_str);
        let scored = pattern.match_list(names, &mut self.matcher);
        self.matching = scored.into_iter().map(|(name, _)| name).collect();
        self.chosen = 0;
    }

    /// Takes what one reading of the terminal gave: keys that send several bytes send them at once.
    fn take(&mut self, mut bytes: &[u8]) -> Choice<'n> {
        while let Some((first, rest)) = bytes.split_first() {
            bytes = rest;
            match first {
                b'\r' | b'\n' => match self.matching.get(self.chosen) {
                    Some(name) => return Choice::Made(name),
                    None => continue,
                },
                // The end of the input, and what the interrupt key sends where it makes no signal.
                0x03 | 0x04 => return Choice::Left,
                0x1b => match sequence(rest) {
                    None => return Choice::Left,
                    Some((key, left)) => {
                        match key {
                            b'A' => self.up(),
                            b'B' => self.down(),
                            _ => {}
                        }
                        bytes = left;
                    }
                },
                // Control-P and control-N, as elsewhere.
                0x10 => self.up(),
                0x0e => self.down(),
                0x08 | 0x7f => {
                    self.typed.pop();
                    self.filter();
                }
                0x15 => {
                    self.typed.clear();
                    self.filter();
                }
                b' '..=b'~' if self.typed.len() < TYPED_MAX => {
                    self.typed.push(char::from(*first));
                    self.filter();
                }
                _ => {}
            }
        }
        Choice::Open
    }

    fn up(&mut self) {
        self.chosen = self.chosen.saturating_sub(1);
    }

    fn down(&mut self) {
        self.chosen = (self.chosen + 1).min(self.matching.len().saturating_sub(1));
    }

    /// The lines, and after them the cursor back at the end of what was typed.
    fn drawing(&self, rows: usize, columns: usize) -> String {
        // The last column is left out: writing there moves the cursor on some terminals.
        let cut = |text: &str| text.chars().take(columns.saturating_sub(3)).collect::<String>();
        let count = rows.saturating_sub(2).clamp(1, SHOWN_MAX);
        let first = (self.chosen + 1).saturating_sub(count);
        let typed = cut(&self.typed);
        let mut text = format!("\r\x1b[J> {typed}\r\n");
        for (place, name) in self.matching.iter().enumerate().skip(first).take(count) {
            let name = cut(&shown(name));
            match place == self.chosen {
                true => text.push_str(&format!("\x1b[7m> {name}\x1b[0m\r\n")),
                false => text.push_str(&format!("  {name}\r\n")),
            }
        }
        let lines = self.matching.len().saturating_sub(first).min(count);
        let (found, all) = (self.matching.len(), self.names.len());
        text.push_str(&cut(&format!("  {found} of {all}; Enter takes one, Esc none")));
        text.push_str(&format!("\x1b[{}A\r\x1b[{}C", lines + 1, typed.len() + 2));
        text
    }
}

/// The last byte of a key that sends a sequence (ECMA-48, "control sequence", and the `SS3` of keypads), and what follows
/// it; none for the escape key itself.
fn sequence(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (b'[' | b'O', rest) = bytes.split_first().map(|(first, rest)| (*first, rest))? else { return None };
    let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte))?;
    Some((rest[end], &rest[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["aws/key", "db/password", "db/user", "github/deploy"].map(str::to_owned).into()
    }

    fn after<'n>(names: &'n [String], keys: &[u8]) -> (Picker<'n>, Choice<'n>) {
        let mut picker = Picker::new(names);
        let choice = picker.take(keys);
        (picker, choice)
    }

    #[test]
    fn typed_letters_choose_and_arrows_move() {
        let names = names();
        for (keys, expected) in [
            (&b"\r"[..], Choice::Made("aws/key")),
            (b"dbpw\r", Choice::Made("db/password")),
            (b"\x1b[B\x1b[B\r", Choice::Made("db/user")),
            (b"\x1bOB\x1bOA\r", Choice::Made("aws/key")),
            (b"\x0e\x0e\x0e\x0e\x0e\x0e\r", Choice::Made("github/deploy")),
            (b"\x10\r", Choice::Made("aws/key")),
            (b"zzz\x15gd\r", Choice::Made("github/deploy")),
            (b"dbx\x7fu\r", Choice::Made("db/user")),
            (b"user db\r", Choice::Made("db/user")),
            (b"nothing\r", Choice::Open),
            (b"db\x1b", Choice::Left),
            (b"\x03", Choice::Left),
            (b"\x04", Choice::Left),
            (b"\x1b[5~db/u\r", Choice::Made("db/user")),
            (b"\xff\xfe\x00\x01\x1b[", Choice::Left),
        ] {
            assert_eq!(after(&names, keys).1, expected, "{keys:?}");
        }
        assert_eq!(after(&[], b"\r").1, Choice::Open);
    }

    #[test]
    fn it_is_drawn_within_the_window_and_steers_it_by_nothing_of_a_name() {
        let many: Vec<String> = (0..100).map(|number| format!("name/{number:03}\x1b[31m")).collect();
        let (picker, _) = after(&many, b"\x1b[B".repeat(50).as_slice());
        let text = picker.drawing(10, 30);
        assert_eq!(text.matches('\n').count(), 9, "the line that is typed on, eight names, and the count");
        assert!(text.contains("> name/050") && !text.contains("name/042") && !text.contains("\x1b[31m"));
        assert!(text.ends_with("\x1b[9A\r\x1b[2C"));
        let plain = |line: &str| line.replace("\x1b[7m", "").replace("\x1b[0m", "");
        assert!(text.lines().skip(1).take(8).all(|line| plain(line).trim_end().len() < 30));
        for (rows, columns) in [(0, 0), (1, 1), (3, 4)] {
            picker.drawing(rows, columns);
        }
    }
}
