//! When a value shall expire, as it is typed: a time from now, or a date or time of the calendar.

use core_types::limits::GRANT_SECONDS_MAX;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// Why a text is no time to expire at; the text itself is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpiryError {
    /// Neither a time from now nor one of the calendar.
    #[error("it is neither a time from now (30d, 12h) nor a date or time (2030-12-31, 2030-12-31T18:00:00Z)")]
    NotATime,
    /// Neither a time ago nor one of the calendar that is past.
    #[error(
        "it is neither a time ago (30d, 12h) nor a date or time that is past (2025-01-31, 2025-01-31T18:00:00Z)"
    )]
    NotPast,
    /// Not a length of time that a grant can have.
    #[error("it is not a length of time from 1s to {}d, such as 10m or 2h", GRANT_SECONDS_MAX / 86_400)]
    NotALength,
    /// A time that is over, or as good as.
    #[error("that time is past")]
    Past,
}

/// Reads a length of time in whole seconds, as long as a grant may hold. A day has 24 hours.
pub(crate) fn parse_seconds(text: &str) -> Result<u64, ExpiryError> {
    let now = Timestamp::now();
    let then = time_from_now(text, now).ok_or(ExpiryError::NotALength)?;
    let seconds = u64::try_from(then.duration_since(now).as_secs()).map_err(|_| ExpiryError::NotALength)?;
    if (1..=GRANT_SECONDS_MAX).contains(&seconds) { Ok(seconds) } else { Err(ExpiryError::NotALength) }
}

/// Reads a time to expire at. A day has 24 hours, and a date without a time zone is one in UTC.
pub(crate) fn parse(text: &str) -> Result<Timestamp, ExpiryError> {
    parse_at(text, Timestamp::now())
}

fn parse_at(text: &str, now: Timestamp) -> Result<Timestamp, ExpiryError> {
    let time = calendar_time(text).or_else(|| time_from_now(text, now)).ok_or(ExpiryError::NotATime)?;
    if time > now { Ok(time) } else { Err(ExpiryError::Past) }
}

/// Reads a time that is past: so long ago, or of the calendar.
pub(crate) fn parse_past(text: &str) -> Result<Timestamp, ExpiryError> {
    parse_past_at(text, Timestamp::now())
}

fn parse_past_at(text: &str, now: Timestamp) -> Result<Timestamp, ExpiryError> {
    let ago = || {
        let span: Span = text.parse().ok()?;
        now.to_zoned(TimeZone::UTC).checked_sub(span).ok().map(|time| time.timestamp())
    };
    calendar_time(text).or_else(ago).filter(|time| *time <= now).ok_or(ExpiryError::NotPast)
}

/// A time of the calendar: RFC 3339, or a date, or a date and a time, in UTC.
fn calendar_time(text: &str) -> Option<Timestamp> {
    let in_utc = |time: DateTime| TimeZone::UTC.to_timestamp(time).ok();
    text.parse().ok().or_else(|| text.parse().ok().and_then(in_utc))
}

/// A time from now, such as `30d`, `1y 6mo` or `P30D`.
fn time_from_now(text: &str, now: Timestamp) -> Option<Timestamp> {
    let span: Span = text.parse().ok()?;
    now.to_zoned(TimeZone::UTC).checked_add(span).ok().map(|time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2025-11-22T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn times_ago_and_of_the_calendar_are_understood_and_the_future_is_refused() {
        for (text, expected) in [
            ("90d", "2025-08-24T10:00:00Z"),
            ("12h", "2025-11-21T22:00:00Z"),
            ("2025-01-31", "2025-01-31T00:00:00Z"),
        ] {
            assert_eq!(parse_past_at(text, now()), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "x", "2030-01-01", "-3d", "99999999999y"] {
            assert_eq!(parse_past_at(text, now()), Err(ExpiryError::NotPast), "{text}");
        }
    }

    #[test]
    fn a_grant_holds_for_whole_seconds_up_to_its_longest() {
        for (text, seconds) in [("1s", 1), ("10m", 600), ("2h", 7_200), ("1h 30m", 5_400), ("30d", 2_592_000)]
        {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
        for text in ["", "10", "0s", "31d", "-1m", "2030-12-31", "500ms", "99999999999y"] {
            assert_eq!(parse_seconds(text), Err(ExpiryError::NotALength), "{text}");
        }
    }

    #[test]
    fn times_from_now_and_of_the_calendar_are_understood() {
        for (text, expected) in [
            ("30d", "2025-12-22T10:00:00Z"),
            ("12h", "2025-11-22T22:00:00Z"),
            ("90m", "2025-11-22T11:30:00Z"),
            ("1y 6mo", "2027-05-22T10:00:00Z"),
            ("2 weeks", "2025-12-06T10:00:00Z"),
            ("P1D", "2025-11-23T10:00:00Z"),
            ("2026-12-31", "2026-12-31T00:00:00Z"),
            ("2026-12-31T18:30", "2026-12-31T18:30:00Z"),
            ("2026-12-31 18:30:00", "2026-12-31T18:30:00Z"),
            ("2026-12-31T18:30:00Z", "2026-12-31T18:30:00Z"),
            ("2026-12-31T18:30:00+02:00", "2026-12-31T16:30:00Z"),
        ] {
            assert_eq!(parse_at(text, now()).map(|time| time.to_string()), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_or_is_past_is_told_apart() {
        for text in ["", "x", "30", "d", "2026-13-01", "2026-02-30", "31.12.2026", "99999999999y"] {
            assert_eq!(parse_at(text, now()), Err(ExpiryError::NotATime), "{text}");
        }
        for text in ["2025-11-22", "2001-01-01", "2025-11-22T10:00:00Z", "-1d", "1h ago", "0s"] {
            assert_eq!(parse_at(text, now()), Err(ExpiryError::Past), "{text}");
        }
    }
}
