//! What is recorded of each message, on the NATS that it is stored on: for a drain that is
//! interrupted and run again after the server has forgotten the ids of messages.
//!
//! `begun` and the run that begins is written before a message is stored, and `stored` or `dead`
//! before it is acknowledged at its source. A message without a record was never stored.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::{
    Context,
    kv::{CreateErrorKind, Store},
};
use asyncqueue::{bucket::Bucket, directory, timestamp::from_server};
use jiff::Timestamp;
use tokio::time::Instant;

use super::identity::Identity;

/// The KV bucket: a key for each message that is drained.
const BUCKET: Bucket = Bucket {
    name: "asyncqueue-drained",
    description: "messages that were drained from queues of OpenFaaS",
    // A drain that is interrupted is run again within days.
    max_age: Some(Duration::from_secs(7 * 24 * 3600)),
};

/// Key that is written to learn the server's time.
const CLOCK: &str = "clock";

const BEGUN: &str = "begun";
const STORED: &str = "stored";
const DEAD: &str = "dead";

/// The record of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// There was no record, or one of this run, which has not sent the message yet: it was never
    /// stored.
    New,
    /// A drain began to store it at this time, and it is not known whether it did.
    Begun(Timestamp),
    /// It was stored, as a call or as a dead letter.
    Ended,
}

/// How a message ended here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As a call.
    Stored,
    /// As a dead letter.
    Dead,
}

/// The records, and the time of the server that keeps them.
#[derive(Debug)]
pub(super) struct Records {
    store: Store,
    /// What this run writes of a message that it begins to store.
    begun: String,
    /// The server's time, when it was asked.
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
        Ok(Self { store, begun, server_time: from_server(clock.created), asked_at })
    }

    /// The server's time: records are stamped with it, and the clock of this machine may be wrong.
    pub(super) fn now(&self) -> Timestamp {
        self.server_time.saturating_add(self.asked_at.elapsed()).unwrap_or(self.server_time)
    }

    /// Records that a message is about to be stored, unless there is a record of it. Repeated
    /// because the server did not answer, it finds its own record.
    pub(super) async fn begin(&self, message: &Identity) -> anyhow::Result<Record> {
        let key = message.record_key();
        match self.store.create(&key, self.begun.clone().into()).await {
            Ok(_) => return Ok(Record::New),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context("failed to record a message"),
        }
        let entry = self.store.entry(&key).await.context("failed to read the record of a message")?;
        // Gone just now, by its age.
        let Some(entry) = entry else { return Ok(Record::New) };
        Ok(read(&entry.value, from_server(entry.created), &self.begun))
    }

    /// Takes back that a message is about to be stored.
    pub(super) async fn withdraw(&self, message: &Identity) -> anyhow::Result<()> {
        self.store.delete(message.record_key()).await.context("failed to take a record back")
    }

    /// Records how a message ended.
    pub(super) async fn end(&self, message: &Identity, end: End) -> anyhow::Result<()> {
        let value = match end {
            End::Stored => STORED,
            End::Dead => DEAD,
        };
        self.store.put(message.record_key(), value.into()).await.context("failed to record a message")?;
        Ok(())
    }
}

/// Reads a record, for the run that writes `own`. What a later version may have written is an end.
fn read(value: &[u8], written_at: Timestamp, own: &str) -> Record {
    if value == own.as_bytes() {
        Record::New
    } else if value.starts_with(BEGUN.as_bytes()) {
        Record::Begun(written_at)
    } else {
        Record::Ended
    }
}

/// As many copies as the directory has; one if there is no directory.
async fn replicas(js: &Context) -> usize {
    let directory = js.get_stream(directory::BUCKET.stream()).await;
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
