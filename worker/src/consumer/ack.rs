//! Sends acknowledgements, and waits until the server confirms them.
//!
//! Confirms acks in batches: acks on one connection are processed in order, so confirming the ack
//! of the newest delivery confirms all earlier ones of its kind. Each kind is confirmed separately.
//! In a cluster, an ack is confirmed when it is replicated, but the renewal of a lease at once. So
//! the confirmation of a renewal says nothing about an ack before it. Acks that arrive while a
//! request is open share the next request. (The client library's `double_ack` sends a request for
//! each ack, with a subscription for each. That costs the server more than the ack itself.)
//!
//! A consumer may have lost its record of deliveries if it was recreated, or if its server was. It
//! does not answer acks of deliveries that it does not know. From then on, each ack is confirmed by
//! its own request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, Subject,
    client::{PublishErrorKind, RequestErrorKind},
    jetstream::AckKind,
};
use futures::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::delivery::Delivery;

/// Timeout of one request for confirmation. The server normally answers within a millisecond.
pub(crate) const CONFIRM_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time that the next batch waits for the confirmations of this one. A consumer does not
/// answer acks of deliveries that it does not know (any more), and leases must still be renewed.
const BATCH_WAIT: Duration = Duration::from_millis(100);

/// Maximum number of acks that share one request. Limits what is sent again if the server does not
/// answer.
const MAX_BATCH: usize = 1024;

/// Acknowledges the deliveries on one inbox. Clones share the requests for confirmation.
#[derive(Clone, Debug)]
pub(crate) struct AckBatcher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    pending: mpsc::UnboundedSender<PendingAck>,
    /// Set when the consumer may have lost its record of deliveries.
    confirm_individually: Arc<AtomicBool>,
}

/// Says why the server may not have an ack.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AckError {
    /// The ack could not be sent.
    #[error("failed to send the ack: {0}")]
    Send(PublishErrorKind),
    /// The request for confirmation failed.
    #[error("the request for confirmation failed: {0}")]
    Request(RequestErrorKind),
    /// The server did not confirm the ack in time.
    #[error("not confirmed in time")]
    Timeout,
    /// The client reconnected, and acks that were sent over the old connection may be lost.
    #[error("the client has reconnected since the ack was sent")]
    Reconnected,
    /// The message did not come from a stream, so there is no subject to send the ack to.
    #[error("the message has no reply subject")]
    NoReplySubject,
    /// This program is ending.
    #[error("the worker is shutting down")]
    ShuttingDown,
}

/// An ack, and the channel on which a task waits for its confirmation.
#[derive(Debug)]
struct PendingAck {
    reply_subject: Subject,
    kind: AckKind,
    /// Consumer sequence: the number of the delivery among those of its consumer.
    consumer_sequence: u64,
    /// Whether an earlier request to confirm it has failed.
    is_retry: bool,
    confirmed_tx: oneshot::Sender<Result<(), AckError>>,
}

// === impl AckBatcher ===

impl AckBatcher {
    /// Starts the task that confirms acks on this connection.
    pub(crate) fn start(client: Client) -> Self {
        let (pending, pending_rx) = mpsc::unbounded_channel();
        let confirm_individually = Arc::new(AtomicBool::new(false));
        tokio::spawn(run(client.clone(), pending_rx, confirm_individually.clone()));
        Self(Arc::new(Shared { client, pending, confirm_individually }))
    }

    /// Acknowledges a message, and returns when the server has confirmed it.
    pub(crate) async fn confirm(&self, delivery: &Delivery, kind: AckKind) -> Result<(), AckError> {
        self.enqueue(delivery, kind, false).await
    }

    /// Repeats [`Self::confirm`] after it has failed. Acknowledging a message once more is
    /// harmless.
    pub(crate) async fn confirm_again(
        &self,
        delivery: &Delivery,
        kind: AckKind,
    ) -> Result<(), AckError> {
        self.enqueue(delivery, kind, true).await
    }

    /// Sends an ack without waiting for a confirmation.
    pub(crate) async fn send(&self, delivery: &Delivery, kind: AckKind) -> Result<(), AckError> {
        send(&self.0.client, reply_subject(delivery)?, kind).await
    }

    /// Confirms each ack by its own request from now on: the consumer may be another one, or may
    /// have lost its record of deliveries.
    pub(crate) fn confirm_individually(&self) {
        self.0.confirm_individually.store(true, Ordering::SeqCst);
    }

    async fn enqueue(
        &self,
        delivery: &Delivery,
        kind: AckKind,
        is_retry: bool,
    ) -> Result<(), AckError> {
        let (confirmed_tx, confirmed_rx) = oneshot::channel();
        let ack = PendingAck {
            reply_subject: reply_subject(delivery)?,
            kind,
            consumer_sequence: delivery.consumer_sequence,
            is_retry,
            confirmed_tx,
        };
        self.0.pending.send(ack).map_err(|_| AckError::ShuttingDown)?;
        confirmed_rx.await.map_err(|_| AckError::ShuttingDown)?
    }
}

/// Returns the subject on which a delivery is acknowledged.
fn reply_subject(delivery: &Delivery) -> Result<Subject, AckError> {
    delivery.message.reply.clone().ok_or(AckError::NoReplySubject)
}

/// Sends acks and confirms them until the last sender is dropped.
async fn run(
    client: Client,
    mut pending_rx: mpsc::UnboundedReceiver<PendingAck>,
    confirm_individually: Arc<AtomicBool>,
) {
    let first_connection = connect_count(&client);
    let mut pending = Vec::new();
    while pending_rx.recv_many(&mut pending, MAX_BATCH).await > 0 {
        let individually = confirm_individually.load(Ordering::SeqCst)
            || connect_count(&client) != first_connection;
        let batches = into_batches(std::mem::take(&mut pending), individually).into_iter();
        let requests: Vec<_> =
            batches.map(|batch| tokio::spawn(confirm_batch(client.clone(), batch))).collect();
        // Requests that take longer continue in tasks of their own.
        let _ = timeout(BATCH_WAIT, join_all(requests)).await;
    }
}

/// Groups acks by the request that confirms them. The newest delivery is last in its batch.
fn into_batches(mut acks: Vec<PendingAck>, individually: bool) -> Vec<Vec<PendingAck>> {
    acks.sort_by_key(|ack| ack.consumer_sequence);
    let (mut batches, mut by_kind) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
    for ack in acks {
        if individually || ack.is_retry {
            batches.push(vec![ack]);
        } else {
            let kind = match ack.kind {
                AckKind::Progress => 0,
                AckKind::Nak(_) => 1,
                AckKind::Ack | AckKind::Next | AckKind::Term => 2,
            };
            by_kind[kind].push(ack);
        }
    }
    batches.extend(by_kind.into_iter().filter(|batch| !batch.is_empty()));
    batches
}

/// Returns how many times the client has connected.
fn connect_count(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// Confirms a batch with one request, and passes the outcome to the tasks that wait for it.
async fn confirm_batch(client: Client, batch: Vec<PendingAck>) {
    let confirmed = match timeout(CONFIRM_REQUEST_TIMEOUT, send_batch(&client, &batch)).await {
        Ok(confirmed) => confirmed,
        Err(_) => Err(AckError::Timeout),
    };
    for ack in batch {
        // Fails only if the task no longer waits.
        let _ = ack.confirmed_tx.send(confirmed.clone());
    }
}

/// Sends all acks of a batch, the last one as a request for confirmation.
async fn send_batch(client: &Client, batch: &[PendingAck]) -> Result<(), AckError> {
    let Some((last, earlier)) = batch.split_last() else { return Ok(()) };
    let connection = connect_count(client);
    for PendingAck { reply_subject, kind, .. } in earlier {
        send(client, reply_subject.clone(), *kind).await?;
    }
    let response = client.request(last.reply_subject.clone(), last.kind.into()).await;
    response.map_err(|error| AckError::Request(error.kind()))?;
    if connect_count(client) == connection { Ok(()) } else { Err(AckError::Reconnected) }
}

async fn send(client: &Client, reply_subject: Subject, kind: AckKind) -> Result<(), AckError> {
    client.publish(reply_subject, kind.into()).await.map_err(|error| AckError::Send(error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(consumer_sequence: u64, kind: AckKind, is_retry: bool) -> PendingAck {
        let (confirmed_tx, _) = oneshot::channel();
        PendingAck { reply_subject: "ack".into(), kind, consumer_sequence, is_retry, confirmed_tx }
    }

    fn sequences(acks: Vec<PendingAck>, individually: bool) -> Vec<Vec<u64>> {
        let batches = into_batches(acks, individually).into_iter();
        batches.map(|batch| batch.iter().map(|ack| ack.consumer_sequence).collect()).collect()
    }

    #[test]
    fn newest_delivery_confirms_a_batch() {
        let acks = || {
            [(7, false), (3, true), (9, false), (5, false)]
                .map(|(sequence, is_retry)| pending(sequence, AckKind::Ack, is_retry))
                .into()
        };
        assert_eq!(sequences(acks(), false), [vec![3], vec![5, 7, 9]]);
        assert_eq!(sequences(acks(), true), [[3], [5], [7], [9]].map(Vec::from));
        assert!(into_batches(vec![], false).is_empty());
    }

    #[test]
    fn each_kind_of_ack_has_its_own_batch() {
        let mixed = vec![
            pending(1, AckKind::Ack, false),
            pending(2, AckKind::Progress, false),
            pending(3, AckKind::Ack, false),
            pending(4, AckKind::Nak(None), false),
            pending(5, AckKind::Progress, false),
        ];
        assert_eq!(sequences(mixed, false), [vec![2, 5], vec![4], vec![1, 3]]);
    }
}
