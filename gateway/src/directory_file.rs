//! The directory as a YAML file, for where no operator keeps it:
//!
//! ```yaml
//! queues:
//!   slow-queue: {}             # or with `stream` and `subject`, both the queue's name where absent
//! functions:
//!   figlet:                    # or name.namespace
//!     queue: slow-queue        # the default queue where absent
//!     url: http://figlet:8080  # from function_url where absent
//!     retry: {attempts: 3, codes: [429, 503], minWait: 1s, maxWait: 1m}   # each from the queue's workers where absent
//! ```
//!
//! It is read again when it changes. What is not valid then changes nothing: the last good one stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use asyncqueue::{
    FunctionName, GoDuration, QueueName,
    directory::{Directory, FunctionEntry, QueueEntry},
    function_namespaces::check_system,
    name::{parse_stream, parse_subject},
    retry::RetryOverrides,
};
use serde::Deserialize;
use serde_saphyr::Spanned;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{metrics::Metrics, target::BaseUrl};

/// Between two looks at the file. Its contents are compared, not its time: a `ConfigMap` changes by a change of
/// links.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    queues: BTreeMap<QueueName, Option<Queue>>,
    #[serde(default)]
    functions: BTreeMap<String, Spanned<Function>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Queue {
    stream: Option<String>,
    subject: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Function {
    queue: Option<QueueName>,
    url: Option<String>,
    #[serde(default)]
    retry: Retry,
}

/// The fields of [`RetryOverrides`], and no others: a wrong name is an error here, and not of a later version.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Retry {
    attempts: Option<NonZeroU64>,
    codes: Option<BTreeSet<u16>>,
    min_wait: Option<GoDuration>,
    max_wait: Option<GoDuration>,
}

/// A directory file, and what is needed to read it.
#[derive(Clone, Debug)]
pub struct DirectoryFile {
    /// Where it is.
    pub path: Arc<Path>,
    /// The namespace of functions named without one.
    pub namespace: String,
    /// The queue that need not be in it.
    pub default_queue: QueueName,
}

// === impl DirectoryFile ===

impl DirectoryFile {
    /// Reads the file. The error names it, the line and the field.
    pub fn read(&self) -> anyhow::Result<Directory> {
        self.parse(&self.text()?)
    }

    /// Follows the file for as long as somebody listens.
    pub async fn follow(self, directory: watch::Sender<Option<Arc<Directory>>>, metrics: Metrics) {
        let mut seen = None;
        loop {
            let this = self.clone();
            // An error is compared as a text is, so that it is said once.
            let look = tokio::task::spawn_blocking(move || this.text().map_err(|error| format!("{error:#}")));
            let Ok(text) = look.await else { return };
            if seen.as_ref() != Some(&text) {
                let read = text
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|text| self.parse(text).map_err(|error| format!("{error:#}")));
                self.apply(read, &directory, &metrics);
                seen = Some(text);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = directory.closed() => return,
            }
        }
    }

    /// Puts a directory that was read in the place of the one before, if it is another.
    fn apply(
        &self,
        read: Result<Directory, String>,
        directory: &watch::Sender<Option<Arc<Directory>>>,
        metrics: &Metrics,
    ) {
        metrics.directory_file(read.is_ok());
        match read {
            Ok(read) => {
                let (queues, functions) = (read.queues.len(), read.functions.len());
                let changed = directory.send_if_modified(|now| {
                    let changed = now.as_deref() != Some(&read);
                    *now = Some(Arc::new(read));
                    changed
                });
                if changed {
                    info!(queues, functions, "the directory was read anew from `{}`", self.path.display());
                }
            }
            Err(error) => warn!("{error}; the directory stays as it was"),
        }
    }

    fn text(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(&self.path)
            .with_context(|| format!("directory_file `{}` can't be read", self.path.display()))
    }

    fn parse(&self, text: &str) -> anyhow::Result<Directory> {
        parse(text, &self.namespace, &self.default_queue)
            .with_context(|| format!("directory_file `{}` is not valid", self.path.display()))
    }
}

/// Reads a directory. The error names line and field, and is one line, whatever the file's values hold.
pub fn parse(yaml: &str, namespace: &str, default_queue: &QueueName) -> anyhow::Result<Directory> {
    parse_values(yaml, namespace, default_queue).map_err(|error| {
        let line =
            format!("{error:#}").chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        anyhow!(line)
    })
}

fn parse_values(yaml: &str, namespace: &str, default_queue: &QueueName) -> anyhow::Result<Directory> {
    // Without the excerpt of the file, so that the error stays one line.
    let file: File = serde_saphyr::from_str(yaml).map_err(|error| anyhow!("{}", error.without_snippet()))?;
    let mut directory = Directory::default();
    for (name, queue) in file.queues {
        let Queue { stream, subject } = queue.unwrap_or_default();
        let stream = stream.unwrap_or_else(|| name.to_string());
        let subject = subject.unwrap_or_else(|| name.to_string());
        parse_stream(&stream).with_context(|| format!("queues.{name}"))?;
        parse_subject(&subject).with_context(|| format!("queues.{name}"))?;
        directory.queues.insert(name, QueueEntry::new(stream, subject));
    }
    for (name, function) in file.functions {
        let line = function.referenced.line();
        let Function { queue, url, retry } = function.value;
        let function =
            FunctionName::parse(&name, namespace).with_context(|| format!("line {line}: functions"))?;
        check_system(function.namespace()).with_context(|| format!("line {line}: functions.{name}"))?;
        if let Some(queue) =
            queue.as_ref().filter(|q| *q != default_queue && !directory.queues.contains_key(*q))
        {
            bail!("line {line}: functions.{name}.queue `{queue}` is not one of queues: add it there");
        }
        if let Some(url) = &url {
            url.parse::<BaseUrl>()
                .with_context(|| format!("line {line}: functions.{name}.url `{url}` is not valid"))?;
        }
        if let Some(code) = retry.codes.iter().flatten().find(|code| !(100..=599).contains(*code)) {
            bail!("line {line}: functions.{name}.retry.codes: `{code}` is no status of HTTP: use 100 to 599");
        }
        let entry = FunctionEntry { queue, url, retry: retry.into() };
        if directory.functions.insert(function, entry).is_some() {
            bail!("line {line}: functions.{name} is there twice, with and without its namespace");
        }
    }
    Ok(directory)
}

impl From<Retry> for RetryOverrides {
    fn from(Retry { attempts, codes, min_wait, max_wait }: Retry) -> Self {
        Self { attempts: attempts.map(NonZeroU64::get), codes, min_wait, max_wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> anyhow::Result<Directory> {
        parse(yaml, "openfaas-fn", &"faas-request".parse().unwrap())
    }

    #[test]
    fn a_file_names_queues_and_functions() {
        let directory = read(
            "queues:\n  slow-queue:\n  other: {stream: OTHER, subject: jobs.other}\n\
             functions:\n  figlet: {queue: slow-queue, url: \"http://127.0.0.1:8081\"}\n  env.dev: {}\n",
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
        assert_eq!(read("").unwrap(), Directory::default());
        assert_eq!(read("# nothing yet\n").unwrap(), Directory::default());
    }

    #[test]
    fn a_function_has_retries_of_its_own() {
        let yaml = "functions:\n  a: {retry: {attempts: 3, codes: [429, 503], minWait: 1s, maxWait: 1m30s}}\n  b: {}";
        let directory = read(yaml).unwrap();
        let retry = |name: &str| &directory.functions[&FunctionName::new(name, "openfaas-fn").unwrap()].retry;
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
    fn what_is_wrong_is_named_with_its_line_and_field() {
        for (yaml, expected) in [
            ("queues:\n  Slow: {}", &["line 2", "`Slow`"][..]),
            ("queues:\n  a: {streams: x}", &["line 2", "streams"]),
            ("queues:\n  a: {stream: a.b}", &["queues.a: stream `a.b`"]),
            ("queues:\n  a: {subject: a..b}", &["queues.a: subject `a..b`"]),
            ("queues:\n  a: {subject: a.>}", &["queues.a: subject `a.>`"]),
            ("queues:\n  a: {}\n  a: {}", &["line 3", "duplicate"]),
            ("functions:\n  a.b.c: {}", &["line 2", "`a.b`"]),
            ("functions:\n  dns.kube-system: {}", &["line 2", "functions.dns.kube-system", "never called"]),
            ("functions:\n  a: {queue: lost}", &["line 2", "functions.a.queue `lost`"]),
            ("functions:\n  a: {url: h}", &["line 2", "functions.a.url `h`"]),
            ("functions:\n  a: {url: \"http:/>\n\n  0\"}", &["line 2", "functions.a.url `http:/>"]),
            ("functions:\n  \"a\\nb\": {}", &["line 2", "`a b`"]),
            ("functions:\n  a: {}\n  a.openfaas-fn: {}", &["line 3", "twice"]),
            ("functions:\n  a: {retry: {attempts: 0}}", &["line 2", "nonzero"]),
            ("functions:\n  a: {retry: {codes: [99]}}", &["line 2", "functions.a.retry.codes", "`99`"]),
            ("functions:\n  a: {retry: {minWait: 10}}", &["line 2", "`10` is not a duration"]),
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
