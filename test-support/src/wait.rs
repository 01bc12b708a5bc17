//! Waits for conditions.

use std::time::{Duration, Instant};

/// How long a test waits for a condition. It is long enough for a loaded machine.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Checks until there is a value. Panics with `what` after [`WAIT_TIMEOUT`].
pub async fn until<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    until_in(WAIT_TIMEOUT, what, check).await
}

/// Checks until there is a value. Panics with `what` after `timeout`.
pub async fn until_in<T>(
    timeout: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(begun.elapsed() < timeout, "not seen in {timeout:?}: {what}");
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}
