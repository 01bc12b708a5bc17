//! Reads the dead letters of a stream, oldest first.
//!
//! They are delivered without their payloads, in batches. A letter that the client can't read
//! ([`crate::raw_message`]) closes the connection. Then all are read one by one, over the JSON API.

use std::{collections::BTreeSet, time::Duration};

use async_nats::{
    Client,
    jetstream::{
        Message,
        consumer::{AckPolicy, DeliverPolicy, pull},
    },
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::iter};
use tokio::time::{sleep, timeout};

use super::{DeadLetters, LetterPage};
use crate::{
    connection::Connection,
    jetstream::{NatsError, timestamp_from_server},
    message::dead_letter::{DeadLetter, RawDeadLetter},
    raw_message::{RawMessage, next_raw_message},
};

/// Number of letters in a batch: few enough that their headers are read while the next ones are in
/// transit.
const MAX_BATCH: usize = 500;

/// Maximum time of a batch. Its messages are not acknowledged: those lost with a broken connection
/// are not redelivered.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of payloads that are requested concurrently, each in a round trip.
const MAX_CONCURRENT_READS: usize = 16;

/// How long the server keeps the consumer of a reader that has disconnected.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);

/// Interval between checks whether the connection was closed.
const CONNECTION_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The action that error messages name.
const ACTION: &str = "list the dead letters";

impl DeadLetters {
    /// Reads all letters on these subjects that are there now; an empty set means all subjects.
    /// Calls that die during the scan, perhaps after a replay, are left out, so that the scan ends.
    /// If the stream has a letter that can't be read, letters on other subjects are returned too.
    pub(super) async fn scan(
        &self,
        subjects: BTreeSet<String>,
    ) -> Result<Vec<DeadLetter>, NatsError> {
        let last =
            self.stream.get_info().await.map_err(NatsError::during(ACTION))?.state.last_sequence;
        let client = self.js.client();
        let before = Connection::current(&client);
        let delivered = tokio::select! {
            delivered = self.scan_deliveries(subjects, last) => delivered,
            () = closed(&client, &before) => return self.scan_one_by_one(last).await,
        };
        match delivered {
            Err(_) if Connection::current(&client).is_another_to_the_same_server(&before) => {
                self.scan_one_by_one(last).await
            }
            delivered => delivered,
        }
    }

    async fn scan_deliveries(
        &self,
        subjects: BTreeSet<String>,
        last: u64,
    ) -> Result<Vec<DeadLetter>, NatsError> {
        let consumer = pull::Config {
            description: Some("Lists dead letters".to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            filter_subjects: subjects.into_iter().collect(),
            headers_only: true,
            memory_storage: true,
            inactive_threshold: INACTIVE_THRESHOLD,
            ..pull::Config::default()
        };
        let consumer =
            self.stream.create_consumer(consumer).await.map_err(NatsError::during(ACTION))?;
        let mut letters = Vec::new();
        loop {
            let batch = consumer
                .fetch()
                .max_messages(MAX_BATCH)
                .messages()
                .await
                .map_err(NatsError::during(ACTION))?;
            let batch: Vec<Message> = timeout(BATCH_TIMEOUT, batch.try_collect())
                .await
                .map_err(NatsError::during(ACTION))?
                .map_err(NatsError::during(ACTION))?;
            let whole = batch.len() == MAX_BATCH;
            let read: Vec<DeadLetter> = iter(batch)
                .map(|message| self.read_headers(message))
                .buffered(MAX_CONCURRENT_READS)
                .try_collect()
                .await?;
            letters.extend(read);
            if !whole || letters.last().is_some_and(|letter| letter.sequence >= last) {
                break;
            }
        }
        letters.retain(|letter| letter.sequence <= last);
        // The server would delete it after a while anyway.
        let _ = self.stream.delete_consumer(&consumer.cached_info().name).await;
        Ok(letters)
    }

    /// Reads the letters from a sequence on, at most `max` and about `max_bytes`, on subjects that
    /// match a filter. Needs no consumer, and so no permission to create one.
    #[doc(hidden)]
    pub async fn page(
        &self,
        filter: &str,
        from: u64,
        max: usize,
        max_bytes: usize,
    ) -> Result<LetterPage, NatsError> {
        let stream = self.queue.dead_letter_stream();
        let (mut page, mut bytes, mut next) = (LetterPage::default(), 0, from.max(1));
        while let Some(message) = next_raw_message(&self.js, &stream, filter, next).await? {
            if page.letters.len() >= max || bytes >= max_bytes {
                page.next = Some(message.sequence);
                break;
            }
            next = message.sequence + 1;
            bytes += message.payload.len();
            page.letters.push(self.read_raw(&message));
        }
        Ok(page)
    }

    async fn scan_one_by_one(&self, last: u64) -> Result<Vec<DeadLetter>, NatsError> {
        let stream = self.queue.dead_letter_stream();
        let (mut letters, mut next) = (Vec::new(), 1);
        while let Some(message) = next_raw_message(&self.js, &stream, ">", next).await?
            && message.sequence <= last
        {
            next = message.sequence + 1;
            letters.push(self.read_raw(&message));
        }
        Ok(letters)
    }

    pub(super) fn read_raw(&self, message: &RawMessage) -> DeadLetter {
        let read = message.read_headers();
        let headers = read.as_ref().cloned().unwrap_or_default();
        let stored = RawDeadLetter {
            queue: &self.queue,
            subject: &message.subject,
            sequence: message.sequence,
            stored_at: message.stored_at,
            headers: &headers,
            payload: &message.payload,
        };
        match read {
            Ok(_) => stored.read(&self.namespace).0,
            Err(why) => stored.unreadable(&why),
        }
    }

    /// Returns the message at a sequence as it is stored; `None` if it is no longer there.
    pub(super) async fn raw_message(&self, sequence: u64) -> Result<Option<RawMessage>, NatsError> {
        let message =
            next_raw_message(&self.js, &self.queue.dead_letter_stream(), ">", sequence).await?;
        Ok(message.filter(|message| message.sequence == sequence))
    }

    /// Reads a message that was delivered without its payload, and fetches the payload if it is
    /// needed.
    async fn read_headers(&self, message: Message) -> Result<DeadLetter, NatsError> {
        let info = message.info().map_err(NatsError::during(ACTION))?;
        let headers = message.headers.clone().unwrap_or_default();
        let stored = RawDeadLetter {
            queue: &self.queue,
            subject: &message.subject,
            sequence: info.stream_sequence,
            stored_at: timestamp_from_server(info.published),
            headers: &headers,
            payload: &Bytes::new(),
        };
        if !stored.identified_by_headers()
            && let Some(whole) = self.message(info.stream_sequence).await?
        {
            return Ok(self.read_whole(&whole).0);
        }
        Ok(stored.read(&self.namespace).0)
    }
}

/// Waits until a connection was closed and there is another one to the same server.
async fn closed(client: &Client, before: &Connection) {
    while !Connection::current(client).is_another_to_the_same_server(before) {
        sleep(CONNECTION_CHECK_INTERVAL).await;
    }
}
