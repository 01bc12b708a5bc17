//! Publishes the directory: writes what the watches have seen of functions and queues to the KV
//! bucket that gateways and workers follow.

use std::{
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
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    FunctionIndex,
    admission::Admission,
    directory::{self, FunctionCounts},
    issues::{FunctionIssue, IssueReporter, REPORT_DELAY, find_issues},
    sources::FunctionSources,
};
use crate::{
    cache::watch::MultiStore,
    crd::AsyncQueue,
    error::chain,
    events::Events,
    lane_limits::LaneStates,
    metrics::Metrics,
    nats::connections::{NatsEndpoint, NatsPool, max_replicas},
};

/// The readiness condition.
const CONDITION: &str = "directory";

/// Changes come in bursts: those within this time are written together.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// With many functions and queues, changes are collected this many times as long as it takes to
/// process them.
const MIN_IDLE_FACTOR: u32 = 10;

/// Interval at which the bucket is checked without a change, since it may have been deleted.
const RESYNC_INTERVAL: Duration = Duration::from_secs(30);

/// Delay between attempts while NATS is unavailable, and time limit of waiting for the watch of the
/// bucket.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Publishes the directory.
pub(crate) struct DirectoryPublisher {
    pub(crate) pool: Arc<NatsPool>,
    pub(crate) queues: MultiStore<AsyncQueue>,
    pub(crate) sources: FunctionSources,
    pub(crate) default_queue: Option<QueueName>,
    pub(crate) namespaces: FunctionNamespaces,
    /// Contents of the KV bucket; `None` until they have been read.
    pub(crate) contents: watch::Receiver<Option<Contents>>,
    /// Receives why the directory can't be written; `None` when it was.
    pub(crate) failure: watch::Sender<Option<String>>,
    /// Receives how many functions each queue has.
    pub(crate) counts: watch::Sender<Option<FunctionCounts>>,
    pub(crate) lanes: Arc<LaneStates>,
    pub(crate) events: Events,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
}

/// The KV bucket.
struct Bucket {
    /// Its contents; `None` until they have been read.
    contents: watch::Receiver<Option<Contents>>,
    /// Time at which the bucket was last ensured.
    ensured: Option<Instant>,
}

/// What follows from the functions and the queues.
struct Computed {
    directory: Directory,
    counts: FunctionCounts,
    issues: Vec<FunctionIssue>,
}

// === impl DirectoryPublisher ===

impl DirectoryPublisher {
    /// Publishes the directory for as long as it is polled. `changed` is notified when the watches
    /// see a change.
    pub(crate) async fn run(self, changed: Arc<Notify>) {
        self.health.register(CONDITION, "not written yet");
        // Before the caches are complete, functions that are missing in them would be removed from
        // the directory.
        tokio::join!(self.queues.wait_until_ready(), self.sources.wait_until_ready());
        let mut reporter = IssueReporter::new(self.events.clone(), self.default_queue.as_ref());
        let mut bucket = Bucket { contents: self.contents.clone(), ensured: None };
        loop {
            let started = Instant::now();
            let (functions, queues) = (self.sources.index(), self.queues.all());
            let Computed { directory, counts, issues } = self.compute(&functions, &queues);
            // Only work counts, not what waits for a server.
            let debounce = DEBOUNCE.max(started.elapsed() * MIN_IDLE_FACTOR);
            reporter.report(&functions, issues).await;
            drop(functions);
            let endpoints =
                queues.iter().filter_map(|queue| NatsEndpoint::from_queue(queue)).collect();
            self.pool.close_unused(&endpoints).await;
            let replicas = max_replicas(queues.iter().map(AsRef::as_ref));
            drop(queues);
            let is_published = self.publish(&mut bucket, &directory, replicas).await;
            // The status has a function when gateways can know it. At the start, while NATS is
            // unavailable, it keeps its number.
            if is_published || self.counts.borrow().is_none() {
                self.counts.send_replace(Some(counts));
            }
            let directory = bucket.dedup(directory);
            let pause = if !is_published {
                RETRY_DELAY
            } else if reporter.has_pending() {
                REPORT_DELAY
            } else {
                RESYNC_INTERVAL
            };
            let differs = |contents: &Option<Contents>| !contains(contents.as_ref(), &directory);
            tokio::select! {
                () = changed.notified() => sleep(debounce).await,
                // Another program has written to the bucket.
                Ok(_) = bucket.contents.wait_for(differs), if is_published => {}
                () = sleep(pause) => {}
            }
        }
    }

    fn compute(&self, functions: &FunctionIndex, queues: &[Arc<AsyncQueue>]) -> Computed {
        let queues = || queues.iter().map(AsRef::as_ref);
        let default_queue = self.default_queue.as_ref();
        let admission = Admission::new(&self.namespaces, default_queue, queues());
        let directory = directory::directory(functions, queues(), &admission, self.lanes.max_own());
        let counts = directory::count(&directory, default_queue, functions, &admission);
        let issues = find_issues(functions, queues(), &directory, default_queue, &admission);
        Computed { directory, counts, issues }
    }

    /// Updates the bucket to the directory if it differs. Returns whether that succeeded. All
    /// buckets have at least this many `replicas`.
    async fn publish(&self, bucket: &mut Bucket, directory: &Directory, replicas: usize) -> bool {
        match self.try_publish(bucket, directory, replicas).await {
            Ok(changes) => {
                if changes > 0 {
                    let (functions, queues) = (directory.functions.len(), directory.queues.len());
                    info!(changes, functions, queues, "published the directory");
                }
                self.metrics.directory_changes(changes);
                self.failure.send_replace(None);
                self.health.ready(CONDITION);
                true
            }
            Err(reason) => {
                self.metrics.directory_error();
                self.failure.send_replace(Some(reason.clone()));
                self.health.not_ready(CONDITION, reason);
                false
            }
        }
    }

    async fn try_publish(
        &self,
        bucket: &mut Bucket,
        directory: &Directory,
        replicas: usize,
    ) -> Result<usize, String> {
        if !self.pool.own().is_connected() {
            return Err("waiting for NATS".to_owned());
        }
        self.write(bucket, directory, replicas).await.map_err(|error| {
            let error = chain(&error);
            warn!("failed to publish the directory, retrying: {error}");
            error
        })
    }

    async fn write(
        &self,
        bucket: &mut Bucket,
        directory: &Directory,
        replicas: usize,
    ) -> Result<usize, BucketError> {
        let js = &self.pool.own().js;
        if bucket.ensured.is_none_or(|at| at.elapsed() >= RESYNC_INTERVAL) {
            self.pool.own().ensure_buckets(replicas).await?;
            bucket.ensured = Some(Instant::now());
        }
        let read = timeout(RETRY_DELAY, bucket.contents.wait_for(Option::is_some)).await;
        let contents = read.ok().and_then(Result::ok).and_then(|contents| contents.clone());
        let changes = match contents {
            Some(contents) if contains(Some(&contents), directory) => return Ok(0),
            Some(contents) => {
                DirectoryStore::open(js, replicas).await?.update(&contents, directory).await?
            }
            None => DirectoryStore::open(js, replicas).await?.sync(directory).await?,
        };
        // Wait until the watch shows the write. Otherwise the same changes would be written again.
        let shown = bucket.contents.wait_for(|contents| contains(contents.as_ref(), directory));
        if timeout(RETRY_DELAY, shown).await.is_err() {
            bucket.ensured = None;
        }
        Ok(changes)
    }
}

/// Returns whether the bucket was read completely and contains exactly this directory.
fn contains(contents: Option<&Contents>, directory: &Directory) -> bool {
    contents.is_some_and(|contents| contents.is_complete && *contents.directory == *directory)
}

// === impl Bucket ===

impl Bucket {
    /// Returns the directory of the bucket if it is equal, so that it is not in memory twice.
    fn dedup(&self, directory: Directory) -> Arc<Directory> {
        let known = self.contents.borrow().as_ref().map(|contents| contents.directory.clone());
        known.filter(|known| **known == directory).unwrap_or_else(|| Arc::new(directory))
    }
}
