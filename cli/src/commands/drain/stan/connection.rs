//! A connection to NATS Streaming: its protocol over core NATS.
//!
//! The server sends heartbeats, which are answered here. Pings check whether the server still knows
//! the connection. It forgets the connection when it restarts, when another client takes the name,
//! or when heartbeats fail.

use std::{fmt::Display, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use async_nats::{Client, RequestErrorKind, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{interval, timeout},
};

use super::messages::{
    Ack, Acknowledgement, CloseRequest, ConnectRequest, ConnectResponse, Ping, START_FIRST,
    START_NEW, SubscriptionRequest, SubscriptionResponse,
};

/// The version of the protocol that has pings.
const PROTOCOL_VERSION: i32 = 1;

/// Interval between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Number of consecutive pings without an answer after which the connection is lost.
const MAX_UNANSWERED_PINGS: u8 = 3;

/// Maximum time for a response of the server. It first checks whether an existing client of the
/// same id is still connected.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server may take to close the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The parameters of a subscription to a channel.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) channel: String,
    pub(super) queue_group: String,
    pub(super) durable: String,
    /// Whether to begin with the first message if the group does not exist.
    pub(super) take_all: bool,
    pub(super) max_inflight: u16,
    pub(super) ack_wait: Duration,
}

/// A connection. The task that answers heartbeats ends with it.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    client_id: String,
    server: ConnectResponse,
    /// Receives why the connection is lost.
    lost: oneshot::Receiver<String>,
    _tasks: JoinSet<()>,
}

/// The messages of a channel, and the value that acknowledges them.
#[derive(Debug)]
pub(super) struct Deliveries {
    pub(super) messages: Subscriber,
    pub(super) acks: AckPublisher,
}

/// Acknowledges messages of a channel.
#[derive(Clone, Debug)]
pub(super) struct AckPublisher {
    client: Client,
    channel: String,
    inbox: String,
}

// === impl Connection ===

impl Connection {
    /// Connects to the server with this cluster id.
    pub(super) async fn open(
        client: Client,
        cluster_id: &str,
        client_id: &str,
    ) -> anyhow::Result<Self> {
        let inbox = client.new_inbox();
        let connection_id = inbox.clone().into_bytes();
        let heartbeats =
            client.subscribe(inbox.clone()).await.context("failed to subscribe to heartbeats")?;
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_heartbeats(client.clone(), heartbeats));
        let request = ConnectRequest {
            client_id: client_id.to_owned(),
            heartbeat_inbox: inbox,
            protocol: PROTOCOL_VERSION,
            connection_id: connection_id.clone(),
            ping_interval: i32::try_from(PING_INTERVAL.as_secs()).unwrap_or(i32::MAX),
            ping_max_out: MAX_UNANSWERED_PINGS.into(),
        };
        let discover = format!("_STAN.discover.{cluster_id}");
        let server: ConnectResponse = match send_request(&client, &discover, &request).await {
            Ok(answer) => answer,
            Err(RequestError::NoResponders) => {
                bail!(
                    "no NATS Streaming with the cluster id `{cluster_id}` on this NATS server: \
                     check --cluster-id"
                )
            }
            Err(error) => return Err(anyhow!("failed to connect to NATS Streaming: {error}")),
        };
        if server.error.contains("already registered") {
            bail!(
                "a client with the id `{client_id}` is already connected: another drain is \
                 running, or use another id with --client-id"
            );
        }
        check_error(&server.error, "the connection")?;
        let (report, lost) = oneshot::channel();
        tasks.spawn(send_pings(
            client.clone(),
            server.ping_requests.clone(),
            connection_id,
            report,
        ));
        Ok(Self { client, client_id: client_id.to_owned(), server, lost, _tasks: tasks })
    }

    /// Joins the durable queue group of a channel.
    pub(super) async fn subscribe(
        &self,
        subscription: &Subscription,
    ) -> anyhow::Result<Deliveries> {
        let Subscription { channel, queue_group, durable, take_all, max_inflight, ack_wait } =
            subscription;
        let inbox = self.client.new_inbox();
        let messages = self.client.subscribe(inbox.clone()).await.context("failed to subscribe")?;
        let request = SubscriptionRequest {
            client_id: self.client_id.clone(),
            channel: channel.clone(),
            queue_group: queue_group.clone(),
            inbox,
            max_inflight: (*max_inflight).into(),
            ack_wait_seconds: i32::try_from(ack_wait.as_secs()).unwrap_or(i32::MAX),
            durable_name: durable.clone(),
            start_position: if *take_all { START_FIRST } else { START_NEW },
        };
        let answer: SubscriptionResponse =
            send_request(&self.client, &self.server.subscribe_requests, &request)
                .await
                .map_err(|error| anyhow!("failed to subscribe to channel `{channel}`: {error}"))?;
        check_error(&answer.error, &format!("the subscription to channel `{channel}`"))?;
        let acks = AckPublisher {
            client: self.client.clone(),
            channel: channel.clone(),
            inbox: answer.ack_inbox,
        };
        Ok(Deliveries { messages, acks })
    }

    /// Returns why the connection is lost, when it is. Must not be polled after that.
    pub(super) async fn lost(&mut self) -> anyhow::Error {
        match (&mut self.lost).await {
            Ok(reason) => anyhow!("lost the connection to NATS Streaming: {reason}"),
            Err(_) => anyhow!("the connection to NATS Streaming is no longer monitored"),
        }
    }

    /// Closes the connection, so that other clients get at once what it has not acknowledged.
    pub(super) async fn close(self) {
        let request = CloseRequest { client_id: self.client_id.clone() };
        let close =
            send_request::<Acknowledgement>(&self.client, &self.server.close_requests, &request);
        // The server finds out by itself, later.
        let _ = timeout(CLOSE_TIMEOUT, close).await;
    }
}

// === impl AckPublisher ===

impl AckPublisher {
    /// Acknowledges a message. The server does not confirm the ack.
    pub(super) async fn ack(&self, sequence: u64) -> anyhow::Result<()> {
        let ack = Ack { channel: self.channel.clone(), sequence };
        let payload = ack.encode_to_vec().into();
        self.client
            .publish(self.inbox.clone(), payload)
            .await
            .context("failed to acknowledge a message")
    }
}

/// Why a request has no response.
#[derive(Debug)]
enum RequestError {
    NoResponders,
    Other(String),
}

impl Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoResponders => f.write_str("no server responds"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// Sends a request and decodes the answer.
async fn send_request<A: Message + Default>(
    client: &Client,
    subject: &str,
    request: &impl Message,
) -> Result<A, RequestError> {
    let request = async_nats::Request::new()
        .payload(request.encode_to_vec().into())
        .timeout(Some(REQUEST_TIMEOUT));
    let answer =
        client.send_request(subject.to_owned(), request).await.map_err(|error| {
            match error.kind() {
                RequestErrorKind::NoResponders => RequestError::NoResponders,
                _ => RequestError::Other(error.to_string()),
            }
        })?;
    A::decode(answer.payload).map_err(|error| RequestError::Other(error.to_string()))
}

/// Returns an error if the server rejected something.
fn check_error(error: &str, what: &str) -> anyhow::Result<()> {
    if error.is_empty() { Ok(()) } else { Err(anyhow!("NATS Streaming rejected {what}: {error}")) }
}

/// Answers each heartbeat.
async fn answer_heartbeats(client: Client, mut heartbeats: Subscriber) {
    while let Some(heartbeat) = heartbeats.next().await {
        if let Some(reply) = heartbeat.reply {
            // The server sends another heartbeat.
            let _ = client.publish(reply, Bytes::new()).await;
        }
    }
}

/// Sends pings until the connection is lost, and reports why.
async fn send_pings(
    client: Client,
    subject: String,
    connection_id: Vec<u8>,
    report: oneshot::Sender<String>,
) {
    let ping = Ping { connection_id };
    let mut pings = interval(PING_INTERVAL);
    let mut unanswered = 0;
    while !subject.is_empty() {
        pings.tick().await;
        let reason =
            match timeout(PING_INTERVAL, send_request::<Acknowledgement>(&client, &subject, &ping))
                .await
            {
                Ok(Ok(Acknowledgement { error })) if error.is_empty() => {
                    unanswered = 0;
                    continue;
                }
                // The server does not know the connection any more.
                Ok(Ok(Acknowledgement { error })) => {
                    let _ = report.send(error);
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no response".to_owned(),
            };
        unanswered += 1;
        if unanswered >= MAX_UNANSWERED_PINGS {
            let _ = report.send(reason);
            return;
        }
    }
    // A server without pings: a lost connection is not detected.
    std::future::pending::<()>().await;
}
