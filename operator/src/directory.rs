//! Keeps the directory: what the watches have seen of functions and queues, in the KV bucket that gateways and
//! workers follow.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use asyncqueue::{
    QueueName,
    bucket::BucketError,
    directory::{Directory, store::DirectoryStore},
    ensure::ensure_buckets,
};
use asyncqueue_runtime::health::Health;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
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
    functions::{self, Counts, Functions, Lost, Why},
    metrics::Metrics,
    watch::Stores,
};

/// The readiness condition.
const CONDITION: &str = "directory";

/// Changes come in bursts: those within this time are written as one.
const SETTLE: Duration = Duration::from_millis(200);

/// Without a change, look this often whether the bucket still says what it shall, which somebody may have changed.
const RESYNC: Duration = Duration::from_secs(30);

/// Between attempts while NATS is away.
const RETRY: Duration = Duration::from_secs(2);

/// How long a function may name a queue that isn't there before it is told: both may come from one `kubectl apply`.
const GRACE: Duration = Duration::from_secs(5);

/// The event's reason.
const QUEUE_NOT_FOUND: &str = "QueueNotFound";

/// Keeps the directory.
pub(crate) struct Librarian {
    pub(crate) brokers: Arc<Brokers>,
    pub(crate) queues: Stores<AsyncQueue>,
    pub(crate) deployments: Stores<Deployment>,
    pub(crate) services: Stores<Service>,
    pub(crate) default_queue: Option<QueueName>,
    pub(crate) counts: watch::Sender<Option<Counts>>,
    pub(crate) events: Events,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
}

/// The functions that name no queue, each complained about once.
#[derive(Debug, Default)]
struct Complaints {
    known: HashMap<Lost, Complaint>,
}

#[derive(Debug)]
struct Complaint {
    since: Instant,
    made: bool,
}

// === impl Librarian ===

impl Librarian {
    /// Keeps the directory for as long as it is polled. `changed` tells of what the watches see.
    pub(crate) async fn run(self, changed: Arc<Notify>) {
        self.health.register(CONDITION, "not written yet");
        // Before all is known, what is missing in the caches would be removed from the directory.
        tokio::join!(self.queues.complete(), self.deployments.complete(), self.services.complete());
        let mut complaints = Complaints::default();
        let mut written: Option<(Directory, Instant)> = None;
        loop {
            let (functions, queues) = (self.functions(), self.queues.all());
            let queues = || queues.iter().map(AsRef::as_ref);
            let directory = functions::directory(&functions, queues());
            self.counts.send_replace(Some(functions::count(&directory, self.default_queue.as_ref())));
            let lost = complaints.due(functions::lost(&functions, queues()), Instant::now());
            self.complain(&functions, &lost).await;
            self.brokers.retain(&queues().filter_map(Address::of).collect()).await;

            let current =
                written.as_ref().is_some_and(|(last, at)| *last == directory && at.elapsed() < RESYNC);
            if !current {
                let replicas = queues().map(|queue| queue.spec.stream.replicas).max().unwrap_or(1);
                written = self.write(directory, replicas).await;
            }
            let pause = if written.is_none() {
                RETRY
            } else if complaints.pending() {
                GRACE
            } else {
                RESYNC
            };
            if timeout(pause, changed.notified()).await.is_ok() {
                sleep(SETTLE).await;
            }
        }
    }

    fn functions(&self) -> Functions {
        let (deployments, services) = (self.deployments.all(), self.services.all());
        functions::index(deployments.iter().map(AsRef::as_ref), services.iter().map(AsRef::as_ref))
    }

    /// Writes the directory, and returns it if that went well. `replicas` is for a bucket that isn't there yet: as
    /// many copies as the best-kept queue.
    async fn write(&self, directory: Directory, replicas: i32) -> Option<(Directory, Instant)> {
        match self.try_write(&directory, replicas).await {
            Ok(changes) => {
                if changes > 0 {
                    let (functions, queues) = (directory.functions.len(), directory.queues.len());
                    info!(changes, functions, queues, "wrote the directory");
                }
                self.metrics.directory_changes(changes);
                self.health.ready(CONDITION);
                Some((directory, Instant::now()))
            }
            Err(why) => {
                self.metrics.directory_error();
                self.health.not_ready(CONDITION, why);
                None
            }
        }
    }

    async fn try_write(&self, directory: &Directory, replicas: i32) -> Result<usize, String> {
        let own = self.brokers.own();
        if !own.is_connected() {
            return Err("waits for NATS".to_owned());
        }
        let written: Result<usize, BucketError> = async {
            let replicas = usize::try_from(replicas).unwrap_or(1);
            ensure_buckets(&own.js, replicas).await?;
            DirectoryStore::open(&own.js, replicas).await?.sync(directory).await
        }
        .await;
        written.map_err(|error| {
            let why = chain(&error);
            warn!("the directory could not be written, and will be tried again: {why}");
            why
        })
    }

    async fn complain(&self, functions: &Functions, lost: &[Lost]) {
        for Lost { function, queue, why } in lost {
            let Some(found) = functions.get(function) else { continue };
            let default =
                self.default_queue.as_ref().map_or("the gateway's default queue", QueueName::as_str);
            let problem = match why {
                Why::Missing => "there is no AsyncQueue of that name",
                Why::Elsewhere => "that AsyncQueue is on another NATS than the gateway, by its spec.nats.url",
            };
            let note = format!("com.openfaas.queue names `{queue}`, and {problem}: calls go to {default}");
            warn!(%function, "{note}");
            self.events.warning(&found.object, QUEUE_NOT_FOUND, note).await;
        }
    }
}

// === impl Complaints ===

impl Complaints {
    /// What to complain about now, given all that is wrong.
    fn due(&mut self, lost: Vec<Lost>, now: Instant) -> Vec<Lost> {
        let lost: HashSet<Lost> = lost.into_iter().collect();
        self.known.retain(|known, _| lost.contains(known));
        let mut due = Vec::new();
        for lost in lost {
            let complaint = self.known.entry(lost.clone()).or_insert(Complaint { since: now, made: false });
            if !complaint.made && now.duration_since(complaint.since) >= GRACE {
                complaint.made = true;
                due.push(lost);
            }
        }
        due.sort();
        due
    }

    /// Whether there will be something to complain about if nothing changes.
    fn pending(&self) -> bool {
        self.known.values().any(|complaint| !complaint.made)
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::FunctionName;

    use super::*;

    #[test]
    fn a_lost_function_is_told_of_once_and_not_at_once() {
        let lost = || Lost {
            function: FunctionName::new("f", "ns").unwrap(),
            queue: "q".to_owned(),
            why: Why::Missing,
        };
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.due(vec![lost()], start), []);
        assert!(complaints.pending());
        assert_eq!(complaints.due(vec![lost()], start + GRACE), [lost()]);
        assert!(!complaints.pending());
        assert_eq!(complaints.due(vec![lost()], start + 2 * GRACE), []);
        // Found and lost again is another case.
        assert_eq!(complaints.due(vec![], start + 3 * GRACE), []);
        assert_eq!(complaints.due(vec![lost()], start + 4 * GRACE), []);
        assert_eq!(complaints.due(vec![lost()], start + 5 * GRACE), [lost()]);
    }
}
