//! What is known of the functions of a queue that takes turns between them.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer;
use serde::Serialize;

use super::function_of_lane;
use crate::{
    names::{FunctionName, QueueName},
    stats::LimitedFunction,
};

/// The current state of a function of a queue whose functions take turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionSummary {
    /// Its queue.
    pub queue: QueueName,
    /// The function.
    pub function: FunctionName,
    /// Calls that wait. `None` if the function shares its lane.
    pub pending: Option<u64>,
    /// Calls that run or wait for their next attempt. `None` if the function shares its lane.
    pub unacknowledged: Option<usize>,
    /// Maximum number of open invocations that the workers have learned, if the function has
    /// refused calls in the last minutes.
    pub limit: Option<u32>,
    /// How many calls it has refused, if it has refused some in the last minutes.
    pub refused: Option<u64>,
}

/// Computes the state of the functions of a queue, by name: of those with a lane of their own, and
/// of those that refuse calls.
#[must_use]
pub fn summarize_functions(
    queue: &QueueName,
    consumers: &[consumer::Info],
    limited: &[LimitedFunction],
) -> Vec<FunctionSummary> {
    let mut functions: BTreeMap<FunctionName, FunctionSummary> = BTreeMap::new();
    let empty = |function: &FunctionName| FunctionSummary {
        queue: queue.clone(),
        function: function.clone(),
        pending: None,
        unacknowledged: None,
        limit: None,
        refused: None,
    };
    for info in consumers {
        let Some(function) = function_of_lane(queue, &info.name) else { continue };
        let summary = functions.entry(function.clone()).or_insert_with(|| empty(&function));
        summary.pending = Some(info.num_pending);
        summary.unacknowledged = Some(info.num_ack_pending);
    }
    for LimitedFunction { function, limit, refused } in limited {
        let summary = functions.entry(function.clone()).or_insert_with(|| empty(function));
        (summary.limit, summary.refused) = (Some(*limit), Some(*refused));
    }
    functions.into_values().collect()
}
