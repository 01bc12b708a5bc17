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

use super::identity::Identity;

/// The KV bucket, with one key for each message that is drained.
const BUCKET: Bucket = Bucket {
    name: "asyncqueue-drained",
    description: "messages that were drained from queues of OpenFaaS",
    // A drain that was interrupted is run again within days.
    max_age: Some(Duration::from_secs(7 * 24 * 3600)),
};

/// The key that is written to get the server's time.
const CLOCK: &str = "clock";

const BEGUN: &str = "begun";
const STORED: &str = "stored";
const DEAD: &str = "dead";

/// The record of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// There was no record, or only one of this run, which has not sent the message yet. The
    /// message was never stored.
    New,
    /// A drain began to store it at this time, and it is not known whether that succeeded.
    Begun(Timestamp),
    /// It was stored, as a call or as a dead letter.
    Ended,
}

/// How a message ended in AsyncQueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As a call.
    Stored,
    /// As a dead letter.
    Dead,
}

/// The records, and the time of the server that stores them.
#[derive(Debug)]
pub(super) struct Records {
    store: Store,
    /// The value that this run writes for a message that it begins to store.
    begun: String,
    /// The server's time, at the moment when it was requested.
    server_time: Timestamp,
    asked_at: Instant,
}

impl Records {
    /// Opens the bucket, and creates it if it does not exist.
    pub(super) async fn open(js: &Context) -> anyhow::Result<Self> {
        let store = BUCKET.ensure(js, replicas(js).await).await?;
        let failed = || format!("failed to write the KV bucket {}", BUCKET.name);
        store.put(CLOCK, "".into()).await.with_context(failed)?;
        let asked_at = Instant::now();
        let clock = store.entry(CLOCK).await.with_context(failed)?.with_context(failed)?;
        // Unique, as inboxes are.
        let begun = format!("{BEGUN} {}", js.client().new_inbox());
        Ok(Self { store, begun, server_time: timestamp_from_server(clock.created), asked_at })
    }

    /// Returns the server's time, which the records have as their time. The clock of this machine
    /// may be wrong.
    pub(super) fn now(&self) -> Timestamp {
        self.server_time.saturating_add(self.asked_at.elapsed()).unwrap_or(self.server_time)
    }

    /// Records that a message is about to be stored, unless there is a record of it. If this is
    /// repeated because the server did not answer, it finds its own record.
    pub(super) async fn begin(&self, message: &Identity) -> anyhow::Result<Record> {
        let key = message.record_key();
        match self.store.create(&key, self.begun.clone().into()).await {
            Ok(_) => return Ok(Record::New),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context("failed to record a message"),
        }
        let entry =
            self.store.entry(&key).await.context("failed to read the record of a message")?;
        // It has just expired.
        let Some(entry) = entry else { return Ok(Record::New) };
        Ok(read(&entry.value, timestamp_from_server(entry.created), &self.begun))
    }

    /// Removes the record that a message is about to be stored.
    pub(super) async fn withdraw(&self, message: &Identity) -> anyhow::Result<()> {
        self.store.delete(message.record_key()).await.context("failed to take a record back")
    }

    /// Records how a message ended.
    pub(super) async fn end(&self, message: &Identity, end: End) -> anyhow::Result<()> {
        let value = match end {
            End::Stored => STORED,
            End::Dead => DEAD,
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
fn read(value: &[u8], written_at: Timestamp, own: &str) -> Record {
    if value == own.as_bytes() {
        Record::New
    } else if value.starts_with(BEGUN.as_bytes()) {
        Record::Begun(written_at)
    } else {
        Record::Ended
    }
}

/// Returns as many replicas as the directory has, or one if there is no directory.
async fn replicas(js: &Context) -> usize {
    let directory = js.get_stream(buckets::DIRECTORY.stream()).await;
    directory.map_or(1, |stream| stream.cached_info().config.num_replicas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_run_began_and_did_not_end_is_in_doubt() {
        let at = Timestamp::UNIX_EPOCH;
        assert_eq!(read(b"begun 1", at, "begun 1"), Record::New);
        assert_eq!(read(b"begun 2", at, "begun 1"), Record::Begun(at));
        for value in [&b"stored"[..], b"dead", b"", b"of the future"] {
            assert_eq!(read(value, at, "begun 1"), Record::Ended);
        }
    }
}
