//! Reads the delay that a client requests for a call.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use jiff::{SignedDuration, Timestamp};

use super::{
    client_value::{shorten, single},
    error::SubmissionError,
};
use crate::{
    delay::{DelayLimits, DelayRefused, time_until},
    duration::GoDuration,
    headers::{X_DELAY, X_NOT_BEFORE},
};

/// The headers that are not passed on: the function that gets them would delay its own calls.
pub(super) const DELAY_HEADERS: [HeaderName; 2] = [X_DELAY, X_NOT_BEFORE];

/// When a call is to run, as the client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestedDelay {
    /// Not before this time after the call was accepted.
    After(Duration),
    /// Not before this time.
    At(Timestamp),
}

// === impl RequestedDelay ===

impl RequestedDelay {
    /// Reads the headers of a call. `None`: it is to run as soon as a worker is free.
    pub(super) fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, SubmissionError> {
        let delay = single(headers, &X_DELAY, "X-Delay")?;
        let not_before = single(headers, &X_NOT_BEFORE, "X-Not-Before")?;
        match (delay, not_before) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(SubmissionError::TwoDelays),
            (Some(delay), None) => shorten(delay)
                .parse()
                .map(|GoDuration(delay)| Some(Self::After(delay)))
                .map_err(SubmissionError::InvalidDelay),
            (None, Some(time)) => parse_rfc3339(time)
                .map(|time| Some(Self::At(time)))
                .ok_or_else(|| SubmissionError::InvalidNotBefore { value: shorten(time) }),
        }
    }

    /// Returns the time before which a call does not run that is accepted now; `None` if it is due.
    pub(super) fn not_before(
        self,
        now: Timestamp,
        limits: DelayLimits,
    ) -> Result<Option<Timestamp>, DelayRefused> {
        let not_before = match self {
            Self::After(delay) => now.saturating_add(delay).unwrap_or(Timestamp::MAX),
            Self::At(time) => time,
        };
        let Some(delay) = time_until(Some(not_before), now) else { return Ok(None) };
        limits.check(delay)?;
        Ok(Some(to_next_millisecond(not_before)))
    }
}

/// Reads a time as RFC 3339 defines it, and nothing else that is similar.
fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let (date_time, rest) = (text.get(..19)?, text.get(19..)?);
    let is_date_time =
        date_time.bytes().zip(*b"0000-00-00T00:00:00").all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            form => byte.eq_ignore_ascii_case(&form),
        });
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            (zone.len() < fraction.len()).then_some(zone)?
        }
        None => rest,
    };
    let is_offset = zone.len() == 6
        && zone.starts_with(['+', '-'])
        && zone.bytes().skip(1).zip(*b"00:00").all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            form => byte == form,
        });
    let is_valid = is_date_time && (is_offset || zone.eq_ignore_ascii_case("z"));
    if is_valid { text.parse().ok() } else { None }
}

/// Rounds a time up, as it is stored in milliseconds: the call must not run earlier.
fn to_next_millisecond(time: Timestamp) -> Timestamp {
    const NANOSECONDS: i128 = 1_000_000;
    let rest = (NANOSECONDS - time.as_nanosecond().rem_euclid(NANOSECONDS)) % NANOSECONDS;
    let rest = SignedDuration::from_nanos(i64::try_from(rest).unwrap_or_default());
    time.saturating_add(rest).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(headers: &[(&'static str, &str)]) -> Result<Option<RequestedDelay>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        RequestedDelay::from_headers(&map).map_err(|error| {
            assert_eq!(error.status(), 400, "{error}");
            error.to_string()
        })
    }

    #[test]
    fn delay_is_read_as_duration_or_time() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("x-delay", "")]), Ok(None));
        let after = |millis| Ok(Some(RequestedDelay::After(Duration::from_millis(millis))));
        assert_eq!(read(&[("x-delay", "90s")]), after(90_000));
        assert_eq!(read(&[("x-delay", "1h0.5s")]), after(3_600_500));
        assert_eq!(read(&[("x-delay", "0s")]), after(0));
        for time in [
            "2026-11-29T22:00:00Z",
            "2026-11-29t22:00:00.000z",
            "2026-11-29T23:30:00.0+01:30",
            "2026-11-29T17:00:00-05:00",
        ] {
            let at = "2026-11-29T22:00:00Z".parse().unwrap();
            assert_eq!(read(&[("x-not-before", time)]), Ok(Some(RequestedDelay::At(at))), "{time}");
        }
    }

    #[test]
    fn invalid_delay_is_named_with_the_rule() {
        for (headers, expected) in [
            (&[("x-delay", "90")][..], "X-Delay: `90` is not a duration"),
            (&[("x-delay", "-5s")], "X-Delay: `-5s`"),
            (&[("x-delay", "soon")], "90s, 15m"),
            (&[("x-delay", "900000h")], "X-Delay: `900000h`"),
            (&[("x-delay", "1s"), ("x-delay", "2s")], "X-Delay is given more than once"),
            (&[("x-not-before", "1795514400")], "X-Not-Before `1795514400`"),
            (&[("x-not-before", "2026-11-29 22:00:00Z")], "RFC 3339"),
            (&[("x-not-before", "2026-11-29T22:00:00")], "X-Not-Before"),
            (&[("x-not-before", "2026-11-29T22:00Z")], "X-Not-Before"),
            (&[("x-not-before", "2026-11-31T22:00:00Z")], "X-Not-Before"),
            (&[("x-not-before", "2026-11-29T22:00:00.Z")], "X-Not-Before"),
            (&[("x-not-before", "2026-11-29T22:00:00+01")], "X-Not-Before"),
            (&[("x-not-before", "2026-11-29T22:00:00Z[UTC]")], "X-Not-Before"),
            (&[("x-not-before", "tomorrow")], "2026-12-24T18:00:00Z"),
            (&[("x-delay", "1s"), ("x-not-before", "2026-11-29T22:00:00Z")], "send one of them"),
        ] {
            let error = read(headers).unwrap_err();
            assert!(error.contains(expected), "{headers:?}: {error}");
        }
    }

    #[test]
    fn call_in_the_past_is_due() {
        let now: Timestamp = "2026-11-29T22:00:00Z".parse().unwrap();
        let unsupported = DelayLimits { max_delay: None, max_age: None };
        let past = now - Duration::from_secs(3600);
        for due in [RequestedDelay::After(Duration::ZERO), RequestedDelay::At(past)] {
            assert_eq!(due.not_before(now, unsupported), Ok(None));
        }
        let later = RequestedDelay::After(Duration::from_secs(1));
        assert_eq!(later.not_before(now, unsupported), Err(DelayRefused::NotSupported));
    }

    proptest! {
        #[test]
        fn stored_time_is_not_before_the_requested_one(nanos in 1..10_000_000_000_u64) {
            let now: Timestamp = "2026-11-29T22:00:00.1234Z".parse().unwrap();
            let delay = Duration::from_nanos(nanos);
            let stored = RequestedDelay::After(delay).not_before(now, DelayLimits::DEFAULT);
            let (stored, wanted) = (stored.unwrap().unwrap(), now + delay);
            prop_assert!(wanted <= stored && stored < wanted + Duration::from_millis(1));
            prop_assert_eq!(stored.as_nanosecond() % 1_000_000, 0);
        }

        #[test]
        fn reading_a_time_never_panics(text in ".{0,40}") {
            let _ = parse_rfc3339(&text);
        }
    }
}
