//! Texts that users and functions write: durations, names, callback URLs, `Retry-After`, lists of hosts.
#![no_main]

use std::time::SystemTime;

use asyncqueue::{CallbackUrl, FunctionName, GoDuration};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(duration) = text.parse::<GoDuration>() {
        assert_eq!(duration.to_string().parse(), Ok(duration));
    }
    if let Ok(url) = CallbackUrl::parse(text) {
        assert!(url.as_url().has_host());
    }
    let _ = FunctionName::parse(text, "openfaas-fn");
    let _ = asyncqueue::retry::parse_codes(text);
    let _ = asyncqueue_worker::retry_after::parse(text, SystemTime::now());
    let _ = text.parse::<asyncqueue_worker::callback::guard::Allowed>();
});
