//! The connection to NATS, for as long as a command runs.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{Context, ContextBuilder},
};
use asyncqueue_runtime::{health::Health, nats, settings::NatsSettings};
use prometheus_client::registry::Registry;
use tokio::time::timeout;

/// What NATS lists the connection as.
const CONNECTION_NAME: &str = "kubectl-aq";

/// How long NATS may take to be reached, or to answer: people wait for it.
pub(crate) const NATS_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to NATS.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) js: Context,
}

impl Session {
    /// Connects, or says why that can't be done.
    pub(crate) async fn open(settings: &NatsSettings) -> anyhow::Result<Self> {
        let client = connect(settings, "--nats-url").await?;
        if let Ok(Some(off)) = timeout(NATS_TIMEOUT, nats::jetstream::probe(&client)).await {
            anyhow::bail!(off.message(&nats::jetstream::urls(settings)?));
        }
        Ok(Self { js: jetstream(client) })
    }
}

/// Connects, or says why that can't be done; `setting` says where the server is.
pub(crate) async fn connect(settings: &NatsSettings, setting: &str) -> anyhow::Result<Client> {
    // The programs wait for NATS as long as it takes, and their health says what they wait for.
    let health = Health::new();
    let client = nats::connect(settings, CONNECTION_NAME, &health, &mut Registry::default()).await?;
    if timeout(NATS_TIMEOUT, nats::wait_connected(&client)).await.is_err() {
        let reasons = health.report().err().unwrap_or_default();
        let reason = reasons.into_iter().map(|(_, reason)| reason).next().unwrap_or_default();
        anyhow::bail!("gave up after {}s {reason}; {setting} says where NATS is", NATS_TIMEOUT.as_secs());
    }
    Ok(client)
}

/// The `JetStream` of a connection.
pub(crate) fn jetstream(client: Client) -> Context {
    ContextBuilder::new().timeout(NATS_TIMEOUT).ack_timeout(NATS_TIMEOUT).build(client)
}
