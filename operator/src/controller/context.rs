//! What all reconciliations share, and the changes that trigger them.

use std::{sync::Arc, time::Duration};

use asyncqueue::QueueName;
use futures::Stream;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt, runtime::watcher::Event};
use tokio::sync::watch;

use super::{applied::AppliedCache, expectations::PendingWrites};
use crate::{
    cache::{
        deployment::CachedDeployment, disruption_budget::CachedDisruptionBudget,
        service_account::CachedServiceAccount, watch::MultiStore,
    },
    crd::AsyncQueue,
    events::Events,
    functions::{
        directory::{FunctionCounts, RefusedFunctions},
        published::PublishedDirectory,
    },
    lane_limits::LaneStates,
    metrics::Metrics,
    nats::connections::NatsPool,
    pods::{self, Diagnosis, PodWatch, UnreadyPods, WorkerPod, revision::Revision},
    worker_defaults::WorkerDefaults,
};

/// Delay between two reconciliations of a queue that is not yet in its desired state.
pub(super) const RETRY_DELAY: Duration = Duration::from_secs(5);

/// State that all reconciliations share.
pub(crate) struct Context {
    /// Client of the Kubernetes API.
    pub(crate) client: Client,
    /// Connections to NATS.
    pub(crate) nats_pool: Arc<NatsPool>,
    /// All `AsyncQueues`.
    pub(crate) queues: MultiStore<AsyncQueue>,
    /// All Deployments.
    pub(crate) deployments: MultiStore<CachedDeployment>,
    /// The `ServiceAccounts` of workers.
    pub(crate) accounts: MultiStore<CachedServiceAccount>,
    /// The `PodDisruptionBudgets` of workers.
    pub(crate) budgets: MultiStore<CachedDisruptionBudget>,
    /// The pods of workers. They are used only to find causes: all else works without the
    /// permission to watch them.
    pub(crate) pod_watches: MultiStore<WorkerPod>,
    /// The pods of workers that are not ready.
    pub(crate) pods: Arc<UnreadyPods>,
    /// What was applied to the objects of queues.
    pub(crate) applied: AppliedCache,
    /// What was written to queues and is not yet seen by the watch.
    pub(crate) pending_writes: PendingWrites,
    /// Number of functions of each queue; `None` until it is known.
    pub(crate) functions: watch::Receiver<Option<FunctionCounts>>,
    /// The lanes of queues.
    pub(crate) lanes: Arc<LaneStates>,
    /// What is in the directory.
    pub(crate) directory: PublishedDirectory,
    /// Settings that all queues have in common.
    pub(crate) worker_defaults: WorkerDefaults,
    /// Publisher of events.
    pub(crate) events: Events,
    /// Metrics of the operator.
    pub(crate) metrics: Metrics,
}

/// The events from the watch of one kind of objects.
pub(crate) trait Changes<K>: Stream<Item = Event<K>> + Send + 'static {}

impl<K, S: Stream<Item = Event<K>> + Send + 'static> Changes<K> for S {}

/// The changes of the Kubernetes objects that are created for queues.
pub(crate) struct Owned<D, A, B, P> {
    pub(crate) deployments: D,
    pub(crate) accounts: A,
    pub(crate) budgets: B,
    /// The pods of workers, and what processes their events.
    pub(crate) pods: P,
    pub(crate) pod_watch: PodWatch,
}

// === impl Context ===

impl Context {
    /// Waits until all watches have listed everything.
    pub(crate) async fn complete(&self) {
        tokio::join!(
            self.queues.wait_until_ready(),
            self.deployments.wait_until_ready(),
            self.accounts.wait_until_ready(),
            self.budgets.wait_until_ready(),
            self.pod_watches.wait_until_ready(),
        );
    }

    /// Finds why a queue's workers do not start. Reads the events of a pod where only they may name
    /// the cause.
    pub(super) async fn diagnose_pods(
        &self,
        queue: &AsyncQueue,
        revision: Option<Revision>,
    ) -> Diagnosis {
        let key: pods::Key =
            (queue.namespace().unwrap_or_default().into(), queue.name_any().into());
        let diagnosis = self.pods.diagnose(&key, revision, Timestamp::now());
        let Some(pod) = diagnosis.unexplained else { return diagnosis };
        let now = std::time::Instant::now();
        if !self.pods.may_read_events(now) {
            return Diagnosis {
                check_after: diagnosis.check_after.or(Some(RETRY_DELAY)),
                ..diagnosis
            };
        }
        let cause = pods::events::read_cause(&self.client, &key.0, pod).await;
        self.pods.record_event_cause(&key, pod, cause, now);
        self.pods.diagnose(&key, revision, Timestamp::now())
    }

    /// Returns the number of functions that send their calls to a queue, if it is known.
    pub(crate) fn functions_of(&self, queue: &QueueName) -> Option<usize> {
        let counts = self.functions.borrow();
        counts.as_ref().map(|counts| counts.get(queue).map_or(0, |count| count.functions))
    }

    /// Returns the functions that name a queue and are not admitted to it.
    pub(crate) fn refused_of(&self, queue: &QueueName) -> RefusedFunctions {
        let counts = self.functions.borrow();
        let count = counts.as_ref().and_then(|counts| counts.get(queue));
        count.map(|count| count.refused.clone()).unwrap_or_default()
    }
}
