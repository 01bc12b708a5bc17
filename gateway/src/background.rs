//! The tasks that run in the background while the gateway serves requests.

use std::sync::Arc;

use async_nats::jetstream;
use asyncqueue::{
    QueueName,
    directory::{self, Directory},
    reserve,
};
use asyncqueue_runtime::{health::Health, nats};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    directory_source::DirectorySource, metrics::Metrics, provisioner, readiness,
    unknown_functions::UnknownFunctions,
};

/// The tasks. They stop when this value is dropped.
#[derive(Debug)]
pub(crate) struct BackgroundTasks {
    tasks: JoinSet<()>,
    js: jetstream::Context,
    health: Health,
}

// === impl BackgroundTasks ===

impl BackgroundTasks {
    /// Creates an empty set of tasks, which use this context and report to `health`.
    pub(crate) fn new(js: jetstream::Context, health: Health) -> Self {
        Self { tasks: JoinSet::new(), js, health }
    }

    /// Reports if JetStream is not enabled. `servers` are the NATS URLs for the message.
    pub(crate) fn report_jetstream(&mut self, servers: String) {
        let (client, health) = (self.js.client(), self.health.clone());
        self.tasks
            .spawn(async move { nats::jetstream_check::report(&client, &servers, &health).await });
    }

    /// Watches the directory. Its value is `None` until it was read for the first time.
    pub(crate) fn watch_directory(
        &mut self,
        source: DirectorySource,
        metrics: &Metrics,
    ) -> watch::Receiver<Option<Arc<Directory>>> {
        match source {
            DirectorySource::Operator => {
                readiness::register_directory(&self.health);
                let directory = directory::watch::watch(self.js.clone());
                self.tasks.spawn(readiness::track_directory_readiness(
                    directory.clone(),
                    self.health.clone(),
                ));
                directory
            }
            DirectorySource::File(file, directory) => {
                let (sender, directory) = watch::channel(Some(Arc::new(directory)));
                self.tasks.spawn(file.watch(sender, metrics.clone(), self.health.clone()));
                directory
            }
            DirectorySource::Empty => watch::channel(Some(Arc::default())).1,
        }
    }

    /// Watches whether the NATS store is full, except for the reserve that ends calls.
    pub(crate) fn watch_reserve(&mut self) -> watch::Receiver<bool> {
        let js = self.js.clone();
        let (store_full, is_store_full) = watch::channel(false);
        self.tasks.spawn(async move {
            reserve::watch(&js, |is_short| set_store_full(&store_full, is_short)).await;
        });
        is_store_full
    }

    /// Reports calls of unknown functions to the operator, if there is an operator.
    pub(crate) fn report_unknown_functions(
        &mut self,
        unknown_functions: &UnknownFunctions,
        default_queue: QueueName,
    ) {
        if let Some(reports) = unknown_functions.reports() {
            let client = self.js.client();
            self.tasks.spawn(async move { reports.publish(&client, &default_queue).await });
        }
    }

    /// Creates the streams of the directory's queues, and restores them when they are missing.
    pub(crate) fn provision(
        &mut self,
        directory: watch::Receiver<Option<Arc<Directory>>>,
        writes_directory: bool,
        default_queue: QueueName,
    ) {
        provisioner::register_condition(&self.health);
        let (js, health) = (self.js.clone(), self.health.clone());
        self.tasks.spawn(provisioner::run(js, directory, writes_directory, default_queue, health));
    }

    /// Ends the readiness at the shutdown.
    pub(crate) fn end_readiness(&mut self, shutdown: CancellationToken) {
        self.tasks.spawn(readiness::end_readiness(shutdown, self.health.clone()));
    }
}

/// Records whether the store is full, and logs each change.
fn set_store_full(store_full: &watch::Sender<bool>, is_full: bool) {
    if store_full.send_if_modified(|before| std::mem::replace(before, is_full) != is_full) {
        if is_full {
            warn!(
                "the NATS store is full: rejecting new calls with 429 until the reserve is \
                 available again"
            );
        } else {
            info!("the NATS store has room again: accepting new calls");
        }
    }
}
