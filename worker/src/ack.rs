//! Acknowledgements, and the server's word that it has them.
//!
//! Waits until the server confirms an acknowledgement, in batches: acknowledgements on one connection are processed in
//! order, so confirming the one of the newest delivery confirms all earlier ones of its kind. Each kind is confirmed apart:
//! in a cluster an ack is confirmed when it is replicated, and the renewal of a lease at once, so that the confirmation of
//! a renewal says nothing about an ack before it. Those that come up while the server is asked go together with the next
//! question. (The client library's `double_ack` asks for each, by a subscription for each, which costs the server more than
//! the acknowledgement does.)
//!
//! A consumer that was made anew, or whose server was, may have forgotten deliveries, and says nothing to what it does not
//! know of. From then on, each of them is asked about alone.

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

use crate::delivery::Delivered;

/// The server's word takes a millisecond when all is well.
pub(crate) const CONFIRM: Duration = Duration::from_secs(5);

/// A question that has no answer by then holds up those that come after it no longer: a consumer says nothing to what it
/// does not know of (any more), and leases have to be renewed meanwhile.
const SOON: Duration = Duration::from_millis(100);

/// Acknowledgements that go with one question. Bounds what is sent again if it gets no answer.
const TOGETHER: usize = 1024;

/// Acknowledges what a consumer has delivered to one inbox. Clones share their questions.
#[derive(Clone, Debug)]
pub(crate) struct Acks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    waiting: mpsc::UnboundedSender<Waiting>,
    /// Whether the consumer may have forgotten its deliveries.
    doubt: CancellationToken,
}

/// Why the server may not have an acknowledgement.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unconfirmed {
    /// It could not be sent.
    #[error("not sent: {0}")]
    Send(PublishErrorKind),
    /// The server was asked, and did not say that it has it.
    #[error("not answered: {0}")]
    Ask(RequestErrorKind),
    /// The server has said nothing in time.
    #[error("no answer")]
    Silence,
    /// The connection was made anew, and what was sent over the old one may be lost.
    #[error("the connection was made anew meanwhile")]
    Reconnected,
    /// The message came from no stream, so that there is nobody to tell.
    #[error("the message has no reply subject")]
    NoReply,
    /// This program is ending.
    #[error("the program is ending")]
    Ending,
}

/// An acknowledgement, and who waits to hear that the server has it.
#[derive(Debug)]
struct Waiting {
    to: Subject,
    kind: AckKind,
    /// The number of the delivery among those of its consumer.
    delivery: u64,
    /// Whether a question about it has failed.
    again: bool,
    heard: oneshot::Sender<Result<(), Unconfirmed>>,
}

// === impl Acks ===

impl Acks {
    /// For what comes over this connection.
    pub(crate) fn start(client: Client) -> Self {
        let (waiting, received) = mpsc::unbounded_channel();
        let doubt = CancellationToken::new();
        tokio::spawn(run(client.clone(), received, doubt.clone()));
        Self(Arc::new(Shared { client, waiting, doubt }))
    }

    /// Acknowledges a message, and returns when the server says that it has it.
    pub(crate) async fn confirm(&self, delivered: &Delivered, kind: AckKind) -> Result<(), Unconfirmed> {
        self.ask(delivered, kind, false).await
    }

    /// The same after that has failed. To acknowledge a message once more is harmless.
    pub(crate) async fn confirm_again(
        &self,
        delivered: &Delivered,
        kind: AckKind,
    ) -> Result<(), Unconfirmed> {
        self.ask(delivered, kind, true).await
    }

    /// Sends an acknowledgement, and waits for nothing.
    pub(crate) async fn send(&self, delivered: &Delivered, kind: AckKind) -> Result<(), Unconfirmed> {
        let to = delivered.message.reply.clone().ok_or(Unconfirmed::NoReply)?;
        send(&self.0.client, to, kind).await
    }

    /// From now on the consumer may be another, or not know of what it has delivered.
    pub(crate) fn doubt(&self) {
        self.0.doubt.cancel();
    }

    async fn ask(&self, delivered: &Delivered, kind: AckKind, again: bool) -> Result<(), Unconfirmed> {
        let to = delivered.message.reply.clone().ok_or(Unconfirmed::NoReply)?;
        let (heard, word) = oneshot::channel();
        let waiting = Waiting { to, kind, delivery: delivered.number, again, heard };
        self.0.waiting.send(waiting).map_err(|_| Unconfirmed::Ending)?;
        word.await.map_err(|_| Unconfirmed::Ending)?
    }
}

/// Asks for as long as there is anybody who could wait.
async fn run(client: Client, mut received: mpsc::UnboundedReceiver<Waiting>, doubt: CancellationToken) {
    let first_connection = connections(&client);
    let mut waiting = Vec::new();
    while received.recv_many(&mut waiting, TOGETHER).await > 0 {
        let one_by_one = doubt.is_cancelled() || connections(&client) != first_connection;
        let questions = grouped(std::mem::take(&mut waiting), one_by_one).into_iter();
        let asked: Vec<_> = questions.map(|together| tokio::spawn(ask(client.clone(), together))).collect();
        // Not answered soon, they go on by themselves.
        let _ = timeout(SOON, join_all(asked)).await;
    }
}

/// Which of them go with one question, the one that was delivered last at the end.
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

/// How often the connection was made.
fn connections(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// Asks once for some, and tells who waits for it.
async fn ask(client: Client, together: Vec<Waiting>) {
    let confirmed = match timeout(CONFIRM, confirm(&client, &together)).await {
        Ok(confirmed) => confirmed,
        Err(_) => Err(Unconfirmed::Silence),
    };
    for waiting in together {
        // Who is not there any more does not need to know.
        let _ = waiting.heard.send(confirmed.clone());
    }
}

/// Sends them all, and asks with the last.
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
