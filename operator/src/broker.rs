//! Keeps the connections to NATS: the operator's own, and one to each other server that a queue
//! names.
//!
//! The Secrets for another server are read only for these connections, one by one and by name. The
//! operator needs no permission to read any others.

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
    nats::{self, CaBundle, Credentials, Secrets, without_credentials},
    settings::NatsSettings,
};
use kube::ResourceExt;
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Mutex, OnceCell, mpsc},
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    advisories,
    crd::AsyncQueue,
    running::Running,
    secret::{self, Secret},
};

/// The name of the operator's connections, as NATS lists it.
pub(crate) const CONNECTION_NAME: &str = "asyncqueue-operator";

/// How long a queue waits for the first attempt to connect to its own NATS, and the interval of the
/// checks.
const FIRST_ATTEMPT: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A connection to a NATS server, and what its workers report.
#[derive(Debug)]
pub(crate) struct Broker {
    client: Client,
    /// The servers, without credentials.
    servers: String,
    /// Has the condition of the connection, with the reason why it is missing.
    health: Health,
    /// `JetStream` on that server.
    pub(crate) js: jetstream::Context,
    /// The calls that run there.
    pub(crate) running: Arc<Running>,
    /// Whether the KV buckets have been seen. For a queue's own server it is set from the start,
    /// since the operator keeps no buckets there.
    buckets: OnceCell<()>,
    listener: AbortHandle,
}

/// A server other than the operator's own, as a queue names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    url: String,
    credentials: Option<Secret>,
    authority: Option<Secret>,
}

/// All connections.
pub(crate) struct Brokers {
    own: Arc<Broker>,
    /// Receives the names of streams that were changed or deleted.
    changed: mpsc::Sender<String>,
    others: Mutex<HashMap<Address, Arc<Broker>>>,
    kubernetes: kube::Client,
}

// === impl Address ===

impl Address {
    /// Returns the address of a queue's server; `None` is the operator's own.
    pub(crate) fn of(queue: &AsyncQueue) -> Option<Self> {
        let nats = &queue.spec.nats;
        let namespace = queue.namespace().unwrap_or_default();
        let secret = |key| Secret { namespace: namespace.clone(), key };
        Some(Self {
            url: nats.url.clone()?,
            credentials: nats.credentials_secret_ref.clone().map(secret),
            authority: nats.ca_secret_ref.clone().map(secret),
        })
    }
}

// === impl Broker ===

impl Broker {
    /// Wraps a client and starts listening.
    fn new(
        client: Client,
        servers: &str,
        health: Health,
        changed: mpsc::Sender<String>,
    ) -> Arc<Self> {
        let running = Arc::new(Running::default());
        let listener = tokio::spawn({
            let (client, running) = (client.clone(), running.clone());
            async move { tokio::join!(running.listen(&client), advisories::listen(&client, changed)) }
        });
        let js = jetstream::new(client.clone());
        let (buckets, servers) = (OnceCell::new(), without_credentials(servers));
        Arc::new(Self {
            client,
            servers,
            health,
            js,
            running,
            buckets,
            listener: listener.abort_handle(),
        })
    }

    /// Returns the servers, without credentials.
    pub(crate) fn servers(&self) -> &str {
        &self.servers
    }

    /// Says why there is no connection: which servers, since when, and how the last attempt failed.
    pub(crate) fn why_disconnected(&self) -> String {
        let failing = self.health.report().err().unwrap_or_default();
        let nats = failing.into_iter().find(|(name, _)| *name == nats::CONDITION);
        nats.map_or_else(|| format!("waiting for NATS at {}", self.servers), |(_, why)| why)
    }

    /// Returns whether it is connected, so that requests make sense.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Creates the KV buckets if they have not been seen yet. They are created before the streams:
    /// if NATS has no room for all, stored calls can be cancelled and routed by the directory.
    pub(crate) async fn ensure_buckets_once(&self, replicas: usize) -> Result<(), BucketError> {
        self.buckets.get_or_try_init(|| self.ensure_buckets(replicas)).await?;
        Ok(())
    }

    /// Brings the buckets to their desired state, the directory first.
    pub(crate) async fn ensure_buckets(&self, replicas: usize) -> Result<(), BucketError> {
        DirectoryStore::open(&self.js, replicas).await?;
        ensure_buckets(&self.js, replicas).await
    }

    /// Waits, for a bounded time, until the first attempt to connect has succeeded or failed:
    /// before that, there is nothing to report.
    async fn first_attempt(&self) {
        let begin = self.why_disconnected();
        let done = async {
            while !self.is_connected() && self.why_disconnected() == begin {
                sleep(LOOK_EVERY).await;
            }
        };
        // A later result is reported with the next reconciliation of the queue.
        let _ = timeout(FIRST_ATTEMPT, done).await;
    }

    /// Waits until it is connected.
    pub(crate) async fn connected(&self) {
        nats::wait_connected(&self.client).await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

// === impl Brokers ===

impl Brokers {
    /// Creates the set with the operator's own connection. The names of streams that were changed
    /// or deleted go to `changed`.
    pub(crate) fn new(
        own: Client,
        settings: &NatsSettings,
        health: &Health,
        kubernetes: kube::Client,
        changed: mpsc::Sender<String>,
    ) -> Self {
        let servers = settings.nats_url.as_ref().unwrap_or(&settings.nats_host);
        let own = Broker::new(own, servers, health.clone(), changed.clone());
        Self { own, changed, others: Mutex::default(), kubernetes }
    }

    /// Returns the operator's own connection.
    pub(crate) fn own(&self) -> &Arc<Broker> {
        &self.own
    }

    /// Returns the connection to an address, which may not be connected yet. Fails on a URL or a
    /// Secret that can't be used.
    pub(crate) async fn get(&self, address: Option<Address>) -> anyhow::Result<Arc<Broker>> {
        let Some(address) = address else { return Ok(self.own.clone()) };
        if let Some(broker) = self.others.lock().await.get(&address) {
            return Ok(broker.clone());
        }
        // The lock is not held here, since queues of other servers wait for it. A queue's own NATS
        // does not make the operator unready: it is in the queue's conditions.
        let health = Health::new();
        let client = self.connect(&address, &health).await?;
        let broker = Broker::new(client, &address.url, health, self.changed.clone());
        let _ = broker.buckets.set(());
        broker.first_attempt().await;
        // If two connections were created at once, one is dropped.
        Ok(self.others.lock().await.entry(address).or_insert(broker).clone())
    }

    async fn connect(&self, address: &Address, health: &Health) -> anyhow::Result<Client> {
        let authority = match &address.authority {
            Some(secret) => {
                let pem = secret::read(&self.kubernetes, secret).await?;
                Some(
                    CaBundle::from_pem(&pem)
                        .with_context(|| format!("{secret} is no authority"))?,
                )
            }
            None => None,
        };
        let credentials = address.credentials.clone().map(|secret| {
            let kubernetes = self.kubernetes.clone();
            Credentials::new(move || {
                let (kubernetes, secret) = (kubernetes.clone(), secret.clone());
                async move { secret::read(&kubernetes, &secret).await }
            })
        });
        let (settings, secrets) =
            (NatsSettings::from_url(&*address.url), Secrets { credentials, ca: authority });
        let mut registry = Registry::default();
        nats::connect_with(&settings, secrets, CONNECTION_NAME, health, &mut registry).await
    }

    /// Closes the connections that no queue needs any more.
    pub(crate) async fn retain(&self, addresses: &HashSet<Address>) {
        self.others.lock().await.retain(|address, _| addresses.contains(address));
    }
}
