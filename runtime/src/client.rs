//! The HTTP client that all programs use for requests to functions and receivers: HTTP/1.1 over a pool of
//! connections. Each choice is made here once:
//!
//! - Answers are read tolerantly (`answer_reader`), within limits.
//! - A POST, PUT or PATCH without a body says `Content-Length: 0`.
//! - A connection lives for a bounded time and number of requests (`life`).
//! - A request that met a connection that was just being closed is sent once more, on a new one.

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

pub use answer::Answer;
use counted::Counted;
use life::Life;
use pool::{Lent, Pool, Target};
pub use proxy_variables::warn_of_proxy_variables;

mod answer;
mod counted;
mod life;
mod pool;
mod proxy_variables;

/// The most that the head of an answer may take by default, in bytes: more than common servers let their own be.
pub const MAX_ANSWER_HEAD: usize = 256 * 1024;

/// The least that hyper's buffer of a connection may be, in bytes.
const MIN_BUFFER: usize = 8 * 1024;

type BoxError = Box<dyn StdError + Send + Sync>;

/// How connections are opened and how long they are kept.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The longest that opening a connection may take, TLS included.
    pub connect_timeout: Duration,
    /// How long a connection is kept that is not used.
    pub idle_timeout: Duration,
    /// How long a connection is used, and for how many requests.
    pub limits: ConnectionLimits,
    /// The most that the head of an answer may take, in bytes, at least 8 KiB: also of what is read or written at once.
    pub max_answer_head: usize,
}

/// The default of the setting `max_connection_age`.
pub const DEFAULT_MAX_AGE: &str = "30s";

/// The default of the setting `max_connection_requests`.
pub const DEFAULT_MAX_REQUESTS: u32 = 1000;

/// How long a connection is used at most. Each connection has up to a quarter less, at random.
///
/// Behind a balancer of connections (a Kubernetes Service), a connection stays with the backend that it was opened to:
/// only new connections reach a backend that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Since it was opened.
    pub max_age: Duration,
    /// In requests.
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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be opened.
    #[error("no connection can be opened")]
    Connect(#[source] BoxError),
    /// The connection ended before the head of an answer was here.
    #[error("the connection ended before an answer came")]
    NoAnswer(#[source] hyper::Error),
    /// What came can't be read as the head of an answer.
    #[error("the head of the answer can't be read")]
    Unreadable(#[source] BoxError),
    /// The request's own body could not be read.
    #[error("the body of the request can't be read")]
    Body(#[source] hyper::Error),
}

/// An answer 101 to a request that asked for no other protocol (RFC 9110, 15.2.2).
#[derive(Debug, thiserror::Error)]
#[error("it is 101 Switching Protocols, and no other protocol was asked for")]
struct UnaskedUpgrade;

/// A URI without scheme or host.
#[derive(Debug, thiserror::Error)]
#[error("the URL has no scheme or host")]
struct NoHost;

/// A connector of TCP for a [`Client`], which bounds the time itself.
pub fn tcp<R>(resolver: R) -> HttpConnector<R> {
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.set_nodelay(true);
    // It also carries the connections that become TLS.
    connector.enforce_http(false);
    connector
}

/// How answers are read. The work is done when they come, so what can be read is read.
fn answer_reader(max_head: usize) -> http1::Builder {
    let mut http = http1::Builder::new();
    // RFC 9112, 5.2: "A user agent that receives an obs-fold in a response message … MUST replace each received obs-fold
    // with one or more SP octets prior to interpreting the field value"; a gateway may do the same.
    http.allow_obsolete_multiline_headers_in_responses(true)
        // RFC 9112, 5.1: "A proxy MUST remove any such whitespace from a response message before forwarding".
        .allow_spaces_after_header_name_in_responses(true)
        // A line that is no field is left out, as browsers and curl do. No other program reads the same bytes after this
        // one, which writes each head itself, so that none takes such a line for something else.
        .ignore_invalid_headers_in_responses(true)
        .max_header_size(max_head)
        // Less is a panic of hyper's.
        .max_buf_size(max_head.max(MIN_BUFFER));
    http
}

// === impl Config ===

impl Config {
    /// For a TCP connection, TLS included.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Sooner than functions commonly close theirs, so that few requests meet a connection that is just being closed.
    const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

    /// What suits most servers.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            connect_timeout: Self::CONNECT_TIMEOUT,
            idle_timeout: Self::IDLE_TIMEOUT,
            limits,
            max_answer_head: MAX_ANSWER_HEAD,
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
    /// A client with a pool of its own.
    pub fn new(connector: C, config: Config) -> Self {
        let pool = Pool::new(config.idle_timeout);
        let http = answer_reader(config.max_answer_head);
        Self { inner: Arc::new(Inner { connector, config, http, pool }) }
    }

    /// Sends a request to its absolute URI and returns the answer as soon as its head is here. Dropped, it closes the
    /// connection.
    ///
    /// `copy` returns the request again, if it may be sent twice. A server may close a connection that was idle while the
    /// request is on its way; then, if no byte of an answer came, the request is sent once more, on a new connection, as
    /// clients may (RFC 9112, 9.3.1; RFC 9110, 9.2.2).
    pub async fn send(
        &self,
        mut request: Request<B>,
        copy: impl Fn(&Request<B>) -> Option<Request<B>>,
    ) -> Result<Response<Answer<B>>, Error> {
        let target = prepare(&mut request).ok_or_else(|| Error::Connect(NoHost.into()))?;
        let pool = &self.inner.pool;
        while let Some(mut lent) = pool.take(&target) {
            let again = copy(&request);
            let read_before = lent.read();
            let asks_upgrade = request.headers().contains_key(header::UPGRADE);
            let mut error = match lent.sender().try_send_request(request).await {
                Ok(response) => return answered(response, lent, asks_upgrade),
                Err(error) => error,
            };
            if let Some(unsent) = error.take_message() {
                request = unsent;
                continue;
            }
            let error = error.into_error();
            match again {
                Some(again) if lent.read() == read_before => {
                    debug!(%error, "a kept-alive connection was closed: sending the request again on a new one");
                    request = again;
                    break;
                }
                _ => return Err(error.into()),
            }
        }
        let mut lent = self.open(target).await?;
        let asks_upgrade = request.headers().contains_key(header::UPGRADE);
        let sent = lent.sender().try_send_request(request).await;
        let response = sent.map_err(|error| Error::from(error.into_error()))?;
        answered(response, lent, asks_upgrade)
    }

    /// Opens a connection.
    async fn open(&self, target: Target) -> Result<Lent<B>, Error> {
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
                Err(format!("{host} did not accept one within {}s", time.as_secs()).into())
            })
            .map_err(Error::Connect)?;
        let (stream, read) = Counted::new(stream);
        let handshake = http.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| Error::Connect(error.into()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(error = %crate::error::describe(&error), "a connection ended early");
            }
        });
        let life = Life::new(config.limits, Instant::now(), rand::random());
        Ok(pool.lend(target, sender, life, read))
    }
}

/// Makes a request one for the next hop: with the headers of its connection, and its target in origin form. Returns where
/// it goes; `None` if its URI does not say.
fn prepare<B: Body>(request: &mut Request<B>) -> Option<Target> {
    let target = Target::of(request.uri())?;
    let host = target.host_header()?;
    request.headers_mut().entry(header::HOST).or_insert(host);
    // RFC 9110, 8.6: a client SHOULD say it for a method that gives a body a meaning; some servers answer 411 without.
    let takes_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if takes_body && request.body().is_end_stream() {
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    Some(target)
}

/// The answer, which gives its connection back when it has been read.
fn answered<B: Send + 'static>(
    response: Response<hyper::body::Incoming>,
    lent: Lent<B>,
    asks_upgrade: bool,
) -> Result<Response<Answer<B>>, Error> {
    let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if is_upgrade && !asks_upgrade {
        return Err(Error::Unreadable(UnaskedUpgrade.into()));
    }
    Ok(response.map(|body| Answer::new(body, (!is_upgrade).then_some(lent))))
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
            Self::Unreadable(error.into())
        } else if error.is_user() {
            Self::Body(error)
        } else {
            Self::NoAnswer(error)
        }
    }
}

#[cfg(test)]
mod tests;
