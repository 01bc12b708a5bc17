//! Listens to what `JetStream` reports about changed or deleted streams and consumers, so that they
//! are restored at once.
//!
//! The advisories come over core NATS, so they may be lost. A change of a consumer causes no
//! advisory. The periodic reconciliations find the rest.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_nats::Client;
use futures::{StreamExt, stream::select_all};
use tokio::{sync::mpsc, time::sleep};
use tracing::{debug, warn};

use crate::{
    cache::watch::Stores, crd::AsyncQueue, nats::queue_spec::queue_spec, trigger::ReconcileTrigger,
};

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
const SETTLE: Duration = Duration::from_millis(200);

/// Maximum number of advisories that are processed together.
const CHUNK: usize = 4096;

/// Maximum length of the name of a queue's stream.
const MAX_STREAM: usize = 64;

/// Creates a bounded channel for the names of the streams in advisories. Any client of NATS may
/// publish advisories: those that do not fit are dropped, and the periodic checks find the changes.
pub(crate) fn channel() -> (mpsc::Sender<String>, mpsc::Receiver<String>) {
    mpsc::channel(CHUNK)
}

/// Sends the names of streams that were changed or deleted, for as long as the client lives.
pub(crate) async fn listen(client: &Client, streams: mpsc::Sender<String>) {
    let mut notices = Vec::new();
    for subject in SUBJECTS {
        match client.subscribe(subject).await {
            Ok(messages) => notices.push(messages),
            Err(error) => warn!(%error, subject, "JetStream's advisories can't be listened to"),
        }
    }
    let mut notices = select_all(notices);
    while let Some(message) = notices.next().await {
        if let Some(stream) = stream(&message.subject) {
            debug!(subject = %message.subject, "told by JetStream");
            // The channel is full, or the program ends.
            let _ = streams.try_send(stream.to_owned());
        }
    }
}

/// Triggers the reconciliation of the queues whose streams were changed or deleted.
pub(crate) async fn heed(
    mut streams: mpsc::Receiver<String>,
    queues: &Stores<AsyncQueue>,
    triggers: &ReconcileTrigger,
) {
    let mut names = Vec::new();
    while streams.recv_many(&mut names, CHUNK).await > 0 {
        sleep(SETTLE).await;
        while names.len() < CHUNK
            && let Ok(name) = streams.try_recv()
        {
            names.push(name);
        }
        let names: HashSet<String> = names.drain(..).collect();
        for queue in concerned(&names, queues.all()) {
            triggers.enqueue(&queue);
        }
    }
}

/// Returns the queues to which one of these streams belongs.
fn concerned(
    streams: &HashSet<String>,
    queues: impl IntoIterator<Item = Arc<AsyncQueue>>,
) -> Vec<Arc<AsyncQueue>> {
    let is_concerned = |queue: &Arc<AsyncQueue>| {
        let Ok(spec) = queue_spec(queue) else { return false };
        spec.streams().iter().any(|stream| streams.contains(stream))
    };
    queues.into_iter().filter(is_concerned).collect()
}

/// Returns the stream of an advisory.
fn stream(subject: &str) -> Option<&str> {
    subject.split('.').nth(STREAM_TOKEN).filter(|stream| stream.len() <= MAX_STREAM)
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    use super::*;
    use crate::fixtures;

    #[test]
    fn a_notice_names_its_stream() {
        assert_eq!(stream("$JS.EVENT.ADVISORY.STREAM.DELETED.q"), Some("q"));
        assert_eq!(
            stream("$JS.EVENT.ADVISORY.CONSUMER.DELETED.q-dead.q-dead-workers"),
            Some("q-dead")
        );
        for subject in SUBJECTS {
            assert_eq!(stream(subject), Some("*"), "{subject}");
        }
        let long = format!("$JS.EVENT.ADVISORY.STREAM.DELETED.{}", "q".repeat(MAX_STREAM + 1));
        assert_eq!(stream(&long), None);
    }

    #[test]
    fn notices_that_nobody_takes_are_dropped() {
        let (sender, mut receiver) = channel();
        for number in 0..3 * CHUNK {
            let _ = sender.try_send(number.to_string());
        }
        let mut kept = 0;
        while receiver.try_recv().is_ok() {
            kept += 1;
        }
        assert_eq!(kept, CHUNK);
    }

    #[test]
    fn a_queue_is_concerned_by_each_of_its_streams() {
        let mut renamed = fixtures::queue("b");
        renamed.spec.stream.name = Some("B".to_owned());
        let queues = || [Arc::new(fixtures::queue("a")), Arc::new(renamed.clone())];
        let names = |stream: &str| {
            let concerned = concerned(&[stream.to_owned()].into(), queues());
            concerned.iter().map(|queue| queue.name_any()).collect::<Vec<_>>()
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
