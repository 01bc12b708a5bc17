//! `kubectl aq queues`

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::{Context, consumer};
use asyncqueue::QueueName;
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    known::{self, Known},
    output::{self, Format},
    session::Session,
    table,
};

/// Queues that are looked at at once, each a round trip.
const READS: usize = 64;

/// Lists the queues
///
/// PENDING calls wait for a worker. UNACKNOWLEDGED ones run, or wait for their next attempt. REDELIVERED are those of
/// them that a worker got more than once. CALLBACKS are results on their way to the caller. OLDEST is the age of
/// the oldest call that has not ended.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kubectl aq queues -o json")]
pub(crate) struct Arguments {
    /// Form of the list
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A queue, now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Queue {
    #[serde(rename = "queue")]
    name: QueueName,
    /// The stream of its calls; `None` if only dead letters of it are left.
    stream: Option<String>,
    pending: u64,
    unacknowledged: u64,
    redelivered: u64,
    callbacks: u64,
    dead_letters: u64,
    oldest_seconds: Option<u64>,
}

/// What the durable consumer of a queue's calls says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ConsumerFacts {
    pending: u64,
    unacknowledged: u64,
    redelivered: u64,
}

pub(crate) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let known = known::all(&session.js).await?;
    let now = Timestamp::now();
    let queues: Vec<Queue> = futures::stream::iter(known.queues.keys())
        .map(async |queue| anyhow::Ok(look(&known, queue, consumer(&session.js, &known, queue).await?, now)))
        .buffered(READS)
        .try_collect()
        .await?;
    match arguments.output {
        Format::Table if queues.is_empty() => eprintln!("no queues"),
        Format::Table => output::print(&render(&queues))?,
        Format::Json => output::print_json(&queues)?,
    }
    Ok(())
}

/// The consumer of a queue's calls, whatever its name: a stream of calls has one. `None` where it has none yet.
async fn consumer(js: &Context, known: &Known, queue: &QueueName) -> anyhow::Result<Option<ConsumerFacts>> {
    let Some(stream) = known.stream_of_calls(queue) else { return Ok(None) };
    let name = &stream.name;
    let failed = || format!("the consumer of stream {name} can't be looked at");
    let stream = js.get_stream_no_info(name).await.with_context(failed)?;
    let first: Option<consumer::Info> = stream.consumers().next().await.transpose().with_context(failed)?;
    Ok(first.map(|info| ConsumerFacts {
        pending: info.num_pending,
        unacknowledged: info.num_ack_pending as u64,
        redelivered: info.num_redelivered as u64,
    }))
}

/// What is known of a queue.
fn look(known: &Known, queue: &QueueName, consumer: Option<ConsumerFacts>, now: Timestamp) -> Queue {
    let calls = known.stream_of_calls(queue);
    let messages = |stream: &str| known.streams.get(stream).map_or(0, |facts| facts.messages);
    let stored = calls.map_or(0, |facts| facts.messages);
    let age = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default().as_secs();
    Queue {
        name: queue.clone(),
        stream: calls.map(|facts| facts.name.clone()),
        pending: consumer.map_or(stored, |consumer| consumer.pending),
        unacknowledged: consumer.map_or(0, |consumer| consumer.unacknowledged),
        redelivered: consumer.map_or(0, |consumer| consumer.redelivered),
        callbacks: messages(&queue.callback_stream()),
        dead_letters: messages(&queue.dead_letter_stream()),
        oldest_seconds: calls.filter(|facts| facts.messages > 0).map(|facts| age(facts.oldest)),
    }
}

fn render(queues: &[Queue]) -> String {
    let heading =
        ["QUEUE", "PENDING", "UNACKNOWLEDGED", "REDELIVERED", "CALLBACKS", "DEAD LETTERS", "OLDEST"];
    table::render(
        heading,
        queues.iter().map(|queue| {
            [
                queue.name.to_string(),
                queue.pending.to_string(),
                queue.unacknowledged.to_string(),
                queue.redelivered.to_string(),
                queue.callbacks.to_string(),
                queue.dead_letters.to_string(),
                queue
                    .oldest_seconds
                    .map_or(table::NOTHING.to_owned(), |seconds| table::age(Duration::from_secs(seconds))),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use asyncqueue::directory::QueueEntry;

    use super::*;
    use crate::known::StreamFacts;

    fn known() -> Known {
        let stream = |name: &str, messages| StreamFacts {
            name: name.to_owned(),
            subjects: Vec::new(),
            owner: None,
            messages,
            oldest: "2026-11-24T10:00:00Z".parse().unwrap(),
        };
        let streams = [stream("JOBS", 5), stream("jobs-callbacks", 2), stream("jobs-dead", 3)];
        let entry = QueueEntry::new("JOBS", "jobs");
        Known {
            queues: [("jobs".parse().unwrap(), Some(entry)), ("left".parse().unwrap(), None)].into(),
            streams: streams.into_iter().map(|facts| (facts.name.clone(), facts)).collect(),
        }
    }

    #[test]
    fn a_queue_is_told_by_its_streams_and_its_consumer() {
        let (known, now) = (known(), "2026-11-24T10:03:00Z".parse().unwrap());
        let consumer = ConsumerFacts { pending: 4, unacknowledged: 1, redelivered: 1 };
        let jobs = look(&known, &"jobs".parse().unwrap(), Some(consumer), now);
        let left = look(&known, &"left".parse().unwrap(), None, now);
        let lines = render(&[jobs.clone(), left]);
        let lines: Vec<Vec<&str>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["jobs", "4", "1", "1", "2", "3", "3m"]);
        assert_eq!(lines[2], ["left", "0", "0", "0", "0", "0", "-"]);
        let json = serde_json::to_value(&jobs).unwrap();
        assert_eq!((&json["queue"], &json["stream"]), (&"jobs".into(), &"JOBS".into()));
        assert_eq!((&json["deadLetters"], &json["oldestSeconds"]), (&3.into(), &180.into()));
    }

    #[test]
    fn without_a_consumer_all_calls_wait() {
        let jobs = look(&known(), &"jobs".parse().unwrap(), None, Timestamp::UNIX_EPOCH);
        assert_eq!((jobs.pending, jobs.unacknowledged), (5, 0));
    }
}
