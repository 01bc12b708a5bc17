//! Passes a request on, and its response back, both as they arrive: bodies while they arrive, then
//! trailers, and after an upgrade (`WebSocket` or another) the data of both sides.

use std::time::Duration;

use asyncqueue::hop_by_hop::strip_connection_headers;
use asyncqueue_runtime::{
    client::{self, Client, Config, ConnectionLimits},
    error,
    memory::MemoryPermit,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header, request::Parts,
};
use http_body_util::{Either, Empty};
use hyper::{
    body::{Body, Incoming},
    upgrade,
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::GaiResolver},
    rt::TokioIo,
};
use tracing::debug;

use crate::{base_url::ProxyTarget, proxy_body::ProxyBody, rejection::Rejection};

/// Timeout for a TCP connection within a cluster, retransmissions included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept. It is shorter than in any common server (Node.js: 5 s), so
/// that no request is sent into a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The body of a request that is passed on: the client's, or an empty one if it is sent again.
type RequestBody = Either<Incoming, Empty<Bytes>>;

/// The body of a response that is passed back.
pub(crate) type UpstreamBody = client::ResponseBody<RequestBody>;

/// A client that passes requests on.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    client: Client<HttpsConnector<HttpConnector>, RequestBody>,
}

// === impl Proxy ===

impl Proxy {
    /// Creates a client with a pool of its own. Its connections are used within these limits, and
    /// the heads of responses have at most `max_header_bytes`.
    pub(crate) fn new(limits: ConnectionLimits, max_header_bytes: usize) -> anyhow::Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(client::tcp(GaiResolver::new()));
        let config = Config {
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            // This also limits what is read and written at once: an exchange takes no more
            // ([`crate::proxy_body::max_exchange_memory`]).
            max_response_head_bytes: max_header_bytes,
            ..Config::new(limits)
        };
        Ok(Self { client: Client::new(connector, config) })
    }

    /// Sends a request to `uri`, which is that of `target`.
    ///
    /// The headers of `head` are already those for the next hop, see [`rewrite_request_headers`].
    /// There is no time limit: a function may run for hours, and a client that disconnects ends
    /// the request.
    pub(crate) async fn send(
        &self,
        target: ProxyTarget,
        uri: Uri,
        head: Parts,
        body: Incoming,
        memory: MemoryPermit,
    ) -> Result<Response<ProxyBody<UpstreamBody>>, Rejection> {
        let Parts { method, headers, extensions, .. } = head;
        let mut request = Request::new(Either::Left(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.extensions_mut() = extensions;
        // Taken before the request is sent: the HTTP client would otherwise take the upgrade for
        // its own.
        let client_side = upgrade::on(&mut request);
        *request.headers_mut() = headers;
        match self.client.send(request, retry_request).await {
            Ok(mut response) => {
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    tokio::spawn(tunnel(client_side, upgrade::on(&mut response), memory));
                    return Ok(
                        response_from_upstream(response).map(|body| ProxyBody::new(body, None))
                    );
                }
                Ok(response_from_upstream(response).map(|body| ProxyBody::new(body, Some(memory))))
            }
            Err(error) => Err(rejection(target, &error)),
        }
    }
}

/// Returns a copy of the request, to repeat it if a connection was closed before a response
/// arrived. Only a request with an idempotent method and without a body that is lost by then can be
/// repeated (RFC 9110, 9.2.2: a proxy must not repeat others).
fn retry_request(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let may_repeat = request.method().is_idempotent() && request.body().is_end_stream();
    may_repeat.then(|| {
        let mut retry = Request::new(Either::Right(Empty::new()));
        retry.method_mut().clone_from(request.method());
        retry.uri_mut().clone_from(request.uri());
        retry.headers_mut().clone_from(request.headers());
        retry
    })
}

fn rejection(target: ProxyTarget, error: &client::Error) -> Rejection {
    use std::error::Error as _;
    // The outer error contains no more than the rejection.
    let reason = error.source().map_or_else(|| error.to_string(), error::error_chain);
    match error {
        client::Error::Connect(_) => Rejection::Unreachable { target, reason },
        client::Error::NoResponse(_) => Rejection::UpstreamClosed { target, reason },
        client::Error::InvalidResponse(_) => Rejection::InvalidUpstreamResponse { target, reason },
        // The cause alone: that it concerns the body of hyper's user does not help the client.
        client::Error::Body(error) => {
            Rejection::InvalidBody(error.source().map_or(reason, error::error_chain))
        }
    }
}

/// Copies the data of both sides after an upgrade, until both have ended.
async fn tunnel(
    client_side: upgrade::OnUpgrade,
    other_side: upgrade::OnUpgrade,
    _memory: MemoryPermit,
) {
    let (client, other) = match tokio::try_join!(client_side, other_side) {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(%error, "failed to upgrade a connection"),
    };
    let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut other).await {
        debug!(%error, "upgraded connection ended early");
    }
}

/// Removes the headers that belong to the client's connection, and sets them for the next hop.
pub(crate) fn rewrite_request_headers(headers: &mut HeaderMap) {
    let accepts_trailers = has_token(headers, header::TE, "trailers");
    rewrite_hop_by_hop(headers);
    if accepts_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.append(header::CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Converts a response for the client: removes what belongs to the connection to the function.
/// `Content-Length` stays, since it describes the response itself (whose body may be empty, as for
/// HEAD).
fn response_from_upstream(mut response: Response<UpstreamBody>) -> Response<UpstreamBody> {
    let length = response.headers_mut().remove(header::CONTENT_LENGTH);
    rewrite_hop_by_hop(response.headers_mut());
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    response
}

/// Removes the headers that belong to the connection. Sets them for the next one, as far as they
/// also describe the message: which trailers follow it, and to which protocol it changes.
fn rewrite_hop_by_hop(headers: &mut HeaderMap) {
    let trailer = headers.get(header::TRAILER).cloned();
    let changes = has_token(headers, header::CONNECTION, "upgrade");
    let upgrade = headers.get(header::UPGRADE).cloned().filter(|_| changes);
    strip_connection_headers(headers);
    if let Some(trailer) = trailer {
        headers.insert(header::TRAILER, trailer);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Returns whether a header that is a list contains a token.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_and_upgrades_are_forwarded() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("te", "gzip;q=0.5, trailers"),
            ("trailer", "x-sum"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        rewrite_request_headers(&mut headers);
        let connection: Vec<_> = headers.get_all("connection").iter().collect();
        assert_eq!(connection, ["upgrade", "te"]);
        assert_eq!(
            (&headers["upgrade"], &headers["te"]),
            (&"websocket".parse().unwrap(), &"trailers".parse().unwrap())
        );
        assert_eq!(headers["trailer"], "x-sum");

        // An upgrade that `Connection` does not name does not count.
        let mut headers = HeaderMap::new();
        headers.insert("upgrade", "h2c".parse().unwrap());
        rewrite_request_headers(&mut headers);
        assert!(!headers.contains_key("upgrade"));
    }
}
