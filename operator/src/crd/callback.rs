//! `spec.callback`: how results reach the callers.

use asyncqueue::GoDuration;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{defaults as default, rules as rule, schemas, secret::SecretKey};

/// How results are posted to the X-Callback-Url of their call.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallbackSpec {
    /// Maximum time of one attempt to post a result. Default: 30s.
    ///
    /// A duration of more than 0s and at most 1h, written as 200ms, 90s, 15m or 1h30m. Example: 10s
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::callback_timeout())]
    #[serde(default = "default::callback_timeout")]
    pub timeout: GoDuration,

    /// Maximum number of attempts to post a result, 1 to 1000. Default: 5.
    ///
    /// The waits between attempts are those of spec.retry. After the last attempt the result
    /// becomes a dead letter; the function is not called again for it. Example: 10
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default = "default::callback_max_attempts")]
    pub max_attempts: i32,

    /// Key of a Secret in this namespace with the secrets that sign results according to the
    /// Standard Webhooks specification, one whsec_... a line. Default: results are not signed.
    ///
    /// The Secret is mounted into the workers and not copied. A change takes effect within one to
    /// two minutes, without a restart. To rotate, put the new secret on a line before the old one,
    /// so that both sign, and remove the old one when all receivers have the new one. Example:
    /// {name: webhooks, key: secrets}
    #[schemars(schema_with = "schemas::object::<SecretKey>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_ref: Option<SecretKey>,

    /// Key of a Secret in this namespace with CA certificates of receivers, in PEM. They are
    /// trusted in addition to public CAs. Default: only public CAs.
    ///
    /// The Secret is mounted into the workers and not copied. A change takes effect within one to
    /// two minutes, for new connections, without a restart. Example: {name: receivers-ca, key:
    /// ca.crt}
    #[schemars(schema_with = "schemas::object::<SecretKey>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,

    /// Hosts to which results may be posted: host names, wildcards as *.example.com, addresses, or
    /// networks as 10.0.0.0/8; at most 64. Default: all except loopback addresses.
    ///
    /// Link-local addresses and the metadata addresses of cloud providers are never allowed.
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
