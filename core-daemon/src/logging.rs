//! Logging to stderr: one line per event, no colour, nothing that could hold a secret.
//!
//! No secret type shows its value, so none can be logged by mistake; as a second fence, a field with a telling name
//! is replaced by `[REDACTED]` whatever it holds, and control characters are escaped so that no name can forge a line.
//! A panic is logged with its place only: its message may quote a value.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// What stands in the place of a secret.
const REDACTED: &str = "[REDACTED]";
/// Parts of field names whose values are never shown.
const TELLING: [&str; 8] =
    ["password", "secret", "value", "token", "passphrase", "private", "master", "credential"];

/// Starts logging for this process; the level is `info`, or what `PDS_LOG` says in the syntax of `env_logger`.
pub(crate) fn start(name: &'static str) {
    let filter = EnvFilter::try_from_env("PDS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .finish();
    // A second start in one process (in tests) keeps the first subscriber.
    drop(tracing::subscriber::set_global_default(subscriber));
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(|| "unknown place".to_owned(), ToString::to_string);
        tracing::error!(%place, "{name} panicked");
    }));
}

fn write_field(
    writer: &mut Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn std::fmt::Debug,
) -> std::fmt::Result {
    let name = field.name();
    if TELLING.iter().any(|part| name.contains(part)) {
        return write!(writer, "{name}={REDACTED}");
    }
    let text = format!("{value:?}");
    if name != "message" {
        write!(writer, "{name}=")?;
    }
    for character in text.chars() {
        if character.is_control() {
            write!(writer, "{}", character.escape_default())?
        } else {
            writer.write_char(character)?
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(event: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .finish();
        tracing::subscriber::with_default(subscriber, event);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn telling_fields_are_redacted_at_every_level() {
        let text =
            logged(|| tracing::info!(password = "hunter2", secret_name = ?"hunter2", ok = 1, "unlocked"));
        assert!(
            !text.contains("hunter2") && text.contains("password=[REDACTED]") && text.contains("ok=1"),
            "{text}"
        );
    }

    #[test]
    fn a_name_with_control_characters_stays_on_its_line() {
        let text = logged(|| tracing::info!(name = %"a\nERROR forged\u{1b}[31m", "denied"));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
