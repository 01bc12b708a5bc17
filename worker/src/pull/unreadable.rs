//! Messages whose headers this program's client of NATS can't read.
//!
//! To nats-server headers are bytes. The client closes the connection on which it meets some that are no headers: each time
//! that the message is delivered, so that the calls behind it wait. Asked for over the JSON API such a message does no harm.
//! So when requests have been lost again and again, what was delivered and is not acknowledged is looked at in that way.

use async_nats::{
    HeaderName, Message,
    jetstream::{Context, consumer::Info},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};
use tracing::debug;

use crate::delivery::Delivered;

/// As many messages are looked at, at most: more than the workers of most queues have at once.
const LOOKS: usize = 10_000;

/// A message that can't be read, and why.
pub(super) struct Unreadable {
    pub(super) delivered: Delivered,
    pub(super) why: String,
}

/// The messages that a consumer has delivered, that nobody has acknowledged, and that can't be read.
pub(super) async fn find(js: &Context, consumer: &Info) -> Vec<Unreadable> {
    let (mut found, mut next) = (Vec::new(), consumer.ack_floor.stream_sequence + 1);
    if consumer.num_ack_pending == 0 {
        return found;
    }
    for _ in 0..LOOKS {
        let Some(message) = message_from(js, &consumer.stream_name, next).await else { break };
        let Some(sequence) = message["seq"].as_u64() else { break };
        if sequence > consumer.delivered.stream_sequence {
            break;
        }
        next = sequence + 1;
        if let Err(why) = check(&bytes(&message["hdrs"])) {
            found.push(Unreadable { delivered: rebuilt(consumer, &message, sequence), why });
        }
    }
    found
}

/// The first message of a stream from a sequence on, as the JSON API has it.
async fn message_from(js: &Context, stream: &str, sequence: u64) -> Option<Value> {
    let request = json!({ "seq": sequence, "next_by_subj": ">" });
    match js.request::<_, _, Value>(format!("STREAM.MSG.GET.{stream}"), &request).await {
        Ok(mut answer) => Some(answer["message"].take()).filter(Value::is_object),
        Err(error) => {
            debug!(stream, sequence, %error, "a message could not be looked at");
            None
        }
    }
}

/// The message without its headers, as if it had been delivered.
fn rebuilt(consumer: &Info, message: &Value, sequence: u64) -> Delivered {
    let reply = format!("$JS.ACK.{}.{}.1.{sequence}.{sequence}.0.0", consumer.stream_name, consumer.name);
    let payload = Bytes::from(bytes(&message["data"]));
    Delivered::of(Message {
        subject: message["subject"].as_str().unwrap_or_default().into(),
        reply: Some(reply.into()),
        length: payload.len(),
        payload,
        headers: None,
        status: None,
        description: None,
    })
}

/// What the API has in base64, and leaves out where there is nothing.
fn bytes(base64: &Value) -> Vec<u8> {
    base64.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default()
}

/// Whether the client can read headers, and does not take them for words of the server: as `async-nats` does in
/// `connection.rs`.
fn check(headers: &[u8]) -> Result<(), String> {
    if headers.is_empty() {
        return Ok(());
    }
    let text = str::from_utf8(headers).map_err(|_| "they are not UTF-8".to_owned())?;
    let mut lines = text.lines();
    match lines.next().and_then(|line| line.strip_prefix("NATS/1.0")).map(str::trim) {
        Some("") => {}
        Some(_) => return Err("they hold a status".to_owned()),
        None => return Err("they do not begin with NATS/1.0".to_owned()),
    }
    let mut may_go_on = false;
    for line in lines.filter(|line| !line.is_empty()) {
        if line.contains('\r') {
            return Err("a line holds a carriage return".to_owned());
        }
        if may_go_on && line.starts_with(char::is_whitespace) {
            continue;
        }
        let (name, _) = line.split_once(':').ok_or_else(|| "a line has no colon".to_owned())?;
        name.parse::<HeaderName>().map_err(|_| "a name is none".to_owned())?;
        may_go_on = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_writes_can_be_read_and_the_rest_is_named() {
        for good in
            ["", "NATS/1.0\r\n\r\n", "NATS/1.0\r\nA: b\r\nC:\r\n\r\n", "NATS/1.0\r\nA: b\r\n c\r\n\r\n"]
        {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good:?}");
        }
        for (bad, why) in [
            (&b"NATS/1.0\r\nA: \xff\r\n\r\n"[..], "UTF-8"),
            (b"garbage", "NATS/1.0"),
            (b"NATS/9.9\r\nA: b\r\n\r\n", "NATS/1.0"),
            (b"NATS/1.0 503\r\n\r\n", "status"),
            (b"NATS/1.0\r\nno colon\r\n\r\n", "colon"),
            (b"NATS/1.0\r\n c: d\r\n\r\n", "name"),
            (b"NATS/1.0\r\na b: c\r\n\r\n", "name"),
            (b"NATS/1.0\r\nA: b\rc\r\n\r\n", "carriage return"),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.contains(why), "{}: {error}", bad.escape_ascii());
        }
    }
}
