//! `spec.perFunction`: what applies to each function of a queue with lanes.

use asyncqueue::directory::PerFunction;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What applies to each function of the queue.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PerFunctionSpec {
    /// Maximum number of invocations of one function that all workers of the queue together have
    /// open, 1 to 1000000. Default: unlimited.
    ///
    /// The annotation asyncqueue.io/max-inflight of a function takes precedence. Calls above it
    /// wait in the queue and take no slot of a worker. The workers share it in equal parts; a
    /// worker whose slots are all used by long calls leaves its part to others. A change applies
    /// within seconds, and running calls finish. Example: 10
    #[schemars(with = "i32", range(min = 1, max = 1_000_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_inflight: Option<i32>,
}

// === impl PerFunctionSpec ===

impl PerFunctionSpec {
    /// Returns what workers read in the directory.
    pub(crate) fn per_function(self) -> PerFunction {
        // `validate` refuses a number that is out of range.
        PerFunction { max_inflight: self.max_inflight.and_then(|max| u32::try_from(max).ok()) }
    }
}
