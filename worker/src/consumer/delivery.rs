//! Reads a delivered message, and what the server says about the delivery.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use async_nats::{HeaderMap, Message};
use jiff::Timestamp;

/// The headers of a message that has no headers.
static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);

/// A delivered message.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// The message.
    pub(crate) message: Message,
    /// Number of deliveries of the message by its consumer, this one included.
    pub(crate) num_delivered: u64,
    /// Whether the message was never delivered before, as far as the number of deliveries and the
    /// age of the consumer say.
    pub(crate) is_first: bool,
    /// Sequence of the message in its stream.
    pub(crate) sequence: u64,
    /// Consumer sequence: the number of this delivery among those of its consumer.
    pub(crate) consumer_sequence: u64,
    /// Time at which the stream stored the message.
    pub(crate) stored_at: Timestamp,
    /// Time at which this worker read the message.
    pub(crate) received_at: Instant,
    /// Whether a renewal of the lease was not confirmed. The message may have been delivered again
    /// since then.
    pub(crate) has_unconfirmed_renewal: AtomicBool,
}

/// The numbers in the subject on which a delivery is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AckMetadata {
    num_delivered: u64,
    sequence: u64,
    consumer_sequence: u64,
    stored_at: i128,
}

// === impl Delivery ===

impl Delivery {
    /// Reads the delivery of a message. A message that did not come from a stream, which can't
    /// happen on a consumer's inbox, counts as delivered for the first time.
    pub(crate) fn from_message(message: Message) -> Self {
        let metadata = message.reply.as_ref().and_then(|subject| AckMetadata::parse(subject));
        let stored_at =
            metadata.and_then(|metadata| Timestamp::from_nanosecond(metadata.stored_at).ok());
        Self {
            message,
            num_delivered: metadata.map_or(1, |metadata| metadata.num_delivered),
            is_first: metadata.is_none_or(|metadata| metadata.num_delivered == 1),
            sequence: metadata.map_or(0, |metadata| metadata.sequence),
            consumer_sequence: metadata.map_or(0, |metadata| metadata.consumer_sequence),
            stored_at: stored_at.unwrap_or_else(Timestamp::now),
            received_at: Instant::now(),
            has_unconfirmed_renewal: AtomicBool::new(false),
        }
    }

    /// Takes into account when the consumer was created. A message that is older may have been
    /// delivered by an earlier consumer.
    pub(crate) fn consider_consumer(&mut self, created: Timestamp) {
        self.is_first &= self.stored_at > created;
    }

    /// Returns the consumer that delivered the message, and how many others it had then.
    pub(crate) fn lane(&self) -> Option<(&str, u64)> {
        let subject = self.message.reply.as_deref()?;
        let mut tokens = ack_tokens(subject)?;
        let consumer = tokens.next()?;
        Some((consumer, tokens.nth(4)?.parse().ok()?))
    }

    /// Returns whether each renewal of the lease was confirmed so far.
    pub(crate) fn is_lease_certain(&self) -> bool {
        !self.has_unconfirmed_renewal.load(Ordering::Relaxed)
    }

    /// Returns the headers of the message.
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.message.headers.as_ref().unwrap_or(&NO_HEADERS)
    }
}

// === impl AckMetadata ===

impl AckMetadata {
    /// Reads `$JS.ACK.<stream>.<consumer>.<count>.<sequence>.<number>.<time>.<pending>`. The long
    /// form has a domain and the hash of an account after `ACK`, and may have more tokens at its
    /// end (NATS ADR-15).
    ///
    /// The client library is not used for this: its message must hold a handle of its connection,
    /// which would be copied for each call.
    fn parse(subject: &str) -> Option<Self> {
        let mut tokens = ack_tokens(subject)?.skip(1);
        let mut next = || tokens.next()?.parse().ok();
        Some(Self {
            num_delivered: next()?,
            sequence: next()?,
            consumer_sequence: next()?,
            stored_at: tokens.next()?.parse().ok()?,
        })
    }
}

/// Returns the tokens of the subject on which a delivery is acknowledged, from the consumer on.
fn ack_tokens(subject: &str) -> Option<impl Iterator<Item = &str>> {
    /// Number of tokens of the short form, two of which come before the stream.
    const SHORT: usize = 9;
    /// Minimum number of tokens of the long form, four of which come before the stream.
    const LONG: usize = 11;
    let acknowledges = subject.strip_prefix("$JS.ACK.")?;
    let before_the_consumer = match 2 + acknowledges.split('.').count() {
        SHORT => 1,
        LONG.. => 3,
        _ => return None,
    };
    Some(acknowledges.split('.').skip(before_the_consumer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            subject: "q".into(),
            reply: None,
            payload: bytes::Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn each_form_of_the_subject_has_the_same_metadata() {
        let metadata = AckMetadata {
            num_delivered: 2,
            sequence: 1070,
            consumer_sequence: 1071,
            stored_at: 1_795_514_400_123_456_789,
        };
        for subject in [
            "$JS.ACK.q.q-workers.2.1070.1071.1795514400123456789.3",
            "$JS.ACK._.hash.q.q-workers.2.1070.1071.1795514400123456789.3",
            "$JS.ACK.hub.hash.q.q-workers.2.1070.1071.1795514400123456789.3.token",
        ] {
            assert_eq!(AckMetadata::parse(subject), Some(metadata), "{subject}");
        }
        for subject in [
            "",
            "_INBOX.1",
            "$JS.ACK.q.c.1.2.3.4",
            "$JS.ACK.q.c.x.2.3.4.5",
            "$JS.ACK.q.c.1.2.-3.4.5",
        ] {
            assert_eq!(AckMetadata::parse(subject), None, "{subject}");
        }
    }

    #[test]
    fn a_delivery_names_its_lane_and_what_is_pending() {
        for (reply, lane) in [
            ("$JS.ACK.q.q-fn-ns=f.2.1070.1071.1795514400123456789.3", Some(("q-fn-ns=f", 3))),
            ("$JS.ACK._.h.q.q-workers.2.10.11.1795514400123456789.0.t", Some(("q-workers", 0))),
            ("_INBOX.1", None),
        ] {
            let message = Message { reply: Some(reply.into()), ..message() };
            assert_eq!(Delivery::from_message(message).lane(), lane, "{reply}");
        }
    }

    #[test]
    fn a_message_from_no_stream_is_a_first_delivery() {
        let delivery = Delivery::from_message(message());
        assert_eq!(
            (delivery.num_delivered, delivery.sequence, delivery.headers().len()),
            (1, 0, 0)
        );
    }
}
