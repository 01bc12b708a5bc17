//! Sizes in bytes, as a user writes them: a number, or a text with a unit.

use asyncqueue_runtime::byte_size::{ByteSize, ByteSizeError};
use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawSize", into = "String")]
pub struct Size(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum RawSize {
    Number(u64),
    Text(String),
}

impl TryFrom<RawSize> for Size {
    type Error = ByteSizeError;

    fn try_from(raw: RawSize) -> Result<Self, ByteSizeError> {
        match raw {
            RawSize::Number(bytes) => Ok(Self(bytes)),
            RawSize::Text(text) => text.parse().map(|ByteSize(bytes)| Self(bytes as u64)),
        }
    }
}

impl From<Size> for String {
    fn from(Size(bytes): Size) -> Self {
        usize::try_from(bytes)
            .map_or_else(|_| bytes.to_string(), |bytes| ByteSize(bytes).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_or_a_text_with_a_unit() {
        let read = |json: &str| serde_json::from_str::<Size>(json).ok();
        assert_eq!(read("5000000000"), Some(Size(5_000_000_000)));
        assert_eq!(read("\"256Ki\""), Some(Size(256 << 10)));
        for none in ["\"much\"", "-1", "1.5"] {
            assert_eq!(read(none), None, "{none}");
        }
        assert_eq!(serde_json::to_string(&Size(256 << 10)).unwrap(), "\"256Ki\"");
    }
}
