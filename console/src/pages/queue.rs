//! The page of one queue.

use std::{collections::BTreeMap, sync::Arc};

use async_nats::jetstream::consumer;
use asyncqueue::{
    FunctionName, QueueName,
    depth::{ConsumerTotals, Depth},
    directory::{Directory, FunctionEntry, QueueSettings, Rate},
    jetstream::list_consumers,
    lanes::{FunctionSummary, has_lanes, summarize_functions},
    stats::WorkerReplies,
};
use axum::{
    extract::{Path, State},
    response::IntoResponse,
};
use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    Answer, App,
    error::PageError,
    layout::{self, count, known},
    parse_queue,
    queues::stale,
};
use crate::{
    chart,
    history::Sample,
    overview::{Overview, QueueState},
};

/// Maximum number of functions and of workers that are shown.
const MAX_ROWS: usize = 200;

/// What is known of one queue.
#[derive(Debug)]
pub(super) struct QueueDetails {
    pub(super) state: QueueState,
    pub(super) consumers: Vec<consumer::Info>,
    /// What the workers replied to the last sample.
    pub(super) replies: WorkerReplies,
    pub(super) settings: Result<QueueSettings, String>,
    pub(super) samples: Vec<Sample>,
    /// The functions of the directory that belong to the queue.
    pub(super) functions: BTreeMap<FunctionName, FunctionEntry>,
}

pub(super) async fn get(State(app): State<Arc<App>>, Path(name): Path<String>) -> Answer {
    let queue = parse_queue(&name)?;
    let failure = app.samples.failure();
    let overview = app.overview()?;
    let Some(state) = overview.queues.get(&queue) else {
        return Err(PageError::NotFound {
            what: format!("There is no queue {queue}."),
            remedy: "A queue that was created in the last seconds is shown with the next sample.",
        });
    };
    let consumers = match overview.inventory.call_stream(&queue) {
        Some(stream) => list_consumers(&app.js, &stream.name).await?,
        None => Vec::new(),
    };
    let directory = app.samples.directory();
    let details = QueueDetails {
        state: state.clone(),
        consumers,
        replies: overview.workers.get(&queue).cloned().unwrap_or_default(),
        settings: settings(&directory, &queue),
        samples: app.samples.history(&queue),
        functions: functions(&directory, &queue),
    };
    Ok(render(&queue, &details, &overview, failure.as_deref()).into_response())
}

fn settings(directory: &Directory, queue: &QueueName) -> Result<QueueSettings, String> {
    let stored = directory.queues.get(queue).and_then(|entry| entry.settings.as_ref());
    stored.map_or_else(
        || Ok(QueueSettings::default()),
        |stored| stored.read().map_err(|error| error.to_string()),
    )
}

fn functions(directory: &Directory, queue: &QueueName) -> BTreeMap<FunctionName, FunctionEntry> {
    let of_queue =
        directory.functions.iter().filter(|(_, entry)| entry.queue.as_ref() == Some(queue));
    of_queue.map(|(name, entry)| (name.clone(), entry.clone())).collect()
}

pub(super) fn render(
    queue: &QueueName,
    details: &QueueDetails,
    overview: &Overview,
    failure: Option<&str>,
) -> Markup {
    let QueueDetails { state, consumers, replies, settings, samples, functions } = details;
    let now = Timestamp::now();
    let content = html! {
        h1 { "Queue " (queue) }
        (stale(overview, failure))
        @if let Some(problem) = state.problem() { p.problem role="status" { (problem) } }
        (layout::fields(&counts(queue, state, consumers, replies, now)))
        p.note { "Sampled at " (layout::time_and_age(overview.at, now)) "." }
        div.charts {
            (chart::line("Waiting calls", "", &values(samples, |sample| Some(sample.waiting))))
            (chart::line("Running calls", "", &values(samples, |sample| sample.running)))
            (chart::line("Age of the oldest call", " s", &values(samples, |sample| {
                Some(sample.oldest_seconds)
            })))
            (chart::line("Calls that left the queue", " per minute", &values(samples, |sample| {
                sample.left_per_minute
            })))
            (chart::durations(&samples.iter().map(|sample| sample.durations).collect::<Vec<_>>()))
        }
        @if let Some(note) = unknown_durations(replies) { p.note { (note) } }
        h2 { "Limits" }
        @match settings {
            Ok(settings) => (layout::fields(&limits(settings))),
            Err(why) => p.problem { "The limits in the directory can't be read: " (why) },
        }
        h2 { "Workers" }
        (workers(replies))
        h2 { "Functions" }
        (function_table(functions, &summarize_functions(queue, consumers, &replies.limited())))
        @if !consumers.iter().any(|info| has_lanes(&info.config.filter_subjects)) {
            p.note { "The functions of this queue share one order of calls (fairness: Fifo)." }
        }
    };
    layout::live(&format!("Queue {queue}"), &format!("/queues/{queue}"), &content)
}

/// Says of which workers the durations are not known.
fn unknown_durations(replies: &WorkerReplies) -> Option<String> {
    let workers = match replies {
        WorkerReplies::None => return None,
        WorkerReplies::NoReply => "the workers".to_owned(),
        WorkerReplies::Replied(all) => {
            let without = all.iter().filter(|worker| worker.durations.is_none()).count();
            (without > 0).then(|| count(without, "worker"))?
        }
    };
    Some(format!(
        "The durations of {workers} are not known: versions before 0.2 do not report them."
    ))
}

fn values(samples: &[Sample], value: impl Fn(&Sample) -> Option<u32>) -> Vec<Option<u32>> {
    samples.iter().map(value).collect()
}

fn counts(
    queue: &QueueName,
    state: &QueueState,
    consumers: &[consumer::Info],
    replies: &WorkerReplies,
    now: Timestamp,
) -> Vec<(&'static str, Markup)> {
    let totals: ConsumerTotals = consumers.iter().map(ConsumerTotals::from).sum();
    let stored = state.waiting + state.running.unwrap_or(0) + state.scheduled;
    let running = replies.count().map(|(_, running)| running);
    let depth = Depth::new(stored, totals, running.unwrap_or(0), replies.scheduled());
    let dead = html! {
        @if state.dead > 0 { a href=(format!("/queues/{queue}/dead")) { (state.dead) } }
        @else { "0" }
    };
    let oldest = html! {
        @match state.oldest {
            Some(oldest) => (layout::time_and_age(oldest, now)),
            None => "-",
        }
    };
    vec![
        ("Waiting", html! { (depth.waiting) }),
        ("Waiting for a retry", html! { (depth.retrying) }),
        ("Running", html! { (known(running)) }),
        ("Scheduled", html! { (depth.scheduled) }),
        ("Callbacks not delivered", html! { (state.callbacks) }),
        ("Dead letters", dead),
        ("Oldest call stored", oldest),
    ]
}

fn limits(settings: &QueueSettings) -> Vec<(&'static str, Markup)> {
    let rate = settings.rate.map(rate_text);
    let per_function = settings.per_function.and_then(|per_function| per_function.max_inflight);
    let attempts = settings.retry.as_ref().map(|retry| retry.max_attempts);
    vec![
        ("Calls per worker", html! { (known(settings.max_inflight)) }),
        ("Calls over all workers", html! { (known(settings.concurrency)) }),
        ("Starts", html! { (known(rate)) }),
        ("Calls per function", html! { (known(per_function)) }),
        ("Time limit", html! { (known(settings.timeout)) }),
        ("Attempts", html! { (known(attempts)) }),
    ]
}

fn rate_text(rate: Rate) -> String {
    format!("{} per second, burst {}", rate.per_second, rate.burst())
}

fn workers(replies: &WorkerReplies) -> Markup {
    let all = match replies {
        WorkerReplies::None => {
            return html! { p { "No worker is connected. Check the queue's Deployment and whether "
            "the queue is suspended." } };
        }
        WorkerReplies::NoReply => {
            return html! { p { "Workers are connected and do not report what they run." } };
        }
        WorkerReplies::Replied(all) => all,
    };
    html! {
        div.table tabindex="0" role="region" aria-label="Workers" {
            table {
                caption { (count(all.len(), "worker")) (more(all.len())) }
                thead { tr {
                    th scope="col" { "Worker" }
                    th scope="col" .number { "Running" }
                    th scope="col" .number { "At most" }
                    th scope="col" { "Can't store" }
                } }
                tbody {
                    @for worker in all.iter().take(MAX_ROWS) {
                        tr {
                            th scope="row" { (worker.worker) }
                            td.number { (worker.running) }
                            td.number { (worker.max_inflight) }
                            td {
                                @for blocked in &worker.blocked {
                                    (blocked.record) " of " (count(blocked.calls, "call")) ": "
                                    (blocked.reason) " "
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn function_table(
    entries: &BTreeMap<FunctionName, FunctionEntry>,
    summaries: &[FunctionSummary],
) -> Markup {
    let none = FunctionEntry::default();
    let mut rows: BTreeMap<&FunctionName, (&FunctionEntry, Option<&FunctionSummary>)> =
        entries.iter().map(|(name, entry)| (name, (entry, None))).collect();
    for summary in summaries {
        rows.entry(&summary.function).or_insert((&none, None)).1 = Some(summary);
    }
    html! {
        @if rows.is_empty() {
            p { "No function names this queue, and none has a lane. A function joins a queue by "
                "the annotation com.openfaas.queue." }
        } @else {
            div.table tabindex="0" role="region" aria-label="Functions" {
                table {
                    caption { (count(rows.len(), "function")) (more(rows.len())) }
                    thead { tr {
                        th scope="col" { "Function" }
                        th scope="col" .number { "Waiting" }
                        th scope="col" .number { "Unacknowledged" }
                        th scope="col" .number { "Limit" }
                        th scope="col" .number { "Learned limit" }
                        th scope="col" .number { "Refused" }
                        th scope="col" { "Note" }
                    } }
                    tbody {
                        @for (function, (entry, summary)) in rows.into_iter().take(MAX_ROWS) {
                            tr {
                                th scope="row" { (function) }
                                td.number { (known(summary.and_then(|of| of.pending))) }
                                td.number { (known(summary.and_then(|of| of.unacknowledged))) }
                                td.number { (known(entry.limits.max_inflight)) }
                                td.number { (known(summary.and_then(|of| of.limit))) }
                                td.number { (known(summary.and_then(|of| of.refused))) }
                                td { @if entry.scaled_to_zero { "scaled to zero" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn more(rows: usize) -> String {
    if rows > MAX_ROWS { format!(", of which {MAX_ROWS} are shown") } else { String::new() }
}
