//! The metrics of the gateway. No label takes its value from a client.

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
pub struct Metrics {
    requests: Family<Request, Counter>,
    request_seconds: Family<Request, Histogram>,
    submissions: Family<Outcome, Counter>,
    lookups: Family<Lookup, Counter>,
    submit_seconds: Histogram,
    publishing: Gauge,
    directory_file_valid: Gauge,
    directory_file_reads: Family<Outcome, Counter>,
    unknown_functions: Family<Outcome, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    path: &'static str,
    status: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lookup {
    operation: &'static str,
    outcome: &'static str,
}

/// Counts a call that is being published, until it is dropped.
#[derive(Debug)]
pub struct Publishing(Gauge);

// === impl Metrics ===

impl Metrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            submissions: Family::default(),
            lookups: Family::default(),
            submit_seconds: seconds(),
            publishing: Gauge::default(),
            directory_file_valid: Gauge::default(),
            directory_file_reads: Family::default(),
            unknown_functions: Family::default(),
        };
        registry.register("http_requests", "HTTP requests answered", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "From the head of a request to the head of its answer",
            metrics.request_seconds.clone(),
        );
        let registry = registry.sub_registry_with_prefix("gateway");
        registry.register(
            "submissions",
            "Calls submitted, by what became of them",
            metrics.submissions.clone(),
        );
        registry.register(
            "lookups",
            "Requests about one call, by what was asked and what became of that",
            metrics.lookups.clone(),
        );
        registry.register(
            "submit_duration_seconds",
            "From the publish of a call to the stream's word that it is stored",
            metrics.submit_seconds.clone(),
        );
        registry.register(
            "publishes_in_flight",
            "Calls on their way to the stream now",
            metrics.publishing.clone(),
        );
        registry.register(
            "directory_file_valid",
            "1 if directory_file is valid as it is; 0 if it is not and the last one that was is used",
            metrics.directory_file_valid.clone(),
        );
        registry.register(
            "directory_file_reads",
            "How often directory_file was read, at the start and after changes",
            metrics.directory_file_reads.clone(),
        );
        registry.register(
            "unknown_function_calls",
            "Calls submitted of functions that the directory does not have: accepted or rejected",
            metrics.unknown_functions.clone(),
        );
        metrics
    }

    /// Counts a request that was answered.
    pub fn answered(
        &self,
        method: &Method,
        path: &'static str,
        status: StatusCode,
        took: Duration,
    ) {
        let request =
            Request { method: method_label(method), path, status: status.as_u16().into() };
        self.requests.get_or_create(&request).inc();
        self.request_seconds.get_or_create(&request).observe(took.as_secs_f64());
    }

    /// Counts a submission, whether it was stored or not. The outcome is one of a fixed set of
    /// words.
    pub fn submitted(&self, outcome: &'static str) {
        self.submissions.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts a lookup of a call. Operation and outcome are each one of a fixed set of words.
    pub fn looked_up(&self, operation: &'static str, outcome: &'static str) {
        self.lookups.get_or_create(&Lookup { operation, outcome }).inc();
    }

    /// Records that the directory file was read, and whether it is valid.
    pub fn directory_file(&self, valid: bool) {
        self.directory_file_valid.set(valid.into());
        let outcome = if valid { "valid" } else { "not_valid" };
        self.directory_file_reads.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts a call of a function that the directory does not have. The outcome is one of a fixed
    /// set of words.
    pub fn unknown_function(&self, outcome: &'static str) {
        self.unknown_functions.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts a call that is being published, until the returned value is dropped.
    #[must_use]
    pub fn publishing(&self) -> Publishing {
        self.publishing.inc();
        Publishing(self.publishing.clone())
    }

    /// Records that the stream has stored a call.
    pub fn stored(&self, took: Duration) {
        self.submit_seconds.observe(took.as_secs_f64());
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Creates a histogram from half a millisecond, the minimum time for storing a call, to 16 s, which
/// is above the default timeout of 5 s.
fn seconds() -> Histogram {
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
    fn the_names_of_metrics_are_a_contract() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.answered(
            &Method::from_bytes(b"WEIRD").unwrap(),
            "/async-function",
            StatusCode::METHOD_NOT_ALLOWED,
            Duration::from_millis(1),
        );
        metrics.submitted("stored");
        metrics.looked_up("cancel", "running");
        metrics.directory_file(false);
        metrics.unknown_function("accepted");
        metrics.stored(Duration::from_millis(2));
        let publishing = metrics.publishing();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"http_requests_total{method="other",path="/async-function",status="405"} 1"#,
            r#"http_request_duration_seconds_count{method="other",path="/async-function",status="405"} 1"#,
            r#"gateway_submissions_total{outcome="stored"} 1"#,
            r#"gateway_lookups_total{operation="cancel",outcome="running"} 1"#,
            "gateway_submit_duration_seconds_count 1",
            "gateway_directory_file_valid 0",
            r#"gateway_directory_file_reads_total{outcome="not_valid"} 1"#,
            r#"gateway_unknown_function_calls_total{outcome="accepted"} 1"#,
            "gateway_publishes_in_flight 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        drop(publishing);
        assert_eq!(metrics.publishing.get(), 0);
    }
}
