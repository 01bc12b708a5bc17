//! The headers that say what a request was before this gateway passed it on or stored it: for which host, by which protocol,
//! from whom. The same for both, since `Host` belongs to each connection and is not stored.

use std::{fmt::Write, net::IpAddr};

use asyncqueue_runtime::server::Peer;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request::Parts};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What this program itself speaks. TLS ends before it, where that is said in the header.
const PROTO: HeaderValue = HeaderValue::from_static("http");

/// Adds them to the head of a request.
pub fn add(head: &mut Parts) {
    let peer = head.extensions.get::<Peer>().map(|peer| peer.0.ip());
    add_to(&mut head.headers, &head.uri, peer);
}

/// What a proxy before this one has said of host and protocol stays; the client's address comes after those before it.
fn add_to(headers: &mut HeaderMap, uri: &Uri, peer: Option<IpAddr>) {
    // The host of a target in absolute form counts, and not that of the header (RFC 9112, 3.2.2).
    let of_target = uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = of_target.or_else(|| headers.get(header::HOST).cloned()) {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(PROTO);
    if let Some(peer) = peer {
        let mut chain = String::new();
        for before in headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
            chain += before;
            chain += ", ";
        }
        // Writing to a string does not fail.
        let _ = write!(chain, "{peer}");
        if let Ok(value) = HeaderValue::try_from(chain) {
            headers.insert(X_FORWARDED_FOR, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(headers: &[(&'static str, &str)], uri: &str) -> HeaderMap {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let mut headers: HeaderMap = headers.collect();
        add_to(&mut headers, &uri.parse().unwrap(), Some("10.0.0.2".parse().unwrap()));
        headers
    }

    #[test]
    fn host_protocol_and_client_are_said() {
        let headers = added(&[("host", "gateway.example"), ("x-forwarded-for", "10.0.0.1")], "/p");
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 10.0.0.2");
        assert_eq!(headers["x-forwarded-host"], "gateway.example");
        assert_eq!(headers["x-forwarded-proto"], "http");
    }

    #[test]
    fn what_a_proxy_said_before_stays() {
        let said = [("host", "h"), ("x-forwarded-host", "public.example"), ("x-forwarded-proto", "https")];
        let headers = added(&said, "/p");
        assert_eq!(headers["x-forwarded-host"], "public.example");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn the_host_of_the_target_comes_before_that_of_the_header() {
        assert_eq!(added(&[("host", "h")], "http://other:8080/p")["x-forwarded-host"], "other:8080");
        assert!(!added(&[], "/p").contains_key("x-forwarded-host"));
    }
}
