//! What a function or a receiver writes as its answer, and then closes the connection or not.
//! Whatever it is, there is an answer or an error; what is read of it can be stored as a result and
//! read again; and nothing of it is taken for the answer to the next request.
#![no_main]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use asyncqueue::{
    CallbackUrl, EndState, FunctionName, Invocation, hop_by_hop::strip_connection_headers,
    message::callback::Callback,
};
use asyncqueue_fuzz::over_the_wire;
use asyncqueue_runtime::client::{Client, Config, ConnectionLimits, Error, MAX_RESPONSE_HEAD_BYTES};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime,
    time::timeout,
};

/// The answer to the second request.
const SECOND: &[u8] = b"HTTP/1.1 299 Second\r\nContent-Length: 6\r\n\r\nsecond";

/// More than any wait of the client.
const LONG: Duration = Duration::from_secs(60);

const MAX_BODY: usize = 1 << 20;

/// Opens connections to a server that answers the first request of all with the input, and all
/// others with [`SECOND`].
#[derive(Clone)]
struct Connector {
    first: Arc<AtomicBool>,
    input: Arc<[u8]>,
    closes: bool,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<DuplexStream>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (ours, server) = tokio::io::duplex(64 * 1024);
        tokio::spawn(self.clone().serve(server));
        ready(Ok(TokioIo::new(ours)))
    }
}

impl Connector {
    async fn serve(self, mut stream: DuplexStream) {
        let mut request = Vec::new();
        loop {
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            request.clear();
            let is_first = self.first.swap(false, Ordering::SeqCst);
            let answer = if is_first { &self.input } else { SECOND };
            if stream.write_all(answer).await.is_err() || (is_first && self.closes) {
                return;
            }
        }
    }
}

type Answered = Result<Response<Bytes>, Error>;

async fn ask(client: &Client<Connector, Full<Bytes>>) -> Option<Answered> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("http://function/");
    let exchange = async {
        let (head, body) =
            client.send(request, |request| Some(request.clone())).await?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        Ok(Response::from_parts(head, body.map(|body| body.to_bytes()).unwrap_or_default()))
    };
    timeout(LONG, exchange).await.ok()
}

fuzz_target!(|input: (bool, &[u8])| {
    let (closes, bytes) = input;
    // The clock is the fuzzer's: what would wait does not.
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let connector =
            Connector { first: Arc::new(AtomicBool::new(true)), input: bytes.into(), closes };
        let limits = ConnectionLimits { max_age: LONG * 10, max_requests: 100 };
        let max_response_head_bytes = MAX_RESPONSE_HEAD_BYTES;
        let config = Config {
            connect_timeout: LONG,
            idle_timeout: LONG * 10,
            limits,
            max_response_head_bytes,
        };
        let client = Client::new(connector, config);
        match ask(&client).await {
            Some(Ok(answer)) => check_result(answer),
            Some(Err(Error::Connect(error))) => panic!("{error}"),
            Some(Err(_)) => {}
            None => assert!(!closes, "it waits for a server that has closed"),
        }
        match ask(&client).await {
            Some(Ok(answer)) => {
                assert_eq!((answer.status().as_u16(), &answer.body()[..]), (299, &b"second"[..]))
            }
            other => panic!("{other:?}"),
        }
    });
});

/// What is read of an answer can be stored as a result, and read again.
fn check_result(answer: Response<Bytes>) {
    let (mut head, body) = answer.into_parts();
    let length: usize =
        head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert!(length <= MAX_RESPONSE_HEAD_BYTES);
    strip_connection_headers(&mut head.headers);
    let function = FunctionName::new("figlet", "openfaas-fn").expect("a name");
    let call = Invocation::new("id".parse().expect("an id"), function, "");
    let url = CallbackUrl::parse("http://receiver/").expect("a URL");
    let result = Callback {
        headers: head.headers,
        body: body.clone(),
        ..Callback::new(&call, url, 1, EndState::Done, head.status.as_u16())
    };
    let read =
        Callback::decode(&over_the_wire(&result.encode()), body).expect("what is stored is read");
    assert_eq!((read.status, trimmed(&read.headers)), (result.status, trimmed(&result.headers)));
}

/// Headers without the blanks around their values, which are not part of them (RFC 9110, 5.5).
fn trimmed(headers: &HeaderMap) -> HeaderMap {
    let trim = |value: &HeaderValue| {
        HeaderValue::from_bytes(value.as_bytes().trim_ascii()).expect("a value")
    };
    headers.iter().map(|(name, value)| (name.clone(), trim(value))).collect()
}
