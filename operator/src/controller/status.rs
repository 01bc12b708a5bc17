//! The last step: derives the status from the outcome. Pure, except for the write at the end.

use asyncqueue::{
    FunctionName,
    stats::BlockedCalls,
    stream::{EnsureError, PlanError},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use super::{
    Context,
    apply::{ObjectError, Outcome, Stored, StreamError, Workers},
    build::selector_text,
    ignore_gone,
    workers::Fleet,
};
use crate::{
    cause::Cause,
    conditions::{Status, Verdict, find, kind, reason},
    crd::{AsyncQueue, AsyncQueueStatus, Condition},
    error::chain,
    figures::Figures,
    functions::Refused,
};

/// Field manager of the status.
const FIELD_MANAGER: &str = "asyncqueue-operator/status";

/// What is known of the functions that name a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Functions<'a> {
    /// Number of functions that send their calls to it.
    pub(crate) count: Option<usize>,
    /// The functions that are not admitted.
    pub(crate) refused: &'a Refused,
}

/// Message of a suspended queue.
const SUSPENDED: &str = "spec.suspend is true: calls are accepted, and none is delivered";

/// Writes what has changed in a status. Returns whether anything has changed. A deleted queue is
/// not an error.
pub(crate) async fn write(
    context: &Context,
    queue: &AsyncQueue,
    status: &AsyncQueueStatus,
) -> kube::Result<bool> {
    let news = news(queue.status.as_ref(), status);
    if news.is_empty() {
        return Ok(false);
    }
    let namespace = queue.namespace().unwrap_or_default();
    let api: Api<AsyncQueue> = Api::namespaced(context.client.clone(), &namespace);
    // The uid keeps the status from another queue of the same name that was created since.
    let patch = json!({ "metadata": { "uid": queue.uid() }, "status": news });
    let params =
        PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let answer = api.patch_status(&queue.name_any(), &params, &Patch::Merge(&patch)).await;
    if let Ok(queue) = &answer {
        context.written.note(queue);
    }
    ignore_gone(answer)?;
    Ok(true)
}

/// Returns what differs from the status before, as a JSON merge patch (RFC 7386). Two tasks write
/// the numbers and the rest, and neither overwrites what the other has written.
fn news(before: Option<&AsyncQueueStatus>, now: &AsyncQueueStatus) -> Map<String, Value> {
    let (before, mut news) = (before.map(fields).unwrap_or_default(), fields(now));
    for name in before.keys() {
        news.entry(name).or_insert(Value::Null);
    }
    news.retain(|name, value| before.get(name) != Some(value));
    news
}

fn fields(status: &AsyncQueueStatus) -> Map<String, Value> {
    // A status is an object.
    let Ok(Value::Object(fields)) = serde_json::to_value(status) else { return Map::new() };
    fields
}

/// Returns the status of a queue after a reconciliation. `cause` is why its workers do not start.
/// The numbers stay as they are. Only an empty queue that has just got its stream starts with its
/// own numbers.
pub(crate) fn status(
    queue: &AsyncQueue,
    outcome: &Outcome,
    cause: Option<&Cause>,
    functions: &Functions<'_>,
    blocked: &[BlockedCalls],
    now: &Time,
) -> AsyncQueueStatus {
    let before = queue.status.clone().unwrap_or_default();
    let (stream, consumer) = stream_verdicts(&outcome.stream);
    let suspended = suspended_verdict(&outcome.stream);
    let unique_sequences = sequences_verdict(&outcome.stream);
    let (workers, progress) =
        workers_verdicts(outcome, queue.spec.replicas, cause, &before.conditions);
    let ready = ready(&[&stream, &consumer, &workers]);
    let progressing = progressing(&[&stream, &consumer], progress);
    let for_kstatus = for_kstatus(&progressing);
    let condition = |kind, verdict: Verdict| {
        verdict.into_condition(kind, queue.metadata.generation, &before.conditions, now)
    };
    let figures = match (&outcome.stream, Figures::of(&before)) {
        (Ok(Stored { messages: 0, dead_letters, .. }), figures) if !figures.are_known() => {
            Figures::of_empty(*dead_letters, functions.count)
        }
        (_, figures) => figures,
    };
    let mut conditions = vec![
        condition(kind::READY, ready),
        condition(kind::STREAM_READY, stream),
        condition(kind::CONSUMER_READY, consumer),
        condition(kind::WORKERS_READY, workers),
        condition(kind::PROGRESSING, progressing),
        condition(kind::SUSPENDED, suspended),
        condition(kind::UNIQUE_SEQUENCES, unique_sequences),
        condition(kind::CALLS_BLOCKED, blocked_verdict(blocked)),
    ];
    // These conditions exist only while they hold, since there are ten thousand queues.
    conditions.extend(for_kstatus.map(|(kind, verdict)| condition(kind, verdict)));
    if let Some(message) = refusal_of_functions(functions.refused) {
        let verdict = Verdict::yes(reason::NAMESPACE_NOT_ADMITTED, message);
        conditions.push(condition(kind::FUNCTIONS_REFUSED, verdict));
    }
    let status = AsyncQueueStatus {
        observed_generation: queue.metadata.generation,
        conditions,
        selector: queue.name_any().parse().ok().map(|name| selector_text(&name)),
        ..AsyncQueueStatus::default()
    };
    with_workers(with_stream(figures.put(status), &before, &outcome.stream), &outcome.workers)
}

/// Returns the condition that says whether the workers of a queue can store what ends its calls.
fn blocked_verdict(blocked: &[BlockedCalls]) -> Verdict {
    if blocked.is_empty() {
        return Verdict::no(reason::ACTIVE, "Workers store what ends calls.");
    }
    let kinds = blocked.iter().map(|BlockedCalls { record, reason, calls }| {
        let record = record.replace('_', " ");
        format!("{record} of {calls} calls ({reason})")
    });
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    let message = format!(
        "Workers can't store what ends calls: {kinds}. With no_space raise the limits of JetStream, with stream_full \
         deliver or delete what the stream holds, with no_stream or unavailable look at NATS."
    );
    Verdict { status: Status::True, reason: reason::RECORDS_NOT_STORED, message }
}

/// Returns the message of the condition `FunctionsRefused`; `None` if no function is refused.
fn refusal_of_functions(refused: &Refused) -> Option<String> {
    let Refused { count, first } = refused;
    if *count == 0 {
        return None;
    }
    let names = first.iter().map(FunctionName::to_string).collect::<Vec<_>>().join(", ");
    let more = if *count > first.len() { ", …" } else { "" };
    Some(format!(
        "{count} functions name this queue from namespaces that it does not admit ({names}{more}): their calls go to the \
         default queue. To admit them, add their namespaces to spec.functions.namespaces."
    ))
}

/// Returns whether the condition `FunctionsRefused` of a queue is up to date.
pub(crate) fn says_refused(queue: &AsyncQueue, refused: &Refused) -> bool {
    let conditions = queue.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let said = find(conditions, kind::FUNCTIONS_REFUSED).map(|condition| &*condition.message);
    said == refusal_of_functions(refused).as_deref()
}

/// Returns whether the condition of a queue says that its workers can't store what ends calls.
pub(crate) fn says_blocked(queue: &AsyncQueue) -> bool {
    let conditions = queue.status.iter().flat_map(|status| &status.conditions);
    let mut blocked = conditions.filter(|condition| condition.kind.as_str() == kind::CALLS_BLOCKED);
    blocked.any(|condition| condition.status.as_str() == Status::True.as_str())
}

/// Returns the status of a queue whose deletion has to wait, with the reason.
pub(crate) fn going(queue: &AsyncQueue, why: &str, now: &Time) -> AsyncQueueStatus {
    let before = queue.status.clone().unwrap_or_default();
    let conditions = before.conditions.iter().map(|condition| match condition.kind.as_str() {
        kind @ (kind::READY | kind::STREAM_READY) => Verdict::no(reason::NATS_UNAVAILABLE, why)
            .into_condition(kind, queue.metadata.generation, &before.conditions, now),
        _ => condition.clone(),
    });
    AsyncQueueStatus {
        observed_generation: queue.metadata.generation,
        conditions: conditions.collect(),
        replicas: 0,
        ready_replicas: 0,
        ..before
    }
}

/// Adds what is known of the stream. That stays valid while NATS is unavailable.
fn with_stream(
    status: AsyncQueueStatus,
    before: &AsyncQueueStatus,
    stream: &Result<Stored, StreamError>,
) -> AsyncQueueStatus {
    match stream {
        Ok(stored) => AsyncQueueStatus {
            stream: Some(stored.stream.clone()),
            consumer: Some(stored.consumer.clone()),
            stream_created: stored.created.clone(),
            ..status
        },
        Err(error) if error.is_foreign() => status,
        Err(_) => AsyncQueueStatus {
            stream: before.stream.clone(),
            consumer: before.consumer.clone(),
            stream_created: before.stream_created.clone(),
            ..status
        },
    }
}

fn with_workers(
    status: AsyncQueueStatus,
    workers: &Result<Workers, ObjectError>,
) -> AsyncQueueStatus {
    let Ok(Workers::Deployed(deployment)) = workers else { return status };
    let Some(rollout) = deployment.rollout() else { return status };
    AsyncQueueStatus { replicas: rollout.replicas, ready_replicas: rollout.ready, ..status }
}

/// Returns the condition `Ready`: that of the first part that does not hold, or that all hold.
fn ready(parts: &[&Verdict]) -> Verdict {
    match parts.iter().find(|part| part.status != Status::True) {
        Some(part) => Verdict::no(part.reason, part.message.clone()),
        None => match parts.iter().find(|part| part.reason != reason::RECONCILED) {
            Some(special) => (*special).clone(),
            None => Verdict::yes(reason::RECONCILED, "calls are accepted and run"),
        },
    }
}

/// Returns the conditions of the stream and of the consumer.
fn stream_verdicts(stream: &Result<Stored, StreamError>) -> (Verdict, Verdict) {
    let (name, error) = match stream {
        Ok(stored) => {
            let stream = format!("stream {} stores calls", stored.stream);
            let consumer = if stored.suspended {
                Verdict::yes(reason::SUSPENDED, SUSPENDED)
            } else {
                let takes = format!("workers take calls through {}", stored.consumer);
                Verdict::yes(reason::RECONCILED, takes)
            };
            return (Verdict::yes(reason::RECONCILED, stream), consumer);
        }
        Err(StreamError::Ensure(EnsureError::Consumer(error))) => {
            let stream = Verdict::yes(reason::RECONCILED, "the stream stores calls");
            return (stream, Verdict::no(refusal(error), chain(&**error)));
        }
        Err(StreamError::Ensure(error)) => (refusal(error), chain(error)),
        Err(StreamError::Invalid(invalid)) => (invalid.reason(), invalid.to_string()),
        Err(
            error @ (StreamError::Disconnected { .. }
            | StreamError::NoJetStream { .. }
            | StreamError::Silent { .. }),
        ) => (reason::NATS_UNAVAILABLE, chain(error)),
    };
    (Verdict::no(name, error), blocked())
}

/// Returns whether the queue is suspended on the server. What is wanted is in the spec.
fn suspended_verdict(stream: &Result<Stored, StreamError>) -> Verdict {
    match stream {
        Ok(Stored { suspended: true, .. }) => Verdict::yes(reason::SUSPENDED, SUSPENDED),
        Ok(_) => Verdict::no(reason::ACTIVE, "calls are delivered"),
        Err(_) => blocked(),
    }
}

/// Returns whether no sequence of the streams is ever used twice.
fn sequences_verdict(stream: &Result<Stored, StreamError>) -> Verdict {
    match stream {
        Ok(Stored { repeating, .. }) if repeating.is_empty() => {
            Verdict::yes(reason::RECONCILED, "Sequences are unique.")
        }
        Ok(Stored { repeating, .. }) => Verdict::no(
            reason::SEQUENCES_BEGIN_AT_1,
            format!(
                "Sequences of {} begin at 1, since an earlier version or another program created \
                 it: acks and tombstones of an earlier stream of the same name can match its calls. \
                 To recreate it once, see \
                 \"Recreate a stream whose sequences begin at 1\" in docs/operations.md.",
                repeating.join(", ")
            ),
        ),
        Err(_) => blocked(),
    }
}

/// Returns the reason why NATS does not have the desired state.
fn refusal(error: &EnsureError) -> &'static str {
    match error {
        EnsureError::Refused(PlanError::ImmutableField { .. }) => reason::IMMUTABLE_FIELD_CHANGED,
        EnsureError::Refused(_) => reason::RESOURCE_CONFLICT,
        EnsureError::SubjectOverlap { .. } => reason::SUBJECT_OVERLAP,
        EnsureError::Server { .. } => reason::NATS_REFUSED,
        EnsureError::Clock(_) => reason::CLOCK_WRONG,
        EnsureError::Unavailable { .. } => reason::NATS_UNAVAILABLE,
        EnsureError::Consumer(error) => refusal(error),
    }
}

fn blocked() -> Verdict {
    Verdict::unknown(reason::BLOCKED, "waits for the stream, see StreamReady")
}

/// Returns `WorkersReady` and the progress of the workers, from the Deployment and the other
/// objects.
fn workers_verdicts(
    outcome: &Outcome,
    replicas: i32,
    cause: Option<&Cause>,
    said: &[Condition],
) -> (Verdict, Verdict) {
    let workers = match (&outcome.workers, &outcome.beside) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(workers), Ok(())) => Ok(workers),
    };
    let (reason, error) = match workers {
        Ok(Workers::Deployed(deployment)) => {
            let rollout = deployment.rollout().cloned().unwrap_or_default();
            let fleet = Fleet { replicas, rollout: &rollout, cause, said };
            return (fleet.readiness(), fleet.progress());
        }
        Ok(Workers::Absent) => return (blocked(), blocked()),
        Err(error @ ObjectError::Foreign { .. }) => (reason::RESOURCE_CONFLICT, error),
        Err(error @ ObjectError::Going { .. }) => (reason::PROGRESSING, error),
        Err(error @ ObjectError::Kubernetes { .. }) => (reason::KUBERNETES_REFUSED, error),
    };
    let verdict = Verdict::no(reason, error.to_string());
    let is_going = matches!(error, ObjectError::Going { .. });
    let status = if is_going { Status::True } else { Status::False };
    (verdict.clone(), Verdict { status, ..verdict })
}

/// Returns the condition `Progressing`: the progress of the workers, once they have something to
/// take calls from.
fn progressing(parts: &[&Verdict], workers: Verdict) -> Verdict {
    let missing = parts.iter().find(|part| part.status != Status::True);
    missing.map_or(workers, |part| Verdict::no(part.reason, part.message.clone()))
}

/// Returns the condition for tools that follow kstatus. kstatus has two conditions for
/// `Progressing`. It takes a queue with neither of them for done if the queue is ready. A queue
/// that waits for NATS is not stalled.
/// <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>
fn for_kstatus(progressing: &Verdict) -> Option<(&'static str, Verdict)> {
    let verdict = Verdict { status: Status::True, ..progressing.clone() };
    match (progressing.status, progressing.reason) {
        (Status::True, _) => Some((kind::RECONCILING, verdict)),
        (_, reason::RECONCILED | reason::NATS_UNAVAILABLE | reason::BLOCKED) => None,
        _ => Some((kind::STALLED, verdict)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::{
        api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus},
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    };

    use super::*;
    use crate::{
        cause, claims::Conflict, controller::validate::Invalid, fixtures, workload::Workload,
    };

    /// Returns a queue with two workers.
    fn queue() -> AsyncQueue {
        let mut queue = fixtures::queue("slow-queue");
        queue.spec.replicas = 2;
        queue
    }

    fn stored() -> Stored {
        Stored {
            stream: "slow-queue".to_owned(),
            consumer: "slow-queue-workers".to_owned(),
            created: Some(fixtures::second(50)),
            suspended: false,
            messages: 0,
            dead_letters: 3,
            repeating: vec![],
            changes: vec![],
        }
    }

    fn deployment(ready: i32, conditions: Vec<DeploymentCondition>) -> Deployment {
        let status = DeploymentStatus {
            observed_generation: Some(2),
            replicas: Some(2),
            updated_replicas: Some(2),
            ready_replicas: Some(ready),
            available_replicas: Some(ready),
            conditions: Some(conditions),
            ..DeploymentStatus::default()
        };
        let metadata = ObjectMeta { generation: Some(2), ..ObjectMeta::default() };
        Deployment { metadata, status: Some(status), spec: None }
    }

    fn applied(stream: Result<Stored, StreamError>, workers: &Deployment) -> Outcome {
        let workers = Workers::Deployed(Arc::new(Workload::of_workers(workers)));
        Outcome { stream, workers: Ok(workers), beside: Ok(()) }
    }

    fn disconnected() -> StreamError {
        StreamError::Disconnected {
            why: "waiting for NATS at nats:4222: Connection refused".to_owned(),
        }
    }

    fn functions(count: usize, refused: &Refused) -> Functions<'_> {
        Functions { count: Some(count), refused }
    }

    fn of(queue: &AsyncQueue, outcome: &Outcome) -> AsyncQueueStatus {
        status(
            queue,
            outcome,
            None,
            &functions(2, &Refused::default()),
            &[],
            &fixtures::second(1000),
        )
    }

    fn condition<'a>(status: &'a AsyncQueueStatus, kind: &str) -> &'a Condition {
        find(&status.conditions, kind).unwrap()
    }

    #[track_caller]
    fn assert_condition(status: &AsyncQueueStatus, kind: &str, expected: (&str, &str)) {
        let found = condition(status, kind);
        assert_eq!((&*found.status, &*found.reason), expected, "{kind}: {}", found.message);
    }

    #[test]
    fn a_queue_is_ready_when_all_of_it_is() {
        let status = of(&queue(), &applied(Ok(stored()), &deployment(2, vec![])));
        let sequences = kind::UNIQUE_SEQUENCES;
        for kind in
            [kind::READY, kind::STREAM_READY, kind::CONSUMER_READY, kind::WORKERS_READY, sequences]
        {
            assert_condition(&status, kind, ("True", reason::RECONCILED));
            assert_eq!(condition(&status, kind).observed_generation, Some(3));
        }
        assert_eq!((status.replicas, status.ready_replicas), (2, 2));
        assert_eq!(status.stream.as_deref(), Some("slow-queue"));
        assert!(status.selector.unwrap().contains("asyncqueue.io/queue=slow-queue"));
        assert_eq!(status.observed_generation, Some(3));
    }

    #[test]
    fn nothing_new_is_the_same_status() {
        let outcome = applied(Ok(stored()), &deployment(2, vec![]));
        let mut queue = queue();
        let first = of(&queue, &outcome);
        queue.status = Some(AsyncQueueStatus { pending: Some(5), ..first });
        let refused = Refused::default();
        let functions = functions(9, &refused);
        let second = status(&queue, &outcome, None, &functions, &[], &fixtures::second(2000));
        assert_eq!(Some(&second), queue.status.as_ref());
        assert_eq!(news(queue.status.as_ref(), &second), Map::new());
    }

    #[test]
    fn of_a_status_what_changed_is_written_and_what_is_not_known_any_more_is_removed() {
        let before =
            AsyncQueueStatus { pending: Some(5), inflight: Some(1), ..AsyncQueueStatus::default() };
        let now = AsyncQueueStatus { pending: Some(6), inflight: None, ..before.clone() };
        assert_eq!(
            Value::Object(news(Some(&before), &now)),
            json!({ "pending": 6, "inflight": null })
        );
        // The first status also contains the defaults.
        assert_eq!(news(None, &now)["replicas"], 0);
    }

    #[test]
    fn an_empty_queue_begins_with_its_numbers_and_one_that_holds_calls_waits_for_them() {
        let status = of(&queue(), &applied(Ok(stored()), &deployment(2, vec![])));
        assert_eq!(Figures::of(&status), Figures::of_empty(3, Some(2)));
        let full = Stored { messages: 1, ..stored() };
        let status = of(&queue(), &applied(Ok(full), &deployment(2, vec![])));
        assert_eq!(Figures::of(&status), Figures::default());
    }

    #[test]
    fn while_nats_is_away_the_stream_is_still_ours_and_its_numbers_are_unknown() {
        let mut queue = queue();
        queue.status = Some(of(&queue, &applied(Ok(stored()), &deployment(2, vec![]))));
        let status = of(&queue, &applied(Err(disconnected()), &deployment(2, vec![])));
        assert_condition(&status, kind::READY, ("False", reason::NATS_UNAVAILABLE));
        assert_condition(&status, kind::STREAM_READY, ("False", reason::NATS_UNAVAILABLE));
        assert_condition(&status, kind::CONSUMER_READY, ("Unknown", reason::BLOCKED));
        assert_condition(&status, kind::WORKERS_READY, ("True", reason::RECONCILED));
        assert_eq!(status.stream.as_deref(), Some("slow-queue"));
        assert_eq!(status.stream_created, Some(fixtures::second(50)));
    }

    #[test]
    fn a_stream_that_is_anothers_is_not_in_the_status() {
        let mut queue = queue();
        queue.status = Some(of(&queue, &applied(Ok(stored()), &deployment(2, vec![]))));
        let refusal =
            PlanError::OtherOwner { stream: "slow-queue".to_owned(), owner: "ns/other".to_owned() };
        let stream = Err(StreamError::Ensure(EnsureError::Refused(refusal)));
        let outcome = Outcome { stream, workers: Ok(Workers::Absent), beside: Ok(()) };
        let status = of(&queue, &outcome);
        assert_condition(&status, kind::READY, ("False", reason::RESOURCE_CONFLICT));
        assert!(condition(&status, kind::READY).message.contains("ns/other"));
        assert_condition(&status, kind::WORKERS_READY, ("Unknown", reason::BLOCKED));
        assert_eq!((status.stream, status.replicas), (None, 0));
    }

    #[test]
    fn a_refused_queue_says_why() {
        let invalid = Invalid::Conflict(Conflict::Name { other: "ns/slow-queue".to_owned() });
        let stream = Err(StreamError::Invalid(invalid));
        let outcome = Outcome { stream, workers: Ok(Workers::Absent), beside: Ok(()) };
        let status = of(&queue(), &outcome);
        assert_condition(&status, kind::READY, ("False", reason::RESOURCE_CONFLICT));
        assert!(
            condition(&status, kind::READY).message.contains("ns/slow-queue has the same name")
        );
    }

    #[test]
    fn a_queue_that_is_not_valid_any_more_keeps_what_it_has() {
        let mut queue = queue();
        queue.status = Some(of(&queue, &applied(Ok(stored()), &deployment(2, vec![]))));
        let stream = Err(StreamError::Invalid(Invalid::Nats("no host".to_owned())));
        let status = of(&queue, &applied(stream, &deployment(2, vec![])));
        assert_condition(&status, kind::READY, ("False", reason::INVALID_SPEC));
        assert_condition(&status, kind::WORKERS_READY, ("True", reason::RECONCILED));
        assert_eq!((status.stream.as_deref(), status.ready_replicas), (Some("slow-queue"), 2));
    }

    #[test]
    fn a_consumer_that_fails_leaves_the_stream_ready() {
        let source: async_nats::jetstream::Error =
            serde_json::from_value(json!({ "code": 400, "err_code": 10100, "description": "no" }))
                .unwrap();
        let error = EnsureError::Server { what: "for consumer c".to_owned(), source };
        let error = StreamError::Ensure(EnsureError::Consumer(Box::new(error)));
        let status = of(&queue(), &applied(Err(error), &deployment(2, vec![])));
        assert_condition(&status, kind::STREAM_READY, ("True", reason::RECONCILED));
        assert_condition(&status, kind::CONSUMER_READY, ("False", reason::NATS_REFUSED));
        assert_condition(&status, kind::READY, ("False", reason::NATS_REFUSED));
    }

    #[test]
    fn workers_that_come_up_progress_and_those_that_do_not_stall() {
        let queue = queue();
        let new = of(&queue, &applied(Ok(stored()), &deployment(0, vec![])));
        assert_condition(&new, kind::READY, ("False", reason::PROGRESSING));
        assert_condition(&new, kind::PROGRESSING, ("True", reason::PROGRESSING));
        assert_condition(&new, kind::RECONCILING, ("True", reason::PROGRESSING));
        assert_eq!(&*condition(&new, kind::READY).message, "0 of 2 workers are ready.");
        assert_eq!(find(&new.conditions, kind::STALLED), None);

        let partly = of(&queue, &applied(Ok(stored()), &deployment(1, vec![])));
        assert_condition(&partly, kind::READY, ("True", reason::RECONCILED));
        assert_condition(&partly, kind::RECONCILING, ("True", reason::PROGRESSING));

        let outcome = applied(Ok(stored()), &deployment(0, vec![]));
        let (image, refused) = (cause::image("x:1", "not found"), Refused::default());
        let functions = functions(2, &refused);
        let stuck =
            status(&queue, &outcome, Some(&image), &functions, &[], &fixtures::second(1000));
        for (kind, holds) in [
            (kind::READY, "False"),
            (kind::WORKERS_READY, "False"),
            (kind::PROGRESSING, "False"),
            (kind::STALLED, "True"),
        ] {
            assert_condition(&stuck, kind, (holds, reason::IMAGE_PULL_FAILED));
            assert!(
                condition(&stuck, kind).message.contains("x:1 cannot be pulled: not found"),
                "{kind}"
            );
        }
        assert_eq!(find(&stuck.conditions, kind::RECONCILING), None);

        let done = of(&queue, &applied(Ok(stored()), &deployment(2, vec![])));
        assert_condition(&done, kind::PROGRESSING, ("False", reason::RECONCILED));
        for absent in [kind::RECONCILING, kind::STALLED] {
            assert_eq!(find(&done.conditions, absent), None);
        }
    }

    #[test]
    fn what_the_deployment_says_of_an_earlier_spec_is_not_about_this_one() {
        let overdue = DeploymentCondition {
            type_: "Progressing".to_owned(),
            status: "False".to_owned(),
            message: Some("timed out progressing.".to_owned()),
            ..DeploymentCondition::default()
        };
        let mut deployment = deployment(0, vec![overdue]);
        let status = of(&queue(), &applied(Ok(stored()), &deployment));
        assert_condition(&status, kind::WORKERS_READY, ("False", reason::WORKERS_UNAVAILABLE));
        deployment.metadata.generation = Some(3);
        let status = of(&queue(), &applied(Ok(stored()), &deployment));
        assert_condition(&status, kind::WORKERS_READY, ("False", reason::PROGRESSING));
    }

    #[test]
    fn an_object_that_goes_is_waited_for_and_one_of_others_stalls() {
        let outcome = |error| Outcome {
            workers: Err(error),
            ..applied(Ok(stored()), &deployment(2, vec![]))
        };
        let (kind, name) = ("Deployment".into(), "q-worker".to_owned());
        let status = of(&queue(), &outcome(ObjectError::Going { kind, name }));
        assert_condition(&status, kind::READY, ("False", reason::PROGRESSING));
        assert_condition(&status, kind::RECONCILING, ("True", reason::PROGRESSING));
        let (kind, name) = ("Deployment".into(), "q-worker".to_owned());
        let status = of(&queue(), &outcome(ObjectError::Foreign { kind, name }));
        assert_condition(&status, kind::STALLED, ("True", reason::RESOURCE_CONFLICT));
    }

    #[test]
    fn nats_that_is_unavailable_is_waited_for_and_what_it_refuses_stalls() {
        let status = of(&queue(), &applied(Err(disconnected()), &deployment(2, vec![])));
        assert_condition(&status, kind::PROGRESSING, ("False", reason::NATS_UNAVAILABLE));
        for absent in [kind::RECONCILING, kind::STALLED] {
            assert_eq!(find(&status.conditions, absent), None);
        }
        let message = &condition(&status, kind::READY).message;
        assert!(message.contains("nats:4222: Connection refused"), "{message}");
        let overlap = StreamError::Ensure(EnsureError::SubjectOverlap { subject: "s".to_owned() });
        let status = of(&queue(), &applied(Err(overlap), &deployment(2, vec![])));
        assert_condition(&status, kind::STALLED, ("True", reason::SUBJECT_OVERLAP));
    }

    #[test]
    fn a_queue_without_workers_is_ready_and_says_that_none_runs() {
        let mut queue = queue();
        queue.spec.replicas = 0;
        let status = of(&queue, &applied(Ok(stored()), &deployment(0, vec![])));
        assert_condition(&status, kind::READY, ("True", reason::SCALED_TO_ZERO));
    }

    #[test]
    fn a_suspended_queue_is_ready_and_says_so_as_the_server_does() {
        let queue = queue();
        let running = of(&queue, &applied(Ok(stored()), &deployment(2, vec![])));
        assert_condition(&running, kind::SUSPENDED, ("False", reason::ACTIVE));

        let paused = Stored { suspended: true, ..stored() };
        let suspended = of(&queue, &applied(Ok(paused), &deployment(2, vec![])));
        assert_condition(&suspended, kind::SUSPENDED, ("True", reason::SUSPENDED));
        assert_condition(&suspended, kind::READY, ("True", reason::SUSPENDED));

        let away = of(&queue, &applied(Err(disconnected()), &deployment(2, vec![])));
        assert_condition(&away, kind::SUSPENDED, ("Unknown", reason::BLOCKED));
    }

    #[test]
    fn streams_that_begin_at_1_are_named_and_the_queue_is_ready() {
        let repeating = vec!["slow-queue".to_owned(), "slow-queue-dead".to_owned()];
        let stored = Stored { repeating, ..stored() };
        let status = of(&queue(), &applied(Ok(stored), &deployment(2, vec![])));
        let unique = ("False", reason::SEQUENCES_BEGIN_AT_1);
        assert_condition(&status, kind::UNIQUE_SEQUENCES, unique);
        let message = &condition(&status, kind::UNIQUE_SEQUENCES).message;
        assert!(message.contains("of slow-queue, slow-queue-dead begin"), "{message}");
        assert_condition(&status, kind::READY, ("True", reason::RECONCILED));

        let away = of(&queue(), &applied(Err(disconnected()), &deployment(2, vec![])));
        assert_condition(&away, kind::UNIQUE_SEQUENCES, ("Unknown", reason::BLOCKED));
    }

    #[test]
    fn functions_that_are_refused_are_named_and_the_queue_is_ready() {
        let name = |number: usize| FunctionName::new(&format!("f{number}"), "team-b").unwrap();
        let refused = Refused { count: 4, first: (1..=3).map(name).collect() };
        let (mut queue, outcome) = (queue(), applied(Ok(stored()), &deployment(2, vec![])));
        assert!(says_refused(&queue, &Refused::default()) && !says_refused(&queue, &refused));
        queue.status = Some(status(
            &queue,
            &outcome,
            None,
            &functions(2, &refused),
            &[],
            &fixtures::second(1000),
        ));
        let said = queue.status.as_ref().unwrap();
        assert_condition(said, kind::FUNCTIONS_REFUSED, ("True", reason::NAMESPACE_NOT_ADMITTED));
        let message = &condition(said, kind::FUNCTIONS_REFUSED).message;
        assert!(
            message.starts_with("4 functions") && message.contains("f3.team-b, …)"),
            "{message}"
        );
        assert_condition(said, kind::READY, ("True", reason::RECONCILED));
        assert!(says_refused(&queue, &refused) && !says_refused(&queue, &Refused::default()));
        let none = of(&queue, &outcome);
        assert!(find(&none.conditions, kind::FUNCTIONS_REFUSED).is_none());
    }

    #[test]
    fn calls_that_cannot_end_are_named_with_the_cause() {
        let queue = queue();
        let free = of(&queue, &applied(Ok(stored()), &deployment(2, vec![])));
        assert_condition(&free, kind::CALLS_BLOCKED, ("False", reason::ACTIVE));
        let blocked = BlockedCalls {
            record: "dead_letter".to_owned(),
            reason: "no_space".to_owned(),
            calls: 3,
        };
        let verdict = blocked_verdict(&[blocked]);
        assert_eq!((verdict.status, verdict.reason), (Status::True, reason::RECORDS_NOT_STORED));
        assert!(
            verdict.message.contains("dead letter of 3 calls (no_space)"),
            "{}",
            verdict.message
        );
    }

    #[test]
    fn what_is_missing_beside_the_workers_is_told() {
        let foreign =
            || ObjectError::Foreign { kind: "ServiceAccount".into(), name: "a".to_owned() };
        let outcome =
            Outcome { beside: Err(foreign()), ..applied(Ok(stored()), &deployment(2, vec![])) };
        let status = of(&queue(), &outcome);
        assert_condition(&status, kind::WORKERS_READY, ("False", reason::RESOURCE_CONFLICT));
        assert!(
            condition(&status, kind::WORKERS_READY)
                .message
                .starts_with("ServiceAccount `a` exists")
        );
        // The workers run nevertheless.
        assert_eq!(status.ready_replicas, 2);
    }

    #[test]
    fn a_deletion_that_waits_says_so() {
        let mut queue = queue();
        queue.status = Some(of(&queue, &applied(Ok(stored()), &deployment(2, vec![]))));
        let status = going(&queue, "the deletion waits", &fixtures::second(2000));
        assert_condition(&status, kind::READY, ("False", reason::NATS_UNAVAILABLE));
        assert_eq!(&*condition(&status, kind::READY).message, "the deletion waits");
        assert_eq!((status.stream.as_deref(), status.ready_replicas), (Some("slow-queue"), 0));
    }
}
