//! The directory: which queue a function belongs to, and where a queue's calls go.
//!
//! Only the operator writes it, or, without an operator, a gateway with a directory file. It is a
//! KV bucket ([`crate::buckets::DIRECTORY`]): `function.<namespace>.<name>` holds a
//! [`FunctionEntry`] and `queue.<name>` a [`QueueEntry`], both in JSON. [`MARKER`] says that all of
//! them are there. Gateway and worker watch the bucket and keep its last state while NATS is
//! unavailable.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    delay::{DEFAULT_MAX_DELAY, DelayLimits},
    duration::GoDuration,
    fairness::{DEFAULT_MAX_LANES, Fairness},
    names::{FunctionName, QueueName},
    retry::RetryOverrides,
};

pub use self::{
    function_limits::{FunctionLimits, FunctionLimitsError, MAX_CONCURRENCY},
    rate::{MAX_RATE, Rate},
    results::{
        DEFAULT_MAX_RESULTS, DEFAULT_MAX_RETENTION, MIN_RETENTION, ResultsSettings, RetentionError,
    },
    settings::{MAX_MAX_INFLIGHT, PerFunction, QueueSettings, SettingsError, StoredSettings},
};

pub mod function_limits;
mod rate;
mod results;
mod settings;
mod snapshot;
#[doc(hidden)]
pub mod store;
pub mod watch;

/// The key that is written after all others. With it, the directory is complete, even if it is
/// empty. Without it, an empty bucket was recreated and has not been written yet.
#[doc(hidden)]
pub const MARKER: &str = "complete";

/// What the directory says about a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionEntry {
    /// Queue of its calls. Default: the default queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// Its base URL, e.g. `http://figlet.openfaas-fn.svc.cluster.local:8080`. Default: derived from
    /// its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its retry settings, which override those of its queue.
    #[serde(default, skip_serializing_if = "RetryOverrides::is_empty")]
    pub retry: RetryOverrides,
    /// Its limits, which override those of its queue, if the queue has lanes. Absent before version
    /// 0.2.
    #[serde(default, skip_serializing_if = "FunctionLimits::is_empty")]
    pub limits: FunctionLimits,
    /// Whether it has no pods on purpose: its Deployment has `replicas: 0`. Absent before version
    /// 0.2.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scaled_to_zero: bool,
}

/// What the directory says about a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueEntry {
    /// Name of its stream.
    pub stream: String,
    /// Subject below which its calls are published.
    pub subject: String,
    /// Maximum size of a body, in bytes. Default: the limit of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_payload: Option<u64>,
    /// The longest delay of a call. Absent before version 0.2, whose workers do not know delays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<GoDuration>,
    /// Maximum age of a call when it runs, for programs that store delayed calls. Absent before
    /// version 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<GoDuration>,
    /// The order in which its calls are run. Default: the order in which they were stored. A value
    /// that this program does not know is left out: the rest of the entry is read.
    #[serde(default, deserialize_with = "known_fairness", skip_serializing_if = "Option::is_none")]
    pub fairness: Option<Fairness>,
    /// Maximum number of its functions with lanes of their own, for programs that store calls. 0
    /// while the installation has too many: the operator then decides. Default: 90. Absent before
    /// version 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lanes: Option<usize>,
    /// Which results are kept for clients. Default: those that a client asks for. Absent before
    /// version 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultsSettings>,
    /// The settings that its workers follow. Default: those of each worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<StoredSettings>,
}

/// All known functions and queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// The functions.
    pub functions: HashMap<FunctionName, FunctionEntry>,
    /// The queues.
    pub queues: HashMap<QueueName, QueueEntry>,
}

/// The content of the bucket.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The functions and queues in the bucket.
    pub directory: Arc<Directory>,
    /// Whether the marker is there, so that no entry is missing.
    pub is_complete: bool,
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRoute {
    /// Name of the queue.
    pub queue: QueueName,
    /// Subject below which the call is published.
    pub subject: String,
    /// Maximum size of a body, in bytes, if the queue has a limit.
    pub max_payload: Option<u64>,
    /// The delays that the queue accepts.
    pub delay: DelayLimits,
    /// Which results of the queue are kept.
    pub results: ResultsSettings,
    /// Whether the directory lists the function.
    pub known: bool,
    /// Name of the queue's stream, if functions of the queue may have lanes: consumers of their
    /// own, so that no function delays the others.
    pub lanes_of: Option<String>,
    /// Maximum number of functions of the queue that have lanes of their own.
    pub max_lanes: usize,
}

/// The key of a function or a queue.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `function.<namespace>.<name>`
    Function(FunctionName),
    /// `queue.<name>`
    Queue(QueueName),
}

/// An entry as the bucket holds it; `None` removes it.
#[doc(hidden)]
pub type Change = (Key, Option<Vec<u8>>);

/// Reads a fairness; `None` for one that this program does not know.
fn known_fairness<'de, D: Deserializer<'de>>(json: D) -> Result<Option<Fairness>, D::Error> {
    let value = serde_json::Value::deserialize(json)?;
    Ok(serde_json::from_value(value).ok())
}

// === impl Directory ===

impl Directory {
    /// Returns the function that a client means: names on Kubernetes are in lower case, and DNS
    /// resolves them in any case. Returns the name unchanged if the directory has it as it is, or
    /// does not have it in lower case either.
    #[must_use]
    pub fn resolve(&self, function: FunctionName) -> FunctionName {
        if self.functions.contains_key(&function) {
            return function;
        }
        let lower = function.to_lowercase();
        if self.functions.contains_key(&lower) { lower } else { function }
    }

    /// Returns where a function's calls go. A function that has no queue, or whose queue does not
    /// exist, uses the default queue. The subject of a queue that the directory does not list is
    /// its name.
    ///
    /// ```
    /// use asyncqueue::{FunctionName, directory::Directory};
    ///
    /// let function = FunctionName::parse("figlet", "openfaas-fn")?;
    /// let route = Directory::default().route(&function, &"faas-request".parse()?);
    /// assert_eq!(route.queue.as_str(), "faas-request");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn route(&self, function: &FunctionName, default_queue: &QueueName) -> QueueRoute {
        let entry = self.functions.get(function);
        let queue = entry
            .and_then(|entry| entry.queue.as_ref())
            .filter(|queue| self.queues.contains_key(queue))
            .unwrap_or(default_queue)
            .clone();
        let route = match self.queues.get(&queue) {
            Some(entry) => entry.route(queue),
            None => QueueRoute::with_default_names(queue),
        };
        QueueRoute { known: entry.is_some(), ..route }
    }

    /// Applies one entry of the bucket; `None` removes it. An entry that can't be read is an error
    /// and changes nothing.
    #[doc(hidden)]
    pub fn apply(&mut self, key: &Key, value: Option<&[u8]>) -> Result<(), serde_json::Error> {
        match (key, value) {
            (Key::Function(name), Some(json)) => {
                self.functions.insert(name.clone(), serde_json::from_slice(json)?);
            }
            (Key::Queue(name), Some(json)) => {
                self.queues.insert(name.clone(), serde_json::from_slice(json)?);
            }
            (Key::Function(name), None) => {
                self.functions.remove(name);
            }
            (Key::Queue(name), None) => {
                self.queues.remove(name);
            }
        }
        Ok(())
    }

    /// Returns the changes that make this directory the `wanted` one.
    #[doc(hidden)]
    pub fn changes_to(&self, wanted: &Self) -> Result<Vec<Change>, serde_json::Error> {
        let mut changes = Vec::new();
        add_changes(&self.functions, &wanted.functions, Key::Function, &mut changes)?;
        add_changes(&self.queues, &wanted.queues, Key::Queue, &mut changes)?;
        Ok(changes)
    }
}

/// Adds the entries that differ. Only these are encoded: there may be ten thousand others.
fn add_changes<N: Clone + Eq + Hash, E: PartialEq + Serialize>(
    current: &HashMap<N, E>,
    wanted: &HashMap<N, E>,
    key: fn(N) -> Key,
    changes: &mut Vec<Change>,
) -> Result<(), serde_json::Error> {
    for (name, entry) in wanted {
        if current.get(name) != Some(entry) {
            changes.push((key(name.clone()), Some(serde_json::to_vec(entry)?)));
        }
    }
    let removed = current.keys().filter(|name| !wanted.contains_key(*name));
    changes.extend(removed.map(|name| (key(name.clone()), None)));
    Ok(())
}

// === impl Contents ===

impl Contents {
    /// Returns whether both are the same state of the bucket, without comparing the entries.
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.directory, &other.directory) && self.is_complete == other.is_complete
    }
}

// === impl QueueEntry ===

impl QueueEntry {
    /// Creates the entry of a queue of which nothing is known: its stream and its subject have its
    /// name.
    #[must_use]
    pub fn with_default_names(queue: &QueueName) -> Self {
        let max_delay = Some(GoDuration(DEFAULT_MAX_DELAY));
        Self { max_delay, ..Self::new(queue.as_str(), queue.as_str()) }
    }

    /// Creates the entry of a queue with this stream and subject and no limit.
    #[must_use]
    pub fn new(stream: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            subject: subject.into(),
            max_payload: None,
            max_delay: None,
            max_age: None,
            fairness: None,
            max_lanes: None,
            results: None,
            settings: None,
        }
    }

    /// Returns the route of the calls of this queue.
    #[must_use]
    pub fn route(&self, queue: QueueName) -> QueueRoute {
        let lanes_of = (self.fairness == Some(Fairness::Function)).then(|| self.stream.clone());
        QueueRoute {
            queue,
            subject: self.subject.clone(),
            max_payload: self.max_payload,
            delay: DelayLimits {
                max_delay: self.max_delay.map(|max| max.0),
                max_age: self.max_age.map(|max| max.0),
            },
            results: ResultsSettings::of(Some(self)).clone(),
            known: false,
            lanes_of,
            max_lanes: self.max_lanes.unwrap_or(DEFAULT_MAX_LANES),
        }
    }

    /// Returns the route of the calls of this queue, of which only stream and subject are known for
    /// certain: it may have lanes, whatever the entry says.
    #[doc(hidden)]
    #[must_use]
    pub fn route_of_unknown_fairness(&self, queue: QueueName) -> QueueRoute {
        QueueRoute { lanes_of: Some(self.stream.clone()), ..self.route(queue) }
    }
}

// === impl QueueRoute ===

impl QueueRoute {
    /// Returns the route of calls of a queue of which only the name is known: its stream and its
    /// subject have its name, and it may have lanes.
    #[must_use]
    pub fn with_default_names(queue: QueueName) -> Self {
        QueueEntry::with_default_names(&queue).route_of_unknown_fairness(queue)
    }
}

// === impl Key ===

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Function(name) => write!(f, "function.{}.{}", name.namespace(), name.name()),
            Self::Queue(name) => write!(f, "queue.{name}"),
        }
    }
}

impl Key {
    /// Reads a key of the bucket; `None` for an unknown key, which may come from a later version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('.')?;
        match kind {
            "queue" => rest.parse().ok().map(Self::Queue),
            "function" => {
                let (namespace, name) = rest.split_once('.')?;
                FunctionName::new(name, namespace).ok().map(Self::Function)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Directory {
        let mut directory = Directory::default();
        let put = |directory: &mut Directory, key: &str, json: &str| {
            directory.apply(&Key::parse(key).unwrap(), Some(json.as_bytes())).unwrap();
        };
        put(&mut directory, "queue.slow-queue", r#"{"stream":"SLOW","subject":"jobs.slow"}"#);
        put(&mut directory, "function.openfaas-fn.slow", r#"{"queue":"slow-queue"}"#);
        put(&mut directory, "function.openfaas-fn.lost", r#"{"queue":"no-such-queue"}"#);
        put(&mut directory, "function.openfaas-fn.plain", r#"{"url":"http://plain:1"}"#);
        directory
    }

    #[test]
    fn a_call_goes_to_its_functions_queue_or_to_the_default() {
        let directory = sample();
        let route = |name: &str| {
            let function = FunctionName::parse(name, "openfaas-fn").unwrap();
            let route = directory.route(&function, &"faas-request".parse().unwrap());
            (route.queue.to_string(), route.subject, route.known)
        };
        assert_eq!(route("slow"), ("slow-queue".into(), "jobs.slow".into(), true));
        assert_eq!(route("lost"), ("faas-request".into(), "faas-request".into(), true));
        assert_eq!(route("plain"), ("faas-request".into(), "faas-request".into(), true));
        assert_eq!(route("unknown"), ("faas-request".into(), "faas-request".into(), false));
        assert_eq!(route("slow.other"), ("faas-request".into(), "faas-request".into(), false));
    }

    #[test]
    fn lanes_are_possible_unless_the_directory_says_otherwise() {
        let mut directory = sample();
        let lanes_of = |directory: &Directory, name: &str| {
            let function = FunctionName::parse(name, "openfaas-fn").unwrap();
            directory.route(&function, &"faas-request".parse().unwrap()).lanes_of
        };
        assert_eq!(lanes_of(&directory, "slow"), None);
        assert_eq!(lanes_of(&directory, "plain").as_deref(), Some("faas-request"));
        let fair = r#"{"stream":"SLOW","subject":"jobs.slow","fairness":"Function"}"#;
        directory.apply(&Key::parse("queue.slow-queue").unwrap(), Some(fair.as_bytes())).unwrap();
        assert_eq!(lanes_of(&directory, "slow").as_deref(), Some("SLOW"));
    }

    #[test]
    fn a_name_in_upper_case_is_the_function_in_lower_case() {
        let mut directory = sample();
        directory.apply(&Key::parse("function.openfaas-fn.MiXed").unwrap(), Some(b"{}")).unwrap();
        for (called, meant) in [
            ("slow", "slow.openfaas-fn"),
            ("SLOW", "slow.openfaas-fn"),
            ("Slow.OpenFaaS-fn", "slow.openfaas-fn"),
            // The directory has it as it is.
            ("MiXed", "MiXed.openfaas-fn"),
            // Nothing is known of these.
            ("MIXED", "MIXED.openfaas-fn"),
            ("UNKNOWN", "UNKNOWN.openfaas-fn"),
            ("SLOW.other", "SLOW.other"),
        ] {
            let function = FunctionName::parse(called, "openfaas-fn").unwrap();
            assert_eq!(directory.resolve(function).to_string(), meant, "{called}");
        }
    }

    #[test]
    fn bucket_entries_read_back() {
        let (directory, empty) = (sample(), Directory::default());
        let mut read = Directory::default();
        for (key, value) in empty.changes_to(&directory).unwrap() {
            read.apply(&Key::parse(&key.to_string()).unwrap(), value.as_deref()).unwrap();
        }
        assert_eq!(read, directory);
        for (key, value) in directory.changes_to(&empty).unwrap() {
            assert_eq!(value, None);
            read.apply(&key, None).unwrap();
        }
        assert_eq!(read, empty);
    }

    #[test]
    fn only_entries_that_differ_are_changes() {
        let (before, mut after) = (sample(), sample());
        assert_eq!(before.changes_to(&after).unwrap(), []);
        let entry = after.queues.values_mut().next().unwrap();
        let settings = QueueSettings { max_inflight: Some(5), ..QueueSettings::default() };
        entry.settings = Some(StoredSettings::new(&settings).unwrap());
        let changes = before.changes_to(&after).unwrap();
        let json = br#"{"stream":"SLOW","subject":"jobs.slow","settings":{"maxInflight":5}}"#;
        let key = Key::parse("queue.slow-queue").unwrap();
        assert_eq!(changes, [(key, Some(json.to_vec()))]);
    }

    #[test]
    fn settings_that_cannot_be_read_leave_the_queue_as_it_is() {
        let mut directory = sample();
        let key = Key::parse("queue.slow-queue").unwrap();
        let json = br#"{"stream":"SLOW","subject":"jobs","settings":{"maxInflight":"many"}}"#;
        directory.apply(&key, Some(json)).unwrap();
        let entry = directory.queues.values().next().unwrap();
        assert_eq!(entry.subject, "jobs");
        assert!(entry.settings.as_ref().unwrap().read().is_err());
    }

    #[test]
    fn entries_of_earlier_and_later_programs_are_read() {
        let mut directory = sample();
        let key = Key::parse("queue.slow-queue").unwrap();
        let json =
            br#"{"stream":"SLOW","subject":"jobs.slow","maxPayload":1024,"ofTheFuture":true}"#;
        directory.apply(&key, Some(json)).unwrap();
        let function = FunctionName::parse("slow", "openfaas-fn").unwrap();
        let route = directory.route(&function, &"faas-request".parse().unwrap());
        assert_eq!(route.max_payload, Some(1024));
        // A queue without the limit is written as it was before the limit existed.
        let written = Directory::default().changes_to(&sample()).unwrap();
        let json = br#"{"stream":"SLOW","subject":"jobs.slow"}"#.to_vec();
        assert!(written.contains(&(key, Some(json))));
    }

    #[test]
    fn an_unknown_fairness_does_not_spoil_the_entry() {
        let mut directory = sample();
        let key = Key::parse("queue.slow-queue").unwrap();
        for (fairness, expected) in [
            (r#""Function""#, Some(Fairness::Function)),
            (r#""Fifo""#, Some(Fairness::Fifo)),
            (r#""ByTenant""#, None),
            (r#"{"by":"tenant"}"#, None),
            ("null", None),
        ] {
            let json =
                format!(r#"{{"stream":"SLOW","subject":"jobs.slow","fairness":{fairness}}}"#);
            directory.apply(&key, Some(json.as_bytes())).unwrap();
            assert_eq!(directory.queues.values().next().unwrap().fairness, expected, "{json}");
        }
    }

    #[test]
    fn a_function_without_the_field_is_not_scaled_to_zero() {
        let mut directory = sample();
        let function = FunctionName::parse("slow", "openfaas-fn").unwrap();
        assert!(!directory.functions[&function].scaled_to_zero);
        let key = Key::parse("function.openfaas-fn.slow").unwrap();
        let json = br#"{"queue":"slow-queue","scaledToZero":true}"#;
        directory.apply(&key, Some(json)).unwrap();
        assert!(directory.functions[&function].scaled_to_zero);
        let changes = sample().changes_to(&directory).unwrap();
        assert_eq!(changes, [(key.clone(), Some(json.to_vec()))]);
        // A function with pods is written as it was before the field existed.
        let json = br#"{"queue":"slow-queue"}"#.to_vec();
        assert_eq!(directory.changes_to(&sample()).unwrap(), [(key, Some(json))]);
    }

    #[test]
    fn an_entry_that_cannot_be_read_changes_nothing() {
        let mut directory = sample();
        let key = Key::parse("queue.slow-queue").unwrap();
        assert!(directory.apply(&key, Some(b"{}")).is_err());
        assert_eq!(directory, sample());
        assert_eq!(Key::parse("future.thing"), None);
        // So that programs of the last version skip it.
        assert_eq!(Key::parse(MARKER), None);
        assert_eq!(Key::parse("function.no-namespace"), None);
    }
}
