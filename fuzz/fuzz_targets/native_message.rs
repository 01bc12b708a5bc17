//! NATS headers as anybody may have written them, one `name: value` a line and the body after an
//! empty one: a call that can be stored again and made, a result that can be stored again, or a
//! refusal.
#![no_main]

use async_nats::HeaderMap;
use asyncqueue::message::{callback::Callback, native};
use asyncqueue_fuzz::{check_call, over_the_wire};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &str| {
    let (head, body) = message.split_once("\n\n").unwrap_or((message, ""));
    let mut headers = HeaderMap::new();
    for line in head.split(['\r', '\n']) {
        if let Some((name, value)) = line.split_once(':')
            && let (Ok(name), Ok(value)) =
                (name.parse::<async_nats::HeaderName>(), value.parse::<async_nats::HeaderValue>())
        {
            headers.append(name, value);
        }
    }
    let (headers, body) = (over_the_wire(&headers), Bytes::copy_from_slice(body.as_bytes()));
    if let Ok(call) = native::decode(&headers, body.clone()) {
        check_call(&call);
    }
    if let Ok(result) = Callback::decode(&headers, body.clone()) {
        assert_eq!(Callback::decode(&over_the_wire(&result.encode()), body), Ok(result));
    }
});
