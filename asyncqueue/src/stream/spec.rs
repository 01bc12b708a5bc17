//! The configuration of a queue on `JetStream`.
//!
//! Pure functions of plain values.

use std::{collections::HashMap, time::Duration};

use async_nats::{
    datetime::{DateTime, parse_rfc3339},
    jetstream::{
        consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull},
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};

use crate::{
    fairness::Fairness, lane_filters::rest_filters, message::RESERVED_HEADER_BYTES,
    names::QueueName, subject::stream_subjects,
};

/// The default lease: how long a worker may go without renewing it before another worker gets the
/// call.
pub const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);

/// Maximum number of requests of workers that wait at a consumer. A worker has at most about five.
/// So this is enough for the most replicas of a queue, even while all of them are replaced. The
/// server's own default, 512, is not.
pub const MAX_WAITING: i64 = 10_000;

/// Default time for which a repeated call id is recognised after the call has ended; `JetStream`'s
/// own default.
pub const DEFAULT_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Default maximum of pending calls of one queue. A pending call takes about 0.6 KB of the server's
/// memory, because its subject is the index. A million take 0.6 GB. Beyond that, the gateway
/// refuses calls rather than the server dies.
pub const DEFAULT_MAX_MESSAGES: i64 = 1_000_000;

/// How long the result of a call is remembered. During this time, a second run of the call (its
/// worker lost the lease) does not call back again.
pub(crate) const CALLBACK_DUPLICATE_WINDOW: Duration = Duration::from_secs(3600);

/// Default time for which a dead letter is kept: enough to inspect one after a long weekend.
pub const DEAD_LETTER_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// End of the pause of a suspended queue's consumer. `JetStream` always pauses until a certain
/// time. This one is far in the future, and always the same, so that it is written once.
const SUSPENDED_UNTIL: &str = "2100-01-01T00:00:00Z";

/// Metadata key: the owner of the stream, as `namespace/name`.
pub const META_OWNER: &str = "asyncqueue.io/owner";
/// Metadata key: the owner's UID, which distinguishes it from a later queue of the same name.
pub const META_OWNER_UID: &str = "asyncqueue.io/owner-uid";
/// Metadata key: `true` once the owner is deleted and the stream was kept. The next queue of the
/// owner's namespace and name takes it over, or one of [`META_RELEASED_TO`].
pub(crate) const META_RELEASED: &str = "asyncqueue.io/released";
/// Metadata key: the other queues that may take over a released stream, as `namespace/name`,
/// separated by commas.
pub(crate) const META_RELEASED_TO: &str = "asyncqueue.io/released-to";

/// Where a stream keeps its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// On disk. Survives a restart of the server.
    File,
    /// In memory. Lost with the server's process.
    Memory,
}

/// The owner of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `namespace/name` of the `AsyncQueue`, or the name of [`Owner::standalone`].
    pub name: String,
    /// The UID of the `AsyncQueue`.
    pub uid: String,
}

/// Limits of the stream of calls. Beyond them, new calls are refused, and no stored call is
/// dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of the body of a call, in bytes. `None`: the maximum size of a message of NATS.
    pub max_payload: Option<u64>,
    /// Maximum number of calls.
    pub max_messages: i64,
    /// Maximum number of bytes: bodies, headers and a little for each message. `None`: as much as
    /// the server has room for.
    pub max_bytes: Option<i64>,
    /// Maximum age of a call when it is delivered: an older one ends as expired. `None`: unlimited.
    pub max_age: Option<Duration>,
}

/// Settings for dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterSettings {
    /// Whether they are kept. If not, no stream is created for them. An existing one stays, with
    /// its messages.
    pub enabled: bool,
    /// How long each is kept.
    pub max_age: Duration,
    /// Maximum number that is kept; beyond that, the oldest are dropped.
    pub max_messages: i64,
}

/// Desired state of a queue on `JetStream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// The queue.
    pub queue: QueueName,
    /// Name of its stream.
    pub stream: String,
    /// Its subject; calls are published below it.
    pub subject: String,
    /// The durable consumer that its workers share.
    pub durable: String,
    /// Where the stream keeps its messages.
    pub storage: Storage,
    /// Number of copies of the stream in a cluster of servers, 1 to 5.
    pub replicas: usize,
    /// How long a repeated call id is recognised.
    pub duplicate_window: Duration,
    /// Lease of a call.
    pub ack_wait: Duration,
    /// The order in which its calls are run.
    pub fairness: Fairness,
    /// Limits of its stream.
    pub limits: Limits,
    /// Settings for its dead letters.
    pub dead_letters: DeadLetterSettings,
    /// Whether the queue is suspended: calls are stored but not delivered, and those that run end.
    pub suspended: bool,
    /// Its owner.
    pub owner: Owner,
    /// Other queues that may take over its streams once it is deleted and they are kept, as
    /// `namespace/name`.
    pub release_to: Vec<String>,
}

/// Returns until when the consumer of a suspended queue is paused.
pub(crate) fn suspended_until() -> Option<DateTime> {
    parse_rfc3339(SUSPENDED_UNTIL).ok()
}

// === impl Owner ===

impl Owner {
    /// Returns the owner of streams that a worker or gateway creates without an operator.
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
        Self {
            max_payload: None,
            max_messages: DEFAULT_MAX_MESSAGES,
            max_bytes: None,
            max_age: None,
        }
    }
}

impl Limits {
    /// Returns the age at which `JetStream` itself drops a call. It is the last bound if no worker
    /// runs, much later than workers end the call as expired: twice the age that workers allow, and
    /// at least an hour more.
    fn stream_max_age(&self) -> Duration {
        let twice_or_more = |age: Duration| {
            age.saturating_mul(2).max(age.saturating_add(Duration::from_secs(3600)))
        };
        self.max_age.map_or(Duration::ZERO, twice_or_more)
    }

    /// Returns the maximum size of a message, in bytes: a body with its headers. `JetStream` counts
    /// in 32 bits and accepts no larger ones.
    fn max_message_size(&self) -> i32 {
        let with_headers = |payload: u64| payload.saturating_add(RESERVED_HEADER_BYTES as u64);
        self.max_payload
            .map_or(-1, |payload| i32::try_from(with_headers(payload)).unwrap_or(i32::MAX))
    }
}

// === impl DeadLetterSettings ===

impl Default for DeadLetterSettings {
    fn default() -> Self {
        Self { enabled: true, max_age: DEAD_LETTER_MAX_AGE, max_messages: DEFAULT_MAX_MESSAGES }
    }
}

// === impl QueueSpec ===

impl QueueSpec {
    /// Creates a queue with every default, and the names that follow from its own.
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
            fairness: Fairness::default(),
            limits: Limits::default(),
            dead_letters: DeadLetterSettings::default(),
            suspended: false,
            release_to: Vec::new(),
            queue,
            owner,
        }
    }

    /// Returns the names of its streams: of calls, of results and of dead letters.
    #[must_use]
    pub fn streams(&self) -> [String; 3] {
        [self.stream.clone(), self.queue.callback_stream(), self.queue.dead_letter_stream()]
    }

    /// Returns the configuration of the stream of calls. When it is full, it refuses new calls and
    /// drops none.
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
            // For batches of calls.
            allow_atomic_publish: true,
            ..self.common_config()
        }
    }

    /// Returns the configuration of the stream of results on their way to the client. When it is
    /// full, it accepts no more, and workers keep their results until it has room.
    #[must_use]
    pub fn callback_config(&self) -> Config {
        let name = self.queue.callback_stream();
        Config {
            description: Some(format!(
                "Results of the queue {} on their way to the caller",
                self.queue
            )),
            subjects: vec![format!("{name}.>")],
            duplicate_window: CALLBACK_DUPLICATE_WINDOW,
            name,
            ..self.common_config()
        }
    }

    /// Returns the configuration of the stream of dead letters. When it is full, it drops the
    /// oldest: dead letters must not block the queue.
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
            // JetStream refuses a window that is longer than the maximum age of messages.
            duplicate_window: self.duplicate_window.min(dead_letters.max_age),
            name,
            ..self.common_config()
        }
    }

    /// Returns what identifies the stream of results that are kept for clients: its name, and its
    /// owner. Workers create the stream with the first result.
    #[must_use]
    pub(crate) fn results_config(&self) -> Config {
        let name = self.queue.results_stream();
        Config { subjects: vec![format!("{name}.>")], name, ..self.common_config() }
    }

    /// Returns the configuration that the streams of a queue have in common. -1 means no limit.
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

    /// Returns the configuration of the durable consumer of the queue's workers. With lanes, it
    /// takes only what is no call of a function.
    ///
    /// Deliveries are unlimited: the worker counts, and a dead call becomes a dead letter instead
    /// of staying in the stream indefinitely. Unacknowledged messages are unlimited too: a call
    /// that waits for its retry is one, and must not take the place of one that could run. The
    /// requests of the workers limit concurrency. `max_waiting` is for a new consumer: JetStream
    /// does not change it.
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
            filter_subjects: match self.fairness {
                Fairness::Fifo => Vec::new(),
                Fairness::Function => rest_filters(&self.subject),
            },
            pause_until: self.suspended.then(suspended_until).flatten(),
            metadata: self.owner.metadata(),
            ..pull::Config::default()
        }
    }

    /// Returns the configuration of the durable consumer of results. It is never paused: a call
    /// that has run reaches its end.
    #[must_use]
    pub(crate) fn callback_consumer_config(&self) -> pull::Config {
        pull::Config {
            durable_name: Some(self.queue.callback_durable()),
            filter_subjects: Vec::new(),
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
