//! `pds config check`: a configuration looked at as the daemons would, its own tests, and rules that stand in each
//! other's way. It asks no daemon.

use std::path::{Path, PathBuf};

use core_crypto::private_fs;
use core_types::limits::CONFIG_BYTES_MAX;
use core_types::policy_check::{Expected, PolicyReport, TestOutcome, check};
use serde::Serialize;

use crate::error::Failure;
use crate::output::shown;
use crate::session::Session;

/// `pds config check --json`.
#[derive(Serialize)]
struct Checked<'a> {
    file: String,
    /// Whether the daemons would take it.
    usable: bool,
    problem: Option<String>,
    patterns: usize,
    tests: Vec<ShownTest<'a>>,
    warnings: Vec<String>,
    /// Whether there may be more to warn of.
    more_warnings: bool,
}

/// A test of `pds config check --json`.
#[derive(Serialize)]
struct ShownTest<'a> {
    line: usize,
    requester: &'a str,
    operation: &'static str,
    name: &'a str,
    profile: &'a str,
    expected: &'static str,
    decided: &'static str,
    passed: bool,
    rule: String,
}

pub(super) fn run(session: &mut Session, file: Option<&Path>) -> Result<(), Failure> {
    let path = file.map_or_else(|| session.paths.config_file(), Path::to_owned);
    match report(&path, file.is_some()) {
        Ok(report) => tell(session, &path, &report),
        Err(failure) => {
            let problem = Some(failure.to_string());
            session.output.object_if_wanted(&Checked {
                file: path.to_string_lossy().into_owned(),
                usable: false,
                problem,
                patterns: 0,
                tests: Vec::new(),
                warnings: Vec::new(),
                more_warnings: false,
            })?;
            Err(failure)
        }
    }
}

/// What is found in the file; without one, what holds then, unless it was named.
fn report(path: &Path, named: bool) -> Result<PolicyReport, Failure> {
    let bytes = match private_fs::read_limited(path, CONFIG_BYTES_MAX).map_err(Failure::ConfigFile)? {
        None if named => {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(Failure::File { what: "read", path: path.to_owned(), source });
        }
        bytes => bytes.unwrap_or_default(),
    };
    let path = || PathBuf::from(path);
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::ConfigText { path: path() })?;
    check(text).map_err(|source| Failure::Config { path: path(), source })
}

fn tell(session: &mut Session, path: &Path, report: &PolicyReport) -> Result<(), Failure> {
    let failed = report.tests.iter().filter(|test| !test.passed()).count();
    let file = path.to_string_lossy().into_owned();
    let mut warnings: Vec<String> = report.overlaps.warnings.iter().map(ToString::to_string).collect();
    if path.with_file_name("config.d").is_dir() {
        warnings.push("the folder config.d beside it is not read by anything".to_owned());
    }
    if session.output.wants_json() {
        session.output.object(&Checked {
            file,
            usable: true,
            problem: None,
            patterns: report.patterns,
            tests: report.tests.iter().map(shown_test).collect(),
            warnings,
            more_warnings: report.overlaps.cut,
        })?;
    } else {
        warnings.iter().try_for_each(|warning| session.output.line(format_args!("warning: {warning}")))?;
        if report.overlaps.cut {
            session.output.line("warning: there are too many patterns to compare each with each")?;
        }
        let told = report.tests.iter().filter(|test| !test.passed()).map(told);
        told.into_iter().try_for_each(|line| session.output.line(line))?;
        let (patterns, tests, warned) = (report.patterns, report.tests.len(), warnings.len());
        let file = shown(&file);
        session.output.line(format_args!(
            "{file}: {patterns} patterns, {tests} tests, {failed} failed, {warned} warnings"
        ))?;
    }
    if failed > 0 { Err(Failure::ConfigTests { failed, tests: report.tests.len() }) } else { Ok(()) }
}

/// A test that failed.
fn told(test: &TestOutcome) -> String {
    let TestOutcome { line, requester, operation, name, profile, expected, decided } = test;
    format!(
        "failed: line {line}: {} {} '{name}' of profile '{profile}' is to be {}, and is not: {}",
        requester.as_str(),
        operation.as_str(),
        if *expected == Expected::Allow { "allowed" } else { "denied" },
        decided.told(profile.as_str())
    )
}

fn shown_test(test: &TestOutcome) -> ShownTest<'_> {
    let decided = if test.decided.allowed { Expected::Allow } else { Expected::Deny };
    ShownTest {
        line: test.line,
        requester: test.requester.as_str(),
        operation: test.operation.as_str(),
        name: test.name.as_str(),
        profile: test.profile.as_str(),
        expected: test.expected.as_str(),
        decided: decided.as_str(),
        passed: test.passed(),
        rule: test.decided.told(test.profile.as_str()),
    }
}
