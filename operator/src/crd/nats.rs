//! `spec.nats`: where the queue is, and how to get in.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{rules as rule, schemas, secret::SecretKey};

/// The NATS server that holds this queue.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NatsSpec {
    /// URL of the server; several are separated by commas. Default: the operator's NATS.
    ///
    /// Set it only for a queue on a different NATS. The gateway publishes to its own NATS, so such
    /// a queue is not in its directory: calls come from a gateway or a publisher of that NATS. A
    /// change does not move calls. It contains no credentials: those are in a Secret. Example:
    /// nats://nats.other:4222
    #[schemars(schema_with = "schemas::nats_url")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule::nats_url(), validation = rule::nats_url_without_credentials())]
    pub url: Option<String>,

    /// Key of a Secret in this namespace with credentials for that server: a file as `nsc generate
    /// creds` writes it, with a JWT and a seed, or one line: USER:PASSWORD, the seed of an nkey, or
    /// a token. Default: none.
    ///
    /// The Secret is mounted into the workers and not copied. Each new connection uses its current
    /// value: a change takes effect without a restart, as soon as the server closes the connections
    /// of the old credentials. With url set, the operator needs them too, and must be permitted to
    /// get this Secret: StreamReady says how. Example: {name: nats-workers, key: user.creds}
    #[schemars(schema_with = "schemas::object::<SecretKey>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretKey>,

    /// Key of a Secret in this namespace with the CA certificate of that server, in PEM. If set,
    /// the connection must use TLS. Default: none. With tls://, the certificate of the server must
    /// then chain to a public CA.
    ///
    /// With url set, the operator must be permitted to get this Secret too. Example: {name:
    /// nats-ca, key: ca.crt}
    #[schemars(schema_with = "schemas::object::<SecretKey>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,
}
