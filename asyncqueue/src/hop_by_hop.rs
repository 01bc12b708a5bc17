//! Distinguishes the HTTP headers of one connection from those of the call.

use http::{HeaderMap, HeaderName, header};

/// Headers of one connection (RFC 9110, 7.6.1, and RFC 2616, 13.5.1), which are never forwarded.
static HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes the headers of the connection: the hop-by-hop headers, those that `Connection` names,
/// and `Host`, `Content-Length` and `Expect`, which the client of the next hop writes itself.
pub fn strip_connection_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        // Bytes, because one name that is not text must not hide the others.
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_calls_own_headers_are_left() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("host", "gateway"),
            ("content-length", "2"),
            ("authorization", "Bearer t"),
            ("x-multi", "a"),
            ("x-multi", "b"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers.append("connection", HeaderValue::from_bytes(b"\xff, x-hidden").unwrap());
        headers.append("x-hidden", "1".parse().unwrap());
        strip_connection_headers(&mut headers);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers.get_all("x-multi").iter().count(), 2);
        assert_eq!(headers["authorization"], "Bearer t");
    }
}
