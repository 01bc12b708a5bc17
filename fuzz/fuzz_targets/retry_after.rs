//! `Retry-After` as a function or a receiver writes it: whatever it is, and whatever the clock
//! says, the wait is what it asks for, up to an hour, and not less than the policy's shortest.
#![no_main]

use std::time::{Duration, SystemTime};

use asyncqueue::retry::{Backoff, Jitter};
use asyncqueue_worker::retry::{
    backoff::BackoffPolicy,
    outcome::{AttemptCount, InvocationEnd, Outcome, RetryPolicy},
    retry_after::parse,
};
use libfuzzer_sys::fuzz_target;

/// The longest wait that can be asked for, whatever the queue's own.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

fuzz_target!(|input: (u32, u32, u32, &str)| {
    let (now, min, max, value) = input;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.into());
    let asked = parse(value, now);
    let trimmed = value.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = trimmed.parse().unwrap_or(u64::from(u32::MAX));
        assert_eq!(asked, Some(Duration::from_secs(seconds)));
    } else if let Some(wait) = asked {
        let date = httpdate::parse_http_date(trimmed).expect("a date, since it is no number");
        assert!(if date > now { now + wait == date } else { wait.is_zero() });
    }

    let (min, max) = (Duration::from_secs(min.min(max).into()), Duration::from_secs(max.into()));
    let backoff = BackoffPolicy { min, max, backoff: Backoff::Exponential, jitter: Jitter::Full };
    let policy = RetryPolicy { max_attempts: 3, backoff, codes: [429].into() };
    let end = InvocationEnd::Answered {
        status: 429,
        internal: false,
        retry_after: Some(value.to_owned()),
    };
    let Outcome::Retry { wait, not_counted_for: None } =
        policy.decide(&end, AttemptCount::all_counted(1), now, 0.5)
    else {
        panic!("it is tried again");
    };
    assert!(wait <= max.max(LONGEST_ASKED));
    match asked {
        Some(asked) => assert_eq!(wait, asked.min(LONGEST_ASKED).max(min)),
        None => assert!(wait <= min.min(max)),
    }
});
