//! Creates and updates the streams and buckets of the queues if there is no operator. Also writes
//! the directory of a file to its bucket, from which workers read it.

use std::{sync::Arc, time::Duration};

use async_nats::{connection::State, jetstream::Context};
use asyncqueue::{
    QueueName, buckets,
    directory::{Directory, store::DirectoryStore},
    kv::BucketError,
    reserve,
    stream::{
        self, Owner, QueueSpec, RequiredStream, first_missing, required_bucket,
        required_by_producer, required_stream,
    },
};
use asyncqueue_runtime::{error, health::Health, nats};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

/// Name of the readiness condition.
const CONDITION: &str = "streams";

/// Reason for which the condition does not hold until NATS is connected.
const WAITING: &str = "waiting for NATS to create the streams";

/// Pause after an attempt that failed for any of the streams.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Interval between two complete updates, which also correct drift.
const RESYNC_INTERVAL: Duration = Duration::from_secs(10);

/// Interval between two checks whether all streams and buckets exist: a NATS server that lost its
/// storage comes back without them. With many queues it is [`EXISTENCE_CHECK_PER_QUEUE`] for each
/// queue, which keeps the requests below 150 a second.
const EXISTENCE_CHECK_INTERVAL: Duration = Duration::from_secs(2);
const EXISTENCE_CHECK_PER_QUEUE: Duration = Duration::from_millis(20);

/// Replicas of the buckets in a cluster of servers: the default of `QueueSpec` for a stream.
const BUCKET_REPLICAS: usize = 1;

/// Returns the queues whose streams this program manages: the default queue and those of the
/// directory.
#[must_use]
pub(crate) fn queue_specs(directory: &Directory, default_queue: &QueueName) -> Vec<QueueSpec> {
    let spec = |queue: &QueueName| QueueSpec::new(queue.clone(), Owner::standalone());
    let mut specs: Vec<_> = directory
        .queues
        .iter()
        .map(|(queue, entry)| QueueSpec {
            stream: entry.stream.clone(),
            subject: entry.subject.clone(),
            fairness: entry.fairness.unwrap_or_default(),
            ..spec(queue)
        })
        .collect();
    if !directory.queues.contains_key(default_queue) {
        specs.push(spec(default_queue));
    }
    specs
}

/// Registers the readiness condition, which does not hold yet.
pub(crate) fn register_condition(health: &Health) {
    health.register(CONDITION, WAITING);
}

/// Creates the streams of the current directory, retries until it succeeds, and checks them at
/// intervals. Runs until the future is dropped.
///
/// `writes_directory` is whether the directory is written to its bucket, from which workers read
/// it. It is false if the directory has no source, so that no existing entries are removed.
pub(crate) async fn run(
    js: Context,
    mut directory: watch::Receiver<Option<Arc<Directory>>>,
    writes_directory: bool,
    default_queue: QueueName,
    health: Health,
) {
    let mut last_failures = String::new();
    loop {
        let client = js.client();
        if client.connection_state() != State::Connected {
            if !last_failures.is_empty() {
                // The condition `nats` gives the reason; the earlier failure no longer applies.
                health.not_ready(CONDITION, WAITING);
            }
            nats::wait_connected(&client).await;
        }
        let now = directory.borrow_and_update().clone().unwrap_or_default();
        let written = Some(&*now).filter(|_| writes_directory);
        let specs = queue_specs(&now, &default_queue);
        let mut failures = ensure_all(&js, &specs, written).await;
        if !failures.is_empty() && nats::jetstream_check::probe(&client).await.is_some() {
            // The condition `jetstream` and the log contain the remedy.
            "waiting for JetStream".clone_into(&mut failures);
        }
        if failures.is_empty() {
            health.ready(CONDITION);
        } else {
            health.not_ready(CONDITION, failures.clone());
            if failures != last_failures {
                warn!("failed to create or update streams: {failures}");
            }
        }
        let is_due = async {
            if failures.is_empty() {
                // A timeout means that it is time for a complete update.
                let _ = timeout(
                    RESYNC_INTERVAL,
                    wait_until_missing(&js, &required_objects(&specs, writes_directory)),
                )
                .await;
            } else {
                sleep(RETRY_INTERVAL).await;
            }
        };
        tokio::select! {
            () = is_due => {}
            Ok(()) = directory.changed() => {}
        }
        last_failures = failures;
    }
}

/// Returns what must exist so that this program has nothing to do.
fn required_objects(specs: &[QueueSpec], writes_directory: bool) -> Vec<RequiredStream> {
    let directory = writes_directory.then_some(buckets::DIRECTORY);
    let buckets = buckets::OF_WORKERS.into_iter().chain(directory);
    let others =
        buckets.map(|bucket| required_bucket(&bucket)).chain([required_stream(reserve::STREAM)]);
    others.chain(specs.iter().flat_map(required_by_producer)).collect()
}

/// Returns when something is missing.
async fn wait_until_missing(js: &Context, needed: &[RequiredStream]) {
    let each = u32::try_from(needed.len() / 3).unwrap_or(u32::MAX);
    loop {
        sleep(EXISTENCE_CHECK_INTERVAL.max(EXISTENCE_CHECK_PER_QUEUE.saturating_mul(each))).await;
        // An error does not mean that something is missing. The condition `nats` reports whether
        // NATS is reachable.
        if let Ok(Some(missing)) = first_missing(js, needed).await {
            return warn!("{missing} is missing; recreating it");
        }
    }
}

/// Creates or updates the buckets, the directory and every stream, each even if another one fails.
///
/// The streams come last. If NATS does not have room for all of them, stored calls can still be
/// cancelled, and new ones follow the directory. Returns the failures, or an empty string.
async fn ensure_all(js: &Context, specs: &[QueueSpec], directory: Option<&Directory>) -> String {
    let mut failures = Vec::new();
    if let Err(error) = stream::ensure_buckets(js, BUCKET_REPLICAS).await {
        failures.push(error::error_chain(&error));
    }
    if let Err(error) = reserve::keep_full(js, BUCKET_REPLICAS).await {
        failures.push(error::error_chain(&error));
    }
    if let Some(directory) = directory
        && let Err(error) = write_directory(js, directory).await
    {
        failures.push(error::error_chain(&error));
    }
    for spec in specs {
        match stream::ensure_streams(js, spec, false).await {
            Ok(changes) => changes.iter().for_each(|change| info!(queue = %spec.queue, "{change}")),
            Err(error) => {
                failures.push(format!("queue {}: {}", spec.queue, error::error_chain(&error)));
            }
        }
    }
    failures.join("; ")
}

async fn write_directory(js: &Context, directory: &Directory) -> Result<(), BucketError> {
    DirectoryStore::open(js, BUCKET_REPLICAS).await?.sync(directory).await.map(drop)
}

#[cfg(test)]
mod tests {
    use asyncqueue::directory::QueueEntry;

    use super::*;

    #[test]
    fn default_queue_always_has_a_stream() {
        let default: QueueName = "faas-request".parse().unwrap();
        let mut directory = Directory::default();
        let names = |directory: &Directory| {
            let mut names: Vec<_> = queue_specs(directory, &default)
                .into_iter()
                .map(|s| (s.stream, s.subject))
                .collect();
            names.sort();
            names
        };
        let pair = |stream: &str, subject: &str| (stream.to_owned(), subject.to_owned());
        assert_eq!(names(&directory), [pair("faas-request", "faas-request")]);
        for (queue, stream, subject) in
            [("slow", "SLOW", "jobs.slow"), ("faas-request", "FAAS", "faas")]
        {
            let entry = QueueEntry::new(stream, subject);
            directory.queues.insert(queue.parse().unwrap(), entry);
        }
        assert_eq!(names(&directory), [pair("FAAS", "faas"), pair("SLOW", "jobs.slow")]);
    }
}
