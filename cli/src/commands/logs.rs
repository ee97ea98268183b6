//! `pds daemon logs`: what the daemons wrote to their log file, where systemd keeps none.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use crate::error::Failure;
use crate::output::shown;
use crate::session::Session;
use crate::units::Units;

/// How often `-f` looks for new lines.
const FOLLOW_PAUSE: Duration = Duration::from_millis(250);
/// How much of the end of the file is looked at.
const TAIL_BYTES_MAX: u64 = 16 << 20;

/// `pds daemon logs --json`. With `-f`, one [`Line`] per line instead.
#[derive(Serialize)]
struct Log {
    path: String,
    lines: Vec<String>,
}

/// A line of `pds daemon logs -f --json`.
#[derive(Serialize)]
struct Line {
    line: String,
}

pub(super) fn run(session: &mut Session, count: Option<usize>, follow: bool) -> Result<(), Failure> {
    let path = session.paths.log_file();
    if Units::installed().is_some_and(|units| units.are_active()) {
        session.messages.note("systemd keeps what they log: journalctl --user -u 'pds-*'");
    }
    let failed = |source: io::Error| Failure::Log { path: path.clone(), source };
    let mut older = open(&session.paths.older_log_file()).map_err(failed)?;
    let Some(mut reader) = open(&path).map_err(failed)? else {
        session.messages.note(format!("nothing has been logged to {} yet", path.display()));
        let log = Log { path: path.display().to_string(), lines: Vec::new() };
        return session.output.object_if_wanted(&log);
    };
    let mut lines = Vec::new();
    for reader in older.iter_mut().chain([&mut reader]) {
        while let Some(line) = next_line(reader).map_err(failed)? {
            lines.push(line);
        }
    }
    lines.drain(..lines.len().saturating_sub(count.unwrap_or(usize::MAX)));
    if session.output.wants_json() && !follow {
        return session.output.object(&Log { path: path.display().to_string(), lines });
    }
    for line in lines {
        write(session, line)?;
    }
    if !follow {
        return Ok(());
    }
    // Ended by a signal, as with any tail.
    loop {
        session.output.finish()?;
        std::thread::sleep(FOLLOW_PAUSE);
        begin_anew_if_emptied(&mut reader).map_err(failed)?;
        while let Some(line) = next_line(&mut reader).map_err(failed)? {
            write(session, line)?;
        }
    }
}

/// Opens the log at its end, or at the first whole line of what is looked at of a long one; `None` if there is none.
fn open(path: &Path) -> io::Result<Option<BufReader<File>>> {
    let file =
        match rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            result => File::from(result?),
        };
    let skipped = file.metadata()?.len().saturating_sub(TAIL_BYTES_MAX);
    let mut reader = BufReader::new(file);
    if skipped > 0 {
        reader.seek(SeekFrom::Start(skipped))?;
        reader.skip_until(b'\n')?;
    }
    Ok(Some(reader))
}

/// Goes back to the beginning of a log that has been emptied because it was large.
fn begin_anew_if_emptied(reader: &mut BufReader<File>) -> io::Result<()> {
    if reader.get_ref().metadata()?.len() < reader.stream_position()? {
        reader.rewind()?;
    }
    Ok(())
}

/// The next line without its line feed; `None` at the end, where a line that is not whole yet is left for later.
fn next_line(reader: &mut BufReader<File>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = reader.by_ref().take(TAIL_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.pop_if(|last| *last == b'\n').is_none() {
        reader.seek_relative(-i64::try_from(read).unwrap_or_default())?;
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

fn write(session: &mut Session, line: String) -> Result<(), Failure> {
    if session.output.wants_json() {
        session.output.object(&Line { line })
    } else {
        session.output.line(shown(&line))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn whole_lines_are_read_and_a_part_of_one_waits_for_its_end() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"one\ntwo\xff\npar").unwrap();
        let mut reader = open(file.path()).unwrap().unwrap();
        assert_eq!(next_line(&mut reader).unwrap().as_deref(), Some("one"));
        assert_eq!(next_line(&mut reader).unwrap().as_deref(), Some("two\u{fffd}"));
        assert_eq!(next_line(&mut reader).unwrap(), None);
        file.write_all(b"t\n").unwrap();
        assert_eq!(next_line(&mut reader).unwrap().as_deref(), Some("part"));
        assert_eq!(next_line(&mut reader).unwrap(), None);
        file.as_file().set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(b"anew\n").unwrap();
        begin_anew_if_emptied(&mut reader).unwrap();
        assert_eq!(next_line(&mut reader).unwrap().as_deref(), Some("anew"));
        assert!(open(Path::new("/nonexistent/log")).unwrap().is_none());
    }
}
