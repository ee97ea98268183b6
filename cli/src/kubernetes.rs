//! A Secret of Kubernetes as YAML (<https://kubernetes.io/docs/concepts/configuration/secret/>): any bytes, in base64.

use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

use crate::import::ImportError;

/// Longest name, in bytes (RFC 1123, as Kubernetes has it).
const NAME_BYTES_MAX: usize = 253;
/// Most bytes of all values of one Secret (`MaxSecretSize`).
const VALUES_BYTES_MAX: usize = 1 << 20;
/// Bytes around a key and its value.
const AROUND: usize = 16;

/// Writes a Secret in a buffer that never grows. Keys are quoted: some variables' names would be truth values in YAML.
///
/// # Errors
/// Kubernetes takes no such name, or not so much.
pub(crate) fn secret(name: &str, variables: &[(&[u8], &[u8])]) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    if !is_name(name) {
        return Err(ImportError::Whole {
            problem: "Kubernetes has no such name for a Secret",
            next: "give one of a-z 0-9 - . with --name",
        });
    }
    if variables.iter().map(|(_, value)| value.len()).sum::<usize>() > VALUES_BYTES_MAX {
        return Err(ImportError::Whole {
            problem: "the values together are larger than the 1 MiB that one Secret of Kubernetes holds",
            next: "select fewer with --only, and write several Secrets",
        });
    }
    let head = format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"{name}\"\ntype: Opaque\ndata:");
    let lines: usize = variables.iter().map(|(key, value)| key.len() + 2 * value.len() + AROUND).sum();
    let mut text = Zeroizing::new(Vec::with_capacity(head.len() + lines + AROUND));
    text.extend_from_slice(head.as_bytes());
    if variables.is_empty() {
        text.extend_from_slice(b" {}");
    }
    text.push(b'\n');
    for (key, value) in variables {
        text.extend_from_slice(b"  \"");
        text.extend_from_slice(key);
        text.extend_from_slice(b"\": \"");
        let encoded = Zeroizing::new(Base64::encode_string(value));
        text.extend_from_slice(encoded.as_bytes());
        text.extend_from_slice(b"\"\n");
    }
    Ok(text)
}

/// A DNS subdomain name.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= NAME_BYTES_MAX && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_encoded_and_the_buffer_never_grows() {
        let all: Vec<u8> = (0..=255).collect();
        let text = secret("my-app.prod", &[(b"NO", &all), (b"EMPTY", b"")]).unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(
            text.starts_with("apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"my-app.prod\"\n"),
            "{text}"
        );
        assert!(text.contains("  \"NO\": \"AAECAw") && text.ends_with("  \"EMPTY\": \"\"\n"), "{text}");
        assert!(secret("a", &[]).unwrap().ends_with(b"data: {}\n"));
        for name in ["", "A", "a_b", "-a", "a-", "a..b", &"a".repeat(254)] {
            assert!(secret(name, &[]).is_err(), "{name}");
        }
        assert!(secret("a", &[(b"A", &vec![0; VALUES_BYTES_MAX + 1])]).is_err());
        let large = vec![0xff; 100_000];
        let size = secret("a", &[(b"A", &large)]).unwrap();
        assert!(size.len() <= size.capacity() && size.capacity() < 3 * large.len());
    }
}
