//! The configuration of a queue on `JetStream`, and what to do about the one that is there.
//!
//! Everything in here is a pure function of plain values; [`crate::ensure`] carries it out.

use std::{collections::HashMap, time::Duration};

use async_nats::{
    datetime::parse_rfc3339,
    jetstream::{
        consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull},
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};

pub use self::plan::{Adopt, Plan, Refusal, is_owner, plan_consumer, plan_stream};
pub use self::sequence::{ClockError, has_unique_sequences, stored_in_all, with_first_sequence};
use crate::{message::HEADER_ROOM, name::QueueName, subject::stream_subjects};

mod plan;
mod sequence;

/// The lease: how long a worker may be silent about a call before another takes it.
pub const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);

/// Requests of workers that wait at a consumer at once. A worker has at most five or so, so that this is enough for the most
/// replicas of a queue, also while all of them are replaced. The server's own default, 512, is not.
pub const MAX_WAITING: i64 = 10_000;

/// How long a repeated call id is recognised after the call has ended; `JetStream`'s own default.
pub const DEFAULT_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Pending calls of one queue. A pending call takes about 0.6 KB of the server's memory, its subject
/// being the index: a million take 0.6 GB, and past that the gateway refuses rather than the server dies.
pub const DEFAULT_MAX_MESSAGES: i64 = 1_000_000;

/// How long the result of a call is remembered, so that a second run of it (its worker lost the lease) does
/// not call back again.
pub const CALLBACK_DUPLICATE_WINDOW: Duration = Duration::from_secs(3600);

/// How long a dead letter is kept: time enough to look at one after a long weekend.
pub const DEAD_LETTER_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Until when the consumer of a suspended queue is paused. `JetStream` pauses until a time and no longer; this one is as
/// good as for ever, and always the same, so that it is written once.
const SUSPENDED_UNTIL: &str = "2100-01-01T00:00:00Z";

/// Metadata key: who owns the stream, as `namespace/name`.
pub const META_OWNER: &str = "asyncqueue.io/owner";
/// Metadata key: the owner's UID, so that a namesake created later is told apart.
pub const META_OWNER_UID: &str = "asyncqueue.io/owner-uid";
/// Metadata key: `true` once the owner is gone and the stream was kept. The next queue of the owner's namespace and name
/// takes it over, or one of [`META_RELEASED_TO`].
pub const META_RELEASED: &str = "asyncqueue.io/released";
/// Metadata key: the other queues that may take a released stream over, as `namespace/name`, separated by commas.
pub const META_RELEASED_TO: &str = "asyncqueue.io/released-to";

/// Where a stream keeps its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// On disk: survives a restart of the server.
    File,
    /// In memory: lost with the server's process.
    Memory,
}

/// Who a stream belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `namespace/name` of the `AsyncQueue`, or [`Owner::standalone`]'s.
    pub name: String,
    /// The UID of the `AsyncQueue`.
    pub uid: String,
}

/// What the stream of calls holds at most. More is refused, and nothing that is stored is dropped for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest body of a call, in bytes. `None`: as much as NATS takes in one message.
    pub max_payload: Option<u64>,
    /// Calls.
    pub max_messages: i64,
    /// Bytes, of bodies and headers and a little for each message. `None`: as much as the server has room for.
    pub max_bytes: Option<i64>,
    /// How old a call may be when it is delivered: an older one ends as expired. `None`: unlimited.
    pub max_age: Option<Duration>,
}

/// What becomes of calls that are given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// Whether they are kept. If not, a stream for them is not made; one that is there stays, and so does what it holds.
    pub enabled: bool,
    /// How long each is kept.
    pub max_age: Duration,
    /// How many are kept; beyond that, the oldest are dropped.
    pub max_messages: i64,
}

/// A queue as it shall be on `JetStream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// The queue.
    pub queue: QueueName,
    /// Its stream's name.
    pub stream: String,
    /// Its subject; calls are published below it.
    pub subject: String,
    /// The durable consumer that its workers share.
    pub durable: String,
    /// Where the stream keeps its messages.
    pub storage: Storage,
    /// Copies of the stream in a cluster of servers, 1 to 5.
    pub replicas: usize,
    /// How long a repeated call id is recognised.
    pub duplicate_window: Duration,
    /// The lease of a call.
    pub ack_wait: Duration,
    /// What its stream holds at most.
    pub limits: Limits,
    /// What becomes of calls that are given up.
    pub dead_letters: DeadLetters,
    /// Whether no call is delivered. Calls are stored all the same, and those that run end.
    pub suspended: bool,
    /// Who it belongs to.
    pub owner: Owner,
    /// Who else may take its streams over once it is deleted and they are kept, as `namespace/name`.
    pub release_to: Vec<String>,
}

// === impl Owner ===

impl Owner {
    /// The owner of what a worker or gateway makes for itself where no operator is.
    #[must_use]
    pub fn standalone() -> Self {
        Self { name: "standalone".to_owned(), uid: "standalone".to_owned() }
    }

    fn metadata(&self) -> HashMap<String, String> {
        HashMap::from([
            (META_OWNER.to_owned(), self.name.clone()),
            (META_OWNER_UID.to_owned(), self.uid.clone()),
        ])
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self { max_payload: None, max_messages: DEFAULT_MAX_MESSAGES, max_bytes: None, max_age: None }
    }
}

impl Limits {
    /// When `JetStream` itself drops a call: much later than workers end it as expired, as the last bound where no worker
    /// runs. Twice the age that workers allow, and at least an hour more.
    fn stream_max_age(&self) -> Duration {
        let twice_or_more =
            |age: Duration| age.saturating_mul(2).max(age.saturating_add(Duration::from_secs(3600)));
        self.max_age.map_or(Duration::ZERO, twice_or_more)
    }

    /// The largest message, in bytes: a body with its headers. `JetStream` counts in 32 bits and takes no larger ones.
    fn max_message_size(&self) -> i32 {
        let with_headers = |payload: u64| payload.saturating_add(HEADER_ROOM as u64);
        self.max_payload.map_or(-1, |payload| i32::try_from(with_headers(payload)).unwrap_or(i32::MAX))
    }
}

// === impl DeadLetters ===

impl Default for DeadLetters {
    fn default() -> Self {
        Self { enabled: true, max_age: DEAD_LETTER_MAX_AGE, max_messages: DEFAULT_MAX_MESSAGES }
    }
}

// === impl QueueSpec ===

impl QueueSpec {
    /// A queue with every default, and the names that follow from its own.
    #[must_use]
    pub fn new(queue: QueueName, owner: Owner) -> Self {
        Self {
            stream: queue.to_string(),
            subject: queue.to_string(),
            durable: queue.durable(),
            storage: Storage::File,
            replicas: 1,
            duplicate_window: DEFAULT_DUPLICATE_WINDOW,
            ack_wait: DEFAULT_ACK_WAIT,
            limits: Limits::default(),
            dead_letters: DeadLetters::default(),
            suspended: false,
            release_to: Vec::new(),
            queue,
            owner,
        }
    }

    /// The names of its streams: of calls, of results and of dead letters.
    #[must_use]
    pub fn streams(&self) -> [String; 3] {
        [self.stream.clone(), self.queue.callback_stream(), self.queue.dead_letter_stream()]
    }

    /// The stream of calls. Full, it refuses new calls and drops none.
    #[must_use]
    pub fn stream_config(&self) -> Config {
        let limits = &self.limits;
        Config {
            name: self.stream.clone(),
            description: Some(format!("Calls of the queue {}", self.queue)),
            subjects: stream_subjects(&self.subject),
            max_messages: limits.max_messages,
            max_bytes: limits.max_bytes.unwrap_or(-1),
            max_message_size: limits.max_message_size(),
            max_age: limits.stream_max_age(),
            duplicate_window: self.duplicate_window,
            ..self.common_config()
        }
    }

    /// The stream of results on their way to the caller. Full, it takes no more, and workers hold on to theirs until it has
    /// room.
    #[must_use]
    pub fn callback_config(&self) -> Config {
        let name = self.queue.callback_stream();
        Config {
            description: Some(format!("Results of the queue {} on their way to the caller", self.queue)),
            subjects: vec![format!("{name}.>")],
            duplicate_window: CALLBACK_DUPLICATE_WINDOW,
            name,
            ..self.common_config()
        }
    }

    /// The stream of dead letters. Full, it drops the oldest: a queue must not stop for its graveyard.
    #[must_use]
    pub fn dead_letter_config(&self) -> Config {
        let (name, dead_letters) = (self.queue.dead_letter_stream(), &self.dead_letters);
        Config {
            description: Some(format!("Dead letters of the queue {}", self.queue)),
            subjects: vec![format!("{name}.>")],
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            max_messages: dead_letters.max_messages,
            max_age: dead_letters.max_age,
            // No longer than what it looks for is kept, which JetStream refuses.
            duplicate_window: self.duplicate_window.min(dead_letters.max_age),
            name,
            ..self.common_config()
        }
    }

    /// What the streams of a queue have in common. Whatever a field of it bounds, it does not: -1 is no limit.
    fn common_config(&self) -> Config {
        Config {
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            max_messages: DEFAULT_MAX_MESSAGES,
            max_bytes: -1,
            max_messages_per_subject: -1,
            max_message_size: -1,
            max_consumers: -1,
            storage: self.storage.into(),
            num_replicas: self.replicas,
            allow_direct: true,
            metadata: self.owner.metadata(),
            ..Config::default()
        }
    }

    /// The durable consumer of the queue's workers.
    ///
    /// No limit on deliveries: the worker counts, and a call that is dead becomes a dead letter instead of
    /// staying in the stream for ever. No limit on unacknowledged messages: a call that waits for its
    /// retry is one, and must not take the place of one that could run; concurrency is what workers ask for.
    /// `max_waiting` is for a new consumer: JetStream does not change it.
    #[must_use]
    pub fn consumer_config(&self) -> pull::Config {
        pull::Config {
            durable_name: Some(self.durable.clone()),
            description: Some(format!("Workers of the queue {}", self.queue)),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            replay_policy: ReplayPolicy::Instant,
            ack_wait: self.ack_wait,
            max_deliver: -1,
            max_ack_pending: -1,
            max_waiting: MAX_WAITING,
            pause_until: self.suspended.then(|| parse_rfc3339(SUSPENDED_UNTIL).ok()).flatten(),
            metadata: self.owner.metadata(),
            ..pull::Config::default()
        }
    }

    /// The durable consumer of results on their way to the caller. It is never paused: what has run has an end.
    #[must_use]
    pub fn callback_consumer_config(&self) -> pull::Config {
        pull::Config {
            durable_name: Some(self.queue.callback_durable()),
            pause_until: None,
            ..self.consumer_config()
        }
    }
}

impl From<Storage> for StorageType {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::File => Self::File,
            Storage::Memory => Self::Memory,
        }
    }
}
