//! What a message is known by, for as long as its source may deliver it again.
//!
//! A sequence alone is not enough: NATS Streaming that keeps messages in memory, as OpenFaaS
//! installs it, begins at 1 again when it restarts. The time at which the source stored the message
//! tells the two apart.

use anyhow::Context;
use asyncqueue::{CallId, IdempotencyKey};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// Bytes of the hash of a source that are kept: enough to tell a few sources apart.
const KEPT: usize = 6;

/// Where messages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// A hash of what names the source, as a token of a subject.
    token: String,
    /// The source for people: `stan.faas-request`.
    label: String,
}

/// One message of a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    origin: String,
    /// Its sequence there.
    pub(super) sequence: u64,
    /// When it was stored there.
    pub(super) stored_at: Timestamp,
}

// === impl Origin ===

impl Origin {
    /// The source of a kind that these parts name.
    pub(super) fn new(kind: &str, parts: &[&str], shown: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [kind].iter().chain(parts) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let token = hex::encode(&hash.finalize()[..KEPT]);
        Self { token, label: format!("{kind}.{shown}") }
    }

    /// A message of it.
    pub(super) fn message(&self, sequence: u64, stored_at: Timestamp) -> Identity {
        Identity { origin: self.token.clone(), sequence, stored_at }
    }

    /// The source for people.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The subject that a dead letter names as that of its message. No stream of a queue has it, so
    /// that the sequence is not taken for one of the queue's stream.
    pub(super) fn subject(&self, message: &Identity) -> String {
        format!("{}.{}", self.label, message.stored_at.as_nanosecond())
    }
}

// === impl Identity ===

impl Identity {
    /// The key of what is recorded of it.
    pub(super) fn record_key(&self) -> String {
        format!("{}.{}.{}", self.origin, self.sequence, self.stored_at.as_nanosecond())
    }

    /// The key by which its queue knows it as stored.
    pub(super) fn idempotency_key(&self) -> anyhow::Result<IdempotencyKey> {
        format!("drain.{}", self.record_key()).parse().context("failed to name the message")
    }

    /// The id of a call whose client sent none.
    pub(super) fn call_id(&self) -> anyhow::Result<CallId> {
        format!("drain-{}-{}-{}", self.origin, self.sequence, self.stored_at.as_nanosecond())
            .parse()
            .context("failed to name the call")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanosecond: i128) -> Timestamp {
        Timestamp::from_nanosecond(nanosecond).unwrap()
    }

    #[test]
    fn a_message_has_the_same_names_at_each_delivery() {
        let origin = Origin::new("stan", &["faas-cluster", "faas-request"], "faas-request");
        let message = origin.message(7, at(1_795_515_072_123_456_789));
        assert_eq!(message, origin.clone().message(7, at(1_795_515_072_123_456_789)));
        assert_eq!(message.record_key(), "18108d0fe0cc.7.1795515072123456789", "a contract between versions");
        assert_eq!(message.idempotency_key().unwrap().as_str(), "drain.18108d0fe0cc.7.1795515072123456789");
        assert_eq!(message.call_id().unwrap().as_str(), "drain-18108d0fe0cc-7-1795515072123456789");
        assert_eq!(origin.subject(&message), "stan.faas-request.1795515072123456789");
    }

    #[test]
    fn another_message_has_other_names() {
        let origin = Origin::new("stan", &["faas-cluster", "faas-request"], "faas-request");
        let key = origin.message(7, at(1)).record_key();
        // A server that kept its messages in memory counts from 1 again.
        assert_ne!(origin.message(7, at(2)).record_key(), key);
        assert_ne!(origin.message(8, at(1)).record_key(), key);
        for (kind, parts) in [
            ("stan", ["faas-cluster", "other"]),
            ("stan", ["faas-clusterfaas", "-request"]),
            ("jetstream", ["faas-cluster", "faas-request"]),
        ] {
            let other = Origin::new(kind, &parts, "faas-request");
            assert_ne!(other.message(7, at(1)).record_key(), key, "{kind} {parts:?}");
        }
    }
}
