//! Sends a request on, and the answer back, both as they come.

use std::{error::Error as _, net::IpAddr, time::Duration};

use asyncqueue::forward::strip_connection_headers;
use asyncqueue_runtime::{error, server::Peer};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header, request::Parts};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::refusal::Refusal;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// For a TCP connection within a cluster, retransmissions included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept: less than any common server keeps it (Node.js: 5 s), so that no
/// request is sent into one that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// A client for sending requests on.
#[derive(Clone, Debug)]
pub struct Proxy {
    client: Client<HttpsConnector<HttpConnector>, Incoming>,
}

// === impl Proxy ===

impl Proxy {
    /// A client with a pool of its own.
    pub fn new() -> anyhow::Result<Self> {
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_nodelay(true);
        // It also carries the connections that become TLS.
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self { client })
    }

    /// Sends a request to `uri`. `target` is what a refusal calls it.
    pub async fn send(
        &self,
        target: &str,
        uri: Uri,
        head: Parts,
        body: Incoming,
    ) -> Result<Response<Incoming>, Refusal> {
        let peer = head.extensions.get::<Peer>().map(|peer| peer.0.ip());
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = forwarded(head.headers, peer);
        match self.client.request(request).await {
            Ok(response) => Ok(returned(response)),
            Err(error) => {
                let target = target.to_owned();
                // The client's own text says no more than that it failed.
                let reason = error.source().map_or_else(|| error.to_string(), error::describe);
                Err(if error.is_connect() {
                    Refusal::Unreachable { target, reason }
                } else {
                    Refusal::NoAnswer { target, reason }
                })
            }
        }
    }
}

/// The headers of a request for the next hop, which learns whom it is for and who sent it.
fn forwarded(mut headers: HeaderMap, peer: Option<IpAddr>) -> HeaderMap {
    let host = headers.get(header::HOST).cloned();
    strip_connection_headers(&mut headers);
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
    if let Some(peer) = peer {
        let chain = headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let chain = chain.map(str::to_owned).chain([peer.to_string()]).collect::<Vec<_>>().join(", ");
        if let Ok(value) = HeaderValue::try_from(chain) {
            headers.insert(X_FORWARDED_FOR, value);
        }
    }
    headers
}

/// The response for the client: without what belongs to the connection to the function. Its length is the
/// answer's own (the body may be none, to HEAD), so it stays.
fn returned(mut response: Response<Incoming>) -> Response<Incoming> {
    let length = response.headers_mut().remove(header::CONTENT_LENGTH);
    strip_connection_headers(response.headers_mut());
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_hop_learns_who_sent_the_request_and_to_which_host() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "gateway.example"),
            ("connection", "keep-alive"),
            ("x-forwarded-for", "10.0.0.1"),
            ("authorization", "Bearer t"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let headers = forwarded(headers, Some("10.0.0.2".parse().unwrap()));
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 10.0.0.2");
        assert_eq!(headers["x-forwarded-host"], "gateway.example");
        assert_eq!(headers["authorization"], "Bearer t");
        assert_eq!(headers.len(), 3);
    }
}
