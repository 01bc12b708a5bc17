//! `kubectl aq cancel`

use std::{str::FromStr, time::Duration};

use anyhow::Context as _;
use asyncqueue::{
    CallId, FunctionName, QueueName,
    batch::BatchId,
    call::QueueLocation,
    cancel::{self, BatchCancelCounts, CancelCounts, CancelOutcome, ManyCancelCounts, StoredCalls},
};
use asyncqueue_runtime::program::UsageError;
use clap::{ArgGroup, Args};
use futures::{StreamExt, TryStreamExt, stream};

use super::batch::not_found;
use crate::{inventory, lookup, output, session::Session};

/// Maximum time for the workers that have the calls to confirm that they do not start.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// The argument for all queues.
const ANY_QUEUE: &str = "-";

/// Number of queues whose calls are counted concurrently.
const MAX_CONCURRENT_COUNTS: usize = 64;

/// Cancels a call, what is left of a batch, or all calls of a function or a queue
///
/// A cancelled call does not start again, whether it is queued, running or waiting for its next
/// attempt. If it is running, its worker closes the connection to the function. Its callback, if it
/// has one, gets the status 499.
///
/// `--function` and `--all` cancel what is stored when the command counts it, and leave calls that
/// come later. Without `--yes` they say how many calls that are. A repeat cancels what is left.
/// They leave messages that an OpenFaaS gateway stored, and say how many there are.
#[derive(Debug, Args)]
#[command(
    override_usage = "kubectl aq cancel [OPTIONS] <QUEUE|-> <CALL-ID>\n       \
                      kubectl aq cancel [OPTIONS] --batch <BATCH-ID>\n       \
                      kubectl aq cancel [OPTIONS] --function <NAME> --yes [QUEUE]\n       \
                      kubectl aq cancel [OPTIONS] --all --yes <QUEUE>",
    group = ArgGroup::new("selection").required(true)
)]
#[command(after_help = "Examples:
  kubectl aq cancel - 01234567-89ab-7cde-8f01-23456789abcd
  kubectl aq cancel --batch report-7
  kubectl aq cancel --function figlet
  kubectl aq cancel --all slow-queue --yes")]
pub(crate) struct CancelArgs {
    /// Queue of the calls, or `-` for all queues
    #[arg(value_name = "QUEUE|-")]
    queue: Option<QueueFilter>,

    /// Id of the call
    #[arg(value_name = "CALL-ID", group = "selection")]
    call_id: Option<CallId>,

    /// Id of a batch. The calls of it that have not ended are cancelled
    #[arg(long, value_name = "BATCH-ID", group = "selection", conflicts_with = "queue")]
    batch: Option<BatchId>,

    /// All calls of this function, NAME or NAME.NAMESPACE. Default of QUEUE: all queues
    #[arg(long, value_name = "NAME", group = "selection")]
    function: Option<String>,

    /// All calls of QUEUE
    #[arg(long, group = "selection", requires = "queue")]
    all: bool,

    /// Namespace of functions that are named without one
    #[arg(long, env = "function_namespace", default_value = "openfaas-fn")]
    function_namespace: String,

    /// Confirm --function or --all
    #[arg(long, conflicts_with_all = ["call_id", "batch"])]
    yes: bool,
}

/// The name of a queue, or `None` for any queue.
#[derive(Clone, Debug)]
struct QueueFilter(Option<QueueName>);

pub(crate) async fn run(session: &Session, arguments: &CancelArgs) -> anyhow::Result<()> {
    let text = match arguments {
        CancelArgs { batch: Some(batch), .. } => cancel_batch(session, batch).await?,
        CancelArgs { queue: Some(QueueFilter(queue)), call_id: Some(call_id), .. } => {
            cancel_call(session, queue.as_ref(), call_id).await?
        }
        CancelArgs { function: Some(function), queue, function_namespace, yes, .. } => {
            let function = FunctionName::parse(function, function_namespace)
                .map_err(|error| UsageError(error.to_string()))?;
            let queue = queue.as_ref().and_then(|QueueFilter(queue)| queue.as_ref());
            cancel_many(session, queue, Some(&function), *yes).await?
        }
        CancelArgs { all: true, queue: Some(QueueFilter(Some(queue))), yes, .. } => {
            cancel_many(session, Some(queue), None, *yes).await?
        }
        _ => return Err(UsageError("--all needs the name of a queue".to_owned()).into()),
    };
    Ok(output::print(&text)?)
}

async fn cancel_call(
    session: &Session,
    queue: Option<&QueueName>,
    call_id: &CallId,
) -> anyhow::Result<String> {
    let query = lookup::query(call_id);
    let places = lookup::candidate_places(&session.js, queue, &query).await?;
    match cancel::cancel_calls(&session.js, &places, &query, CONFIRM_TIMEOUT).await? {
        CancelOutcome::Cancelled(tally) => {
            Ok(format!("{call_id}: {}\n", describe_cancelled(&tally)))
        }
        CancelOutcome::Unconfirmed => anyhow::bail!(
            "cancellation of call `{call_id}` not confirmed: a worker that has the call does not \
             respond; retry"
        ),
        CancelOutcome::Ended { end, status } => {
            let how = status.map_or_else(|| end.to_string(), |status| status.state.to_string());
            anyhow::bail!("call `{call_id}` can't be cancelled, it has ended: {how}")
        }
        CancelOutcome::NotFound => Err(lookup::not_found(call_id, queue)),
    }
}

async fn cancel_batch(session: &Session, batch: &BatchId) -> anyhow::Result<String> {
    let counts = cancel::cancel_batch(&session.js, batch, CONFIRM_TIMEOUT).await?;
    match counts.ok_or_else(|| not_found(batch))? {
        BatchCancelCounts { unconfirmed: unconfirmed @ 1.., .. } => anyhow::bail!(
            "cancellation of batch `{batch}` not confirmed: workers that have {unconfirmed} calls \
             of it do not respond; retry"
        ),
        BatchCancelCounts { cancelled: 0, .. } => {
            anyhow::bail!("batch `{batch}` can't be cancelled: all of its calls have ended")
        }
        BatchCancelCounts { cancelled, ended, .. } => {
            Ok(format!("{batch}: calls cancelled: {cancelled}, ended before: {ended}\n"))
        }
    }
}

/// Cancels the calls that a queue or all queues store now: those of a function, or all. Without a
/// confirmation it returns an error with their number.
async fn cancel_many(
    session: &Session,
    queue: Option<&QueueName>,
    function: Option<&FunctionName>,
    is_confirmed: bool,
) -> anyhow::Result<String> {
    let counting: Vec<_> = locations(session, queue)
        .await?
        .into_iter()
        .map(|location| StoredCalls::find(&session.js, location, function))
        .collect();
    let found: Vec<StoredCalls> =
        stream::iter(counting).buffered(MAX_CONCURRENT_COUNTS).try_collect().await?;
    let without_id: u64 = found.iter().map(StoredCalls::without_id).sum();
    if without_id > 0 {
        output::print_error(&format!(
            "not cancelled: messages of OpenFaaS gateways, which have no id to be cancelled by: \
             {without_id}"
        ));
    }
    if !is_confirmed {
        let counts: Vec<u64> = found.iter().map(StoredCalls::count).collect();
        return Err(UsageError(confirmation(queue, function, &counts)).into());
    }
    let mut total = ManyCancelCounts::default();
    for calls in &found {
        let cancelled = calls.cancel(&session.js, CONFIRM_TIMEOUT).await;
        total += cancelled.context("some calls may be left, repeat the command")?;
    }
    describe_many(&total)
}

/// Returns where the calls of a queue are, or those of all queues.
async fn locations(
    session: &Session,
    queue: Option<&QueueName>,
) -> anyhow::Result<Vec<QueueLocation>> {
    if let Some(queue) = queue {
        let entry = inventory::queue_entry(&session.js, queue).await?;
        return Ok(vec![QueueLocation { queue: queue.clone(), entry }]);
    }
    let queues = inventory::read(&session.js).await?.queues.into_iter();
    Ok(queues.filter_map(|(queue, entry)| Some(QueueLocation { queue, entry: entry? })).collect())
}

/// Returns the error that asks for a confirmation. `counts` are the calls of each queue.
fn confirmation(
    queue: Option<&QueueName>,
    function: Option<&FunctionName>,
    counts: &[u64],
) -> String {
    let function = function.map(|function| format!(" of function `{function}`"));
    let queue = queue.map(|queue| format!(" of queue `{queue}`"));
    let what: String = [function, queue].into_iter().flatten().collect();
    let queues = counts.iter().filter(|count| **count > 0).count();
    let calls: u64 = counts.iter().sum();
    format!("add --yes to cancel all calls{what}: at most {calls}, on queues: {queues}")
}

/// Describes the outcome of the cancellation of many calls. An error if some are not cancelled for
/// certain.
fn describe_many(counts: &ManyCancelCounts) -> anyhow::Result<String> {
    let ManyCancelCounts { calls, unreadable } = counts;
    let CancelCounts { cancelled, running, ended, unconfirmed, .. } = calls;
    let text =
        format!("calls cancelled: {cancelled}, of them running: {running}, ended before: {ended}");
    if unconfirmed + unreadable == 0 {
        return Ok(format!("{text}\n"));
    }
    anyhow::bail!(
        "{text}, not confirmed because their workers do not respond: {unconfirmed}, left because \
         their messages can't be read: {unreadable}. A call that is not confirmed does not start \
         once its worker sees the cancellation, and not after two times consumer.ackWait"
    )
}

fn describe_cancelled(tally: &CancelCounts) -> String {
    match tally {
        CancelCounts { cancelled: 1, before: 1, .. } => "already cancelled".to_owned(),
        CancelCounts { cancelled: 1, running: 1, .. } => "cancelled while running".to_owned(),
        CancelCounts { cancelled: 1, .. } => "cancelled, it will not start".to_owned(),
        CancelCounts { cancelled, running, before, .. } => {
            format!(
                "{cancelled} calls with this id cancelled: {running} while running, {before} \
                 already before"
            )
        }
    }
}

impl FromStr for QueueFilter {
    type Err = <QueueName as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ANY_QUEUE { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmation_names_what_would_be_cancelled() {
        let (queue, function) = ("jobs".parse().unwrap(), FunctionName::new("figlet", "dev"));
        let function = function.unwrap();
        assert_eq!(
            confirmation(Some(&queue), None, &[3]),
            "add --yes to cancel all calls of queue `jobs`: at most 3, on queues: 1"
        );
        assert_eq!(
            confirmation(None, Some(&function), &[3, 0, 4]),
            "add --yes to cancel all calls of function `figlet.dev`: at most 7, on queues: 2"
        );
        let both = confirmation(Some(&queue), Some(&function), &[0]);
        assert!(both.contains("of function `figlet.dev` of queue `jobs`: at most 0"), "{both}");
    }

    #[test]
    fn calls_that_are_not_cancelled_for_certain_are_an_error() {
        let calls = CancelCounts { cancelled: 3, running: 1, ended: 2, ..CancelCounts::default() };
        let all = ManyCancelCounts { calls, unreadable: 0 };
        assert_eq!(
            describe_many(&all).unwrap(),
            "calls cancelled: 3, of them running: 1, ended before: 2\n"
        );
        let unconfirmed = CancelCounts { unconfirmed: 4, ..calls };
        for (counts, part) in [
            (ManyCancelCounts { calls: unconfirmed, ..all }, "do not respond: 4, left"),
            (ManyCancelCounts { unreadable: 5, ..all }, "can't be read: 5."),
        ] {
            let error = describe_many(&counts).unwrap_err().to_string();
            assert!(error.starts_with("calls cancelled: 3") && error.contains(part), "{error}");
        }
    }
}
