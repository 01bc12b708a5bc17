//! Settings that the workers of all queues have in common.

use asyncqueue::function_namespaces::NamespaceList;
use asyncqueue_runtime::{
    nats::has_credentials,
    settings::{LogEncoding, NatsSettings},
};
use k8s_openapi::api::core::v1::LocalObjectReference;

use crate::{Settings, crd::SecretKey, nats::allowed_streams::AllowedStreams};

/// Settings that the workers of all queues have in common.
#[derive(Clone, Debug)]
pub(crate) struct WorkerDefaults {
    /// How workers connect to NATS.
    pub(crate) nats: NatsSettings,
    /// Their credentials for NATS: a Secret in each queue's namespace, unless the queue names
    /// another one.
    pub(crate) nats_credentials: Option<SecretKey>,
    /// The CA bundle for the NATS servers: a Secret in each queue's namespace, unless the queue
    /// names another one.
    pub(crate) nats_ca: Option<SecretKey>,
    /// The client certificate for the NATS servers: a Secret in each queue's namespace.
    pub(crate) nats_tls_cert: Option<SecretKey>,
    /// The private key of that certificate.
    pub(crate) nats_tls_key: Option<SecretKey>,
    /// Their user and group id; `None` leaves it to the cluster.
    pub(crate) user_id: Option<i64>,
    /// Image of the workers.
    pub(crate) worker_image: String,
    /// Whether that is the operator's own image, and so of its version.
    pub(crate) is_own_image: bool,
    /// The pull secrets in each queue's namespace for that image, unless the queue names others.
    pub(crate) image_pull_secrets: Vec<LocalObjectReference>,
    /// Namespace of functions that are named without one.
    pub(crate) function_namespace: String,
    /// The other namespaces whose functions workers may call.
    pub(crate) function_namespaces: NamespaceList,
    /// Namespace of the operator and the gateway, whose Services are not functions.
    pub(crate) platform_namespace: Option<String>,
    /// The gateway through which workers call functions, if any.
    pub(crate) gateway_url: Option<String>,
    /// The streams of other programs that queues may take over.
    pub(crate) allowed_streams: AllowedStreams,
    /// Encoding of the workers' log.
    pub(crate) log_encoding: LogEncoding,
}

// === impl WorkerDefaults ===

impl WorkerDefaults {
    /// Returns the part of the operator's settings that is for workers.
    pub(crate) fn new(settings: &Settings, worker_image: String) -> Self {
        Self {
            nats: settings.nats.clone(),
            nats_credentials: settings.worker_nats_creds_secret.0.clone(),
            nats_ca: settings.worker_nats_ca_secret.0.clone(),
            nats_tls_cert: settings.worker_nats_tls_cert_secret.0.clone(),
            nats_tls_key: settings.worker_nats_tls_key_secret.0.clone(),
            user_id: settings.worker_user_id.0,
            worker_image,
            is_own_image: settings.worker_image.0.is_none(),
            image_pull_secrets: settings.worker_image_pull_secrets.references(),
            function_namespace: settings.function_namespace.clone(),
            function_namespaces: settings.function_namespaces.clone(),
            platform_namespace: settings.pod_namespace.0.clone(),
            gateway_url: settings.gateway_url.0.clone(),
            allowed_streams: settings.allowed_streams.clone(),
            log_encoding: settings.log.log_encoding,
        }
    }

    /// Returns whether the operator's own NATS URL contains credentials, and no Secret with those
    /// of the workers is configured.
    pub(crate) fn lacks_credentials(&self) -> bool {
        let servers = self.nats.nats_url.as_ref().unwrap_or(&self.nats.nats_host);
        has_credentials(servers) && self.nats_credentials.is_none()
    }
}
