//! Removes one message from a stream.

use async_nats::jetstream::{Context, response::Response, stream::DeleteStatus};
use serde_json::json;

use crate::peek::{NatsError, failed, is_stored};

/// Removes the message at a sequence, and returns whether it was there. `action` names the purpose
/// in an error.
///
/// A purge of the subject is not used. After it, nats-server counts the messages that a consumer
/// received before that message as acknowledged, and never redelivers them (nats-server#5727, seen
/// in 2.15.1).
pub async fn remove(
    js: &Context,
    stream: &str,
    sequence: u64,
    action: &'static str,
) -> Result<bool, NatsError> {
    // Without `no_erase`, as in the client's `delete_message`, the server overwrites the message on
    // disk. That takes fifty times as long, and is not done for a call that ends normally either.
    let request = json!({ "seq": sequence, "no_erase": true });
    match js
        .request(format!("STREAM.MSG.DELETE.{stream}"), &request)
        .await
        .map_err(failed(action))?
    {
        Response::Ok(DeleteStatus { success }) => Ok(success),
        // The server has one code for a missing message and for any other failure.
        Response::Err { .. } if !is_stored(js, stream, sequence).await? => Ok(false),
        Response::Err { error } => Err(failed(action)(error)),
    }
}
