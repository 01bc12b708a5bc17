//! The metrics of the console. No label value comes from a client.

use std::time::Duration;

use http::StatusCode;
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
    request_seconds: Histogram,
    logins: Family<OutcomeLabels, Counter>,
    actions: Family<ActionLabels, Counter>,
    samples: Family<OutcomeLabels, Counter>,
    sample_milliseconds: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    status: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    outcome: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Registers all metrics.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            request_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            logins: Family::default(),
            actions: Family::default(),
            samples: Family::default(),
            sample_milliseconds: Gauge::default(),
        };
        registry.register("http_requests", "HTTP requests answered", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from the head of a request to the head of its response, in seconds",
            metrics.request_seconds.clone(),
        );
        registry.register("logins", "Logins that were checked or refused", metrics.logins.clone());
        registry.register("actions", "Actions of users", metrics.actions.clone());
        registry.register("samples", "Samples of all queues", metrics.samples.clone());
        registry.register(
            "sample_duration_milliseconds",
            "Time that the last sample of all queues took, in milliseconds",
            metrics.sample_milliseconds.clone(),
        );
        metrics
    }

    /// Counts a response.
    pub(crate) fn answered(&self, status: StatusCode, after: Duration) {
        self.requests.get_or_create(&RequestLabels { status: status.as_u16().into() }).inc();
        self.request_seconds.observe(after.as_secs_f64());
    }

    /// Counts a login.
    pub(crate) fn login(&self, outcome: &'static str) {
        self.logins.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts an action of a user.
    pub(crate) fn acted(&self, action: &'static str, outcome: &'static str) {
        self.actions.get_or_create(&ActionLabels { action, outcome }).inc();
    }

    /// Counts a sample of all queues.
    pub(crate) fn sampled(&self, succeeded: bool, duration: Duration) {
        let outcome = if succeeded { "success" } else { "failure" };
        self.samples.get_or_create(&OutcomeLabels { outcome }).inc();
        self.sample_milliseconds.set(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
    }
}
