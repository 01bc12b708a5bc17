//! The identity of a message, for as long as its source may deliver it again.
//!
//! A sequence alone is not sufficient: NATS Streaming that keeps messages in memory, as OpenFaaS
//! installs it, begins at 1 again when it restarts. The time at which the source stored the message
//! distinguishes the two.

use anyhow::Context;
use asyncqueue::{CallId, IdempotencyKey};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// Number of bytes of a source's hash that are used: sufficient to distinguish a few sources.
const HASH_BYTES: usize = 6;

/// The source of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceId {
    /// A hash of what identifies the source, as a token of a subject.
    token: String,
    /// The name of the source for users: `stan.faas-request`.
    label: String,
}

/// One message of a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct MessageIdentity {
    source_id: String,
    /// Its sequence at the source.
    pub(super) sequence: u64,
    /// When the source stored it.
    pub(super) stored_at: Timestamp,
}

// === impl SourceId ===

impl SourceId {
    /// Creates the source of this kind that `parts` identify. `label` is its name for users.
    pub(super) fn new(kind: &str, parts: &[&str], label: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [kind].iter().chain(parts) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let token = hex::encode(&hash.finalize()[..HASH_BYTES]);
        Self { token, label: format!("{kind}.{label}") }
    }

    /// Returns the identity of one of its messages.
    pub(super) fn message(&self, sequence: u64, stored_at: Timestamp) -> MessageIdentity {
        MessageIdentity { source_id: self.token.clone(), sequence, stored_at }
    }

    /// Returns the name of the source for users.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Returns the subject that a dead letter names as that of its message. No stream of a queue
    /// has this subject, so that the sequence is not taken for one of the queue's stream.
    pub(super) fn subject(&self, message: &MessageIdentity) -> String {
        format!("{}.{}", self.label, message.stored_at.as_nanosecond())
    }
}

// === impl MessageIdentity ===

impl MessageIdentity {
    /// Returns the key of the message's record.
    pub(super) fn record_key(&self) -> String {
        format!("{}.{}.{}", self.source_id, self.sequence, self.stored_at.as_nanosecond())
    }

    /// Returns the key by which the queue recognises the message as stored.
    pub(super) fn idempotency_key(&self) -> anyhow::Result<IdempotencyKey> {
        format!("drain.{}", self.record_key())
            .parse()
            .context("failed to create the idempotency key of the message")
    }

    /// Returns the id of a call whose client sent none.
    pub(super) fn call_id(&self) -> anyhow::Result<CallId> {
        format!("drain-{}-{}-{}", self.source_id, self.sequence, self.stored_at.as_nanosecond())
            .parse()
            .context("failed to create the id of the call")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanosecond: i128) -> Timestamp {
        Timestamp::from_nanosecond(nanosecond).unwrap()
    }

    #[test]
    fn message_has_the_same_names_at_each_delivery() {
        let source_id = SourceId::new("stan", &["faas-cluster", "faas-request"], "faas-request");
        let message = source_id.message(7, at(1_795_515_072_123_456_789));
        assert_eq!(message, source_id.clone().message(7, at(1_795_515_072_123_456_789)));
        assert_eq!(
            message.record_key(),
            "18108d0fe0cc.7.1795515072123456789",
            "a contract between versions"
        );
        assert_eq!(
            message.idempotency_key().unwrap().as_str(),
            "drain.18108d0fe0cc.7.1795515072123456789"
        );
        assert_eq!(message.call_id().unwrap().as_str(), "drain-18108d0fe0cc-7-1795515072123456789");
        assert_eq!(source_id.subject(&message), "stan.faas-request.1795515072123456789");
    }

    #[test]
    fn other_message_has_other_names() {
        let source_id = SourceId::new("stan", &["faas-cluster", "faas-request"], "faas-request");
        let key = source_id.message(7, at(1)).record_key();
        // A server that kept its messages in memory starts at 1 again.
        assert_ne!(source_id.message(7, at(2)).record_key(), key);
        assert_ne!(source_id.message(8, at(1)).record_key(), key);
        for (kind, parts) in [
            ("stan", ["faas-cluster", "other"]),
            ("stan", ["faas-clusterfaas", "-request"]),
            ("jetstream", ["faas-cluster", "faas-request"]),
        ] {
            let other = SourceId::new(kind, &parts, "faas-request");
            assert_ne!(other.message(7, at(1)).record_key(), key, "{kind} {parts:?}");
        }
    }
}
