//! Sees to it that the queues' streams are there, and the buckets beside them, where no operator does; and that workers
//! know of a function what the directory file says of it.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::Context;
use asyncqueue::{
    QueueName,
    bucket::BucketError,
    directory::{Directory, store::DirectoryStore},
    ensure, reserve,
    stream::{Owner, QueueSpec},
};
use asyncqueue_runtime::{error, health::Health, nats};
use tokio::sync::watch;
use tracing::{info, warn};

/// The readiness condition.
pub const CONDITION: &str = "streams";

/// Between attempts while a stream could not be seen to.
const RETRY: Duration = Duration::from_secs(2);

/// Between looks when all are there: a NATS server that lost its storage comes back without them.
const RECHECK: Duration = Duration::from_secs(10);

/// Copies of the buckets in a cluster of servers: as many as `QueueSpec` has of a stream by default.
const BUCKET_REPLICAS: usize = 1;

/// The queues whose streams this program sees to: the default queue and those of the directory.
#[must_use]
pub fn specs(directory: &Directory, default_queue: &QueueName) -> Vec<QueueSpec> {
    let spec = |queue: &QueueName| QueueSpec::new(queue.clone(), Owner::standalone());
    let mut specs: Vec<_> = directory
        .queues
        .iter()
        .map(|(queue, entry)| QueueSpec {
            stream: entry.stream.clone(),
            subject: entry.subject.clone(),
            ..spec(queue)
        })
        .collect();
    if !directory.queues.contains_key(default_queue) {
        specs.push(spec(default_queue));
    }
    specs
}

/// Creates the streams of the directory as it is now, as often as it takes, and looks again every so often. Ends when
/// it is dropped. `is_written` is whether the directory is written to its bucket, where workers read it: it is not
/// where it comes from nowhere, so that nobody's entries are taken away.
pub async fn keep(
    js: Context,
    mut directory: watch::Receiver<Option<Arc<Directory>>>,
    is_written: bool,
    default_queue: QueueName,
    health: Health,
) {
    let mut reported = String::new();
    loop {
        nats::wait_connected(&js.client()).await;
        let now = directory.borrow_and_update().clone().unwrap_or_default();
        let written = Some(&*now).filter(|_| is_written);
        let failures = ensure_all(&js, &specs(&now, &default_queue), written).await;
        if failures.is_empty() {
            health.ready(CONDITION);
        } else {
            health.not_ready(CONDITION, failures.clone());
            if failures != reported {
                warn!("streams are not as they should be: {failures}");
            }
        }
        let pause = if failures.is_empty() { RECHECK } else { RETRY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = directory.changed() => {}
        }
        reported = failures;
    }
}

/// Ensures the buckets, the directory and every stream, each whatever happens to the others. The
/// streams come last: where NATS has no room for all, calls that are stored can be cancelled and go
/// where the directory says. Returns what went wrong, or nothing.
async fn ensure_all(js: &Context, specs: &[QueueSpec], directory: Option<&Directory>) -> String {
    let mut failures = Vec::new();
    if let Err(error) = ensure::ensure_buckets(js, BUCKET_REPLICAS).await {
        failures.push(error::describe(&error));
    }
    if let Err(error) = reserve::keep(js, BUCKET_REPLICAS).await {
        failures.push(error::describe(&error));
    }
    if let Some(directory) = directory
        && let Err(error) = write(js, directory).await
    {
        failures.push(error::describe(&error));
    }
    for spec in specs {
        match ensure::ensure_streams(js, spec, false).await {
            Ok(changes) => changes.iter().for_each(|change| info!(queue = %spec.queue, "{change}")),
            Err(error) => failures.push(format!("queue {}: {}", spec.queue, error::describe(&error))),
        }
    }
    failures.join("; ")
}

async fn write(js: &Context, directory: &Directory) -> Result<(), BucketError> {
    DirectoryStore::open(js, BUCKET_REPLICAS).await?.sync(directory).await.map(drop)
}

#[cfg(test)]
mod tests {
    use asyncqueue::directory::QueueEntry;

    use super::*;

    #[test]
    fn the_default_queue_has_a_stream_whether_the_directory_names_it_or_not() {
        let default: QueueName = "faas-request".parse().unwrap();
        let mut directory = Directory::default();
        let names = |directory: &Directory| {
            let mut names: Vec<_> =
                specs(directory, &default).into_iter().map(|s| (s.stream, s.subject)).collect();
            names.sort();
            names
        };
        let pair = |stream: &str, subject: &str| (stream.to_owned(), subject.to_owned());
        assert_eq!(names(&directory), [pair("faas-request", "faas-request")]);
        for (queue, stream, subject) in [("slow", "SLOW", "jobs.slow"), ("faas-request", "FAAS", "faas")] {
            let entry = QueueEntry::new(stream, subject);
            directory.queues.insert(queue.parse().unwrap(), entry);
        }
        assert_eq!(names(&directory), [pair("FAAS", "faas"), pair("SLOW", "jobs.slow")]);
    }
}
