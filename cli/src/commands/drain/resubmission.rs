//! Decides whether a message that may have been stored can be stored again without creating a
//! second call. Pure.
//!
//! If a drain is killed between storing a message and recording that, it is uncertain whether the
//! message was stored. Within the duplicate window of the queue's stream, the server itself
//! recognises the message. After that, only a call that is still pending proves that it was stored.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Safety margin at the end of the window, for the request that stores the message.
const REQUEST_MARGIN: SignedDuration = SignedDuration::from_secs(10);

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// Store it: it was not stored, or the server recognises it as a duplicate.
    Store,
    /// Check whether it is pending. If not, it may have been stored and have ended since.
    CheckPending,
}

/// Returns what to do with a message that may have been stored since `uncertain_since`. `None`
/// means that it was not stored.
pub(super) fn next_step(
    uncertain_since: Option<Timestamp>,
    now: Timestamp,
    duplicate_window: Duration,
) -> NextStep {
    let Some(since) = uncertain_since else { return NextStep::Store };
    let window = SignedDuration::try_from(duplicate_window).unwrap_or(SignedDuration::MAX);
    let age = now.duration_since(since);
    if age < window.saturating_sub(REQUEST_MARGIN) {
        NextStep::Store
    } else {
        NextStep::CheckPending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_stored_again_only_within_the_duplicate_window() {
        let since: Timestamp = "2026-11-28T10:00:00Z".parse().unwrap();
        let after = |seconds: u64| since + Duration::from_secs(seconds);
        let window = Duration::from_secs(120);
        for (uncertain_since, now, expected) in [
            (None, after(1_000_000), NextStep::Store),
            (Some(since), since, NextStep::Store),
            (Some(since), after(109), NextStep::Store),
            (Some(since), after(110), NextStep::CheckPending),
            (Some(since), after(1_000_000), NextStep::CheckPending),
        ] {
            assert_eq!(
                next_step(uncertain_since, now, window),
                expected,
                "{uncertain_since:?} {now}"
            );
        }
        // A window that is shorter than a request may take cannot be used.
        assert_eq!(next_step(Some(since), since, Duration::from_secs(5)), NextStep::CheckPending);
    }
}
