//! `spec.limits`: what the queue holds at most.

use asyncqueue::GoDuration;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{defaults as default, rules as rule, schemas, size::Size};

/// What the queue holds at most. A full queue refuses calls, which the caller hears as 429; it
/// drops none that it has.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// The largest body of a call: a number of bytes, or one with k, M, Ki or Mi. Default: what the
    /// gateway takes, its max_payload, which is 1Mi unless set otherwise.
    ///
    /// More is answered with 413. It can only be less than what the gateway and NATS take, not
    /// more. Programs that publish to NATS themselves are held to it by the stream, with 8Ki more
    /// for headers. Example: 256Ki
    #[schemars(schema_with = "schemas::payload_size")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_payload: Option<Size>,

    /// How many calls the queue holds, waiting or running, 1 to 1000000000. Default: 1000000.
    ///
    /// A waiting call takes about 0.6 KB of the memory of NATS: a million take 0.6 GB. Example:
    /// 10000
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(default = "default::max_messages")]
    pub max_messages: i64,

    /// How many bytes the queue holds: a number, or one with k, M, G, Ki, Mi or Gi. Default: as
    /// many as NATS has room for.
    ///
    /// Bodies, headers and about 50 bytes more count for each call. Example: 2Gi
    #[schemars(schema_with = "schemas::size")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Size>,

    /// Maximum age of a call when it is delivered to a worker, counted from being accepted.
    /// Default: unlimited.
    ///
    /// A duration from 1s to 87600h, and not less than stream.duplicateWindow. An older call is not
    /// run (again): it ends as expired, its client gets a callback with the status 504, and
    /// queue_worker_messages_processed_total counts it. A call that runs is not cut off. Where no
    /// worker runs for twice this time, and at least an hour more, NATS drops the call. Set it
    /// where a late call is worse than none, and well above timeout. Example: 24h
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::max_age())]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<GoDuration>,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            max_payload: None,
            max_messages: default::max_messages(),
            max_bytes: None,
            max_age: None,
        }
    }
}
