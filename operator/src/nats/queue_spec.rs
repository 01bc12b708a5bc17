//! Converts an `AsyncQueue` to the queue on `JetStream` that it asks for.

use asyncqueue::{
    NameError, QueueName,
    stream::{self, Adopt, DeadLetterSettings, Limits, Owner, QueueSpec},
};
use kube::ResourceExt;

use super::allowed_streams::AllowedStreams;
use crate::{
    crd::{AsyncQueue, LimitsSpec, Storage},
    labels::{ADOPT_ANNOTATION, RELEASE_TO_ANNOTATION},
};

/// Returns which streams without an owner an `AsyncQueue` may take over. Without its annotation,
/// there are no such streams. Streams of other programs must have a name and a subject that are in
/// the operator's list.
pub(crate) fn adoption(queue: &AsyncQueue, spec: &QueueSpec, allowed: &AllowedStreams) -> Adopt {
    if queue.annotations().get(ADOPT_ANNOTATION).is_none_or(|adopt| adopt.trim() != "true") {
        Adopt::None
    } else if allowed.contain(&spec.stream) && allowed.contain(&spec.subject) {
        Adopt::Any
    } else {
        Adopt::Ours
    }
}

/// Returns the other `AsyncQueues` to which the streams of this one are released.
fn release_to(queue: &AsyncQueue) -> Vec<String> {
    let named =
        queue.annotations().get(RELEASE_TO_ANNOTATION).map(String::as_str).unwrap_or_default();
    named.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Returns the queue that an `AsyncQueue` asks for. Fails only on a name that the API server should
/// have refused.
pub(crate) fn queue_spec(object: &AsyncQueue) -> Result<QueueSpec, NameError> {
    let queue: QueueName = object.name_any().parse()?;
    let owner = Owner { name: object.namespaced_name(), uid: object.uid().unwrap_or_default() };
    let (stream, consumer, dead) =
        (&object.spec.stream, &object.spec.consumer, &object.spec.dead_letter);
    let defaults = QueueSpec::new(queue, owner);
    Ok(QueueSpec {
        stream: stream.name.clone().unwrap_or(defaults.stream),
        subject: stream.subject.clone().unwrap_or(defaults.subject),
        durable: consumer.durable_name.clone().unwrap_or(defaults.durable),
        storage: match stream.storage {
            Storage::File => stream::Storage::File,
            Storage::Memory => stream::Storage::Memory,
        },
        replicas: usize::try_from(stream.replicas).unwrap_or(1),
        duplicate_window: stream.duplicate_window.0,
        ack_wait: consumer.ack_wait.0,
        fairness: object.spec.fairness,
        limits: limits(&object.spec.limits),
        dead_letters: DeadLetterSettings {
            enabled: dead.enabled,
            max_age: dead.max_age.0,
            max_messages: dead.max_messages,
        },
        suspended: object.spec.suspend,
        release_to: release_to(object),
        queue: defaults.queue,
        owner: defaults.owner,
    })
}

fn limits(spec: &LimitsSpec) -> Limits {
    Limits {
        max_payload: spec.max_payload.map(|size| size.0),
        max_messages: spec.max_messages,
        max_bytes: spec.max_bytes.map(|size| i64::try_from(size.0).unwrap_or(i64::MAX)),
        max_age: spec.max_age.map(|age| age.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use asyncqueue::GoDuration;

    use super::*;
    use crate::{crd::Size, fixtures};

    #[test]
    fn names_follow_from_the_name_of_the_queue() {
        let spec = queue_spec(&fixtures::queue("slow-queue")).unwrap();
        assert_eq!((spec.stream.as_str(), spec.subject.as_str()), ("slow-queue", "slow-queue"));
        assert_eq!(spec.durable, "slow-queue-workers");
        assert_eq!(spec.owner.name, "openfaas/slow-queue");
        assert_eq!(spec.owner.uid, fixtures::uid("slow-queue"));
    }

    #[test]
    fn the_spec_sets_the_stream_and_the_consumer() {
        let mut queue = fixtures::queue("slow-queue");
        queue.spec.stream.name = Some("SLOW".to_owned());
        queue.spec.stream.subject = Some("jobs.slow".to_owned());
        queue.spec.stream.replicas = 3;
        queue.spec.stream.storage = Storage::Memory;
        queue.spec.stream.duplicate_window = GoDuration(Duration::from_secs(5));
        queue.spec.consumer.durable_name = Some("slow".to_owned());
        queue.spec.consumer.ack_wait = GoDuration(Duration::from_secs(7));
        let spec = queue_spec(&queue).unwrap();
        let (stream, consumer) = (spec.stream_config(), spec.consumer_config());
        assert_eq!((stream.name.as_str(), stream.num_replicas), ("SLOW", 3));
        assert_eq!(stream.subjects, ["jobs.slow", "jobs.slow.>"]);
        assert_eq!(stream.storage, stream::Storage::Memory.into());
        assert_eq!(stream.duplicate_window, Duration::from_secs(5));
        assert_eq!(consumer.durable_name.as_deref(), Some("slow"));
        assert_eq!(consumer.ack_wait, Duration::from_secs(7));
    }

    #[test]
    fn the_limits_of_a_queue_are_those_of_its_streams() {
        let mut queue = fixtures::queue("slow-queue");
        queue.spec.limits = LimitsSpec {
            max_payload: Some(Size(256 << 10)),
            max_messages: 7,
            max_bytes: Some(Size(5000)),
            max_age: Some(GoDuration(Duration::from_secs(3600))),
            ..LimitsSpec::default()
        }
        .into();
        queue.spec.dead_letter.max_age = GoDuration(Duration::from_secs(60));
        queue.spec.dead_letter.max_messages = 8;
        let spec = queue_spec(&queue).unwrap();
        let calls = spec.stream_config();
        assert_eq!(
            (calls.max_messages, calls.max_bytes, calls.max_message_size),
            (7, 5000, 264 << 10)
        );
        // Workers end older calls before; this is the last limit.
        assert_eq!(calls.max_age, Duration::from_secs(7200));
        let dead = spec.dead_letter_config();
        assert_eq!((dead.max_messages, dead.max_age), (8, Duration::from_secs(60)));
        // JetStream refuses to remember ids for longer than messages.
        assert_eq!(dead.duplicate_window, Duration::from_secs(60));
        // These limits do not apply to results, which are in another stream.
        let results = spec.callback_config();
        assert_eq!(
            (results.max_bytes, results.max_message_size, results.max_age),
            (-1, -1, Duration::ZERO)
        );
        let unlimited = queue_spec(&fixtures::queue("q")).unwrap().stream_config();
        assert_eq!((unlimited.max_messages, unlimited.max_bytes), (1_000_000, -1));
        assert_eq!((unlimited.max_message_size, unlimited.max_age), (-1, Duration::ZERO));
    }

    #[test]
    fn settings_of_workers_do_not_change_the_queue() {
        let mut queue = fixtures::queue("slow-queue");
        let before = queue_spec(&queue).unwrap();
        queue.spec.max_inflight = 9;
        queue.spec.timeout = GoDuration(Duration::from_secs(900));
        queue.spec.replicas = 3;
        queue.spec.retry.max_attempts = 2;
        queue.spec.callback.max_attempts = 2;
        assert_eq!(queue_spec(&queue).unwrap(), before);
    }

    #[test]
    fn adoption_needs_the_annotation_and_an_allowed_stream() {
        let of = |queue: &AsyncQueue, allowed: &str| {
            adoption(queue, &queue_spec(queue).unwrap(), &allowed.parse().unwrap())
        };
        let mut queue = fixtures::queue("orders");
        assert_eq!(of(&queue, "*"), Adopt::None);
        queue.annotations_mut().insert(ADOPT_ANNOTATION.to_owned(), "true".to_owned());
        assert_eq!(of(&queue, "faas-*"), Adopt::Ours);
        assert_eq!(of(&queue, "faas-*,orders"), Adopt::Any);
        // The subject must be in the list too.
        queue.spec.stream.subject = Some("billing".to_owned());
        assert_eq!(of(&queue, "orders"), Adopt::Ours);
        assert_eq!(of(&queue, "orders,billing"), Adopt::Any);
    }

    #[test]
    fn the_release_annotation_names_other_queues() {
        let mut queue = fixtures::queue("slow-queue");
        assert_eq!(queue_spec(&queue).unwrap().release_to, [""; 0]);
        let named = " team-b/slow-queue,, c/q ".to_owned();
        queue.annotations_mut().insert(RELEASE_TO_ANNOTATION.to_owned(), named);
        assert_eq!(queue_spec(&queue).unwrap().release_to, ["team-b/slow-queue", "c/q"]);
    }
}
