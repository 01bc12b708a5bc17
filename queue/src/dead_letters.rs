//! The dead letters of a queue: listed, read, [replayed](DeadLetters::replay) and deleted.

use std::{collections::BTreeSet, time::Duration};

use async_nats::jetstream::{
    Context, ErrorCode, Message,
    consumer::{AckPolicy, DeliverPolicy, pull},
    context::{GetStreamError, GetStreamErrorKind},
    message::StreamMessage,
    stream::{DirectGetErrorKind, Info, Stream},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::iter};
use tokio::time::timeout;

use crate::{
    call_id::CallId,
    message::dead_letter::{Content, DeadLetter, Stored, UNKNOWN},
    name::{FunctionName, QueueName},
    peek::{NatsError, failed},
    remove::remove,
    timestamp::from_server,
};

pub use replay::{ReplayError, Replayed};

mod replay;

/// Letters that are asked for at once: few enough that their headers are read while the next are on their way.
const BATCH: usize = 500;

/// How long a batch may take. Its messages are not acknowledged: lost with a broken connection, they don't come again.
const BATCH_TIME: Duration = Duration::from_secs(10);

/// Payloads that are asked for at once, each a round trip.
const READS: usize = 16;

/// How long the server keeps the list of a reader that is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Which dead letters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// Those of one function.
    Function(FunctionName),
    /// Those of these calls.
    Calls(Vec<CallId>),
}

/// The dead letters of one queue.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    js: Context,
    queue: QueueName,
    stream: Stream<Info>,
    namespace: String,
}

/// Why the dead letters of a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no stream of dead letters.
    #[error("queue `{queue}` has no dead letters: there is no stream `{}`", .queue.dead_letter_stream())]
    NoStream {
        /// The queue.
        queue: QueueName,
    },
    /// NATS is away or refused.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

// === impl Selection ===

impl Selection {
    fn has(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::Function(function) => letter.function.as_ref() == Some(function),
            Self::Calls(calls) => calls.contains(&letter.call_id),
        }
    }

    /// The subjects that its letters have on the stream of dead letters, if the message's own named the call; none
    /// for all.
    fn subjects(&self, stream: &str) -> BTreeSet<String> {
        match self {
            Self::All => BTreeSet::new(),
            Self::Function(function) => {
                BTreeSet::from([format!("{stream}.{}.{}.*", function.namespace(), function.name())])
            }
            Self::Calls(calls) => calls.iter().map(|call| format!("{stream}.*.*.{call}")).collect(),
        }
    }
}

// === impl DeadLetters ===

impl DeadLetters {
    /// Opens the dead letters of a queue. `namespace` is that of a function which is named without one.
    pub async fn open(
        js: &Context,
        queue: &QueueName,
        namespace: impl Into<String>,
    ) -> Result<Self, OpenError> {
        match js.get_stream(queue.dead_letter_stream()).await {
            Ok(stream) => {
                Ok(Self { js: js.clone(), queue: queue.clone(), stream, namespace: namespace.into() })
            }
            Err(error) if is_missing(&error) => Err(OpenError::NoStream { queue: queue.clone() }),
            Err(error) => Err(failed("open the stream of dead letters")(error).into()),
        }
    }

    /// How many there were when they were opened.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.stream.cached_info().state.messages
    }

    /// The dead letters that are meant and are there now, oldest first. Reads headers alone, and the payload only of
    /// the `OpenFaaS` form, which names its call in there.
    pub async fn list(&self, which: &Selection) -> Result<Vec<DeadLetter>, NatsError> {
        let stream = self.queue.dead_letter_stream();
        let mut letters = self.scan(which.subjects(&stream)).await?;
        letters.retain(|letter| which.has(letter));
        // A message that had its queue's own subject is found by what it says alone.
        let missing = match which {
            Selection::All => false,
            Selection::Function(_) => true,
            Selection::Calls(calls) => {
                !calls.iter().all(|call| letters.iter().any(|letter| letter.call_id == *call))
            }
        };
        if missing {
            let unnamed = self.scan(BTreeSet::from([format!("{stream}.{UNKNOWN}.{UNKNOWN}.*")])).await?;
            letters.extend(unnamed.into_iter().filter(|letter| which.has(letter)));
            letters.sort_by_key(|letter| letter.sequence);
            letters.dedup_by_key(|letter| letter.sequence);
        }
        Ok(letters)
    }

    /// What a dead letter holds; `None` if it is no longer there.
    pub async fn content(&self, letter: &DeadLetter) -> Result<Option<Content>, NatsError> {
        let Some(message) = self.message(letter.sequence).await? else { return Ok(None) };
        Ok(Some(self.read_whole(&message).1))
    }

    /// Deletes a dead letter, and returns whether it was there.
    pub async fn delete(&self, letter: &DeadLetter) -> Result<bool, NatsError> {
        remove(&self.js, &self.queue.dead_letter_stream(), letter.sequence, "delete the dead letter").await
    }

    /// Deletes all, and returns how many.
    pub async fn delete_all(&self) -> Result<u64, NatsError> {
        let purged = self.stream.purge().await.map_err(failed("delete the dead letters"))?;
        Ok(purged.purged)
    }

    /// All letters on these subjects, or on any if there are none, that are there now. What dies meanwhile, perhaps because it was replayed, is left
    /// out: there is an end.
    async fn scan(&self, subjects: BTreeSet<String>) -> Result<Vec<DeadLetter>, NatsError> {
        let action = "list the dead letters";
        let last = self.stream.get_info().await.map_err(failed(action))?.state.last_sequence;
        let consumer = pull::Config {
            description: Some("Lists dead letters".to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            filter_subjects: subjects.into_iter().collect(),
            headers_only: true,
            memory_storage: true,
            inactive_threshold: FORGOTTEN_AFTER,
            ..pull::Config::default()
        };
        let consumer = self.stream.create_consumer(consumer).await.map_err(failed(action))?;
        let mut letters = Vec::new();
        loop {
            let batch = consumer.fetch().max_messages(BATCH).messages().await.map_err(failed(action))?;
            let batch: Vec<Message> = timeout(BATCH_TIME, batch.try_collect())
                .await
                .map_err(failed(action))?
                .map_err(failed(action))?;
            let whole = batch.len() == BATCH;
            let read: Vec<DeadLetter> =
                iter(batch).map(|message| self.read_headers(message)).buffered(READS).try_collect().await?;
            letters.extend(read);
            if !whole || letters.last().is_some_and(|letter| letter.sequence >= last) {
                break;
            }
        }
        letters.retain(|letter| letter.sequence <= last);
        // It would be gone in a while by itself.
        let _ = self.stream.delete_consumer(&consumer.cached_info().name).await;
        Ok(letters)
    }

    /// Reads a message that was delivered without its payload; fetches that if it is needed.
    async fn read_headers(&self, message: Message) -> Result<DeadLetter, NatsError> {
        let info = message.info().map_err(failed("list the dead letters"))?;
        let headers = message.headers.clone().unwrap_or_default();
        let stored = Stored {
            queue: &self.queue,
            subject: &message.subject,
            sequence: info.stream_sequence,
            stored_at: from_server(info.published),
            headers: &headers,
            payload: &Bytes::new(),
        };
        if !stored.is_told_by_headers()
            && let Some(whole) = self.message(info.stream_sequence).await?
        {
            return Ok(self.read_whole(&whole).0);
        }
        Ok(stored.read(&self.namespace).0)
    }

    fn read_whole(&self, message: &StreamMessage) -> (DeadLetter, Content) {
        let stored = Stored {
            queue: &self.queue,
            subject: &message.subject,
            sequence: message.sequence,
            stored_at: from_server(message.time),
            headers: &message.headers,
            payload: &message.payload,
        };
        stored.read(&self.namespace)
    }

    async fn message(&self, sequence: u64) -> Result<Option<StreamMessage>, NatsError> {
        // Not by `get_raw_message`: of headers with one name, as each HTTP header is, that keeps the last alone.
        match self.stream.direct_get(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read the dead letter")(error)),
        }
    }
}

fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_looked_for_where_their_subjects_put_them() {
        let subjects = |which: &Selection| Vec::from_iter(which.subjects("jobs-dead"));
        let function = FunctionName::new("figlet", "dev").unwrap();
        let calls = ["b", "a", "a"].map(|id| id.parse().unwrap()).into();
        assert!(subjects(&Selection::All).is_empty());
        assert_eq!(subjects(&Selection::Function(function)), ["jobs-dead.dev.figlet.*"]);
        assert_eq!(subjects(&Selection::Calls(calls)), ["jobs-dead.*.*.a", "jobs-dead.*.*.b"]);
    }
}
