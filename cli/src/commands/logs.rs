//! `kubectl aq logs`

use std::process::Stdio;

use anyhow::{Context, bail};
use asyncqueue::{
    CallId, GoDuration, QUEUE_LABEL, QueueName,
    call::Lookup,
    inventory::{QueueInventory, StreamSummary},
};
use asyncqueue_runtime::program::UsageError;
use clap::Args;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::{cluster::ClusterArgs, inventory, lookup, output, session::Session};

/// Number of pods whose log is read at the same time: kubectl refuses more.
const MAX_PODS: u16 = 1_000;

/// Shows the log of a queue's workers, or what it says of a call
///
/// Runs `kubectl logs`, for which you need `list` of `pods` and `get` of `pods/log` in the
/// namespace of the queue. The lines of pods that are gone are gone with them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        kubectl aq logs slow-queue --since 10m\n  \
        kubectl aq logs slow-queue --follow\n  \
        kubectl aq logs 01234567-89ab-7cde-8f01-23456789abcd")]
pub(crate) struct LogsArgs {
    /// A queue, or the id of a call. A text that is both is the queue
    #[arg(value_name = "QUEUE|CALL-ID")]
    target: String,

    /// Queue of the call. Default: the queue that has the call
    #[arg(long)]
    queue: Option<QueueName>,

    /// Go on with new lines
    #[arg(short, long)]
    follow: bool,

    /// Only lines of this time, for example 10m
    #[arg(long)]
    since: Option<GoDuration>,

    /// Maximum number of lines of each pod, before they are searched. Default: all
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
}

/// Whose log is shown.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    queue: QueueName,
    /// Only lines with this call.
    call: Option<CallId>,
}

pub(crate) async fn run(
    session: &Session,
    cluster: &ClusterArgs,
    arguments: &LogsArgs,
) -> anyhow::Result<()> {
    let inventory = inventory::read(&session.js).await?;
    let source = find_source(session, &inventory, arguments).await?;
    let namespace = namespace_of(&inventory, &source.queue)?;
    let mut kubectl = Command::new("kubectl")
        .args(kubectl_arguments(&source.queue, arguments))
        .args(cluster.kubectl_options(Some(&namespace)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("failed to start kubectl, which reads the log: install it")?;
    let stdout = kubectl.stdout.take().context("failed to read what kubectl prints")?;
    let mut lines = BufReader::new(stdout).split(b'\n');
    let mut found = 0_u64;
    while let Some(line) = lines.next_segment().await.context("failed to read from kubectl")? {
        if is_shown(&line, source.call.as_ref()) {
            output::print_bytes(&[&line[..], b"\n"].concat())?;
            found += 1;
        }
    }
    let status = kubectl.wait().await.context("failed to wait for kubectl")?;
    if !status.success() {
        bail!(
            "kubectl could not read the log: you need `list` of `pods` and `get` of `pods/log` in \
             the namespace `{namespace}`"
        );
    }
    match &source.call {
        Some(call) if found == 0 => bail!(
            "the log of queue `{}` has no line of call `{call}`: it has not run there, or its \
             worker is gone",
            source.queue
        ),
        _ => Ok(()),
    }
}

async fn find_source(
    session: &Session,
    inventory: &QueueInventory,
    arguments: &LogsArgs,
) -> anyhow::Result<Source> {
    let LogsArgs { target, queue, .. } = arguments;
    if let Ok(named) = target.parse::<QueueName>()
        && queue.is_none()
        && inventory.queues.contains_key(&named)
    {
        return Ok(Source { queue: named, call: None });
    }
    let call: CallId = target
        .parse()
        .map_err(|_| UsageError(format!("`{target}` is neither a queue nor the id of a call")))?;
    let found = match queue {
        Some(queue) => Some(queue.clone()),
        None => match lookup::look_up(&session.js, None, &call).await? {
            Lookup::Pending { newest, .. } => Some(newest.location.queue.clone()),
            Lookup::Ended(status) | Lookup::Cancelling(status) => Some(status.queue),
            Lookup::NotFound => None,
        },
    };
    let queue = found.with_context(|| {
        format!(
            "there is no queue and no call `{target}`: name the queue of a call that has ended \
             with --queue"
        )
    })?;
    Ok(Source { queue, call: Some(call) })
}

/// Returns the namespace of a queue's workers, which is that of its `AsyncQueue`.
fn namespace_of(inventory: &QueueInventory, queue: &QueueName) -> anyhow::Result<String> {
    let owner = inventory.call_stream(queue).and_then(|stream: &StreamSummary| {
        stream.owner.as_ref()?.split_once('/').map(|(namespace, _)| namespace.to_owned())
    });
    owner.with_context(|| {
        format!(
            "queue `{queue}` has no AsyncQueue, so its workers are not known to Kubernetes: look \
             where they were started"
        )
    })
}

fn kubectl_arguments(queue: &QueueName, arguments: &LogsArgs) -> Vec<String> {
    let LogsArgs { follow, since, tail, .. } = arguments;
    // By default kubectl prints ten lines of each pod.
    let tail = tail.map_or_else(|| "-1".to_owned(), |lines| lines.to_string());
    [
        Some("logs".to_owned()),
        Some(format!("--selector={QUEUE_LABEL}={queue}")),
        Some("--prefix".to_owned()),
        Some(format!("--max-log-requests={MAX_PODS}")),
        Some(format!("--tail={tail}")),
        since.as_ref().map(|since| format!("--since={}s", since.0.as_secs())),
        follow.then(|| "--follow".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns whether a line is shown: those of a call contain its id.
fn is_shown(line: &[u8], call: Option<&CallId>) -> bool {
    call.is_none_or(|call| {
        let id = call.as_str().as_bytes();
        line.windows(id.len()).any(|part| part == id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(follow: bool, since: Option<&str>, tail: Option<u32>) -> LogsArgs {
        let since = since.map(|since| since.parse().unwrap());
        LogsArgs { target: "jobs".to_owned(), queue: None, follow, since, tail }
    }

    #[test]
    fn kubectl_reads_all_lines_of_all_workers_of_the_queue() {
        let queue = "jobs".parse().unwrap();
        let logs = "logs --selector=asyncqueue.io/queue=jobs --prefix --max-log-requests=1000";
        for (arguments, rest) in [
            (arguments(false, None, None), "--tail=-1"),
            (arguments(true, Some("10m"), Some(5)), "--tail=5 --since=600s --follow"),
        ] {
            let line = kubectl_arguments(&queue, &arguments).join(" ");
            assert_eq!(line, format!("{logs} {rest}"));
        }
    }

    #[test]
    fn lines_of_a_call_contain_its_id() {
        let call = "id-1".parse().unwrap();
        assert!(is_shown(b"[pod/w-1] Invoked figlet id-1 \xff", Some(&call)));
        assert!(!is_shown(b"Invoked figlet id-2", Some(&call)));
        assert!(!is_shown(b"", Some(&call)));
        assert!(is_shown(b"", None));
    }
}
