//! Keeps the directory: writes what the watches have seen of functions and queues to the KV bucket
//! that gateways and workers follow.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use asyncqueue::{
    QueueName,
    directory::{Contents, Directory, store::DirectoryStore},
    function_namespaces::FunctionNamespaces,
    kv::BucketError,
};
use asyncqueue_runtime::health::Health;
use k8s_openapi::api::core::v1::Service;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    broker::{Address, Brokers},
    crd::AsyncQueue,
    error::chain,
    events::Events,
    functions::{self, Admission, Counts, Fault, Functions, Why},
    metrics::Metrics,
    openfaas,
    watch::Stores,
    workload::Workload,
};

/// The readiness condition.
const CONDITION: &str = "directory";

/// Changes come in bursts: those within this time are written together.
const SETTLE: Duration = Duration::from_millis(200);

/// With many functions and queues, changes are collected this many times as long as it takes to
/// process them.
const REST: u32 = 10;

/// Interval at which the bucket is checked without a change, since it may have been deleted.
const RESYNC: Duration = Duration::from_secs(30);

/// Pause between attempts while NATS is unavailable.
const RETRY: Duration = Duration::from_secs(2);

/// How long a function may name a missing queue before this is reported: both may come from one
/// `kubectl apply`.
const GRACE: Duration = Duration::from_secs(5);

/// Reason of the event on a function that names a queue which does not exist, or is on another
/// NATS.
const QUEUE_NOT_FOUND: &str = "QueueNotFound";

/// Reason of the event on a function that names a queue which does not admit it.
const QUEUE_REFUSED: &str = "QueueRefused";

/// Reason of the event on a function whose namespace is never called.
const NAMESPACE_REFUSED: &str = "NamespaceRefused";

/// Reason of the event on a function with an annotation that can't be read.
const ANNOTATION_INVALID: &str = "AnnotationInvalid";

/// Reason of the event on a headless Service whose target port is a name without a number.
const PORT_UNKNOWN: &str = "PortUnknown";

/// Keeps the directory.
pub(crate) struct Librarian {
    pub(crate) brokers: Arc<Brokers>,
    pub(crate) queues: Stores<AsyncQueue>,
    pub(crate) deployments: Stores<Workload>,
    pub(crate) services: Stores<Service>,
    pub(crate) functions: Stores<openfaas::Function>,
    pub(crate) default_queue: Option<QueueName>,
    pub(crate) namespaces: FunctionNamespaces,
    /// Contents of the KV bucket; `None` until they have been read.
    pub(crate) written: watch::Receiver<Option<Contents>>,
    pub(crate) counts: watch::Sender<Option<Counts>>,
    pub(crate) events: Events,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
}

/// The KV bucket.
struct Bucket {
    /// Its contents; `None` until they have been read.
    written: watch::Receiver<Option<Contents>>,
    /// Time at which the bucket was last seen.
    ensured: Option<Instant>,
}

/// The faults of functions, each reported once.
#[derive(Debug, Default)]
struct Complaints {
    known: HashMap<Fault, Complaint>,
}

#[derive(Debug)]
struct Complaint {
    since: Instant,
    made: bool,
}

// === impl Librarian ===

impl Librarian {
    /// Keeps the directory for as long as it is polled. `changed` is notified when the watches see
    /// a change.
    pub(crate) async fn run(self, changed: Arc<Notify>) {
        self.health.register(CONDITION, "not written yet");
        // Before the caches are complete, functions that are missing in them would be removed from
        // the directory.
        tokio::join!(
            self.queues.complete(),
            self.deployments.complete(),
            self.services.complete(),
            self.functions.complete(),
        );
        let mut complaints = Complaints::default();
        let mut bucket = Bucket { written: self.written.clone(), ensured: None };
        loop {
            let begun = Instant::now();
            let (directory, replicas) = self.look(&mut complaints).await;
            let settle = SETTLE.max(begun.elapsed() * REST);
            let kept = self.keep(&mut bucket, &directory, replicas).await;
            let directory = bucket.share(directory);
            let pause = if !kept {
                RETRY
            } else if complaints.pending() {
                GRACE
            } else {
                RESYNC
            };
            tokio::select! {
                () = changed.notified() => sleep(settle).await,
                // Another program has written to the bucket.
                Ok(_) = bucket.written.wait_for(|written| !is_kept(written.as_ref(), &directory)), if kept => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Returns the desired directory and its number of copies. Reports faults of functions, and
    /// closes the connections to the NATS of deleted queues.
    async fn look(&self, complaints: &mut Complaints) -> (Directory, i32) {
        let (functions, queues) = (self.functions(), self.queues.all());
        let queues = || queues.iter().map(AsRef::as_ref);
        let default_queue = self.default_queue.as_ref();
        let admission = Admission::new(&self.namespaces, default_queue, queues());
        let directory = functions::directory(&functions, queues(), &admission);
        let counts = functions::count(&directory, default_queue, &functions, &admission);
        self.counts.send_replace(Some(counts));
        let faults = functions::faults(&functions, queues(), &admission);
        let faults = complaints.due(faults, Instant::now());
        self.complain(&functions, &faults).await;
        self.brokers.retain(&queues().filter_map(Address::of).collect()).await;
        (directory, most_replicas(queues()))
    }

    fn functions(&self) -> Functions {
        let (services, deployments) = (self.services.all(), self.deployments.all());
        let functions = self.functions.all();
        functions::index(
            services.iter().map(AsRef::as_ref),
            deployments.iter().map(AsRef::as_ref),
            functions.iter().map(AsRef::as_ref),
        )
    }

    /// Brings the bucket to the directory if it differs. Returns whether that succeeded. All
    /// buckets have at least this many `replicas`: as many as the stream of a queue has at most.
    async fn keep(&self, bucket: &mut Bucket, directory: &Directory, replicas: i32) -> bool {
        match self.try_keep(bucket, directory, usize::try_from(replicas).unwrap_or(1)).await {
            Ok(changes) => {
                if changes > 0 {
                    let (functions, queues) = (directory.functions.len(), directory.queues.len());
                    info!(changes, functions, queues, "wrote the directory");
                }
                self.metrics.directory_changes(changes);
                self.health.ready(CONDITION);
                true
            }
            Err(why) => {
                self.metrics.directory_error();
                self.health.not_ready(CONDITION, why);
                false
            }
        }
    }

    async fn try_keep(
        &self,
        bucket: &mut Bucket,
        directory: &Directory,
        replicas: usize,
    ) -> Result<usize, String> {
        if !self.brokers.own().is_connected() {
            return Err("waits for NATS".to_owned());
        }
        self.write(bucket, directory, replicas).await.map_err(|error| {
            let why = chain(&error);
            warn!("the directory could not be written, and will be tried again: {why}");
            why
        })
    }

    async fn write(
        &self,
        bucket: &mut Bucket,
        directory: &Directory,
        replicas: usize,
    ) -> Result<usize, BucketError> {
        let js = &self.brokers.own().js;
        if bucket.ensured.is_none_or(|at| at.elapsed() >= RESYNC) {
            self.brokers.own().ensure_buckets(replicas).await?;
            bucket.ensured = Some(Instant::now());
        }
        let read = timeout(RETRY, bucket.written.wait_for(Option::is_some)).await;
        let written = read.ok().and_then(Result::ok).and_then(|written| written.clone());
        let changes = match written {
            Some(written) if is_kept(Some(&written), directory) => return Ok(0),
            Some(written) => {
                DirectoryStore::open(js, replicas).await?.update(&written, directory).await?
            }
            None => DirectoryStore::open(js, replicas).await?.sync(directory).await?,
        };
        // Without this wait, the same changes would be written again.
        let seen = bucket.written.wait_for(|written| is_kept(written.as_ref(), directory));
        if timeout(RETRY, seen).await.is_err() {
            bucket.ensured = None;
        }
        Ok(changes)
    }

    async fn complain(&self, functions: &Functions, faults: &[Fault]) {
        let default =
            self.default_queue.as_ref().map_or("the gateway's default queue", QueueName::as_str);
        for Fault { function, why } in faults {
            let Some(found) = functions.get(function) else { continue };
            let (reason, note) = match why {
                Why::Missing(queue) => (
                    QUEUE_NOT_FOUND,
                    format!(
                        "com.openfaas.queue names `{queue}`, and there is no AsyncQueue of that name: calls go to {default}"
                    ),
                ),
                Why::Elsewhere(queue) => (
                    QUEUE_NOT_FOUND,
                    format!(
                        "com.openfaas.queue names `{queue}`, and that AsyncQueue is on another NATS than the gateway, by its \
                     spec.nats.url: calls go to {default}"
                    ),
                ),
                Why::NotAdmitted(queue) => (
                    QUEUE_REFUSED,
                    format!(
                        "The AsyncQueue {queue} does not take calls of functions in this namespace: they go to {default}. Add \
                         the namespace to its spec.functions.namespaces."
                    ),
                ),
                Why::Namespace(refused) => (NAMESPACE_REFUSED, refused.to_string()),
                Why::Unread(annotation) => (
                    ANNOTATION_INVALID,
                    format!("{annotation} can't be read: its queue's own counts"),
                ),
                Why::NamedTargetPort(name) => (
                    PORT_UNKNOWN,
                    format!(
                        "The Service of this function is headless and its targetPort `{name}` is a name, whose number only \
                         its pods know: calls go to its port. Give targetPort a number, or the Service a cluster IP."
                    ),
                ),
            };
            warn!(%function, "{note}");
            self.events.warning(&found.object, reason, note).await;
        }
    }
}

/// Returns the highest number of replicas that the stream of a queue on the operator's own NATS
/// has.
pub(crate) fn most_replicas<'a>(queues: impl IntoIterator<Item = &'a AsyncQueue>) -> i32 {
    let here = queues.into_iter().filter(|queue| queue.spec.nats.url.is_none());
    here.map(|queue| queue.spec.stream.replicas).max().unwrap_or(1)
}

/// Returns whether the bucket contains exactly a directory, and is read completely.
fn is_kept(written: Option<&Contents>, directory: &Directory) -> bool {
    written.is_some_and(|written| written.is_complete && *written.directory == *directory)
}

// === impl Bucket ===

impl Bucket {
    /// Shares the directory in the bucket if it is equal, so that it is not kept twice.
    fn share(&self, directory: Directory) -> Arc<Directory> {
        let written = self.written.borrow().as_ref().map(|written| written.directory.clone());
        written.filter(|written| **written == directory).unwrap_or_else(|| Arc::new(directory))
    }
}

// === impl Complaints ===

impl Complaints {
    /// Returns the faults to report now, given all that exist.
    fn due(&mut self, faults: Vec<Fault>, now: Instant) -> Vec<Fault> {
        let faults: HashSet<Fault> = faults.into_iter().collect();
        self.known.retain(|known, _| faults.contains(known));
        let mut due = Vec::new();
        for fault in faults {
            let complaint =
                self.known.entry(fault.clone()).or_insert(Complaint { since: now, made: false });
            if !complaint.made && now.duration_since(complaint.since) >= GRACE {
                complaint.made = true;
                due.push(fault);
            }
        }
        due.sort();
        due
    }

    /// Returns whether faults remain to be reported if nothing changes.
    fn pending(&self) -> bool {
        self.known.values().any(|complaint| !complaint.made)
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::FunctionName;

    use super::*;
    use crate::fixtures;

    #[test]
    fn replicas_of_queues_elsewhere_do_not_count_here() {
        let (mut here, mut elsewhere) = (fixtures::queue("here"), fixtures::queue("elsewhere"));
        assert_eq!(most_replicas([]), 1);
        elsewhere.spec.nats.url = Some("nats://elsewhere".to_owned());
        elsewhere.spec.stream.replicas = 3;
        assert_eq!(most_replicas([&here, &elsewhere]), 1);
        here.spec.stream.replicas = 3;
        assert_eq!(most_replicas([&here, &elsewhere]), 3);
    }

    #[test]
    fn a_lost_function_is_told_of_once_and_not_at_once() {
        let lost = || Fault {
            function: FunctionName::new("f", "ns").unwrap(),
            why: Why::Missing("q".to_owned()),
        };
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.due(vec![lost()], start), []);
        assert!(complaints.pending());
        assert_eq!(complaints.due(vec![lost()], start + GRACE), [lost()]);
        assert!(!complaints.pending());
        assert_eq!(complaints.due(vec![lost()], start + 2 * GRACE), []);
        // A fault that was repaired and comes back is reported again.
        assert_eq!(complaints.due(vec![], start + 3 * GRACE), []);
        assert_eq!(complaints.due(vec![lost()], start + 4 * GRACE), []);
        assert_eq!(complaints.due(vec![lost()], start + 5 * GRACE), [lost()]);
    }
}
