//! Finds the queue of a function, as a gateway does.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use async_nats::jetstream::Context;
use asyncqueue::{
    QueueName,
    buckets::DIRECTORY,
    delay::DelayLimits,
    directory::{Directory, QueueEntry, QueueRoute, watch::watch},
    message::dead_letter,
    submission::Submission,
};
use clap::Args;
use jiff::Timestamp;
use tokio::{sync::watch, time::timeout};

use crate::{inventory, output};

/// Maximum time for reading the directory.
const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(10);

/// The options that say which queue gets a call.
#[derive(Args, Clone, Debug)]
pub(crate) struct RoutingArgs {
    /// Store all calls on this queue. Default: the queue of each function in the directory, as the
    /// gateway routes calls
    #[arg(long)]
    pub(crate) queue: Option<QueueName>,

    /// Queue of functions that have no queue in the directory
    #[arg(long, env = "default_queue", default_value = "faas-request")]
    pub(crate) default_queue: QueueName,

    /// Namespace of functions that are named without one
    #[arg(long, env = "function_namespace", default_value = "openfaas-fn")]
    pub(crate) function_namespace: String,
}

/// Finds the queues of calls, and checks what they permit.
#[derive(Debug)]
pub(crate) struct Router {
    directory: Arc<Directory>,
    /// The queue of all calls, if `--queue` names one.
    override_queue: Option<(QueueName, QueueEntry)>,
    default_queue: QueueName,
    /// The server's limit for a message, in bytes.
    max_payload: usize,
}

// === impl Router ===

impl Router {
    /// Reads the directory, and the queue that is requested.
    pub(crate) async fn open(js: &Context, arguments: &RoutingArgs) -> anyhow::Result<Self> {
        let override_queue = override_queue(js, arguments).await?;
        let directory = match follow_directory(js).await? {
            Some(directory) => directory.borrow().clone().unwrap_or_default(),
            None => Arc::default(),
        };
        let default_queue = arguments.default_queue.clone();
        let max_payload = js.client().max_payload();
        Ok(Self { directory, override_queue, default_queue, max_payload })
    }

    /// Checks a call against what its queue permits. Returns it with the function's name as the
    /// directory spells it and with the time at which it runs, and the route of the queue. `size`
    /// is that of its body, in bytes.
    pub(crate) fn admit(
        &self,
        submission: Submission,
        now: Timestamp,
        size: usize,
    ) -> anyhow::Result<(Submission, QueueRoute)> {
        let submission = submission.resolved(&self.directory);
        let function = submission.function();
        let route = match &self.override_queue {
            Some((queue, entry)) => {
                let route = entry.route_of_unknown_fairness(queue.clone());
                // An entry that comes from the streams has no limits.
                let is_known = self.directory.queues.contains_key(queue);
                if is_known { route } else { QueueRoute { delay: DelayLimits::DEFAULT, ..route } }
            }
            None => self.directory.route(function, &self.default_queue),
        };
        if !route.known && self.override_queue.is_none() {
            let queue = &route.queue;
            output::print_error(&format!(
                "function `{function}` is not in the directory: its queue is `{queue}`"
            ));
        }
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if let Some(limit) = route.max_payload.filter(|limit| size > *limit) {
            anyhow::bail!(
                "the body is larger than the limit of {limit} bytes, set by queue `{}`",
                route.queue
            );
        }
        submission.check_dead_letter(dead_letter::max_target(self.max_payload))?;
        let submission = submission.scheduled(now, &route)?;
        submission.check_keep_result(&route.results)?;
        Ok((submission, route))
    }
}

/// Returns the queue that `--queue` names, with its entry.
pub(crate) async fn override_queue(
    js: &Context,
    arguments: &RoutingArgs,
) -> anyhow::Result<Option<(QueueName, QueueEntry)>> {
    match &arguments.queue {
        Some(queue) => Ok(Some((queue.clone(), inventory::queue_entry(js, queue).await?))),
        None => Ok(None),
    }
}

/// Follows the directory, and waits until it is read. Returns `None` if its bucket does not exist.
pub(crate) async fn follow_directory(
    js: &Context,
) -> anyhow::Result<Option<watch::Receiver<Option<Arc<Directory>>>>> {
    if inventory::open_directory(js).await?.is_none() {
        return Ok(None);
    }
    let mut directory = watch(js.clone());
    timeout(DIRECTORY_TIMEOUT, directory.wait_for(Option::is_some))
        .await
        .with_context(|| {
            let seconds = DIRECTORY_TIMEOUT.as_secs();
            format!(
                "failed to read the directory (KV bucket {}) within {seconds}s: check that the \
                 operator is running",
                DIRECTORY.name
            )
        })?
        .context("failed to watch the directory")?;
    Ok(Some(directory))
}
