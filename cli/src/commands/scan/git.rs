//! What git keeps, told by git itself: the files that it does not ignore, what is staged, and every object of a history.
//!
//! A repository is not trusted: git is told to run none of the programs that its configuration may name.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::ScanError;
use super::places::{FILE_BYTES_MAX, Place, Seen, too_large};

/// Hex digits of an object that are shown.
const SHOWN_DIGITS: usize = 12;
/// Longest answer of git that is taken at once: names of files, or objects with them.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Git, below a folder, without what a repository could make it run.
fn git(folder: &Path, arguments: &[&str]) -> Command {
    let folder = if folder.is_dir() { folder } else { folder.parent().unwrap_or(folder) };
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args([
        "--no-pager",
        "-c",
        "core.fsmonitor=false",
        "-c",
        "core.hooksPath=/dev/null",
    ]);
    command.args(arguments).env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C");
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

fn output(folder: &Path, arguments: &[&str]) -> Result<Vec<u8>, ScanError> {
    let done = git(folder, arguments).output().map_err(|error| ScanError::Git(error.to_string()))?;
    match done.status.success() {
        true if done.stdout.len() <= ANSWER_BYTES_MAX => Ok(done.stdout),
        true => Err(ScanError::Git("there is too much of it".to_owned())),
        false => Err(ScanError::Git(String::from_utf8_lossy(&done.stderr).trim().to_owned())),
    }
}

/// The files below a folder that git does not ignore, by their paths from there; none where no git keeps it.
pub(super) fn files(folder: &Path) -> Option<Vec<OsString>> {
    let text =
        output(folder, &["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"])
            .ok()?;
    let paths = text.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    Some(paths.map(|path| OsString::from_vec(path.to_vec())).collect())
}

/// An object, and a path under which it is known.
type Object = (String, String);

/// Looks at the whole of each file of which a change is staged, as it is staged.
pub(super) fn staged(folder: &Path, look: &mut dyn FnMut(Place<'_>)) -> Result<(), ScanError> {
    let options = [
        "diff",
        "--cached",
        "--raw",
        "-z",
        "--no-abbrev",
        "--no-renames",
        "--no-ext-diff",
        "--diff-filter=ACMT",
        "--ignore-submodules=all",
    ];
    let text = output(folder, &options)?;
    let mut fields = text.split(|byte| *byte == 0);
    let mut objects = Vec::new();
    // ":<mode> <mode> <object> <object> <status>", and the path.
    while let (Some(about), Some(path)) = (fields.next(), fields.next()) {
        let about = String::from_utf8_lossy(about);
        if let Some(object) = about.split(' ').nth(3) {
            objects.push((object.to_owned(), String::from_utf8_lossy(path).into_owned()));
        }
    }
    each_object(folder, objects, false, look)
}

/// Looks at every object that a branch, a tag or a stash leads to: files, and the messages of commits and tags.
pub(super) fn history(folder: &Path, look: &mut dyn FnMut(Place<'_>)) -> Result<(), ScanError> {
    let text = output(folder, &["rev-list", "--objects", "--all"])?;
    let objects = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
        let line = String::from_utf8_lossy(line);
        let (object, path) = line.split_once(' ').unwrap_or((&line, ""));
        (object.to_owned(), path.to_owned())
    });
    each_object(folder, objects.collect(), true, look)
}

/// Has one git write all objects, one after the other ("BATCH OUTPUT" of git-cat-file(1)).
fn each_object(
    folder: &Path,
    objects: Vec<Object>,
    told: bool,
    look: &mut dyn FnMut(Place<'_>),
) -> Result<(), ScanError> {
    let failed = |error: std::io::Error| ScanError::Git(error.to_string());
    let mut child = git(folder, &["cat-file", "--batch", "--buffer"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let (Some(mut input), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(ScanError::Git("its streams are missing".to_owned()));
    };
    let wanted: String = objects.iter().map(|(object, _)| format!("{object}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(wanted.as_bytes()));
    let mut answers = BufReader::with_capacity(1 << 20, answers);
    let mut bytes = Vec::new();
    let mut read = Ok(());
    for (object, path) in objects {
        read = next_object(&mut answers, &mut bytes).map(|found| {
            let Some((kind, seen)) = found else { return };
            let short = &object[..SHOWN_DIGITS.min(object.len())];
            let file = if path.is_empty() { format!("{kind} {short}") } else { path };
            look(Place { file, object: told.then(|| short.to_owned()), seen });
        });
        if read.is_err() {
            break;
        }
    }
    drop(answers);
    drop(writer.join());
    let status = child.wait().map_err(failed)?;
    read?;
    if status.success() { Ok(()) } else { Err(ScanError::Git("it ended before all was read".to_owned())) }
}

/// The kind of the next object and what is in it; nothing of a folder.
fn next_object<'a>(
    answers: &mut BufReader<impl std::io::Read>,
    bytes: &'a mut Vec<u8>,
) -> Result<Option<(String, Seen<'a>)>, ScanError> {
    let failed = |error: std::io::Error| ScanError::Git(error.to_string());
    let mut header = String::new();
    answers.by_ref().take(1024).read_line(&mut header).map_err(failed)?;
    let mut words = header.split_whitespace().skip(1);
    let (kind, size) =
        (words.next().unwrap_or_default().to_owned(), words.next().and_then(|size| size.parse::<u64>().ok()));
    let size = size.ok_or_else(|| ScanError::Git("an object is missing".to_owned()))?;
    bytes.clear();
    let kept = if size > FILE_BYTES_MAX || kind == "tree" { 0 } else { size };
    let read = answers.by_ref().take(kept).read_to_end(bytes).map_err(failed)?;
    // What is not kept, and the line feed behind it.
    let rest = size - kept + 1;
    let passed = std::io::copy(&mut answers.by_ref().take(rest), &mut std::io::sink()).map_err(failed)?;
    if u64::try_from(read).ok() != Some(kept) || passed != rest {
        return Err(ScanError::Git("it ended in the middle of an object".to_owned()));
    }
    Ok(match kind.as_str() {
        "tree" => None,
        _ if kept < size => Some((kind, Seen::Skipped(too_large()))),
        _ => Some((kind, Seen::Bytes(bytes))),
    })
}
