//! Cancels the calls with an id: queued, running, or waiting for their next attempt.
//!
//!     cargo run -p asyncqueue --example cancel -- CALL-ID
//!
//! `nats_url` is the URL of NATS. `queue_name` is the queue of functions for which the directory
//! has none.

use std::{env, error::Error, process::ExitCode, time::Duration};

use asyncqueue::{
    CallId, QueueName, async_nats,
    call::CallQuery,
    cancel::{CancelOutcome, cancel_calls},
    directory::watch::read_current,
    lookup::candidate_queues,
};

/// Maximum time to wait until it is certain that no call starts any more.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time to wait for the directory, which is there at once or, without an operator, not at
/// all.
const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [call_id] = &arguments[..] else {
        eprintln!("usage: cancel CALL-ID");
        return ExitCode::from(2);
    };
    match cancel(call_id).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cancel: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn cancel(call_id: &str) -> Result<(), Box<dyn Error>> {
    let id: CallId = call_id.parse()?;
    let default_queue: QueueName = setting("queue_name", "faas-request").parse()?;
    let client = async_nats::connect(setting("nats_url", "nats://127.0.0.1:4222")).await?;
    let js = async_nats::jetstream::new(client);

    let query = CallQuery { id, function: None };
    let directory = read_current(&js, DIRECTORY_TIMEOUT).await;
    let queues = candidate_queues(&directory, &default_queue, &query);
    match cancel_calls(&js, &queues, &query, CONFIRM_TIMEOUT).await? {
        CancelOutcome::Cancelled(counts) => println!("{} cancelled", counts.cancelled),
        CancelOutcome::Ended { end, .. } => println!("already ended: {end}"),
        CancelOutcome::Unconfirmed => return Err("cancellation not confirmed; retry".into()),
        CancelOutcome::NotFound => return Err(format!("call {call_id} not found").into()),
    }
    Ok(())
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
