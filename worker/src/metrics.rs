//! Defines the worker's metrics. They have the names that OpenFaaS's dashboards use, where those
//! have one.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use asyncqueue::{
    EndState, FunctionName, QueueName,
    directory::{Directory, Rate},
    publish_failure::PublishFailure,
    shares::{WorkerShare, rate_of_share},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub(crate) use self::{
    durations::DurationCounter,
    functions::{AppliedLimits, Learned},
    inflight::InflightGuard,
    lanes::Lanes,
};
use self::{functions::FunctionMetrics, inflight::InflightGauges, lanes::LaneGauges};
use crate::{
    record::Record,
    retry::outcome::{Outcome, PutOffReason, RefusalReason},
};

mod durations;
mod functions;
mod inflight;
mod lanes;

/// Limits of the buckets in seconds: from a function that answers from memory to one that runs for
/// an hour.
const BUCKETS: [f64; 14] =
    [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    queue_name: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue_name: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct FunctionLabels {
    queue_name: Arc<str>,
    function_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RecordLabels {
    queue_name: Arc<str>,
    record: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    queue_name: Arc<str>,
    reason: &'static str,
}

/// Outcomes of keeping a result, as labels.
const KEPT: &str = "kept";
const LOST: &str = "lost";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RateLabels {
    queue_name: Arc<str>,
    limit: &'static str,
}

/// The metrics of the worker. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    queue: Arc<str>,
    processed: Family<OutcomeLabels, Counter>,
    inflight: InflightGauges,
    calls_put_off: Family<ReasonLabels, Counter>,
    functions: FunctionMetrics,
    concurrency: Family<QueueLabels, Gauge>,
    concurrency_share: Family<QueueLabels, Gauge>,
    rate: Family<QueueLabels, Gauge<f64, AtomicU64>>,
    rate_share: Family<QueueLabels, Gauge<f64, AtomicU64>>,
    rate_waits: Family<RateLabels, Counter>,
    callbacks: Family<OutcomeLabels, Counter>,
    callbacks_deferred: Family<QueueLabels, Counter>,
    dead_letters: Family<OutcomeLabels, Counter>,
    kept_results: Family<OutcomeLabels, Counter>,
    store_failures: Family<RecordLabels, Counter>,
    blocked: Family<RecordLabels, Gauge>,
    pending: Family<FunctionLabels, Gauge>,
    lanes: LaneGauges,
    submitted: Family<QueueLabels, Gauge>,
    utilization: Family<QueueLabels, Gauge<f64, AtomicU64>>,
    oldest_age: Family<QueueLabels, Gauge<f64, AtomicU64>>,
    pending_callbacks: Family<QueueLabels, Gauge>,
    scheduled: Family<QueueLabels, Gauge>,
    duration: Histogram,
    /// The same for the statistics over NATS, where a histogram of this crate can't be read.
    durations: DurationCounter,
    wait: Histogram,
}

/// The rate that a call waits for, as a label.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RateOf {
    Queue,
    Function,
}

/// Outcome of an attempt to post a result, as a label.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallbackOutcome {
    /// The receiver has accepted the result.
    Accepted,
    /// Another attempt may succeed.
    Failed,
    /// The result must not be posted to this URL.
    Refused,
}

// === impl RateOf ===

impl RateOf {
    const ALL: [Self; 2] = [Self::Queue, Self::Function];

    fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Function => "function",
        }
    }
}

// === impl CallbackOutcome ===

impl CallbackOutcome {
    const ALL: [Self; 3] = [Self::Accepted, Self::Failed, Self::Refused];

    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Registers the metrics of a queue.
    pub(crate) fn new(registry: &mut Registry, queue: &QueueName) -> Self {
        let queue: Arc<str> = queue.as_str().into();
        let metrics = Self {
            queue: queue.clone(),
            processed: Family::default(),
            inflight: InflightGauges::new(queue.clone()),
            calls_put_off: Family::default(),
            functions: FunctionMetrics::new(queue.clone()),
            concurrency: Family::default(),
            concurrency_share: Family::default(),
            rate: Family::default(),
            rate_share: Family::default(),
            rate_waits: Family::default(),
            callbacks: Family::default(),
            callbacks_deferred: Family::default(),
            dead_letters: Family::default(),
            kept_results: Family::default(),
            store_failures: Family::default(),
            blocked: Family::default(),
            pending: Family::default(),
            lanes: LaneGauges::new(queue),
            submitted: Family::default(),
            utilization: Family::default(),
            oldest_age: Family::default(),
            pending_callbacks: Family::default(),
            scheduled: Family::default(),
            duration: Histogram::new(BUCKETS),
            durations: DurationCounter::default(),
            wait: Histogram::new(BUCKETS),
        };
        metrics.register_of_queue(registry);
        registry.register(
            "messages_processed",
            "Attempts of calls by outcome: done, retry, dead, cancelled or expired",
            metrics.processed.clone(),
        );
        registry.register(
            "function_invocation_inflight",
            "Running calls by function; function_name is `other` for functions that are not in the \
             directory",
            metrics.inflight.family.clone(),
        );
        registry.register(
            "calls_put_off",
            "Calls that were handed back without an invocation, by reason: scaled_to_zero, \
             no_share of concurrency and rate, function_limit, not_due or scheduled",
            metrics.calls_put_off.clone(),
        );
        metrics.functions.register(registry);
        metrics.register_shared_limits(registry);
        registry.register(
            "callbacks",
            "Attempts to post a result by outcome: accepted, failed or refused",
            metrics.callbacks.clone(),
        );
        registry.register(
            "callbacks_put_off",
            "Results that were deferred, because their host had reached its limit of concurrent \
             requests",
            metrics.callbacks_deferred.clone(),
        );
        metrics.register_records(registry);
        let of_queue = ("queue_name".into(), metrics.queue.to_string().into());
        let registry = registry.sub_registry_with_label(of_queue);
        registry.register(
            "function_duration_seconds",
            "Duration of attempts, from the first byte sent to the last received",
            metrics.duration.clone(),
        );
        registry.register(
            "waiting_seconds",
            "Time that calls waited in the queue for their first attempt",
            metrics.wait.clone(),
        );
        metrics.create_series();
        metrics
    }

    /// Registers what is known of the limits that all workers share.
    fn register_shared_limits(&self, registry: &mut Registry) {
        registry.register(
            "concurrency",
            "Maximum number of open invocations of all workers: spec.concurrency, if it is set",
            self.concurrency.clone(),
        );
        registry.register(
            "concurrency_share",
            "Maximum number of open invocations of this worker: its share of spec.concurrency",
            self.concurrency_share.clone(),
        );
        registry.register(
            "rate",
            "Maximum number of invocations of all workers that start in a second: spec.rate, if \
             it is set",
            self.rate.clone(),
        );
        registry.register(
            "rate_share",
            "Maximum number of invocations of this worker that start in a second: its share of \
             spec.rate",
            self.rate_share.clone(),
        );
        registry.register(
            "rate_waits",
            "Calls that this worker held until a rate permitted their invocation, by limit: queue \
             or function",
            self.rate_waits.clone(),
        );
    }

    /// Registers what is read from the server every few seconds.
    fn register_of_queue(&self, registry: &mut Registry) {
        registry.register(
            "pending_messages",
            "Calls that wait in the queue, updated every few seconds; of all functions: \
             function_name is empty. Of each function only if it has a lane",
            self.pending.clone(),
        );
        self.lanes.register(registry);
        registry.register(
            "messages_submitted_total",
            "Calls that the queue has ever stored, updated every few seconds",
            self.submitted.clone(),
        );
        registry.register(
            "fullness_ratio",
            "Utilization of the queue's limits, updated every few seconds: at 1 it refuses calls",
            self.utilization.clone(),
        );
        registry.register(
            "oldest_call_age_seconds",
            "Age of the oldest call that has not ended, waiting or running, updated every few \
             seconds: 0 if all calls have ended",
            self.oldest_age.clone(),
        );
        registry.register(
            "pending_callbacks",
            "Results that were not posted yet, updated every few seconds",
            self.pending_callbacks.clone(),
        );
        registry.register(
            "scheduled_calls",
            "Delayed calls that this worker has handed back and that are not due, updated every \
             few seconds. The sum over the workers of a queue is their number",
            self.scheduled.clone(),
        );
    }

    /// Registers the metrics of the records that end calls.
    fn register_records(&self, registry: &mut Registry) {
        registry.register(
            "dead_letters",
            "Calls, results and undecodable messages that became dead letters, by outcome: stored \
             or dropped",
            self.dead_letters.clone(),
        );
        registry.register(
            "results",
            "Results for clients that asked for them to be kept: kept, or lost",
            self.kept_results.clone(),
        );
        registry.register(
            "records_not_stored",
            "Failed attempts to store a record of a call (result, kept_result, dead_letter, \
             tombstone, attempt_offset), by reason",
            self.store_failures.clone(),
        );
        registry.register(
            "calls_blocked",
            "Calls that wait because a record can't be stored, by record and reason",
            self.blocked.clone(),
        );
    }

    /// Creates series with the value 0, so that the first dead letter is seen as an increase.
    fn create_series(&self) {
        for outcome in ["done", "retry", "dead", "cancelled", "expired"] {
            let _ = self.processed.get_or_create(&self.labels(outcome));
        }
        for reason in PutOffReason::ALL {
            let _ = self.calls_put_off.get_or_create(&self.put_off_labels(reason));
        }
        for of in RateOf::ALL {
            let _ = self.rate_waits.get_or_create(&self.rate_labels(of));
        }
        for record in Record::ALL {
            for failure in [PublishFailure::NoSpace, PublishFailure::StreamFull] {
                let _ = self.blocked.get_or_create(&self.record_labels(record, failure));
            }
        }
        for outcome in CallbackOutcome::ALL {
            let _ = self.callbacks.get_or_create(&self.labels(outcome.as_str()));
        }
        for outcome in ["stored", "dropped"] {
            let _ = self.dead_letters.get_or_create(&self.labels(outcome));
        }
        for outcome in [KEPT, LOST] {
            let _ = self.kept_results.get_or_create(&self.labels(outcome));
        }
    }

    /// Sets how many calls wait, and how many were ever stored.
    pub(crate) fn set_queue_counts(&self, pending: u64, submitted: u64) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let queue_name = self.queue.clone();
        let all = FunctionLabels { queue_name: queue_name.clone(), function_name: String::new() };
        self.pending.get_or_create(&all).set(number(pending));
        self.submitted.get_or_create(&QueueLabels { queue_name }).set(number(submitted));
    }

    /// Sets the lanes of the queue, and how many calls of their functions wait; `None` if it has no
    /// lanes.
    pub(crate) fn set_lanes(&self, lanes: Option<&Lanes>) {
        self.lanes.set(lanes, &self.pending);
    }

    /// Sets the utilization of the queue's limits, from 0 to 1.
    pub(crate) fn set_utilization(&self, ratio: f64) {
        let queue_name = self.queue.clone();
        self.utilization.get_or_create(&QueueLabels { queue_name }).set(ratio);
    }

    /// Sets the age of the oldest call that has not ended.
    pub(crate) fn set_oldest_age(&self, age: Duration) {
        let queue_name = self.queue.clone();
        self.oldest_age.get_or_create(&QueueLabels { queue_name }).set(age.as_secs_f64());
    }

    /// Sets how many results were not posted yet.
    pub(crate) fn set_pending_callbacks(&self, count: u64) {
        let queue_name = self.queue.clone();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.pending_callbacks.get_or_create(&QueueLabels { queue_name }).set(count);
    }

    /// Sets how many delayed calls that are not due this worker has handed back.
    pub(crate) fn set_scheduled(&self, count: u64) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let queue_name = self.queue.clone();
        self.scheduled.get_or_create(&QueueLabels { queue_name }).set(count);
    }

    /// Records how long a call has waited for its first attempt.
    pub(crate) fn record_wait(&self, time: Duration) {
        self.wait.observe(time.as_secs_f64());
    }

    /// Counts a call as running until the guard is dropped.
    pub(crate) fn track_running(
        &self,
        function: &FunctionName,
        directory: Option<&Directory>,
    ) -> InflightGuard {
        self.inflight.track(function, directory)
    }

    /// Removes the series of functions that the directory no longer has.
    pub(crate) fn retain_functions(&self, directory: &Directory) {
        self.inflight.retain(directory);
        self.functions.retain(directory);
    }

    /// Sets the limits that apply to functions.
    pub(crate) fn set_function_limits(
        &self,
        functions: &[(FunctionName, AppliedLimits)],
        directory: Option<&Directory>,
    ) {
        self.functions.set(functions, directory);
    }

    /// Counts a call that its function has refused.
    pub(crate) fn record_refusal(
        &self,
        function: &FunctionName,
        reason: RefusalReason,
        directory: Option<&Directory>,
    ) {
        self.functions.record_refusal(function, reason, directory);
    }

    /// Records the end of an attempt.
    pub(crate) fn record_attempt(&self, duration: Duration, outcome: &Outcome) {
        self.duration.observe(duration.as_secs_f64());
        self.durations.count(duration);
        let outcome = match outcome {
            Outcome::Done => "done",
            Outcome::Retry { .. } => "retry",
            Outcome::Dead(_) => "dead",
        };
        self.processed.get_or_create(&self.labels(outcome)).inc();
    }

    /// Returns how long the attempts took. The clone counts on.
    pub(crate) fn durations(&self) -> DurationCounter {
        self.durations.clone()
    }

    /// Counts a call that is handed back without an invocation.
    pub(crate) fn record_put_off(&self, reason: PutOffReason) {
        self.calls_put_off.get_or_create(&self.put_off_labels(reason)).inc();
    }

    /// Sets the totals of concurrency and rate, and the share of this worker. `None`: it is not
    /// limited.
    pub(crate) fn set_share(
        &self,
        (concurrency, rate): (Option<u32>, Option<Rate>),
        share: &WorkerShare,
    ) {
        let labels = self.queue_labels();
        if let Some(concurrency) = concurrency {
            self.concurrency.get_or_create(&labels).set(concurrency.into());
            self.concurrency_share.get_or_create(&labels).set(share.slots.into());
        } else {
            self.concurrency.remove(&labels);
            self.concurrency_share.remove(&labels);
        }
        if let Some(rate) = rate {
            self.rate.get_or_create(&labels).set(rate.per_second.into());
            self.rate_share.get_or_create(&labels).set(rate_of_share(rate.per_second, share.rate));
        } else {
            self.rate.remove(&labels);
            self.rate_share.remove(&labels);
        }
    }

    /// Removes the series of limits that do not exist any more.
    pub(crate) fn remove_share(&self) {
        self.set_share((None, None), &WorkerShare::default());
    }

    /// Counts a call that waits for a rate.
    pub(crate) fn record_rate_wait(&self, of: RateOf) {
        self.rate_waits.get_or_create(&self.rate_labels(of)).inc();
    }

    /// Counts a call that ended in this state without an invocation: cancelled, expired, or dead
    /// because its worker crashed during the last attempt.
    pub(crate) fn record_end_without_run(&self, end: EndState) {
        self.processed.get_or_create(&self.labels(end.as_str())).inc();
    }

    /// Counts a failed attempt to store a record of a call.
    pub(crate) fn record_store_failure(&self, record: Record, failure: PublishFailure) {
        self.store_failures.get_or_create(&self.record_labels(record, failure)).inc();
    }

    /// Adds a number of calls to those that wait for a record to be stored.
    pub(crate) fn add_blocked(&self, record: Record, failure: PublishFailure, calls: i64) {
        self.blocked.get_or_create(&self.record_labels(record, failure)).inc_by(calls);
    }

    /// Counts an attempt to post a result, by its outcome.
    pub(crate) fn record_callback(&self, outcome: CallbackOutcome) {
        self.callbacks.get_or_create(&self.labels(outcome.as_str())).inc();
    }

    /// Counts a result that waits because its host already has its maximum of requests.
    pub(crate) fn record_callback_deferred(&self) {
        self.callbacks_deferred
            .get_or_create(&QueueLabels { queue_name: self.queue.clone() })
            .inc();
    }

    /// Counts a dead letter: stored, or dropped.
    pub(crate) fn record_dead_letter(&self, stored: bool) {
        let outcome = if stored { "stored" } else { "dropped" };
        self.dead_letters.get_or_create(&self.labels(outcome)).inc();
    }

    /// Counts a result that a client asked to be kept: kept, or lost.
    pub(crate) fn record_kept_result(&self, is_kept: bool) {
        let outcome = if is_kept { KEPT } else { LOST };
        self.kept_results.get_or_create(&self.labels(outcome)).inc();
    }

    fn record_labels(&self, record: Record, failure: PublishFailure) -> RecordLabels {
        let (record, reason) = (record.as_str(), failure.as_str());
        RecordLabels { queue_name: self.queue.clone(), record, reason }
    }

    fn put_off_labels(&self, reason: PutOffReason) -> ReasonLabels {
        ReasonLabels { queue_name: self.queue.clone(), reason: reason.as_str() }
    }

    fn rate_labels(&self, of: RateOf) -> RateLabels {
        RateLabels { queue_name: self.queue.clone(), limit: of.as_str() }
    }

    fn queue_labels(&self) -> QueueLabels {
        QueueLabels { queue_name: self.queue.clone() }
    }

    fn labels(&self, outcome: &'static str) -> OutcomeLabels {
        OutcomeLabels { queue_name: self.queue.clone(), outcome }
    }
}
