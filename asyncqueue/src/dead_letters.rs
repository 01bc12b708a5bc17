//! Lists, reads, [replays](DeadLetters::replay) and deletes the dead letters of a queue.

use std::collections::BTreeSet;

use async_nats::jetstream::{
    Context,
    message::StreamMessage,
    stream::{DirectGetErrorKind, Info, Stream},
};
use jiff::Timestamp;

use crate::{
    call_id::CallId,
    jetstream::{NatsError, delete_message, find_stream, timestamp_from_server},
    lanes::LaneEnsurer,
    message::dead_letter::{RawDeadLetter, UNKNOWN_TOKEN},
    names::{FunctionName, QueueName},
    subject::function_filter,
};

pub use replay::{ReplayError, ReplayOutcome};
#[doc(hidden)]
pub use store::store_once;

#[doc(inline)]
pub use crate::message::{
    DecodeError,
    callback::Callback,
    dead_letter::{DeadLetter, DeadLetterContent, DeadLetterKind, DeathInfo, Omitted, Origin},
};

mod replay;
mod scan;
mod store;

/// Selects dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All dead letters.
    All,
    /// The dead letters of one function.
    Function(FunctionName),
    /// The dead letters of these calls.
    Calls(Vec<CallId>),
}

/// Some of the dead letters of a queue, and where the next ones are.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct LetterPage {
    /// The letters, oldest first.
    pub letters: Vec<DeadLetter>,
    /// From which sequence on there are more letters; `None` at the end.
    pub next: Option<u64>,
}

/// The dead letters of one queue.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use asyncqueue::{
///     dead_letters::{DeadLetters, Selection},
///     directory::QueueEntry,
/// };
///
/// # let client = asyncqueue::async_nats::connect("nats://127.0.0.1:4222").await?;
/// # let js = asyncqueue::async_nats::jetstream::new(client);
/// let queue = "slow-queue".parse()?;
/// let letters = DeadLetters::open(&js, &queue, "openfaas-fn").await?;
/// let entry = QueueEntry::with_default_names(&queue);
/// for letter in letters.list(&Selection::All).await? {
///     println!("{}: {}", letter.call_id, letter.death.reason);
///     letters.replay(&letter, &entry).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetters {
    js: Context,
    queue: QueueName,
    stream: Stream<Info>,
    namespace: String,
    lanes: LaneEnsurer,
}

/// The dead letters of a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The stream of dead letters does not exist.
    #[error(
        "queue `{queue}` has no dead letters: there is no stream `{}`",
        .queue.dead_letter_stream()
    )]
    NoStream {
        /// Name of the queue.
        queue: QueueName,
    },
    /// NATS is unavailable or refused the request.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

// === impl Selection ===

impl Selection {
    fn matches(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::Function(function) => letter.function.as_ref() == Some(function),
            Self::Calls(calls) => calls.contains(&letter.call_id),
        }
    }

    /// Returns the subjects that the selected letters have on the stream of dead letters if the
    /// subjects of their messages named the call. Empty: all subjects.
    fn subjects(&self, stream: &str) -> BTreeSet<String> {
        match self {
            Self::All => BTreeSet::new(),
            Self::Function(function) => BTreeSet::from([function_filter(stream, Some(function))]),
            Self::Calls(calls) => calls.iter().map(|call| format!("{stream}.*.*.{call}")).collect(),
        }
    }
}

// === impl DeadLetters ===

impl DeadLetters {
    /// Opens the dead letters of a queue. `namespace` is the one of functions that are named
    /// without a namespace.
    pub async fn open(
        js: &Context,
        queue: &QueueName,
        namespace: impl Into<String>,
    ) -> Result<Self, OpenError> {
        match find_stream(js, &queue.dead_letter_stream()).await {
            Ok(Some(stream)) => Ok(Self {
                js: js.clone(),
                queue: queue.clone(),
                stream,
                namespace: namespace.into(),
                lanes: LaneEnsurer::new(js.clone()),
            }),
            Ok(None) => Err(OpenError::NoStream { queue: queue.clone() }),
            Err(error) => Err(NatsError::during("open the stream of dead letters")(error).into()),
        }
    }

    /// Returns how many dead letters there were when they were opened.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.stream.cached_info().state.messages
    }

    /// Returns the sequence number of the newest dead letter when they were opened. Together with
    /// [`count`](Self::count), it bounds what [`delete_up_to`](Self::delete_up_to) deletes.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.stream.cached_info().state.last_sequence
    }

    /// Returns the sequence number of the oldest dead letter when they were opened, or the next one
    /// if there was none.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.stream.cached_info().state.first_sequence
    }

    /// Returns when the stream of dead letters was created. It distinguishes streams of the same
    /// name.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        timestamp_from_server(self.stream.cached_info().created)
    }

    /// Returns how many sequence numbers between the oldest and the newest dead letter had one that
    /// is gone, when they were opened.
    #[must_use]
    pub fn deleted_count(&self) -> u64 {
        self.stream.cached_info().state.deleted_count.unwrap_or_default()
    }

    /// Returns the sequence numbers between the oldest and the newest dead letter whose letters
    /// are gone.
    #[doc(hidden)]
    pub async fn deleted_sequences(&self) -> Result<Vec<u64>, NatsError> {
        let info = self.stream.info_builder().with_deleted(true).fetch().await;
        let info = info.map_err(NatsError::during("list the deleted dead letters"))?.info;
        Ok(info.state.deleted.unwrap_or_default())
    }

    /// Returns the dead letter at a sequence number; `None` if it is no longer there.
    pub async fn letter(&self, sequence: u64) -> Result<Option<DeadLetter>, NatsError> {
        Ok(self.raw_message(sequence).await?.map(|message| self.read_raw(&message)))
    }

    /// Returns the selected dead letters that are there now, oldest first. Reads only headers; it
    /// reads the payload of the `OpenFaaS` form, because only the payload names the call.
    pub async fn list(&self, selection: &Selection) -> Result<Vec<DeadLetter>, NatsError> {
        let stream = self.queue.dead_letter_stream();
        let mut letters = self.scan(selection.subjects(&stream)).await?;
        letters.retain(|letter| selection.matches(letter));
        // The subject of a message on the queue's own subject does not name the call: only its
        // content does.
        let missing = match selection {
            Selection::All => false,
            Selection::Function(_) => true,
            Selection::Calls(calls) => {
                !calls.iter().all(|call| letters.iter().any(|letter| letter.call_id == *call))
            }
        };
        if missing {
            let unnamed = self
                .scan(BTreeSet::from([format!("{stream}.{UNKNOWN_TOKEN}.{UNKNOWN_TOKEN}.*")]))
                .await?;
            letters.extend(unnamed.into_iter().filter(|letter| selection.matches(letter)));
            letters.sort_by_key(|letter| letter.sequence);
            letters.dedup_by_key(|letter| letter.sequence);
        }
        Ok(letters)
    }

    /// Returns the content of a dead letter; `None` if it is no longer there.
    pub async fn content(
        &self,
        letter: &DeadLetter,
    ) -> Result<Option<DeadLetterContent>, NatsError> {
        if let Some(why) = &letter.unreadable {
            let raw = self.raw_message(letter.sequence).await?;
            let error = DecodeError::Unreadable(why.clone());
            return Ok(raw.map(|raw| DeadLetterContent::Unreadable { error, payload: raw.payload }));
        }
        let Some(message) = self.message(letter.sequence).await? else { return Ok(None) };
        Ok(Some(self.read_whole(&message).1))
    }

    /// Deletes a dead letter, and returns whether it was there.
    pub async fn delete(&self, letter: &DeadLetter) -> Result<bool, NatsError> {
        self.delete_at(letter.sequence).await
    }

    /// Deletes the dead letter at a sequence number, and returns whether it was there.
    pub async fn delete_at(&self, sequence: u64) -> Result<bool, NatsError> {
        let stream = self.queue.dead_letter_stream();
        delete_message(&self.js, &stream, sequence, "delete the dead letter").await
    }

    /// Deletes the dead letters up to a sequence number, that one included, and returns how many
    /// there were. Letters that came later stay.
    pub async fn delete_up_to(&self, sequence: u64) -> Result<u64, NatsError> {
        // A purge below sequence 1 is a purge of everything for nats-server.
        if sequence == 0 {
            return Ok(0);
        }
        let purge = self.stream.purge().sequence(sequence.saturating_add(1));
        Ok(purge.await.map_err(NatsError::during("delete the dead letters"))?.purged)
    }

    fn read_whole(&self, message: &StreamMessage) -> (DeadLetter, DeadLetterContent) {
        let stored = RawDeadLetter {
            queue: &self.queue,
            subject: &message.subject,
            sequence: message.sequence,
            stored_at: timestamp_from_server(message.time),
            headers: &message.headers,
            payload: &message.payload,
        };
        stored.read(&self.namespace)
    }

    async fn message(&self, sequence: u64) -> Result<Option<StreamMessage>, NatsError> {
        // Not `get_raw_message`: of several headers with one name, as HTTP headers have here, it
        // keeps only the last.
        match self.stream.direct_get(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(NatsError::during("read the dead letter")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_looked_for_where_their_subjects_put_them() {
        let subjects = |selection: &Selection| Vec::from_iter(selection.subjects("jobs-dead"));
        let function = FunctionName::new("figlet", "dev").unwrap();
        let calls = ["b", "a", "a"].map(|id| id.parse().unwrap()).into();
        assert!(subjects(&Selection::All).is_empty());
        assert_eq!(subjects(&Selection::Function(function)), ["jobs-dead.dev.figlet.*"]);
        assert_eq!(subjects(&Selection::Calls(calls)), ["jobs-dead.*.*.a", "jobs-dead.*.*.b"]);
    }
}
