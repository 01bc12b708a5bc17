//! The call id: the identity of a call from the 202 to the callback.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::names::QueueName;

/// Maximum length of a call id of a client. The id is a token of the subject, which NATS keeps in
/// memory for each pending message.
pub(crate) const MAX_CALL_ID: usize = 128;

/// Identifies a call. One subject token: 1 to 128 of `A-Z a-z 0-9 _ -`. Clones share the text.
///
/// ```
/// use asyncqueue::{CallId, QueueName};
///
/// let queue: QueueName = "slow-queue".parse()?;
/// let generated = CallId::generate(&queue);
/// let chosen: CallId = "order-7".parse()?;
/// assert!("order 7".parse::<CallId>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(Arc<str>);

/// A call id of a client is not a subject token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("call id `{0}` is not valid: use 1 to {MAX_CALL_ID} of A-Z, a-z, 0-9, _ and -")]
pub struct CallIdError(String);

// === impl CallId ===

impl CallId {
    /// Generates a `UUIDv7` whose last 16 bits are the hash of the queue's name. A lookup by id
    /// alone then asks one stream, even among ten thousand queues.
    #[must_use]
    pub fn generate(queue: &QueueName) -> Self {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut random: [u8; 10] = rand::random();
        random[8..].copy_from_slice(&queue_hash(queue).to_be_bytes());
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        Self::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &random))
    }

    /// Creates a `UUIDv8` from a hash. It carries the [`queue_hash`] of its queue, as a generated
    /// id does.
    pub(crate) fn from_hash(hash: &[u8; 32], queue: u16) -> Self {
        let mut bytes: [u8; 16] = std::array::from_fn(|index| hash[index]);
        bytes[14..].copy_from_slice(&queue.to_be_bytes());
        Self::from_uuid(uuid::Builder::from_custom_bytes(bytes))
    }

    fn from_uuid(id: uuid::Builder) -> Self {
        Self(id.into_uuid().hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).into())
    }

    /// Returns the id of a message that carries no id, from its sequence in the stream: `seq-7`.
    #[doc(hidden)]
    #[must_use]
    pub fn from_sequence(sequence: u64) -> Self {
        Self(format!("seq-{sequence}").into())
    }

    /// Returns the queue's hash that the id carries: a generated `UUIDv7`, or a `UUIDv8` from an
    /// idempotency key. `None` for any other id. A client's own UUID of these versions gives a hash
    /// too, which belongs to no queue in particular.
    #[must_use]
    pub fn queue_hash(&self) -> Option<u16> {
        let uuid = uuid::Uuid::parse_str(&self.0)
            .ok()
            .filter(|u| [7, 8].contains(&u.get_version_num()))?;
        let bytes = uuid.as_bytes();
        Some(u16::from_be_bytes([bytes[14], bytes[15]]))
    }

    /// Returns whether this is an id as [`CallId::generate`] makes it, which can't be guessed. An
    /// id from an idempotency key is not: who guesses the key knows it.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        uuid::Uuid::parse_str(&self.0).is_ok_and(|uuid| uuid.get_version_num() == 7)
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CallId {
    type Err = CallIdError;

    fn from_str(text: &str) -> Result<Self, CallIdError> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if (1..=MAX_CALL_ID).contains(&text.len()) && text.bytes().all(ok) {
            Ok(Self(text.into()))
        } else {
            Err(CallIdError(text.to_owned()))
        }
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the first 16 bits of the SHA-256 of a queue's name.
#[must_use]
pub fn queue_hash(queue: &QueueName) -> u16 {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(queue.as_str());
    u16::from_be_bytes([digest[0], digest[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_is_a_uuid_v7_that_carries_its_queue() {
        let queue: QueueName = "slow-queue".parse().unwrap();
        let id = CallId::generate(&queue);
        assert_eq!(id.queue_hash(), Some(queue_hash(&queue)));
        assert_eq!(id.as_str().parse::<CallId>().unwrap(), id);
        assert!(id.is_generated());
        assert_ne!(CallId::generate(&queue), id);
    }

    #[test]
    fn an_id_of_a_hash_is_a_uuid_v8_that_carries_its_queue() {
        let id = CallId::from_hash(&[0xff; 32], 0x12ab);
        assert_eq!((id.queue_hash(), id.is_generated()), (Some(0x12ab), false));
        assert_eq!(id.as_str(), "ffffffff-ffff-8fff-bfff-ffffffff12ab");
        let random: CallId = "2f1c8a1e-6d0b-4c52-9f0e-3c1d2b4a5e6f".parse().unwrap();
        assert_eq!(random.queue_hash(), None);
    }

    #[test]
    fn a_clients_id_is_one_subject_token() {
        for good in ["1", "a_B-9", &"x".repeat(128)] {
            assert_eq!(good.parse::<CallId>().unwrap().as_str(), good);
        }
        for bad in ["", "a.b", "a b", "*", ">", "a\r\nNats-Rollup: all", "ü", &"x".repeat(129)] {
            assert!(bad.parse::<CallId>().is_err(), "{bad}");
        }
    }
}
