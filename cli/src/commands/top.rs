//! `kubectl aq top`

use std::{
    cmp::Reverse,
    collections::HashMap,
    io::{self, IsTerminal},
    num::NonZeroUsize,
    time::Duration,
};

use asyncqueue::{
    GoDuration, QueueName,
    inventory::{CallCounts, QueueInventory, StreamSummary, listing_pause},
    stats::{self, WorkerReplies},
};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    inventory,
    output::{self, Format},
    session::Session,
    table,
};

/// The shortest interval. Each sample lists all streams.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Number of queues on a terminal, whose window may be small.
const ROWS_OF_TERMINAL: usize = 20;

/// Moves the cursor of a terminal to its top, and deletes what is below.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows what the queues do now, the busiest first
///
/// WAITING: calls that are due and not running.
/// RUNNING: calls that are running.
/// WORKERS: connected workers.
/// IN/s: calls that were stored, for each second since the last sample.
/// OUT/s: calls that left the queue: they ended, or were deleted.
/// OLDEST: age of the oldest call that has not ended.
/// DEAD: dead letters.
///
/// Further columns of `-o wide`:
/// SCHEDULED: delayed calls that are not due. They are not waiting.
/// CALLBACKS: results that are not delivered yet.
///
/// `-` means unknown, or none. On a terminal, the table is refreshed until Ctrl-C. Else, and with
/// `-o json` and `-o yaml`, it is printed once, after two samples.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl aq top\n  kubectl aq top --once -o json",
    verbatim_doc_comment
)]
pub(crate) struct TopArgs {
    /// Time between two samples, at least 100ms. It is longer with more than 2,000 streams
    #[arg(long, default_value = "2s", value_parser = parse_interval)]
    interval: Duration,

    /// Print one table, without a refresh
    #[arg(long)]
    once: bool,

    /// Maximum number of queues. Default: 20 where the table is refreshed, else all
    #[arg(long)]
    limit: Option<NonZeroUsize>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// All queues at one time.
struct Sample {
    inventory: QueueInventory,
    workers: HashMap<QueueName, WorkerReplies>,
    at: Timestamp,
    /// When the streams were listed, of a clock that is never set back.
    listed: Instant,
}

/// What a queue does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Activity {
    queue: QueueName,
    waiting: u64,
    /// `None` if workers do not report that.
    running: Option<u64>,
    scheduled: u64,
    /// `None` if workers do not report that.
    workers: Option<usize>,
    /// `None` if the queue's stream was created since the last sample.
    in_per_second: Option<f64>,
    /// `None` if the queue's stream was created since the last sample.
    out_per_second: Option<f64>,
    oldest_seconds: Option<u64>,
    callbacks: u64,
    dead_letters: u64,
}

pub(crate) async fn run(session: &Session, arguments: &TopArgs) -> anyhow::Result<()> {
    let TopArgs { interval, once, output, .. } = arguments;
    let is_refreshed = !once && output.is_table() && io::stdout().is_terminal();
    let default = is_refreshed.then_some(ROWS_OF_TERMINAL);
    let limit = arguments.limit.map(NonZeroUsize::get).or(default).unwrap_or(usize::MAX);
    let mut before = Sample::take(session).await?;
    loop {
        sleep(listing_pause(*interval, before.inventory.streams.len())).await;
        let sample = Sample::take(session).await?;
        let mut queues = sample.activities(&before);
        let hidden = queues.len().saturating_sub(limit);
        queues.truncate(limit);
        if is_refreshed {
            let heading = heading(*interval, hidden);
            output::print(&format!("{CLEAR}{heading}{}", render(&queues, *output)))?;
            before = sample;
            continue;
        }
        if queues.is_empty() && output.is_table() {
            output::print_error("no queues");
            return Ok(());
        }
        return output::print_value(*output, &queues, || render(&queues, *output));
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval: GoDuration = text.parse().map_err(|error| format!("{error}"))?;
    let interval = Duration::from(interval);
    if interval < MIN_INTERVAL {
        return Err(format!("is less than {}ms", MIN_INTERVAL.as_millis()));
    }
    Ok(interval)
}

// === impl Sample ===

impl Sample {
    async fn take(session: &Session) -> anyhow::Result<Self> {
        let inventory = inventory::read(&session.js).await?;
        let listed = Instant::now();
        let names: Vec<QueueName> = inventory.queues.keys().cloned().collect();
        let workers = stats::request_stats(&session.js.client(), &names).await?;
        Ok(Self { inventory, workers, at: Timestamp::now(), listed })
    }

    /// Returns what the queues do, the busiest first.
    fn activities(&self, before: &Self) -> Vec<Activity> {
        let elapsed = self.listed.duration_since(before.listed);
        let mut queues: Vec<_> = self
            .inventory
            .queues
            .keys()
            .map(|queue| Activity::new(self, before, queue, elapsed))
            .collect();
        queues.sort_by_key(|queue| Reverse(queue.waiting + queue.running.unwrap_or(0)));
        queues
    }
}

// === impl Activity ===

impl Activity {
    fn new(sample: &Sample, before: &Sample, queue: &QueueName, elapsed: Duration) -> Self {
        let none = WorkerReplies::default();
        let replies = sample.workers.get(queue).unwrap_or(&none);
        let inventory = &sample.inventory;
        let CallCounts { waiting, running, scheduled } = inventory.count_calls(queue, replies);
        let stream = inventory.call_stream(queue);
        let flow = stream
            .zip(before.inventory.call_stream(queue))
            .and_then(|(now, then)| now.flow_since(then));
        let age = |stream: &StreamSummary| {
            u64::try_from(sample.at.duration_since(stream.oldest).as_secs()).unwrap_or_default()
        };
        Self {
            queue: queue.clone(),
            waiting,
            running,
            scheduled,
            workers: replies.count().map(|(workers, _)| workers),
            in_per_second: flow.and_then(|flow| per_second(flow.stored, elapsed)),
            out_per_second: flow.and_then(|flow| per_second(flow.left, elapsed)),
            oldest_seconds: stream.filter(|stream| stream.messages > 0).map(age),
            callbacks: inventory.messages(&queue.callback_stream()),
            dead_letters: inventory.messages(&queue.dead_letter_stream()),
        }
    }
}

/// Returns a rate, to one decimal place. `None` if no time has passed.
fn per_second(count: u64, elapsed: Duration) -> Option<f64> {
    let millis = u64::try_from(elapsed.as_millis()).ok()?;
    let tenths = count.saturating_mul(10_000).checked_div(millis)?;
    Some(f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0)
}

/// Returns the line above a table that is refreshed.
fn heading(interval: Duration, hidden: usize) -> String {
    let every = GoDuration(interval);
    match hidden {
        0 => format!("Every {every}, Ctrl-C ends\n\n"),
        hidden => format!("Every {every}, Ctrl-C ends; {hidden} more with --limit\n\n"),
    }
}

/// Number of columns of a table that is not wide.
const COLUMNS: usize = 8;

fn render(queues: &[Activity], format: Format) -> String {
    let heading = [
        "QUEUE",
        "WAITING",
        "RUNNING",
        "WORKERS",
        "IN/s",
        "OUT/s",
        "OLDEST",
        "DEAD",
        "SCHEDULED",
        "CALLBACKS",
    ];
    let rate = |rate: Option<f64>| table::cell_or_empty(rate.map(|rate| format!("{rate:.1}")));
    table::render_first(
        format.columns(COLUMNS),
        heading,
        queues.iter().map(|queue| {
            let age = |seconds| table::age(Duration::from_secs(seconds));
            [
                queue.queue.to_string(),
                queue.waiting.to_string(),
                table::cell_or_empty(queue.running),
                table::cell_or_empty(queue.workers),
                rate(queue.in_per_second),
                rate(queue.out_per_second),
                table::cell_or_empty(queue.oldest_seconds.map(age)),
                queue.dead_letters.to_string(),
                queue.scheduled.to_string(),
                queue.callbacks.to_string(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use asyncqueue::{directory::QueueEntry, stats::WorkerStats};

    use super::*;

    /// Samples queues whose streams have so many messages and this last sequence.
    fn sample(queues: &[(&str, u64, u64)], listed: Instant) -> Sample {
        let stream = |&(name, messages, last_sequence): &(&str, u64, u64)| StreamSummary {
            name: name.to_owned(),
            subjects: Vec::new(),
            owner: None,
            owner_uid: None,
            messages,
            last_sequence,
            oldest: "2026-11-24T10:00:00Z".parse().unwrap(),
        };
        let worker = WorkerStats { running: 2, scheduled: Some(1), ..WorkerStats::default() };
        let entry =
            |&(name, ..): &(&str, u64, u64)| (name.parse().unwrap(), QueueEntry::new(name, name));
        Sample {
            inventory: QueueInventory::new(
                queues.iter().map(entry),
                queues.iter().map(stream).collect(),
            ),
            workers: [("busy".parse().unwrap(), WorkerReplies::Replied(vec![worker]))].into(),
            at: "2026-11-24T10:03:00Z".parse().unwrap(),
            listed,
        }
    }

    #[test]
    fn busiest_queue_is_first_with_its_rates() {
        let first = Instant::now();
        let second = first + Duration::from_secs(2);
        let before = sample(&[("busy", 9, 100), ("idle", 0, 7)], first);
        let after = sample(&[("busy", 8, 105), ("idle", 0, 7), ("new", 0, 0)], second);
        let queues = after.activities(&before);
        let table = render(&queues, Format::Table);
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        // Of eight calls, two run and one is scheduled. Five came and six left in two seconds.
        assert_eq!(rows[1], ["busy", "5", "2", "1", "2.5", "3.0", "3m", "0"], "{table}");
        assert_eq!(rows[2][..2], ["idle", "0"], "{table}");
        assert_eq!(rows[2][4..], ["0.0", "0.0", "-", "0"], "{table}");
        assert_eq!(rows[3][4..], ["-", "-", "-", "0"], "{table}");
        assert!(render(&queues, Format::Wide).contains("CALLBACKS"));
        let json = serde_json::to_value(&queues[0]).unwrap();
        assert_eq!((&json["inPerSecond"], &json["oldestSeconds"]), (&2.5.into(), &180.into()));
    }

    #[test]
    fn rate_has_one_decimal_place() {
        let rate = |count, millis| per_second(count, Duration::from_millis(millis));
        assert_eq!(rate(1, 3_000), Some(0.3));
        assert_eq!(rate(0, 2_000), Some(0.0));
        assert_eq!(rate(5, 0), None);
        assert!(rate(u64::MAX, 1).is_some());
    }

    #[test]
    fn queues_that_are_not_shown_are_counted() {
        let interval = Duration::from_secs(2);
        assert_eq!(heading(interval, 0), "Every 2s, Ctrl-C ends\n\n");
        assert!(heading(interval, 3).contains("3 more with --limit"));
    }
}
