//! Reads what the server sends to the inbox of the pull requests.

use async_nats::Message;

/// Says what a message on the inbox means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is a message of the stream.
    Message,
    /// The server is alive, and the request is still open.
    Heartbeat,
    /// A request has ended with this many messages not sent.
    Expired(usize),
    /// Requests are void, or the consumer does not exist: it must be looked up and messages
    /// requested again.
    Resubscribe(String),
}

/// Header with the number of messages of a request that the server has not sent.
const H_PENDING: &str = "Nats-Pending-Messages";

/// Reads a message on the inbox. The statuses are those in nats-server's `consumer.go`.
pub(crate) fn classify(message: &Message) -> Event {
    let Some(status) = message.status else { return Event::Message };
    let description = message.description.as_deref().unwrap_or_default();
    let unfilled = message
        .headers
        .as_ref()
        .and_then(|headers| headers.get(H_PENDING))
        .and_then(|pending| pending.as_str().parse().ok());
    match (status.as_u16(), unfilled) {
        (100, _) => Event::Heartbeat,
        // 404 for no messages, 408 for a request timeout, and 409 where only the request is over.
        (_, Some(unfilled)) => Event::Expired(unfilled),
        (503, None) => Event::Resubscribe("the stream or its consumer does not exist".to_owned()),
        (code, None) => Event::Resubscribe(format!("{code} {description}")),
    }
}

#[cfg(test)]
mod tests {
    use async_nats::{HeaderMap, StatusCode};

    use super::*;

    fn message(status: Option<u16>, description: &str, pending: Option<&str>) -> Message {
        let mut headers = HeaderMap::new();
        if let Some(pending) = pending {
            headers.insert(H_PENDING, pending);
        }
        Message {
            subject: "inbox".into(),
            reply: None,
            payload: bytes::Bytes::new(),
            headers: Some(headers),
            status: status.map(|code| StatusCode::from_u16(code).unwrap()),
            description: Some(description.to_owned()),
            length: 0,
        }
    }

    #[test]
    fn each_status_has_its_meaning() {
        for (status, description, pending, expected) in [
            (None, "", None, Event::Message),
            (Some(100), "Idle Heartbeat", Some("3"), Event::Heartbeat),
            (Some(408), "Request Timeout", Some("3"), Event::Expired(3)),
            (Some(409), "Message Size Exceeds MaxBytes", Some("2"), Event::Expired(2)),
            (
                Some(409),
                "Consumer Deleted",
                None,
                Event::Resubscribe("409 Consumer Deleted".into()),
            ),
            (
                Some(409),
                "Leadership Change",
                None,
                Event::Resubscribe("409 Leadership Change".into()),
            ),
            (Some(409), "Server Shutdown", None, Event::Resubscribe("409 Server Shutdown".into())),
        ] {
            assert_eq!(classify(&message(status, description, pending)), expected);
        }
        assert!(matches!(classify(&message(Some(503), "", None)), Event::Resubscribe(_)));
    }
}
