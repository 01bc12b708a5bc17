//! `spec.deadLetter`: what happens to calls that are given up.

use asyncqueue::GoDuration;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{defaults as default, rules as rule, schemas};

/// Dead letters: calls whose attempts are exhausted.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterSpec {
    /// If true, exhausted calls are kept on the stream NAME-dead, from which `kubectl aq dead
    /// replay` sends them again. Default: true.
    ///
    /// If false, exhausted calls are dropped: the worker logs each at the level error, with its
    /// call id and the reason, and counts it in queue_worker_dead_letters_total{outcome="dropped"};
    /// the client still gets its callback. Existing dead letters are kept as long as maxAge and
    /// maxMessages allow.
    #[serde(default = "default::enabled")]
    pub enabled: bool,

    /// Maximum time for which a dead letter is kept. Default: 168h, one week.
    ///
    /// A duration from 1m to 87600h, which is ten years. Example: 24h
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::dead_letter_max_age())]
    #[serde(default = "default::dead_letter_max_age")]
    pub max_age: GoDuration,

    /// Maximum number of dead letters, 1 to 1000000000; beyond it, the oldest are dropped. Default:
    /// 1000000.
    ///
    /// Each takes about 0.6 KB of memory of NATS. Example: 10000
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(default = "default::max_messages")]
    pub max_messages: i64,
}

impl Default for DeadLetterSpec {
    fn default() -> Self {
        Self {
            enabled: default::enabled(),
            max_age: default::dead_letter_max_age(),
            max_messages: default::max_messages(),
        }
    }
}
