//! `spec.results`: which results are kept for clients, and for how long.

use asyncqueue::{GoDuration, directory::ResultsSettings};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{defaults as default, rules as rule, schemas, size::Size};

/// Results that are kept for clients, which read them at /async-function/CALL-ID/result.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::retentions())]
pub struct ResultsSpec {
    /// How long the result of a call is kept whose client did not send X-Keep-Result. Default: 0s,
    /// which keeps results only for clients that ask for them.
    ///
    /// A duration from 0s to 87600h, rounded up to whole seconds. A kept result takes about 0.6 KB
    /// of memory of NATS, and its body takes room on disk. Example: 10m
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::retention())]
    #[serde(default = "default::retention")]
    pub retention: GoDuration,

    /// The longest time that a client may ask for with X-Keep-Result; the gateway refuses more with
    /// 400. Default: 24h.
    ///
    /// A duration from 1s to 87600h. Example: 168h
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::max_retention())]
    #[serde(default = "default::max_retention")]
    pub max_retention: GoDuration,

    /// Maximum number of kept results, 1 to 1000000000; beyond it, the oldest are dropped. Default:
    /// 100000. Example: 1000000
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(default = "default::max_results")]
    pub max_messages: i64,

    /// Maximum number of bytes of kept results; beyond it, the oldest are dropped: a number, or one
    /// with k, M, G, Ki, Mi or Gi. Default: limited only by the storage of NATS.
    ///
    /// Set it where results are larger than a few KB: 100000 results of 100 KB are 10 GB. NATS sets
    /// this much storage aside when the first result is kept. While NATS has no room, calls end
    /// without a kept result. Example: 1Gi
    #[schemars(schema_with = "schemas::size")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Size>,

    /// If true, only results of calls whose id the gateway generated can be read. Default: false.
    ///
    /// A client that reaches the gateway and knows the id of a call can read its result. A
    /// generated id can't be guessed; an id that a client chose, or one from an Idempotency-Key,
    /// may be. Example: true
    #[serde(default)]
    pub require_generated_id: bool,
}

impl Default for ResultsSpec {
    fn default() -> Self {
        Self {
            retention: default::retention(),
            max_retention: default::max_retention(),
            max_messages: default::max_results(),
            max_bytes: None,
            require_generated_id: false,
        }
    }
}

// === impl ResultsSpec ===

impl ResultsSpec {
    /// Returns the settings for the directory; `None` if they are the defaults.
    pub(crate) fn settings(&self) -> Option<ResultsSettings> {
        let settings = ResultsSettings {
            retention: self.retention,
            max_retention: self.max_retention,
            max_messages: self.max_messages,
            max_bytes: self.max_bytes.map(|size| i64::try_from(size.0).unwrap_or(i64::MAX)),
            require_generated_id: self.require_generated_id,
        };
        (settings != ResultsSettings::default()).then_some(settings)
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::directory::DEFAULT_MAX_RESULTS;

    use super::*;

    #[test]
    fn directory_has_the_settings_that_differ_from_the_defaults() {
        assert_eq!(ResultsSpec::default().settings(), None);
        let spec = ResultsSpec { max_bytes: Some(Size(1 << 30)), ..ResultsSpec::default() };
        let settings = spec.settings().unwrap();
        assert_eq!(settings.max_bytes, Some(1 << 30));
        assert_eq!(settings.max_messages, DEFAULT_MAX_RESULTS);
    }
}
