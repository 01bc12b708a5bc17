//! Questions over core NATS that all workers of a queue hear, and the one that knows answers.

use std::time::Duration;

use async_nats::{Client, Subject};
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::sleep;
use tracing::debug;

/// Between attempts to listen, while the connection is closed.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers the questions on a subject with what `answer` makes of them, if anything, for as long as it is polled. It gets
/// the inbox too, where the answer may come later.
pub(crate) async fn answer(
    client: &Client,
    subject: String,
    answer: impl Fn(&[u8], Option<&Subject>) -> Option<Bytes>,
) {
    loop {
        match client.subscribe(subject.clone()).await {
            Ok(mut questions) => {
                while let Some(question) = questions.next().await {
                    let answered = answer(&question.payload, question.reply.as_ref());
                    if let (Some(bytes), Some(inbox)) = (answered, question.reply) {
                        send(client, inbox, bytes).await;
                    }
                }
            }
            Err(error) => debug!(%error, subject, "questions can't be heard now"),
        }
        sleep(PAUSE).await;
    }
}

/// Sends an answer to an inbox.
pub(crate) async fn send(client: &Client, inbox: Subject, answer: Bytes) {
    if let Err(error) = client.publish(inbox, answer).await {
        debug!(%error, "an answer could not be sent");
    }
}
