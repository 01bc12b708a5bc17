//! Lists the dead letters of a queue, or replays those of the calls that are named.
//!
//!     cargo run -p asyncqueue --example replay -- QUEUE [CALL-ID...]
//!
//! `nats_url` is the URL of NATS.

use std::{env, error::Error, process::ExitCode, time::Duration};

use asyncqueue::{
    CallId, QueueName, async_nats,
    dead_letters::{DeadLetters, Selection},
    directory::{QueueEntry, watch::read_current},
};

/// Maximum time to wait for the directory, which is there at once or, without an operator, not at
/// all.
const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [queue, calls @ ..] = &arguments[..] else {
        eprintln!("usage: replay QUEUE [CALL-ID...]");
        return ExitCode::from(2);
    };
    match replay(queue, calls).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("replay: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn replay(queue: &str, calls: &[String]) -> Result<(), Box<dyn Error>> {
    let queue: QueueName = queue.parse()?;
    let calls = calls.iter().map(|id| id.parse()).collect::<Result<Vec<CallId>, _>>()?;
    let client = async_nats::connect(setting("nats_url", "nats://127.0.0.1:4222")).await?;
    let js = async_nats::jetstream::new(client);

    let letters = DeadLetters::open(&js, &queue, "openfaas-fn").await?;
    if calls.is_empty() {
        for letter in letters.list(&Selection::All).await? {
            println!("{}: {}", letter.call_id, letter.death.reason);
        }
        return Ok(());
    }
    // Where the queue's calls go now.
    let entry = read_current(&js, DIRECTORY_TIMEOUT).await.queues.get(&queue).cloned();
    let entry = entry.unwrap_or_else(|| QueueEntry::with_default_names(&queue));
    for letter in letters.list(&Selection::Calls(calls)).await? {
        let outcome = letters.replay(&letter, &entry).await?;
        println!("{}: {outcome:?}", letter.call_id);
    }
    Ok(())
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
