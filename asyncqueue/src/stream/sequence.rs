//! Numbers the messages of a stream so that a sequence never means two messages.
//!
//! A stream that is deleted and created again would number its messages from 1 again. An ack, a
//! tombstone or an attempt count of a message that is gone would then be taken for a new one's. So
//! a stream is created with the time as its first sequence. `first_seq` is never set by an update:
//! nats-server purges all messages below it at its next start.

use async_nats::jetstream::stream::{Config, State};
use jiff::Timestamp;

/// 2025-01-01T00:00:00Z. No correct clock is before it, and no stream that counts from 1 comes near
/// it.
const EARLIEST: Timestamp = Timestamp::constant(1_735_689_600, 0);

/// The clock is wrong, so a new stream might repeat the sequences of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to create stream `{stream}`: the clock says {now}, which is before {EARLIEST}, and the \
     first sequence of a new stream is the time: set the clock of this machine"
)]
pub struct ClockError {
    /// The stream.
    pub stream: String,
    /// The time of the clock.
    pub now: Timestamp,
}

/// Returns the configuration with which a stream is created now: its first sequence is the time in
/// microseconds since 1970. Fails if the clock is before 2025.
pub(crate) fn with_first_sequence(config: &Config, now: Timestamp) -> Result<Config, ClockError> {
    let first =
        first_sequence(now).ok_or_else(|| ClockError { stream: config.name.clone(), now })?;
    Ok(Config { first_sequence: Some(first), ..config.clone() })
}

/// Returns whether the sequences of a stream begin at the time of its creation. Those of a stream
/// that an earlier version created begin at 1.
#[must_use]
pub fn has_unique_sequences(state: &State) -> bool {
    first_sequence(EARLIEST)
        .is_some_and(|earliest| state.last_sequence.saturating_add(1) >= earliest)
}

/// Returns how many messages a stream has ever stored.
#[must_use]
pub fn total_stored(config: &Config, state: &State) -> u64 {
    let before_first = config.first_sequence.unwrap_or(1).saturating_sub(1);
    state.last_sequence.saturating_sub(before_first)
}

fn first_sequence(now: Timestamp) -> Option<u64> {
    (now >= EARLIEST).then(|| u64::try_from(now.as_microsecond()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(first: u64, last: u64) -> State {
        let time = "2026-01-01T00:00:00Z";
        serde_json::from_value(json!({
            "messages": 0, "bytes": 0, "consumer_count": 1,
            "first_seq": first, "first_ts": time, "last_seq": last, "last_ts": time,
        }))
        .unwrap()
    }

    fn config(first_sequence: Option<u64>) -> Config {
        Config { name: "jobs".to_owned(), first_sequence, ..Config::default() }
    }

    #[test]
    fn a_new_stream_begins_at_the_time() {
        let now: Timestamp = "2026-11-24T10:11:12.000001Z".parse().unwrap();
        let created = with_first_sequence(&config(None), now).unwrap();
        assert_eq!(created, config(Some(1_795_515_072_000_001)));
        // JSON numbers of other programs are exact up to 2^53.
        assert!(created.first_sequence.unwrap() < 1 << 53);
    }

    #[test]
    fn a_clock_before_2025_is_refused_with_the_remedy() {
        for now in
            ["1970-01-01T00:00:07Z", "2024-12-31T23:59:59.999999Z", "-000001-01-01T00:00:00Z"]
        {
            let error =
                with_first_sequence(&config(None), now.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains("`jobs`") && error.contains(now), "{error}");
            assert!(
                error.contains("before 2025-01-01T00:00:00Z") && error.contains("set the clock"),
                "{error}"
            );
        }
        assert!(with_first_sequence(&config(None), EARLIEST).is_ok());
    }

    #[test]
    fn streams_that_begin_at_1_are_distinguished() {
        let first = with_first_sequence(&config(None), EARLIEST).unwrap().first_sequence.unwrap();
        for (state, unique) in [
            (state(0, 0), false),
            (state(1, 1_000_000_000), false),
            // Empty, and with messages.
            (state(first, first - 1), true),
            (state(first + 7, first + 9), true),
        ] {
            assert_eq!(has_unique_sequences(&state), unique, "{state:?}");
        }
    }

    #[test]
    fn messages_are_counted_from_the_first() {
        for (first_sequence, state, count) in [
            (None, state(0, 0), 0),
            (None, state(5, 7), 7),
            (Some(1), state(5, 7), 7),
            (Some(1000), state(1000, 999), 0),
            (Some(1000), state(1005, 1009), 10),
        ] {
            assert_eq!(total_stored(&config(first_sequence), &state), count, "{state:?}");
        }
    }
}
