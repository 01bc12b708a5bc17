//! `spec.callback`: how results reach the callers.

use asyncqueue::GoDuration;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{defaults as default, rules as rule, schemas, secret::SecretKey};

/// How results are posted to the X-Callback-Url of their call.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallbackSpec {
    /// How long one attempt to post a result may take. Default: 30s.
    ///
    /// A duration of more than 0s and at most 1h, written as 200ms, 90s, 15m or 1h30m. Example: 10s
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::callback_timeout())]
    #[serde(default = "default::callback_timeout")]
    pub timeout: GoDuration,

    /// How often a result is posted in all, the first time included, 1 to 1000. Default: 5.
    ///
    /// The waits in between are those of spec.retry. After that the result becomes a dead letter;
    /// the function does not run again for it. Example: 10
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default = "default::callback_max_attempts")]
    pub max_attempts: i32,

    /// The key of a Secret in this namespace with the secrets that sign results, by the Standard
    /// Webhooks specification: one whsec_... a line. Default: results are not signed.
    ///
    /// The Secret is mounted into the workers and copied nowhere. A change of it counts within a
    /// minute or two, without a restart. To rotate, put the new secret on a line before the old
    /// one, which both sign then, and take the old one out when all receivers know the new one.
    /// Example: {name: webhooks, key: secrets}
    #[schemars(schema_with = "schemas::object::<SecretKey>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_ref: Option<SecretKey>,

    /// The key of a Secret in this namespace with the certificate authorities of receivers, in PEM.
    /// They are trusted besides the public ones. Default: the public ones alone.
    ///
    /// The Secret is mounted into the workers and copied nowhere. A change of it counts within a
    /// minute or two, for new connections, without a restart. Example: {name: receivers-ca, key:
    /// ca.crt}
    #[schemars(schema_with = "schemas::object::<SecretKey>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,

    /// Where results may go: host names, names under a domain as *.example.com, addresses, or
    /// networks as 10.0.0.0/8; 64 at most. Default: anywhere but to loopback addresses.
    ///
    /// Link-local addresses and those at which cloud providers serve credentials are never allowed.
    /// Example: [hooks.example.com, "*.svc.cluster.local"]
    #[schemars(schema_with = "schemas::hosts")]
    #[x_kube(validation = rule::allowed_hosts())]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<String>,
}

impl Default for CallbackSpec {
    fn default() -> Self {
        Self {
            timeout: default::callback_timeout(),
            max_attempts: default::callback_max_attempts(),
            signing_secret_ref: None,
            ca_secret_ref: None,
            allowed_hosts: Vec::new(),
        }
    }
}
