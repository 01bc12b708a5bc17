//! Which results of a queue are kept for clients, and for how long.

use std::{sync::OnceLock, time::Duration};

use serde::{Deserialize, Serialize};

use super::QueueEntry;
use crate::{call_id::CallId, duration::GoDuration};

/// The shortest time for which a result is kept: JetStream counts in seconds.
pub const MIN_RETENTION: Duration = Duration::from_secs(1);

/// Default of [`ResultsSettings::max_retention`].
pub const DEFAULT_MAX_RETENTION: GoDuration = GoDuration(Duration::from_secs(24 * 3600));

/// Default of [`ResultsSettings::max_messages`].
pub const DEFAULT_MAX_RESULTS: i64 = 100_000;

/// Which results of a queue are kept, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResultsSettings {
    /// How long the result of a call is kept whose client did not ask for it. 0: it is not kept.
    pub retention: GoDuration,
    /// The longest time for which a client may have a result kept.
    pub max_retention: GoDuration,
    /// Maximum number of results; beyond it, the oldest are dropped.
    pub max_messages: i64,
    /// Maximum number of bytes of results; beyond it, the oldest are dropped. `None`: unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<i64>,
    /// Whether only results of calls with a generated id can be read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub require_generated_id: bool,
}

/// A result can't be kept for as long as a client asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use a duration from {min} to {max} (spec.results.maxRetention of the queue), such as 1h")]
pub struct RetentionError {
    min: GoDuration,
    max: GoDuration,
}

// === impl ResultsSettings ===

impl Default for ResultsSettings {
    fn default() -> Self {
        Self {
            retention: GoDuration(Duration::ZERO),
            max_retention: DEFAULT_MAX_RETENTION,
            max_messages: DEFAULT_MAX_RESULTS,
            max_bytes: None,
            require_generated_id: false,
        }
    }
}

impl ResultsSettings {
    /// Returns the settings of a queue, which its entry in the directory may lack.
    #[must_use]
    pub fn of(entry: Option<&QueueEntry>) -> &Self {
        static DEFAULT: OnceLock<ResultsSettings> = OnceLock::new();
        let own = entry.and_then(|entry| entry.results.as_ref());
        own.unwrap_or_else(|| DEFAULT.get_or_init(Self::default))
    }

    /// Returns the first field with a value that can't be used, and the rule for it.
    #[must_use]
    pub fn invalid_field(&self) -> Option<(&'static str, &'static str)> {
        if self.max_retention.0 < MIN_RETENTION {
            Some(("maxRetention", "use a duration of at least 1s, such as 24h"))
        } else if self.retention > self.max_retention {
            Some(("retention", "use a duration that is not more than maxRetention"))
        } else if self.max_messages < 1 {
            Some(("maxMessages", "use at least 1"))
        } else if self.max_bytes.is_some_and(|bytes| bytes < 1) {
            Some(("maxBytes", "use at least 1"))
        } else {
            None
        }
    }

    /// Checks how long a client has a result kept.
    pub fn check(&self, retention: Duration) -> Result<(), RetentionError> {
        if (MIN_RETENTION..=self.max_retention.0).contains(&retention) {
            return Ok(());
        }
        Err(RetentionError { min: GoDuration(MIN_RETENTION), max: self.max_retention })
    }

    /// Returns how long the result of a call is kept, in whole seconds. `asked` is what its client
    /// asked for. `None`: it is not kept.
    #[must_use]
    pub fn retention_of(&self, asked: Option<Duration>) -> Option<Duration> {
        let retention = asked.unwrap_or(self.retention.0).min(self.max_retention.0);
        let seconds = retention.as_secs() + u64::from(retention.subsec_nanos() > 0);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// Returns whether the result of a call may be read by its id.
    #[must_use]
    pub fn permits_reading(&self, id: &CallId) -> bool {
        !self.require_generated_id || id.is_generated()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn client_asks_for_at_least_a_second_and_at_most_the_maximum() {
        let settings = ResultsSettings::default();
        for good in [seconds(1), seconds(24 * 3600)] {
            assert_eq!(settings.check(good), Ok(()), "{good:?}");
        }
        for bad in [Duration::ZERO, Duration::from_millis(999), seconds(24 * 3600 + 1)] {
            let error = settings.check(bad).unwrap_err().to_string();
            assert!(error.contains("from 1s to 24h"), "{error}");
        }
    }

    #[test]
    fn result_is_kept_as_asked_or_as_the_queue_says() {
        let mut settings = ResultsSettings::default();
        assert_eq!(settings.retention_of(None), None);
        assert_eq!(settings.retention_of(Some(seconds(90))), Some(seconds(90)));
        assert_eq!(settings.retention_of(Some(Duration::from_millis(1_200))), Some(seconds(2)));
        // Another program may store what a gateway refuses.
        assert_eq!(settings.retention_of(Some(seconds(1 << 40))), Some(seconds(24 * 3600)));
        settings.retention = GoDuration(seconds(60));
        assert_eq!(settings.retention_of(None), Some(seconds(60)));
        assert_eq!(settings.retention_of(Some(seconds(5))), Some(seconds(5)));
    }

    #[test]
    fn field_that_is_not_valid_is_named() {
        let good = ResultsSettings::default;
        let zero = GoDuration(Duration::ZERO);
        for (settings, field) in [
            (good(), None),
            (ResultsSettings { max_retention: zero, ..good() }, Some("maxRetention")),
            (
                ResultsSettings { retention: GoDuration(seconds(1 << 30)), ..good() },
                Some("retention"),
            ),
            (ResultsSettings { max_messages: 0, ..good() }, Some("maxMessages")),
            (ResultsSettings { max_bytes: Some(0), ..good() }, Some("maxBytes")),
        ] {
            assert_eq!(settings.invalid_field().map(|(field, _)| field), field);
        }
    }

    #[test]
    fn only_results_of_generated_ids_can_be_read_if_so_set() {
        let generated = CallId::generate(&"jobs".parse().unwrap());
        let own: CallId = "order-7".parse().unwrap();
        let mut settings = ResultsSettings::default();
        assert!(settings.permits_reading(&generated) && settings.permits_reading(&own));
        settings.require_generated_id = true;
        assert!(settings.permits_reading(&generated) && !settings.permits_reading(&own));
    }

    #[test]
    fn fields_that_an_entry_lacks_have_their_defaults() {
        let read: ResultsSettings = serde_json::from_str(r#"{"retention":"1h"}"#).unwrap();
        let hour = GoDuration(seconds(3600));
        assert_eq!(read, ResultsSettings { retention: hour, ..ResultsSettings::default() });
        let mut entry = QueueEntry::new("jobs", "jobs");
        assert_eq!(*ResultsSettings::of(Some(&entry)), ResultsSettings::default());
        entry.results = Some(read.clone());
        assert_eq!(*ResultsSettings::of(Some(&entry)), read);
        assert_eq!(*ResultsSettings::of(None), ResultsSettings::default());
    }
}
