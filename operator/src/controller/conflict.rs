//! Decides which of two `AsyncQueues` steps back if both want the same thing on `JetStream`.
//!
//! The stamp on the stream has the final decision. This module decides the same earlier, before
//! anything is changed, and also if there is no stream yet. A queue that owns its stream keeps it;
//! among the others, the oldest has precedence.

use asyncqueue::{
    NameError,
    stream::{Overlap, QueueSpec, find_overlap},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::{
    crd::{
        AsyncQueue,
        conditions::{condition_type, find, reason},
    },
    nats::queue_spec::queue_spec,
};

/// What this `AsyncQueue` wants and another one has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Conflict {
    /// The name: for workers and functions, it would be ambiguous.
    #[error(
        "the AsyncQueue {other} has the same name, which must be unique on one NATS: delete one of \
         the two, or create this one under another name"
    )]
    Name { other: String },
    /// A stream.
    #[error(
        "stream `{stream}` belongs to the AsyncQueue {other}: give this queue another \
         spec.stream.name (recreate it, the name can't be changed), or delete that one"
    )]
    Stream { stream: String, other: String },
    /// A subject.
    #[error(
        "subject `{subject}` overlaps with `{other_subject}` of the AsyncQueue {other}: give this \
         queue another spec.stream.subject (recreate it, the subject can't be changed), or delete \
         that one"
    )]
    Subject { subject: String, other_subject: String, other: String },
}

/// Returns the conflict that keeps an `AsyncQueue` from what it asks for, if other queues have it
/// or have precedence.
pub(crate) fn conflict<'a>(
    queue: &AsyncQueue,
    spec: &QueueSpec,
    all: impl IntoIterator<Item = &'a AsyncQueue>,
) -> Option<Conflict> {
    let mut competitors: Vec<_> = all
        .into_iter()
        .filter(|other| other.uid() != queue.uid() && other.spec.nats.url == queue.spec.nats.url)
        // Most of the up to ten thousand queues have nothing in common, so the cheapest check comes
        // first.
        .filter(|other| may_overlap(queue, other))
        .filter(|other| !has_conflict(other) && precedence(other) < precedence(queue))
        .filter_map(|other| Some((precedence(other), overlap(spec, other).ok()??)))
        .collect();
    competitors.sort_by_key(|(precedence, _)| *precedence);
    competitors.into_iter().next().map(|(_, conflict)| conflict)
}

/// Returns whether an `AsyncQueue` lost a conflict itself, and so does not block others.
fn has_conflict(queue: &AsyncQueue) -> bool {
    let ready =
        queue.status.as_ref().and_then(|status| find(&status.conditions, condition_type::READY));
    ready.is_some_and(|ready| {
        [reason::RESOURCE_CONFLICT, reason::SUBJECT_OVERLAP].contains(&&*ready.reason)
            && !queue.owns_stream()
    })
}

/// Returns the precedence: the lowest value comes first.
fn precedence(queue: &AsyncQueue) -> (bool, Option<&Time>, Option<&String>) {
    (!queue.owns_stream(), queue.metadata.creation_timestamp.as_ref(), queue.metadata.uid.as_ref())
}

/// Returns whether two queues could want the same thing. Everything that a queue claims begins with
/// one of its names. So if two queues share something, a name of one is a prefix of a name of the
/// other.
fn may_overlap(queue: &AsyncQueue, other: &AsyncQueue) -> bool {
    names(queue).any(|a| names(other).any(|b| a.starts_with(b) || b.starts_with(a)))
}

/// Returns the names from which those of streams and subjects are built.
fn names(queue: &AsyncQueue) -> impl Iterator<Item = &str> {
    let stream = &queue.spec.stream;
    [queue.metadata.name.as_deref(), stream.name.as_deref(), stream.subject.as_deref()]
        .into_iter()
        .flatten()
}

/// Returns what both queues want.
fn overlap(queue: &QueueSpec, other: &AsyncQueue) -> Result<Option<Conflict>, NameError> {
    let theirs = queue_spec(other)?;
    let other = other.namespaced_name();
    if queue.queue == theirs.queue {
        return Ok(Some(Conflict::Name { other }));
    }
    Ok(find_overlap(queue, &theirs).map(|clash| match clash {
        Overlap::Stream(stream) => Conflict::Stream { stream, other },
        Overlap::Subject { subject, others: other_subject } => {
            Conflict::Subject { subject, other_subject, other }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crd::{AsyncQueueStatus, conditions::ConditionValue},
        fixtures,
    };

    fn younger(name: &str) -> AsyncQueue {
        let mut queue = fixtures::queue(name);
        queue.metadata.creation_timestamp = Some(fixtures::second(200));
        queue
    }

    fn verdict(queue: &AsyncQueue, other: &AsyncQueue) -> Option<Conflict> {
        conflict(queue, &queue_spec(queue).unwrap(), [queue, other])
    }

    #[test]
    fn queues_with_nothing_in_common_have_no_conflict() {
        assert_eq!(verdict(&younger("a"), &fixtures::owner("b")), None);
        // `jobs` does not cover `jobs2`.
        let mut queue = younger("a");
        queue.spec.stream.subject = Some("jobs2".to_owned());
        let mut other = fixtures::owner("b");
        other.spec.stream.subject = Some("jobs".to_owned());
        assert_eq!(verdict(&queue, &other), None);
    }

    #[test]
    fn the_second_claimant_of_a_stream_has_the_conflict() {
        let mut queue = younger("a");
        queue.spec.stream.name = Some("b".to_owned());
        let other = fixtures::owner("b");
        let expected = Conflict::Stream { stream: "b".to_owned(), other: "openfaas/b".to_owned() };
        assert_eq!(verdict(&queue, &other), Some(expected));
        assert_eq!(verdict(&other, &queue), None);
    }

    #[test]
    fn the_owner_of_a_stream_precedes_an_older_queue() {
        let mut old = fixtures::queue("old");
        old.spec.stream.name = Some("young".to_owned());
        let mut young = fixtures::owner("young");
        young.metadata.creation_timestamp = Some(fixtures::second(200));
        assert!(matches!(verdict(&old, &young), Some(Conflict::Stream { .. })));
        assert_eq!(verdict(&young, &old), None);
    }

    #[test]
    fn the_older_of_two_queues_without_streams_precedes() {
        let (old, mut young) = (fixtures::queue("a"), younger("a"));
        young.metadata.namespace = Some("other".to_owned());
        young.metadata.uid = Some("uid-other".to_owned());
        assert_eq!(verdict(&old, &young), None);
        let expected = Conflict::Name { other: "openfaas/a".to_owned() };
        assert_eq!(verdict(&young, &old), Some(expected));
        young.metadata.creation_timestamp = old.metadata.creation_timestamp.clone();
        assert_ne!(verdict(&young, &old).is_some(), verdict(&old, &young).is_some());
    }

    #[test]
    fn dead_letters_and_subjects_of_another_queue_conflict() {
        let other = fixtures::owner("b");
        assert!(matches!(verdict(&younger("b-dead"), &other), Some(Conflict::Stream { .. })));
        let mut queue = younger("a");
        queue.spec.stream.subject = Some("b.more".to_owned());
        let conflict = verdict(&queue, &other).unwrap().to_string();
        assert!(
            conflict.starts_with("subject `b.more` overlaps with `b` of the AsyncQueue openfaas/b")
        );
    }

    #[test]
    fn queues_that_overlap_pass_the_prefix_check() {
        let of = |name: &str, stream: Option<&str>, subject: Option<&str>| {
            let mut queue = younger(name);
            queue.spec.stream.name = stream.map(str::to_owned);
            queue.spec.stream.subject = subject.map(str::to_owned);
            queue
        };
        let names = ["a", "b", "ab", "a-dead", "a-callbacks", "b-dead"];
        let names = || names.into_iter().map(Some).chain([None]);
        let queues: Vec<_> = names()
            .flatten()
            .flat_map(|name| names().map(move |stream| (name, stream)))
            .flat_map(|(name, stream)| names().map(move |subject| of(name, stream, subject)))
            .collect();
        let mut met = 0;
        for queue in &queues {
            let spec = queue_spec(queue).unwrap();
            for other in &queues {
                if overlap(&spec, other).unwrap().is_some() {
                    met += 1;
                    assert!(
                        may_overlap(queue, other),
                        "{:?} {:?}",
                        queue.spec.stream,
                        other.spec.stream
                    );
                }
            }
        }
        assert!(met > queues.len());
    }

    #[test]
    fn a_queue_with_a_conflict_does_not_block_others() {
        let refused = || ConditionValue::false_(reason::RESOURCE_CONFLICT, "");
        let mut old = fixtures::queue("a");
        let ready =
            refused().into_condition(condition_type::READY, None, &[], &fixtures::second(1));
        old.status =
            Some(AsyncQueueStatus { conditions: vec![ready], ..AsyncQueueStatus::default() });
        let mut young = younger("b");
        young.spec.stream.subject = Some("a".to_owned());
        assert_eq!(verdict(&young, &old), None);
        old.status = None;
        assert!(verdict(&young, &old).is_some());
    }

    #[test]
    fn queues_on_different_nats_have_no_conflict() {
        let mut queue = younger("a");
        queue.spec.nats.url = Some("nats://elsewhere".to_owned());
        let mut other = fixtures::owner("a");
        other.metadata.uid = Some("uid-other".to_owned());
        assert_eq!(verdict(&queue, &other), None);
    }
}
