//! The metrics of the gateway. No label value comes from a client.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The metrics, shared by all clones.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RequestLabels, Histogram>,
    submissions: Family<OutcomeLabels, Counter>,
    lookups: Family<LookupLabels, Counter>,
    batches: Family<OutcomeLabels, Counter>,
    submit_seconds: Histogram,
    publishing: Gauge,
    directory_file_valid: Gauge,
    directory_file_reads: Family<OutcomeLabels, Counter>,
    unknown_functions: Family<OutcomeLabels, Counter>,
    waits: Family<OutcomeLabels, Counter>,
    waits_in_progress: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    path: &'static str,
    status: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookupLabels {
    operation: &'static str,
    outcome: &'static str,
}

/// How a wait for a result ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitOutcome {
    /// With the result.
    Ended,
    /// Its time was over, or the gateway shut down.
    TimedOut,
    /// There were too many.
    Refused,
}

/// Counts something that is in progress, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

// === impl Metrics ===

impl Metrics {
    /// Registers all metrics.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds_histogram),
            submissions: Family::default(),
            lookups: Family::default(),
            batches: Family::default(),
            submit_seconds: seconds_histogram(),
            publishing: Gauge::default(),
            directory_file_valid: Gauge::default(),
            directory_file_reads: Family::default(),
            unknown_functions: Family::default(),
            waits: Family::default(),
            waits_in_progress: Gauge::default(),
        };
        registry.register("http_requests", "HTTP requests answered", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from the head of a request to the head of its response, in seconds",
            metrics.request_seconds.clone(),
        );
        let registry = registry.sub_registry_with_prefix("gateway");
        registry.register(
            "submissions",
            "Submitted calls, by outcome",
            metrics.submissions.clone(),
        );
        registry.register(
            "lookups",
            "Requests about one call, by operation and outcome",
            metrics.lookups.clone(),
        );
        registry.register(
            "batches",
            "Submitted batches of calls, by outcome",
            metrics.batches.clone(),
        );
        registry.register(
            "submit_duration_seconds",
            "Time from the publish of a call to the ack of its stream, in seconds",
            metrics.submit_seconds.clone(),
        );
        registry.register(
            "publishes_in_flight",
            "Calls that are being published to their stream",
            metrics.publishing.clone(),
        );
        registry.register(
            "directory_file_valid",
            "1 if directory_file is valid; 0 if it is not, and the previous contents are used",
            metrics.directory_file_valid.clone(),
        );
        registry.register(
            "directory_file_reads",
            "Reads of directory_file, at the start and after changes, by outcome",
            metrics.directory_file_reads.clone(),
        );
        registry.register(
            "unknown_function_calls",
            "Submitted calls of functions that are not in the directory, by outcome",
            metrics.unknown_functions.clone(),
        );
        registry.register(
            "waits",
            "Waits for the results of calls, by outcome: ended, timed_out or refused",
            metrics.waits.clone(),
        );
        registry.register(
            "waits_in_progress",
            "Requests that wait for the result of a call",
            metrics.waits_in_progress.clone(),
        );
        metrics
    }

    /// Counts a request that was answered.
    pub(crate) fn record_request(
        &self,
        method: &Method,
        path: &'static str,
        status: StatusCode,
        duration: Duration,
    ) {
        let request =
            RequestLabels { method: method_label(method), path, status: status.as_u16().into() };
        self.requests.get_or_create(&request).inc();
        self.request_seconds.get_or_create(&request).observe(duration.as_secs_f64());
    }

    /// Counts a submission, whether it was stored or not. The outcome is one of a fixed set.
    pub(crate) fn record_submission(&self, outcome: &'static str) {
        self.submissions.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts a submitted batch, whether it was stored or not. The outcome is one of a fixed set.
    pub(crate) fn record_batch(&self, outcome: &'static str) {
        self.batches.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts a lookup of a call. Operation and outcome are each one of a fixed set.
    pub(crate) fn record_lookup(&self, operation: &'static str, outcome: &'static str) {
        self.lookups.get_or_create(&LookupLabels { operation, outcome }).inc();
    }

    /// Records that the directory file was read, and whether it is valid.
    pub(crate) fn record_directory_read(&self, valid: bool) {
        self.directory_file_valid.set(valid.into());
        let outcome = if valid { "valid" } else { "not_valid" };
        self.directory_file_reads.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts a call of a function that is not in the directory. The outcome is one of a fixed
    /// set.
    pub(crate) fn record_unknown_function(&self, outcome: &'static str) {
        self.unknown_functions.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts a call that is being published, until the returned value is dropped.
    #[must_use]
    pub(crate) fn track_publish(&self) -> Counted {
        Counted::new(&self.publishing)
    }

    /// Counts a wait for a result, by its outcome.
    pub(crate) fn record_wait(&self, outcome: WaitOutcome) {
        self.waits.get_or_create(&OutcomeLabels { outcome: outcome.as_str() }).inc();
    }

    /// Counts a wait that is in progress, until the returned value is dropped.
    #[must_use]
    pub(crate) fn track_wait(&self) -> Counted {
        Counted::new(&self.waits_in_progress)
    }

    /// Records that the stream has stored a call.
    pub(crate) fn record_publish(&self, duration: Duration) {
        self.submit_seconds.observe(duration.as_secs_f64());
    }
}

// === impl WaitOutcome ===

impl WaitOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
        }
    }
}

// === impl Counted ===

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Creates a histogram from half a millisecond, the minimum time for storing a call, to 16 s, which
/// is above the default timeout of 5 s.
fn seconds_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn metric_names_are_stable() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.record_request(
            &Method::from_bytes(b"WEIRD").unwrap(),
            "/async-function",
            StatusCode::METHOD_NOT_ALLOWED,
            Duration::from_millis(1),
        );
        metrics.record_submission("stored");
        metrics.record_lookup("cancel", "running");
        metrics.record_directory_read(false);
        metrics.record_unknown_function("accepted");
        metrics.record_publish(Duration::from_millis(2));
        metrics.record_wait(WaitOutcome::TimedOut);
        let publishing = metrics.track_publish();
        let waiting = metrics.track_wait();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"http_requests_total{method="other",path="/async-function",status="405"} 1"#,
            "http_request_duration_seconds_count\
             {method=\"other\",path=\"/async-function\",status=\"405\"} 1",
            r#"gateway_submissions_total{outcome="stored"} 1"#,
            r#"gateway_lookups_total{operation="cancel",outcome="running"} 1"#,
            "gateway_submit_duration_seconds_count 1",
            "gateway_directory_file_valid 0",
            r#"gateway_directory_file_reads_total{outcome="not_valid"} 1"#,
            r#"gateway_unknown_function_calls_total{outcome="accepted"} 1"#,
            "gateway_publishes_in_flight 1",
            r#"gateway_waits_total{outcome="timed_out"} 1"#,
            "gateway_waits_in_progress 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        drop((publishing, waiting));
        assert_eq!((metrics.publishing.get(), metrics.waits_in_progress.get()), (0, 0));
    }
}
