//! Prints the status of a call, in JSON.
//!
//!     cargo run -p asyncqueue --example status -- CALL-ID
//!
//! `nats_url` is the URL of NATS. `queue_name` is the queue of functions for which the directory
//! has none.

use std::{env, error::Error, process::ExitCode, time::Duration};

use asyncqueue::{
    CallId, QueueName, async_nats,
    call::{CallQuery, Lookup},
    directory::watch::read_current,
    lookup::{candidate_queues, find_call, remembered_end},
    status::status_of_pending,
};

/// Maximum time to wait for the directory, which is there at once or, without an operator, not at
/// all.
const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [call_id] = &arguments[..] else {
        eprintln!("usage: status CALL-ID");
        return ExitCode::from(2);
    };
    match status(call_id).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("status: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn status(call_id: &str) -> Result<(), Box<dyn Error>> {
    let id: CallId = call_id.parse()?;
    let default_queue: QueueName = setting("queue_name", "faas-request").parse()?;
    let client = async_nats::connect(setting("nats_url", "nats://127.0.0.1:4222")).await?;
    let js = async_nats::jetstream::new(client);

    let query = CallQuery { id, function: None };
    let directory = read_current(&js, DIRECTORY_TIMEOUT).await;
    let queues = candidate_queues(&directory, &default_queue, &query);
    let status = match find_call(&js, &queues, &query).await? {
        Lookup::Pending { newest, .. } => status_of_pending(&js, &query, &newest).await?,
        Lookup::Ended(status) | Lookup::Cancelling(status) => status,
        Lookup::NotFound => remembered_end(&js, &queues, &query)
            .await?
            .ok_or_else(|| format!("call {call_id} not found"))?,
    };
    println!("{}", serde_json::to_string_pretty(&status)?);
    Ok(())
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
