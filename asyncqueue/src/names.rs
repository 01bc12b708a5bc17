//! Names of queues and functions, and the names on `JetStream` that follow from them.
//!
//! Users see these names in `nats stream ls`, in KEDA triggers and in `kubectl get deploy`: they
//! are a contract.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The Kubernetes label with the name of the queue. Every object of a queue has it, and it
/// distinguishes the workers of one queue from all others.
pub const QUEUE_LABEL: &str = "asyncqueue.io/queue";

/// Maximum length of a queue name. With the longest suffix that is added (`-worker` and the hash of
/// a pod), the names of pods stay within the 63 characters of a DNS label.
pub(crate) const MAX_QUEUE_NAME: usize = 40;

/// Maximum length of the name of a function or a namespace: a DNS label, as Kubernetes requires for
/// a Service.
pub(crate) const MAX_LABEL: usize = 63;

/// The name of a queue: 1 to 40 of `a-z 0-9 - _`, as `OpenFaaS` allows.
///
/// ```
/// use asyncqueue::QueueName;
///
/// let queue: QueueName = "slow-queue".parse()?;
/// assert_eq!(queue.dead_letter_stream(), "slow-queue-dead");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueName(String);

/// A function and its namespace. In JSON, `name.namespace`.
///
/// ```
/// use asyncqueue::FunctionName;
///
/// let function = FunctionName::parse("figlet", "openfaas-fn")?;
/// assert_eq!(function.to_string(), "figlet.openfaas-fn");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName {
    name: String,
    namespace: String,
}

/// A text is not a name. The error names the kind, the value and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{value}` is not valid: {rule}")]
pub struct NameError {
    pub(crate) kind: &'static str,
    pub(crate) value: String,
    pub(crate) rule: &'static str,
}

// === impl QueueName ===

impl QueueName {
    /// Reads the name of a queue to be created, by the rule of the CRD of `AsyncQueue`: 1 to 40 of
    /// `a-z 0-9 -`, and neither the first nor the last is a `-`. Existing queues may have other
    /// names.
    pub fn parse_new(text: &str) -> Result<Self, NameError> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let has_length = (1..=MAX_QUEUE_NAME).contains(&text.len());
        if has_length && text.bytes().all(ok) && !text.starts_with('-') && !text.ends_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            let rule = "use 1 to 40 of a-z, 0-9 and -, and begin and end with a letter or digit";
            Err(NameError { kind: "queue name", value: text.to_owned(), rule })
        }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the durable consumer that the queue's workers share: `<queue>-workers`.
    #[must_use]
    pub fn durable(&self) -> String {
        format!("{self}-workers")
    }

    /// Returns the stream of results on their way to the client: `<queue>-callbacks`.
    #[must_use]
    pub fn callback_stream(&self) -> String {
        format!("{self}-callbacks")
    }

    /// Returns the durable consumer of that stream, which the queue's workers share:
    /// `<queue>-callback-workers`.
    #[must_use]
    pub fn callback_durable(&self) -> String {
        format!("{self}-callback-workers")
    }

    /// Returns the stream of the queue's dead letters: `<queue>-dead`.
    #[must_use]
    pub fn dead_letter_stream(&self) -> String {
        format!("{self}-dead")
    }

    /// Returns the stream of the results that are kept for clients: `<queue>-results`.
    #[must_use]
    pub fn results_stream(&self) -> String {
        format!("{self}-results")
    }

    /// Returns the Deployment of the queue's workers: `<queue>-worker`.
    #[must_use]
    pub fn worker_deployment(&self) -> String {
        format!("{self}-worker")
    }
}

impl FromStr for QueueName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if (1..=MAX_QUEUE_NAME).contains(&text.len()) && text.bytes().all(ok) {
            Ok(Self(text.to_owned()))
        } else {
            let rule = "use 1 to 40 of a-z, 0-9, - and _";
            Err(NameError { kind: "queue name", value: text.to_owned(), rule })
        }
    }
}

impl TryFrom<String> for QueueName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<QueueName> for String {
    fn from(name: QueueName) -> Self {
        name.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl FunctionName ===

impl FunctionName {
    /// Creates a function from its two parts, each one subject token: 1 to 63 of `A-Z a-z 0-9 - _`.
    pub fn new(name: &str, namespace: &str) -> Result<Self, NameError> {
        label("function name", name)?;
        label("function namespace", namespace)?;
        Ok(Self { name: name.to_owned(), namespace: namespace.to_owned() })
    }

    /// Reads the form that clients use in a URL: `name` or `name.namespace`.
    pub fn parse(text: &str, default_namespace: &str) -> Result<Self, NameError> {
        match text.rsplit_once('.') {
            Some((name, namespace)) => Self::new(name, namespace),
            None => Self::new(text, default_namespace),
        }
    }

    /// Returns the function in lower case.
    #[must_use]
    pub fn to_lowercase(&self) -> Self {
        Self {
            name: self.name.to_ascii_lowercase(),
            namespace: self.namespace.to_ascii_lowercase(),
        }
    }

    /// Returns the name without its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

impl TryFrom<String> for FunctionName {
    type Error = NameError;

    /// Reads what [`fmt::Display`] writes: the namespace must not be absent.
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text, "")
    }
}

impl From<FunctionName> for String {
    fn from(function: FunctionName) -> Self {
        function.to_string()
    }
}

impl fmt::Display for FunctionName {
    /// Writes `name.namespace`, as `OpenFaaS` does in URLs, metrics and callbacks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// Reads a namespace, for a setting.
pub fn parse_namespace(text: &str) -> Result<String, NameError> {
    label("function namespace", text).map(|()| text.to_owned())
}

pub(crate) fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

fn label(kind: &'static str, text: &str) -> Result<(), NameError> {
    if (1..=MAX_LABEL).contains(&text.len()) && text.bytes().all(is_name_byte) {
        Ok(())
    } else {
        let rule =
            "use 1 to 63 of A-Z, a-z, 0-9, - and _ (and name.namespace for another namespace)";
        Err(NameError { kind, value: text.to_owned(), rule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_may_name_its_namespace() {
        let of = |text| FunctionName::parse(text, "openfaas-fn").map(|f| f.to_string());
        assert_eq!(of("figlet").unwrap(), "figlet.openfaas-fn");
        assert_eq!(of("figlet.dev").unwrap(), "figlet.dev");
        for bad in ["", ".", "a.", ".a", "a.b.c", "a b", "a>b", "*", "ä"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_on_jetstream_are_a_contract() {
        let queue: QueueName = "slow-queue".parse().unwrap();
        assert_eq!(queue.durable(), "slow-queue-workers");
        assert_eq!(queue.callback_stream(), "slow-queue-callbacks");
        assert_eq!(queue.callback_durable(), "slow-queue-callback-workers");
        assert_eq!(queue.dead_letter_stream(), "slow-queue-dead");
        assert_eq!(queue.results_stream(), "slow-queue-results");
        assert_eq!(queue.worker_deployment(), "slow-queue-worker");
    }

    #[test]
    fn names_of_new_queues_and_streams_are_narrower() {
        for good in ["a", "slow-queue", "9", &"a".repeat(40)] {
            assert_eq!(QueueName::parse_new(good).map(String::from).as_deref(), Ok(good));
        }
        for bad in ["", "-a", "a-", "a_b", "A", "a.b", &"a".repeat(41)] {
            let error = QueueName::parse_new(bad).unwrap_err().to_string();
            assert!(error.contains("begin and end with a letter"), "{error}");
        }
    }

    #[test]
    fn a_namespace_is_one_label() {
        assert!(parse_namespace("a.b").is_err() && parse_namespace("fn").is_ok());
    }

    #[test]
    fn a_queue_name_is_a_subject_token() {
        for bad in ["", "Slow", "a.b", "a*", "a>", "a b", &"a".repeat(41)] {
            assert!(bad.parse::<QueueName>().is_err(), "{bad}");
        }
    }
}
