//! Stores a call on its queue and prints when the stream has it.
//!
//!     cargo run -p asyncqueue --example submit -- FUNCTION BODY [CALL-ID]
//!
//! The function is `name` or `name.namespace`. With a call id that you choose, a repeat stores
//! nothing. `nats_url` is the URL of NATS. `queue_name` is the queue of functions for which the
//! directory has none.

use std::{env, error::Error, process::ExitCode, time::Duration};

use asyncqueue::{
    CallId, FunctionName, Invocation, QueueName, async_nats,
    directory::watch::read_current,
    submit::{SubmitOutcome, Submitter},
};

/// Maximum time to wait for the server's answer.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time to wait for the directory, which is there at once or, without an operator, not at
/// all.
const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (function, body, id) = match &arguments[..] {
        [function, body] => (function, body, None),
        [function, body, id] => (function, body, Some(id.as_str())),
        _ => {
            eprintln!("usage: submit FUNCTION BODY [CALL-ID]");
            return ExitCode::from(2);
        }
    };
    match submit(function, body, id).await {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("submit: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn submit(function: &str, body: &str, id: Option<&str>) -> Result<String, Box<dyn Error>> {
    let function = FunctionName::parse(function, "openfaas-fn")?;
    let default_queue: QueueName = setting("queue_name", "faas-request").parse()?;
    let client = async_nats::connect(setting("nats_url", "nats://127.0.0.1:4222")).await?;
    let js = async_nats::jetstream::new(client);

    let route = read_current(&js, DIRECTORY_TIMEOUT).await.route(&function, &default_queue);
    let submitter = Submitter::new(js, SUBMIT_TIMEOUT);
    let call_id = id.map_or_else(|| Ok(CallId::generate(&route.queue)), str::parse)?;
    let call = Invocation::new(call_id.clone(), function, body.to_owned());
    let outcome = if id.is_some() {
        submitter.submit(&call, &route).await?
    } else {
        submitter.submit_generated(call, &route).await?
    };
    submitter.wait_for_lanes().await;
    let what = match outcome {
        SubmitOutcome::Stored => "stored",
        SubmitOutcome::Duplicate { .. } => "stored before",
    };
    Ok(format!("{what}: {call_id} on {}", route.queue))
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
