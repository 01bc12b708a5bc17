//! Responds to requests over core NATS. All workers of a queue receive them, and the one that knows
//! the response sends it.

use std::time::Duration;

use async_nats::{Client, Subject, Subscriber};
use asyncqueue_runtime::nats::keep_up;
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::sleep;
use tracing::debug;

/// Wait between attempts to subscribe, while the connection is closed.
const RESUBSCRIBE_INTERVAL: Duration = Duration::from_secs(1);

/// Answers the requests on a subject with the result of `answer`, if any, for as long as it is
/// polled. `answer` gets the inbox too, to which the answer may be sent later.
pub(crate) async fn answer(
    client: &Client,
    subject: String,
    answer: impl Fn(&[u8], Option<&Subject>) -> Option<Bytes>,
) {
    loop {
        match client.subscribe(subject.clone()).await {
            Ok(requests) => keep_up(answer_all(client, requests, &answer)).await,
            Err(error) => debug!(%error, subject, "failed to subscribe, will retry"),
        }
        sleep(RESUBSCRIBE_INTERVAL).await;
    }
}

/// Answers all requests of a subscription.
async fn answer_all(
    client: &Client,
    mut requests: Subscriber,
    answer: &impl Fn(&[u8], Option<&Subject>) -> Option<Bytes>,
) {
    while let Some(request) = requests.next().await {
        let reply = answer(&request.payload, request.reply.as_ref());
        if let (Some(bytes), Some(inbox)) = (reply, request.reply) {
            send(client, inbox, bytes).await;
        }
    }
}

/// Sends an answer to an inbox.
pub(crate) async fn send(client: &Client, inbox: Subject, answer: Bytes) {
    if let Err(error) = client.publish(inbox, answer).await {
        debug!(%error, "failed to send a response");
    }
}
