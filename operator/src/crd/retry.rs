//! `spec.retry`: when a call is made again.

use asyncqueue::{
    GoDuration,
    retry::{Backoff, Jitter, QueueRetry, policy},
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{rules as rule, schemas};

/// Retries of failed calls.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = rule::backoffs())]
#[serde(rename_all = "camelCase")]
pub struct RetrySpec {
    /// Maximum number of attempts, including the first, 1 to 1000. Default: 10.
    ///
    /// After the last attempt the call becomes a dead letter, see spec.deadLetter. 1 disables
    /// retries. Example: 3
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default = "max_attempts")]
    pub max_attempts: i32,

    /// Wait before the second attempt. Default: 10s.
    ///
    /// A duration from 0s to 24h, written as 200ms, 90s, 15m or 1h30m, and not more than
    /// maxBackoff. Example: 1s
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::backoff("minBackoff"))]
    #[serde(default = "min_backoff")]
    pub min_backoff: GoDuration,

    /// Maximum wait between two attempts. Default: 2m.
    ///
    /// A duration from 0s to 24h. It limits only computed waits: a Retry-After of a function or a
    /// receiver takes precedence, up to one hour. Example: 10m
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::backoff("maxBackoff"))]
    #[serde(default = "max_backoff")]
    pub max_backoff: GoDuration,

    /// How the wait grows. Exponential doubles it with each attempt, up to maxBackoff; Static keeps
    /// it at minBackoff. Default: Exponential.
    #[serde(default)]
    pub backoff: Backoff,

    /// Random part of the wait, so that calls that failed together are not retried together. Full:
    /// from zero to the whole wait. Equal: half of the wait. None: no randomness. Default: Full.
    #[serde(default)]
    pub jitter: Jitter,

    /// HTTP statuses after which a call is retried, 100 to 599. Default: [408, 429, 500, 502, 503,
    /// 504].
    ///
    /// Every other status ends the call, and its result goes to the callback. A connection error or
    /// a timeout always counts as failed. Example: [429, 503]
    #[schemars(schema_with = "schemas::status_codes")]
    #[serde(default = "status_codes")]
    pub status_codes: Vec<i32>,
}

// === impl RetrySpec ===

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            max_attempts: max_attempts(),
            min_backoff: min_backoff(),
            max_backoff: max_backoff(),
            backoff: Backoff::default(),
            jitter: Jitter::default(),
            status_codes: status_codes(),
        }
    }
}

impl From<&RetrySpec> for QueueRetry {
    fn from(spec: &RetrySpec) -> Self {
        // The schema admits no other numbers.
        let code = |code: &i32| u16::try_from(*code).ok();
        Self {
            max_attempts: u64::try_from(spec.max_attempts).unwrap_or(1),
            min_backoff: spec.min_backoff,
            max_backoff: spec.max_backoff,
            backoff: spec.backoff,
            jitter: spec.jitter,
            status_codes: spec.status_codes.iter().filter_map(code).collect(),
        }
    }
}

fn max_attempts() -> i32 {
    policy::DEFAULT_MAX_ATTEMPTS.into()
}

fn min_backoff() -> GoDuration {
    policy::DEFAULT_MIN_BACKOFF
}

fn max_backoff() -> GoDuration {
    policy::DEFAULT_MAX_BACKOFF
}

fn status_codes() -> Vec<i32> {
    policy::DEFAULT_STATUS_CODES.map(i32::from).into()
}
