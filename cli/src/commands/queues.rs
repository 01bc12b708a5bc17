//! `kubectl aq queues`

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::{Context, consumer};
use asyncqueue::{
    QueueName,
    depth::ConsumerTotals,
    jetstream::list_consumers,
    lanes::{self, LaneCounts},
    stats::{self, WorkerReplies},
};
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Serialize;

use super::queue_functions;
use crate::{
    inventory::{self, QueueInventory},
    output::{self, Format, ListFormat},
    session::Session,
    table,
};

/// Maximum number of concurrent consumer lookups, each a round trip.
const MAX_CONCURRENT_READS: usize = 64;

/// Lists the queues
///
/// Columns, as in `kubectl get asyncqueues`:
/// PENDING: calls that are stored and not running.
/// INFLIGHT: calls that are running.
/// SCHEDULED: delayed calls that are not due, as workers report them. They are not pending.
/// REDELIVERED: calls that were delivered more than once.
/// WORKERS: connected workers.
///
/// Further columns:
/// RETRYING: pending calls that wait for their next attempt, or whose worker is gone.
/// CALLBACKS: results that are not delivered yet.
/// DEAD: dead letters.
/// LANES: functions with a consumer of their own, and consumers that functions share, of a queue
/// whose functions take turns.
/// OLDEST: age of the oldest call that has not ended.
///
/// `-` means unknown: workers before version 0.2 do not report how many calls run.
///
/// With --functions, a line is a function with a lane of its own, or one that has refused calls in
/// the last 10 minutes:
/// UNACKNOWLEDGED: calls that are running, or wait for their next attempt.
/// LIMIT: how many invocations of the function its workers have learned to run at once.
/// REFUSED: calls that it has refused since its workers know it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl aq queues -o json\n  kubectl aq queues -o name\n  \
                  kubectl aq queues --functions",
    verbatim_doc_comment
)]
pub(crate) struct QueuesArgs {
    /// Lists the functions of queues whose functions take turns
    #[arg(long)]
    functions: bool,
    /// Output format. `name` prints the names of the queues, or with --functions those of the
    /// functions, each once
    #[arg(short, long, value_enum, default_value_t)]
    output: ListFormat,
}

/// The current state of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueSummary {
    #[serde(rename = "queue")]
    name: QueueName,
    /// The stream of its calls. `None` if only dead letters of it are left.
    stream: Option<String>,
    /// Calls that are stored and do not run now, as in the status of an `AsyncQueue`. If workers do
    /// not report how many run, the calls that were not delivered.
    pending: u64,
    /// Those of `pending` that were delivered. `None` if workers do not report how many calls run.
    retrying: Option<u64>,
    /// Calls that run now. `None` if workers do not report that.
    inflight: Option<u64>,
    /// Delayed calls that are not due, which are not in `pending`. `None` if workers do not report
    /// how many calls run.
    scheduled: Option<u64>,
    unacknowledged: u64,
    redelivered: u64,
    callbacks: u64,
    dead_letters: u64,
    /// Workers that are connected. `None` if they do not report that.
    workers: Option<usize>,
    oldest_seconds: Option<u64>,
    /// `None` if functions do not take turns.
    lanes: Option<usize>,
}

/// The state of the durable consumer of a queue's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ConsumerSummary {
    pending: u64,
    unacknowledged: u64,
    redelivered: u64,
    lanes: Option<usize>,
}

pub(crate) async fn run(session: &Session, arguments: &QueuesArgs) -> anyhow::Result<()> {
    let inventory = inventory::read(&session.js).await?;
    let names: Vec<QueueName> = inventory.queues.keys().cloned().collect();
    if arguments.output == ListFormat::Names && !arguments.functions {
        return Ok(output::print(&output::names(names.iter().map(ToString::to_string)))?);
    }
    let mut workers = stats::request_stats(&session.js.client(), &names).await?;
    let now = Timestamp::now();
    let consumers: Vec<(QueueName, Vec<consumer::Info>)> = futures::stream::iter(names)
        .map(async |queue| {
            let consumers = read_consumers(&session.js, &inventory, &queue).await?;
            anyhow::Ok((queue, consumers))
        })
        .buffered(MAX_CONCURRENT_READS)
        .try_collect()
        .await?;
    if arguments.functions {
        let functions: Vec<_> = consumers
            .into_iter()
            .flat_map(|(queue, consumers)| {
                let limited = workers.remove(&queue).unwrap_or_default().limited();
                lanes::summarize_functions(&queue, &consumers, &limited)
            })
            .collect();
        if functions.is_empty() && arguments.output.is_table() {
            output::print_error("no functions: no queue has lanes");
            return Ok(());
        }
        return output::print_list(
            arguments.output,
            &functions,
            |function| function.function.to_string(),
            |_| queue_functions::render(&functions),
        );
    }
    let queues: Vec<QueueSummary> = consumers
        .into_iter()
        .map(|(queue, consumers)| {
            let summary = (!consumers.is_empty()).then(|| sum_up(&queue, &consumers));
            let workers = workers.remove(&queue).unwrap_or_default();
            summarize(&inventory, &queue, summary, &workers, now)
        })
        .collect();
    if !arguments.output.is_table() || !queues.is_empty() {
        let name = |queue: &QueueSummary| queue.name.to_string();
        output::print_list(arguments.output, &queues, name, |format| render(&queues, format))?;
    }
    if arguments.output.is_table()
        && let Some(remark) = remark(&queues)
    {
        output::print_error(&remark);
    }
    Ok(())
}

/// Returns the consumers of a queue's calls, whatever their names.
async fn read_consumers(
    js: &Context,
    inventory: &QueueInventory,
    queue: &QueueName,
) -> anyhow::Result<Vec<consumer::Info>> {
    let Some(stream) = inventory.call_stream(queue) else { return Ok(Vec::new()) };
    let name = &stream.name;
    let consumers = list_consumers(js, name).await;
    consumers.with_context(|| format!("failed to read the consumers of stream {name}"))
}

/// Returns the sum of the consumers of a queue's calls.
fn sum_up(queue: &QueueName, consumers: &[consumer::Info]) -> ConsumerSummary {
    let totals: ConsumerTotals = consumers.iter().map(ConsumerTotals::from).sum();
    let has_lanes = consumers.iter().any(|info| lanes::has_lanes(&info.config.filter_subjects));
    ConsumerSummary {
        pending: totals.pending,
        unacknowledged: totals.unacknowledged,
        redelivered: totals.redelivered,
        lanes: has_lanes.then(|| LaneCounts::new(queue, consumers).total()),
    }
}

/// Computes the state of a queue.
fn summarize(
    inventory: &QueueInventory,
    queue: &QueueName,
    consumer: Option<ConsumerSummary>,
    replies: &WorkerReplies,
    now: Timestamp,
) -> QueueSummary {
    let calls = inventory.call_stream(queue);
    let stored = calls.map_or(0, |summary| summary.messages);
    let age =
        |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default().as_secs();
    let (workers, inflight) = replies.count().unzip();
    let not_delivered = consumer.map_or(stored, |consumer| consumer.pending);
    // An unacknowledged call is stored, whether it runs or waits for its next attempt.
    let pending = inflight.map_or(not_delivered, |inflight| stored.saturating_sub(inflight));
    let scheduled = replies.scheduled().min(pending.saturating_sub(not_delivered));
    let pending = pending - scheduled;
    QueueSummary {
        name: queue.clone(),
        stream: calls.map(|summary| summary.name.clone()),
        pending,
        retrying: inflight.map(|_| pending.saturating_sub(not_delivered)),
        inflight,
        scheduled: inflight.map(|_| scheduled),
        unacknowledged: consumer.map_or(0, |consumer| consumer.unacknowledged),
        redelivered: consumer.map_or(0, |consumer| consumer.redelivered),
        callbacks: inventory.messages(&queue.callback_stream()),
        dead_letters: inventory.messages(&queue.dead_letter_stream()),
        workers,
        lanes: consumer.and_then(|consumer| consumer.lanes),
        oldest_seconds: calls
            .filter(|summary| summary.messages > 0)
            .map(|summary| age(summary.oldest)),
    }
}

/// Returns what is printed next to the table.
fn remark(queues: &[QueueSummary]) -> Option<String> {
    if queues.is_empty() { Some("no queues".to_owned()) } else { idle_note(queues) }
}

/// Lists the queues with calls or results that wait while no worker is connected.
fn idle_note(queues: &[QueueSummary]) -> Option<String> {
    let is_idle = |queue: &&QueueSummary| {
        queue.workers == Some(0) && (queue.pending > 0 || queue.callbacks > 0)
    };
    let idle: Vec<&str> = queues.iter().filter(is_idle).map(|queue| queue.name.as_str()).collect();
    (!idle.is_empty())
        .then(|| format!("calls are waiting but no worker is connected: {}", idle.join(", ")))
}

/// Number of columns of a table that is not wide.
const COLUMNS: usize = 11;

fn render(queues: &[QueueSummary], format: Format) -> String {
    let heading = [
        "QUEUE",
        "PENDING",
        "RETRYING",
        "INFLIGHT",
        "SCHEDULED",
        "REDELIVERED",
        "CALLBACKS",
        "DEAD",
        "WORKERS",
        "LANES",
        "OLDEST",
        "UNACKNOWLEDGED",
        "STREAM",
    ];
    table::render_first(
        format.columns(COLUMNS),
        heading,
        queues.iter().map(|queue| {
            [
                queue.name.to_string(),
                queue.pending.to_string(),
                table::cell_or_empty(queue.retrying),
                table::cell_or_empty(queue.inflight),
                table::cell_or_empty(queue.scheduled),
                queue.redelivered.to_string(),
                queue.callbacks.to_string(),
                queue.dead_letters.to_string(),
                table::cell_or_empty(queue.workers),
                table::cell_or_empty(queue.lanes),
                table::cell_or_empty(
                    queue.oldest_seconds.map(|seconds| table::age(Duration::from_secs(seconds))),
                ),
                queue.unacknowledged.to_string(),
                table::cell_or_empty(queue.stream.clone()),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use asyncqueue::{directory::QueueEntry, inventory::StreamSummary, stats::WorkerStats};

    use super::*;
    use crate::reference::assert_fields_documented;

    fn inventory() -> QueueInventory {
        let stream = |name: &str, messages| StreamSummary {
            name: name.to_owned(),
            subjects: Vec::new(),
            owner: None,
            owner_uid: None,
            messages,
            last_sequence: messages,
            oldest: "2026-11-24T10:00:00Z".parse().unwrap(),
        };
        let streams = [stream("JOBS", 5), stream("jobs-callbacks", 2), stream("jobs-dead", 3)];
        let entry = QueueEntry::new("JOBS", "jobs");
        QueueInventory {
            queues: [("jobs".parse().unwrap(), Some(entry)), ("left".parse().unwrap(), None)]
                .into(),
            streams: streams.into_iter().map(|summary| (summary.name.clone(), summary)).collect(),
        }
    }

    /// Creates workers that run so many calls, with one entry for each worker.
    fn running(calls: &[u32]) -> WorkerReplies {
        let worker = |(number, running): (usize, &u32)| WorkerStats {
            worker: format!("w-{number}"),
            running: *running,
            max_inflight: 5,
            ..WorkerStats::default()
        };
        WorkerReplies::Replied(calls.iter().enumerate().map(worker).collect())
    }

    fn jobs(consumer: Option<ConsumerSummary>, workers: &WorkerReplies) -> QueueSummary {
        summarize(
            &inventory(),
            &"jobs".parse().unwrap(),
            consumer,
            workers,
            "2026-11-24T10:03:00Z".parse().unwrap(),
        )
    }

    #[test]
    fn queue_is_summarized_from_streams_consumer_and_workers() {
        let consumer =
            ConsumerSummary { pending: 2, unacknowledged: 3, redelivered: 1, lanes: Some(4) };
        let jobs = jobs(Some(consumer), &running(&[1, 1]));
        let left = summarize(
            &inventory(),
            &"left".parse().unwrap(),
            None,
            &WorkerReplies::None,
            Timestamp::UNIX_EPOCH,
        );
        let both = [jobs.clone(), left];
        let wide = render(&both, Format::Wide);
        assert!(wide.contains("  3                JOBS\n"), "{wide}");
        let lines = render(&both, Format::Table);
        let lines: Vec<Vec<&str>> =
            lines.lines().map(|line| line.split_whitespace().collect()).collect();
        // Of five stored calls, two run, and one of the others was delivered before.
        assert_eq!(lines[1], ["jobs", "3", "1", "2", "0", "1", "2", "3", "2", "4", "3m"]);
        assert_eq!(lines[2], ["left", "0", "0", "0", "0", "0", "0", "0", "0", "-", "-"]);
        assert_fields_documented("`queues`", [&jobs]);
        let json = serde_json::to_value(&jobs).unwrap();
        assert_eq!((&json["queue"], &json["stream"]), (&"jobs".into(), &"JOBS".into()));
        assert_eq!((&json["deadLetters"], &json["oldestSeconds"]), (&3.into(), &180.into()));
        assert_eq!(
            (&json["inflight"], &json["workers"], &json["unacknowledged"]),
            (&2.into(), &2.into(), &3.into())
        );
    }

    #[test]
    fn scheduled_calls_are_not_pending() {
        let consumer =
            ConsumerSummary { pending: 1, unacknowledged: 4, redelivered: 0, lanes: None };
        let worker = WorkerStats { running: 1, scheduled: Some(2), ..WorkerStats::default() };
        let jobs = jobs(Some(consumer), &WorkerReplies::Replied(vec![worker]));
        assert_eq!(
            (jobs.pending, jobs.retrying, jobs.inflight, jobs.scheduled),
            (2, Some(1), Some(1), Some(2))
        );
    }

    #[test]
    fn all_calls_are_pending_without_a_consumer() {
        let jobs = jobs(None, &WorkerReplies::None);
        assert_eq!((jobs.pending, jobs.retrying, jobs.inflight), (5, Some(0), Some(0)));
    }

    #[test]
    fn counts_are_unknown_if_workers_do_not_report_them() {
        let consumer =
            ConsumerSummary { pending: 4, unacknowledged: 1, redelivered: 0, lanes: None };
        let jobs = jobs(Some(consumer), &WorkerReplies::NoReply);
        assert_eq!(
            (jobs.pending, jobs.retrying, jobs.inflight, jobs.workers),
            (4, None, None, None)
        );
        assert_eq!(idle_note(&[jobs]), None);
    }

    #[test]
    fn queues_without_workers_are_noted() {
        let idle = jobs(None, &WorkerReplies::None);
        let note = idle_note(&[idle, jobs(None, &running(&[0]))]).unwrap();
        assert_eq!(note, "calls are waiting but no worker is connected: jobs");
    }
}
