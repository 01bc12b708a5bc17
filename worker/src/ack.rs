//! Acknowledgements, and the server's word that it has them.
//!
//! Each call waits for that word, but not each for one of its own: a consumer takes acknowledgements in the order in which
//! they were sent over one connection, so its word on the last of several is its word on all. Those that come up while
//! the server is asked go together with the next question. (The client library's `double_ack` asks for each, by a
//! subscription for each, which costs the server more than the acknowledgement does.)

use std::{sync::atomic::Ordering, time::Duration};

use async_nats::{
    Client, Subject,
    client::{PublishErrorKind, RequestErrorKind},
    jetstream::{AckKind, Message},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// The server's word takes a millisecond when all is well.
pub(crate) const CONFIRM: Duration = Duration::from_secs(5);

/// Acknowledgements that go with one question. Bounds what is sent again if it gets no answer.
const TOGETHER: usize = 1024;

/// Acknowledges the messages of one consumer. Clones share their questions.
#[derive(Clone, Debug)]
pub(crate) struct Acks {
    waiting: mpsc::UnboundedSender<Waiting>,
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
    /// The server has said nothing for [`CONFIRM`].
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
    heard: oneshot::Sender<Result<(), Unconfirmed>>,
}

// === impl Acks ===

impl Acks {
    /// For the messages of one consumer, over this connection.
    pub(crate) fn start(client: Client) -> Self {
        let (waiting, received) = mpsc::unbounded_channel();
        tokio::spawn(run(client, received));
        Self { waiting }
    }

    /// Acknowledges a message, and returns when the server says that it has it. To acknowledge it once more is harmless.
    pub(crate) async fn confirm(&self, message: &Message, kind: AckKind) -> Result<(), Unconfirmed> {
        let to = message.reply.clone().ok_or(Unconfirmed::NoReply)?;
        let (heard, word) = oneshot::channel();
        self.waiting.send(Waiting { to, kind, heard }).map_err(|_| Unconfirmed::Ending)?;
        word.await.map_err(|_| Unconfirmed::Ending)?
    }
}

/// Asks for as long as there is anybody who could wait.
async fn run(client: Client, mut received: mpsc::UnboundedReceiver<Waiting>) {
    let mut together = Vec::new();
    while received.recv_many(&mut together, TOGETHER).await > 0 {
        let confirmed = match timeout(CONFIRM, confirm(&client, &together)).await {
            Ok(confirmed) => confirmed,
            Err(_) => Err(Unconfirmed::Silence),
        };
        for waiting in together.drain(..) {
            // Who is not there any more does not need to know.
            let _ = waiting.heard.send(confirmed.clone());
        }
    }
}

/// Sends them all, and asks with the last.
async fn confirm(client: &Client, together: &[Waiting]) -> Result<(), Unconfirmed> {
    let Some((last, before)) = together.split_last() else { return Ok(()) };
    let connections = || client.statistics().connects.load(Ordering::Relaxed);
    let connection = connections();
    for Waiting { to, kind, .. } in before {
        let sent = client.publish(to.clone(), (*kind).into()).await;
        sent.map_err(|error| Unconfirmed::Send(error.kind()))?;
    }
    let answered = client.request(last.to.clone(), last.kind.into()).await;
    answered.map_err(|error| Unconfirmed::Ask(error.kind()))?;
    if connections() == connection { Ok(()) } else { Err(Unconfirmed::Reconnected) }
}
