//! What several targets check alike.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use async_nats::HeaderMap as NatsHeaders;
use asyncqueue::{
    Invocation,
    hop_by_hop::strip_connection_headers,
    message::native,
    subject::{call_filter, call_subject},
};
use asyncqueue_worker::function::request::{Attempt, Target, request_headers};

/// What a client of NATS reads of the headers that another one wrote: `async-nats` takes the white
/// space around a value for none of it.
#[must_use]
pub fn over_the_wire(headers: &NatsHeaders) -> NatsHeaders {
    let mut read = NatsHeaders::new();
    for (name, values) in headers.iter() {
        for value in values {
            read.append(name.clone(), value.as_str().trim());
        }
    }
    read
}

/// A call that was read from a message, of whatever form, keeps these promises.
pub fn check_call(call: &Invocation) {
    // Read once, it is read again: that is what a replay of its dead letter relies on.
    let stored = over_the_wire(&native::encode(call));
    assert_eq!(native::decode(&stored, call.body.clone()).as_ref(), Ok(call));
    for (name, _) in stored.iter() {
        assert!(OWN_HEADERS.contains(&name.as_ref()), "`{name:?}` is no header of ours");
    }
    // Its subject is below its queue's and of no other call.
    let subject = call_subject("jobs", &call.function, &call.call_id);
    assert!(
        subject.split('.').count() == 4 && !subject.contains(['*', '>', ' ', '\r', '\n']),
        "{subject}"
    );
    assert!(call_filter("jobs", None, &call.call_id).ends_with(&format!(".{}", call.call_id)));
    assert_ne!(call.method, http::Method::CONNECT);
    // It can be called. One that can't be would be tried again and again, as if its function were
    // away.
    let url = Target::Gateway("http://gateway:8080".to_owned()).url(call, None).expect("a URL");
    let path = if call.path.is_empty() { "/" } else { &call.path };
    let query = call.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let expected = format!("/function/{}{path}{query}", call.function);
    assert_eq!(url.path_and_query().expect("a path").as_str(), expected);
    assert_eq!(url.authority().expect("a host"), "gateway:8080");
    let headers = request_headers(call.headers.clone(), call, Attempt { number: 2, max: 3 })
        .expect("headers");
    let mut stripped = headers.clone();
    strip_connection_headers(&mut stripped);
    assert_eq!(headers, stripped, "something of a connection is sent on");
    assert_eq!(
        (&headers["x-retry"], &headers["x-retry-max"]),
        (&"2".parse().unwrap(), &"3".parse().unwrap())
    );
}

/// All headers of NATS that a call can have.
const OWN_HEADERS: [&str; 12] = [
    "Nats-Msg-Id",
    "Async-Version",
    "Async-Call-Id",
    "Async-Function",
    "Async-Function-Name",
    "Async-Method",
    "Async-Path",
    "Async-Query",
    "Async-Callback-Url",
    "Async-Depth",
    "Async-Submitted-At",
    "Async-Header",
];

/// Whether callbacks must never go to an address: link-local, of a metadata service, or of no
/// single host. Written from the registries of addresses and not from the guard.
#[must_use]
pub fn is_never_a_target(address: IpAddr) -> bool {
    let IpAddr::V6(v6) = address else {
        let IpAddr::V4(v4) = address else { return false };
        return is_never_a_target_v4(v4);
    };
    let bytes = v6.octets();
    let v4_at = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let own = bytes == [0; 16]
        || (bytes[0] == 0xfe && bytes[1] & 0xc0 == 0x80)
        || bytes[0] == 0xff
        || METADATA_V6.contains(&v6);
    let mapped = bytes[..10] == [0; 10] && bytes[10..12] == [0xff, 0xff];
    let compatible = bytes[..12] == [0; 12] && bytes[12..] != [0, 0, 0, 1];
    let translated = bytes[..8] == [0; 8] && bytes[8..12] == [0xff, 0xff, 0, 0];
    let nat64 = bytes[..12] == [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
    let to = if mapped || compatible || translated || nat64 {
        Some(v4_at(12))
    } else if bytes[..2] == [0x20, 0x02] {
        Some(v4_at(2))
    } else {
        None
    };
    own || to.is_some_and(is_never_a_target_v4) || hides_what_is_never_a_target(bytes)
}

/// Whether a tunnel or a translator may send packets on to what is never a target.
fn hides_what_is_never_a_target(bytes: [u8; 16]) -> bool {
    let at = |octets: [usize; 4]| Ipv4Addr::from(octets.map(|index| bytes[index]));
    let embeds_nothing = |v4: &Ipv4Addr| v4.octets()[0] == 0;
    let hidden = if bytes[..4] == [0x20, 0x01, 0, 0] {
        vec![at([4, 5, 6, 7]), Ipv4Addr::from([12, 13, 14, 15].map(|index| !bytes[index]))]
    } else if bytes[..6] == [0, 0x64, 0xff, 0x9b, 0, 1] {
        vec![at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12]), at([12, 13, 14, 15])]
    } else if matches!(bytes[8..12], [0 | 2, 0, 0x5e, 0xfe]) {
        vec![at([12, 13, 14, 15])]
    } else {
        return false;
    };
    hidden.iter().all(embeds_nothing)
        || hidden.iter().any(|v4| !embeds_nothing(v4) && is_never_a_target_v4(*v4))
}

/// Of AWS (two), Google Cloud and Scaleway.
const METADATA_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

fn is_never_a_target_v4(address: Ipv4Addr) -> bool {
    matches!(
        address.octets(),
        [169, 254, ..]
            | [0 | 224..=239, ..]
            | [255, 255, 255, 255]
            | [100, 100, 100, 200]
            | [192, 0, 0, 192]
            | [168, 63, 129, 16]
    )
}
