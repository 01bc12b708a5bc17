//! Checks whether JetStream is enabled on the connected server.
//!
//! A NATS server without JetStream answers nothing below `$JS.API`. The client then reports
//! "requested JetStream resource does not exist": true of each request, but no help to a user.

use std::{
    error::Error,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use async_nats::{
    Client, RequestErrorKind as ClientErrorKind,
    connection::State,
    jetstream::{
        self, ErrorCode,
        context::{
            AccountError, AccountErrorKind, CreateStreamError, CreateStreamErrorKind,
            GetStreamError, GetStreamErrorKind, RequestError, RequestErrorKind,
        },
    },
};
use serde::Deserialize;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{LOG_INTERVAL, address::Servers, wait_connected};
use crate::{health::Health, log_limit::LogLimit, program::UsageError, settings::NatsSettings};

/// Name of the readiness condition that [`report`] maintains.
pub const CONDITION: &str = "jetstream";

/// The request for the account's use of JetStream, which is the cheapest one that needs JetStream.
pub(super) const INFO_SUBJECT: &str = "$JS.API.INFO";

/// Interval between two requests while JetStream is not enabled, and between two checks for a new
/// connection.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Where JetStream is not enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JetStreamOff {
    /// On the whole server.
    Server,
    /// For the account of this program.
    Account,
}

/// The parts of an API response that may say that JetStream is not enabled.
#[derive(Deserialize)]
struct Answer {
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
}

/// Asks the server. Returns `None` if JetStream is enabled, or if that can't be determined.
pub async fn probe(client: &Client) -> Option<JetStreamOff> {
    match client.request(INFO_SUBJECT, "".into()).await {
        Ok(answer) => {
            let answer: Answer = serde_json::from_slice(&answer.payload).ok()?;
            JetStreamOff::from_code(answer.error?.err_code)
        }
        Err(error) if error.kind() == ClientErrorKind::NoResponders => Some(JetStreamOff::Server),
        Err(_) => None,
    }
}

/// Returns the servers that the settings name, without credentials: `nats://a:4222,nats://b:4222`.
///
/// # Errors
///
/// A setting that does not name a server.
pub fn urls(settings: &NatsSettings) -> Result<String, UsageError> {
    Servers::from_settings(settings).map(|servers| servers.urls())
}

/// Checks after each connection whether JetStream is enabled, for as long as the future is polled.
/// If it is not, the readiness condition `jetstream` and the log say so, with the remedy. `servers`
/// is the name of the server in these messages, see [`urls`].
pub async fn report(client: &Client, servers: &str, health: &Health) {
    let limit = LogLimit::new(LOG_INTERVAL);
    let mut is_off = false;
    loop {
        if client.connection_state() != State::Connected {
            // Nothing is known about a server that is unavailable.
            health.ready(CONDITION);
            wait_connected(client).await;
        }
        let connection = client.statistics().connects.load(Ordering::Relaxed);
        let off = probe(client).await;
        if let Some(off) = off {
            let message = off.message(servers);
            if limit.allow(Instant::now()).is_some() {
                warn!("{message}");
            }
            health.not_ready(CONDITION, message);
        } else if is_off {
            info!("JetStream is enabled on {servers}");
            health.ready(CONDITION);
        }
        is_off = off.is_some();
        sleep(CHECK_INTERVAL).await;
        while !is_off && client.statistics().connects.load(Ordering::Relaxed) == connection {
            sleep(CHECK_INTERVAL).await;
        }
    }
}

// === impl JetStreamOff ===

impl JetStreamOff {
    /// Returns the message for users. `servers` must not contain credentials.
    #[must_use]
    pub fn message(self, servers: &str) -> String {
        match self {
            Self::Server => {
                format!("JetStream is not enabled on {servers}: start nats-server with -js")
            }
            Self::Account => format!(
                "JetStream is not enabled for the account of this program on {servers}: enable it \
                 there (`jetstream: enabled` in the account's configuration), or use the \
                 credentials of an account that has it"
            ),
        }
    }

    /// Returns `Some` if an error of a JetStream API request means that JetStream is not enabled:
    /// no server answers such requests, or the server says so.
    #[must_use]
    pub fn from_error(error: &(dyn Error + 'static)) -> Option<Self> {
        std::iter::successors(Some(error), |&error| error.source()).find_map(Self::from_cause)
    }

    fn from_cause(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<RequestError>() {
            return (error.kind() == RequestErrorKind::NoResponders).then_some(Self::Server);
        }
        let refused = |error: jetstream::Error| Self::from_code(error.error_code().0);
        if let Some(error) = error.downcast_ref::<GetStreamError>()
            && let GetStreamErrorKind::JetStream(error) = error.kind()
        {
            return refused(error);
        }
        if let Some(error) = error.downcast_ref::<CreateStreamError>()
            && let CreateStreamErrorKind::JetStream(error) = error.kind()
        {
            return refused(error);
        }
        if let Some(error) = error.downcast_ref::<AccountError>() {
            return match error.kind() {
                AccountErrorKind::JetStream(error) => refused(error),
                AccountErrorKind::JetStreamUnavailable => Some(Self::Server),
                AccountErrorKind::TimedOut | AccountErrorKind::Other => None,
            };
        }
        error.downcast_ref().cloned().and_then(refused)
    }

    fn from_code(code: u64) -> Option<Self> {
        match code {
            code if code == ErrorCode::JETSTREAM_NOT_ENABLED.0 => Some(Self::Server),
            code if code == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT.0 => Some(Self::Account),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("NATS did not answer for stream jobs")]
    struct Outer(#[source] GetStreamError);

    fn refused(code: u64) -> jetstream::Error {
        let json = format!(r#"{{"code":503,"err_code":{code},"description":"no"}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn error_is_classified_by_its_cause() {
        let request = |kind| {
            GetStreamError::with_source(GetStreamErrorKind::Request, RequestError::new(kind))
        };
        let api = |code| GetStreamError::new(GetStreamErrorKind::JetStream(refused(code)));
        for (error, expected) in [
            (request(RequestErrorKind::NoResponders), Some(JetStreamOff::Server)),
            (request(RequestErrorKind::TimedOut), None),
            (api(10076), Some(JetStreamOff::Server)),
            (api(10039), Some(JetStreamOff::Account)),
            // No such stream, and no leader.
            (api(10059), None),
            (api(10008), None),
        ] {
            assert_eq!(JetStreamOff::from_error(&Outer(error)), expected);
        }
        assert_eq!(JetStreamOff::from_error(&refused(10039)), Some(JetStreamOff::Account));
    }

    #[test]
    fn the_message_names_the_server_and_what_to_do_and_no_credentials() {
        let settings = NatsSettings::from_url("nats://user:secret@a:1, tls://b, token@[::1]");
        let urls = urls(&settings).unwrap();
        assert_eq!(urls, "nats://a:1,tls://b:4222,nats://[::1]:4222");
        let message = JetStreamOff::Server.message(&urls);
        assert_eq!(
            message,
            format!("JetStream is not enabled on {urls}: start nats-server with -js")
        );
        assert!(JetStreamOff::Account.message(&urls).contains("for the account"));
    }
}
