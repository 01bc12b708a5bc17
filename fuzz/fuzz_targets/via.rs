//! `Via` as clients and proxies write it: whatever it says, each pass through the gateway is
//! counted, so that a request in a loop ends, and no entry of a client's is lost.
#![no_main]

use asyncqueue_gateway::fuzzing::HopLimit;
use http::{HeaderMap, HeaderValue, Version, header};
use libfuzzer_sys::fuzz_target;

/// As often as a request may pass.
const MAX: usize = 3;

fuzz_target!(|input: (Vec<Vec<u8>>, bool)| {
    let (sent, is_joined) = input;
    let mut headers = HeaderMap::new();
    for value in sent.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
        headers.append(header::VIA, value);
    }
    let before: Vec<HeaderValue> = headers.get_all(header::VIA).iter().cloned().collect();
    let hop_limit = HopLimit::new(Some("openfaas"), MAX);
    let mut passes = 0;
    while hop_limit.append_via(&mut headers, Version::HTTP_11).is_ok() {
        passes += 1;
        assert!(passes <= MAX, "it is never refused");
        let now: Vec<HeaderValue> = headers.get_all(header::VIA).iter().cloned().collect();
        assert!(is_joined || now.starts_with(&before), "an entry is lost");
        if is_joined {
            // As a proxy between may do it (RFC 9110, 5.3).
            let joined = now.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]);
            headers.insert(header::VIA, HeaderValue::from_bytes(&joined).expect("a value"));
        }
    }
});
