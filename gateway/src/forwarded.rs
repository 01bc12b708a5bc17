//! Adds the headers that describe the original request: its host, its protocol and its client.
//!
//! They are the same for a request that is passed on and for one that is stored, since `Host`
//! belongs to each connection and is not stored.

use std::{fmt::Write, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The protocol that this program itself speaks. A proxy that terminates TLS sets the header
/// itself.
const PROTO: HeaderValue = HeaderValue::from_static("http");

/// Where a request came from.
#[derive(Clone, Debug)]
pub struct ForwardedHeaders {
    host: Option<HeaderValue>,
    client: IpAddr,
}

// === impl ForwardedHeaders ===

impl ForwardedHeaders {
    /// Reads the host from the head of a request of this client.
    #[must_use]
    pub fn from_request(head: &Parts, client: IpAddr) -> Self {
        // The host of a target in absolute form takes precedence over the header (RFC 9112, 3.2.2).
        let target_host =
            head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        Self { host: target_host.or_else(|| head.headers.get(header::HOST).cloned()), client }
    }

    /// Adds the headers to `headers`, from which those of the connection are already removed.
    /// Otherwise a client could have the new ones removed, too, by naming them in `Connection`.
    /// Host and protocol that an earlier proxy has set stay. The client's address is appended to
    /// those before it.
    pub fn add_to(self, headers: &mut HeaderMap) {
        if let Some(host) = self.host {
            headers.entry(X_FORWARDED_HOST).or_insert(host);
        }
        headers.entry(X_FORWARDED_PROTO).or_insert(PROTO);
        let mut chain = String::new();
        for before in
            headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok())
        {
            chain += before;
            chain += ", ";
        }
        // Writing to a string does not fail.
        let _ = write!(chain, "{}", self.client);
        if let Ok(value) = HeaderValue::try_from(chain) {
            headers.insert(X_FORWARDED_FOR, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn added(headers: &[(&'static str, &str)], target: &str) -> HeaderMap {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        ForwardedHeaders::from_request(&head, "10.0.0.2".parse().unwrap())
            .add_to(&mut head.headers);
        head.headers
    }

    #[test]
    fn host_protocol_and_client_are_added() {
        let headers = added(&[("host", "gateway.example"), ("x-forwarded-for", "10.0.0.1")], "/p");
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 10.0.0.2");
        assert_eq!(headers["x-forwarded-host"], "gateway.example");
        assert_eq!(headers["x-forwarded-proto"], "http");
    }

    #[test]
    fn headers_of_an_earlier_proxy_stay() {
        let sent =
            [("host", "h"), ("x-forwarded-host", "public.example"), ("x-forwarded-proto", "https")];
        let headers = added(&sent, "/p");
        assert_eq!(headers["x-forwarded-host"], "public.example");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn host_of_the_target_takes_precedence_over_the_header() {
        assert_eq!(
            added(&[("host", "h")], "http://other:8080/p")["x-forwarded-host"],
            "other:8080"
        );
        assert!(!added(&[], "/p").contains_key("x-forwarded-host"));
    }
}
