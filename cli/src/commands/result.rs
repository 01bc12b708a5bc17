//! `kubectl aq result`

use std::time::Duration;

use asyncqueue::{
    CallId, GoDuration, QueueName,
    lookup::{ResultLookup, find_result},
};
use clap::Args;
use tokio::time::{Instant, sleep};

use crate::{
    exit::ResultError,
    kept_result::{self, ResultFormat},
    lookup,
    session::Session,
};

/// Interval between two lookups of a call that has not ended.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Prints the result of a call
///
/// Results are kept for calls with X-Keep-Result or `Prefer: wait`, and on queues with
/// spec.results.retention. If several calls have the id, the newest one counts.
///
/// Exit codes: 0 the function answered with a status below 400, 1 error, 2 invalid command line,
/// 3 the call has not ended, 4 the call is not known or its result is not kept, 5 the call failed.
/// With 5, its result is printed too.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl aq result 01234567-89ab-7cde-8f01-23456789abcd --wait 30s > body
  kubectl aq result order-7 -o json")]
pub(crate) struct ResultArgs {
    /// Id of the call
    #[arg(value_name = "CALL-ID")]
    call_id: CallId,

    /// Queue of the call. Default: all queues that may have the call
    #[arg(long)]
    queue: Option<QueueName>,

    /// Maximum time to wait until the call has ended
    #[arg(long, default_value = "0s")]
    wait: GoDuration,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: ResultFormat,
}

pub(crate) async fn run(session: &Session, arguments: &ResultArgs) -> anyhow::Result<()> {
    let ResultArgs { call_id, queue, wait, output } = arguments;
    let deadline = Instant::now() + wait.0;
    let query = lookup::query(call_id);
    let places = lookup::candidate_places(&session.js, queue.as_ref(), &query).await?;
    loop {
        let error = match find_result(&session.js, &places, &query).await? {
            ResultLookup::Kept(result) => return kept_result::print(&result, *output),
            ResultLookup::Pending => {
                let left = deadline.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    sleep(POLL_INTERVAL.min(left)).await;
                    continue;
                }
                ResultError::Pending(call_id.clone())
            }
            ResultLookup::NotKept => ResultError::NotKept(call_id.clone()),
            ResultLookup::NotFound => {
                ResultError::NotFound(lookup::not_found(call_id, queue.as_ref()).to_string())
            }
        };
        return Err(error.into());
    }
}
