//! The messages of the NATS Streaming protocol that a subscriber sends and receives.
//!
//! Source: `nats-io/stan.go`, `pb/protocol.proto`. Fields that are not used here are left out.

use prost::Message;

/// Begin with messages that are published from now on.
pub(super) const START_NEW: i32 = 0;
/// Begin with the first message that the channel has.
pub(super) const START_FIRST: i32 = 4;

/// Requests a connection, on `_STAN.discover.<cluster-id>`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ConnectRequest {
    #[prost(string, tag = "1")]
    pub(super) client_id: String,
    /// The subject on which the server asks whether the client is still there.
    #[prost(string, tag = "2")]
    pub(super) heartbeat_inbox: String,
    #[prost(int32, tag = "3")]
    pub(super) protocol: i32,
    /// Identifies this connection of the client.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) connection_id: Vec<u8>,
    /// In seconds.
    #[prost(int32, tag = "5")]
    pub(super) ping_interval: i32,
    #[prost(int32, tag = "6")]
    pub(super) ping_max_out: i32,
}

/// The subjects for a connection's requests, or why the connection is refused.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ConnectResponse {
    #[prost(string, tag = "2")]
    pub(super) subscribe_requests: String,
    #[prost(string, tag = "4")]
    pub(super) close_requests: String,
    #[prost(string, tag = "5")]
    pub(super) error: String,
    /// Empty in versions of the server before 0.10.
    #[prost(string, tag = "7")]
    pub(super) ping_requests: String,
}

/// Asks whether the server still knows the connection.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Ping {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) connection_id: Vec<u8>,
}

/// Requests the messages of a channel.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct SubscriptionRequest {
    #[prost(string, tag = "1")]
    pub(super) client_id: String,
    #[prost(string, tag = "2")]
    pub(super) channel: String,
    #[prost(string, tag = "3")]
    pub(super) queue_group: String,
    #[prost(string, tag = "4")]
    pub(super) inbox: String,
    #[prost(int32, tag = "5")]
    pub(super) max_inflight: i32,
    #[prost(int32, tag = "6")]
    pub(super) ack_wait_seconds: i32,
    #[prost(string, tag = "7")]
    pub(super) durable_name: String,
    /// [`START_NEW`] or [`START_FIRST`]. Ignored if the durable queue group exists.
    #[prost(int32, tag = "10")]
    pub(super) start_position: i32,
}

/// The subject on which messages are acknowledged, or why the subscription is refused.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct SubscriptionResponse {
    #[prost(string, tag = "2")]
    pub(super) ack_inbox: String,
    #[prost(string, tag = "3")]
    pub(super) error: String,
}

/// A message of a channel.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct MsgProto {
    #[prost(uint64, tag = "1")]
    pub(super) sequence: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) data: bytes::Bytes,
    /// When the server stored it, in nanoseconds since 1970.
    #[prost(int64, tag = "5")]
    pub(super) timestamp: i64,
}

/// Acknowledges a message.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Ack {
    #[prost(string, tag = "1")]
    pub(super) channel: String,
    #[prost(uint64, tag = "2")]
    pub(super) sequence: u64,
}

/// Closes a connection. What its durable subscriptions have not acknowledged is delivered again.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct CloseRequest {
    #[prost(string, tag = "1")]
    pub(super) client_id: String,
}

/// The answer to a [`Ping`] and to a [`CloseRequest`]. `error` is empty if the request succeeded.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Acknowledgement {
    #[prost(string, tag = "1")]
    pub(super) error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_read_as_go_writes_it() {
        // pb.MsgProto{Sequence: 7, Subject: "c", Data: "hi", Timestamp: 300, Redelivered: true}
        let bytes = [8, 7, 18, 1, b'c', 34, 2, b'h', b'i', 40, 0xac, 2, 48, 1];
        let delivery = MsgProto::decode(&bytes[..]).unwrap();
        assert_eq!(delivery, MsgProto { sequence: 7, data: "hi".into(), timestamp: 300 });
    }

    #[test]
    fn a_subscription_is_written_as_go_reads_it() {
        let request = SubscriptionRequest {
            client_id: "a".into(),
            channel: "b".into(),
            queue_group: "c".into(),
            inbox: "d".into(),
            max_inflight: 1,
            ack_wait_seconds: 30,
            durable_name: "e".into(),
            start_position: 0,
        };
        let expected =
            [10, 1, b'a', 18, 1, b'b', 26, 1, b'c', 34, 1, b'd', 40, 1, 48, 30, 58, 1, b'e'];
        assert_eq!(request.encode_to_vec(), expected);
    }
}
