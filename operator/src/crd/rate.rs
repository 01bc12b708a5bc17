//! `spec.rate`: how many invocations start.

use asyncqueue::directory::Rate;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How many invocations all workers of the queue together start.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateSpec {
    /// Number of invocations in a second, on average, 1 to 100000. Example: 10
    #[schemars(range(min = 1, max = 100_000))]
    pub per_second: i32,

    /// Number of invocations that may start at once after a pause, 1 to 100000. Default: perSecond.
    ///
    /// It is divided among the workers, and each of them may start at least one at once. Example:
    /// 20
    #[schemars(with = "i32", range(min = 1, max = 100_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<i32>,
}

// === impl RateSpec ===

impl RateSpec {
    /// Returns the rate for the directory. `None` if the API server has accepted a number that is
    /// out of range: the CRD is of another version.
    pub(crate) fn rate(self) -> Option<Rate> {
        let burst = self.burst.map(u32::try_from).transpose().ok()?;
        Some(Rate { per_second: u32::try_from(self.per_second).ok()?, burst })
    }
}
