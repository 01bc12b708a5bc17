//! Plans the change from the existing stream or consumer to its desired state.

use async_nats::jetstream::{consumer::pull, stream::Config};

use super::spec::{META_OWNER, META_OWNER_UID, META_RELEASED, META_RELEASED_TO, Owner};
use crate::fairness::Fairness;

/// The plan for a stream or consumer.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan<C> {
    /// It does not exist: create it.
    Create(C),
    /// It is in its desired state.
    Keep,
    /// Some of the fields that we set differ: update to this, which leaves all other fields as they
    /// are.
    Update(C),
    /// It can't be brought to its desired state.
    Refuse(PlanError),
}

/// Which streams without an existing owner a queue may take over. A stream that was released to the
/// queue needs none of this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adopt {
    /// None.
    #[default]
    None,
    /// Those that a program of this project created.
    Ours,
    /// Any, whatever created it.
    Any,
}

/// Why a stream or consumer is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It belongs to another owner.
    #[error(
        "stream `{stream}` belongs to {owner}: give this queue another spec.stream.name, or delete \
         that owner"
    )]
    OtherOwner {
        /// The stream.
        stream: String,
        /// Its owner, `namespace/name`.
        owner: String,
    },
    /// It belongs to an earlier `AsyncQueue` of the same name, which was deleted without releasing
    /// it.
    #[error(
        "stream `{stream}` belongs to an earlier AsyncQueue {owner} that did not release it: \
         annotate this one with asyncqueue.io/adopt=true to take it over with its calls"
    )]
    PreviousInstance {
        /// The stream.
        stream: String,
        /// Its owner, `namespace/name`.
        owner: String,
    },
    /// Its queue was deleted, and released it to queues of its name or to others, but not to this
    /// one.
    #[error(
        "stream `{stream}` belongs to the deleted AsyncQueue {owner}, and only that one may take \
         it over with its calls: create {owner} again, annotate it with \
         asyncqueue.io/release-to={claimant}, and delete it; or give this queue another \
         spec.stream.name"
    )]
    Released {
        /// The stream.
        stream: String,
        /// Its last owner, `namespace/name`.
        owner: String,
        /// The queue that wants it, `namespace/name`.
        claimant: String,
    },
    /// Another program created it, and the operator's settings do not allow it to be taken over.
    #[error(
        "stream `{stream}` was not created for an AsyncQueue, and allowed_streams of the operator \
         does not list both its name and the subject `{subject}`: add them there to take it over, \
         or give this queue another spec.stream.name"
    )]
    NotAllowed {
        /// The stream.
        stream: String,
        /// The subject that the queue wants.
        subject: String,
    },
    /// It has no known owner, and taking it over is not allowed.
    #[error(
        "stream `{stream}` exists and belongs to no AsyncQueue: annotate the AsyncQueue with \
         asyncqueue.io/adopt=true to take it over, or give this queue another spec.stream.name"
    )]
    Unowned {
        /// The stream.
        stream: String,
    },
    /// The consumer of calls has been used with another fairness. Calls that run would be delivered
    /// again if it was changed.
    #[error(
        "stream `{stream}` is used with fairness={is}, and fairness={wanted} is set: set \
         fairness={is}, or change it with `kubectl aq fairness`"
    )]
    OtherFairness {
        /// The stream.
        stream: String,
        /// The order in which its calls are run.
        is: Fairness,
        /// The order that is wanted.
        wanted: Fairness,
    },
    /// `JetStream` can't change this field of an existing stream.
    #[error(
        "{field} of `{name}` is {is} and can't be changed to {wanted} on an existing stream: \
         change it back, or drain and delete the stream: it is then recreated"
    )]
    ImmutableField {
        /// The stream.
        name: String,
        /// The field, as `JetStream` names it.
        field: &'static str,
        /// The current value.
        is: String,
        /// The desired value.
        wanted: String,
    },
}

/// Plans the change of a stream, given the existing one. `adopt` allows taking over a stream
/// without a known owner (`true` is [`Adopt::Any`]). A stream of another existing owner is never
/// taken over, nor one that was released to others.
#[must_use]
pub fn plan_stream(
    existing: Option<&Config>,
    wanted: &Config,
    adopt: impl Into<Adopt>,
) -> Plan<Config> {
    let Some(existing) = existing else { return Plan::Create(wanted.clone()) };
    if let Err(error) = check_ownership(existing, wanted, adopt.into()) {
        return Plan::Refuse(error);
    }
    let immutable = |field, is: &dyn std::fmt::Debug, wanted_value: &dyn std::fmt::Debug| {
        Plan::Refuse(PlanError::ImmutableField {
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
    // Only the fields that we set; what others set stays unchanged.
    let mut update = existing.clone();
    update.description.clone_from(&wanted.description);
    update.subjects.clone_from(&wanted.subjects);
    update.discard = wanted.discard;
    update.max_messages = wanted.max_messages;
    update.max_bytes = wanted.max_bytes;
    update.max_message_size = wanted.max_message_size;
    update.max_age = wanted.max_age;
    update.num_replicas = wanted.num_replicas;
    update.duplicate_window = wanted.duplicate_window;
    update.allow_direct = wanted.allow_direct;
    update.allow_atomic_publish = wanted.allow_atomic_publish;
    update.metadata.remove(META_RELEASED);
    update.metadata.remove(META_RELEASED_TO);
    update.metadata.extend(wanted.metadata.clone());
    if update == *existing { Plan::Keep } else { Plan::Update(update) }
}

/// Plans the change of the durable consumer, given the existing one. Pausing is not part of it: the
/// server leaves that unchanged when a consumer is updated, and has a separate request for it.
#[must_use]
pub(crate) fn plan_consumer(
    existing: Option<&pull::Config>,
    wanted: &pull::Config,
) -> Plan<pull::Config> {
    let Some(existing) = existing else { return Plan::Create(wanted.clone()) };
    let mut update = existing.clone();
    update.description.clone_from(&wanted.description);
    update.ack_wait = wanted.ack_wait;
    update.max_deliver = wanted.max_deliver;
    update.max_ack_pending = wanted.max_ack_pending;
    update.metadata.extend(wanted.metadata.clone());
    if update == *existing { Plan::Keep } else { Plan::Update(update) }
}

/// Returns whether a stream has the UID that `wanted` has.
#[must_use]
pub(crate) fn is_owner(existing: &Config, wanted: &Config) -> bool {
    let uid = existing.metadata.get(META_OWNER_UID);
    uid.is_some() && uid == wanted.metadata.get(META_OWNER_UID)
}

/// Checks whether we may change a stream: it has our UID, or its owner released it to us. `adopt`
/// also allows streams that no existing queue owns: without a known owner, of a program without an
/// operator, or of an earlier queue of our name.
fn check_ownership(existing: &Config, wanted: &Config, adopt: Adopt) -> Result<(), PlanError> {
    if is_owner(existing, wanted) {
        return Ok(());
    }
    let standalone = Owner::standalone().name;
    let (stream, claimant) = (existing.name.clone(), wanted.metadata.get(META_OWNER));
    let is_released =
        existing.metadata.get(META_RELEASED).is_some_and(|released| released == "true");
    match (existing.metadata.get(META_OWNER), adopt) {
        (Some(owner), _) if is_released && *owner != standalone => {
            check_release(existing, owner, claimant)
        }
        (None, Adopt::None) => Err(PlanError::Unowned { stream }),
        (None, Adopt::Ours) => {
            let subject = wanted.subjects.first().cloned().unwrap_or_default();
            Err(PlanError::NotAllowed { stream, subject })
        }
        (None, Adopt::Any) => Ok(()),
        (Some(owner), Adopt::None) if *owner == standalone => Err(PlanError::Unowned { stream }),
        (Some(owner), Adopt::None) if Some(owner) == claimant => {
            Err(PlanError::PreviousInstance { stream, owner: owner.clone() })
        }
        (Some(owner), _) if *owner == standalone || Some(owner) == claimant => Ok(()),
        (Some(owner), _) => Err(PlanError::OtherOwner { stream, owner: owner.clone() }),
    }
}

/// Checks whether a released stream belongs to the claimant: it has the namespace and name of the
/// last owner, or the owner named it. A program without an operator reads all of NATS anyway.
fn check_release(
    existing: &Config,
    owner: &str,
    claimant: Option<&String>,
) -> Result<(), PlanError> {
    let claimant = claimant.map(String::as_str).unwrap_or_default();
    let successors =
        existing.metadata.get(META_RELEASED_TO).map(String::as_str).unwrap_or_default();
    let is_successor = owner == claimant
        || claimant == Owner::standalone().name
        || successors
            .split(',')
            .any(|successor| !claimant.is_empty() && successor.trim() == claimant);
    if is_successor {
        return Ok(());
    }
    let (stream, owner) = (existing.name.clone(), owner.to_owned());
    Err(PlanError::Released { stream, owner, claimant: claimant.to_owned() })
}

// === impl Adopt ===

impl From<bool> for Adopt {
    fn from(adopt: bool) -> Self {
        if adopt { Self::Any } else { Self::None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::jetstream::stream::StorageType;

    use super::*;
    use crate::stream::{DEFAULT_DUPLICATE_WINDOW, DEFAULT_MAX_MESSAGES, QueueSpec};

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
        existing.max_messages = 7;
        existing.max_bytes = 5;
        existing.max_message_size = 9;
        existing.max_age = Duration::from_secs(1);
        existing.max_messages_per_subject = 3;
        existing.metadata.insert("theirs".to_owned(), "1".to_owned());
        let Plan::Update(update) = plan_stream(Some(&existing), &stream("a"), false) else {
            panic!("no update")
        };
        assert_eq!(update.duplicate_window, DEFAULT_DUPLICATE_WINDOW);
        assert_eq!((update.max_messages, update.max_bytes), (DEFAULT_MAX_MESSAGES, -1));
        assert_eq!((update.max_message_size, update.max_age), (-1, Duration::ZERO));
        assert_eq!(update.max_messages_per_subject, 3);
        assert_eq!(update.metadata["theirs"], "1");
    }

    #[test]
    fn a_stream_of_another_owner_is_never_taken() {
        for adopt in [false, true] {
            let plan = plan_stream(Some(&stream("a")), &stream("b"), adopt);
            let Plan::Refuse(PlanError::OtherOwner { owner, .. }) = plan else {
                panic!("{plan:?}")
            };
            assert_eq!(owner, "ns/a");
        }
    }

    #[test]
    fn stream_without_owner_needs_adoption() {
        let mut existing = stream("a");
        existing.metadata.clear();
        let refused = plan_stream(Some(&existing), &stream("b"), false);
        assert!(matches!(refused, Plan::Refuse(PlanError::Unowned { .. })), "{refused:?}");
        assert!(matches!(plan_stream(Some(&existing), &stream("b"), true), Plan::Update(_)));
    }

    #[test]
    fn stream_of_a_namesake_or_no_operator_needs_adoption() {
        let mut wanted = stream("b");
        wanted.metadata.insert(META_OWNER.to_owned(), "ns/a".to_owned());
        let refused = plan_stream(Some(&stream("a")), &wanted, false);
        assert!(matches!(refused, Plan::Refuse(PlanError::PreviousInstance { .. })), "{refused:?}");
        assert!(matches!(plan_stream(Some(&stream("a")), &wanted, true), Plan::Update(_)));

        let standalone = QueueSpec { owner: Owner::standalone(), ..spec("a") }.stream_config();
        let refused = plan_stream(Some(&standalone), &wanted, false);
        assert!(matches!(refused, Plan::Refuse(PlanError::Unowned { .. })), "{refused:?}");
        assert!(matches!(plan_stream(Some(&standalone), &wanted, true), Plan::Update(_)));
        // The opposite is refused, although a worker without an operator sets `adopt`.
        let refused = plan_stream(Some(&wanted), &standalone, true);
        assert!(matches!(refused, Plan::Refuse(PlanError::OtherOwner { .. })), "{refused:?}");
    }

    /// The stream of a queue that was deleted, and also released it to these.
    fn released(uid: &str, to: &str) -> Config {
        let mut released = stream(uid);
        released.metadata.insert(META_RELEASED.to_owned(), "true".to_owned());
        released.metadata.insert(META_RELEASED_TO.to_owned(), to.to_owned());
        released
    }

    /// The stream that `ns/a` wants, after `ns/a` was recreated.
    fn namesake(uid: &str) -> Config {
        let owner = Owner { name: "ns/a".to_owned(), uid: uid.to_owned() };
        QueueSpec { owner, ..spec("a") }.stream_config()
    }

    #[test]
    fn a_released_stream_goes_to_its_namesake_and_is_no_longer_released() {
        let plan = plan_stream(Some(&released("a", "")), &namesake("a2"), false);
        let Plan::Update(update) = plan else { panic!("{plan:?}") };
        assert_eq!(update.metadata, namesake("a2").metadata);
    }

    #[test]
    fn released_stream_needs_a_grant_for_another_owner() {
        let b = || stream("b");
        for adopt in [Adopt::None, Adopt::Ours, Adopt::Any] {
            for to in ["", "ns/c", "ns/bb, other/b", "ns/*", "b", ","] {
                let plan = plan_stream(Some(&released("a", to)), &b(), adopt);
                let Plan::Refuse(error) = plan else { panic!("{to}: {plan:?}") };
                let text = error.to_string();
                assert!(
                    text.contains("AsyncQueue ns/a") && text.contains("release-to=ns/b"),
                    "{text}"
                );
            }
        }
        for to in ["ns/b", "ns/c, ns/b"] {
            assert!(
                matches!(plan_stream(Some(&released("a", to)), &b(), false), Plan::Update(_)),
                "{to}"
            );
        }
        let standalone = QueueSpec { owner: Owner::standalone(), ..spec("a") }.stream_config();
        assert!(matches!(
            plan_stream(Some(&released("a", "")), &standalone, true),
            Plan::Update(_)
        ));
    }

    #[test]
    fn a_stream_of_another_program_is_taken_only_where_that_is_allowed() {
        let mut foreign = stream("a");
        foreign.metadata.clear();
        let plan = plan_stream(Some(&foreign), &stream("b"), Adopt::Ours);
        let Plan::Refuse(PlanError::NotAllowed { stream: name, subject }) = plan else {
            panic!("{plan:?}")
        };
        assert_eq!((name.as_str(), subject.as_str()), ("slow-queue", "slow-queue"));
        assert!(matches!(plan_stream(Some(&foreign), &stream("b"), Adopt::Any), Plan::Update(_)));
        // A stream of a program of this project is one of ours.
        let standalone = QueueSpec { owner: Owner::standalone(), ..spec("a") }.stream_config();
        assert!(matches!(
            plan_stream(Some(&standalone), &stream("b"), Adopt::Ours),
            Plan::Update(_)
        ));
        assert!(matches!(
            plan_stream(Some(&stream("a")), &namesake("a2"), Adopt::Ours),
            Plan::Update(_)
        ));
    }

    #[test]
    fn immutable_field_is_refused_with_its_name() {
        let mut wanted = stream("a");
        wanted.storage = StorageType::Memory;
        let Plan::Refuse(error) = plan_stream(Some(&stream("a")), &wanted, false) else {
            panic!("taken")
        };
        assert!(error.to_string().starts_with("storage of `slow-queue` is File"), "{error}");
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

    #[test]
    fn a_queue_is_suspended_by_its_consumer_of_calls_alone() {
        let (running, mut suspended) = (spec("a"), spec("a"));
        suspended.suspended = true;
        assert_eq!(suspended.stream_config(), running.stream_config());
        assert_eq!(suspended.callback_consumer_config(), running.callback_consumer_config());
        let (paused, active) = (suspended.consumer_config(), running.consumer_config());
        assert!(paused.pause_until.is_some() && active.pause_until.is_none());
        assert_eq!(plan_consumer(Some(&active), &paused), Plan::Keep);
    }
}
