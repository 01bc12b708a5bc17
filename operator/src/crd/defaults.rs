//! The defaults of the fields, which the API server fills in from the schema.

use std::collections::BTreeMap;

use asyncqueue::{
    GoDuration,
    delay::DEFAULT_MAX_DELAY,
    directory::{DEFAULT_MAX_RESULTS, DEFAULT_MAX_RETENTION, ResultsSettings},
    stream::{
        DEAD_LETTER_MAX_AGE, DEFAULT_ACK_WAIT, DEFAULT_DUPLICATE_WINDOW, DEFAULT_MAX_MESSAGES,
    },
};
use asyncqueue_runtime::contract;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// One call at a time, as in `OpenFaaS`. Set more for a function that can run several.
pub(super) fn max_inflight() -> i32 {
    contract::DEFAULT_MAX_INFLIGHT.into()
}

/// `OpenFaaS`'s default for a call.
pub(super) fn timeout() -> GoDuration {
    GoDuration(contract::DEFAULT_UPSTREAM_TIMEOUT)
}

pub(super) fn replicas() -> i32 {
    1
}

pub(super) fn duplicate_window() -> GoDuration {
    GoDuration(DEFAULT_DUPLICATE_WINDOW)
}

pub(super) fn ack_wait() -> GoDuration {
    GoDuration(DEFAULT_ACK_WAIT)
}

/// Somewhat more than an idle worker uses.
pub(super) fn requests() -> BTreeMap<String, IntOrString> {
    [("cpu", "10m"), ("memory", "32Mi")]
        .map(|(resource, quantity)| (resource.to_owned(), IntOrString::String(quantity.to_owned())))
        .into()
}

pub(super) fn enabled() -> bool {
    true
}

pub(super) fn dead_letter_max_age() -> GoDuration {
    GoDuration(DEAD_LETTER_MAX_AGE)
}

pub(super) fn max_delay() -> GoDuration {
    GoDuration(DEFAULT_MAX_DELAY)
}

pub(super) fn max_messages() -> i64 {
    DEFAULT_MAX_MESSAGES
}

pub(super) fn callback_timeout() -> GoDuration {
    GoDuration(contract::DEFAULT_CALLBACK_TIMEOUT)
}

pub(super) fn callback_max_attempts() -> i32 {
    contract::DEFAULT_CALLBACK_MAX_ATTEMPTS.into()
}

pub(super) fn retention() -> GoDuration {
    ResultsSettings::default().retention
}

pub(super) fn max_retention() -> GoDuration {
    DEFAULT_MAX_RETENTION
}

pub(super) fn max_results() -> i64 {
    DEFAULT_MAX_RESULTS
}
