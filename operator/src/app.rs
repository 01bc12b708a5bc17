//! What the parts of the program have in common.

use asyncqueue_runtime::health::Health;
use kube::Client;

use crate::{Settings, depth::DepthEndpoint, metrics::Metrics};

/// Settings and clients of the program.
pub(crate) struct App {
    pub(crate) settings: Settings,
    /// Client of the Kubernetes API.
    pub(crate) client: Client,
    /// The operator's own NATS.
    pub(crate) nats: async_nats::Client,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) depth: DepthEndpoint,
}
