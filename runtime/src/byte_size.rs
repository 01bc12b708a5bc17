//! Sizes in the notation of Kubernetes: `512`, `64Ki`, `1Mi`, `2G`.

use std::{fmt, str::FromStr};

/// Suffixes of a Kubernetes quantity and their factors.
const UNITS: [(&str, u64); 7] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("", 1),
];

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub usize);

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size in bytes; write it as 262144, 256Ki or 1Mi")]
pub struct ByteSizeError(String);

// === impl ByteSize ===

impl ByteSize {
    /// Parses a size that is not 0, for a setting.
    pub fn parse_positive(text: &str) -> Result<Self, String> {
        match text.parse::<Self>() {
            Ok(Self(0)) => Err("it must be more than 0".to_owned()),
            read => read.map_err(|error| error.to_string()),
        }
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, suffix) = text.split_at(digits);
        UNITS
            .iter()
            .find(|(unit, _)| *unit == suffix)
            .and_then(|(_, factor)| number.parse::<u64>().ok()?.checked_mul(*factor))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| ByteSizeError(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    /// Writes the size in the largest binary unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("Gi", 30), ("Mi", 20), ("Ki", 10)] {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_kubernetes_writes_them() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("64Ki", 65_536), ("1Mi", 1_048_576), ("2k", 2_000)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        assert!(ByteSize::parse_positive("0Mi").is_err() && ByteSize::parse_positive("1").is_ok());
        for bad in ["", "Mi", "-1", "1.5Mi", "1 Mi", "1mi", "99999999999Gi"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_it_prints_it_reads() {
        for (bytes, text) in
            [(0, "0"), (1000, "1000"), (1024, "1Ki"), (1 << 20, "1Mi"), (3 << 30, "3Gi")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
    }
}
