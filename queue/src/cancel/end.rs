//! A call that is being given up may be cancelled meanwhile. Which of the two it is, is written down before anything is done,
//! in the call's tombstone: the first counts, and the other does as the first says.

use async_nats::jetstream::{Context, context::PublishErrorKind, message::PublishMessage};

use super::{BUCKET, StoredCall, tombstone_key};
use crate::{
    name::QueueName,
    peek::{NatsError, failed, last_message},
    submit::is_taken,
};

/// Attempts to write. Each that fails has found the tombstone of another call with the id, written just then.
const TRIES: usize = 10;

/// An end that a call has not come to by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Somebody did not want it any more.
    Cancelled,
    /// Its worker has no attempt left for it.
    Dead,
}

/// Ends a call in this way, unless it has ended in the other, and returns how it has; `None` where there is no bucket, or no
/// server leads it now. A repeat is safe.
pub(super) async fn end(
    js: &Context,
    queue: &QueueName,
    call: &StoredCall,
    end: End,
) -> Result<Option<End>, NatsError> {
    let stream = format!("KV_{}", BUCKET.name);
    let subject = format!("$KV.{}.{}", BUCKET.name, tombstone_key(queue, &call.id));
    let mut expected = 0;
    for _ in 0..TRIES {
        let tombstone = PublishMessage::build()
            .payload(end.text(call.sequence).into())
            .expected_last_subject_sequence(expected);
        let written = async { js.send_publish(subject.clone(), tombstone).await?.await };
        match written.await {
            Ok(_) => return Ok(Some(end)),
            Err(error) if is_taken(&error) => {}
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => return Ok(None),
            Err(error) => return Err(failed("write the tombstone")(error)),
        }
        let other = last_message(js, &stream, &subject).await?;
        match other.as_ref().and_then(|other| End::read(&other.payload)) {
            Some((end, sequence)) if sequence == call.sequence => return Ok(Some(end)),
            _ => expected = other.map_or(0, |other| other.sequence),
        }
    }
    Err(failed("write the tombstone")("others with the same id were written each time"))
}

// === impl End ===

impl End {
    /// What is written of a call at this sequence.
    fn text(self, sequence: u64) -> String {
        match self {
            Self::Cancelled => sequence.to_string(),
            Self::Dead => format!("dead {sequence}"),
        }
    }

    /// Reads that.
    fn read(text: &[u8]) -> Option<(Self, u64)> {
        let text = std::str::from_utf8(text).ok()?;
        let (end, sequence) = match text.strip_prefix("dead ") {
            Some(sequence) => (Self::Dead, sequence),
            None => (Self::Cancelled, text),
        };
        Some((end, sequence.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::read_tombstone;

    #[test]
    fn what_is_written_is_read_and_only_a_cancelled_call_has_a_tombstone_for_those_who_follow() {
        let queue = "q".parse().unwrap();
        let follow = |text: &str| read_tombstone(&queue, "q.id-1", text.as_bytes()).map(|call| call.sequence);
        assert_eq!(End::read(End::Cancelled.text(7).as_bytes()), Some((End::Cancelled, 7)));
        assert_eq!(End::read(End::Dead.text(7).as_bytes()), Some((End::Dead, 7)));
        assert_eq!(follow(&End::Cancelled.text(7)), Some(7));
        assert_eq!(follow(&End::Dead.text(7)), None);
        for other in ["", "dead", "dead x", "7 dead", "\u{fc}"] {
            assert_eq!(End::read(other.as_bytes()), None, "{other}");
        }
    }
}
