//! `kubectl aq cancel`

use std::str::FromStr;

use asyncqueue::{
    CallId, QueueName,
    cancel::{Cancelled, cancel_stored},
    locate::Found,
    status::State,
};
use clap::Args;

use crate::{find, output, session::Session, status};

/// What stands for the queue where that is not known.
const ANY: &str = "-";

/// Cancels a call: queued, running, or waiting for its next attempt
///
/// It never starts again. Where it runs, its worker closes the connection to the function. Its caller, if it asked
/// for a callback, is told the status 499.
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

/// The name of a queue, or none for any.
#[derive(Clone, Debug)]
struct MaybeQueue(Option<QueueName>);

pub(crate) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { queue: MaybeQueue(queue), call_id } = arguments;
    let words = match find::find(&session.js, queue.as_ref(), call_id).await? {
        Found::Stored(stored) => {
            let (queue, stream) = (&stored.place.queue, &stored.place.entry.stream);
            let cancelled = cancel_stored(&session.js, queue, stream, call_id, &stored.message).await?;
            describe(cancelled).to_owned()
        }
        Found::Ended(ended) if matches!(ended.state, State::Cancelled { .. }) => {
            describe(Cancelled::Before).to_owned()
        }
        Found::Ended(ended) => {
            anyhow::bail!(
                "call `{call_id}` can't be cancelled, it has ended: {}",
                status::words(&ended.state)
            )
        }
        Found::Ambiguous(queues) => return Err(find::ambiguous(call_id, &queues)),
        Found::Unknown => return Err(find::unknown(call_id, queue.as_ref())),
    };
    Ok(output::print(&format!("{call_id}: {words}\n"))?)
}

fn describe(cancelled: Cancelled) -> &'static str {
    match cancelled {
        Cancelled::Waiting => "cancelled, it will not start",
        Cancelled::Running => "cancelled while it was running",
        Cancelled::Before => "was cancelled before",
        Cancelled::Dead => "has just become a dead letter",
        Cancelled::NotFound => "has just ended",
    }
}

impl FromStr for MaybeQueue {
    type Err = <QueueName as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ANY { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}
