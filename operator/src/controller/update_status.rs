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
    apply::{ApplyOutcome, ObjectError, StreamError, StreamState, Workers},
    build::selector_string,
    context::Context,
    error::ignore_gone,
    update_status::workers::{WorkerRollout, ZERO_WITH_SCHEDULED},
};
use crate::{
    crd::{
        AsyncQueue, AsyncQueueStatus,
        conditions::{ConditionStatus, ConditionValue, condition_type, find, reason},
    },
    error::chain,
    functions::directory::RefusedFunctions,
    labels::STATUS_FIELD_MANAGER,
    pods::cause::Cause,
    queue_counts::QueueCounts,
};

pub(crate) mod shared_lanes;
mod workers;

/// What is known of the functions that name a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Functions<'a> {
    /// Number of functions that send their calls to it.
    pub(crate) count: Option<usize>,
    /// The functions that are not admitted.
    pub(crate) refused: &'a RefusedFunctions,
    /// That some of them share a lane.
    pub(crate) lanes_shared: Option<&'a ConditionValue>,
}

/// Message of a suspended queue.
const SUSPENDED: &str = "Suspended: calls are accepted but not delivered.";

/// Writes what has changed in a status. Returns whether anything has changed. A deleted queue is
/// not an error.
pub(crate) async fn write(
    context: &Context,
    queue: &AsyncQueue,
    status: &AsyncQueueStatus,
) -> kube::Result<bool> {
    let merge_patch = merge_patch(queue.status.as_ref(), status);
    if merge_patch.is_empty() {
        return Ok(false);
    }
    let namespace = queue.namespace().unwrap_or_default();
    let api: Api<AsyncQueue> = Api::namespaced(context.client.clone(), &namespace);
    // The uid keeps the status from another queue of the same name that was created since.
    let patch = json!({ "metadata": { "uid": queue.uid() }, "status": merge_patch });
    let params = PatchParams {
        field_manager: Some(STATUS_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let answer = api.patch_status(&queue.name_any(), &params, &Patch::Merge(&patch)).await;
    if let Ok(queue) = &answer {
        context.pending_writes.record(queue);
    }
    ignore_gone(answer)?;
    Ok(true)
}

/// Returns what differs from the status before, as a JSON merge patch (RFC 7386). Two tasks write
/// the numbers and the rest, and neither overwrites what the other has written.
fn merge_patch(before: Option<&AsyncQueueStatus>, now: &AsyncQueueStatus) -> Map<String, Value> {
    let (before, mut merge_patch) = (before.map(fields).unwrap_or_default(), fields(now));
    for name in before.keys() {
        merge_patch.entry(name).or_insert(Value::Null);
    }
    merge_patch.retain(|name, value| before.get(name) != Some(value));
    merge_patch
}

fn fields(status: &AsyncQueueStatus) -> Map<String, Value> {
    // A status is an object.
    let Ok(Value::Object(fields)) = serde_json::to_value(status) else { return Map::new() };
    fields
}

/// Returns the status of a queue after a reconciliation. `cause` is why its workers do not start.
/// The numbers stay as they are. Only an empty queue that has just got its stream starts with its
/// own numbers. `pending` is why its workers do not have the settings of its spec.
pub(crate) fn compute_status(
    queue: &AsyncQueue,
    outcome: &ApplyOutcome,
    cause: Option<&Cause>,
    functions: &Functions<'_>,
    blocked: &[BlockedCalls],
    pending: Option<&str>,
    now: &Time,
) -> AsyncQueueStatus {
    let before = queue.status.clone().unwrap_or_default();
    let (stream, consumer) = stream_conditions(&outcome.stream);
    let suspended = suspended_condition(&outcome.stream);
    let unique_sequences = sequences_condition(&outcome.stream);
    let (workers, progress) = workers_conditions(outcome, queue.spec.replicas, cause, &before);
    let ready = ready_condition(&[&stream, &consumer, &workers]);
    let progressing = progressing_condition(&[&stream, &consumer], progress);
    let kstatus_condition = kstatus_condition(&progressing);
    let condition = |kind, verdict: ConditionValue| {
        verdict.into_condition(kind, queue.metadata.generation, &before.conditions, now)
    };
    let counts = match (&outcome.stream, QueueCounts::from_status(&before)) {
        (Ok(StreamState { messages: 0, dead_letters, .. }), counts) if !counts.is_known() => {
            QueueCounts::empty(*dead_letters, functions.count)
        }
        (_, counts) => counts,
    };
    let mut conditions = vec![
        condition(condition_type::READY, ready),
        condition(condition_type::STREAM_READY, stream),
        condition(condition_type::CONSUMER_READY, consumer),
        condition(condition_type::WORKERS_READY, workers),
        condition(condition_type::PROGRESSING, progressing),
        condition(condition_type::SUSPENDED, suspended),
        condition(condition_type::UNIQUE_SEQUENCES, unique_sequences),
        condition(condition_type::CALLS_BLOCKED, calls_blocked_condition(blocked)),
    ];
    conditions.extend(match migrating_condition(&outcome.stream) {
        Some(verdict) => Some(condition(condition_type::MIGRATING, verdict)),
        None => find(&before.conditions, condition_type::MIGRATING)
            .filter(|last| last.observed_generation == queue.metadata.generation)
            .filter(|last| &*last.status == ConditionStatus::False.as_str())
            .cloned(),
    });
    // These conditions exist only while they hold, since there are ten thousand queues.
    conditions.extend(kstatus_condition.map(|(kind, verdict)| condition(kind, verdict)));
    if let Some(message) = refused_message(functions.refused) {
        let verdict = ConditionValue::true_(reason::NAMESPACE_NOT_ADMITTED, message);
        conditions.push(condition(condition_type::FUNCTIONS_REFUSED, verdict));
    }
    if let Some(verdict) = functions.lanes_shared {
        conditions.push(condition(condition_type::LANES_SHARED, verdict.clone()));
    }
    if let Some(why) = pending {
        let verdict = ConditionValue::true_(reason::DIRECTORY_NOT_WRITTEN, pending_message(why));
        conditions.push(condition(condition_type::SETTINGS_PENDING, verdict));
    }
    let status = AsyncQueueStatus {
        observed_generation: queue.metadata.generation,
        conditions,
        selector: queue.name_any().parse().ok().map(|name| selector_string(&name)),
        ..AsyncQueueStatus::default()
    };
    with_workers(with_stream(counts.apply_to(status), &before, &outcome.stream), &outcome.workers)
}

/// Returns the condition that says whether the workers of a queue can store what ends its calls.
fn calls_blocked_condition(blocked: &[BlockedCalls]) -> ConditionValue {
    if blocked.is_empty() {
        return ConditionValue::false_(reason::ACTIVE, "Workers store the records that end calls.");
    }
    let kinds = blocked.iter().map(|BlockedCalls { record, reason, calls }| {
        let record = record.replace('_', " ");
        format!("{record} of {calls} calls ({reason})")
    });
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    let message = format!(
        "Workers can't store the records that end calls: {kinds}. no_space: raise the limits of \
         JetStream. stream_full: deliver or delete messages of the stream. no_stream, unavailable: \
         check NATS."
    );
    ConditionValue { status: ConditionStatus::True, reason: reason::RECORDS_NOT_STORED, message }
}

/// Returns the message of the condition `FunctionsRefused`; `None` if no function is refused.
fn refused_message(refused: &RefusedFunctions) -> Option<String> {
    let RefusedFunctions { count, first } = refused;
    if *count == 0 {
        return None;
    }
    let names = first.iter().map(FunctionName::to_string).collect::<Vec<_>>().join(", ");
    let more = if *count > first.len() { ", …" } else { "" };
    Some(format!(
        "{count} functions name this queue from namespaces that it does not admit ({names}{more}): \
         their calls go to the default queue. To admit them, add their namespaces to \
         spec.functions.namespaces."
    ))
}

fn pending_message(why: &str) -> String {
    format!(
        "maxInflight, timeout and retry are not in the directory yet, retrying: {why}. Workers use \
         the previous ones."
    )
}

/// Returns whether the condition `FunctionsRefused` of a queue is up to date.
pub(crate) fn reports_refused(queue: &AsyncQueue, refused: &RefusedFunctions) -> bool {
    let conditions = queue.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let previous =
        find(conditions, condition_type::FUNCTIONS_REFUSED).map(|condition| &*condition.message);
    previous == refused_message(refused).as_deref()
}

/// Returns whether the condition of a queue says that its workers can't store what ends calls.
pub(crate) fn reports_blocked(queue: &AsyncQueue) -> bool {
    let conditions = queue.status.iter().flat_map(|status| &status.conditions);
    let mut blocked =
        conditions.filter(|condition| condition.type_ == condition_type::CALLS_BLOCKED);
    blocked.any(|condition| condition.status == ConditionStatus::True.as_str())
}

/// Returns whether the condition of a queue without workers says what its counts say: whether
/// delayed calls are not due yet.
pub(crate) fn reports_scheduled(queue: &AsyncQueue, has_scheduled: bool) -> bool {
    let conditions = queue.status.iter().flat_map(|status| &status.conditions);
    let mut at_zero = conditions.filter(|condition| {
        condition.type_ == condition_type::WORKERS_READY
            && condition.reason == reason::SCALED_TO_ZERO
    });
    at_zero.all(|condition| (&*condition.message == ZERO_WITH_SCHEDULED) == has_scheduled)
}

/// Returns the status of a queue whose deletion has to wait, with the reason.
pub(crate) fn terminating_status(queue: &AsyncQueue, why: &str, now: &Time) -> AsyncQueueStatus {
    let before = queue.status.clone().unwrap_or_default();
    let unavailable = |type_| {
        ConditionValue::false_(reason::NATS_UNAVAILABLE, why).into_condition(
            type_,
            queue.metadata.generation,
            &before.conditions,
            now,
        )
    };
    let conditions = before.conditions.iter().map(|condition| match &*condition.type_ {
        condition_type::READY => unavailable(condition_type::READY),
        condition_type::STREAM_READY => unavailable(condition_type::STREAM_READY),
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
    stream: &Result<StreamState, StreamError>,
) -> AsyncQueueStatus {
    match stream {
        Ok(stored) => AsyncQueueStatus {
            stream: Some(stored.stream.clone()),
            consumer: Some(stored.consumer.clone()),
            stream_created: stored.created.clone(),
            ..status
        },
        Err(error) if error.is_not_owned() => status,
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
fn ready_condition(parts: &[&ConditionValue]) -> ConditionValue {
    match parts.iter().find(|part| part.status != ConditionStatus::True) {
        Some(part) => ConditionValue::false_(part.reason, part.message.clone()),
        None => match parts.iter().find(|part| part.reason != reason::RECONCILED) {
            Some(special) => (*special).clone(),
            None => ConditionValue::true_(reason::RECONCILED, "Calls are accepted and run."),
        },
    }
}

/// Returns the conditions of the stream and of the consumer.
fn stream_conditions(
    stream: &Result<StreamState, StreamError>,
) -> (ConditionValue, ConditionValue) {
    let (name, error) = match stream {
        Ok(stored) => {
            let stream = format!("Stream {} stores calls.", stored.stream);
            let consumer = if stored.suspended {
                ConditionValue::true_(reason::SUSPENDED, SUSPENDED)
            } else {
                let takes = format!("Consumer {} exists.", stored.consumer);
                ConditionValue::true_(reason::RECONCILED, takes)
            };
            return (ConditionValue::true_(reason::RECONCILED, stream), consumer);
        }
        Err(error @ StreamError::Migrating { .. }) => {
            let stream = ConditionValue::true_(reason::RECONCILED, "The stream stores calls.");
            return (stream, ConditionValue::true_(reason::MIGRATING, error.to_string()));
        }
        Err(StreamError::Ensure(EnsureError::Consumer(error))) => {
            let stream = ConditionValue::true_(reason::RECONCILED, "The stream stores calls.");
            return (stream, ConditionValue::false_(refusal_reason(error), chain(&**error)));
        }
        Err(StreamError::Ensure(error)) => (refusal_reason(error), chain(error)),
        Err(StreamError::Invalid(invalid)) => (invalid.reason(), invalid.to_string()),
        Err(
            error @ (StreamError::Disconnected { .. }
            | StreamError::NoJetStream { .. }
            | StreamError::NoResponse { .. }),
        ) => (reason::NATS_UNAVAILABLE, chain(error)),
    };
    (ConditionValue::false_(name, error), blocked())
}

/// Returns whether the queue is suspended on the server. What is wanted is in the spec.
fn suspended_condition(stream: &Result<StreamState, StreamError>) -> ConditionValue {
    match stream {
        Ok(StreamState { suspended: true, .. }) => {
            ConditionValue::true_(reason::SUSPENDED, SUSPENDED)
        }
        Err(error @ StreamError::Migrating { .. }) => {
            ConditionValue::true_(reason::MIGRATING, error.to_string())
        }
        Ok(_) => ConditionValue::false_(reason::ACTIVE, "Calls are delivered."),
        Err(_) => blocked(),
    }
}

/// Returns the condition that says whether the fairness of the queue is being changed, or that it
/// was just changed at the cost of attempts that were not recorded. `None`: neither.
fn migrating_condition(stream: &Result<StreamState, StreamError>) -> Option<ConditionValue> {
    match stream {
        Err(error @ StreamError::Migrating { .. }) => {
            Some(ConditionValue::true_(reason::MIGRATING, error.to_string()))
        }
        Ok(StreamState { forgotten: Some(forgotten @ 1..), .. }) => {
            let message = format!(
                "The fairness of the queue was changed. {forgotten} calls that wait for a retry \
                 begin at their first attempt again: the worker that knew their attempts was gone."
            );
            Some(ConditionValue::false_(reason::ATTEMPTS_NOT_RECORDED, message))
        }
        Ok(_) | Err(_) => None,
    }
}

/// Returns whether no sequence of the streams is ever used twice.
fn sequences_condition(stream: &Result<StreamState, StreamError>) -> ConditionValue {
    match stream {
        Ok(StreamState { repeating, .. }) if repeating.is_empty() => {
            ConditionValue::true_(reason::RECONCILED, "Sequences are unique.")
        }
        Ok(StreamState { repeating, .. }) => ConditionValue::false_(
            reason::SEQUENCES_BEGIN_AT_1,
            format!(
                "Sequences of {} begin at 1, since an earlier version or another program created \
                 it: acks and tombstones of an earlier stream of the same name can match its \
                 calls. To recreate it once, see \
                 \"Recreate a stream whose sequences begin at 1\" in docs/operations.md.",
                repeating.join(", ")
            ),
        ),
        Err(_) => blocked(),
    }
}

/// Returns the reason why NATS does not have the desired state.
fn refusal_reason(error: &EnsureError) -> &'static str {
    match error {
        EnsureError::Refused(PlanError::ImmutableField { .. }) => reason::IMMUTABLE_FIELD_CHANGED,
        EnsureError::Refused(_) => reason::RESOURCE_CONFLICT,
        EnsureError::SubjectOverlap { .. } => reason::SUBJECT_OVERLAP,
        EnsureError::Server { .. } => reason::NATS_REFUSED,
        EnsureError::Clock(_) => reason::CLOCK_WRONG,
        EnsureError::Unavailable { .. } => reason::NATS_UNAVAILABLE,
        EnsureError::Consumer(error) => refusal_reason(error),
    }
}

fn blocked() -> ConditionValue {
    ConditionValue::unknown(reason::BLOCKED, "Waiting for the stream (see StreamReady).")
}

/// Returns `WorkersReady` and the progress of the workers, from the Deployment and the other
/// objects.
fn workers_conditions(
    outcome: &ApplyOutcome,
    replicas: i32,
    cause: Option<&Cause>,
    before: &AsyncQueueStatus,
) -> (ConditionValue, ConditionValue) {
    let workers = match (&outcome.workers, &outcome.auxiliary) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(workers), Ok(())) => Ok(workers),
    };
    let (reason, error) = match workers {
        Ok(Workers::Deployed(deployment)) => {
            let rollout = deployment.rollout().cloned().unwrap_or_default();
            let has_scheduled = before.scheduled.is_some_and(|scheduled| scheduled > 0);
            let previous = &before.conditions;
            let fleet =
                WorkerRollout { replicas, has_scheduled, rollout: &rollout, cause, previous };
            return (fleet.workers_ready(), fleet.progressing());
        }
        Ok(Workers::Absent) => return (blocked(), blocked()),
        Err(error @ ObjectError::NotOwned { .. }) => (reason::RESOURCE_CONFLICT, error),
        Err(error @ ObjectError::Terminating { .. }) => (reason::PROGRESSING, error),
        Err(error @ ObjectError::Kubernetes { .. }) => (reason::KUBERNETES_REFUSED, error),
    };
    let verdict = ConditionValue::false_(reason, error.to_string());
    let is_going = matches!(error, ObjectError::Terminating { .. });
    let status = if is_going { ConditionStatus::True } else { ConditionStatus::False };
    (verdict.clone(), ConditionValue { status, ..verdict })
}

/// Returns the condition `Progressing`: the progress of the workers, once they have something to
/// take calls from.
fn progressing_condition(parts: &[&ConditionValue], workers: ConditionValue) -> ConditionValue {
    if let Some(part) = parts.iter().find(|part| part.reason == reason::MIGRATING) {
        return ConditionValue::true_(reason::MIGRATING, part.message.clone());
    }
    let missing = parts.iter().find(|part| part.status != ConditionStatus::True);
    missing.map_or(workers, |part| ConditionValue::false_(part.reason, part.message.clone()))
}

/// Returns the condition for tools that follow kstatus. kstatus has two conditions for
/// `Progressing`. It takes a queue with neither of them for done if the queue is ready. A queue
/// that waits for NATS is not stalled.
/// <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>
fn kstatus_condition(progressing: &ConditionValue) -> Option<(&'static str, ConditionValue)> {
    let verdict = ConditionValue { status: ConditionStatus::True, ..progressing.clone() };
    match (progressing.status, progressing.reason) {
        (ConditionStatus::True, _) => Some((condition_type::RECONCILING, verdict)),
        (_, reason::RECONCILED | reason::NATS_UNAVAILABLE | reason::BLOCKED) => None,
        _ => Some((condition_type::STALLED, verdict)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use asyncqueue::{fairness_change::SwitchWait, lanes::Fairness};
    use k8s_openapi::{
        api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus},
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    };

    use super::*;
    use crate::{
        cache::deployment::CachedDeployment,
        controller::{conflict::Conflict, validate::ValidationError},
        crd::Condition,
        fixtures,
        pods::cause,
    };

    /// Returns a queue with two workers.
    fn queue() -> AsyncQueue {
        let mut queue = fixtures::queue("slow-queue");
        queue.spec.replicas = 2;
        queue
    }

    fn stored() -> StreamState {
        StreamState {
            stream: "slow-queue".to_owned(),
            consumer: "slow-queue-workers".to_owned(),
            created: Some(fixtures::second(50)),
            suspended: false,
            messages: 0,
            dead_letters: 3,
            repeating: vec![],
            forgotten: None,
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

    fn applied(stream: Result<StreamState, StreamError>, workers: &Deployment) -> ApplyOutcome {
        let workers = Workers::Deployed(Arc::new(CachedDeployment::from_workers(workers)));
        ApplyOutcome { stream, workers: Ok(workers), auxiliary: Ok(()) }
    }

    fn disconnected() -> StreamError {
        StreamError::Disconnected {
            why: "waiting for NATS at nats:4222: Connection refused".to_owned(),
        }
    }

    fn functions(count: usize, refused: &RefusedFunctions) -> Functions<'_> {
        Functions { count: Some(count), refused, lanes_shared: None }
    }

    fn of(queue: &AsyncQueue, outcome: &ApplyOutcome) -> AsyncQueueStatus {
        compute_status(
            queue,
            outcome,
            None,
            &functions(2, &RefusedFunctions::default()),
            &[],
            None,
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
    fn a_queue_is_ready_when_all_its_parts_are() {
        let status = of(&queue(), &applied(Ok(stored()), &deployment(2, vec![])));
        let sequences = condition_type::UNIQUE_SEQUENCES;
        for kind in [
            condition_type::READY,
            condition_type::STREAM_READY,
            condition_type::CONSUMER_READY,
            condition_type::WORKERS_READY,
            sequences,
        ] {
            assert_condition(&status, kind, ("True", reason::RECONCILED));
            assert_eq!(condition(&status, kind).observed_generation, Some(3));
        }
        assert_eq!((status.replicas, status.ready_replicas), (2, 2));
        assert_eq!(status.stream.as_deref(), Some("slow-queue"));
        assert!(status.selector.unwrap().contains("asyncqueue.io/queue=slow-queue"));
        assert_eq!(status.observed_generation, Some(3));
    }

    #[test]
    fn a_change_of_the_fairness_is_reported_until_it_is_done() {
        let wait = SwitchWait::InFlight("w-1".to_owned(), 3);
        let migrating = StreamError::Migrating { wanted: Fairness::Function, wait };
        let mut queue = queue();
        let status = of(&queue, &applied(Err(migrating), &deployment(2, vec![])));
        for kind in [
            condition_type::MIGRATING,
            condition_type::READY,
            condition_type::CONSUMER_READY,
            condition_type::SUSPENDED,
            condition_type::PROGRESSING,
            condition_type::RECONCILING,
        ] {
            assert_condition(&status, kind, ("True", reason::MIGRATING));
        }
        let message = &condition(&status, condition_type::READY).message;
        assert!(message.ends_with("to function: worker w-1 has 3 calls in flight."), "{message}");
        queue.status = Some(status);
        let outcome =
            |forgotten| applied(Ok(StreamState { forgotten, ..stored() }), &deployment(2, vec![]));
        let is_reported = |status: &AsyncQueueStatus| {
            find(&status.conditions, condition_type::MIGRATING).is_some()
        };
        assert!(!is_reported(&of(&queue, &outcome(Some(0)))));
        // What the change has cost is reported until the spec changes again.
        queue.status = Some(of(&queue, &outcome(Some(2))));
        let expected = ("False", reason::ATTEMPTS_NOT_RECORDED);
        assert_condition(&of(&queue, &outcome(None)), condition_type::MIGRATING, expected);
        queue.metadata.generation = Some(4);
        assert!(!is_reported(&of(&queue, &outcome(None))));
    }

    #[test]
    fn an_unchanged_outcome_gives_the_same_status() {
        let outcome = applied(Ok(stored()), &deployment(2, vec![]));
        let mut queue = queue();
        let first = of(&queue, &outcome);
        queue.status = Some(AsyncQueueStatus { pending: Some(5), ..first });
        let refused = RefusedFunctions::default();
        let functions = functions(9, &refused);
        let second =
            compute_status(&queue, &outcome, None, &functions, &[], None, &fixtures::second(2000));
        assert_eq!(Some(&second), queue.status.as_ref());
        assert_eq!(merge_patch(queue.status.as_ref(), &second), Map::new());
    }

    #[test]
    fn the_merge_patch_has_changed_and_removed_fields() {
        let before =
            AsyncQueueStatus { pending: Some(5), inflight: Some(1), ..AsyncQueueStatus::default() };
        let now = AsyncQueueStatus { pending: Some(6), inflight: None, ..before.clone() };
        assert_eq!(
            Value::Object(merge_patch(Some(&before), &now)),
            json!({ "pending": 6, "inflight": null })
        );
        // The first status also contains the defaults.
        assert_eq!(merge_patch(None, &now)["replicas"], 0);
    }

    #[test]
    fn an_empty_new_queue_starts_with_its_counts() {
        let status = of(&queue(), &applied(Ok(stored()), &deployment(2, vec![])));
        assert_eq!(QueueCounts::from_status(&status), QueueCounts::empty(3, Some(2)));
        let full = StreamState { messages: 1, ..stored() };
        let status = of(&queue(), &applied(Ok(full), &deployment(2, vec![])));
        assert_eq!(QueueCounts::from_status(&status), QueueCounts::default());
    }

    #[test]
    fn a_nats_outage_keeps_the_stream_in_the_status() {
        let mut queue = queue();
        queue.status = Some(of(&queue, &applied(Ok(stored()), &deployment(2, vec![]))));
        let status = of(&queue, &applied(Err(disconnected()), &deployment(2, vec![])));
        assert_condition(&status, condition_type::READY, ("False", reason::NATS_UNAVAILABLE));
        assert_condition(
            &status,
            condition_type::STREAM_READY,
            ("False", reason::NATS_UNAVAILABLE),
        );
        assert_condition(&status, condition_type::CONSUMER_READY, ("Unknown", reason::BLOCKED));
        assert_condition(&status, condition_type::WORKERS_READY, ("True", reason::RECONCILED));
        assert_eq!(status.stream.as_deref(), Some("slow-queue"));
        assert_eq!(status.stream_created, Some(fixtures::second(50)));
    }

    #[test]
    fn a_stream_of_another_owner_is_not_in_the_status() {
        let mut queue = queue();
        queue.status = Some(of(&queue, &applied(Ok(stored()), &deployment(2, vec![]))));
        let refusal =
            PlanError::OtherOwner { stream: "slow-queue".to_owned(), owner: "ns/other".to_owned() };
        let stream = Err(StreamError::Ensure(EnsureError::Refused(refusal)));
        let outcome = ApplyOutcome { stream, workers: Ok(Workers::Absent), auxiliary: Ok(()) };
        let status = of(&queue, &outcome);
        assert_condition(&status, condition_type::READY, ("False", reason::RESOURCE_CONFLICT));
        assert!(condition(&status, condition_type::READY).message.contains("ns/other"));
        assert_condition(&status, condition_type::WORKERS_READY, ("Unknown", reason::BLOCKED));
        assert_eq!((status.stream, status.replicas), (None, 0));
    }

    #[test]
    fn a_refused_queue_names_the_cause() {
        let invalid =
            ValidationError::Conflict(Conflict::Name { other: "ns/slow-queue".to_owned() });
        let stream = Err(StreamError::Invalid(invalid));
        let outcome = ApplyOutcome { stream, workers: Ok(Workers::Absent), auxiliary: Ok(()) };
        let status = of(&queue(), &outcome);
        assert_condition(&status, condition_type::READY, ("False", reason::RESOURCE_CONFLICT));
        assert!(
            condition(&status, condition_type::READY)
                .message
                .contains("ns/slow-queue has the same name")
        );
    }

    #[test]
    fn a_queue_that_becomes_invalid_keeps_its_objects() {
        let mut queue = queue();
        queue.status = Some(of(&queue, &applied(Ok(stored()), &deployment(2, vec![]))));
        let stream = Err(StreamError::Invalid(ValidationError::Nats("no host".to_owned())));
        let status = of(&queue, &applied(stream, &deployment(2, vec![])));
        assert_condition(&status, condition_type::READY, ("False", reason::INVALID_SPEC));
        assert_condition(&status, condition_type::WORKERS_READY, ("True", reason::RECONCILED));
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
        assert_condition(&status, condition_type::STREAM_READY, ("True", reason::RECONCILED));
        assert_condition(&status, condition_type::CONSUMER_READY, ("False", reason::NATS_REFUSED));
        assert_condition(&status, condition_type::READY, ("False", reason::NATS_REFUSED));
    }

    #[test]
    fn starting_workers_progress_and_failing_ones_stall() {
        let queue = queue();
        let new = of(&queue, &applied(Ok(stored()), &deployment(0, vec![])));
        assert_condition(&new, condition_type::READY, ("False", reason::PROGRESSING));
        assert_condition(&new, condition_type::PROGRESSING, ("True", reason::PROGRESSING));
        assert_condition(&new, condition_type::RECONCILING, ("True", reason::PROGRESSING));
        assert_eq!(&*condition(&new, condition_type::READY).message, "0 of 2 workers are ready.");
        assert_eq!(find(&new.conditions, condition_type::STALLED), None);

        let partly = of(&queue, &applied(Ok(stored()), &deployment(1, vec![])));
        assert_condition(&partly, condition_type::READY, ("True", reason::RECONCILED));
        assert_condition(&partly, condition_type::RECONCILING, ("True", reason::PROGRESSING));

        let outcome = applied(Ok(stored()), &deployment(0, vec![]));
        let (image, refused) = (cause::image_pull("x:1", "not found"), RefusedFunctions::default());
        let functions = functions(2, &refused);
        let stuck = compute_status(
            &queue,
            &outcome,
            Some(&image),
            &functions,
            &[],
            None,
            &fixtures::second(1000),
        );
        for (kind, holds) in [
            (condition_type::READY, "False"),
            (condition_type::WORKERS_READY, "False"),
            (condition_type::PROGRESSING, "False"),
            (condition_type::STALLED, "True"),
        ] {
            assert_condition(&stuck, kind, (holds, reason::IMAGE_PULL_FAILED));
            assert!(
                condition(&stuck, kind).message.contains("x:1 cannot be pulled: not found"),
                "{kind}"
            );
        }
        assert_eq!(find(&stuck.conditions, condition_type::RECONCILING), None);

        let done = of(&queue, &applied(Ok(stored()), &deployment(2, vec![])));
        assert_condition(&done, condition_type::PROGRESSING, ("False", reason::RECONCILED));
        for absent in [condition_type::RECONCILING, condition_type::STALLED] {
            assert_eq!(find(&done.conditions, absent), None);
        }
    }

    #[test]
    fn a_deployment_status_of_an_earlier_spec_is_ignored() {
        let overdue = DeploymentCondition {
            type_: "Progressing".to_owned(),
            status: "False".to_owned(),
            message: Some("timed out progressing.".to_owned()),
            ..DeploymentCondition::default()
        };
        let mut deployment = deployment(0, vec![overdue]);
        let status = of(&queue(), &applied(Ok(stored()), &deployment));
        assert_condition(
            &status,
            condition_type::WORKERS_READY,
            ("False", reason::WORKERS_UNAVAILABLE),
        );
        deployment.metadata.generation = Some(3);
        let status = of(&queue(), &applied(Ok(stored()), &deployment));
        assert_condition(&status, condition_type::WORKERS_READY, ("False", reason::PROGRESSING));
    }

    #[test]
    fn a_terminating_object_progresses_and_a_foreign_one_stalls() {
        let outcome = |error| ApplyOutcome {
            workers: Err(error),
            ..applied(Ok(stored()), &deployment(2, vec![]))
        };
        let (kind, name) = ("Deployment".into(), "q-worker".to_owned());
        let status = of(&queue(), &outcome(ObjectError::Terminating { kind, name }));
        assert_condition(&status, condition_type::READY, ("False", reason::PROGRESSING));
        assert_condition(&status, condition_type::RECONCILING, ("True", reason::PROGRESSING));
        let (kind, name) = ("Deployment".into(), "q-worker".to_owned());
        let status = of(&queue(), &outcome(ObjectError::NotOwned { kind, name }));
        assert_condition(&status, condition_type::STALLED, ("True", reason::RESOURCE_CONFLICT));
    }

    #[test]
    fn an_unavailable_nats_waits_and_a_refusal_stalls() {
        let status = of(&queue(), &applied(Err(disconnected()), &deployment(2, vec![])));
        assert_condition(&status, condition_type::PROGRESSING, ("False", reason::NATS_UNAVAILABLE));
        for absent in [condition_type::RECONCILING, condition_type::STALLED] {
            assert_eq!(find(&status.conditions, absent), None);
        }
        let message = &condition(&status, condition_type::READY).message;
        assert!(message.contains("nats:4222: Connection refused"), "{message}");
        let overlap = StreamError::Ensure(EnsureError::SubjectOverlap { subject: "s".to_owned() });
        let status = of(&queue(), &applied(Err(overlap), &deployment(2, vec![])));
        assert_condition(&status, condition_type::STALLED, ("True", reason::SUBJECT_OVERLAP));
    }

    #[test]
    fn a_queue_scaled_to_zero_is_ready() {
        let mut queue = queue();
        queue.spec.replicas = 0;
        let status = of(&queue, &applied(Ok(stored()), &deployment(0, vec![])));
        assert_condition(&status, condition_type::READY, ("True", reason::SCALED_TO_ZERO));
    }

    #[test]
    fn a_suspended_queue_is_ready_and_suspended() {
        let queue = queue();
        let running = of(&queue, &applied(Ok(stored()), &deployment(2, vec![])));
        assert_condition(&running, condition_type::SUSPENDED, ("False", reason::ACTIVE));

        let paused = StreamState { suspended: true, ..stored() };
        let suspended = of(&queue, &applied(Ok(paused), &deployment(2, vec![])));
        assert_condition(&suspended, condition_type::SUSPENDED, ("True", reason::SUSPENDED));
        assert_condition(&suspended, condition_type::READY, ("True", reason::SUSPENDED));

        let away = of(&queue, &applied(Err(disconnected()), &deployment(2, vec![])));
        assert_condition(&away, condition_type::SUSPENDED, ("Unknown", reason::BLOCKED));
    }

    #[test]
    fn streams_that_begin_at_1_are_named() {
        let repeating = vec!["slow-queue".to_owned(), "slow-queue-dead".to_owned()];
        let stored = StreamState { repeating, ..stored() };
        let status = of(&queue(), &applied(Ok(stored), &deployment(2, vec![])));
        let unique = ("False", reason::SEQUENCES_BEGIN_AT_1);
        assert_condition(&status, condition_type::UNIQUE_SEQUENCES, unique);
        let message = &condition(&status, condition_type::UNIQUE_SEQUENCES).message;
        assert!(message.contains("of slow-queue, slow-queue-dead begin"), "{message}");
        assert_condition(&status, condition_type::READY, ("True", reason::RECONCILED));

        let away = of(&queue(), &applied(Err(disconnected()), &deployment(2, vec![])));
        assert_condition(&away, condition_type::UNIQUE_SEQUENCES, ("Unknown", reason::BLOCKED));
    }

    #[test]
    fn settings_that_are_not_written_are_pending() {
        let (queue, outcome) = (queue(), applied(Ok(stored()), &deployment(2, vec![])));
        let refused = RefusedFunctions::default();
        let of = |pending| {
            let functions = functions(0, &refused);
            compute_status(&queue, &outcome, None, &functions, &[], pending, &fixtures::second(9))
        };
        assert_eq!(find(&of(None).conditions, condition_type::SETTINGS_PENDING), None);
        let status = of(Some("no permission"));
        let verdict = ("True", reason::DIRECTORY_NOT_WRITTEN);
        assert_condition(&status, condition_type::SETTINGS_PENDING, verdict);
        let message = &condition(&status, condition_type::SETTINGS_PENDING).message;
        assert!(message.contains("retrying: no permission. Workers use"), "{message}");
        assert_condition(&status, condition_type::READY, ("True", reason::RECONCILED));
    }

    #[test]
    fn refused_functions_are_named_and_the_queue_is_ready() {
        let name = |number: usize| FunctionName::new(&format!("f{number}"), "team-b").unwrap();
        let refused = RefusedFunctions { count: 4, first: (1..=3).map(name).collect() };
        let (mut queue, outcome) = (queue(), applied(Ok(stored()), &deployment(2, vec![])));
        assert!(
            reports_refused(&queue, &RefusedFunctions::default())
                && !reports_refused(&queue, &refused)
        );
        queue.status = Some(compute_status(
            &queue,
            &outcome,
            None,
            &functions(2, &refused),
            &[],
            None,
            &fixtures::second(1000),
        ));
        let previous = queue.status.as_ref().unwrap();
        assert_condition(
            previous,
            condition_type::FUNCTIONS_REFUSED,
            ("True", reason::NAMESPACE_NOT_ADMITTED),
        );
        let message = &condition(previous, condition_type::FUNCTIONS_REFUSED).message;
        assert!(
            message.starts_with("4 functions") && message.contains("f3.team-b, …)"),
            "{message}"
        );
        assert_condition(previous, condition_type::READY, ("True", reason::RECONCILED));
        assert!(
            reports_refused(&queue, &refused)
                && !reports_refused(&queue, &RefusedFunctions::default())
        );
        let none = of(&queue, &outcome);
        assert!(find(&none.conditions, condition_type::FUNCTIONS_REFUSED).is_none());
    }

    #[test]
    fn blocked_calls_are_named_with_the_cause() {
        let queue = queue();
        let free = of(&queue, &applied(Ok(stored()), &deployment(2, vec![])));
        assert_condition(&free, condition_type::CALLS_BLOCKED, ("False", reason::ACTIVE));
        let blocked = BlockedCalls {
            record: "dead_letter".to_owned(),
            reason: "no_space".to_owned(),
            calls: 3,
        };
        let verdict = calls_blocked_condition(&[blocked]);
        assert_eq!(
            (verdict.status, verdict.reason),
            (ConditionStatus::True, reason::RECORDS_NOT_STORED)
        );
        assert!(
            verdict.message.contains("dead letter of 3 calls (no_space)"),
            "{}",
            verdict.message
        );
    }

    #[test]
    fn a_foreign_service_account_makes_workers_not_ready() {
        let foreign =
            || ObjectError::NotOwned { kind: "ServiceAccount".into(), name: "a".to_owned() };
        let outcome = ApplyOutcome {
            auxiliary: Err(foreign()),
            ..applied(Ok(stored()), &deployment(2, vec![]))
        };
        let status = of(&queue(), &outcome);
        assert_condition(
            &status,
            condition_type::WORKERS_READY,
            ("False", reason::RESOURCE_CONFLICT),
        );
        assert!(
            condition(&status, condition_type::WORKERS_READY)
                .message
                .starts_with("ServiceAccount `a` exists")
        );
        // The workers run nevertheless.
        assert_eq!(status.ready_replicas, 2);
    }

    #[test]
    fn a_waiting_deletion_is_in_the_status() {
        let mut queue = queue();
        queue.status = Some(of(&queue, &applied(Ok(stored()), &deployment(2, vec![]))));
        let status = terminating_status(&queue, "the deletion waits", &fixtures::second(2000));
        assert_condition(&status, condition_type::READY, ("False", reason::NATS_UNAVAILABLE));
        assert_eq!(&*condition(&status, condition_type::READY).message, "the deletion waits");
        assert_eq!((status.stream.as_deref(), status.ready_replicas), (Some("slow-queue"), 0));
    }
}
