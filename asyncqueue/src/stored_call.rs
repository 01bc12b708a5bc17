//! A call as its stream knows it, and how messages between programs name it.

use std::hash::{Hash, Hasher};

use crate::call_id::CallId;

/// A stored call: its id, and its sequence on the queue's stream. Several calls may share an id,
/// but a sequence is one call, because streams are created with a first sequence that was never
/// used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCall {
    /// The call's id.
    pub id: CallId,
    /// Its sequence.
    pub sequence: u64,
}

impl Hash for StoredCall {
    /// Hashes only the sequence, which distinguishes calls well enough.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sequence.hash(state);
    }
}

impl StoredCall {
    /// Encodes the call for a message to workers: its id and its sequence.
    #[must_use]
    pub fn encode(&self) -> String {
        format!("{} {}", self.id, self.sequence)
    }

    /// Reads what [`StoredCall::encode`] wrote.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (id, sequence) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
        Some(Self { id: id.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_as_it_is_written() {
        let call = StoredCall { id: "id-1".parse().unwrap(), sequence: 7 };
        assert_eq!(call.encode(), "id-1 7");
        assert_eq!(StoredCall::decode(b"id-1 7"), Some(call));
        for other in ["", "id-1", "id-1 x", "a.b 7", "id-1 7 8"] {
            assert_eq!(StoredCall::decode(other.as_bytes()), None, "{other}");
        }
    }
}
