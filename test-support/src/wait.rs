//! Waits for conditions.

use std::time::{Duration, Instant};

/// Long enough for a machine that does much else; a condition that holds is seen long before.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is a value, and panics with `what` if there is none in [`PATIENCE`].
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_in(PATIENCE, what, look).await
}

/// Looks until there is a value, and panics with `what` if there is none in time.
pub async fn until_in<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(begun.elapsed() < patience, "not seen in {patience:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
