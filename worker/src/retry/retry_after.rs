//! Reads `Retry-After`: the time at which a function requests to be called again (RFC 9110,
//! 10.2.3).

use std::time::{Duration, SystemTime};

/// Returns the wait that a `Retry-After` requests, in seconds or as a date. A date in the past
/// means no wait. Any other value has no effect: `None`.
#[must_use]
pub fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // A number that does not fit is still a number: a very long wait, which the calling
        // function limits.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seconds_and_dates_are_parsed_and_other_values_ignored() {
        let now = httpdate::parse_http_date("Tue, 24 Nov 2026 10:00:00 GMT").unwrap();
        let seconds = |value| parse(value, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("Tue, 24 Nov 2026 10:00:30 GMT"), Some(30));
        assert_eq!(seconds("Tue, 24 Nov 2020 10:00:00 GMT"), Some(0));
        assert_eq!(seconds("99999999999999999999"), Some(u64::from(u32::MAX)));
        for nothing in ["", "-1", "1.5", "soon", "Tue, 99 Nov 2026 10:00:00 GMT", "10 s"] {
            assert_eq!(seconds(nothing), None, "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(value in "\\PC*") {
            let _ = parse(&value, SystemTime::now());
        }
    }
}
