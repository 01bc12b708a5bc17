//! Receives the advisories of `JetStream` about changed or deleted streams and consumers, so that
//! these are restored at once.
//!
//! The advisories come over core NATS, so they may be lost. A change of a consumer causes no
//! advisory. The periodic reconciliations find the rest.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_nats::Client;
use futures::{StreamExt, stream::select_all};
use tokio::{sync::mpsc, time::sleep};
use tracing::{debug, warn};

use super::queue_spec::queue_spec;
use crate::{cache::watch::MultiStore, crd::AsyncQueue, trigger::ReconcileTrigger};

/// The subjects of the advisories. The token after each is the stream:
/// <https://github.com/nats-io/nats-server>, `server/jetstream_api.go`.
const SUBJECTS: [&str; 4] = [
    "$JS.EVENT.ADVISORY.STREAM.UPDATED.*",
    "$JS.EVENT.ADVISORY.STREAM.DELETED.*",
    "$JS.EVENT.ADVISORY.CONSUMER.DELETED.*.*",
    "$JS.EVENT.ADVISORY.CONSUMER.PAUSE.*.*",
];

/// Position of the stream in a subject.
const STREAM_TOKEN: usize = 5;

/// Advisories come in bursts: those within this time are processed together.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Maximum number of advisories that are processed together.
const MAX_BATCH: usize = 4096;

/// Maximum length of the name of a queue's stream.
const MAX_STREAM_NAME: usize = 64;

/// Creates a bounded channel for the names of the streams in advisories. Any client of NATS may
/// publish advisories: those that do not fit are dropped, and the periodic checks find the changes.
pub(crate) fn channel() -> (mpsc::Sender<String>, mpsc::Receiver<String>) {
    mpsc::channel(MAX_BATCH)
}

/// Sends the names of streams that were changed or deleted, for as long as the client lives.
pub(crate) async fn listen(client: &Client, streams: mpsc::Sender<String>) {
    let mut advisories = Vec::new();
    for subject in SUBJECTS {
        match client.subscribe(subject).await {
            Ok(messages) => advisories.push(messages),
            Err(error) => warn!(%error, subject, "failed to subscribe to JetStream advisories"),
        }
    }
    let mut advisories = select_all(advisories);
    while let Some(message) = advisories.next().await {
        if let Some(stream) = parse_stream(&message.subject) {
            debug!(subject = %message.subject, "received a JetStream advisory");
            // The channel is full, or the program ends.
            let _ = streams.try_send(stream.to_owned());
        }
    }
}

/// Triggers the reconciliation of the queues whose streams were changed or deleted.
pub(crate) async fn enqueue_affected(
    mut streams: mpsc::Receiver<String>,
    queues: &MultiStore<AsyncQueue>,
    triggers: &ReconcileTrigger,
) {
    let mut names = Vec::new();
    while streams.recv_many(&mut names, MAX_BATCH).await > 0 {
        sleep(DEBOUNCE).await;
        while names.len() < MAX_BATCH
            && let Ok(name) = streams.try_recv()
        {
            names.push(name);
        }
        let names: HashSet<String> = names.drain(..).collect();
        for queue in affected_queues(&names, queues.all()) {
            triggers.enqueue(&queue);
        }
    }
}

/// Returns the queues to which one of these streams belongs.
fn affected_queues(
    streams: &HashSet<String>,
    queues: impl IntoIterator<Item = Arc<AsyncQueue>>,
) -> Vec<Arc<AsyncQueue>> {
    let is_affected = |queue: &Arc<AsyncQueue>| {
        let Ok(spec) = queue_spec(queue) else { return false };
        spec.streams().iter().any(|stream| streams.contains(stream))
    };
    queues.into_iter().filter(is_affected).collect()
}

/// Returns the stream of an advisory.
fn parse_stream(subject: &str) -> Option<&str> {
    subject.split('.').nth(STREAM_TOKEN).filter(|stream| stream.len() <= MAX_STREAM_NAME)
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    use super::*;
    use crate::fixtures;

    #[test]
    fn an_advisory_names_its_stream() {
        assert_eq!(parse_stream("$JS.EVENT.ADVISORY.STREAM.DELETED.q"), Some("q"));
        assert_eq!(
            parse_stream("$JS.EVENT.ADVISORY.CONSUMER.DELETED.q-dead.q-dead-workers"),
            Some("q-dead")
        );
        for subject in SUBJECTS {
            assert_eq!(parse_stream(subject), Some("*"), "{subject}");
        }
        let long = format!("$JS.EVENT.ADVISORY.STREAM.DELETED.{}", "q".repeat(MAX_STREAM_NAME + 1));
        assert_eq!(parse_stream(&long), None);
    }

    #[test]
    fn advisories_beyond_the_capacity_are_dropped() {
        let (sender, mut receiver) = channel();
        for number in 0..3 * MAX_BATCH {
            let _ = sender.try_send(number.to_string());
        }
        let mut count = 0;
        while receiver.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, MAX_BATCH);
    }

    #[test]
    fn a_queue_is_affected_by_each_of_its_streams() {
        let mut renamed = fixtures::queue("b");
        renamed.spec.stream.name = Some("B".to_owned());
        let queues = || [Arc::new(fixtures::queue("a")), Arc::new(renamed.clone())];
        let names = |stream: &str| {
            let affected = affected_queues(&[stream.to_owned()].into(), queues());
            affected.iter().map(|queue| queue.name_any()).collect::<Vec<_>>()
        };
        assert_eq!(names("a"), ["a"]);
        assert_eq!(names("B"), ["b"]);
        assert_eq!(names("b"), [""; 0]);
        assert_eq!(
            names(&"a".parse::<asyncqueue::QueueName>().unwrap().dead_letter_stream()),
            ["a"]
        );
        assert_eq!(names(&"b".parse::<asyncqueue::QueueName>().unwrap().callback_stream()), ["b"]);
    }
}
