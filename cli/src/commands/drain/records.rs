//! Records the state of each message in the NATS that stores it. A drain that was interrupted can
//! then be run again, even after the server has forgotten the ids of messages.
//!
//! Before a message is stored, the record `begun` with the id of the run is written. Before the
//! message is acknowledged at its source, `stored` or `dead` is written. A message without a record
//! was never stored.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::{
    Context,
    kv::{CreateErrorKind, Store},
};
use asyncqueue::{buckets, jetstream::timestamp_from_server, kv::Bucket};
use jiff::Timestamp;
use tokio::time::Instant;

use super::identity::MessageIdentity;

/// The KV bucket, with one key for each message that is drained.
const BUCKET: Bucket = Bucket {
    name: "asyncqueue-drained",
    description: "messages that were drained from queues of OpenFaaS",
    // A drain that was interrupted is run again within days.
    max_age: Some(Duration::from_secs(7 * 24 * 3600)),
};

/// The key that is written to get the server's time.
const CLOCK_KEY: &str = "clock";

const BEGUN: &str = "begun";
const STORED: &str = "stored";
const DEAD: &str = "dead";

/// The record of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferState {
    /// There was no record, or only one of this run, which has not sent the message yet. The
    /// message was never stored.
    New,
    /// A drain began to store it at this time, and it is not known whether that succeeded.
    Uncertain(Timestamp),
    /// It was stored, as a call or as a dead letter.
    Finished,
}

/// How a message ended in AsyncQueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredAs {
    /// As a call.
    Call,
    /// As a dead letter.
    DeadLetter,
}

/// The records, and the time of the server that stores them.
#[derive(Debug)]
pub(super) struct TransferRecords {
    store: Store,
    /// The value that this run writes for a message that it begins to store.
    in_progress: String,
    /// The server's time, at the moment when it was requested.
    server_time: Timestamp,
    requested_at: Instant,
}

impl TransferRecords {
    /// Opens the bucket, and creates it if it does not exist.
    pub(super) async fn open(js: &Context) -> anyhow::Result<Self> {
        let store = BUCKET.ensure(js, directory_replicas(js).await).await?;
        let failed = || format!("failed to write the KV bucket {}", BUCKET.name);
        store.put(CLOCK_KEY, "".into()).await.with_context(failed)?;
        let requested_at = Instant::now();
        let clock = store.entry(CLOCK_KEY).await.with_context(failed)?.with_context(failed)?;
        // Unique, as inboxes are.
        let in_progress = format!("{BEGUN} {}", js.client().new_inbox());
        Ok(Self {
            store,
            in_progress,
            server_time: timestamp_from_server(clock.created),
            requested_at,
        })
    }

    /// Returns the server's time, which the records have as their time. The clock of this machine
    /// may be wrong.
    pub(super) fn now(&self) -> Timestamp {
        self.server_time.saturating_add(self.requested_at.elapsed()).unwrap_or(self.server_time)
    }

    /// Records that a message is about to be stored, unless there is a record of it. If this is
    /// repeated because the server did not answer, it finds its own record.
    pub(super) async fn begin(&self, message: &MessageIdentity) -> anyhow::Result<TransferState> {
        let key = message.record_key();
        match self.store.create(&key, self.in_progress.clone().into()).await {
            Ok(_) => return Ok(TransferState::New),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context("failed to record a message"),
        }
        let entry =
            self.store.entry(&key).await.context("failed to read the record of a message")?;
        // It has just expired.
        let Some(entry) = entry else { return Ok(TransferState::New) };
        Ok(parse(&entry.value, timestamp_from_server(entry.created), &self.in_progress))
    }

    /// Removes the record that a message is about to be stored.
    pub(super) async fn remove(&self, message: &MessageIdentity) -> anyhow::Result<()> {
        self.store
            .delete(message.record_key())
            .await
            .context("failed to remove the record of a message")
    }

    /// Records how a message ended.
    pub(super) async fn finish(
        &self,
        message: &MessageIdentity,
        stored_as: StoredAs,
    ) -> anyhow::Result<()> {
        let value = match stored_as {
            StoredAs::Call => STORED,
            StoredAs::DeadLetter => DEAD,
        };
        self.store
            .put(message.record_key(), value.into())
            .await
            .context("failed to record a message")?;
        Ok(())
    }
}

/// Parses a record, for the run that writes `own`. A value that is not known, perhaps from a later
/// version, counts as an end.
fn parse(value: &[u8], written_at: Timestamp, own: &str) -> TransferState {
    if value == own.as_bytes() {
        TransferState::New
    } else if value.starts_with(BEGUN.as_bytes()) {
        TransferState::Uncertain(written_at)
    } else {
        TransferState::Finished
    }
}

/// Returns as many replicas as the directory has, or one if there is no directory.
async fn directory_replicas(js: &Context) -> usize {
    let directory = js.get_stream(buckets::DIRECTORY.stream()).await;
    directory.map_or(1, |stream| stream.cached_info().config.num_replicas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_of_an_interrupted_run_is_uncertain() {
        let at = Timestamp::UNIX_EPOCH;
        assert_eq!(parse(b"begun 1", at, "begun 1"), TransferState::New);
        assert_eq!(parse(b"begun 2", at, "begun 1"), TransferState::Uncertain(at));
        for value in [&b"stored"[..], b"dead", b"", b"of the future"] {
            assert_eq!(parse(value, at, "begun 1"), TransferState::Finished);
        }
    }
}
