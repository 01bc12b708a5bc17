//! Computes the directory of functions and queues, and how many functions each queue has. Pure.

use std::collections::HashMap;

use asyncqueue::{
    FunctionName, QueueName,
    directory::{Directory, FunctionEntry, QueueEntry, StoredSettings},
    lanes::{DEFAULT_MAX_LANES, Fairness},
};

use super::{FunctionIndex, admission::Admission};
use crate::{crd::AsyncQueue, nats::queue_spec::queue_spec, queue_settings::queue_settings};

/// The functions of each queue.
pub(crate) type FunctionCounts = HashMap<QueueName, QueueFunctions>;

/// The functions of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueFunctions {
    /// Number of functions that send their calls to it.
    pub(crate) functions: usize,
    /// The functions that name it and are not admitted.
    pub(crate) refused: RefusedFunctions,
}

/// Functions that name a queue and are not admitted to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RefusedFunctions {
    /// Number of these functions.
    pub(crate) count: usize,
    /// The first of these functions, at most [`MAX_NAMED_REFUSED`].
    pub(crate) first: Vec<FunctionName>,
}

/// Maximum number of refused functions that a condition names.
const MAX_NAMED_REFUSED: usize = 3;

/// Returns the directory of functions and queues. It contains a queue that has its stream, on the
/// NATS of the gateway, and is not being deleted. It contains a function whose namespace may be
/// called. `max_own` is how many functions of a queue may have lanes of their own.
pub(crate) fn directory<'a>(
    functions: &FunctionIndex,
    queues: impl IntoIterator<Item = &'a AsyncQueue>,
    admission: &Admission<'_>,
    max_own: impl Fn(&AsyncQueue) -> usize,
) -> Directory {
    let functions = functions.iter().filter(|(name, _)| admission.check_namespace(name).is_ok());
    let functions = functions.map(|(name, function)| {
        let queue =
            function.queue.as_ref().filter(|queue| admission.refused_by(name, queue).is_none());
        let queue = queue.and_then(|queue| queue.parse().ok());
        let entry = FunctionEntry {
            queue,
            url: function.url.clone(),
            retry: function.retry.clone(),
            limits: function.limits,
            scaled_to_zero: function.is_scaled_to_zero,
        };
        (name.clone(), entry)
    });
    let queues = queues
        .into_iter()
        .filter(|queue| queue.owns_stream() && queue.spec.nats.url.is_none())
        .filter(|queue| queue.metadata.deletion_timestamp.is_none())
        .filter_map(|queue| {
            let spec = queue_spec(queue).ok()?;
            let max_lanes = (spec.fairness == Fairness::Function).then(|| max_own(queue));
            let entry = QueueEntry {
                stream: spec.stream,
                subject: spec.subject,
                max_payload: spec.limits.max_payload,
                max_delay: Some(queue.spec.limits.max_delay),
                max_age: queue.spec.limits.max_age,
                // Absent for the default, as before there were others.
                fairness: Some(spec.fairness).filter(|fairness| *fairness != Fairness::default()),
                max_lanes: max_lanes.filter(|max| *max != DEFAULT_MAX_LANES),
                results: queue.spec.results.settings(),
                settings: StoredSettings::new(&queue_settings(&queue.spec)).ok(),
            };
            Some((spec.queue, entry))
        });
    Directory { functions: functions.collect(), queues: queues.collect() }
}

/// Returns how many functions send their calls to each queue, and which are not admitted to the
/// queue that they name.
pub(crate) fn count(
    directory: &Directory,
    default_queue: Option<&QueueName>,
    functions: &FunctionIndex,
    admission: &Admission<'_>,
) -> FunctionCounts {
    let mut counts = FunctionCounts::new();
    for entry in directory.functions.values() {
        let named = entry.queue.as_ref().filter(|queue| directory.queues.contains_key(queue));
        if let Some(queue) = named.or(default_queue) {
            counts.entry(queue.clone()).or_default().functions += 1;
        }
    }
    for (name, function) in functions {
        let refused_by =
            function.queue.as_ref().filter(|queue| admission.refused_by(name, queue).is_some());
        let Some(queue) = refused_by.and_then(|queue| queue.parse().ok()) else { continue };
        let refused = &mut counts.entry(queue).or_default().refused;
        refused.count += 1;
        if refused.first.len() < MAX_NAMED_REFUSED {
            refused.first.push(name.clone());
        }
    }
    counts
}
