//! `spec.limits`: what the queue holds at most.

use asyncqueue::GoDuration;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{defaults as default, rules as rule, schemas, size::Size};

/// Limits of the queue. A full queue refuses new calls with 429, and drops no stored call.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Maximum size of the body of a call: a number of bytes, or one with k, M, Ki or Mi. Default:
    /// the limit of the gateway, max_payload, which is 1Mi by default.
    ///
    /// A larger body is refused with 413. The limit can only be lower than those of the gateway and
    /// NATS. For programs that publish to NATS directly the stream enforces it, with 8Ki more for
    /// headers. Example: 256Ki
    #[schemars(schema_with = "schemas::payload_size")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_payload: Option<Size>,

    /// Maximum number of stored calls, waiting or running, 1 to 1000000000. Default: 1000000.
    ///
    /// A waiting call takes about 0.6 KB of memory of NATS: one million take 0.6 GB. Example: 10000
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(default = "default::max_messages")]
    pub max_messages: i64,

    /// Maximum number of stored bytes: a number, or one with k, M, G, Ki, Mi or Gi. Default:
    /// limited only by the storage of NATS.
    ///
    /// Bodies and headers count, and about 50 bytes more for each call. Example: 2Gi
    #[schemars(schema_with = "schemas::size")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Size>,

    /// Maximum age of a call when it is delivered to a worker, counted from being accepted.
    /// Default: unlimited.
    ///
    /// A duration from 1s to 87600h, and not less than stream.duplicateWindow. An older call is not
    /// run (again): it ends as expired, its client gets a callback with the status 504, and
    /// queue_worker_messages_processed_total counts it. A running call is not aborted. If no worker
    /// runs for twice this time plus at least one hour, NATS drops the call. Set it if a late call
    /// is worse than none, and well above timeout. Example: 24h
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::max_age())]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<GoDuration>,

    /// Maximum delay of a call that is sent with X-Delay or X-Not-Before. Default: 168h.
    ///
    /// A duration from 0s to 87600h. A call with a longer delay is refused with 400, as is one that
    /// would be older than maxAge when it runs. A change applies to calls that are accepted later.
    /// 0s refuses all delays. Example: 720h
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::max_delay())]
    #[serde(default = "default::max_delay")]
    pub max_delay: GoDuration,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            max_payload: None,
            max_messages: default::max_messages(),
            max_bytes: None,
            max_age: None,
            max_delay: default::max_delay(),
        }
    }
}
