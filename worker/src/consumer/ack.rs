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
    sync::{Arc, atomic::Ordering},
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
use tokio_util::sync::CancellationToken;

use super::delivery::Delivered;

/// Timeout of one request for confirmation. The server normally answers within a millisecond.
pub(crate) const CONFIRM: Duration = Duration::from_secs(5);

/// Maximum time that the next batch waits for the confirmations of this one. A consumer does not
/// answer acks of deliveries that it does not know (any more), and leases must still be renewed.
const SOON: Duration = Duration::from_millis(100);

/// Maximum number of acks that share one request. Limits what is sent again if the server does not
/// answer.
const TOGETHER: usize = 1024;

/// Acknowledges the deliveries on one inbox. Clones share the requests for confirmation.
#[derive(Clone, Debug)]
pub(crate) struct Acks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    waiting: mpsc::UnboundedSender<Waiting>,
    /// Cancelled when the consumer may have lost its record of deliveries.
    doubt: CancellationToken,
}

/// Says why the server may not have an ack.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unconfirmed {
    /// The ack could not be sent.
    #[error("not sent: {0}")]
    Send(PublishErrorKind),
    /// The request for confirmation failed.
    #[error("not answered: {0}")]
    Ask(RequestErrorKind),
    /// The server did not answer in time.
    #[error("no answer")]
    Silence,
    /// The client reconnected, and acks that were sent over the old connection may be lost.
    #[error("the connection was made anew meanwhile")]
    Reconnected,
    /// The message did not come from a stream, so there is no subject to send the ack to.
    #[error("the message has no reply subject")]
    NoReply,
    /// This program is ending.
    #[error("the program is ending")]
    Ending,
}

/// An ack, and the channel on which a task waits for its confirmation.
#[derive(Debug)]
struct Waiting {
    to: Subject,
    kind: AckKind,
    /// Consumer sequence: the number of the delivery among those of its consumer.
    delivery: u64,
    /// Whether an earlier request to confirm it has failed.
    again: bool,
    heard: oneshot::Sender<Result<(), Unconfirmed>>,
}

// === impl Acks ===

impl Acks {
    /// Starts the task that confirms acks on this connection.
    pub(crate) fn start(client: Client) -> Self {
        let (waiting, received) = mpsc::unbounded_channel();
        let doubt = CancellationToken::new();
        tokio::spawn(run(client.clone(), received, doubt.clone()));
        Self(Arc::new(Shared { client, waiting, doubt }))
    }

    /// Acknowledges a message, and returns when the server has confirmed it.
    pub(crate) async fn confirm(
        &self,
        delivered: &Delivered,
        kind: AckKind,
    ) -> Result<(), Unconfirmed> {
        self.ask(delivered, kind, false).await
    }

    /// Repeats [`Self::confirm`] after it has failed. Acknowledging a message once more is
    /// harmless.
    pub(crate) async fn confirm_again(
        &self,
        delivered: &Delivered,
        kind: AckKind,
    ) -> Result<(), Unconfirmed> {
        self.ask(delivered, kind, true).await
    }

    /// Sends an ack without waiting for a confirmation.
    pub(crate) async fn send(
        &self,
        delivered: &Delivered,
        kind: AckKind,
    ) -> Result<(), Unconfirmed> {
        let to = delivered.message.reply.clone().ok_or(Unconfirmed::NoReply)?;
        send(&self.0.client, to, kind).await
    }

    /// Records that the consumer may be another one, or may have lost its record of deliveries.
    pub(crate) fn doubt(&self) {
        self.0.doubt.cancel();
    }

    async fn ask(
        &self,
        delivered: &Delivered,
        kind: AckKind,
        again: bool,
    ) -> Result<(), Unconfirmed> {
        let to = delivered.message.reply.clone().ok_or(Unconfirmed::NoReply)?;
        let (heard, word) = oneshot::channel();
        let waiting = Waiting { to, kind, delivery: delivered.number, again, heard };
        self.0.waiting.send(waiting).map_err(|_| Unconfirmed::Ending)?;
        word.await.map_err(|_| Unconfirmed::Ending)?
    }
}

/// Sends acks and confirms them until the last sender is dropped.
async fn run(
    client: Client,
    mut received: mpsc::UnboundedReceiver<Waiting>,
    doubt: CancellationToken,
) {
    let first_connection = connections(&client);
    let mut waiting = Vec::new();
    while received.recv_many(&mut waiting, TOGETHER).await > 0 {
        let one_by_one = doubt.is_cancelled() || connections(&client) != first_connection;
        let questions = grouped(std::mem::take(&mut waiting), one_by_one).into_iter();
        let asked: Vec<_> =
            questions.map(|together| tokio::spawn(ask(client.clone(), together))).collect();
        // Requests that take longer continue in tasks of their own.
        let _ = timeout(SOON, join_all(asked)).await;
    }
}

/// Groups acks by the request that confirms them. The newest delivery is last in its group.
fn grouped(mut waiting: Vec<Waiting>, one_by_one: bool) -> Vec<Vec<Waiting>> {
    waiting.sort_by_key(|waiting| waiting.delivery);
    let (mut groups, mut kinds) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
    for waiting in waiting {
        if one_by_one || waiting.again {
            groups.push(vec![waiting]);
        } else {
            let kind = match waiting.kind {
                AckKind::Progress => 0,
                AckKind::Nak(_) => 1,
                AckKind::Ack | AckKind::Next | AckKind::Term => 2,
            };
            kinds[kind].push(waiting);
        }
    }
    groups.extend(kinds.into_iter().filter(|group| !group.is_empty()));
    groups
}

/// Returns how many times the client has connected.
fn connections(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// Confirms a group with one request, and passes the outcome to the tasks that wait for it.
async fn ask(client: Client, together: Vec<Waiting>) {
    let confirmed = match timeout(CONFIRM, confirm(&client, &together)).await {
        Ok(confirmed) => confirmed,
        Err(_) => Err(Unconfirmed::Silence),
    };
    for waiting in together {
        // Fails only if the task no longer waits.
        let _ = waiting.heard.send(confirmed.clone());
    }
}

/// Sends all acks of a group, the last one as a request for confirmation.
async fn confirm(client: &Client, together: &[Waiting]) -> Result<(), Unconfirmed> {
    let Some((last, before)) = together.split_last() else { return Ok(()) };
    let connection = connections(client);
    for Waiting { to, kind, .. } in before {
        send(client, to.clone(), *kind).await?;
    }
    let answered = client.request(last.to.clone(), last.kind.into()).await;
    answered.map_err(|error| Unconfirmed::Ask(error.kind()))?;
    if connections(client) == connection { Ok(()) } else { Err(Unconfirmed::Reconnected) }
}

async fn send(client: &Client, to: Subject, kind: AckKind) -> Result<(), Unconfirmed> {
    client.publish(to, kind.into()).await.map_err(|error| Unconfirmed::Send(error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(delivery: u64, kind: AckKind, again: bool) -> Waiting {
        Waiting { to: "ack".into(), kind, delivery, again, heard: oneshot::channel().0 }
    }

    fn deliveries(waiting: Vec<Waiting>, one_by_one: bool) -> Vec<Vec<u64>> {
        let groups = grouped(waiting, one_by_one).into_iter();
        groups.map(|group| group.iter().map(|waiting| waiting.delivery).collect()).collect()
    }

    #[test]
    fn acks_are_confirmed_together_by_the_newest() {
        let acks = || {
            [(7, false), (3, true), (9, false), (5, false)]
                .map(|(delivery, again)| waiting(delivery, AckKind::Ack, again))
                .into()
        };
        assert_eq!(deliveries(acks(), false), [vec![3], vec![5, 7, 9]]);
        assert_eq!(deliveries(acks(), true), [[3], [5], [7], [9]].map(Vec::from));
        assert!(grouped(vec![], false).is_empty());
    }

    #[test]
    fn each_kind_of_ack_is_confirmed_by_its_own() {
        let mixed = vec![
            waiting(1, AckKind::Ack, false),
            waiting(2, AckKind::Progress, false),
            waiting(3, AckKind::Ack, false),
            waiting(4, AckKind::Nak(None), false),
            waiting(5, AckKind::Progress, false),
        ];
        assert_eq!(deliveries(mixed, false), [vec![2, 5], vec![4], vec![1, 3]]);
    }
}
