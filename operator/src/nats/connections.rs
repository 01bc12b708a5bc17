//! The connections to NATS: the operator's own, and one to each other server that a queue names.
//!
//! The Secrets for another server are read only for these connections, one by one and by name. The
//! operator needs no permission to read any external.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use async_nats::{Client, connection::State, jetstream};
use asyncqueue::{directory::store::DirectoryStore, kv::BucketError, stream::ensure_buckets};
use asyncqueue_runtime::{
    health::Health,
    nats::{self, CaBundle, Credentials, Secrets, keep_up, without_credentials},
    settings::NatsSettings,
};
use kube::ResourceExt;
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Mutex, OnceCell, mpsc},
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{
    advisories,
    secrets::{self, Secret},
    worker_stats::InflightTracker,
};
use crate::{crd::AsyncQueue, labels::OPERATOR_NAME};

/// The name of the operator's connections, as NATS lists it.
pub(crate) const CONNECTION_NAME: &str = OPERATOR_NAME;

/// How long a queue waits for the first attempt to connect to its own NATS, and the interval of the
/// checks.
const FIRST_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A connection to a NATS server, and what workers report there.
#[derive(Debug)]
pub(crate) struct NatsConnection {
    client: Client,
    /// The servers, without credentials.
    servers: String,
    /// Has the condition of the connection, with the reason why it is missing.
    health: Health,
    /// `JetStream` on that server.
    pub(crate) js: jetstream::Context,
    /// The calls in flight there.
    pub(crate) inflight: Arc<InflightTracker>,
    /// Whether the KV buckets were ensured. For a queue's own server it is set from the start,
    /// since the operator keeps no buckets there.
    buckets: OnceCell<()>,
    listener: AbortHandle,
}

/// A server other than the operator's own, as a queue names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NatsEndpoint {
    url: String,
    credentials: Option<Secret>,
    ca: Option<Secret>,
}

/// All connections.
pub(crate) struct NatsPool {
    own: Arc<NatsConnection>,
    /// Receives the names of the streams in advisories.
    advisories: mpsc::Sender<String>,
    external: Mutex<HashMap<NatsEndpoint, Arc<NatsConnection>>>,
    kubernetes: kube::Client,
}

// === impl NatsEndpoint ===

impl NatsEndpoint {
    /// Returns the endpoint of a queue's server; `None` is the operator's own.
    pub(crate) fn from_queue(queue: &AsyncQueue) -> Option<Self> {
        let nats = &queue.spec.nats;
        let namespace = queue.namespace().unwrap_or_default();
        let secret = |key| Secret { namespace: namespace.clone(), key };
        Some(Self {
            url: nats.url.clone()?,
            credentials: nats.credentials_secret_ref.clone().map(secret),
            ca: nats.ca_secret_ref.clone().map(secret),
        })
    }
}

// === impl NatsConnection ===

impl NatsConnection {
    /// Wraps a client and starts listening.
    fn new(
        client: Client,
        servers: &str,
        health: Health,
        advisories: mpsc::Sender<String>,
    ) -> Arc<Self> {
        let inflight = Arc::new(InflightTracker::default());
        let listener = tokio::spawn({
            let (client, inflight) = (client.clone(), inflight.clone());
            async move {
                let reports = inflight.listen(&client);
                let advisories = advisories::listen(&client, advisories);
                keep_up(async { tokio::join!(reports, advisories) }).await
            }
        });
        let js = jetstream::new(client.clone());
        let (buckets, servers) = (OnceCell::new(), without_credentials(servers));
        Arc::new(Self {
            client,
            servers,
            health,
            js,
            inflight,
            buckets,
            listener: listener.abort_handle(),
        })
    }

    /// Returns the servers, without credentials.
    pub(crate) fn servers(&self) -> &str {
        &self.servers
    }

    /// Returns why there is no connection: the servers, since when, and the last error.
    pub(crate) fn disconnected_reason(&self) -> String {
        let failing = self.health.report().err().unwrap_or_default();
        let nats = failing.into_iter().find(|(name, _)| *name == nats::CONDITION);
        nats.map_or_else(|| format!("waiting for NATS at {}", self.servers), |(_, why)| why)
    }

    /// Returns whether it is connected, so that requests make sense.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Creates the KV buckets unless that was done before. They are created before the streams:
    /// if NATS has no room for all, stored calls can be cancelled and routed by the directory.
    pub(crate) async fn ensure_buckets_once(&self, replicas: usize) -> Result<(), BucketError> {
        self.buckets.get_or_try_init(|| self.ensure_buckets(replicas)).await?;
        Ok(())
    }

    /// Ensures the desired state of the buckets, the directory first.
    pub(crate) async fn ensure_buckets(&self, replicas: usize) -> Result<(), BucketError> {
        DirectoryStore::open(&self.js, replicas).await?;
        ensure_buckets(&self.js, replicas).await
    }

    /// Waits, for a bounded time, until the first attempt to connect has succeeded or failed:
    /// before that, there is nothing to report.
    async fn wait_for_first_attempt(&self) {
        let initial = self.disconnected_reason();
        let attempted = async {
            while !self.is_connected() && self.disconnected_reason() == initial {
                sleep(POLL_INTERVAL).await;
            }
        };
        // A later result is reported with the next reconciliation of the queue.
        let _ = timeout(FIRST_ATTEMPT_TIMEOUT, attempted).await;
    }

    /// Waits until it is connected.
    pub(crate) async fn wait_until_connected(&self) {
        nats::wait_connected(&self.client).await;
    }
}

impl Drop for NatsConnection {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

// === impl NatsPool ===

impl NatsPool {
    /// Creates the pool with the operator's own connection. `advisories` receives the names of
    /// the streams in advisories.
    pub(crate) fn new(
        own: Client,
        settings: &NatsSettings,
        health: &Health,
        kubernetes: kube::Client,
        advisories: mpsc::Sender<String>,
    ) -> Self {
        let servers = settings.nats_url.as_ref().unwrap_or(&settings.nats_host);
        let own = NatsConnection::new(own, servers, health.clone(), advisories.clone());
        Self { own, advisories, external: Mutex::default(), kubernetes }
    }

    /// Returns the operator's own connection.
    pub(crate) fn own(&self) -> &Arc<NatsConnection> {
        &self.own
    }

    /// Returns the connection to an endpoint, which may not be connected yet. Fails on a URL or a
    /// Secret that can't be used.
    pub(crate) async fn get(
        &self,
        endpoint: Option<NatsEndpoint>,
    ) -> anyhow::Result<Arc<NatsConnection>> {
        let Some(endpoint) = endpoint else { return Ok(self.own.clone()) };
        if let Some(connection) = self.external.lock().await.get(&endpoint) {
            return Ok(connection.clone());
        }
        // The lock is not held here, since queues of other servers wait for it. A queue's own NATS
        // does not make the operator unready: it is in the queue's conditions.
        let health = Health::new();
        let client = self.connect(&endpoint, &health).await?;
        let connection =
            NatsConnection::new(client, &endpoint.url, health, self.advisories.clone());
        let _ = connection.buckets.set(());
        connection.wait_for_first_attempt().await;
        // If two connections were created at once, one is dropped.
        Ok(self.external.lock().await.entry(endpoint).or_insert(connection).clone())
    }

    async fn connect(&self, endpoint: &NatsEndpoint, health: &Health) -> anyhow::Result<Client> {
        let ca = match &endpoint.ca {
            Some(secret) => {
                let pem = secrets::read(&self.kubernetes, secret).await?;
                Some(
                    CaBundle::from_pem(&pem)
                        .with_context(|| format!("{secret} is not a valid CA bundle"))?,
                )
            }
            None => None,
        };
        let credentials = endpoint.credentials.clone().map(|secret| {
            let kubernetes = self.kubernetes.clone();
            Credentials::new(move || {
                let (kubernetes, secret) = (kubernetes.clone(), secret.clone());
                async move { secrets::read(&kubernetes, &secret).await }
            })
        });
        let (settings, secrets) =
            (NatsSettings::from_url(&*endpoint.url), Secrets { credentials, ca });
        let mut registry = Registry::default();
        nats::connect_with(&settings, secrets, CONNECTION_NAME, health, &mut registry).await
    }

    /// Closes the connections that no queue needs any more.
    pub(crate) async fn close_unused(&self, endpoints: &HashSet<NatsEndpoint>) {
        self.external.lock().await.retain(|endpoint, _| endpoints.contains(endpoint));
    }
}

/// Returns the number of replicas of the KV buckets and the reserve on the operator's own NATS: the
/// highest number that the stream of a queue there has.
pub(crate) fn max_replicas<'a>(queues: impl IntoIterator<Item = &'a AsyncQueue>) -> usize {
    let own = queues.into_iter().filter(|queue| queue.spec.nats.url.is_none());
    let replicas = own.map(|queue| queue.spec.stream.replicas).max();
    replicas.and_then(|replicas| usize::try_from(replicas).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn only_queues_on_the_own_nats_count_for_replicas() {
        let (mut own, mut external) = (fixtures::queue("own"), fixtures::queue("external"));
        assert_eq!(max_replicas([]), 1);
        external.spec.nats.url = Some("nats://elsewhere".to_owned());
        external.spec.stream.replicas = 3;
        assert_eq!(max_replicas([&own, &external]), 1);
        own.spec.stream.replicas = 3;
        assert_eq!(max_replicas([&own, &external]), 3);
    }
}
