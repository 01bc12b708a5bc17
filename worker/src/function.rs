//! The call of a function: HTTP/1.1 through a pool of connections.

use std::time::{Duration, Instant};

use asyncqueue::{Invocation, directory::Directory};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Body as _;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout_at;

use crate::{
    answer_buffer::{AnswerMemory, READ_BYTES},
    outcome::Ending,
};
use request::{Attempt, Target, request_headers};

pub mod request;

/// A connection to a function that takes longer than this to open is taken for none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections are closed sooner than functions commonly close theirs, so that a call does not meet a
/// connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The header that says the platform failed, and not the function (`openfaas/faas-provider`, `proxy/proxy.go`).
const H_INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

/// How a call ended, and what came of it.
#[derive(Debug)]
pub(crate) struct Reply {
    /// How it ended.
    pub(crate) ending: Ending,
    /// The headers of the answer.
    pub(crate) headers: HeaderMap,
    /// The body of the answer.
    pub(crate) body: Bytes,
    /// Whether the answer was longer than what is kept.
    pub(crate) truncated: bool,
    /// From the first byte sent to the last received.
    pub(crate) duration: Duration,
    /// Why there is no answer, for the log.
    pub(crate) error: Option<String>,
}

/// Calls functions.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    client: Client<HttpConnector, Full<Bytes>>,
    target: Target,
    time_limit: Duration,
    max_response: usize,
    memory: AnswerMemory,
}

// === impl Caller ===

impl Caller {
    pub(crate) fn new(
        target: Target,
        time_limit: Duration,
        max_response: usize,
        memory: AnswerMemory,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_max_buf_size(READ_BYTES)
            .build(connector);
        Self { client, target, time_limit, max_response, memory }
    }

    /// Makes one call with these headers of its caller, and waits for its end. Dropped, it closes the connection, so that the function sees it.
    pub(crate) async fn call(
        &self,
        invocation: &Invocation,
        headers: HeaderMap,
        attempt: Attempt,
        directory: Option<&Directory>,
    ) -> Reply {
        let begun = Instant::now();
        let deadline = (begun + self.time_limit).into();
        let reply = match timeout_at(deadline, self.exchange(invocation, headers, attempt, directory)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => Reply::without_answer(Ending::Unreachable, format!("{error:#}")),
            Err(_) => Reply::without_answer(Ending::TimedOut, "the time limit was reached".to_owned()),
        };
        Reply { duration: begun.elapsed(), ..reply }
    }

    async fn exchange(
        &self,
        invocation: &Invocation,
        headers: HeaderMap,
        attempt: Attempt,
        directory: Option<&Directory>,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::new(Full::new(invocation.body.clone()));
        *request.uri_mut() = self.target.url(invocation, directory)?;
        *request.method_mut() = invocation.method.clone();
        *request.headers_mut() = request_headers(headers, invocation, attempt)?;
        let (parts, mut body) = self.client.request(request).await?.into_parts();

        let mut kept = self.memory.buffer(self.max_response, body.size_hint().exact());
        let mut truncated = false;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let room = self.max_response - kept.len();
            kept.add(&data[..data.len().min(room)]).await;
            if data.len() > room {
                truncated = true;
                break;
            }
        }
        let headers = parts.headers;
        let internal = headers.contains_key(H_INTERNAL) && parts.status.as_u16() >= 400;
        let retry_after = headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Ok(Reply {
            ending: Ending::Answered { status: parts.status.as_u16(), internal, retry_after },
            headers,
            body: kept.into_bytes(),
            truncated,
            duration: Duration::ZERO,
            error: None,
        })
    }
}

// === impl Reply ===

impl Reply {
    /// What there is to say of a call that was not made.
    pub(crate) fn none() -> Self {
        Self {
            ending: Ending::Unreachable,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            truncated: false,
            duration: Duration::ZERO,
            error: None,
        }
    }

    fn without_answer(ending: Ending, error: String) -> Self {
        Self { ending, error: Some(error), ..Self::none() }
    }
}
