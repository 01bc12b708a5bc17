//! The head of a client's request, read as the gateway's server reads it: the function is asked for
//! the same path and query to the byte, has each header that is the call's own with the bytes that
//! it had, and no other; and none of them becomes one of NATS.
#![no_main]

use std::{collections::BTreeMap, net::Ipv4Addr};

use asyncqueue::{
    CallId,
    message::native,
    submission::{Submission, client_call_id},
};
use asyncqueue_fuzz::{check_call, over_the_wire};
use asyncqueue_gateway::fuzzing::{FunctionPath, ForwardedHeaders, Route};
use asyncqueue_worker::function::request::{Attempt, request_headers};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use libfuzzer_sys::fuzz_target;

/// As many as hyper reads.
const MAX_HEADERS: usize = 100;

/// Of the connection, and never the call's (RFC 9110, 7.6.1), or written again by each client.
const NOT_THE_CALLS: [&[u8]; 13] = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"host",
    b"content-length",
    b"expect",
    b"via",
];

/// What the platform says of the call, in place of or in addition to what the client said.
const THE_PLATFORMS: [&[u8]; 9] = [
    b"x-call-id",
    b"x-start-time",
    b"x-async-depth",
    b"x-retry",
    b"x-retry-max",
    b"idempotency-key",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];

fuzz_target!(|head: &[u8]| {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(_)) = request.parse(head) else { return };
    let raw = request.path.expect("a target");
    let Ok(uri) = raw.parse::<Uri>() else { return };
    let mut headers = HeaderMap::new();
    for field in &*request.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).expect("a name that was read");
        headers.append(name, HeaderValue::from_bytes(field.value).expect("a value that was read"));
    }

    let Route::AsyncFunction(FunctionPath { function, path }) = Route::parse(uri.path()) else {
        return;
    };
    let Ok(id) = client_call_id(&headers) else { return };
    let parsed = Submission::parse(function, path, uri.query(), &headers, "openfaas-fn");
    let Ok(submission) = parsed else { return };
    let id = id.unwrap_or_else(|| CallId::from_sequence(1));
    let at = "2026-01-01T00:00:00Z".parse().expect("a time");
    let mut head = http::Request::new(()).into_parts().0;
    (head.uri, head.headers) = (uri.clone(), headers.clone());
    let forwarded = ForwardedHeaders::from_request(&head, Ipv4Addr::LOCALHOST.into());
    let body = Bytes::from_static(b"body");
    let mut stored = submission.into_invocation(id, at, headers, body);
    forwarded.add_to(&mut stored.headers);
    check_call(&stored);
    let message = over_the_wire(&native::encode(&stored));
    let read =
        native::decode(&message, stored.body.clone()).expect("what the gateway stores is read");

    // A target in origin form is taken apart once more, by hand.
    if raw.starts_with('/') {
        let raw = raw.split_once('#').map_or(raw, |(target, _fragment)| target);
        let (path, query) =
            raw.split_once('?').map_or((raw, None), |(path, query)| (path, Some(query)));
        let path = path.strip_prefix("/async-function/").expect("the path of a queue");
        let path = path.find('/').map_or("", |slash| &path[slash..]);
        assert_eq!((read.path.as_str(), read.query.as_deref()), (path, query));
    }

    let sent = request_headers(read.headers.clone(), &read, Attempt { number: 1, max: 2 })
        .expect("headers");
    let mut own: BTreeMap<Vec<u8>, Vec<&[u8]>> = BTreeMap::new();
    let named: Vec<Vec<u8>> = request
        .headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("connection"))
        .flat_map(|field| field.value.split(|byte| *byte == b','))
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .collect();
    for field in &*request.headers {
        let name = field.name.to_ascii_lowercase().into_bytes();
        if !NOT_THE_CALLS.contains(&&*name)
            && !THE_PLATFORMS.contains(&&*name)
            && !named.contains(&name)
        {
            own.entry(name).or_default().push(field.value);
        }
    }
    for (name, values) in &own {
        let name = HeaderName::from_bytes(name).expect("a name that was read");
        let sent: Vec<&[u8]> = sent.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(sent, *values, "{name}");
    }
    for name in sent.keys() {
        let name = name.as_str().as_bytes();
        assert!(own.contains_key(name) || THE_PLATFORMS.contains(&name), "{}", name.escape_ascii());
    }
    assert_eq!(sent["x-call-id"], read.call_id.as_str());
});
