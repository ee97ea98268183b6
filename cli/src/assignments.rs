//! Variables as text that another program reads back exactly; what its format cannot hold is refused by name.

use core_types::env_name::is_variable_name;
use zeroize::Zeroizing;

use crate::args::EnvFormat;

/// Longest line that docker reads from a file of variables (`bufio.MaxScanTokenSize` of Go), in bytes.
const DOCKER_LINE_BYTES_MAX: usize = 64 << 10;
/// Most bytes that one byte of a value becomes in any format: `\u0001` in JSON.
const GROWTH_MAX: usize = 6;
/// Most bytes around name and value in any format.
const AROUND_MAX: usize = 16;

/// Why a variable cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} cannot be written as {format}: {problem}")]
pub(crate) struct AssignmentError {
    variable: String,
    format: EnvFormat,
    problem: Problem,
}

/// What a format cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("it is not a name that a shell knows")]
    Name,
    #[error("its value is not UTF-8 text")]
    NotText,
    #[error("its value has a line feed, or ends with a carriage return")]
    LineFeed,
    #[error("its value has a carriage return, which readers change")]
    CarriageReturn,
    #[error("its value is longer than a line may be")]
    TooLong,
    #[error("readers do not agree on a value with these quotes, backslashes and dollar signs")]
    Quotes,
}

/// Writes variables in a format, in a buffer that never grows.
///
/// # Errors
/// The first variable that the format cannot hold.
pub(crate) fn written(
    format: EnvFormat,
    variables: &[(&[u8], &[u8])],
) -> Result<Zeroizing<Vec<u8>>, AssignmentError> {
    let size = |(name, value): &(&[u8], &[u8])| GROWTH_MAX * (name.len() + value.len()) + AROUND_MAX;
    let mut text = Zeroizing::new(Vec::with_capacity(variables.iter().map(size).sum::<usize>() + AROUND_MAX));
    if format == EnvFormat::Json {
        text.push(b'{');
    }
    for (index, (name, value)) in variables.iter().enumerate() {
        let failed = |problem| {
            let variable = String::from_utf8_lossy(name).into_owned();
            AssignmentError { variable, format, problem }
        };
        if format == EnvFormat::Json && index > 0 {
            text.push(b',');
        }
        one(format, &mut text, name, value).map_err(failed)?;
    }
    if format == EnvFormat::Json {
        text.extend_from_slice(b"}\n");
    }
    Ok(text)
}

fn one(format: EnvFormat, text: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Problem> {
    let is_plain = str::from_utf8(name).is_ok_and(is_variable_name);
    if !is_plain && format != EnvFormat::Json {
        return Err(Problem::Name);
    }
    match format {
        EnvFormat::Shell => shell(text, name, value),
        EnvFormat::Fish => fish(text, name, value),
        EnvFormat::Dotenv => dotenv(text, name, value)?,
        EnvFormat::Docker => docker(text, name, value)?,
        EnvFormat::Json => json(text, name, value)?,
    }
    Ok(())
}

/// POSIX.1-2017, 2.2.2: between single quotes everything but a single quote stands for itself.
fn shell(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    text.extend_from_slice(b"export ");
    text.extend_from_slice(name);
    text.extend_from_slice(b"='");
    for byte in value {
        match byte {
            b'\'' => text.extend_from_slice(b"'\\''"),
            other => text.push(*other),
        }
    }
    text.extend_from_slice(b"'\n");
}

/// fish: between single quotes a backslash is special before another and before a single quote.
fn fish(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    text.extend_from_slice(b"set -gx ");
    text.extend_from_slice(name);
    text.extend_from_slice(b" '");
    escaped(text, value, b"\\'");
    text.extend_from_slice(b"'\n");
}

fn escaped(text: &mut Vec<u8>, value: &[u8], special: &[u8]) {
    for byte in value {
        if special.contains(byte) {
            text.push(b'\\');
        }
        text.push(*byte);
    }
}

/// What python-dotenv, dotenvy and `--env-file` read alike. In single quotes python-dotenv puts variables in the place of
/// `${NAME}`, and knows `\\` and `\'`, which dotenvy does not; in double quotes dotenvy wants `\$`, which python-dotenv
/// does not know; and python-dotenv ends no quotes after `\\`.
fn dotenv(text: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Problem> {
    let value = str::from_utf8(value).map_err(|_| Problem::NotText)?;
    if value.contains('\r') {
        return Err(Problem::CarriageReturn);
    }
    text.extend_from_slice(name);
    text.push(b'=');
    if !value.contains(['\'', '\\']) && !value.contains("${") {
        text.push(b'\'');
        text.extend_from_slice(value.as_bytes());
        text.push(b'\'');
    } else if !value.contains('$') && !value.contains("\\\"") && !value.ends_with('\\') {
        text.push(b'"');
        escaped(text, value.as_bytes(), b"\\\"");
        text.push(b'"');
    } else {
        return Err(Problem::Quotes);
    }
    text.push(b'\n');
    Ok(())
}

/// docker-run(1) `--env-file`: no quotes, no escapes, all up to the end of the line is the value.
fn docker(text: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Problem> {
    if str::from_utf8(value).is_err() {
        return Err(Problem::NotText);
    }
    if value.contains(&b'\n') || value.ends_with(b"\r") {
        return Err(Problem::LineFeed);
    }
    if name.len() + value.len() + 2 > DOCKER_LINE_BYTES_MAX {
        return Err(Problem::TooLong);
    }
    text.extend_from_slice(name);
    text.push(b'=');
    text.extend_from_slice(value);
    text.push(b'\n');
    Ok(())
}

fn json(text: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Problem> {
    let name = str::from_utf8(name).map_err(|_| Problem::Name)?;
    let value = str::from_utf8(value).map_err(|_| Problem::NotText)?;
    // Writing to a vector does not fail.
    serde_json::to_writer(&mut *text, name).map_err(|_| Problem::Name)?;
    text.push(b':');
    serde_json::to_writer(&mut *text, value).map_err(|_| Problem::NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [EnvFormat; 5] =
        [EnvFormat::Shell, EnvFormat::Dotenv, EnvFormat::Json, EnvFormat::Docker, EnvFormat::Fish];

    fn text(format: EnvFormat, value: &[u8]) -> Result<String, Problem> {
        written(format, &[(b"A", value)])
            .map(|text| String::from_utf8(text.to_vec()).unwrap())
            .map_err(|error| error.problem)
    }

    #[test]
    fn each_format_quotes_in_its_own_way() {
        let value = b"it's \"$x\" \\n";
        assert_eq!(text(EnvFormat::Shell, value).unwrap(), "export A='it'\\''s \"$x\" \\n'\n");
        assert_eq!(text(EnvFormat::Fish, value).unwrap(), "set -gx A 'it\\'s \"$x\" \\\\n'\n");
        assert_eq!(text(EnvFormat::Docker, value).unwrap(), "A=it's \"$x\" \\n\n");
        assert_eq!(text(EnvFormat::Json, value).unwrap(), "{\"A\":\"it's \\\"$x\\\" \\\\n\"}\n");
        assert_eq!(text(EnvFormat::Dotenv, b"\"$x\" y").unwrap(), "A='\"$x\" y'\n");
        assert_eq!(text(EnvFormat::Dotenv, b"it's \\n \"x\"").unwrap(), "A=\"it's \\\\n \\\"x\\\"\"\n");
        for format in ALL {
            assert!(text(format, b"").is_ok());
        }
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused_by_name() {
        for (format, value, problem) in [
            (EnvFormat::Docker, &b"a\nb"[..], Problem::LineFeed),
            (EnvFormat::Docker, b"a\r", Problem::LineFeed),
            (EnvFormat::Docker, &[b'x'; 1 << 16], Problem::TooLong),
            (EnvFormat::Docker, b"\xff", Problem::NotText),
            (EnvFormat::Json, b"\xff", Problem::NotText),
            (EnvFormat::Dotenv, b"\xff", Problem::NotText),
            (EnvFormat::Dotenv, b"a\rb", Problem::CarriageReturn),
            (EnvFormat::Dotenv, b"${HOME}", Problem::Quotes),
            (EnvFormat::Dotenv, b"it's $x", Problem::Quotes),
            (EnvFormat::Dotenv, b"C:\\", Problem::Quotes),
        ] {
            assert_eq!(text(format, value), Err(problem), "{format}");
        }
        let refused = written(EnvFormat::Docker, &[(b"OK", b"x"), (b"PEM", b"a\nb")]).unwrap_err();
        assert!(refused.to_string().starts_with("PEM cannot be written as docker"), "{refused}");
        assert!(written(EnvFormat::Shell, &[(b"A.B", b"x")]).is_err());
    }

    #[test]
    fn the_buffer_never_grows() {
        for format in ALL {
            let value = [1; 1000];
            let variables: Vec<(&[u8], &[u8])> = (0..10).map(|_| (&b"NAME"[..], &value[..])).collect();
            let size = (GROWTH_MAX * 1004 + AROUND_MAX) * 10 + AROUND_MAX;
            assert_eq!(written(format, &variables).unwrap().capacity(), size);
        }
    }
}
