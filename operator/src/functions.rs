//! Finds functions and the queues that they name, and publishes the directory for gateways and
//! workers.
//!
//! A function is one of these:
//! - an `OpenFaaS` Function ([`openfaas`])
//! - a Deployment whose pods have the label `faas_function`, however it was deployed
//!   ([`deployment`])
//! - any Service with the annotation `com.openfaas.queue` ([`service`])
//!
//! Its queue is the value of this annotation in the Function's spec, on the Deployment's pods,
//! where `OpenFaaS` copies it, or on the Service. [`sources`] registers these sources and merges
//! what they say.

use std::collections::{BTreeMap, BTreeSet};

use asyncqueue::{FunctionName, directory::FunctionLimits, retry::RetryOverrides};
use k8s_openapi::api::core::v1::ObjectReference;

use crate::{cache::watch::NamespacedObject, labels::QUEUE_ANNOTATION};

mod admission;
mod deployment;
pub(crate) mod directory;
mod issues;
pub(crate) mod openfaas;
pub(crate) mod published;
pub(crate) mod publisher;
mod service;
pub(crate) mod sources;
#[cfg(test)]
mod tests;
pub(crate) mod unknown;

/// A kind of Kubernetes objects that describe functions.
trait FunctionSource: NamespacedObject {
    /// Returns the function that this object describes, if it describes one.
    fn function(&self) -> Option<(FunctionName, DiscoveredFunction)>;
}

/// A function, as its objects describe it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DiscoveredFunction {
    /// The queue that it names, without white space around it.
    queue: Option<String>,
    /// Its base URL, if it differs from the one that follows from its name.
    url: Option<String>,
    /// Its retry settings, which override those of its queue.
    retry: RetryOverrides,
    /// Its limits, which override those of its queue.
    limits: FunctionLimits,
    /// Its annotations that are not valid.
    invalid: BTreeSet<String>,
    /// The name of the target port of its headless Service. Only the pods know the number.
    named_target_port: Option<String>,
    /// Whether its Deployment has no replicas.
    is_scaled_to_zero: bool,
    /// The object to which events about the function refer.
    object: ObjectReference,
}

/// All functions, by name.
pub(crate) type FunctionIndex = BTreeMap<FunctionName, DiscoveredFunction>;

// === impl DiscoveredFunction ===

impl DiscoveredFunction {
    /// Creates a function as the annotations of one of its objects describe it.
    fn from_annotations(
        annotations: Option<&BTreeMap<String, String>>,
        object: ObjectReference,
    ) -> Self {
        // `kubectl annotate` and block scalars of YAML leave line breaks at the end of values.
        let annotation = |name: &str| Some(annotations?.get(name)?.trim());
        // Instead of an invalid setting, that of the queue applies, as with OpenFaaS.
        let (retry, mut invalid) = RetryOverrides::from_annotations(annotation);
        let (limits, invalid_limits) = FunctionLimits::from_annotations(annotation);
        invalid.extend(invalid_limits);
        Self {
            queue: annotation(QUEUE_ANNOTATION).map(str::to_owned),
            url: None,
            retry,
            limits,
            invalid: invalid.into_iter().collect(),
            named_target_port: None,
            is_scaled_to_zero: false,
            object,
        }
    }

    /// Returns these settings, with those of `other` for what is missing.
    fn merged_over(mut self, other: Self) -> Self {
        // Mostly the same, since one is copied from the other.
        self.invalid.extend(other.invalid);
        Self {
            queue: self.queue.or(other.queue),
            url: self.url.or(other.url),
            retry: self.retry.or(&other.retry),
            limits: self.limits.or(&other.limits),
            invalid: self.invalid,
            named_target_port: self.named_target_port.or(other.named_target_port),
            is_scaled_to_zero: self.is_scaled_to_zero || other.is_scaled_to_zero,
            object: self.object,
        }
    }
}
