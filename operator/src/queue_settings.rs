//! The settings of a queue that its running workers follow. Pure.

use asyncqueue::{directory::QueueSettings, retry::QueueRetry};

use crate::crd::{AsyncQueueSpec, PerFunctionSpec, RateSpec};

/// Returns the settings for the directory.
pub(crate) fn queue_settings(spec: &AsyncQueueSpec) -> QueueSettings {
    QueueSettings {
        // `validate` refuses a number that is out of range.
        max_inflight: u16::try_from(spec.max_inflight).ok(),
        timeout: Some(spec.timeout),
        retry: Some(QueueRetry::from(&*spec.retry)),
        concurrency: spec.concurrency.and_then(|total| u32::try_from(total).ok()),
        rate: spec.rate.and_then(RateSpec::rate),
        per_function: spec.per_function.map(PerFunctionSpec::per_function),
    }
}
