//! The HTTP server that all programs use: HTTP/1.1 with limits, which finishes running requests
//! when it stops.
//!
//! All listeners (gateway, probes and metrics) have one configuration, so that clients may send the
//! same to each.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::{
    connection::{Closed, Connection},
    rules::RequestCheck,
};
use crate::memory::Account;

mod connection;
mod listen;
mod rules;

/// Timeout for the head of a request, and for an idle connection: longer than clients keep theirs.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// Maximum number of connections. Each takes memory and a file descriptor; the default limit of
/// descriptors in a container is much higher.
pub const MAX_CONNECTIONS: usize = 8192;

/// Maximum memory of a connection in bytes, as long as it has no large head: hyper's read buffer, a
/// buffer for a part of a body that the handler has, and the task itself.
pub const CONNECTION_BYTES: usize = 24 * 1024;

/// Default of the maximum size of a request's head, in bytes: as much as nginx accepts.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Minimum of the buffer into which hyper reads a head, in bytes.
pub const MIN_HEADER_BYTES: usize = 8 * 1024;

/// How long the rest of a refused body is discarded before the connection is closed. Closing it at
/// once would reset it, and the client might lose the response that gives the reason (RFC 9112,
/// 9.6).
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a failed accept, which means that file descriptors or memory are short: some may be
/// freed by then.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// How long a client that has closed its side waits for a response that does not begin. The client
/// may still read (RFC 9112, 9.6), as `nc -N` and socat do, or be gone, as most are. The system
/// can't distinguish the two until something is sent.
pub const HALF_CLOSED_WAIT: Duration = Duration::from_secs(10);

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The limits of a listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// Maximum number of connections. The system queues further ones until a connection is closed.
    pub max_connections: usize,
    /// Maximum size of a request's head, in bytes, at least [`MIN_HEADER_BYTES`]. A larger one is
    /// answered with 431.
    pub max_header_bytes: usize,
    /// Memory for heads that are larger than the buffer of each connection. If no memory is left,
    /// the request is answered with 503.
    pub memory: Option<Account>,
    /// How long a client that has closed its side waits for a response that does not begin, before
    /// it is considered gone. Must be more than 0.
    pub half_closed_wait: Duration,
}

/// Listens on an address. `[::]` is every address of both families, or of IPv4 if there is no IPv6.
/// The error names the address and the remedy.
pub fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    listen::bind(addr)
}

/// Serves connections until `shutdown`. Then accepts no more connections, finishes the running
/// requests, and returns. Requests that still run after `drain` are aborted. The handler gets the
/// client's address with each request.
///
/// hyper itself answers what is not HTTP, with a status and no body: 400, or 431 if the head is too
/// long. A request that is not valid is answered here, with 400 and one line that gives the reason.
pub async fn serve<H, F, B>(
    listener: TcpListener,
    config: Config,
    handler: H,
    shutdown: CancellationToken,
    drain: Duration,
) where
    H: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (http, config) = (config.http(), Arc::new(config));
    // Dropped on return, and with it every connection that is still open.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (stream, peer) = accept(&listener), if connections.len() < config.max_connections => {
                let (config, http, handler) = (config.clone(), http.clone(), handler.clone());
                let shutdown = shutdown.clone();
                connections.spawn(serve_connection(
                    config, http, stream, peer, handler, shutdown,
                ));
            }
        }
    }
    drop(listener);
    let drained =
        tokio::time::timeout(drain, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        warn!(connections = connections.len(), "drain timeout exceeded, aborting requests");
    }
}

/// Discards for a moment the rest of a body whose request is refused. Does nothing if the client
/// asked whether to send it: reading would mean yes.
pub fn discard(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(tokio::time::timeout(DISCARD_TIMEOUT, async move {
        while let Some(Ok(_)) = body.frame().await {}
    }));
}

// === impl Config ===

impl Config {
    /// Configures how hyper serves a connection.
    fn http(&self) -> http1::Builder {
        let max_header_bytes = self.max_header_bytes.max(MIN_HEADER_BYTES);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            // Also the idle timeout of a connection (RFC 9112, 9.5: a server may close one at any
            // time).
            .header_read_timeout(HEADER_TIMEOUT)
            // RFC 6585, 5: 431.
            .max_header_size(max_header_bytes)
            // Otherwise hyper reads into a buffer of up to 400 KiB.
            .max_buf_size(max_header_bytes)
            // This server itself decides whether the client is gone ([`Config::half_closed_wait`]).
            .half_close(true);
        http
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            max_header_bytes: MAX_HEADER_BYTES,
            memory: None,
            half_closed_wait: HALF_CLOSED_WAIT,
        }
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            // On a listener for both families, an IPv4 client has an IPv6 address.
            Ok((stream, peer)) => return (stream, (peer.ip().to_canonical(), peer.port()).into()),
            Err(error) => {
                warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

async fn serve_connection<H, F, B>(
    config: Arc<Config>,
    http: http1::Builder,
    stream: TcpStream,
    peer: SocketAddr,
    handler: H,
    shutdown: CancellationToken,
) where
    H: Fn(SocketAddr, Request<Incoming>) -> F + Sync,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // hyper reads a head into a buffer that doubles.
    let heads = config.memory.clone().map(|memory| (memory, config.max_header_bytes * 2));
    let (connection, socket) = match Connection::open(stream, heads) {
        Ok(connection) => connection,
        Err(error) => return debug!(%peer, %error, "a connection ended before it began"),
    };
    let served = async {
        let socket = TokioIo::new(socket);
        let service = service_fn(|request| {
            // Called now, and not when the response is first polled: what is read from here on is
            // not a head.
            connection.begin_response();
            answer(&connection, peer, &handler, request)
        });
        let mut serving = std::pin::pin!(http.serve_connection(socket, service).with_upgrades());
        tokio::select! {
            result = serving.as_mut() => result,
            () = client_disconnected(&connection, config.half_closed_wait) => {
                debug!(%peer, "a client is gone");
                Ok(())
            }
            () = shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    };
    if let Err(error) = served.await {
        debug!(%peer, %error, "a connection ended early");
    }
    connection.linger(DISCARD_TIMEOUT).await;
}

/// Answers a request if it is valid.
async fn answer<H, F, B>(
    connection: &Connection,
    peer: SocketAddr,
    handler: &H,
    request: Request<Incoming>,
) -> Result<Response<Either<Full<Bytes>, B>>, Infallible>
where
    H: Fn(SocketAddr, Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
{
    let has_body = !request.body().is_end_stream();
    let mut response = match rules::check(&request) {
        RequestCheck::Handle => handler(peer, request).await.map(Either::Right),
        RequestCheck::Ping => empty(StatusCode::NO_CONTENT).map(Either::Left),
        RequestCheck::Refuse(why) => {
            debug!(%peer, why, "a request is refused");
            if !request.headers().contains_key(header::EXPECT) {
                discard(request.into_body());
            }
            refused(why).map(Either::Left)
        }
    };
    connection.end_response(has_body);
    if connection.is_to_be_closed() {
        response.headers_mut().insert(header::CONNECTION, CLOSE);
    }
    Ok(response)
}

/// Waits until the client of a connection is gone, or is considered gone.
async fn client_disconnected(connection: &Connection, half_closed_wait: Duration) {
    // One wait for both, since it is polled whenever the connection does anything.
    if connection.reset_or_half_closed().await == Closed::Reset {
        return;
    }
    let timed_out = async {
        loop {
            tokio::time::sleep(half_closed_wait).await;
            // A client that is gone answers what is sent to it with a reset.
            if connection.is_unanswered() {
                return;
            }
        }
    };
    tokio::select! {
        () = connection.reset() => {}
        () = timed_out => {}
    }
}

/// Builds the response to a request that is not valid. It ends the connection, since it is not
/// certain where the next request begins.
fn refused(why: &'static str) -> Response<Full<Bytes>> {
    let mut response = empty(StatusCode::BAD_REQUEST);
    *response.body_mut() = Full::from(format!("{why}\n"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONNECTION, CLOSE);
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use prometheus_client::registry::Registry;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    use super::*;
    use crate::memory::Budget;

    /// Returns what a client reads until the connection is closed, and how long that took.
    async fn read_to_end(request: &str) -> (String, Duration) {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let handler = |_, _| std::future::ready(Response::new(Full::from("hi")));
        tokio::spawn(serve(
            listener,
            Config::default(),
            handler,
            CancellationToken::new(),
            Duration::ZERO,
        ));
        let mut client = TcpStream::connect(addr).await.unwrap();
        let begun = Instant::now();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        (text, begun.elapsed())
    }

    #[tokio::test]
    async fn a_connection_past_the_most_at_once_waits_until_one_is_closed() {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let handler = |_, _| std::future::ready(Response::new(Full::from("hi")));
        tokio::spawn(serve(
            listener,
            Config { max_connections: 2, ..Config::default() },
            handler,
            CancellationToken::new(),
            Duration::ZERO,
        ));
        let ask = async || {
            let mut client = TcpStream::connect(addr).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
            client
        };
        let mut clients = [ask().await, ask().await, ask().await];
        for client in &mut clients[..2] {
            assert!(client.read(&mut [0; 1024]).await.unwrap() > 0);
        }
        let [first, _second, mut third] = clients;
        let unanswered = tokio::time::timeout(Duration::from_millis(200), third.readable()).await;
        assert!(unanswered.is_err(), "a third connection was served next to two");
        drop(first);
        assert!(third.read(&mut [0; 1024]).await.unwrap() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_and_a_connection_that_idles_are_given_up() {
        for (request, answered) in [
            ("", false),
            ("GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ", false),
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", true),
        ] {
            let (text, took) = read_to_end(request).await;
            assert_eq!(text.ends_with("\r\n\r\nhi"), answered, "{request:?}: {text}");
            assert!(took >= HEADER_TIMEOUT && took < HEADER_TIMEOUT * 2, "{request:?}: {took:?}");
        }
    }

    /// Starts a server whose handler answers after a while, and signals if it was dropped before
    /// that.
    fn slow_server(time: Duration) -> (SocketAddr, std::sync::Arc<tokio::sync::Notify>) {
        struct NotifyOnDrop(std::sync::Arc<tokio::sync::Notify>);
        impl Drop for NotifyOnDrop {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let ended = std::sync::Arc::new(tokio::sync::Notify::new());
        let handler = {
            let ended = ended.clone();
            move |_, _| {
                let ended = NotifyOnDrop(ended.clone());
                async move {
                    let _ended = ended;
                    tokio::time::sleep(time).await;
                    Response::new(Full::from("hi"))
                }
            }
        };
        tokio::spawn(serve(
            listener,
            Config::default(),
            handler,
            CancellationToken::new(),
            Duration::ZERO,
        ));
        (addr, ended)
    }

    #[tokio::test]
    async fn a_client_that_closes_its_side_is_answered() {
        let (addr, _ended) = slow_server(Duration::from_millis(300));
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("\r\n\r\nhi"), "{text}");
    }

    #[tokio::test]
    async fn a_client_that_resets_its_connection_ends_its_request() {
        let (addr, ended) = slow_server(Duration::from_secs(3600));
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        tokio::time::timeout(Duration::from_secs(30), ended.notified()).await.unwrap();
    }

    #[tokio::test]
    async fn invalid_request_is_refused_and_closes_the_connection() {
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 204),
            ("GET / HTTP/1.0\r\n\r\n", 200),
        ] {
            let (text, took) = read_to_end(request).await;
            assert!(text.split(' ').nth(1) == Some(&status.to_string()), "{request:?}: {text}");
            assert!(took < HEADER_TIMEOUT, "{request:?}");
        }
    }

    /// Starts a server with `bytes` of memory for large heads. Returns its account, too.
    fn server_with_memory(bytes: usize, answer: Bytes) -> (SocketAddr, Account) {
        let memory = Budget::new(bytes, &mut Registry::default()).account("heads");
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let config = Config { memory: Some(memory.clone()), ..Config::default() };
        let handler = move |_, _| std::future::ready(Response::new(Full::from(answer.clone())));
        tokio::spawn(serve(listener, config, handler, CancellationToken::new(), Duration::ZERO));
        (addr, memory)
    }

    async fn read_some(client: &mut TcpStream) -> String {
        let mut bytes = vec![0; 4096];
        let count = client.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[tokio::test]
    async fn a_large_head_takes_memory_until_its_connection_ends() {
        let most = MAX_HEADER_BYTES * 2;
        let (addr, memory) = server_with_memory(most * 5, Bytes::from_static(b"hi"));
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Long: {}\r\n\r\n", "x".repeat(20_000));
        let ask = async || {
            let mut client = TcpStream::connect(addr).await.unwrap();
            client.write_all(head.as_bytes()).await.unwrap();
            let answer = read_some(&mut client).await;
            (client, answer)
        };
        let mut clients = Vec::new();
        // The last one leaves less than a quarter free, and is closed.
        for is_closed in [false, false, false, true] {
            let (mut client, answer) = ask().await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert_eq!(answer.contains("connection: close"), is_closed, "{answer}");
            if is_closed {
                assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
            }
            clients.push(client);
        }
        while memory.free() < most * 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let all = memory.try_take(memory.free()).unwrap();
        let (_refused, answer) = ask().await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1"),
            "{answer}"
        );
        assert!(answer.ends_with("send less, or again\n"), "{answer}");
        // A small head takes no memory.
        let mut small = TcpStream::connect(addr).await.unwrap();
        small.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        assert!(read_some(&mut small).await.starts_with("HTTP/1.1 200 "));
        drop((clients, all));
        while memory.free() < most * 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
        const ANSWER: usize = 64 << 20;
        let memory = Budget::new(ANSWER, &mut Registry::default()).account("answers");
        let answer = memory.try_take(ANSWER).unwrap().attach(vec![0; ANSWER]);
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let answer = std::sync::Mutex::new(Some(answer));
        let handler = {
            let answer = Arc::new(answer);
            move |_, _| {
                let answer = answer.lock().unwrap().take().unwrap();
                std::future::ready(Response::new(Full::from(answer)))
            }
        };
        tokio::spawn(serve(
            listener,
            Config::default(),
            handler,
            CancellationToken::new(),
            Duration::ZERO,
        ));
        let begun = Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        while memory.free() < ANSWER {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(begun.elapsed() < HEADER_TIMEOUT * 2, "it is held");
        }
        assert!(begun.elapsed() > HEADER_TIMEOUT / 2);
    }
}
