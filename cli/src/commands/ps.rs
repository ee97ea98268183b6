//! `pds ps`: the programs of `pds run` that run, and the names of the secrets they were given.

use core_types::protocol::launcher::{Children, RunningChild};
use serde::Serialize;

use crate::error::Failure;
use crate::output::{shown, time};
use crate::session::Session;

/// A program of `--json`.
#[derive(Serialize)]
struct Shown {
    pid: u32,
    profiles: Vec<String>,
    /// As it was given, without its arguments.
    command: String,
    started: String,
    secrets: Vec<String>,
}

/// `pds ps --json`.
#[derive(Serialize)]
struct All {
    children: Vec<Shown>,
}

pub(super) fn run(session: &mut Session) -> Result<(), Failure> {
    let mut children = Vec::new();
    let mut list = Children { after: None };
    loop {
        let page = session.call(&list)?;
        children.extend(page.children);
        match children.last() {
            Some(last) if page.more => list.after = Some(last.pid),
            _ => break,
        }
    }
    if session.output.wants_json() {
        let children = children.into_iter().map(Shown::from).collect();
        return session.output.object(&All { children });
    }
    children.iter().try_for_each(|child| session.output.line(line(child)))
}

impl From<RunningChild> for Shown {
    fn from(child: RunningChild) -> Self {
        let RunningChild { pid, profiles, program, since_unix_ms, secrets } = child;
        Self { pid, profiles, command: program, started: time(since_unix_ms), secrets }
    }
}

/// A program in one line.
fn line(child: &RunningChild) -> String {
    let RunningChild { pid, profiles, program, since_unix_ms, secrets } = child;
    let names = if secrets.is_empty() { "no secrets".to_owned() } else { secrets.join(", ") };
    let since = time(*since_unix_ms);
    format!("{pid:>7}  {since}  {}  {}  with {names}", profiles.join(","), shown(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_in_one_line_whatever_its_name() {
        let child = |program: &str, secrets: &[&str]| RunningChild {
            pid: 7,
            profiles: vec!["work".to_owned(), "home".to_owned()],
            program: program.to_owned(),
            since_unix_ms: 0,
            secrets: secrets.iter().map(|name| (*name).to_owned()).collect(),
        };
        let told = line(&child("a\nb\u{1b}", &["x", "y/z"]));
        assert_eq!(told.lines().count(), 1);
        assert!(told.starts_with("      7  ") && told.ends_with("with x, y/z"), "{told}");
        assert!(!told.contains('\u{1b}') && told.contains("work,home"), "{told}");
        assert!(line(&child("true", &[])).ends_with("with no secrets"));
    }
}
