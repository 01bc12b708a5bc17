//! The settings of a queue that its workers follow while they run.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    function_limits::{FunctionLimits, FunctionLimitsError, MAX_CONCURRENCY},
    rate::{MAX_RATE, Rate},
};
use crate::{
    duration::GoDuration,
    retry::{QueueRetry, RetryError},
};

/// Maximum of [`QueueSettings::max_inflight`].
pub const MAX_MAX_INFLIGHT: u16 = 10_000;

/// Settings of a queue that apply to running workers. `None`: as the worker's own setting says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueSettings {
    /// Maximum number of calls that one worker runs concurrently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_inflight: Option<u16>,
    /// Time limit of an invocation. It applies to invocations that start later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// When a call is retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<QueueRetry>,
    /// Maximum number of invocations that all workers together have open. Absent before version
    /// 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How many invocations all workers together start in a second. Absent before version 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// What applies to each function of a queue with lanes. Absent before version 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_function: Option<PerFunction>,
}

/// What applies to each function of a queue with lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PerFunction {
    /// Maximum number of open invocations of a function, over all workers. A function may have its
    /// own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_inflight: Option<u32>,
}

/// The settings as the entry of a queue holds them. They are read only by the workers of the queue:
/// for everyone else, settings that can't be read change nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredSettings(Box<RawValue>);

/// Settings can't be used. The error names field, value, rule and remedy.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The JSON has another form, or a value of another type.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The number of concurrent calls is out of range.
    #[error("maxInflight `{0}` is not valid: use 1 to {MAX_MAX_INFLIGHT}")]
    MaxInflight(u16),
    /// There is no time for an invocation.
    #[error("timeout `{0}` is not valid: use a duration of more than 0s, such as 90s or 15m")]
    Timeout(GoDuration),
    /// The total number of invocations is out of range.
    #[error("concurrency `{0}` is not valid: use 1 to {MAX_CONCURRENCY}")]
    Concurrency(u32),
    /// A number of the rate is out of range.
    #[error("rate.{0} `{1}` is not valid: use 1 to {MAX_RATE}")]
    Rate(&'static str, u32),
    /// A limit of functions is out of range.
    #[error("perFunction.{0}")]
    PerFunction(FunctionLimitsError),
    /// A retry setting is not valid.
    #[error("retry: {0}")]
    Retry(#[from] RetryError),
}

// === impl QueueSettings ===

impl QueueSettings {
    fn check(&self) -> Result<(), SettingsError> {
        let max_inflight = self.max_inflight.filter(|max| !(1..=MAX_MAX_INFLIGHT).contains(max));
        if let Some(max) = max_inflight {
            return Err(SettingsError::MaxInflight(max));
        }
        if let Some(timeout) = self.timeout.filter(|timeout| timeout.0.is_zero()) {
            return Err(SettingsError::Timeout(timeout));
        }
        if let Some(total) = self.concurrency.filter(|max| !(1..=MAX_CONCURRENCY).contains(max)) {
            return Err(SettingsError::Concurrency(total));
        }
        if let Some((field, number)) = self.rate.and_then(|rate| rate.invalid_field()) {
            return Err(SettingsError::Rate(field, number));
        }
        let functions = self.per_function.map(|functions| functions.limits().check());
        functions.transpose().map_err(SettingsError::PerFunction)?;
        self.retry.iter().try_for_each(QueueRetry::check)?;
        Ok(())
    }
}

// === impl PerFunction ===

impl PerFunction {
    /// Returns the limits of a function that has none of its own.
    #[must_use]
    pub fn limits(self) -> FunctionLimits {
        FunctionLimits { max_inflight: self.max_inflight, ..FunctionLimits::default() }
    }
}

// === impl StoredSettings ===

impl StoredSettings {
    /// Converts settings to their form in an entry.
    pub fn new(settings: &QueueSettings) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(settings).map(Self)
    }

    /// Reads and checks the settings.
    pub fn read(&self) -> Result<QueueSettings, SettingsError> {
        let settings: QueueSettings = serde_json::from_str(self.0.get())?;
        settings.check()?;
        Ok(settings)
    }
}

impl PartialEq for StoredSettings {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for StoredSettings {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(json: &str) -> Result<QueueSettings, String> {
        let stored: StoredSettings = serde_json::from_str(json).unwrap();
        stored.read().map_err(|error| error.to_string())
    }

    #[test]
    fn settings_read_back_as_they_were_written() {
        let settings = QueueSettings {
            max_inflight: Some(5),
            timeout: Some(GoDuration(Duration::from_secs(900))),
            retry: Some(QueueRetry { max_attempts: 3, ..QueueRetry::default() }),
            concurrency: Some(50),
            rate: Some(Rate { per_second: 10, burst: Some(20) }),
            per_function: Some(PerFunction { max_inflight: Some(10) }),
        };
        let stored = StoredSettings::new(&settings).unwrap();
        assert_eq!(stored.read().unwrap(), settings);
        assert_eq!(
            serde_json::to_string(&stored).unwrap(),
            r#"{"maxInflight":5,"timeout":"15m","retry":{"maxAttempts":3,"minBackoff":"10s","#
                .to_owned()
                + r#""maxBackoff":"2m","backoff":"Exponential","jitter":"Full","#
                + r#""statusCodes":[408,429,500,502,503,504]},"concurrency":50,"#
                + r#""rate":{"perSecond":10,"burst":20},"perFunction":{"maxInflight":10}}"#
        );
    }

    #[test]
    fn missing_settings_are_left_to_the_worker() {
        assert_eq!(read("{}"), Ok(QueueSettings::default()));
        let some = read(r#"{"maxInflight":2,"later":true,"retry":{"maxAttempts":3}}"#).unwrap();
        assert_eq!((some.max_inflight, some.timeout), (Some(2), None));
        assert_eq!(some.retry, Some(QueueRetry { max_attempts: 3, ..QueueRetry::default() }));
    }

    #[test]
    fn an_invalid_value_is_refused_with_its_name_and_the_rule() {
        for (json, field, rule) in [
            (r#"{"maxInflight":0}"#, "maxInflight `0`", "use 1 to 10000"),
            (r#"{"maxInflight":10001}"#, "maxInflight `10001`", "use 1 to 10000"),
            (r#"{"maxInflight":-1}"#, "`-1`", "u16"),
            (r#"{"concurrency":0}"#, "concurrency `0`", "use 1 to 1000000"),
            (r#"{"rate":{"perSecond":0}}"#, "rate.perSecond `0`", "use 1 to 100000"),
            (r#"{"rate":{"perSecond":1,"burst":0}}"#, "rate.burst `0`", "use 1 to 100000"),
            (r#"{"rate":{"burst":1}}"#, "perSecond", "missing field"),
            (
                r#"{"perFunction":{"maxInflight":0}}"#,
                "perFunction.maxInflight `0`",
                "use 1 to 1000000",
            ),
            (r#"{"timeout":"0s"}"#, "timeout `0s`", "more than 0s"),
            (r#"{"timeout":"15"}"#, "`15`", "200ms, 90s"),
            (r#"{"retry":{"maxAttempts":0}}"#, "retry: attempts `0`", "use 1 to 1000"),
            (r#"{"retry":{"statusCodes":[99]}}"#, "`99`", "use 100 to 599"),
            (
                r#"{"retry":{"minBackoff":"2m","maxBackoff":"1m"}}"#,
                "minBackoff `2m`",
                "maxBackoff `1m`",
            ),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(field) && error.contains(rule), "{json}: {error}");
        }
    }
}
