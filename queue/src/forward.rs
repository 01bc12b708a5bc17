//! Which HTTP headers belong to one connection and which belong to the call.

use http::{HeaderMap, HeaderName, header};

/// Headers that speak of one connection (RFC 9110, 7.6.1, and RFC 2616, 13.5.1), never forwarded.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Removes what belongs to the connection: the hop-by-hop headers, those that `Connection` names, and
/// `Host`, `Content-Length` and `Expect`, which the next hop's client writes itself.
pub fn strip_connection_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
}

#[cfg(test)]
mod tests {
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
        strip_connection_headers(&mut headers);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers.get_all("x-multi").iter().count(), 2);
        assert_eq!(headers["authorization"], "Bearer t");
    }
}
