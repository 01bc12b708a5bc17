//! Decides which lanes to create, change and remove. Pure functions of plain values.

use std::{collections::BTreeSet, time::Duration};

use async_nats::jetstream::consumer::{Info, pull};
use jiff::Timestamp;

use super::names::{group_name, is_group, is_lane, lane_name};
use crate::{
    jetstream::timestamp_from_server,
    lane_filters::{function_of, matches_filter},
    names::QueueName,
};

/// A lane that is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewLane {
    pub(super) name: String,
    pub(super) filters: Vec<String>,
}

/// The lanes of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// Number of functions that have a lane of their own.
    pub own: usize,
    /// Number of lanes that functions share.
    pub shared: usize,
    /// Number of functions that share these.
    pub sharing: usize,
}

// === impl LaneCounts ===

impl LaneCounts {
    /// Counts the lanes among the consumers of a queue's stream.
    #[must_use]
    pub fn new<'a>(queue: &QueueName, consumers: impl IntoIterator<Item = &'a Info>) -> Self {
        let mut counts = Self::default();
        for consumer in consumers {
            if is_group(queue, &consumer.name) {
                counts.shared += 1;
                counts.sharing += filters(&consumer.config).len();
            } else if is_lane(queue, &consumer.name) {
                counts.own += 1;
            }
        }
        counts
    }

    /// Returns the number of lanes.
    #[must_use]
    pub fn total(self) -> usize {
        self.own + self.shared
    }
}

/// Returns the filters of a consumer.
pub(crate) fn filters(config: &async_nats::jetstream::consumer::Config) -> Vec<String> {
    if config.filter_subject.is_empty() {
        config.filter_subjects.clone()
    } else {
        vec![config.filter_subject.clone()]
    }
}

/// Returns the configuration of a lane: that of the queue's consumer of calls, with a name and
/// filters of its own.
pub(super) fn lane_config(of_queue: &pull::Config, lane: &NewLane) -> pull::Config {
    let NewLane { name, filters } = lane;
    let (filter_subject, filter_subjects) = match filters.as_slice() {
        [only] => (only.clone(), Vec::new()),
        several => (String::new(), several.to_vec()),
    };
    pull::Config {
        name: None,
        durable_name: Some(name.clone()),
        filter_subject,
        filter_subjects,
        ..of_queue.clone()
    }
}

/// Returns the lanes for messages that no consumer takes: one for each function, up to `max_own` of
/// the queue, and one for all others.
pub(super) fn plan_lanes(
    queue: &QueueName,
    subject: &str,
    wanted: BTreeSet<String>,
    existing: &[&str],
    max_own: usize,
) -> Vec<NewLane> {
    let own = existing.iter().filter(|name| !is_group(queue, name)).count();
    let mut room = max_own.saturating_sub(own);
    let (mut lanes, mut shared) = (Vec::new(), Vec::new());
    for filter in wanted {
        match function_of(&filter, subject) {
            Some(function) if room > 0 => {
                room -= 1;
                lanes.push(NewLane { name: lane_name(queue, &function), filters: vec![filter] });
            }
            _ => shared.push(filter),
        }
    }
    if !shared.is_empty() {
        let names = (1..).map(|number| group_name(queue, number));
        let mut free = names.filter(|name| !existing.contains(&name.as_str()));
        lanes.extend(free.next().map(|name| NewLane { name, filters: shared }));
    }
    lanes
}

/// Returns whether any of these filters takes a subject.
pub(super) fn is_covered(filters: &[Vec<String>], subject: &str) -> bool {
    filters.iter().flatten().any(|filter| matches_filter(filter, subject))
}

/// Returns whether a lane has no call, and has had none for longer than it is kept.
pub(super) fn is_idle(lane: &Info, now: Timestamp, keep: Duration) -> bool {
    let last_active = [lane.delivered.last_active, lane.ack_floor.last_active]
        .into_iter()
        .flatten()
        .chain([lane.created])
        .map(timestamp_from_server)
        .max();
    let idle = last_active.and_then(|last| Duration::try_from(now.duration_since(last)).ok());
    is_drained(lane) && idle.is_some_and(|idle| idle > keep)
}

/// Returns whether a lane has no call: none waits, runs or is retried.
pub(super) fn is_drained(lane: &Info) -> bool {
    lane.num_pending == 0 && lane.num_ack_pending == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lane_filters::{filter_of, rest_filters};

    fn queue() -> QueueName {
        "jobs".parse().unwrap()
    }

    fn wanted(functions: usize) -> BTreeSet<String> {
        (0..functions).map(|number| format!("jobs.ns.f{number}.*")).collect()
    }

    #[test]
    fn functions_beyond_the_maximum_share_a_lane() {
        let lanes = plan_lanes(&queue(), "jobs", wanted(3), &[], 90);
        let names: Vec<_> = lanes.iter().map(|lane| lane.name.as_str()).collect();
        assert_eq!(names, ["jobs-fn-ns=f0", "jobs-fn-ns=f1", "jobs-fn-ns=f2"]);

        let existing: Vec<_> = (0..88).map(|number| format!("jobs-fn-ns=x{number}")).collect();
        let mut existing: Vec<_> = existing.iter().map(String::as_str).collect();
        existing.push("jobs-fn-=1");
        let lanes = plan_lanes(&queue(), "jobs", wanted(5), &existing, 90);
        let names: Vec<_> = lanes.iter().map(|lane| lane.name.as_str()).collect();
        assert_eq!(names, ["jobs-fn-ns=f0", "jobs-fn-ns=f1", "jobs-fn-=2"]);
        assert_eq!(lanes[2].filters, ["jobs.ns.f2.*", "jobs.ns.f3.*", "jobs.ns.f4.*"]);
    }

    #[test]
    fn calls_with_an_invalid_name_share_a_lane() {
        let wanted = ["jobs.n:s.f.*".to_owned()].into();
        let lanes = plan_lanes(&queue(), "jobs", wanted, &[], 90);
        assert_eq!(
            lanes,
            [NewLane { name: "jobs-fn-=1".to_owned(), filters: vec!["jobs.n:s.f.*".to_owned()] }]
        );
    }

    #[test]
    fn a_lane_is_a_copy_with_its_own_filters() {
        let of_queue = pull::Config {
            durable_name: Some("jobs-workers".to_owned()),
            filter_subjects: rest_filters("jobs"),
            ack_wait: Duration::from_secs(7),
            max_deliver: -1,
            ..pull::Config::default()
        };
        let lane = |filters: &[&str]| NewLane {
            name: "jobs-fn-ns=f".to_owned(),
            filters: filters.iter().map(ToString::to_string).collect(),
        };
        let one = lane_config(&of_queue, &lane(&["jobs.ns.f.*"]));
        assert_eq!(one.durable_name.as_deref(), Some("jobs-fn-ns=f"));
        assert_eq!((one.filter_subject.as_str(), one.filter_subjects.len()), ("jobs.ns.f.*", 0));
        assert_eq!((one.ack_wait, one.max_deliver), (of_queue.ack_wait, -1));
        let two = lane_config(&of_queue, &lane(&["jobs.ns.f.*", "jobs.ns.g.*"]));
        assert_eq!((two.filter_subject.as_str(), two.filter_subjects.len()), ("", 2));
    }

    proptest! {
        #[test]
        fn each_call_has_one_lane_after_a_plan(
            functions in prop::collection::btree_set("[a-z-]{1,3}", 0..140),
            existing in 0_usize..120,
            max_own in 0_usize..99,
        ) {
            let subject = |name: &str| format!("jobs.ns.{name}.id");
            let wanted: BTreeSet<_> = functions
                .iter()
                .map(|name| filter_of(&subject(name), "jobs").unwrap())
                .collect();
            let names: Vec<_> =
                (0..existing).map(|number| format!("jobs-fn-ns=X{number}")).collect();
            let existing: Vec<_> = names.iter().map(String::as_str).collect();
            let lanes = plan_lanes(&queue(), "jobs", wanted, &existing, max_own);
            for name in &functions {
                let takers = lanes.iter().filter(|lane| {
                    is_covered(std::slice::from_ref(&lane.filters), &subject(name))
                });
                prop_assert_eq!(takers.count(), 1, "{}", name);
            }
            let most = max_own.max(existing.len()) + 1;
            prop_assert!(existing.len() + lanes.len() <= most);
        }
    }
}
