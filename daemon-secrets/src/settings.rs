//! What the command line and the environment of the daemon may set: `--ttl SECONDS`, or `PDS_SECRET_TTL`, over the
//! configuration.

use std::ffi::OsString;
use std::time::Duration;

use core_types::limits::CACHE_TTL_SECONDS_MAX;

/// The variable that says how long a decrypted value may be kept, in seconds.
pub(crate) const TTL_VARIABLE: &str = "PDS_SECRET_TTL";
const TTL_FLAG: &str = "--ttl";

/// Why the daemon does not start with what it was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SettingError {
    /// An argument that is none.
    Argument(OsString),
    /// A time that is none.
    Ttl {
        /// Where it stands.
        source: &'static str,
    },
}

impl std::fmt::Display for SettingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Argument(argument) => {
                write!(f, "unknown argument {argument:?}; the only one is {TTL_FLAG} SECONDS")
            }
            Self::Ttl { source } => {
                write!(
                    f,
                    "{source} must be a number of seconds from 0 (keep nothing) to {CACHE_TTL_SECONDS_MAX}, the \
                     longest that a decrypted value may stay in memory"
                )
            }
        }
    }
}

/// How long a decrypted value may be kept: by the flag, else by the variable, else by the configuration.
pub(crate) fn cache_ttl(
    mut arguments: impl Iterator<Item = OsString>,
    variable: Option<OsString>,
    configured: Duration,
) -> Result<Duration, SettingError> {
    let mut ttl = None;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some(TTL_FLAG) => ttl = Some(seconds(TTL_FLAG, arguments.next())?),
            Some(text) if text.starts_with("--ttl=") => {
                ttl = Some(seconds(TTL_FLAG, Some(OsString::from(&text["--ttl=".len()..])))?);
            }
            _ => return Err(SettingError::Argument(argument)),
        }
    }
    match (ttl, variable) {
        (Some(ttl), _) => Ok(ttl),
        (None, Some(variable)) => seconds(TTL_VARIABLE, Some(variable)),
        (None, None) => Ok(configured),
    }
}

fn seconds(source: &'static str, text: Option<OsString>) -> Result<Duration, SettingError> {
    let number = text.and_then(|text| text.to_str().and_then(|text| text.parse().ok()));
    match number {
        Some(seconds @ 0..=CACHE_TTL_SECONDS_MAX) => Ok(Duration::from_secs(seconds)),
        _ => Err(SettingError::Ttl { source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ttl(arguments: &[&str], variable: Option<&str>) -> Result<u64, SettingError> {
        let arguments = arguments.iter().map(OsString::from);
        let configured = Duration::from_secs(300);
        cache_ttl(arguments, variable.map(OsString::from), configured).map(|ttl| ttl.as_secs())
    }

    #[test]
    fn the_flag_goes_before_the_variable_and_that_before_the_configuration() {
        assert_eq!(ttl(&[], None), Ok(300));
        assert_eq!(ttl(&[], Some("7")), Ok(7));
        assert_eq!(ttl(&["--ttl", "5"], Some("7")), Ok(5));
        assert_eq!(ttl(&["--ttl=0"], None), Ok(0));
        assert_eq!(ttl(&["--ttl=300"], None), Ok(300));
    }

    #[test]
    fn what_is_no_time_or_no_flag_is_refused() {
        for text in ["", "-1", "1.5", "301", "86400", "ten"] {
            assert_eq!(ttl(&["--ttl", text], None), Err(SettingError::Ttl { source: "--ttl" }), "{text}");
            assert_eq!(ttl(&[], Some(text)), Err(SettingError::Ttl { source: "PDS_SECRET_TTL" }), "{text}");
        }
        assert_eq!(ttl(&["--ttl"], None), Err(SettingError::Ttl { source: "--ttl" }));
        assert_eq!(ttl(&["-v"], None), Err(SettingError::Argument("-v".into())));
    }
}
