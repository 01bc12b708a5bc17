//! Takes one message off a stream.

use async_nats::jetstream::{Context, response::Response, stream::DeleteStatus};
use serde_json::json;

use crate::peek::{NatsError, failed, is_stored};

/// Removes the message at a sequence, and returns whether it was there. `action` says what for, in an error.
///
/// Not by a purge of its subject: nats-server then takes what a consumer was delivered before that message for
/// acknowledged, and never delivers it again (nats-server#5727, seen in 2.15.1).
pub async fn remove(
    js: &Context,
    stream: &str,
    sequence: u64,
    action: &'static str,
) -> Result<bool, NatsError> {
    // Without `no_erase`, as the client's `delete_message` has it, the server overwrites the message on disk: fifty
    // times as long, and no more than what becomes of a call that ends well.
    let request = json!({ "seq": sequence, "no_erase": true });
    match js.request(format!("STREAM.MSG.DELETE.{stream}"), &request).await.map_err(failed(action))? {
        Response::Ok(DeleteStatus { success }) => Ok(success),
        // The server's code for a message that is not there stands for any failure.
        Response::Err { .. } if !is_stored(js, stream, sequence).await? => Ok(false),
        Response::Err { error } => Err(failed(action)(error)),
    }
}
