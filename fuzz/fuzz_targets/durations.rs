//! Durations as users write them: within bounds, as long as they say, and read again as they are
//! printed.
#![no_main]

use asyncqueue::{GoDuration, duration::MAX_DURATION};
use libfuzzer_sys::fuzz_target;

/// Go's units, in seconds, the longest spelling first.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("h", 3600.0),
    ("m", 60.0),
    ("s", 1.0),
];

fuzz_target!(|text: &str| {
    let read = text.parse::<GoDuration>();
    let Ok(duration) = read else {
        let error = read.expect_err("an error").to_string();
        assert!(error.contains(&format!("`{text}`")), "an error names the value: {error}");
        return;
    };
    assert!(duration.0 <= MAX_DURATION);
    assert_eq!(duration.to_string().parse(), Ok(duration));
    let json = serde_json::to_string(&duration).expect("JSON");
    assert_eq!(serde_json::from_str::<GoDuration>(&json).expect("a duration"), duration);

    // Once more, in floating point.
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() && rest != "0" {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').expect("a unit");
        let (number, tail) = rest.split_at(end);
        let (unit, length) =
            UNITS.iter().find(|(unit, _)| tail.starts_with(unit)).expect("a unit of Go's");
        seconds += number.parse::<f64>().expect("a number") * length;
        rest = &tail[unit.len()..];
    }
    // Each part is rounded down to a nanosecond.
    let tolerance = 1e-9 * text.len() as f64 + seconds * 1e-12;
    assert!(
        (duration.0.as_secs_f64() - seconds).abs() <= tolerance,
        "{text}: {duration} and {seconds} s"
    );
});
