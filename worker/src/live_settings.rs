//! The settings of the queue that apply now: those of the directory, or else the worker's own. They
//! change while calls run, so they are read where something is decided by them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use asyncqueue::{
    GoDuration, QueueName,
    directory::{Directory, PerFunction, QueueSettings, Rate, SettingsError, StoredSettings},
    retry::QueueRetry,
};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::retry::outcome::RetryPolicy;

/// The settings that apply now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveSettings {
    /// Maximum number of calls that run concurrently.
    pub(crate) max_inflight: u16,
    /// Maximum number of invocations that all workers of the queue have open, if it is limited.
    pub(crate) concurrency: Option<u32>,
    /// How many invocations all workers of the queue start, if that is limited.
    pub(crate) rate: Option<Rate>,
    /// What applies to each function, if the queue has lanes.
    pub(crate) per_function: PerFunction,
    timeout: GoDuration,
    retry: QueueRetry,
    /// The retry settings, as they are used.
    pub(crate) policy: Arc<RetryPolicy>,
}

/// Follows the settings in the directory.
#[derive(Clone, Debug)]
pub(crate) struct SettingsFollower {
    queue: QueueName,
    own: LiveSettings,
    directory: watch::Receiver<Option<Arc<Directory>>>,
    followed: watch::Sender<Followed>,
    current: watch::Sender<LiveSettings>,
}

/// What was read from the directory so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Followed {
    /// The last settings, valid or not, so that the same ones are not read and logged again.
    last: Option<StoredSettings>,
    /// Whether some were valid.
    is_valid: bool,
}

// === impl LiveSettings ===

impl LiveSettings {
    pub(crate) fn new(max_inflight: u16, timeout: GoDuration, retry: QueueRetry) -> Self {
        let policy = Arc::new(RetryPolicy::from(&retry));
        let per_function = PerFunction::default();
        Self { max_inflight, concurrency: None, rate: None, per_function, timeout, retry, policy }
    }

    /// Returns these settings with the limits that all workers of the queue share.
    pub(crate) fn with_shared_limits(self, concurrency: Option<u32>, rate: Option<Rate>) -> Self {
        Self { concurrency, rate, ..self }
    }

    /// Returns these settings with what applies to each function.
    pub(crate) fn with_per_function(self, per_function: PerFunction) -> Self {
        Self { per_function, ..self }
    }

    /// Returns the time limit of an invocation that starts now.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.0
    }

    /// Returns whether both have the same limits that all workers of the queue share.
    pub(crate) fn has_same_shared_limits(&self, other: &Self) -> bool {
        (self.concurrency, self.rate) == (other.concurrency, other.rate)
    }

    /// Returns whether the workers of the queue share a limit.
    pub(crate) fn has_shared_limits(&self) -> bool {
        self.concurrency.is_some() || self.rate.is_some()
    }

    fn to_queue(&self) -> QueueSettings {
        QueueSettings {
            max_inflight: Some(self.max_inflight),
            timeout: Some(self.timeout),
            retry: Some(self.retry.clone()),
            concurrency: self.concurrency,
            rate: self.rate,
            per_function: Some(self.per_function)
                .filter(|limits| *limits != PerFunction::default()),
        }
    }

    /// Returns these settings with those of the directory, which take precedence.
    fn overridden_by(&self, queue: QueueSettings) -> Self {
        Self::new(
            queue.max_inflight.unwrap_or(self.max_inflight),
            queue.timeout.unwrap_or(self.timeout),
            queue.retry.unwrap_or_else(|| self.retry.clone()),
        )
        .with_shared_limits(queue.concurrency.or(self.concurrency), queue.rate.or(self.rate))
        .with_per_function(queue.per_function.unwrap_or(self.per_function))
    }
}

// === impl SettingsFollower ===

impl SettingsFollower {
    /// Starts with the worker's own settings, and follows those of its queue in the directory from
    /// then on.
    pub(crate) fn start(
        queue: QueueName,
        own: LiveSettings,
        directory: watch::Receiver<Option<Arc<Directory>>>,
    ) -> Self {
        let current = watch::Sender::new(own.clone());
        let follower = Self { queue, own, directory, followed: watch::Sender::default(), current };
        let mut task = follower.clone();
        tokio::spawn(async move {
            while task.directory.changed().await.is_ok() {
                task.refresh();
            }
        });
        follower
    }

    /// Returns the settings that apply, and each change of them.
    pub(crate) fn subscribe(&self) -> watch::Receiver<LiveSettings> {
        self.current.subscribe()
    }

    /// Waits until the directory has had valid settings of the queue.
    pub(crate) async fn wait_for_directory(&self) {
        self.refresh();
        // The sender is in `self`.
        let _ = self.followed.subscribe().wait_for(|followed| followed.is_valid).await;
    }

    /// Applies the settings in the directory, if they differ from the last ones. An entry without
    /// settings changes nothing: an operator of an earlier version has written it, or the queue is
    /// being deleted. Nor do settings that can't be used.
    pub(crate) fn refresh(&self) {
        let directory = self.directory.borrow().clone();
        let entry = directory.as_ref().and_then(|directory| directory.queues.get(&self.queue));
        let Some(stored) = entry.and_then(|entry| entry.settings.as_ref()) else { return };
        self.followed.send_if_modified(|followed| {
            if followed.last.as_ref() == Some(stored) {
                return false;
            }
            followed.last = Some(stored.clone());
            let is_valid = self.apply(stored.read());
            followed.is_valid |= is_valid;
            true
        });
    }

    /// Applies settings of the directory. Returns whether they are valid.
    fn apply(&self, read: Result<QueueSettings, SettingsError>) -> bool {
        let queue = &self.queue;
        let settings = match read {
            Ok(settings) => self.own.overridden_by(settings),
            Err(error) => {
                warn!(
                    %queue,
                    "settings in the directory refused, the last valid ones still apply: {error}"
                );
                return false;
            }
        };
        self.current.send_if_modified(|current| {
            let changes = changes(current, &settings);
            if changes.is_empty() {
                return false;
            }
            info!(%queue, "settings changed: {}", changes.join(", "));
            *current = settings;
            true
        });
        true
    }
}

/// Describes what differs, field by field: `maxInflight 1 -> 5`. A limit that does not exist is
/// `unset`.
fn changes(old: &LiveSettings, new: &LiveSettings) -> Vec<String> {
    let fields =
        |settings: &LiveSettings| serde_json::to_value(settings.to_queue()).unwrap_or_default();
    let mut changes = Vec::new();
    add_changes("", &fields(old), &fields(new), &mut changes);
    changes
}

fn add_changes(name: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        let fields: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let of =
            |fields: &Map<String, Value>, field| fields.get(field).cloned().unwrap_or_default();
        for field in fields {
            let dot = if name.is_empty() { "" } else { "." };
            let (old, new) = (of(old, field), of(new, field));
            add_changes(&format!("{name}{dot}{field}"), &old, &new, changes);
        }
    } else if old != new {
        let text = |value: &Value| match value {
            Value::Null => "unset".to_owned(),
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        changes.push(format!("{name} {} -> {}", text(old), text(new)));
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::directory::QueueEntry;

    use super::*;

    fn own() -> LiveSettings {
        LiveSettings::new(1, GoDuration(Duration::from_secs(60)), QueueRetry::default())
    }

    /// A worker of `jobs`, and the directory that it follows.
    fn follower() -> (SettingsFollower, watch::Sender<Option<Arc<Directory>>>) {
        let directory = watch::Sender::new(None);
        let queue = "jobs".parse().unwrap();
        (SettingsFollower::start(queue, own(), directory.subscribe()), directory)
    }

    /// Writes the entry of `jobs` with these settings, in JSON.
    fn write(directory: &watch::Sender<Option<Arc<Directory>>>, settings: Option<&str>) {
        let settings = settings.map(|json| serde_json::from_str(json).unwrap());
        let entry = QueueEntry { settings, ..QueueEntry::new("jobs", "jobs") };
        let queues = [("jobs".parse().unwrap(), entry)].into();
        directory.send_replace(Some(Arc::new(Directory { queues, ..Directory::default() })));
    }

    #[tokio::test]
    async fn settings_of_the_directory_win_over_own_ones() {
        let (follower, directory) = follower();
        let mut current = follower.subscribe();
        assert_eq!(*current.borrow_and_update(), own());
        write(&directory, Some(r#"{"maxInflight":5,"retry":{"maxAttempts":3}}"#));
        current.changed().await.unwrap();
        let settings = current.borrow_and_update().clone();
        assert_eq!((settings.max_inflight, settings.timeout()), (5, own().timeout()));
        assert_eq!(settings.policy.max_attempts, 3);
        // What is no longer set is the worker's own again.
        write(&directory, Some(r#"{"timeout":"15m"}"#));
        current.changed().await.unwrap();
        let settings = current.borrow_and_update().clone();
        assert_eq!((settings.max_inflight, settings.timeout().as_secs()), (1, 900));
        assert_eq!(settings.policy, own().policy);
    }

    #[tokio::test]
    async fn invalid_or_missing_settings_leave_the_last_ones() {
        let (follower, directory) = follower();
        let current = follower.subscribe();
        write(&directory, Some(r#"{"maxInflight":5}"#));
        follower.refresh();
        for json in [Some(r#"{"maxInflight":0}"#), Some("7"), Some(r#"{"timeout":1}"#), None] {
            write(&directory, json);
            follower.refresh();
            assert_eq!(current.borrow().max_inflight, 5, "{json:?}");
        }
        directory.send_replace(Some(Arc::default()));
        follower.refresh();
        assert_eq!(current.borrow().max_inflight, 5);
        write(&directory, Some(r#"{"maxInflight":6}"#));
        follower.refresh();
        assert_eq!(current.borrow().max_inflight, 6);
    }

    #[tokio::test]
    async fn a_worker_waits_for_valid_settings() {
        use futures::FutureExt;

        let (follower, directory) = follower();
        write(&directory, None);
        assert!(follower.wait_for_directory().now_or_never().is_none());
        write(&directory, Some(r#"{"maxInflight":0}"#));
        assert!(follower.wait_for_directory().now_or_never().is_none());
        // The same as its own: nothing changes, but it is what the directory says.
        write(&directory, Some(r#"{"maxInflight":1}"#));
        follower.wait_for_directory().now_or_never().unwrap();
    }

    #[test]
    fn changes_name_each_field_with_old_and_new_value() {
        assert!(changes(&own(), &own()).is_empty());
        let retry =
            QueueRetry { max_attempts: 3, status_codes: vec![429, 503], ..QueueRetry::default() };
        let new = LiveSettings::new(5, GoDuration(Duration::from_secs(900)), retry);
        let limited = LiveSettings { concurrency: Some(20), ..own() };
        assert_eq!(changes(&own(), &limited), ["concurrency unset -> 20"]);
        assert_eq!(changes(&limited, &own()), ["concurrency 20 -> unset"]);
        assert_eq!(
            changes(&own(), &new),
            [
                "maxInflight 1 -> 5",
                "retry.maxAttempts 10 -> 3",
                "retry.statusCodes [408,429,500,502,503,504] -> [429,503]",
                "timeout 1m -> 15m",
            ]
        );
    }
}
