//! How a program is asked to end: by signals, and by tokens that its parts wait for.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The time that a program has left after a second signal, for the last messages that let other
/// processes take over at once.
pub const FORCED_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The tokens that ask a program to end.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Cancelled by the first SIGTERM or SIGINT: start nothing new, and finish what runs.
    pub graceful: CancellationToken,
    /// Cancelled by the second signal: abandon what runs. The program has
    /// [`FORCED_SHUTDOWN_TIMEOUT`] left.
    pub forced: CancellationToken,
}
