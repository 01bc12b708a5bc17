//! Checks what RFC 9112 requires a server to refuse and hyper's parser accepts. Pure.

use http::{HeaderMap, Method, Request, Uri, Version, header, uri::Authority};

/// What a server does with the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestCheck {
    /// Passes it to the handler.
    Handle,
    /// Answers 204: `OPTIONS *` asks whether there is a server (RFC 9110, 9.3.7).
    Ping,
    /// Answers 400 with this line.
    Refuse(&'static str),
}

/// Checks the host and the form of the target.
pub(super) fn check<B>(request: &Request<B>) -> RequestCheck {
    match check_host(request.version(), request.headers()) {
        Ok(()) => check_target(request.method(), request.uri()),
        Err(refused) => RequestCheck::Refuse(refused),
    }
}

/// Checks `Host`. RFC 9112, 3.2: a request of HTTP/1.1 without `Host` is answered with 400, and so
/// is any request with two of them or with an invalid host. An empty one is valid: it says that the
/// target has no host.
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => {
            Err("Host is missing: send the host and port of this server in it")
        }
        (None, _) => Ok(()),
        (Some(_), Some(_)) => Err("Host is given more than once: send it once"),
        (Some(host), None) if host.is_empty() || is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => {
            Err("Host is not a host with an optional port: write it as example.com:8080")
        }
    }
}

/// Checks the form of the target. RFC 9112, 3.2.1 to 3.2.4: each form has its methods.
fn check_target(method: &Method, uri: &Uri) -> RequestCheck {
    let is_connect = *method == Method::CONNECT;
    match (uri.scheme_str(), uri.authority()) {
        (None, None) if uri.path() == "*" && *method == Method::OPTIONS => RequestCheck::Ping,
        (None, None) if uri.path() == "*" => {
            RequestCheck::Refuse("the target `*` is for OPTIONS alone: write it as /path")
        }
        (None, None) => RequestCheck::Handle,
        (None, Some(_)) if is_connect => RequestCheck::Handle,
        (None, Some(_)) => RequestCheck::Refuse("the target is not a path: write it as /path"),
        (Some("http" | "https"), Some(host)) if is_host(host.as_str().as_bytes()) => {
            RequestCheck::Handle
        }
        (Some(_), _) => RequestCheck::Refuse(
            "the target is not a path or an http URL without credentials: write it as /path",
        ),
    }
}

/// Returns whether a text is a host with an optional port (RFC 9110, 7.2), without credentials.
fn is_host(text: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(text) else { return false };
    let port = authority.as_str()[authority.host().len()..].strip_prefix(':');
    !text.contains(&b'@') && port.is_none_or(|port| port.is_empty() || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn verdict(method: &str, target: &str, version: Version, hosts: &[&[u8]]) -> RequestCheck {
        let mut request = Request::builder().method(method).uri(target).version(version);
        for host in hosts {
            request = request.header("host", *host);
        }
        check(&request.body(()).unwrap())
    }

    #[test]
    fn a_request_has_one_valid_host() {
        let get = |version, hosts: &[&[u8]]| verdict("GET", "/", version, hosts);
        for good in [&b"h"[..], b"h:80", b"h:", b"", b"127.0.0.1:8080", b"[::1]:8080", b"a_b.c"] {
            assert_eq!(
                get(Version::HTTP_11, &[good]),
                RequestCheck::Handle,
                "{}",
                good.escape_ascii()
            );
        }
        assert_eq!(get(Version::HTTP_10, &[]), RequestCheck::Handle);
        for bad in [&b"h/p"[..], b"u@h", b"u:p@h", b"h:http", b"h:99999", b"a b", b"[::1", b"\xff"]
        {
            let refused = matches!(get(Version::HTTP_11, &[bad]), RequestCheck::Refuse(_));
            assert!(refused, "{}", bad.escape_ascii());
        }
        for (version, hosts) in
            [(Version::HTTP_11, &[][..]), (Version::HTTP_10, &[&b"a"[..], b"a"])]
        {
            assert!(matches!(get(version, hosts), RequestCheck::Refuse(_)), "{version:?}");
        }
    }

    #[test]
    fn each_form_of_a_target_has_its_methods() {
        let of = |method, target| verdict(method, target, Version::HTTP_11, &[b"h"]);
        for (method, target) in [
            ("POST", "/async-function/f"),
            ("POST", "http://other:8080/async-function/f"),
            ("GET", "https://other"),
            ("CONNECT", "other:443"),
            ("OPTIONS", "/"),
        ] {
            assert_eq!(of(method, target), RequestCheck::Handle, "{method} {target}");
        }
        assert_eq!(of("OPTIONS", "*"), RequestCheck::Ping);
        for (method, target) in [
            ("GET", "*"),
            ("GET", "other:443"),
            ("GET", "ftp://other/"),
            ("GET", "http://u:p@other/"),
        ] {
            assert!(matches!(of(method, target), RequestCheck::Refuse(_)), "{method} {target}");
        }
    }
}
