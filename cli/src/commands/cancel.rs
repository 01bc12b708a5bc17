//! `kubectl aq cancel`

use std::{str::FromStr, time::Duration};

use asyncqueue::{
    CallId, QueueName,
    cancel::{self, CancelCounts, CancelOutcome},
};
use clap::Args;

use crate::{lookup, output, session::Session};

/// Maximum time for the worker that has the call to confirm that the call does not start.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// The argument for all queues.
const ANY_QUEUE: &str = "-";

/// Cancels a call: queued, running, or waiting for its next attempt
///
/// The call does not start again. If it is running, its worker closes the connection to the
/// function. Its callback, if it has one, gets the status 499.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kubectl aq cancel - 01234567-89ab-7cde-8f01-23456789abcd")]
pub(crate) struct CancelArgs {
    /// Queue of the call, or `-` for all queues
    #[arg(value_name = "QUEUE|-")]
    queue: QueueFilter,

    /// Id of the call
    #[arg(value_name = "CALL-ID")]
    call_id: CallId,
}

/// The name of a queue, or `None` for any queue.
#[derive(Clone, Debug)]
struct QueueFilter(Option<QueueName>);

pub(crate) async fn run(session: &Session, arguments: &CancelArgs) -> anyhow::Result<()> {
    let CancelArgs { queue: QueueFilter(queue), call_id } = arguments;
    let query = lookup::query(call_id);
    let places = lookup::candidate_places(&session.js, queue.as_ref(), &query).await?;
    let outcome = match cancel::cancel_calls(&session.js, &places, &query, CONFIRM_TIMEOUT).await? {
        CancelOutcome::Cancelled(tally) => describe_cancelled(&tally),
        CancelOutcome::Unconfirmed => anyhow::bail!(
            "cancellation of call `{call_id}` not confirmed: a worker that has the call does not \
             respond; retry"
        ),
        CancelOutcome::Ended { end, status } => {
            let how = status.map_or_else(|| end.to_string(), |status| status.state.to_string());
            anyhow::bail!("call `{call_id}` can't be cancelled, it has ended: {how}")
        }
        CancelOutcome::NotFound => return Err(lookup::not_found(call_id, queue.as_ref())),
    };
    Ok(output::print(&format!("{call_id}: {outcome}\n"))?)
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
