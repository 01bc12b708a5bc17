//! The connection to NATS while a command runs.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        Context, ContextBuilder, ErrorCode,
        context::{AccountError, AccountErrorKind},
    },
};
use asyncqueue_runtime::{health::Health, nats, settings::NatsSettings};
use prometheus_client::registry::Registry;
use tokio::time::timeout;

use crate::cluster::{ClusterArgs, PortForward};

/// The name of the connection in NATS.
const CONNECTION_NAME: &str = "kubectl-aq";

/// Maximum time for connecting to NATS, and for each of its responses: a user waits for them.
pub(crate) const NATS_TIMEOUT: Duration = Duration::from_secs(5);

/// What is said of a JetStream without a leader.
const NO_LEADER: &str = "JetStream has no leader: more than half of the servers of NATS must run, \
                         start the others";

/// A connection to NATS.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) js: Context,
    /// The port that the connection uses, if one is forwarded.
    _forward: Option<PortForward>,
}

impl Session {
    /// Connects, or returns why that failed.
    pub(crate) async fn open(
        settings: &NatsSettings,
        cluster: &ClusterArgs,
    ) -> anyhow::Result<Self> {
        let (found, forward) = cluster.find_nats(settings).await?.unzip();
        let settings = found.as_ref().unwrap_or(settings);
        let client = connect(settings, "--nats-url").await?;
        if let Ok(Some(off)) = timeout(NATS_TIMEOUT, nats::jetstream_check::probe(&client)).await {
            anyhow::bail!(off.message(&nats::jetstream_check::urls(settings)?));
        }
        let servers = nats::jetstream_check::urls(settings)?;
        let version = nats::server_version::probe(&client, &servers);
        if let Ok(Some(unsupported)) = timeout(NATS_TIMEOUT, version).await {
            return Err(unsupported.into());
        }
        Ok(Self { js: jetstream(client), _forward: forward })
    }

    /// Adds to the error of a command that JetStream has no leader, if that is so: it is the cause
    /// of whatever failed, and requests fail in many ways then.
    pub(crate) async fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match self.js.query_account().await {
            Err(answer) if has_no_leader(&answer) => error.context(NO_LEADER),
            _ => error,
        }
    }
}

/// Returns whether a failed request for the account says that JetStream has no leader. A request
/// without an answer says nothing: the user may not be allowed to send it.
fn has_no_leader(error: &AccountError) -> bool {
    match error.kind() {
        AccountErrorKind::JetStream(refused) => {
            refused.error_code() == ErrorCode::CLUSTER_NOT_AVAILABLE
        }
        _ => false,
    }
}

/// Connects, or returns why that failed. `setting` names the setting with the address of the
/// server.
pub(crate) async fn connect(settings: &NatsSettings, setting: &str) -> anyhow::Result<Client> {
    // Programs wait for NATS without limit, and their health gives the reason. A command uses the
    // same health to report why it failed.
    let health = Health::new();
    let client =
        nats::connect(settings, CONNECTION_NAME, &health, &mut Registry::default()).await?;
    if timeout(NATS_TIMEOUT, nats::wait_connected(&client)).await.is_err() {
        let reasons = health.report().err().unwrap_or_default();
        let reason = reasons.into_iter().map(|(_, reason)| reason).next().unwrap_or_default();
        anyhow::bail!(
            "failed to connect to NATS within {}s: {reason}; check {setting}",
            NATS_TIMEOUT.as_secs()
        );
    }
    Ok(client)
}

/// Creates the JetStream context of a connection.
pub(crate) fn jetstream(client: Client) -> Context {
    ContextBuilder::new().timeout(NATS_TIMEOUT).ack_timeout(NATS_TIMEOUT).build(client)
}
