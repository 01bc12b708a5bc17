//! The operator's metrics. Labels have fixed values: no name of an object is used.

use std::{collections::HashMap, time::Instant};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    crd::{AsyncQueue, AsyncQueueStatus},
    lane_limits::{LaneLimits, LaneUse},
};

/// Label of errors where the counts in a status could not be updated.
pub(crate) const QUEUE_COUNTS_ERROR: &str = "figures";

/// Buckets, in seconds: from a reconciliation without changes to a NATS that answers at the last
/// moment.
const BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    error: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    ready: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    streams: &'static str,
}

/// The operator's metrics. Clones share their values.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reconciliations: Counter,
    errors: Family<ErrorLabels, Counter>,
    duration: Histogram,
    watches_down: Family<ResourceLabels, Gauge>,
    unreadable: Counter,
    directory_errors: Counter,
    directory_changes: Counter,
    leader: Gauge,
    queues: Family<QueueLabels, Gauge>,
    lanes: Family<LaneLabels, Gauge>,
    max_lanes: Family<LaneLabels, Gauge>,
}

/// A reconciliation, which is measured until it is dropped.
pub(crate) struct Measured {
    duration: Histogram,
    start: Instant,
}

// === impl Metrics ===

impl Metrics {
    /// Registers the metrics. `error_categories` are the errors of reconciliations.
    pub(crate) fn new(registry: &mut Registry, error_categories: &[&'static str]) -> Self {
        let metrics = Self {
            reconciliations: Counter::default(),
            errors: Family::default(),
            duration: Histogram::new(BUCKETS),
            watches_down: Family::default(),
            unreadable: Counter::default(),
            directory_errors: Counter::default(),
            directory_changes: Counter::default(),
            leader: Gauge::default(),
            queues: Family::default(),
            lanes: Family::default(),
            max_lanes: Family::default(),
        };
        // Zero before the first error, so that an alert sees that one.
        for error in error_categories.iter().copied().chain([QUEUE_COUNTS_ERROR]) {
            let _ = metrics.errors.get_or_create(&ErrorLabels { error });
        }
        registry.register(
            "reconciliations",
            "Reconciliations of an AsyncQueue",
            metrics.reconciliations.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Failed reconciliations, by error",
            metrics.errors.clone(),
        );
        registry.register(
            "reconcile_duration_seconds",
            "Duration of reconciliations",
            metrics.duration.clone(),
        );
        registry.register(
            "watches_down",
            "Failed watches of the Kubernetes API, by resource: the CRD is missing, access is \
             denied, or the API server is unavailable",
            metrics.watches_down.clone(),
        );
        registry.register(
            "unreadable_objects",
            "Objects of the Kubernetes API that are not valid and were skipped",
            metrics.unreadable.clone(),
        );
        registry.register(
            "directory_errors",
            "Failed attempts to write the directory",
            metrics.directory_errors.clone(),
        );
        registry.register(
            "directory_changes",
            "Entries of the directory that were written or deleted",
            metrics.directory_changes.clone(),
        );
        registry.register(
            "leader",
            "1 if this operator is the leader, 0 if it is a standby",
            metrics.leader.clone(),
        );
        registry.register(
            "queues",
            "AsyncQueues, by the status of their condition Ready and its reason",
            metrics.queues.clone(),
        );
        registry.register(
            "lanes",
            "Lanes of all queues with fairness between functions; replicated: those in streams \
             with several replicas",
            metrics.lanes.clone(),
        );
        registry.register(
            "max_lanes",
            "Maximum number of these lanes, by max_lanes and max_lanes_replicated",
            metrics.max_lanes.clone(),
        );
        metrics
    }

    /// Counts a reconciliation that begins.
    pub(crate) fn reconciliation(&self) -> Measured {
        self.reconciliations.inc();
        Measured { duration: self.duration.clone(), start: Instant::now() }
    }

    pub(crate) fn reconcile_error(&self, error: &'static str) {
        self.errors.get_or_create(&ErrorLabels { error }).inc();
    }

    pub(crate) fn watches_down(&self, resource: &'static str, count: usize) {
        let gauge = self.watches_down.get_or_create_owned(&ResourceLabels { resource });
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn unreadable(&self) {
        self.unreadable.inc();
    }

    /// Sets the numbers of lanes, and their maxima.
    pub(crate) fn lanes(&self, usage: &LaneUse, limits: &LaneLimits) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        for (streams, usage, max) in
            [("all", usage.all, limits.total), ("replicated", usage.replicated, limits.replicated)]
        {
            let labels = LaneLabels { streams };
            self.lanes.get_or_create_owned(&labels).set(number(usage.lanes));
            self.max_lanes.get_or_create_owned(&labels).set(number(max));
        }
    }

    /// Counts the existing queues.
    pub(crate) fn queues<'a>(&self, queues: impl IntoIterator<Item = &'a AsyncQueue>) {
        let mut counts: HashMap<QueueLabels, i64> = HashMap::new();
        let no_status = AsyncQueueStatus::default();
        for queue in queues {
            let (ready, reason) = queue.status.as_ref().unwrap_or(&no_status).readiness();
            *counts.entry(QueueLabels { ready, reason }).or_default() += 1;
        }
        self.queues.clear();
        for (labels, count) in counts {
            self.queues.get_or_create(&labels).set(count);
        }
    }

    /// Sets whether this operator is the leader.
    pub(crate) fn set_leader(&self, is_leader: bool) {
        self.leader.set(i64::from(is_leader));
    }

    pub(crate) fn directory_error(&self) {
        self.directory_errors.inc();
    }

    pub(crate) fn directory_changes(&self, count: usize) {
        self.directory_changes.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.duration.observe(self.start.elapsed().as_secs_f64());
    }
}
