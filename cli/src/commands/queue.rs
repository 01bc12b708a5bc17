//! `kubectl aq queue`

use anyhow::{Context as _, bail};
use async_nats::jetstream::Context;
use asyncqueue::{
    QueueName,
    dead_letters::DeadLetters,
    depth::{ConsumerTotals, Depth},
    inventory::{QueueInventory, StreamSummary},
    jetstream::{find_stream, list_consumers},
    stats,
    stream::Owner,
};
use asyncqueue_runtime::error::error_chain;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cluster::ClusterArgs,
    diagnose::{AsyncQueue, DeadReason, Facts, Finding, Kubernetes, diagnose},
    inventory,
    output::{self, Format},
    session::Session,
    table,
};

/// The resource, with its group: others may have the same name.
const RESOURCE: &str = "asyncqueues.asyncqueue.io";

/// Number of dead letters whose reasons are counted, and the size of their messages in bytes.
const MAX_REASONS: usize = 100;
const MAX_REASON_BYTES: usize = 16 * 1024 * 1024;

/// Names what is wrong with a queue, why, and what to do
///
/// Reads the queue in NATS and the reports of its workers. With `get` of `asyncqueues` in the
/// namespace of the queue, it passes on what the operator reports in the conditions. A queue whose
/// stream does not exist yet is searched in all namespaces, which needs `list`. Without these
/// permissions, or if the stream belongs to another AsyncQueue of that name, as that of another
/// cluster, it says so, and goes on.
///
/// A finding is an error (calls are refused or do not run), a warning (calls wait or fail) or a
/// note. The exit code is 0 whatever is found: scripts read `findings` with `-o json`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        kubectl aq queue slow-queue\n  \
        kubectl aq queue slow-queue -o json")]
pub(crate) struct QueueArgs {
    /// Name of the queue
    queue: QueueName,

    /// Namespace of its `AsyncQueue`. Default: as its stream says, or all
    #[arg(long, value_name = "NAMESPACE")]
    queue_namespace: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The state of a queue and what is wrong with it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    queue: &'a QueueName,
    /// `None` if it does not exist.
    stream: Option<&'a str>,
    /// Namespace and name of each.
    async_queues: Vec<String>,
    /// Why what Kubernetes knows of the queue is missing here.
    not_read: Option<&'a str>,
    pending: u64,
    /// These four are `None` if workers do not report them.
    retrying: Option<u64>,
    inflight: Option<u64>,
    slots: Option<u64>,
    workers: Option<usize>,
    scheduled: u64,
    redelivered: u64,
    callbacks: u64,
    dead_letters: u64,
    oldest_seconds: Option<u64>,
    findings: Vec<Finding>,
}

pub(crate) async fn run(
    session: &Session,
    cluster: &ClusterArgs,
    arguments: &QueueArgs,
) -> anyhow::Result<()> {
    let QueueArgs { queue, output, .. } = arguments;
    let inventory = inventory::read(&session.js).await?;
    let kubernetes = read_kubernetes(cluster, &inventory, arguments).await;
    if !inventory.queues.contains_key(queue) {
        match &kubernetes {
            Kubernetes::Read(queues) if !queues.is_empty() => {}
            Kubernetes::NotRead(why) => bail!(
                "there is no queue `{queue}` in NATS, and its AsyncQueue can't be read ({why}): \
                 `kubectl aq queues` lists all queues"
            ),
            _ => bail!("there is no queue `{queue}`: `kubectl aq queues` lists all queues"),
        }
    }
    let facts = read_facts(&session.js, &inventory, queue, kubernetes).await?;
    let report = Report::new(&facts);
    output::print_value(*output, &report, || render(&report))
}

/// Reads the `AsyncQueue` of a queue, if an operator created it.
async fn read_kubernetes(
    cluster: &ClusterArgs,
    inventory: &QueueInventory,
    arguments: &QueueArgs,
) -> Kubernetes {
    let QueueArgs { queue, queue_namespace, .. } = arguments;
    let stream = owned_stream(inventory, queue);
    let owner = stream.and_then(|stream| stream.owner.as_ref());
    if owner == Some(&Owner::standalone().name) && queue_namespace.is_none() {
        return Kubernetes::Standalone;
    }
    let named = owner.and_then(|owner| owner.split_once('/')).map(|(namespace, _)| namespace);
    let namespace = queue_namespace.as_deref().or(named);
    let read = kubectl_arguments(queue, namespace);
    let read: Vec<&str> = read.iter().map(String::as_str).collect();
    let printed = cluster.get(&read).await;
    match printed.and_then(|printed| AsyncQueue::read(&printed)) {
        Ok(queues) => of_stream(stream, queues),
        Err(why) => Kubernetes::NotRead(why),
    }
}

/// Returns the stream that names the owner of a queue: that of its calls, or of its dead letters.
fn owned_stream<'a>(inventory: &'a QueueInventory, queue: &QueueName) -> Option<&'a StreamSummary> {
    let calls = inventory.call_stream(queue);
    calls.or_else(|| inventory.streams.get(&queue.dead_letter_stream()))
}

/// Leaves out objects that are not the owner of the stream, so that neither their conditions nor
/// commands for them are printed.
fn of_stream(stream: Option<&StreamSummary>, queues: Vec<AsyncQueue>) -> Kubernetes {
    let owner = stream.and_then(|stream| Some((&stream.name, stream.owner_uid.as_ref()?)));
    let Some((stream, uid)) = owner else { return Kubernetes::Read(queues) };
    let (own, others): (Vec<_>, Vec<_>) =
        queues.into_iter().partition(|queue| queue.is_about_stream_of(uid));
    match &others[..] {
        [other, ..] if own.is_empty() => Kubernetes::NotRead(format!(
            "the AsyncQueue {} of this cluster is not the owner of stream {stream}, which has the \
             UID {uid}: name the owner's cluster with --context",
            other.full_name()
        )),
        _ => Kubernetes::Read(own),
    }
}

fn kubectl_arguments(queue: &QueueName, namespace: Option<&str>) -> Vec<String> {
    let place = match namespace {
        Some(namespace) => {
            [queue.to_string(), format!("--namespace={namespace}"), "--ignore-not-found".to_owned()]
                .to_vec()
        }
        None => [format!("--field-selector=metadata.name={queue}"), "--all-namespaces".to_owned()]
            .to_vec(),
    };
    let mut arguments = vec![RESOURCE.to_owned()];
    arguments.extend(place);
    arguments.extend(["--output=json", "--request-timeout=10s"].map(str::to_owned));
    arguments
}

async fn read_facts(
    js: &Context,
    inventory: &QueueInventory,
    queue: &QueueName,
    kubernetes: Kubernetes,
) -> anyhow::Result<Facts> {
    let calls = inventory.call_stream(queue);
    let consumers = match calls {
        Some(StreamSummary { name, .. }) => list_consumers(js, name)
            .await
            .with_context(|| format!("failed to read the consumers of stream {name}"))?,
        None => Vec::new(),
    };
    let workers = stats::request_stats(&js.client(), std::slice::from_ref(queue)).await?;
    let workers = workers.into_values().next().unwrap_or_default();
    let running = workers.count().map_or(0, |(_, running)| running);
    let totals: ConsumerTotals = consumers.iter().map(ConsumerTotals::from).sum();
    let stored = calls.map_or(0, |stream| stream.messages);
    let entry = inventory.queues.get(queue).and_then(Option::as_ref);
    let oldest = calls.filter(|stream| stream.messages > 0).map(|stream| stream.oldest);
    let stream_error = match entry.filter(|_| calls.is_none()) {
        Some(entry) => read_stream_error(js, &entry.stream).await,
        None => None,
    };
    let age = |at| u64::try_from(Timestamp::now().duration_since(at).as_secs()).unwrap_or(0);
    Ok(Facts {
        queue: queue.clone(),
        wanted_stream: entry.map(|entry| entry.stream.clone()),
        has_stream: calls.is_some(),
        stream_error,
        consumers: consumers.len(),
        is_paused: consumers.iter().any(|consumer| consumer.paused),
        depth: Depth::new(stored, totals, running, workers.scheduled()),
        redelivered: totals.redelivered,
        callbacks: inventory.messages(&queue.callback_stream()),
        dead_letters: inventory.messages(&queue.dead_letter_stream()),
        dead_reason: read_dead_reason(js, inventory, queue).await?,
        workers,
        oldest_seconds: oldest.map(age),
        kubernetes,
    })
}

/// Returns why no server answers for a stream that was not listed; `None` if it does not exist.
async fn read_stream_error(js: &Context, stream: &str) -> Option<String> {
    let error = find_stream(js, stream).await.err()?;
    Some(error_chain(&error))
}

/// Returns the most frequent reason of the newest dead letters.
async fn read_dead_reason(
    js: &Context,
    inventory: &QueueInventory,
    queue: &QueueName,
) -> anyhow::Result<Option<DeadReason>> {
    let stream = inventory.streams.get(&queue.dead_letter_stream());
    let Some(stream) = stream.filter(|stream| stream.messages > 0) else { return Ok(None) };
    let from = stream.last_sequence.saturating_sub(MAX_REASONS as u64 - 1);
    // Only the reasons are read, so that no function needs a namespace.
    let letters = DeadLetters::open(js, queue, "").await?;
    let page = letters.page(">", from, MAX_REASONS, MAX_REASON_BYTES).await?;
    Ok(DeadReason::most_frequent(page.letters.iter().map(|letter| &*letter.death.reason)))
}

impl<'a> Report<'a> {
    fn new(facts: &'a Facts) -> Self {
        let (workers, slots) = facts.slots().unzip();
        Self {
            queue: &facts.queue,
            stream: facts.wanted_stream.as_deref().filter(|_| facts.has_stream),
            async_queues: facts.async_queues().iter().map(AsyncQueue::full_name).collect(),
            not_read: match &facts.kubernetes {
                Kubernetes::NotRead(why) => Some(why),
                Kubernetes::Standalone | Kubernetes::Read(_) => None,
            },
            pending: facts.depth.not_running(),
            retrying: workers.map(|_| facts.depth.retrying),
            inflight: workers.map(|_| facts.depth.running),
            slots,
            workers,
            scheduled: facts.depth.scheduled,
            redelivered: facts.redelivered,
            callbacks: facts.callbacks,
            dead_letters: facts.dead_letters,
            oldest_seconds: facts.oldest_seconds,
            findings: diagnose(facts),
        }
    }

    /// Returns the `AsyncQueue` as a cell.
    fn async_queue(&self) -> String {
        match (self.not_read, &self.async_queues[..]) {
            (Some(why), _) => format!("not read: {why}"),
            (None, []) => table::EMPTY_CELL.to_owned(),
            (None, names) => names.join(", "),
        }
    }
}

fn render(report: &Report<'_>) -> String {
    let seconds = report.oldest_seconds.map(std::time::Duration::from_secs);
    let inflight = report.inflight.zip(report.slots);
    let head = table::fields(&[
        ("Queue", report.queue.to_string()),
        ("AsyncQueue", report.async_queue()),
        ("Stream", table::cell_or_empty(report.stream)),
        ("Workers", table::cell_or_empty(report.workers)),
        (
            "In flight",
            table::cell_or_empty(inflight.map(|(calls, slots)| format!("{calls} of {slots}"))),
        ),
        ("Pending", report.pending.to_string()),
        ("Retrying", table::cell_or_empty(report.retrying)),
        ("Scheduled", report.scheduled.to_string()),
        ("Redelivered", report.redelivered.to_string()),
        ("Callbacks", report.callbacks.to_string()),
        ("Dead letters", report.dead_letters.to_string()),
        ("Oldest call", table::cell_or_empty(seconds.map(table::age))),
    ]);
    if report.findings.is_empty() {
        return format!("{head}\nNothing is wrong.\n");
    }
    let findings = report.findings.iter().map(|Finding { severity, name, cause, remedy }| {
        let parts = [("Cause", cause.clone()), ("Remedy", remedy.clone())];
        format!("\n{} {}\n{}", severity.as_str(), table::printable(name), table::fields(&parts))
    });
    format!("{head}{}", findings.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_reads_one_namespace_or_all() {
        let queue = "jobs".parse().unwrap();
        let tail = "--output=json --request-timeout=10s";
        for (namespace, place) in [
            (Some("ns"), "jobs --namespace=ns --ignore-not-found"),
            (None, "--field-selector=metadata.name=jobs --all-namespaces"),
        ] {
            let line = kubectl_arguments(&queue, namespace).join(" ");
            assert_eq!(line, format!("asyncqueues.asyncqueue.io {place} {tail}"));
        }
    }

    #[test]
    fn async_queue_that_is_not_the_owner_is_left_out() {
        let stream = |uid: &str| StreamSummary {
            name: "JOBS".to_owned(),
            subjects: Vec::new(),
            owner: Some("ns/jobs".to_owned()),
            owner_uid: Some(uid.to_owned()),
            messages: 0,
            last_sequence: 0,
            oldest: Timestamp::UNIX_EPOCH,
        };
        let queue = br#"{"metadata": {"name": "jobs", "namespace": "ns", "uid": "1"}, "status":
            {"conditions": [{"type": "Ready", "status": "True", "reason": "R", "message": "M"}]}}"#;
        let read = |uid: Option<&str>| {
            let stream = uid.map(stream);
            of_stream(stream.as_ref(), AsyncQueue::read(queue).unwrap())
        };
        for uid in [Some("1"), None] {
            assert!(matches!(read(uid), Kubernetes::Read(all) if all.len() == 1), "{uid:?}");
        }
        let Kubernetes::NotRead(why) = read(Some("2")) else { panic!("another owner") };
        for part in ["AsyncQueue ns/jobs", "stream JOBS", "UID 2", "--context"] {
            assert!(why.contains(part), "{why}");
        }
        let none = of_stream(Some(&stream("1")), Vec::new());
        assert!(matches!(none, Kubernetes::Read(all) if all.is_empty()));
    }

    #[test]
    fn report_has_the_numbers_before_the_findings() {
        let facts = Facts {
            queue: "jobs".parse().unwrap(),
            wanted_stream: Some("JOBS".to_owned()),
            has_stream: true,
            stream_error: None,
            consumers: 1,
            is_paused: false,
            depth: Depth { waiting: 2, ..Depth::default() },
            redelivered: 0,
            callbacks: 0,
            dead_letters: 0,
            dead_reason: None,
            workers: stats::WorkerReplies::None,
            oldest_seconds: Some(180),
            kubernetes: Kubernetes::NotRead("kubectl is not there".to_owned()),
        };
        let text = render(&Report::new(&facts));
        for part in [
            "Queue:          jobs\nAsyncQueue:     not read: kubectl is not there\n",
            "Workers:        0\nIn flight:      0 of 0\nPending:        2\n",
            "Oldest call:    3m\n\nerror NoWorkers\nCause:    No worker is connected: 2 calls",
            "\nRemedy:   Start a worker",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let idle =
            Facts { depth: Depth::default(), workers: stats::WorkerReplies::NoReply, ..facts };
        let json = serde_json::to_value(Report::new(&idle)).unwrap();
        assert_eq!((&json["workers"], &json["stream"]), (&serde_json::Value::Null, &"JOBS".into()));
        assert_eq!(json["findings"][0]["name"], "WorkersSilent");
        assert_eq!(json["findings"][0]["severity"], "warning");
    }
}
