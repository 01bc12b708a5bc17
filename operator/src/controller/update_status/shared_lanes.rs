//! The condition that says that functions share a lane.

use crate::{
    crd::{
        AsyncQueue,
        conditions::{ConditionValue, condition_type, find, reason},
    },
    lane_limits::{LaneLimits, LaneStates, QueueLanes, SharingCause},
};

/// Returns the condition `LanesShared`; `None` if no functions share a lane.
pub(crate) fn condition(states: &LaneStates, queue: &AsyncQueue) -> Option<ConditionValue> {
    let (lanes, usage) = (states.of(queue)?, states.usage());
    let cause = lanes.sharing_cause(&states.limits, &usage)?;
    let numbers = (usage.all.lanes, usage.replicated.lanes);
    Some(ConditionValue::true_(reason_of(cause), message(&lanes, cause, &states.limits, numbers)))
}

/// Returns whether the condition `LanesShared` of a queue is up to date.
pub(crate) fn is_reported(states: &LaneStates, queue: &AsyncQueue) -> bool {
    let conditions = queue.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let previous = find(conditions, condition_type::LANES_SHARED).map(|found| &*found.message);
    previous == condition(states, queue).map(|value| value.message).as_deref()
}

fn reason_of(cause: SharingCause) -> &'static str {
    match cause {
        SharingCause::Queue => reason::MAX_LANES_PER_QUEUE,
        SharingCause::Installation => reason::MAX_LANES,
        SharingCause::Replicated => reason::MAX_LANES_REPLICATED,
        SharingCause::Earlier => reason::LANES_IN_USE,
    }
}

fn message(
    QueueLanes { counts, .. }: &QueueLanes,
    cause: SharingCause,
    limits: &LaneLimits,
    (all, replicated): (usize, usize),
) -> String {
    let why = match cause {
        SharingCause::Queue => format!(
            "{} functions have lanes of their own, and max_lanes_per_queue of the operator is {}. \
             Move functions to another queue, or raise the setting.",
            counts.own, limits.per_queue
        ),
        SharingCause::Installation => format!(
            "all queues together have {all} lanes, and max_lanes of the operator is {}. Set \
             fairness: Fifo where it is not needed, or raise the setting.",
            limits.total
        ),
        SharingCause::Replicated => format!(
            "queues with several replicas have {replicated} lanes, and max_lanes_replicated of the \
             operator is {}. Set fairness: Fifo where it is not needed, or raise the setting.",
            limits.replicated
        ),
        SharingCause::Earlier => {
            "there is room again. Each gets a lane of its own when the shared one has no call for \
             a minute."
                .to_owned()
        }
    };
    format!(
        "Functions: {} share lanes ({}), so they can delay each other: {why}",
        counts.sharing, counts.shared
    )
}

#[cfg(test)]
mod tests {
    use asyncqueue::lanes::LaneCounts;

    use super::*;
    use crate::fixtures;

    #[test]
    fn each_cause_names_numbers_and_the_remedy() {
        let limits = LaneLimits { per_queue: 90, total: 5_000, replicated: 1_000 };
        let lanes = |own, is_replicated| QueueLanes {
            counts: LaneCounts { own, shared: 1, sharing: 12 },
            is_replicated,
        };
        for (cause, parts) in [
            (SharingCause::Queue, &["12 share lanes (1)", "90 functions", "another queue"][..]),
            (SharingCause::Installation, &["5100 lanes", "max_lanes of the operator is 5000"]),
            (SharingCause::Replicated, &["1001 lanes", "max_lanes_replicated", "is 1000"]),
            (SharingCause::Earlier, &["there is room again", "a minute"]),
        ] {
            let text = message(&lanes(90, true), cause, &limits, (5_100, 1_001));
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn the_condition_exists_while_functions_share_a_lane() {
        let states = LaneStates::new(LaneLimits { per_queue: 2, total: 10, replicated: 10 });
        let queue = fixtures::owner("jobs");
        assert!(condition(&states, &queue).is_none() && is_reported(&states, &queue));
        let record = |sharing| {
            let counts = LaneCounts { own: 2, shared: usize::from(sharing > 0), sharing };
            let lanes = QueueLanes { counts, is_replicated: false };
            states.record([(fixtures::uid("jobs"), lanes)].into());
        };
        record(3);
        assert_eq!(condition(&states, &queue).unwrap().reason, reason::MAX_LANES_PER_QUEUE);
        assert!(!is_reported(&states, &queue));
        record(0);
        assert!(condition(&states, &queue).is_none() && is_reported(&states, &queue));
    }
}
