//! Reads and prints durations as Go writes them: `200ms`, `90s`, `15m`, `1h30m`.
//!
//! Existing `OpenFaaS` manifests write timeouts in this form (Go's `time.ParseDuration`). So this
//! one parser reads every duration that a user writes, in a resource or a setting.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// The longest valid duration, 10 years. It is far beyond any sensible timeout, and so small that
/// adding it to a clock never overflows.
pub const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Units of Go's `time.ParseDuration` and their length in nanoseconds, the longest spelling first.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// A [`Duration`] that is read and printed in Go's form.
///
/// ```
/// use std::time::Duration;
///
/// use asyncqueue::GoDuration;
///
/// assert_eq!("1h30m".parse::<GoDuration>()?, GoDuration(Duration::from_secs(5400)));
/// assert_eq!(GoDuration(Duration::from_millis(1500)).to_string(), "1s500ms");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GoDuration(pub Duration);

/// A duration in a message for people, rounded: `350ms`, `8.6s`, `42s`, `1m30s`, `2h5m`, `3h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounded(pub Duration);

/// A text is not a duration. The error names the value and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a duration: {rule}; write it as 200ms, 90s, 15m or 1h30m")]
pub struct ParseDurationError {
    value: String,
    rule: &'static str,
}

// === impl GoDuration ===

impl GoDuration {
    /// Reads a duration as a resource writes it. The numbers are whole, or have digits on both
    /// sides of the point. Each has one of the units ms, s, m and h.
    pub(crate) fn parse_plain(text: &str) -> Result<Self, ParseDurationError> {
        if is_plain(text) {
            return text.parse();
        }
        Err(ParseDurationError { value: text.to_owned(), rule: "its units are ms, s, m and h" })
    }

    /// Reads a duration that is not 0, for a setting.
    #[doc(hidden)]
    pub fn parse_positive(text: &str) -> Result<Self, ParseDurationError> {
        let refuse = |rule| ParseDurationError { value: text.to_owned(), rule };
        match parse(text) {
            Ok(Duration::ZERO) => Err(refuse("it must be more than 0")),
            read => read.map(Self).map_err(refuse),
        }
    }
}

impl FromStr for GoDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).map_err(|rule| ParseDurationError { value: text.to_owned(), rule })
    }
}

impl TryFrom<String> for GoDuration {
    type Error = ParseDurationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<GoDuration> for String {
    fn from(duration: GoDuration) -> Self {
        duration.to_string()
    }
}

impl From<GoDuration> for Duration {
    fn from(duration: GoDuration) -> Self {
        duration.0
    }
}

impl fmt::Display for GoDuration {
    /// Prints the shortest form that parses back to the same value, e.g. `1h30m`, `90ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, length) in [
            ("h", 3_600_000_000_000),
            ("m", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
        ] {
            if rest >= length {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        if rest > 0 {
            write!(f, "{rest}ns")?;
        }
        Ok(())
    }
}

// === impl Rounded ===

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_nanos().div_ceil(500_000) / 2;
        let (tenths, seconds) = ((millis + 50) / 100, (millis + 500) / 1000);
        let minutes = (seconds + 30) / 60;
        match (millis, seconds) {
            (0, _) if self.0.is_zero() => f.write_str("0s"),
            (0, _) => f.write_str("1ms"),
            (1..1_000, _) => write!(f, "{millis}ms"),
            (1_000..9_950, _) if tenths % 10 != 0 => write!(f, "{}.{}s", tenths / 10, tenths % 10),
            (_, 0..60) => write!(f, "{seconds}s"),
            (_, 60..3_600) => write_two(f, (seconds / 60, "m"), (seconds % 60, "s")),
            _ => write_two(f, (minutes / 60, "h"), (minutes % 60, "m")),
        }
    }
}

/// Writes two units, the lesser one only if it is not 0.
fn write_two(
    f: &mut fmt::Formatter<'_>,
    greater: (u128, &str),
    lesser: (u128, &str),
) -> fmt::Result {
    write!(f, "{}{}", greater.0, greater.1)?;
    if lesser.0 > 0 { write!(f, "{}{}", lesser.0, lesser.1) } else { Ok(()) }
}

/// Returns whether a text matches `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`, as in the CRD of
/// `AsyncQueue`.
fn is_plain(mut rest: &str) -> bool {
    let after_digits = |text: &'_ str| -> Option<usize> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0).then_some(digits)
    };
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let Some(digits) = after_digits(rest) else { return false };
        rest = &rest[digits..];
        if let Some(fraction) = rest.strip_prefix('.') {
            let Some(digits) = after_digits(fraction) else { return false };
            rest = &fraction[digits..];
        }
        let Some(unit) = ["ms", "s", "m", "h"].into_iter().find(|unit| rest.starts_with(unit))
        else {
            return false;
        };
        rest = &rest[unit.len()..];
    }
    true
}

fn parse(text: &str) -> Result<Duration, &'static str> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err("it is empty");
    }
    let (mut rest, mut total) = (text, 0_u128);
    while !rest.is_empty() {
        let number_len = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, tail) = rest.split_at(number_len);
        let (unit, length) =
            UNITS.iter().find(|(unit, _)| tail.starts_with(unit)).ok_or("a number needs a unit")?;
        total = nanos(number, *length)?.checked_add(total).ok_or("it is too long")?;
        rest = &tail[unit.len()..];
    }
    if total > MAX_DURATION.as_nanos() {
        return Err("it is longer than 10 years");
    }
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| "it is too long")
}

/// Returns `number` (digits with at most one point) times `unit` nanoseconds, rounded down.
fn nanos(number: &str, unit: u128) -> Result<u128, &'static str> {
    const MALFORMED: &str = "a number is missing or malformed";
    // Further digits do not matter: a nanosecond is 1/3.6e12 of the longest unit.
    const MAX_DIGITS: usize = 18;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || whole.len() > MAX_DIGITS || fraction.contains('.') {
        return Err(MALFORMED);
    }
    let fraction = &fraction[..fraction.len().min(MAX_DIGITS)];
    let digits =
        |s: &str| if s.is_empty() { Ok(0) } else { s.parse::<u128>().map_err(|_| MALFORMED) };
    let scale = (0..fraction.len()).fold(1_u128, |scale, _| scale * 10);
    Ok(digits(whole)? * unit + digits(fraction)? * unit / scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_writes() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("200ms", 200),
            ("90s", 90_000),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("1h30m0s", 5_400_000),
            ("1.5s", 1_500),
            (".5s", 500),
            ("1500us", 1),
        ] {
            let parsed: GoDuration = text.parse().unwrap();
            assert_eq!(parsed.0.as_millis(), millis, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration_and_names_it() {
        for text in ["", "5", "m", "-1s", "1.2.3s", "1 s", "99999999h", "1d", "1h30", "٣s", "."] {
            let error = text.parse::<GoDuration>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn zero_is_refused_where_a_duration_must_be_positive() {
        assert_eq!(GoDuration::parse_positive("1ns").unwrap().0, Duration::from_nanos(1));
        for nothing in ["0", "0s", "0.1ns"] {
            let error = GoDuration::parse_positive(nothing).unwrap_err().to_string();
            assert!(error.contains("more than 0") && error.contains(nothing), "{error}");
        }
    }

    #[test]
    fn rounded_durations_are_short() {
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ms"),
            (350_400_000, "350ms"),
            (999_600_000, "1s"),
            (1_000_000_000, "1s"),
            (8_563_035_627, "8.6s"),
            (9_951_000_000, "10s"),
            (42_400_000_000, "42s"),
            (59_700_000_000, "1m"),
            (90_000_000_000, "1m30s"),
            (3_599_600_000_000, "1h"),
            (7_500_000_000_000, "2h5m"),
            (315_360_000_000_000_000, "87600h"),
        ] {
            assert_eq!(Rounded(Duration::from_nanos(nanos)).to_string(), expected, "{nanos}");
        }
    }

    proptest! {
        #[test]
        fn rounded_durations_are_short_and_near(nanos in 0_u64..=315_360_000_000_000_000) {
            let duration = Duration::from_nanos(nanos);
            let text = Rounded(duration).to_string();
            prop_assert!(text.len() <= 9, "{text}");
            let read = text.parse::<GoDuration>().unwrap().0;
            let tolerance = (duration / 20).max(Duration::from_millis(1));
            prop_assert!(read.abs_diff(duration) <= tolerance, "{text}");
        }

        #[test]
        fn what_it_prints_it_reads(nanos in 0_u64..=315_360_000_000_000_000) {
            let duration = GoDuration(Duration::from_nanos(nanos));
            prop_assert_eq!(duration.to_string().parse::<GoDuration>().unwrap(), duration);
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
