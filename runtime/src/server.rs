//! The HTTP server that all programs use: HTTP/1.1 with limits, which finishes what it has begun.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
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

/// For the head of a request, and for a connection that idles between two: longer than clients keep theirs.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// The head of a request: more than any client sends that means well, and all of it goes into the message.
const MAX_HEAD: usize = 64 * 1024;

/// Connections at once. Each may hold a whole body in memory and a file descriptor; the default limit of
/// descriptors in a container is far above.
const MAX_CONNECTIONS: usize = 8192;

/// After a failed accept, which means that file descriptors or memory are short: time for some to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The client's address, in the extensions of each request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Listens on an address. The error names it, and what to do.
pub async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| {
        format!("can't listen on {addr}: choose another address, or stop what listens there")
    })
}

/// Serves connections until `shutdown`; then accepts no more, finishes the requests that have begun, and
/// returns. What is not done after `drain` is cut off.
///
/// What is no HTTP is answered by hyper itself, with a status and no body: 400, or 431 where the head is too long.
pub async fn serve<H, F, B>(listener: TcpListener, handler: H, shutdown: CancellationToken, drain: Duration)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    serve_at_most(MAX_CONNECTIONS, listener, handler, shutdown, drain).await;
}

/// As [`serve`]. Of more connections, the system keeps some waiting until one is closed.
async fn serve_at_most<H, F, B>(
    most: usize,
    listener: TcpListener,
    handler: H,
    shutdown: CancellationToken,
    drain: Duration,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Dropped on return, and with it every connection that is not done.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (stream, peer) = accept(&listener), if connections.len() < most => {
                connections.spawn(serve_connection(stream, peer, handler.clone(), shutdown.clone()));
            }
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(drain, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        warn!(connections = connections.len(), "requests did not end in time and are cut off");
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection<H, F, B>(
    stream: TcpStream,
    peer: SocketAddr,
    handler: H,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Answers are short: send them now rather than wait for more to send.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "TCP_NODELAY can't be set");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let response = handler(request);
        async { Ok::<_, std::convert::Infallible>(response.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%peer, %error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    use super::*;

    /// What a client reads until the connection is closed, and how long that took.
    async fn read_to_end(request: &str) -> (String, Duration) {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let handler = |_| std::future::ready(Response::new(Full::from("hi")));
        tokio::spawn(serve(listener, handler, CancellationToken::new(), Duration::ZERO));
        let mut client = TcpStream::connect(addr).await.unwrap();
        let begun = Instant::now();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        (text, begun.elapsed())
    }

    #[tokio::test]
    async fn a_connection_past_the_most_at_once_waits_until_one_is_closed() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let handler = |_| std::future::ready(Response::new(Full::from("hi")));
        tokio::spawn(serve_at_most(2, listener, handler, CancellationToken::new(), Duration::ZERO));
        let ask = async || {
            let mut client = TcpStream::connect(addr).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            client
        };
        let mut clients = [ask().await, ask().await, ask().await];
        for client in &mut clients[..2] {
            assert!(client.read(&mut [0; 1024]).await.unwrap() > 0);
        }
        let [first, _second, mut third] = clients;
        let unanswered = tokio::time::timeout(Duration::from_millis(200), third.readable()).await;
        assert!(unanswered.is_err(), "a third connection was served beside two");
        drop(first);
        assert!(third.read(&mut [0; 1024]).await.unwrap() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_and_a_connection_that_idles_are_given_up() {
        for (request, answered) in
            [("", false), ("GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ", false), ("GET / HTTP/1.1\r\n\r\n", true)]
        {
            let (text, took) = read_to_end(request).await;
            assert_eq!(text.ends_with("\r\n\r\nhi"), answered, "{request:?}: {text}");
            assert!(took >= HEADER_TIMEOUT && took < HEADER_TIMEOUT * 2, "{request:?}: {took:?}");
        }
    }
}
