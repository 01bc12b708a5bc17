//! `spec.deadLetter`: what becomes of calls that are given up.

use asyncqueue::GoDuration;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{defaults as default, rules as rule, schemas};

/// What becomes of calls that are given up.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterSpec {
    /// Whether calls that are given up are kept, on the stream NAME-dead, from where `kubectl aq
    /// dead replay` sends them again. Default: true.
    ///
    /// false lets them go. Nothing goes silently: the worker logs each at the level error, with its
    /// call id and the reason, and counts it in queue_worker_dead_letters_total{outcome="dropped"};
    /// its caller hears of it as ever. Dead letters that exist when this becomes false stay, for as
    /// long as maxAge and maxMessages let them.
    #[serde(default = "default::enabled")]
    pub enabled: bool,

    /// How long a dead letter is kept. Default: 168h, a week.
    ///
    /// A duration from 1m to 87600h, which is ten years. Example: 24h
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::dead_letter_max_age())]
    #[serde(default = "default::dead_letter_max_age")]
    pub max_age: GoDuration,

    /// How many dead letters are kept, 1 to 1000000000; beyond that, the oldest are dropped.
    /// Default: 1000000.
    ///
    /// Each takes about 0.6 KB of the memory of NATS. Example: 10000
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
