//! Decides whether a message that may have been stored can be stored again without creating a
//! second call. Pure.
//!
//! If a drain is killed between storing a message and recording that, it is uncertain whether the
//! message was stored. Within the duplicate window of the queue's stream, the server itself
//! recognises the message. After that, only a call that is still pending proves that it was stored.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Safety margin at the end of the window, for the request that stores the message.
const MARGIN: SignedDuration = SignedDuration::from_secs(10);

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Store it: it was not stored, or the server recognises it as a duplicate.
    Store,
    /// Check whether it is pending. If not, it may have been stored and have ended since.
    Check,
}

/// Returns what to do with a message that may have been stored since `doubt`. `None` means that it
/// was not stored.
pub(super) fn step(doubt: Option<Timestamp>, now: Timestamp, duplicate_window: Duration) -> Step {
    let Some(since) = doubt else { return Step::Store };
    let window = SignedDuration::try_from(duplicate_window).unwrap_or(SignedDuration::MAX);
    let age = now.duration_since(since);
    if age < window.saturating_sub(MARGIN) { Step::Store } else { Step::Check }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_stored_again_only_while_the_server_knows_it() {
        let since: Timestamp = "2026-11-28T10:00:00Z".parse().unwrap();
        let after = |seconds: u64| since + Duration::from_secs(seconds);
        let window = Duration::from_secs(120);
        for (doubt, now, expected) in [
            (None, after(1_000_000), Step::Store),
            (Some(since), since, Step::Store),
            (Some(since), after(109), Step::Store),
            (Some(since), after(110), Step::Check),
            (Some(since), after(1_000_000), Step::Check),
        ] {
            assert_eq!(step(doubt, now, window), expected, "{doubt:?} {now}");
        }
        // A window that is shorter than a request may take cannot be used.
        assert_eq!(step(Some(since), since, Duration::from_secs(5)), Step::Check);
    }
}
