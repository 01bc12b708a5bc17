//! The HTTP client that all programs use for requests to functions and receivers: HTTP/1.1 over a
//! pool of connections. Each choice is made here once:
//!
//! - Responses are parsed tolerantly (`response_parser`), within limits.
//! - A POST, PUT or PATCH without a body has `Content-Length: 0`.
//! - A connection is used for a limited time and number of requests (`lifetime`).
//! - A request whose connection was just being closed is sent once more, on a new connection.

use std::{
    error::Error as StdError,
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use hyper::{
    body::Body,
    client::conn::http1,
    rt::{Read, Write},
};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::time::timeout;
use tower_service::Service;
use tracing::debug;

use counting_stream::CountingStream;
use lifetime::Lifetime;
use pool::{Pool, PooledConnection, Target};
pub use proxy_variables::warn_of_proxy_variables;
pub use response_body::ResponseBody;

mod counting_stream;
mod lifetime;
mod pool;
mod proxy_variables;
mod response_body;

/// Default of the maximum size of a response's head, in bytes. It is larger than common servers
/// allow for their own.
pub const MAX_RESPONSE_HEAD_BYTES: usize = 256 * 1024;

/// Minimum size of hyper's buffer for a connection, in bytes.
const MIN_BUFFER: usize = 8 * 1024;

type BoxError = Box<dyn StdError + Send + Sync>;

/// How connections are opened and how long they are kept.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Maximum time for opening a connection, TLS included.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How long a connection is used, and for how many requests.
    pub limits: ConnectionLimits,
    /// Maximum size of a response's head, in bytes, at least 8 KiB. It also limits what is read or
    /// written at once.
    pub max_response_head_bytes: usize,
}

/// Default of the setting `max_connection_age`.
pub const DEFAULT_MAX_AGE: &str = "30s";

/// Default of the setting `max_connection_requests`.
pub const DEFAULT_MAX_REQUESTS: u32 = 1000;

/// Limits how long a connection is used. For each connection, the limits are up to a quarter lower,
/// at random.
///
/// Behind a load balancer for connections (a Kubernetes Service), a connection stays with the
/// backend that it was opened to: only new connections reach a backend that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Maximum age since the connection was opened.
    pub max_age: Duration,
    /// Maximum number of requests.
    pub max_requests: u32,
}

/// Sends requests. Clones share their connections.
pub struct Client<C, B> {
    inner: Arc<Inner<C, B>>,
}

struct Inner<C, B> {
    connector: C,
    config: Config,
    http: http1::Builder,
    pool: Arc<Pool<B>>,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be opened.
    #[error("no connection can be opened")]
    Connect(#[source] BoxError),
    /// The connection ended before the head of a response arrived.
    #[error("the connection ended before a response arrived")]
    NoResponse(#[source] hyper::Error),
    /// What arrived can't be parsed as the head of a response.
    #[error("the head of the response can't be read")]
    InvalidResponse(#[source] BoxError),
    /// The request's own body could not be read.
    #[error("the body of the request can't be read")]
    Body(#[source] hyper::Error),
}

/// A response 101 to a request that asked for no other protocol (RFC 9110, 15.2.2).
#[derive(Debug, thiserror::Error)]
#[error("it is 101 Switching Protocols, and the request asked for no other protocol")]
struct UnexpectedUpgrade;

/// A URI without scheme or host.
#[derive(Debug, thiserror::Error)]
#[error("the URL has no scheme or host")]
struct NoHost;

/// Creates a TCP connector for a [`Client`]. The client itself limits the time.
pub fn tcp<R>(resolver: R) -> HttpConnector<R> {
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.set_nodelay(true);
    // It also opens the connections that become TLS.
    connector.enforce_http(false);
    connector
}

/// Configures how responses are parsed. The function has already done its work when they arrive, so
/// the parser accepts what it can.
fn response_parser(max_head: usize) -> http1::Builder {
    let mut http = http1::Builder::new();
    // RFC 9112, 5.2: "A user agent that receives an obs-fold in a response message … MUST replace
    // each received obs-fold with one or more SP octets prior to interpreting the field value"; a
    // gateway may do the same.
    http.allow_obsolete_multiline_headers_in_responses(true)
        // RFC 9112, 5.1: "A proxy MUST remove any such whitespace from a response message before
        // forwarding".
        .allow_spaces_after_header_name_in_responses(true)
        // A line that is not a field is dropped, as browsers and curl do. No other program parses
        // the same bytes later, since this one writes each head itself.
        .ignore_invalid_headers_in_responses(true)
        .max_header_size(max_head)
        // hyper panics with less.
        .max_buf_size(max_head.max(MIN_BUFFER));
    http
}

// === impl Config ===

impl Config {
    /// Default timeout for a TCP connection, TLS included.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Default idle timeout. It is shorter than in common functions, so that few requests are sent
    /// into a connection that is just being closed.
    const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

    /// Returns the configuration that suits most servers.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            connect_timeout: Self::CONNECT_TIMEOUT,
            idle_timeout: Self::IDLE_TIMEOUT,
            limits,
            max_response_head_bytes: MAX_RESPONSE_HEAD_BYTES,
        }
    }
}

// === impl Client ===

impl<C, B> Client<C, B>
where
    C: Service<Uri> + Clone,
    C::Response: Read + Write + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Creates a client with a pool of its own.
    pub fn new(connector: C, config: Config) -> Self {
        let pool = Pool::new(config.idle_timeout);
        let http = response_parser(config.max_response_head_bytes);
        Self { inner: Arc::new(Inner { connector, config, http, pool }) }
    }

    /// Sends a request to its absolute URI and returns the response as soon as its head has
    /// arrived. Dropping the response closes the connection.
    ///
    /// `copy` returns the request again if it may be sent twice. A server may close an idle
    /// connection while a request is on its way. If no byte of a response arrived then, the request
    /// is sent once more on a new connection, as clients may do (RFC 9112, 9.3.1; RFC 9110, 9.2.2).
    pub async fn send(
        &self,
        mut request: Request<B>,
        copy: impl Fn(&Request<B>) -> Option<Request<B>>,
    ) -> Result<Response<ResponseBody<B>>, Error> {
        let target = prepare(&mut request).ok_or_else(|| Error::Connect(NoHost.into()))?;
        let pool = &self.inner.pool;
        while let Some(mut pooled) = pool.acquire(&target) {
            let retry = copy(&request);
            let bytes_before = pooled.bytes_read();
            let requests_upgrade = request.headers().contains_key(header::UPGRADE);
            let mut error = match pooled.sender().try_send_request(request).await {
                Ok(response) => return response_from(response, pooled, requests_upgrade),
                Err(error) => error,
            };
            if let Some(unsent) = error.take_message() {
                request = unsent;
                continue;
            }
            let error = error.into_error();
            match retry {
                Some(retry) if pooled.bytes_read() == bytes_before => {
                    debug!(%error, "a kept-alive connection was closed: sending the request again \
                                    on a new one");
                    request = retry;
                    break;
                }
                _ => return Err(error.into()),
            }
        }
        let mut pooled = self.open(target).await?;
        let requests_upgrade = request.headers().contains_key(header::UPGRADE);
        let sent = pooled.sender().try_send_request(request).await;
        let response = sent.map_err(|error| Error::from(error.into_error()))?;
        response_from(response, pooled, requests_upgrade)
    }

    /// Opens a connection.
    async fn open(&self, target: Target) -> Result<PooledConnection<B>, Error> {
        let Inner { connector, config, http, pool } = &*self.inner;
        let mut connector = connector.clone();
        let uri = target.uri().map_err(|error| Error::Connect(error.into()))?;
        let connect = async {
            poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
            connector.call(uri).await.map_err(Into::into)
        };
        let connected = timeout(config.connect_timeout, connect).await;
        let stream = connected
            .unwrap_or_else(|_| {
                let (host, time) = (target.host(), config.connect_timeout);
                Err(format!("{host} did not accept a connection within {}s", time.as_secs()).into())
            })
            .map_err(Error::Connect)?;
        let (stream, bytes_read) = CountingStream::new(stream);
        let handshake = http.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| Error::Connect(error.into()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(error = %crate::error::error_chain(&error), "a connection ended early");
            }
        });
        let lifetime = Lifetime::new(config.limits, Instant::now(), rand::random());
        Ok(pool.wrap(target, sender, lifetime, bytes_read))
    }
}

/// Prepares a request for the next hop: sets the headers of the connection, and the target in
/// origin form. Returns the destination, or `None` if the URI has none.
fn prepare<B: Body>(request: &mut Request<B>) -> Option<Target> {
    let target = Target::from_uri(request.uri())?;
    let host = target.host_header()?;
    request.headers_mut().entry(header::HOST).or_insert(host);
    // RFC 9110, 8.6: a client SHOULD send it if the method gives a body a meaning. Without it, some
    // servers answer 411.
    let takes_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if takes_body && request.body().is_end_stream() {
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    Some(target)
}

/// Converts the response: its body returns the connection to the pool when it has been read.
fn response_from<B: Send + 'static>(
    response: Response<hyper::body::Incoming>,
    pooled: PooledConnection<B>,
    requests_upgrade: bool,
) -> Result<Response<ResponseBody<B>>, Error> {
    let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if is_upgrade && !requests_upgrade {
        return Err(Error::InvalidResponse(UnexpectedUpgrade.into()));
    }
    Ok(response.map(|body| ResponseBody::new(body, (!is_upgrade).then_some(pooled))))
}

impl<C, B> Clone for Client<C, B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<C, B> std::fmt::Debug for Client<C, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

// === impl Error ===

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() {
            Self::InvalidResponse(error.into())
        } else if error.is_user() {
            Self::Body(error)
        } else {
            Self::NoResponse(error)
        }
    }
}

#[cfg(test)]
mod tests;
