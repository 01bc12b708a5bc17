use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::dns::GaiResolver;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const LIMITS: ConnectionLimits =
    ConnectionLimits { max_age: Duration::from_secs(30), max_requests: 1000 };

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a server writes in response to the requests of one connection. Then it closes the
/// connection.
type Script = &'static [&'static str];

/// A server whose nth connection follows the nth script. Later connections follow the last script.
struct Server {
    uri: Uri,
    connections: Arc<AtomicUsize>,
    last_request: Arc<std::sync::Mutex<String>>,
}

impl Server {
    async fn start(scripts: &'static [Script]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/a?b", listener.local_addr().unwrap()).parse().unwrap();
        let server = Self { uri, connections: Arc::default(), last_request: Arc::default() };
        let (connections, last_request) = (server.connections.clone(), server.last_request.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::SeqCst).min(scripts.len() - 1);
                let last_request = last_request.clone();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    for piece in scripts[number] {
                        let length = stream.read(&mut request).await.unwrap_or_default();
                        if length == 0 {
                            return;
                        }
                        *last_request.lock().unwrap() =
                            String::from_utf8_lossy(&request[..length]).into();
                        stream.write_all(piece.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        server
    }

    fn request(&self, method: Method, body: &'static str) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        request
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn last_request(&self) -> String {
        self.last_request.lock().unwrap().clone()
    }
}

type TestClient = Client<HttpConnector<GaiResolver>, Full<Bytes>>;

fn client(limits: ConnectionLimits) -> TestClient {
    Client::new(tcp(GaiResolver::new()), Config::new(limits))
}

/// Sends a request that may be sent twice, and reads the answer.
async fn send(
    client: &TestClient,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, Error> {
    let (head, body) = client.send(request, |request| Some(request.clone())).await?.into_parts();
    let body = body.collect().await.map_err(Error::NoResponse)?.to_bytes();
    Ok(Response::from_parts(head, body))
}

async fn post(client: &TestClient, server: &Server) -> Result<Response<Bytes>, Error> {
    send(client, server.request(Method::POST, "hi")).await
}

#[tokio::test]
async fn a_connection_is_used_again_up_to_its_number_of_requests() {
    let server = Server::start(&[&[OK; 100]]).await;
    let keeping = client(LIMITS);
    for _ in 0..20 {
        assert_eq!(post(&keeping, &server).await.unwrap().body(), "ok");
    }
    assert_eq!(server.connections(), 1);
    let counting = client(ConnectionLimits { max_requests: 4, ..LIMITS });
    for _ in 0..12 {
        post(&counting, &server).await.unwrap();
    }
    // Three or four requests each.
    assert!((4..=5).contains(&server.connections()), "{}", server.connections());
}

#[tokio::test]
async fn a_connection_is_used_up_to_its_age() {
    let server = Server::start(&[&[OK; 100]]).await;
    let client = client(ConnectionLimits { max_age: Duration::from_millis(200), ..LIMITS });
    for _ in 0..2 {
        post(&client, &server).await.unwrap();
        tokio::time::sleep(Duration::from_millis(210)).await;
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_request_on_a_connection_that_was_closed_is_sent_once_more() {
    // The first connection reads the second request and closes.
    let server = Server::start(&[&[OK, ""], &[OK]]).await;
    let client = client(LIMITS);
    for _ in 0..2 {
        assert_eq!(post(&client, &server).await.unwrap().status(), 200);
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_request_is_not_sent_a_third_time() {
    let server = Server::start(&[&[OK, ""], &[""], &[OK]]).await;
    let client = client(LIMITS);
    post(&client, &server).await.unwrap();
    assert!(matches!(post(&client, &server).await, Err(Error::NoResponse(_))));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_request_is_not_sent_again_without_need_or_leave() {
    // Three cases that are not repeated: the response has begun, the request may not be sent twice,
    // or it was the first on its connection.
    let begun = Server::start(&[&[OK, "HTTP/1.1 2"], &[OK]]).await;
    let client = client(LIMITS);
    post(&client, &begun).await.unwrap();
    assert!(matches!(post(&client, &begun).await, Err(Error::NoResponse(_))));
    assert_eq!(begun.connections(), 1);

    let once = Server::start(&[&[OK, ""], &[OK]]).await;
    post(&client, &once).await.unwrap();
    let sent = client.send(once.request(Method::POST, "hi"), |_| None).await;
    assert!(matches!(sent, Err(Error::NoResponse(_))));
    assert_eq!(once.connections(), 1);

    let first = Server::start(&[&[""], &[OK]]).await;
    assert!(matches!(post(&client, &first).await, Err(Error::NoResponse(_))));
    assert_eq!(first.connections(), 1);
}

#[tokio::test]
async fn a_method_with_a_body_always_says_its_length() {
    let server = Server::start(&[&[OK; 100]]).await;
    let client = client(LIMITS);
    for (method, body, expected) in [
        (Method::POST, "", Some("content-length: 0")),
        (Method::PUT, "", Some("content-length: 0")),
        (Method::PATCH, "", Some("content-length: 0")),
        (Method::POST, "hi", Some("content-length: 2")),
        (Method::GET, "", None),
        (Method::DELETE, "", None),
    ] {
        send(&client, server.request(method.clone(), body)).await.unwrap();
        let request = server.last_request();
        let length = request.lines().find(|line| line.starts_with("content-length"));
        assert_eq!(length, expected, "{request}");
        assert!(request.starts_with(&format!("{method} /a?b HTTP/1.1\r\n")), "{request}");
        let host = format!("host: {}\r\n", server.uri.authority().unwrap());
        assert!(request.contains(&host), "{request}");
    }
}

#[tokio::test]
async fn a_head_is_read_as_tolerantly_as_is_safe() {
    for (script, value) in [
        (&["HTTP/1.1 200 OK\r\nX-A: one\r\n\t two\r\nContent-Length: 2\r\n\r\nok"], "one"),
        (&["HTTP/1.1 200 OK\r\nX-A : one\r\nContent-Length : 2\r\n\r\nok"], "one"),
        (
            &["HTTP/1.1 200 OK\r\nX B: no\r\nno field\r\nX-A: one\r\nContent-Length: 2\r\n\r\nok"],
            "one",
        ),
        (&["HTTP/1.1 200\r\nX-A: one\r\n\r\nok"], "one"),
        (&["HTTP/1.1 200 OK\nX-A: one\nContent-Length: 2\n\nok"], "one"),
        (
            &["HTTP/1.1 103 Early Hints\r\nX-A: no\r\n\r\nHTTP/1.1 200 OK\r\nX-A: one\r\n\r\nok"],
            "one",
        ),
    ] {
        let scripts: &'static [Script] = Box::leak(Box::new([&script[..]]));
        let server = Server::start(scripts).await;
        let answer = post(&client(LIMITS), &server).await.unwrap();
        assert!(
            answer.headers()["x-a"].to_str().unwrap().starts_with(value),
            "{script:?}: {answer:?}"
        );
        assert_eq!(answer.body(), "ok", "{script:?}");
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_an_error_of_its_own() {
    let long: &'static str =
        Box::leak(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(300_000)).into());
    for piece in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        long,
    ] {
        let script: &'static [&str] = Box::leak(Box::new([piece]));
        let scripts: &'static [Script] = Box::leak(Box::new([script]));
        let server = Server::start(scripts).await;
        let answer = post(&client(LIMITS), &server).await;
        assert!(matches!(answer, Err(Error::InvalidResponse(_))), "{piece:.60}: {answer:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() {
    let server = Server::start(&[&[OK; 100]]).await;
    let idle_timeout = Duration::from_millis(100);
    let client: TestClient =
        Client::new(tcp(GaiResolver::new()), Config { idle_timeout, ..Config::new(LIMITS) });
    post(&client, &server).await.unwrap();
    let target = Target::from_uri(&server.uri).unwrap();
    tokio::time::sleep(idle_timeout * 3).await;
    assert!(client.inner.pool.acquire(&target).is_none());
}

#[test]
fn the_host_is_named_without_credentials_and_an_implied_port() {
    for (uri, host) in [
        ("http://h:80/", Some("h")),
        ("https://h:443/", Some("h")),
        ("http://h:443/", Some("h:443")),
        ("http://u:p@h:8080/", Some("h:8080")),
        ("http://[::1]:80/", Some("[::1]")),
        ("ftp://h/", None),
        ("/path", None),
    ] {
        let target = Target::from_uri(&uri.parse().unwrap());
        let named = target.and_then(|target| target.host_header());
        assert_eq!(named.as_ref().map(|host| host.to_str().unwrap()), host, "{uri}");
    }
}
