//! What a function says of its retries, in its annotations: a value counts or is named as one that
//! can't be read, and what counts goes through the directory unchanged and stays within bounds.
#![no_main]

use asyncqueue::retry::{Backoff, Jitter, ATTEMPTS, CODES, MAX_WAIT, MIN_WAIT, RetryOverrides};
use asyncqueue_worker::retry::{
    backoff::BackoffPolicy,
    outcome::RetryPolicy,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let names = [ATTEMPTS, CODES, MIN_WAIT, MAX_WAIT];
    let values: Vec<&str> = text.splitn(names.len(), '\n').collect();
    let get = |name: &str| values.get(names.iter().position(|known| *known == name)?).copied();
    let (read, unread) = RetryOverrides::from_annotations(get);
    let said = [
        read.attempts.is_some(),
        read.codes.is_some(),
        read.min_wait.is_some(),
        read.max_wait.is_some(),
    ];
    for (index, value) in values.iter().enumerate() {
        let is_named =
            unread.iter().any(|unread| unread == &format!("{} `{}`", names[index], value.trim()));
        assert_ne!(said[index], is_named, "{} `{value}`", names[index]);
    }
    assert_ne!(read.attempts, Some(0));
    assert!(read.codes.iter().flatten().all(|code| (100..=599).contains(code)));
    let json = serde_json::to_vec(&read).expect("JSON");
    assert_eq!(serde_json::from_slice::<RetryOverrides>(&json).expect("overrides"), read);

    let second = std::time::Duration::from_secs(1);
    let backoff = BackoffPolicy {
        min: second,
        max: second * 60,
        backoff: Backoff::Exponential,
        jitter: Jitter::Full,
    };
    let policy =
        RetryPolicy { max_attempts: 3, backoff, codes: [503].into() }.with_overrides(&read);
    assert!(policy.max_attempts > 0 && policy.backoff.min <= policy.backoff.max);
});
