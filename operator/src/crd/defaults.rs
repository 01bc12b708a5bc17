//! The defaults of the fields, which the API server fills in from the schema.

use std::{collections::BTreeMap, time::Duration};

use asyncqueue::{
    GoDuration,
    stream::{DEFAULT_ACK_WAIT, DEFAULT_DUPLICATE_WINDOW},
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    AsyncQueueSpec, ConsumerSpec, DeletionPolicy, NatsSpec, Resources, Storage, StreamSpec, WorkerSpec,
};

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

impl Default for AsyncQueueSpec {
    fn default() -> Self {
        Self {
            max_inflight: max_inflight(),
            timeout: timeout(),
            replicas: replicas(),
            stream: StreamSpec::default(),
            consumer: ConsumerSpec::default(),
            worker: WorkerSpec::default(),
            deletion_policy: DeletionPolicy::default(),
            nats: NatsSpec::default(),
        }
    }
}

impl Default for StreamSpec {
    fn default() -> Self {
        Self {
            name: None,
            subject: None,
            replicas: replicas(),
            storage: Storage::default(),
            duplicate_window: duplicate_window(),
        }
    }
}

impl Default for ConsumerSpec {
    fn default() -> Self {
        Self { durable_name: None, ack_wait: ack_wait() }
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self { requests: requests(), limits: BTreeMap::new() }
    }
}
