//! `spec.stream` and `spec.consumer`: what holds the calls on `JetStream`, and hands them out.

use asyncqueue::GoDuration;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{defaults as default, rules as rule, schemas};

/// The stream that stores the calls.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamSpec {
    /// Name of the stream, 1 to 64 of A-Z, a-z, 0-9, - and _. Default: the queue's name. Can't be
    /// changed.
    ///
    /// `nats stream ls` and KEDA's nats-jetstream trigger use this name. The streams that all
    /// queues share, asyncqueue-reserve and KV_asyncqueue-..., are refused. Example: SLOW
    #[schemars(schema_with = "schemas::jetstream_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule::jetstream_name(), validation = rule::reserved_stream())]
    pub name: Option<String>,

    /// Subject of the queue: calls are published to it and below it. Default: the queue's name.
    /// Can't be changed.
    ///
    /// Tokens of A-Z, a-z, 0-9, - and _ separated by dots, at most 128 characters. Subjects of two
    /// streams of a NATS account must not overlap. Example: jobs.slow
    #[schemars(schema_with = "schemas::subject")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule::subject(), validation = rule::reserved_subject())]
    pub subject: Option<String>,

    /// Number of replicas of the stream in a NATS cluster, 1 to 5; 3 survives the loss of a server.
    /// Default: 1.
    ///
    /// NATS refuses more replicas than the cluster has servers, which StreamReady reports. Example:
    /// 3
    #[schemars(range(min = 1, max = 5))]
    #[serde(default = "default::replicas")]
    pub replicas: i32,

    /// Storage of the stream. File keeps calls when NATS restarts, Memory is faster and loses them.
    /// Default: File. Can't be changed.
    #[x_kube(validation = rule::storage_is_immutable())]
    #[serde(default)]
    pub storage: Storage,

    /// Time for which a repeated submission of an accepted call is recognised, counted from the
    /// first one. Default: 2m.
    ///
    /// A duration from 1s to 24h, written as 90s, 15m or 1h30m. NATS keeps each id in memory for
    /// this time. Example: 10m
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::duplicate_window())]
    #[serde(default = "default::duplicate_window")]
    pub duplicate_window: GoDuration,
}

/// The durable pull consumer of the workers.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerSpec {
    /// Name of the durable consumer, 1 to 64 of A-Z, a-z, 0-9, - and _. Default: the queue's name
    /// with -workers. Can't be changed.
    ///
    /// `nats consumer ls` and KEDA's nats-jetstream trigger use this name. Example: slow-workers
    #[schemars(schema_with = "schemas::jetstream_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule::jetstream_name())]
    pub durable_name: Option<String>,

    /// Lease of a call (ack wait): time without a renewal after which another worker takes the call
    /// over. Default: 30s.
    ///
    /// A duration from 1s to 1h. It does not limit the time of a call, which may be much longer
    /// (see spec.timeout): a worker renews the lease while the function runs. A shorter lease takes
    /// over the calls of a killed worker sooner, a longer one tolerates a longer interruption
    /// between worker and NATS. Example: 1m
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::ack_wait())]
    #[serde(default = "default::ack_wait")]
    pub ack_wait: GoDuration,
}

/// Where a stream stores its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory.
    Memory,
}

impl Default for StreamSpec {
    fn default() -> Self {
        Self {
            name: None,
            subject: None,
            replicas: default::replicas(),
            storage: Storage::default(),
            duplicate_window: default::duplicate_window(),
        }
    }
}

impl Default for ConsumerSpec {
    fn default() -> Self {
        Self { durable_name: None, ack_wait: default::ack_wait() }
    }
}
