//! Follows a KV bucket without a watch: entry by entry over the JSON API.
//!
//! A watch delivers all entries, and an entry that the client can't read ([`crate::raw_message`])
//! closes the connection each time. Such an entry can't be removed from a bucket: the bucket
//! refuses deletions, and the key can't be named. So if the connection is lost repeatedly, the
//! bucket is polled for a while, and such entries are skipped.

use std::time::Duration;

use async_nats::jetstream::Context;
use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::{
    jetstream::NatsError,
    kv::Bucket,
    raw_message::{RawMessage, next_raw_message},
};

/// How long a bucket is polled before it is watched again.
const POLL_DURATION: Duration = Duration::from_secs(10 * 60);

/// Interval between checks for new entries.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Name of the header of an entry that removes a key, and its values.
const OPERATION: &str = "KV-Operation";
const REMOVALS: [&str; 2] = ["DEL", "PURGE"];

/// What polling a bucket finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PollEvent {
    /// An entry. Without a value, it was removed.
    Entry(String, Option<Bytes>),
    /// All existing entries were read.
    Current,
}

/// Polls the keys of a bucket that match a filter, for ten minutes or until NATS does not answer.
pub async fn poll_bucket(
    js: &Context,
    bucket: &Bucket,
    filter: &str,
    mut handle: impl FnMut(PollEvent),
) {
    warn!(bucket = bucket.name, "the connection to NATS is closed repeatedly: polling the bucket");
    let (stream, filter, ends_at) =
        (bucket.stream(), bucket.subject(filter), Instant::now() + POLL_DURATION);
    let mut next = 1;
    while Instant::now() < ends_at {
        match read_new(js, bucket, &stream, &filter, &mut next, &mut handle).await {
            Ok(()) => handle(PollEvent::Current),
            Err(error) => {
                return debug!(bucket = bucket.name, %error, "failed to poll the bucket");
            }
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Reads the entries from a sequence on.
async fn read_new(
    js: &Context,
    bucket: &Bucket,
    stream: &str,
    filter: &str,
    next: &mut u64,
    handle: &mut impl FnMut(PollEvent),
) -> Result<(), NatsError> {
    while let Some(message) = next_raw_message(js, stream, filter, *next).await? {
        *next = message.sequence + 1;
        match entry(bucket, message) {
            Ok((key, value)) => handle(PollEvent::Entry(key, value)),
            Err(why) => warn!(bucket = bucket.name, "skipped an entry: its {why}"),
        }
    }
    Ok(())
}

/// Returns key and value of an entry, if the client can read it.
fn entry(bucket: &Bucket, message: RawMessage) -> Result<(String, Option<Bytes>), String> {
    let headers = message.read_headers()?;
    let removes =
        headers.get(OPERATION).is_some_and(|operation| REMOVALS.contains(&operation.as_str()));
    let key = message.subject.strip_prefix(&bucket.subject("")).unwrap_or_default().to_owned();
    Ok((key, (!removes).then_some(message.payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_a_key_and_a_value_or_is_removed() {
        let bucket = Bucket { name: "b", description: "", max_age: None };
        let message = |subject: &str, headers: &str| RawMessage {
            sequence: 1,
            stored_at: jiff::Timestamp::UNIX_EPOCH,
            subject: subject.to_owned(),
            headers: headers.as_bytes().to_owned(),
            payload: "v".into(),
        };
        assert_eq!(
            entry(&bucket, message("$KV.b.a.b", "")),
            Ok(("a.b".to_owned(), Some("v".into())))
        );
        for removal in REMOVALS {
            let headers = format!("NATS/1.0\r\nKV-Operation: {removal}\r\n\r\n");
            assert_eq!(entry(&bucket, message("$KV.b.a", &headers)), Ok(("a".to_owned(), None)));
        }
        assert!(entry(&bucket, message("$KV.b.\u{fffd}", "")).is_err());
        assert!(entry(&bucket, message("$KV.b.a", "garbage")).is_err());
    }
}
