//! Reports the changes of a reconciliation, as events and in the log.

use kube::Resource;
use tracing::{info, warn};

use super::{apply::ApplyOutcome, context::Context};
use crate::crd::{
    AsyncQueue, AsyncQueueStatus, Condition,
    conditions::{self, ConditionStatus, condition_type, find},
};

/// Reason of the event that lists what was created or changed on NATS.
const APPLIED: &str = "Applied";

/// Reason of the event for a recreated stream, whose calls are lost.
const STREAM_RECREATED: &str = "StreamRecreated";

/// Reports changes, and nothing else, as events and in the log.
pub(super) async fn publish_events(
    queue: &AsyncQueue,
    outcome: &ApplyOutcome,
    status: &AsyncQueueStatus,
    context: &Context,
) {
    let (object, name) = (queue.object_ref(&()), queue.namespaced_name());
    let changes = applied_changes(outcome);
    if let Some(changes) = &changes {
        info!(queue = name, "{changes}");
    }
    if let Some(stream) = queue.status.as_ref().and_then(|before| recreated_stream(before, status))
    {
        let note = format!(
            "Stream {stream} was deleted externally and has been recreated; its calls are lost."
        );
        warn!(queue = name, "{note}");
        context.events.warning(&object, STREAM_RECREATED, note).await;
    }
    let before = queue.status.as_ref();
    let transition = ready_transition(before, status, condition_type::READY)
        .or_else(|| ready_transition(before, status, condition_type::STALLED));
    let Some(transition) = transition else {
        if let Some(changes) = changes {
            context.events.normal(&object, APPLIED, changes).await;
        }
        return;
    };
    // One event for both if both come at once.
    let Condition { type_, status, reason, message, .. } = transition;
    let reason = &**reason;
    let is_ready = type_ == condition_type::READY && status == ConditionStatus::True.as_str();
    let note =
        changes.map_or_else(|| message.to_string(), |changes| format!("{message} ({changes})"));
    if is_ready || reason == conditions::reason::PROGRESSING {
        info!(queue = name, ready = is_ready, reason, "{message}");
        context.events.normal(&object, reason, note).await;
    } else {
        warn!(queue = name, ready = is_ready, reason, "{message}");
        context.events.warning(&object, reason, note).await;
    }
}

/// Returns a condition if its status or its reason has changed.
fn ready_transition<'a>(
    before: Option<&AsyncQueueStatus>,
    now: &'a AsyncQueueStatus,
    kind: &str,
) -> Option<&'a Condition> {
    let before = before.and_then(|status| find(&status.conditions, kind));
    let same = |now: &Condition| {
        before.is_some_and(|before| before.reason == now.reason && before.status == now.status)
    };
    find(&now.conditions, kind).filter(|now| !same(now))
}

/// Describes what was created or changed on NATS, if anything was.
fn applied_changes(outcome: &ApplyOutcome) -> Option<String> {
    let changes = &outcome.stream.as_ref().ok()?.changes;
    (!changes.is_empty()).then(|| changes.join(", "))
}

/// Returns the name of the stream if it is another stream than before.
fn recreated_stream<'a>(
    before: &AsyncQueueStatus,
    now: &'a AsyncQueueStatus,
) -> Option<&'a String> {
    let created = before.stream_created.as_ref().zip(now.stream_created.as_ref());
    created.filter(|(before, now)| before != now).and(now.stream.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crd::conditions::{ConditionValue, find, reason},
        fixtures,
    };

    #[test]
    fn a_stream_with_another_creation_time_was_recreated() {
        let of = |second: Option<i64>| AsyncQueueStatus {
            stream: second.map(|_| "s".to_owned()),
            stream_created: second.map(fixtures::second),
            ..AsyncQueueStatus::default()
        };
        assert_eq!(recreated_stream(&of(Some(1)), &of(Some(2))), Some(&"s".to_owned()));
        for (before, now) in [(Some(1), Some(1)), (None, Some(1)), (Some(1), None)] {
            assert_eq!(recreated_stream(&of(before), &of(now)), None);
        }
    }

    #[test]
    fn a_transition_is_a_change_of_status_or_reason() {
        let of = |verdict: ConditionValue| AsyncQueueStatus {
            conditions: vec![verdict.into_condition(
                condition_type::READY,
                Some(1),
                &[],
                &fixtures::second(1),
            )],
            ..AsyncQueueStatus::default()
        };
        let away = |message| of(ConditionValue::false_(reason::NATS_UNAVAILABLE, message));
        let (refused, ready) = (
            of(ConditionValue::false_(reason::NATS_REFUSED, "no")),
            of(ConditionValue::true_(reason::RECONCILED, "well")),
        );
        for (before, now) in [
            (None, &ready),
            (Some(&AsyncQueueStatus::default()), &ready),
            (Some(&ready), &refused),
            (Some(&away("for 1 s")), &refused),
        ] {
            assert_eq!(
                ready_transition(before, now, condition_type::READY),
                find(&now.conditions, condition_type::READY),
                "{before:?} {now:?}"
            );
        }
        assert_eq!(
            ready_transition(Some(&away("for 1 s")), &away("for 2 s"), condition_type::READY),
            None
        );
        assert_eq!(
            ready_transition(Some(&ready), &AsyncQueueStatus::default(), condition_type::READY),
            None
        );
    }
}
