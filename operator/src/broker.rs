//! The connections to NATS: the operator's own, and one to each other server that a queue names.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_nats::{Client, connection::State, jetstream};
use asyncqueue_runtime::{health::Health, nats, settings::NatsSettings};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Mutex, mpsc},
    task::AbortHandle,
};

use crate::{advisories, running::Running};

/// What NATS lists our connections as.
pub(crate) const CONNECTION_NAME: &str = "asyncqueue-operator";

/// A NATS server and what its workers say.
#[derive(Debug)]
pub(crate) struct Broker {
    client: Client,
    /// `JetStream` there.
    pub(crate) js: jetstream::Context,
    /// The calls that run there.
    pub(crate) running: Arc<Running>,
    listener: AbortHandle,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Brokers {
    own: Arc<Broker>,
    /// Takes the names of streams that something happened to.
    changed: mpsc::UnboundedSender<String>,
    others: Mutex<HashMap<String, Arc<Broker>>>,
}

// === impl Broker ===

impl Broker {
    /// Wraps a client and begins to listen.
    fn new(client: Client, changed: mpsc::UnboundedSender<String>) -> Arc<Self> {
        let running = Arc::new(Running::default());
        let listener = tokio::spawn({
            let (client, running) = (client.clone(), running.clone());
            async move { tokio::join!(running.listen(&client), advisories::listen(&client, changed)) }
        });
        let js = jetstream::new(client.clone());
        Arc::new(Self { client, js, running, listener: listener.abort_handle() })
    }

    /// Whether there is any use in asking it something now.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Returns when it is connected.
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
    /// The operator's own to begin with. The names of streams that something happens to go to `changed`.
    pub(crate) fn new(own: Client, changed: mpsc::UnboundedSender<String>) -> Self {
        Self { own: Broker::new(own, changed.clone()), changed, others: Mutex::default() }
    }

    /// The operator's own.
    pub(crate) fn own(&self) -> &Arc<Broker> {
        &self.own
    }

    /// The one of a queue, which may not be connected yet. Fails on a URL that can't be used.
    pub(crate) async fn get(&self, url: Option<&str>) -> anyhow::Result<Arc<Broker>> {
        let Some(url) = url else { return Ok(self.own.clone()) };
        let mut others = self.others.lock().await;
        if let Some(broker) = others.get(url) {
            return Ok(broker.clone());
        }
        // A queue's own NATS has no say in whether the operator is ready: its queue tells of it.
        let settings = NatsSettings::from_url(url);
        let client =
            nats::connect(&settings, CONNECTION_NAME, &Health::new(), &mut Registry::default()).await?;
        let broker = Broker::new(client, self.changed.clone());
        others.insert(url.to_owned(), broker.clone());
        Ok(broker)
    }

    /// Closes the connections that no queue names any more.
    pub(crate) async fn retain(&self, urls: &HashSet<String>) {
        self.others.lock().await.retain(|url, _| urls.contains(url));
    }
}
