//! `kubectl aq cancel`

use std::{str::FromStr, time::Duration};

use asyncqueue::{
    CallId, QueueName,
    cancel::{self, CancelCounts, CancelOutcome},
};
use clap::Args;

use crate::{find, output, session::Session, status};

/// How long to wait until the worker that has the call confirms that it does not start.
const PATIENCE: Duration = Duration::from_secs(5);

/// Stands for the queue if it is not known.
const ANY: &str = "-";

/// Cancels a call: queued, running, or waiting for its next attempt
///
/// It never starts again. Where it runs, its worker closes the connection to the function. Its
/// caller, if it asked for a callback, is told the status 499.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  kubectl aq cancel - 01234567-89ab-7cde-8f01-23456789abcd")]
pub(crate) struct Arguments {
    /// Its queue; `-` to look for it on all
    #[arg(value_name = "QUEUE|-")]
    queue: MaybeQueue,

    /// Its id
    #[arg(value_name = "CALL-ID")]
    call_id: CallId,
}

/// The name of a queue, or `None` for any queue.
#[derive(Clone, Debug)]
struct MaybeQueue(Option<QueueName>);

pub(crate) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { queue: MaybeQueue(queue), call_id } = arguments;
    let wanted = find::wanted(call_id);
    let places = find::places(&session.js, queue.as_ref(), &wanted).await?;
    let words = match cancel::cancel_calls(&session.js, &places, &wanted, PATIENCE).await? {
        CancelOutcome::Cancelled(tally) => describe(&tally),
        CancelOutcome::Unconfirmed => anyhow::bail!(
            "call `{call_id}` is not cancelled for certain yet: a worker that has it does not answer; try again"
        ),
        CancelOutcome::Ended { end, status } => {
            let how = status.map_or_else(|| end.to_string(), |status| status::words(&status.state));
            anyhow::bail!("call `{call_id}` can't be cancelled, it has ended: {how}")
        }
        CancelOutcome::NotFound => return Err(find::unknown(call_id, queue.as_ref())),
    };
    Ok(output::print(&format!("{call_id}: {words}\n"))?)
}

fn describe(tally: &CancelCounts) -> String {
    match tally {
        CancelCounts { cancelled: 1, before: 1, .. } => "was cancelled before".to_owned(),
        CancelCounts { cancelled: 1, running: 1, .. } => {
            "cancelled while it was running".to_owned()
        }
        CancelCounts { cancelled: 1, .. } => "cancelled, it will not start".to_owned(),
        CancelCounts { cancelled, running, before, .. } => {
            format!(
                "{cancelled} calls have this id: all are cancelled, {running} while running, {before} before"
            )
        }
    }
}

impl FromStr for MaybeQueue {
    type Err = <QueueName as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ANY { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}
