//! `spec.nats`: where the queue is, and how to get in.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{rules as rule, schemas, secret::SecretKey};

/// The NATS server that holds this queue.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NatsSpec {
    /// URL of the server, or several, comma-separated. Default: the operator's own.
    ///
    /// Set it only for a queue on another NATS than the operator's. The gateway publishes to its
    /// own NATS, so such a queue is not in its directory: calls come from a gateway or a publisher
    /// of that NATS. Changing it moves no calls. It holds no credentials: those are in a Secret.
    /// Example: nats://nats.other:4222
    #[schemars(schema_with = "schemas::nats_url")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule::nats_url(), validation = rule::nats_url_without_credentials())]
    pub url: Option<String>,

    /// The key of a Secret in this namespace with credentials for that server: a file as `nsc
    /// generate creds` writes it, with a JWT and a seed, or one line USER:PASSWORD, or one line
    /// with a token. Default: none.
    ///
    /// The Secret is mounted into the workers and copied nowhere. Each connection is made with what
    /// it holds then, so that a change counts without a restart, as soon as the server ends the
    /// connections of the old credentials. With url set, the operator needs them too, and must be
    /// allowed to get this Secret: StreamReady says how. Example: {name: nats-workers, key:
    /// user.creds}
    #[schemars(schema_with = "schemas::object::<SecretKey>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretKey>,

    /// The key of a Secret in this namespace with the certificate authority of that server, in PEM.
    /// Set, the connection must be by TLS. Default: none; tls:// in the URL then asks for a
    /// certificate that everybody trusts.
    ///
    /// With url set, the operator must be allowed to get this Secret, too. Example: {name: nats-ca,
    /// key: ca.crt}
    #[schemars(schema_with = "schemas::object::<SecretKey>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,
}
