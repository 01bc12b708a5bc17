//! Reads the directory from a YAML file, for installations without an operator:
//!
//! ```yaml
//! queues:
//!   slow-queue: {}             # or with `stream` and `subject`; the default is the queue's name
//!   shared: {fairness: Function}   # round robin between its functions; the default is Fifo
//!   # the longest delay, 168h where absent, and the setting max_age of the queue's workers
//!   later: {maxDelay: 24h, maxAge: 48h}
//!   kept: {results: {retention: 10m}}   # as spec.results of an AsyncQueue
//! functions:
//!   figlet:                    # or name.namespace
//!     queue: slow-queue        # the default queue where absent
//!     url: http://figlet:8080  # from function_url where absent
//!     # each of these from the queue's workers where absent
//!     retry: {attempts: 3, codes: [429, 503], minWait: 1s, maxWait: 1m}
//!     # in a queue with `fairness: Function`
//!     limits: {maxInflight: 10, weight: 2, rate: {perSecond: 5, burst: 10}}
//! ```
//!
//! Names, URLs and retries follow the same rules as those of an `AsyncQueue` and its functions. The
//! file is read again when it changes. If the new file is not valid, the last valid directory stays
//! in use, and the log, a metric and `/readyz` say so.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use asyncqueue::{
    FunctionName, GoDuration, NameError, QueueName,
    delay::DEFAULT_MAX_DELAY,
    directory::{
        Directory, FunctionEntry, FunctionLimits, FunctionLimitsError, QueueEntry, Rate,
        ResultsSettings,
    },
    function_namespaces::check_system,
    lanes::Fairness,
    reserved_names,
    retry::{RetryError, RetryOverrides, parse_wait},
    stream::{Overlap, find_overlap, parse_new_stream, parse_new_subject},
};
use asyncqueue_runtime::{health::Health, settings::parse_call_url};
use serde::Deserialize;
use serde_saphyr::Spanned;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{base_url::BaseUrl, metrics::Metrics, provisioner};

/// Interval between two reads of the file. The content is compared, not the modification time:
/// Kubernetes updates a `ConfigMap` by changing links.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Name of the warning on `/readyz` about a file that is not valid. The gateway stays ready.
const WARNING: &str = "directory_file";

/// The effect of a file that is not valid, as a text for users.
const KEEPS_PREVIOUS: &str = "using the previous contents";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileContents {
    #[serde(default)]
    queues: Option<BTreeMap<NewQueueName, Option<Queue>>>,
    #[serde(default)]
    functions: Option<BTreeMap<String, Spanned<Option<Function>>>>,
}

/// The name of a queue, checked by the rule for new queues.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct NewQueueName(QueueName);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Queue {
    stream: Option<String>,
    subject: Option<String>,
    fairness: Option<Fairness>,
    max_delay: Option<GoDuration>,
    max_age: Option<GoDuration>,
    results: Option<Results>,
}

/// The fields of [`ResultsSettings`], and no others.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Results {
    retention: Option<GoDuration>,
    max_retention: Option<GoDuration>,
    max_messages: Option<i64>,
    max_bytes: Option<i64>,
    #[serde(default)]
    require_generated_id: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Function {
    queue: Option<QueueName>,
    url: Option<String>,
    retry: Option<Retry>,
    limits: Option<Limits>,
}

/// The fields of [`RetryOverrides`], and no others: a wrong name is an error now, and not only in a
/// later version.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Retry {
    attempts: Option<u64>,
    codes: Option<BTreeSet<u16>>,
    min_wait: Option<String>,
    max_wait: Option<String>,
}

/// The fields of [`FunctionLimits`], and no others.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Limits {
    max_inflight: Option<u32>,
    weight: Option<u32>,
    rate: Option<LimitedRate>,
}

/// The fields of [`Rate`], and no others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LimitedRate {
    per_second: u32,
    burst: Option<u32>,
}

/// A directory file, and what is needed to read it.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryFile {
    /// The path of the file.
    pub path: Arc<Path>,
    /// The namespace of functions that are named without one.
    pub namespace: String,
    /// The default queue, which need not be in the file.
    pub default_queue: QueueName,
}

// === impl DirectoryFile ===

impl DirectoryFile {
    /// Reads the file. The error names the file, the line and the field.
    pub(crate) fn read(&self) -> anyhow::Result<Directory> {
        self.parse(&self.contents()?)
    }

    /// Watches the file for as long as there is a receiver.
    pub(crate) async fn watch(
        self,
        directory: watch::Sender<Option<Arc<Directory>>>,
        metrics: Metrics,
        health: Health,
    ) {
        let mut last_contents = None;
        loop {
            let this = self.clone();
            // An error is compared like contents, so that it is logged once.
            let poll = tokio::task::spawn_blocking(move || {
                this.contents().map_err(|error| format!("{error:#}"))
            });
            let Ok(text) = poll.await else { return };
            if last_contents.as_ref() != Some(&text) {
                let read = text
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|text| self.parse(text).map_err(|error| format!("{error:#}")));
                health.set_warning(
                    WARNING,
                    read.as_ref().err().map(|error| format!("{error}; {KEEPS_PREVIOUS}")),
                );
                self.publish(read, &directory, &metrics);
                last_contents = Some(text);
            }
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = directory.closed() => return,
            }
        }
    }

    /// Replaces the current directory with the one that was read, if they differ.
    fn publish(
        &self,
        read: Result<Directory, String>,
        directory: &watch::Sender<Option<Arc<Directory>>>,
        metrics: &Metrics,
    ) {
        metrics.record_directory_read(read.is_ok());
        match read {
            Ok(read) => {
                let (queues, functions) = (read.queues.len(), read.functions.len());
                let changed = directory.send_if_modified(|now| {
                    let changed = now.as_deref() != Some(&read);
                    *now = Some(Arc::new(read));
                    changed
                });
                if changed {
                    info!(
                        queues,
                        functions,
                        "reloaded the directory from `{}`",
                        self.path.display()
                    );
                }
            }
            Err(error) => warn!("{error}; {KEEPS_PREVIOUS}"),
        }
    }

    fn contents(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(&self.path)
            .with_context(|| format!("failed to read directory_file `{}`", self.path.display()))
    }

    fn parse(&self, text: &str) -> anyhow::Result<Directory> {
        parse(text, &self.namespace, &self.default_queue)
            .with_context(|| format!("directory_file `{}` is not valid", self.path.display()))
    }
}

/// Parses a directory. The error names the line and the field, and is one line, whatever values the
/// file has.
pub fn parse(yaml: &str, namespace: &str, default_queue: &QueueName) -> anyhow::Result<Directory> {
    parse_values(yaml, namespace, default_queue).map_err(|error| {
        let line = format!("{error:#}")
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>();
        anyhow!(line)
    })
}

fn parse_values(
    yaml: &str,
    namespace: &str,
    default_queue: &QueueName,
) -> anyhow::Result<Directory> {
    // Without the excerpt of the file, so that the error stays on one line.
    let file: FileContents =
        serde_saphyr::from_str(yaml).map_err(|error| anyhow!("{}", error.without_snippet()))?;
    let mut directory = Directory::default();
    for (NewQueueName(name), queue) in file.queues.unwrap_or_default() {
        let entry = queue_entry(&name, queue.unwrap_or_default())
            .with_context(|| format!("queues.{name}"))?;
        directory.queues.insert(name, entry);
    }
    check_conflicts(&directory, default_queue)?;
    for (name, function) in file.functions.unwrap_or_default() {
        let line = function.referenced.line();
        let at = || format!("line {line}: functions.{name}");
        let entry = function_entry(function.value.unwrap_or_default(), &directory, default_queue)
            .map_err(|error| anyhow!("{}.{error}", at()))?;
        let function = FunctionName::parse(&name, namespace)
            .with_context(|| format!("line {line}: functions"))?;
        check_system(function.namespace()).with_context(at)?;
        if directory.functions.insert(function, entry).is_some() {
            bail!(
                "{} is listed twice, with and without its namespace: remove one of the two",
                at()
            );
        }
    }
    Ok(directory)
}

/// Converts a queue, by the same rules that the API server applies to an `AsyncQueue`.
fn queue_entry(
    name: &QueueName,
    Queue { stream, subject, fairness, max_delay, max_age, results }: Queue,
) -> anyhow::Result<QueueEntry> {
    reserved_names::check_queue(name, subject.is_some())?;
    if let Some(stream) = &stream {
        parse_new_stream(stream)?;
        reserved_names::check_stream(stream)?;
    }
    if let Some(subject) = &subject {
        parse_new_subject(subject)?;
        reserved_names::check_subject(subject)?;
    }
    let named = || name.to_string();
    let entry = QueueEntry::new(stream.unwrap_or_else(named), subject.unwrap_or_else(named));
    let max_delay = Some(max_delay.unwrap_or(GoDuration(DEFAULT_MAX_DELAY)));
    let results = results.map(ResultsSettings::try_from).transpose();
    let results = results.map_err(|error| anyhow!("results.{error}"))?;
    Ok(QueueEntry { fairness, max_delay, max_age, results, ..entry })
}

/// Rejects two queues that use the same stream or subject. The default queue is included, though it
/// need not be listed.
fn check_conflicts(directory: &Directory, default_queue: &QueueName) -> anyhow::Result<()> {
    let mut specs = provisioner::queue_specs(directory, default_queue);
    specs.sort_by(|a, b| a.queue.cmp(&b.queue));
    for (index, first) in specs.iter().enumerate() {
        for second in &specs[index + 1..] {
            let (a, b) = (&first.queue, &second.queue);
            match find_overlap(first, second) {
                None => {}
                Some(Overlap::Stream(stream)) => bail!(
                    "queues.{a} and queues.{b} both use the stream `{stream}`: each queue needs \
                     its own stream, NAME-callbacks and NAME-dead; change the name or stream of \
                     one of the two"
                ),
                Some(Overlap::Subject { subject, others }) => bail!(
                    "queues.{a} and queues.{b} have the subjects `{subject}` and `{others}`, which \
                     overlap: a queue receives all messages below its subject; change the subject \
                     of one of the two"
                ),
            }
        }
    }
    Ok(())
}

/// Converts a function. The error begins with the field.
fn function_entry(
    Function { queue, url, retry, limits }: Function,
    directory: &Directory,
    default_queue: &QueueName,
) -> anyhow::Result<FunctionEntry> {
    let is_queue =
        |queue: &QueueName| queue == default_queue || directory.queues.contains_key(queue);
    if let Some(queue) = queue.as_ref().filter(|queue| !is_queue(queue)) {
        bail!("queue `{queue}` is not listed in queues: add it there");
    }
    if let Some(url) = &url {
        check_url(url).map_err(|rule| anyhow!("url `{url}` is not valid: {rule}"))?;
    }
    let retry = retry.map(RetryOverrides::try_from).transpose();
    let retry = retry.map_err(|error| anyhow!("retry.{error}"))?.unwrap_or_default();
    let limits = limits.map(FunctionLimits::try_from).transpose();
    let limits = limits.map_err(|error| anyhow!("limits.{error}"))?.unwrap_or_default();
    if !limits.is_empty() {
        let named = queue.as_ref().unwrap_or(default_queue);
        let fairness = directory.queues.get(named).and_then(|entry| entry.fairness);
        if fairness != Some(Fairness::Function) {
            bail!("limits need `fairness: Function` in queues.{named}: add it there");
        }
    }
    Ok(FunctionEntry { queue, url, retry, limits, ..FunctionEntry::default() })
}

/// Checks the URL of one function. Workers and gateways use it as it is: it has no placeholders.
fn check_url(url: &str) -> Result<(), String> {
    if url.contains(['{', '}']) {
        return Err("placeholders are not allowed here: write the URL of this function".to_owned());
    }
    parse_call_url(url)?;
    url.parse::<BaseUrl>().map(drop).map_err(|error| error.to_string())
}

impl TryFrom<String> for NewQueueName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        QueueName::parse_new(&text).map(Self)
    }
}

impl TryFrom<Results> for ResultsSettings {
    type Error = String;

    fn try_from(file: Results) -> Result<Self, String> {
        let default = Self::default();
        let settings = Self {
            retention: file.retention.unwrap_or(default.retention),
            max_retention: file.max_retention.unwrap_or(default.max_retention),
            max_messages: file.max_messages.unwrap_or(default.max_messages),
            max_bytes: file.max_bytes,
            require_generated_id: file.require_generated_id,
        };
        match settings.invalid_field() {
            Some((field, rule)) => Err(format!("{field} is not valid: {rule}")),
            None => Ok(settings),
        }
    }
}

impl TryFrom<Limits> for FunctionLimits {
    type Error = FunctionLimitsError;

    fn try_from(limits: Limits) -> Result<Self, FunctionLimitsError> {
        let Limits { max_inflight, weight, rate } = limits;
        let rate = rate.map(|LimitedRate { per_second, burst }| Rate { per_second, burst });
        let limits = Self { max_inflight, weight, rate };
        limits.check()?;
        Ok(limits)
    }
}

impl TryFrom<Retry> for RetryOverrides {
    type Error = RetryError;

    fn try_from(Retry { attempts, codes, min_wait, max_wait }: Retry) -> Result<Self, RetryError> {
        let wait =
            |field, text: Option<String>| text.map(|text| parse_wait(field, &text)).transpose();
        let overrides = Self {
            attempts,
            codes,
            min_wait: wait("minWait", min_wait)?,
            max_wait: wait("maxWait", max_wait)?,
        };
        overrides.check()?;
        Ok(overrides)
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::delay::DelayLimits;

    use super::*;

    fn read(yaml: &str) -> anyhow::Result<Directory> {
        parse(yaml, "openfaas-fn", &"faas-request".parse().unwrap())
    }

    #[test]
    fn file_lists_queues_and_functions() {
        let directory = read(
            "queues:\n  slow-queue:\n  other: {stream: OTHER, subject: jobs.other}\n\
             functions:\n  figlet: {queue: slow-queue, url: \"http://127.0.0.1:8081\"}\n  \
             env.dev: {}\n",
        )
        .unwrap();
        let route = |name: &str| {
            let function = FunctionName::parse(name, "openfaas-fn").unwrap();
            directory.route(&function, &"faas-request".parse().unwrap())
        };
        assert_eq!(route("figlet").subject, "slow-queue");
        assert_eq!(route("env.dev").queue.as_str(), "faas-request");
        assert!(route("env.dev").known && !route("env").known);
        assert_eq!(directory.queues[&"other".parse().unwrap()].stream, "OTHER");
        assert_eq!(read("functions: {a: {queue: faas-request}}").unwrap().functions.len(), 1);
        for nothing in ["", "queues:", "functions:", "queues:\nfunctions:\n", "{}"] {
            assert_eq!(read(nothing).unwrap(), Directory::default(), "{nothing}");
        }
        let bare = read("functions:\n  a:\n  b: {retry: }\n").unwrap();
        assert!(
            bare.functions.len() == 2
                && bare.functions.values().all(|f| *f == FunctionEntry::default())
        );
        assert_eq!(read("# nothing yet\n").unwrap(), Directory::default());
    }

    #[test]
    fn queue_has_a_longest_delay() {
        let directory = read("queues: {a: , b: {maxDelay: 1h, maxAge: 90m}}").unwrap();
        let limits = |name: &str| {
            let queue: QueueName = name.parse().unwrap();
            directory.queues[&queue].route(queue.clone()).delay
        };
        let [hour, longer] = [3600, 5400].map(Duration::from_secs);
        let expected = DelayLimits { max_delay: Some(hour), max_age: Some(longer) };
        assert_eq!((limits("a"), limits("b")), (DelayLimits::DEFAULT, expected));
    }

    #[test]
    fn function_may_override_retries() {
        let yaml = "functions:\n  a: {retry: {attempts: 3, codes: [429, 503], minWait: 1s, \
                    maxWait: 1m30s}}\n  b: {}";
        let directory = read(yaml).unwrap();
        let retry = |name: &str| {
            &directory.functions[&FunctionName::new(name, "openfaas-fn").unwrap()].retry
        };
        let expected = RetryOverrides {
            attempts: Some(3),
            codes: Some([429, 503].into()),
            min_wait: Some("1s".parse().unwrap()),
            max_wait: Some("1m30s".parse().unwrap()),
        };
        assert_eq!(*retry("a"), expected);
        assert!(retry("b").is_empty());
    }

    #[test]
    fn function_may_have_limits_in_a_queue_with_lanes() {
        let yaml = "queues: {shared: {fairness: Function}}\nfunctions:\n  a: {queue: shared, \
                    limits: {maxInflight: 10, weight: 2, rate: {perSecond: 5}}}\n  b: {}";
        let directory = read(yaml).unwrap();
        let limits = |name: &str| {
            directory.functions[&FunctionName::new(name, "openfaas-fn").unwrap()].limits
        };
        let rate = Some(Rate { per_second: 5, burst: None });
        let expected = FunctionLimits { max_inflight: Some(10), weight: Some(2), rate };
        assert_eq!((limits("a"), limits("b")), (expected, FunctionLimits::default()));
    }

    #[test]
    fn error_names_line_and_field() {
        for (yaml, expected) in [
            (
                "queues: {q: {fairness: Function}}\nfunctions:\n  a: {queue: q, limits: \
                 {maxInflight: 0}}",
                &["line 3", "functions.a.limits.maxInflight `0`", "use 1 to 1000000"][..],
            ),
            (
                "queues: {q: {fairness: Function}}\nfunctions:\n  a: {queue: q, limits: {rate: \
                 {perSecond: 1, burst: 0}}}",
                &["line 3", "functions.a.limits.rate.burst `0`", "use 1 to 100000"],
            ),
            (
                "functions:\n  a: {limits: {weight: 2}}",
                &["line 2", "functions.a.limits need `fairness: Function` in queues.faas-request"],
            ),
            ("functions:\n  a: {limits: {weigth: 2}}", &["line 2", "weigth"]),
            ("queues:\n  Slow: {}", &["line 2", "`Slow`"]),
            ("queues:\n  a: {maxDelay: 7d}", &["line 2", "`7d` is not a duration"]),
            ("queues:\n  a: {streams: x}", &["line 2", "streams"]),
            ("queues:\n  a: {stream: a.b}", &["queues.a: stream `a.b`"]),
            ("queues:\n  a: {subject: a..b}", &["queues.a: subject `a..b`"]),
            ("queues:\n  a: {subject: a.>}", &["queues.a: subject `a.>`"]),
            ("queues:\n  a: {}\n  a: {}", &["line 3", "duplicate"]),
            ("functions:\n  a.b.c: {}", &["line 2", "`a.b`"]),
            (
                "functions:\n  dns.kube-system: {}",
                &["line 2", "functions.dns.kube-system", "never called"],
            ),
            ("functions:\n  a: {queue: lost}", &["line 2", "functions.a.queue `lost`"]),
            ("functions:\n  a: {url: h}", &["line 2", "functions.a.url `h`"]),
            ("functions:\n  a: {url: \"http:/>\n\n  0\"}", &["line 2", "functions.a.url `http:/>"]),
            ("functions:\n  \"a\\nb\": {}", &["line 2", "`a b`"]),
            ("functions:\n  a: {}\n  a.openfaas-fn: {}", &["line 3", "listed twice"]),
            (
                "functions:\n  a: {url: \"https://h\"}",
                &["line 2", "functions.a.url `https://h`", "without TLS"],
            ),
            (
                "functions:\n  a: {url: \"http://{function}\"}",
                &["line 2", "functions.a.url", "placeholders"],
            ),
            (
                "functions:\n  a: {retry: {attempts: 0}}",
                &["line 2", "functions.a.retry.attempts `0`"],
            ),
            (
                "functions:\n  a: {retry: {minWait: 2m, maxWait: 1m}}",
                &["line 2", "minWait `2m` is more than"],
            ),
            (
                "queues:\n  asyncqueue: {}",
                &["queues.asyncqueue: queue name `asyncqueue` is reserved"],
            ),
            (
                "queues:\n  a: {subject: asyncqueue.x}",
                &["queues.a: subject `asyncqueue.x` is reserved"],
            ),
            (
                "queues:\n  a: {stream: S}\n  b: {stream: S}",
                &["queues.a and queues.b", "the stream `S`"],
            ),
            ("queues: {a: , a-dead: }", &["queues.a and queues.a-dead", "the stream `a-dead`"]),
            (
                "queues: {faas-request-dead: }",
                &["queues.faas-request and queues.faas-request-dead"],
            ),
            (
                "queues: {a: , b: {subject: a.b}}",
                &["queues.a and queues.b", "`a` and `a.b`, which overlap"],
            ),
            (
                "functions:\n  a: {retry: {codes: [99]}}",
                &["line 2", "functions.a.retry.codes: `99`"],
            ),
            (
                "functions:\n  a: {retry: {minWait: 10}}",
                &["line 2", "functions.a.retry.minWait `10`"],
            ),
            ("functions:\n  a: {retry: {min_wait: 1s}}", &["line 2", "min_wait"]),
            ("function: {}", &["line 1", "function"]),
            ("queues: [", &["line 1"]),
        ] {
            let error = format!("{:#}", read(yaml).unwrap_err());
            assert_eq!(error.lines().count(), 1, "{error}");
            for part in expected {
                assert!(error.contains(part), "{yaml}: {error}");
            }
        }
    }
}
