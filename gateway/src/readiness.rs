//! The readiness conditions of the directory and of the program itself.

use std::sync::Arc;

use asyncqueue::directory::Directory;
use asyncqueue_runtime::health::Health;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Name of the condition that the directory was read.
const DIRECTORY: &str = "directory";

/// Reason for which this condition does not hold at the start.
const DIRECTORY_PENDING: &str = "waiting for the KV bucket asyncqueue-directory, which the \
                                 operator writes; without an operator, set directory_file or \
                                 ensure_stream=true";

/// Name of the condition that the program is not shutting down.
const SERVING: &str = "serving";

/// Registers the condition of the directory, which does not hold yet.
pub(crate) fn register_directory(health: &Health) {
    health.register(DIRECTORY, DIRECTORY_PENDING);
}

/// Sets the condition of the directory when the directory was read. It then holds permanently.
pub(crate) async fn track_directory_readiness(
    mut directory: watch::Receiver<Option<Arc<Directory>>>,
    health: Health,
) {
    if directory.wait_for(Option::is_some).await.is_ok() {
        info!("read the directory");
        health.ready(DIRECTORY);
    }
}

/// Makes the gateway not ready when the shutdown begins.
pub(crate) async fn end_readiness(shutdown: CancellationToken, health: Health) {
    shutdown.cancelled().await;
    health.not_ready(SERVING, "shutting down");
}
