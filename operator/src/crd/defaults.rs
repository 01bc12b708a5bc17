//! The defaults of the fields, which the API server fills in from the schema.

use std::{collections::BTreeMap, time::Duration};

use asyncqueue::{
    GoDuration,
    stream::{
        DEAD_LETTER_MAX_AGE, DEFAULT_ACK_WAIT, DEFAULT_DUPLICATE_WINDOW, DEFAULT_MAX_MESSAGES,
    },
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// One call at a time, as `OpenFaaS` does: of a function that bears more, its owner says so.
pub(super) fn max_inflight() -> i32 {
    1
}

/// `OpenFaaS`'s default for a call.
pub(super) fn timeout() -> GoDuration {
    GoDuration(Duration::from_secs(60))
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

/// What an idle worker takes, with room to spare.
pub(super) fn requests() -> BTreeMap<String, IntOrString> {
    [("cpu", "10m"), ("memory", "32Mi")]
        .map(|(resource, quantity)| (resource.to_owned(), IntOrString::String(quantity.to_owned())))
        .into()
}

/// Each call is made ten times at most, as `OpenFaaS` does.
pub(super) fn max_attempts() -> i32 {
    10
}

pub(super) fn min_backoff() -> GoDuration {
    GoDuration(Duration::from_secs(10))
}

pub(super) fn max_backoff() -> GoDuration {
    GoDuration(Duration::from_secs(120))
}

/// What may be over by the next attempt: too slow, too many calls, or trouble on the function's
/// side.
pub(super) fn status_codes() -> Vec<i32> {
    vec![408, 429, 500, 502, 503, 504]
}

pub(super) fn enabled() -> bool {
    true
}

pub(super) fn dead_letter_max_age() -> GoDuration {
    GoDuration(DEAD_LETTER_MAX_AGE)
}

pub(super) fn max_messages() -> i64 {
    DEFAULT_MAX_MESSAGES
}

pub(super) fn callback_timeout() -> GoDuration {
    GoDuration(Duration::from_secs(30))
}

pub(super) fn callback_max_attempts() -> i32 {
    5
}
