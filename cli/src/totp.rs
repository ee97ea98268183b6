//! One-time codes of the time (RFC 6238), of a secret as services show it: an address `otpauth://totp/...`, or base32 alone.

use data_encoding::BASE32_NOPAD;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use zeroize::Zeroizing;

/// Seconds for which a code is good, when nothing else is said (RFC 6238, section 4.1).
const PERIOD: u64 = 30;
/// Digits of a code, when nothing else is said.
const DIGITS: u32 = 6;

/// Why a value makes no codes. Nothing of the value is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TotpError {
    /// Not text, not base32, or nothing.
    #[error("its value is neither base32 nor an address otpauth://totp/...?secret=...")]
    NotASecret,
    /// Codes of a counter, which each use would have to count on.
    #[error("it is an address otpauth://hotp/..., whose codes are counted and not of the time")]
    Counted,
    /// An address with something else than is known.
    #[error("the {0} in its address is not one that is known")]
    Unknown(&'static str),
}

/// The hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// What makes codes.
pub(crate) struct Totp {
    key: Zeroizing<Vec<u8>>,
    algorithm: Algorithm,
    digits: u32,
    period: u64,
}

impl Totp {
    /// Reads a value: base32, in which blanks, `-`, `=` and small letters are fine, or an address (the "Key Uri Format" of
    /// Google Authenticator).
    ///
    /// # Errors
    /// It is neither.
    pub(crate) fn parse(value: &[u8]) -> Result<Self, TotpError> {
        let text = std::str::from_utf8(value).map_err(|_| TotpError::NotASecret)?.trim();
        let mut totp =
            Self { key: Zeroizing::default(), algorithm: Algorithm::Sha1, digits: DIGITS, period: PERIOD };
        let Some(address) = text.strip_prefix("otpauth://") else {
            totp.key = key(text)?;
            return Ok(totp);
        };
        if address.starts_with("hotp/") {
            return Err(TotpError::Counted);
        }
        let query = address
            .strip_prefix("totp/")
            .and_then(|rest| rest.split_once('?'))
            .ok_or(TotpError::NotASecret)?
            .1;
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "secret" => totp.key = key(&value.replace("%3D", "").replace("%20", ""))?,
                "algorithm" => totp.algorithm = algorithm(value)?,
                "digits" => {
                    totp.digits = number(value, 6..=8).ok_or(TotpError::Unknown("number of digits"))?
                }
                "period" => totp.period = number(value, 1..=3600).ok_or(TotpError::Unknown("period"))?,
                _ => {}
            }
        }
        if totp.key.is_empty() { Err(TotpError::NotASecret) } else { Ok(totp) }
    }

    /// The code at a time, in seconds of the Unix epoch.
    pub(crate) fn code(&self, unix_seconds: u64) -> String {
        let counter = (unix_seconds / self.period).to_be_bytes();
        let hash = match self.algorithm {
            Algorithm::Sha1 => mac::<Hmac<Sha1>>(&self.key, counter),
            Algorithm::Sha256 => mac::<Hmac<Sha256>>(&self.key, counter),
            Algorithm::Sha512 => mac::<Hmac<Sha512>>(&self.key, counter),
        };
        // RFC 4226, section 5.3: the last four bits say where in the hash the code is.
        let offset = usize::from(hash.last().copied().unwrap_or_default() & 0x0f);
        let four =
            hash.iter().skip(offset).take(4).fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
        let code = (four & 0x7fff_ffff) % 10_u32.pow(self.digits);
        format!("{code:0width$}", width = usize::try_from(self.digits).unwrap_or_default())
    }

    /// For how many seconds more the code of a time is good.
    pub(crate) fn seconds_left(&self, unix_seconds: u64) -> u64 {
        self.period - unix_seconds % self.period
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], counter: [u8; 8]) -> Zeroizing<Vec<u8>> {
    // HMAC takes a key of any length.
    let hash =
        <M as Mac>::new_from_slice(key).map(|mac| mac.chain_update(counter).finalize().into_bytes().to_vec());
    Zeroizing::new(hash.unwrap_or_default())
}

fn key(text: &str) -> Result<Zeroizing<Vec<u8>>, TotpError> {
    let mut letters = Zeroizing::new(Vec::with_capacity(text.len()));
    letters.extend(
        text.bytes().filter(|byte| !matches!(byte, b' ' | b'-' | b'=')).map(|byte| byte.to_ascii_uppercase()),
    );
    let key = BASE32_NOPAD.decode(&letters).map(Zeroizing::new).map_err(|_| TotpError::NotASecret)?;
    if key.is_empty() { Err(TotpError::NotASecret) } else { Ok(key) }
}

fn algorithm(name: &str) -> Result<Algorithm, TotpError> {
    match name.to_ascii_uppercase().as_str() {
        "SHA1" => Ok(Algorithm::Sha1),
        "SHA256" => Ok(Algorithm::Sha256),
        "SHA512" => Ok(Algorithm::Sha512),
        _ => Err(TotpError::Unknown("algorithm")),
    }
}

fn number<N: std::str::FromStr + PartialOrd>(text: &str, range: std::ops::RangeInclusive<N>) -> Option<N> {
    text.parse().ok().filter(|number| range.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All vectors of RFC 6238, appendix B, with the keys of its errata.
    #[test]
    fn known_answers() {
        let times = [59, 1_111_111_109, 1_111_111_111, 1_234_567_890, 2_000_000_000, 20_000_000_000];
        let tables = [
            ("SHA1", 20, ["94287082", "07081804", "14050471", "89005924", "69279037", "65353130"]),
            ("SHA256", 32, ["46119246", "68084774", "67062674", "91819424", "90698825", "77737706"]),
            ("SHA512", 64, ["90693936", "25091201", "99943326", "93441116", "38618901", "47863826"]),
        ];
        for (algorithm, length, codes) in tables {
            let secret = BASE32_NOPAD.encode(&b"1234567890".repeat(7)[..length]);
            let address = format!(
                "otpauth://totp/ACME:me@x?issuer=ACME&secret={secret}&algorithm={algorithm}&digits=8&period=30"
            );
            let totp = Totp::parse(address.as_bytes()).unwrap();
            for (time, code) in times.into_iter().zip(codes) {
                assert_eq!(totp.code(time), code, "{algorithm} at {time}");
            }
        }
    }

    #[test]
    fn a_secret_alone_is_read_as_people_copy_it() {
        let code = |value: &str| Totp::parse(value.as_bytes()).unwrap().code(59);
        let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        for value in [
            secret,
            "gezd gnbv gy3t qojq gezd gnbv gy3t qojq\n",
            "GEZDGNBV-GY3TQOJQ-GEZDGNBV-GY3TQOJQ====",
            "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ%3D",
        ] {
            assert_eq!(code(value), "287082");
        }
        let totp = Totp::parse(secret.as_bytes()).unwrap();
        assert_eq!([0, 29, 30, 59].map(|time| totp.seconds_left(time)), [30, 1, 30, 1]);
        assert_eq!(totp.code(30), totp.code(59));
        assert_ne!(totp.code(29), totp.code(30));
    }

    #[test]
    fn what_makes_no_codes_is_refused_and_not_repeated() {
        let refused = |value: &[u8]| Totp::parse(value).err().unwrap();
        for wrong in [
            &b""[..],
            b"  ",
            b"hunter2!",
            b"\xff\xfe",
            b"otpauth://totp/x",
            b"otpauth://totp/x?secret=",
            b"otpauth://totp/x?issuer=y",
            b"otpauth://else/x?secret=GEZDGNBV",
        ] {
            assert_eq!(refused(wrong), TotpError::NotASecret);
        }
        assert_eq!(refused(b"otpauth://hotp/x?secret=GEZDGNBV&counter=1"), TotpError::Counted);
        for (option, what) in [
            ("digits=5", "number of digits"),
            ("digits=99", "number of digits"),
            ("period=0", "period"),
            ("period=x", "period"),
            ("algorithm=MD5", "algorithm"),
        ] {
            assert_eq!(
                refused(format!("otpauth://totp/x?secret=GEZDGNBV&{option}").as_bytes()),
                TotpError::Unknown(what)
            );
        }
    }
}
