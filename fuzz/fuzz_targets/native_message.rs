//! NATS headers as anybody may have written them, one `name: value` a line and the body after an empty one: what
//! decodes encodes to what decodes to the same.
#![no_main]

use async_nats::HeaderMap;
use asyncqueue::message::native;
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
    if let Ok(call) = native::decode(&headers, Bytes::copy_from_slice(body.as_bytes())) {
        assert_eq!(native::decode(&native::encode(&call), call.body.clone()), Ok(call));
    }
});
