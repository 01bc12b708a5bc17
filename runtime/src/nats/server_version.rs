//! Checks whether the JetStream that answers is recent enough.
//!
//! The version of the connected server does not decide: a leaf node may be older than the servers
//! that store. The answer to a request for the account's use of JetStream has the API level of the
//! server that answers: none before 2.11, 1 in 2.11, and more since 2.12.

use std::{sync::atomic::Ordering, time::Duration};

use async_nats::Client;
use serde::Deserialize;
use tokio::time::sleep;

use super::{jetstream_check::INFO_SUBJECT, wait_connected};

/// The oldest version of nats-server that is supported. Suspending a queue needs 2.11, but a
/// cluster of that version leaves some repeated submissions without an answer.
pub const OLDEST: &str = "2.12";

/// The API level that [`OLDEST`] has at least.
const OLDEST_LEVEL: u64 = 2;

/// Interval between two requests while there is no answer, and between two checks for a new
/// connection.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// JetStream is older than [`OLDEST`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "JetStream on {servers} is too old: nats-server {OLDEST} or later is required, and the \
     connected server is {connected}. Upgrade nats-server"
)]
pub struct UnsupportedServer {
    servers: String,
    /// Version of the connected server.
    connected: String,
}

/// The parts of an answer that say which API JetStream has.
#[derive(Deserialize)]
struct Answer {
    api: Option<Api>,
}

#[derive(Deserialize)]
struct Api {
    #[serde(default)]
    level: u64,
}

/// Asks JetStream. Returns `None` if it is recent enough, or if that can't be determined. `servers`
/// is the name of the server in the error, see [`urls`](super::jetstream_check::urls).
pub async fn probe(client: &Client, servers: &str) -> Option<UnsupportedServer> {
    match is_recent(client).await {
        Some(false) => Some(UnsupportedServer::of(client, servers)),
        Some(true) | None => None,
    }
}

/// Returns as soon as a connection leads to a JetStream that is too old. Asks until there is an
/// answer, once for each connection.
pub async fn unsupported(client: &Client, servers: &str) -> UnsupportedServer {
    loop {
        wait_connected(client).await;
        let connection = client.statistics().connects.load(Ordering::Relaxed);
        let is_recent = is_recent(client).await;
        if is_recent == Some(false) {
            return UnsupportedServer::of(client, servers);
        }
        sleep(CHECK_INTERVAL).await;
        while is_recent.is_some()
            && client.statistics().connects.load(Ordering::Relaxed) == connection
        {
            sleep(CHECK_INTERVAL).await;
        }
    }
}

/// Returns whether JetStream is recent enough; `None` if it does not answer.
async fn is_recent(client: &Client) -> Option<bool> {
    let answer = client.request(INFO_SUBJECT, "".into()).await.ok()?;
    has_recent_level(&answer.payload)
}

/// Returns whether the API level in an answer is recent enough; `None` if the answer is an error.
fn has_recent_level(answer: &[u8]) -> Option<bool> {
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    Some(answer.api?.level >= OLDEST_LEVEL)
}

// === impl UnsupportedServer ===

impl UnsupportedServer {
    fn of(client: &Client, servers: &str) -> Self {
        Self { servers: servers.to_owned(), connected: client.server_info().version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_a_low_level_or_none_is_too_old() {
        for (answer, expected) in [
            // 2.10.27, 2.11.17 and 2.12.15.
            (r#"{"memory":0,"api":{"total":0,"errors":0}}"#, Some(false)),
            (r#"{"memory":0,"api":{"level":1,"total":0,"errors":0}}"#, Some(false)),
            (r#"{"memory":0,"api":{"level":3,"total":0,"errors":0}}"#, Some(true)),
            // JetStream is off, and something else answers.
            (r#"{"error":{"code":503,"err_code":10039,"description":"no"}}"#, None),
            ("hi", None),
        ] {
            assert_eq!(has_recent_level(answer.as_bytes()), expected, "{answer}");
        }
    }

    #[test]
    fn the_error_names_both_versions_and_the_remedy() {
        let error =
            UnsupportedServer { servers: "nats://a:1".to_owned(), connected: "2.11.17".to_owned() };
        let text = error.to_string();
        for part in ["nats://a:1", "2.11.17", "2.12 or later is required", "Upgrade nats-server"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
