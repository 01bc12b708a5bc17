//! The configuration of a queue on `JetStream`, and what to do about the one that is there.
//!
//! Everything in here is a pure function of plain values; [`crate::ensure`] carries it out.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};

use crate::{name::QueueName, subject::stream_subjects};

/// The lease: how long a worker may be silent about a call before another takes it.
pub const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);

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

/// Metadata key: who owns the stream, as `namespace/name`.
pub const META_OWNER: &str = "asyncqueue.io/owner";
/// Metadata key: the owner's UID, so that a namesake created later is told apart.
pub const META_OWNER_UID: &str = "asyncqueue.io/owner-uid";
/// Metadata key: `true` once the owner is gone and the stream was kept. The next claimant takes it over.
pub const META_RELEASED: &str = "asyncqueue.io/released";

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
    /// Who it belongs to.
    pub owner: Owner,
}

/// What to do about a stream or consumer.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan<C> {
    /// There is none: create it.
    Create(C),
    /// It is as it shall be.
    Keep,
    /// Some of the fields that we set differ: update to this, which leaves all others as they are.
    Update(C),
    /// It can't be brought to what it shall be.
    Refuse(Refusal),
}

/// Why a stream or consumer is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It belongs to somebody else.
    #[error(
        "stream `{stream}` belongs to {owner}: give this queue another spec.stream.name, or delete that owner"
    )]
    Owned {
        /// The stream.
        stream: String,
        /// Its owner, `namespace/name`.
        owner: String,
    },
    /// It belongs to an earlier `AsyncQueue` of the same name, which went without letting go of it.
    #[error(
        "stream `{stream}` belongs to an earlier AsyncQueue {owner} that did not let go of it: annotate this one \
         with asyncqueue.io/adopt=true to take it over, with the calls that it holds"
    )]
    Namesake {
        /// The stream.
        stream: String,
        /// Its owner, `namespace/name`.
        owner: String,
    },
    /// Nobody is known to own it, and nobody said that it may be taken.
    #[error(
        "stream `{stream}` exists and belongs to no AsyncQueue: annotate the AsyncQueue with \
         asyncqueue.io/adopt=true to take it over, or give this queue another spec.stream.name"
    )]
    Unowned {
        /// The stream.
        stream: String,
    },
    /// `JetStream` can't change this on an existing stream.
    #[error(
        "{field} of `{name}` is {is} and can't be changed to {wanted} on an existing stream: \
         change it back, or drain and delete the stream to have it created anew"
    )]
    Immutable {
        /// The stream.
        name: String,
        /// The field, in `JetStream`'s words.
        field: &'static str,
        /// What it is.
        is: String,
        /// What it shall be.
        wanted: String,
    },
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
            queue,
            owner,
        }
    }

    /// The stream of calls. Full, it refuses new calls and drops none.
    #[must_use]
    pub fn stream_config(&self) -> Config {
        Config {
            name: self.stream.clone(),
            description: Some(format!("Calls of the queue {}", self.queue)),
            subjects: stream_subjects(&self.subject),
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            max_messages: DEFAULT_MAX_MESSAGES,
            max_bytes: -1,
            max_messages_per_subject: -1,
            max_message_size: -1,
            max_consumers: -1,
            storage: self.storage.into(),
            num_replicas: self.replicas,
            duplicate_window: self.duplicate_window,
            allow_direct: true,
            metadata: self.owner.metadata(),
            ..Config::default()
        }
    }

    /// The stream of results on their way to the caller. Full, it takes no more, and the worker posts the
    /// result at once instead.
    #[must_use]
    pub fn callback_config(&self) -> Config {
        let name = self.queue.callback_stream();
        Config {
            description: Some(format!("Results of the queue {} on their way to the caller", self.queue)),
            subjects: vec![format!("{name}.>")],
            duplicate_window: CALLBACK_DUPLICATE_WINDOW,
            name,
            ..self.stream_config()
        }
    }

    /// The stream of dead letters. Full, it drops the oldest: a queue must not stop for its graveyard.
    #[must_use]
    pub fn dead_letter_config(&self) -> Config {
        let name = self.queue.dead_letter_stream();
        Config {
            description: Some(format!("Dead letters of the queue {}", self.queue)),
            subjects: vec![format!("{name}.>")],
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            max_messages: DEFAULT_MAX_MESSAGES,
            max_age: DEAD_LETTER_MAX_AGE,
            name,
            ..self.stream_config()
        }
    }

    /// The durable consumer of the queue's workers.
    ///
    /// No limit on deliveries: the worker counts, and a call that is dead becomes a dead letter instead of
    /// staying in the stream for ever. No limit on unacknowledged messages: a call that waits for its
    /// retry is one, and must not take the place of one that could run; concurrency is what workers ask for.
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
            metadata: self.owner.metadata(),
            ..pull::Config::default()
        }
    }

    /// The durable consumer of results on their way to the caller.
    #[must_use]
    pub fn callback_consumer_config(&self) -> pull::Config {
        pull::Config { durable_name: Some(self.queue.callback_durable()), ..self.consumer_config() }
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

/// What to do about a stream, given the one that is there. `adopt` allows taking over a stream that nobody
/// is known to own; one with another living owner is never taken.
#[must_use]
pub fn plan_stream(existing: Option<&Config>, wanted: &Config, adopt: bool) -> Plan<Config> {
    let Some(existing) = existing else { return Plan::Create(wanted.clone()) };
    if let Err(refusal) = may_claim(existing, wanted, adopt) {
        return Plan::Refuse(refusal);
    }
    let immutable = |field, is: &dyn std::fmt::Debug, wanted_value: &dyn std::fmt::Debug| {
        Plan::Refuse(Refusal::Immutable {
            name: wanted.name.clone(),
            field,
            is: format!("{is:?}"),
            wanted: format!("{wanted_value:?}"),
        })
    };
    if existing.storage != wanted.storage {
        return immutable("storage", &existing.storage, &wanted.storage);
    }
    if existing.retention != wanted.retention {
        return immutable("retention", &existing.retention, &wanted.retention);
    }
    // Only what we set; what others set beside it stays theirs.
    let mut update = existing.clone();
    update.description.clone_from(&wanted.description);
    update.subjects.clone_from(&wanted.subjects);
    update.discard = wanted.discard;
    update.max_messages = wanted.max_messages;
    update.max_age = wanted.max_age;
    update.num_replicas = wanted.num_replicas;
    update.duplicate_window = wanted.duplicate_window;
    update.allow_direct = wanted.allow_direct;
    update.metadata.remove(META_RELEASED);
    update.metadata.extend(wanted.metadata.clone());
    if update == *existing { Plan::Keep } else { Plan::Update(update) }
}

/// What to do about the durable consumer, given the one that is there.
#[must_use]
pub fn plan_consumer(existing: Option<&pull::Config>, wanted: &pull::Config) -> Plan<pull::Config> {
    let Some(existing) = existing else { return Plan::Create(wanted.clone()) };
    let mut update = existing.clone();
    update.description.clone_from(&wanted.description);
    update.ack_wait = wanted.ack_wait;
    update.max_deliver = wanted.max_deliver;
    update.max_ack_pending = wanted.max_ack_pending;
    update.metadata.extend(wanted.metadata.clone());
    if update == *existing { Plan::Keep } else { Plan::Update(update) }
}

/// Whether a stream carries the UID that `wanted` does.
#[must_use]
pub fn is_owner(existing: &Config, wanted: &Config) -> bool {
    let uid = existing.metadata.get(META_OWNER_UID);
    uid.is_some() && uid == wanted.metadata.get(META_OWNER_UID)
}

/// Whether a stream is ours to touch: it carries our UID, or its owner let go of it. With `adopt` also where nobody
/// lives who owns it: no owner is known, a program without an operator made it, or a namesake of ours did.
fn may_claim(existing: &Config, wanted: &Config, adopt: bool) -> Result<(), Refusal> {
    let released = existing.metadata.get(META_RELEASED).is_some_and(|released| released == "true");
    if released || is_owner(existing, wanted) {
        return Ok(());
    }
    let stream = existing.name.clone();
    let refusal = match existing.metadata.get(META_OWNER) {
        None => Refusal::Unowned { stream },
        Some(owner) if *owner == Owner::standalone().name => Refusal::Unowned { stream },
        Some(owner) if wanted.metadata.get(META_OWNER) == Some(owner) => {
            Refusal::Namesake { stream, owner: owner.clone() }
        }
        Some(owner) => return Err(Refusal::Owned { stream, owner: owner.clone() }),
    };
    if adopt { Ok(()) } else { Err(refusal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(uid: &str) -> QueueSpec {
        let owner = Owner { name: format!("ns/{uid}"), uid: uid.to_owned() };
        QueueSpec::new("slow-queue".parse().unwrap(), owner)
    }

    fn stream(uid: &str) -> Config {
        spec(uid).stream_config()
    }

    #[test]
    fn a_missing_stream_is_created_and_an_equal_one_kept() {
        assert_eq!(plan_stream(None, &stream("a"), false), Plan::Create(stream("a")));
        assert_eq!(plan_stream(Some(&stream("a")), &stream("a"), false), Plan::Keep);
    }

    #[test]
    fn drift_in_what_we_set_is_repaired_and_the_rest_is_left_alone() {
        let mut existing = stream("a");
        existing.duplicate_window = Duration::from_secs(1);
        existing.max_bytes = 5;
        existing.metadata.insert("theirs".to_owned(), "1".to_owned());
        let Plan::Update(update) = plan_stream(Some(&existing), &stream("a"), false) else {
            panic!("no update")
        };
        assert_eq!(update.duplicate_window, DEFAULT_DUPLICATE_WINDOW);
        assert_eq!(update.max_bytes, 5);
        assert_eq!(update.metadata["theirs"], "1");
    }

    #[test]
    fn a_stream_of_another_owner_is_never_taken() {
        for adopt in [false, true] {
            let plan = plan_stream(Some(&stream("a")), &stream("b"), adopt);
            let Plan::Refuse(Refusal::Owned { owner, .. }) = plan else { panic!("{plan:?}") };
            assert_eq!(owner, "ns/a");
        }
    }

    #[test]
    fn a_stream_of_nobody_is_taken_only_when_told_to() {
        let mut existing = stream("a");
        existing.metadata.clear();
        let refused = plan_stream(Some(&existing), &stream("b"), false);
        assert!(matches!(refused, Plan::Refuse(Refusal::Unowned { .. })), "{refused:?}");
        assert!(matches!(plan_stream(Some(&existing), &stream("b"), true), Plan::Update(_)));
    }

    #[test]
    fn a_stream_of_a_namesake_or_of_no_operator_is_taken_only_when_told_to() {
        let mut wanted = stream("b");
        wanted.metadata.insert(META_OWNER.to_owned(), "ns/a".to_owned());
        let refused = plan_stream(Some(&stream("a")), &wanted, false);
        assert!(matches!(refused, Plan::Refuse(Refusal::Namesake { .. })), "{refused:?}");
        assert!(matches!(plan_stream(Some(&stream("a")), &wanted, true), Plan::Update(_)));

        let standalone = QueueSpec { owner: Owner::standalone(), ..spec("a") }.stream_config();
        let refused = plan_stream(Some(&standalone), &wanted, false);
        assert!(matches!(refused, Plan::Refuse(Refusal::Unowned { .. })), "{refused:?}");
        assert!(matches!(plan_stream(Some(&standalone), &wanted, true), Plan::Update(_)));
        // And not the other way: a program without an operator adopts all it finds.
        let refused = plan_stream(Some(&wanted), &standalone, true);
        assert!(matches!(refused, Plan::Refuse(Refusal::Owned { .. })), "{refused:?}");
    }

    #[test]
    fn a_released_stream_is_adopted_and_no_longer_released() {
        let mut existing = stream("a");
        existing.metadata.insert(META_RELEASED.to_owned(), "true".to_owned());
        let Plan::Update(update) = plan_stream(Some(&existing), &stream("b"), false) else {
            panic!("no update")
        };
        assert_eq!(update.metadata, stream("b").metadata);
    }

    #[test]
    fn what_jetstream_cannot_change_is_refused_with_its_name() {
        let mut wanted = stream("a");
        wanted.storage = StorageType::Memory;
        let Plan::Refuse(refusal) = plan_stream(Some(&stream("a")), &wanted, false) else { panic!("taken") };
        assert!(refusal.to_string().starts_with("storage of `slow-queue` is File"), "{refusal}");
    }

    #[test]
    fn a_consumers_lease_follows_the_spec() {
        let mut wanted = spec("a");
        let existing = wanted.consumer_config();
        assert_eq!(plan_consumer(Some(&existing), &wanted.consumer_config()), Plan::Keep);
        wanted.ack_wait = Duration::from_secs(5);
        let Plan::Update(update) = plan_consumer(Some(&existing), &wanted.consumer_config()) else {
            panic!("no update")
        };
        assert_eq!(update.ack_wait, Duration::from_secs(5));
    }
}
