//! `kubectl aq cancel`

use std::{str::FromStr, time::Duration};

use asyncqueue::{
    CallId, QueueName,
    batch::BatchId,
    cancel::{self, BatchCancelCounts, CancelCounts, CancelOutcome},
};
use asyncqueue_runtime::program::UsageError;
use clap::Args;

use super::batch::not_found;
use crate::{lookup, output, session::Session};

/// Maximum time for the workers that have the calls to confirm that they do not start.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// The argument for all queues.
const ANY_QUEUE: &str = "-";

/// Cancels a call, or what is left of a batch
///
/// A cancelled call does not start again, whether it is queued, running or waiting for its next
/// attempt. If it is running, its worker closes the connection to the function. Its callback, if it
/// has one, gets the status 499.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl aq cancel - 01234567-89ab-7cde-8f01-23456789abcd
  kubectl aq cancel --batch report-7")]
pub(crate) struct CancelArgs {
    /// Queue of the call, or `-` for all queues
    #[arg(value_name = "QUEUE|-", required_unless_present = "batch", requires = "call_id")]
    queue: Option<QueueFilter>,

    /// Id of the call
    #[arg(value_name = "CALL-ID")]
    call_id: Option<CallId>,

    /// Id of a batch. The calls of it that have not ended are cancelled
    #[arg(long, value_name = "BATCH-ID", conflicts_with_all = ["queue", "call_id"])]
    batch: Option<BatchId>,
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
        _ => return Err(UsageError("name a queue and a call, or --batch".to_owned()).into()),
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
