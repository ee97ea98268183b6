//! How a header is written: the content, what is made over it, and byte arrays as hex.

use core_types::ProfileName;
use core_types::factor::FactorPolicy;
use serde::{Deserialize, Serialize};

use super::{FORMAT, Factor, HeaderError, MAC_BYTES, syntax};

/// What the checksum and the authentication code are made over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    pub(super) profile: ProfileName,
    pub(super) created_unix_ms: u64,
    /// Raised with each change, so that an older header is known for one.
    pub(super) generation: u64,
    pub(super) policy: FactorPolicy,
    /// The master key, sealed with the key that the shares of the factors give; absent where each factor wraps the
    /// master key itself.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_hex")]
    pub(super) shared_master_key: Option<Vec<u8>>,
    /// The number that the next factor gets: no number is ever used twice.
    pub(super) next_factor: u32,
    pub(super) factors: Vec<Factor>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) format: u32,
    pub(super) content: Content,
    pub(super) checksum: String,
    #[serde(with = "fixed_hex")]
    pub(super) mac: [u8; MAC_BYTES],
}

/// Read first and alone, so that a header of a later format is called that and not damaged.
#[derive(Deserialize)]
pub(super) struct FileFormat {
    pub(super) format: u32,
}

/// The one text that stands for a content: compact JSON in the order of the fields.
pub(super) fn canonical(content: &Content) -> Result<Vec<u8>, HeaderError> {
    let mut bytes = format!("pds v2 header {FORMAT}\0").into_bytes();
    serde_json::to_writer(&mut bytes, content).map_err(syntax)?;
    Ok(bytes)
}

/// Byte arrays as lower-case hex digits of exactly their length.
pub(super) mod fixed_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| D::Error::custom("not hex of the right length"))?;
        Ok(bytes)
    }
}

/// Bytes of any length as lower-case hex digits.
pub(super) mod any_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?).map_err(|_| D::Error::custom("not hex"))
    }
}

/// [`any_hex`] where there may be nothing.
mod optional_hex {
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::any_hex::serialize(bytes, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        super::any_hex::deserialize(deserializer).map(Some)
    }
}
