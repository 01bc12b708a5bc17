//! The call of a function: HTTP/1.1 through a pool of connections.

use std::time::{Duration, Instant};

use asyncqueue::{FunctionName, Invocation, directory::Directory, forward::strip_connection_headers};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout_at;

use crate::outcome::Ending;

/// A connection to a function that takes longer than this to open is taken for none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections are closed sooner than functions commonly close theirs, so that a call does not meet a
/// connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The header that says the platform failed, and not the function (`openfaas/faas-provider`, `proxy/proxy.go`).
const H_INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");
const H_CALL_ID: HeaderName = HeaderName::from_static("x-call-id");
/// When the call was submitted, in nanoseconds since 1970.
const H_START_TIME: HeaderName = HeaderName::from_static("x-start-time");
/// The attempt, and how many there can be, as the callback has them too.
const H_RETRY: HeaderName = HeaderName::from_static("x-retry");
const H_RETRY_MAX: HeaderName = HeaderName::from_static("x-retry-max");
/// The same for each attempt of a call, so that a function can tell a repeat (`draft-ietf-httpapi-idempotency-key-header`).
const H_IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where functions are.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Behind a gateway, at `<URL>/function/<name>.<namespace>`.
    Gateway(String),
    /// Each at its own URL: the directory's, or else this one with `{function}` and `{namespace}` filled in.
    Direct(String),
}

/// Which run of a call this is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// Its number, from 1.
    pub(crate) number: u64,
    /// How many there can be.
    pub(crate) max: u64,
}

/// How a call ended, and what came of it.
#[derive(Debug)]
pub(crate) struct Reply {
    /// How it ended.
    pub(crate) ending: Ending,
    /// The headers of the answer, without those of the connection.
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
}

// === impl Target ===

impl Target {
    /// The URL of a call. Path and query go through byte for byte.
    fn url(
        &self,
        invocation: &Invocation,
        directory: Option<&Directory>,
    ) -> Result<Uri, http::uri::InvalidUri> {
        let base = match self {
            Self::Gateway(url) => format!("{}/function/{}", url.trim_end_matches('/'), invocation.function),
            Self::Direct(template) => {
                let known = directory.and_then(|d| d.functions.get(&invocation.function)?.url.as_deref());
                let url = known.map_or_else(|| fill_in(template, &invocation.function), str::to_owned);
                url.trim_end_matches('/').to_owned()
            }
        };
        let path = if invocation.path.is_empty() { "/" } else { &invocation.path };
        match &invocation.query {
            Some(query) => format!("{base}{path}?{query}").parse(),
            None => format!("{base}{path}").parse(),
        }
    }
}

fn fill_in(template: &str, function: &FunctionName) -> String {
    template.replace("{function}", function.name()).replace("{namespace}", function.namespace())
}

// === impl Caller ===

impl Caller {
    pub(crate) fn new(target: Target, time_limit: Duration, max_response: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Self { client, target, time_limit, max_response }
    }

    /// Makes one call and waits for its end. Dropped, it closes the connection, so that the function sees it.
    pub(crate) async fn call(
        &self,
        invocation: &Invocation,
        attempt: Attempt,
        directory: Option<&Directory>,
    ) -> Reply {
        let begun = Instant::now();
        let deadline = (begun + self.time_limit).into();
        let reply = match timeout_at(deadline, self.exchange(invocation, attempt, directory)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => Reply::without_answer(Ending::Unreachable, format!("{error:#}")),
            Err(_) => Reply::without_answer(Ending::TimedOut, "the time limit was reached".to_owned()),
        };
        Reply { duration: begun.elapsed(), ..reply }
    }

    async fn exchange(
        &self,
        invocation: &Invocation,
        attempt: Attempt,
        directory: Option<&Directory>,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::new(Full::new(invocation.body.clone()));
        *request.uri_mut() = self.target.url(invocation, directory)?;
        *request.method_mut() = invocation.method.clone();
        *request.headers_mut() = request_headers(invocation, attempt)?;
        let (parts, mut body) = self.client.request(request).await?.into_parts();

        let mut kept = BytesMut::new();
        let mut truncated = false;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let room = self.max_response - kept.len();
            kept.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                truncated = true;
                break;
            }
        }
        let mut headers = parts.headers;
        let internal = headers.contains_key(H_INTERNAL) && parts.status.as_u16() >= 400;
        let retry_after = headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        strip_connection_headers(&mut headers);
        Ok(Reply {
            ending: Ending::Answered { status: parts.status.as_u16(), internal, retry_after },
            headers,
            body: kept.freeze(),
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

/// The caller's headers, and what the platform has to say of the call. Where the caller said it itself, its word
/// stands: its own call id, and its own key for what it does in several calls.
fn request_headers(
    invocation: &Invocation,
    attempt: Attempt,
) -> Result<HeaderMap, http::header::InvalidHeaderValue> {
    let mut headers = invocation.headers.clone();
    strip_connection_headers(&mut headers);
    let call_id = HeaderValue::from_str(invocation.call_id.as_str())?;
    headers.entry(H_CALL_ID).or_insert_with(|| call_id.clone());
    headers.entry(H_IDEMPOTENCY_KEY).or_insert(call_id);
    headers
        .entry(H_START_TIME)
        .or_insert(HeaderValue::from_str(&invocation.submitted_at.as_nanosecond().to_string())?);
    headers.insert(H_RETRY, HeaderValue::from(attempt.number));
    headers.insert(H_RETRY_MAX, HeaderValue::from(attempt.max));
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use asyncqueue::{directory::FunctionEntry, retry::RetryOverrides};

    use super::*;

    fn call(path: &str, query: Option<&str>) -> Invocation {
        Invocation {
            call_id: "id-1".parse().unwrap(),
            function: FunctionName::new("figlet", "openfaas-fn").unwrap(),
            method: http::Method::POST,
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers: HeaderMap::new(),
            callback_url: None,
            submitted_at: "2026-11-24T10:00:00Z".parse().unwrap(),
            retry: RetryOverrides::default(),
            body: Bytes::new(),
        }
    }

    #[test]
    fn path_and_query_go_through_byte_for_byte() {
        let target = Target::Gateway("http://gateway:8080/".to_owned());
        for (path, query, expected) in [
            ("", None, "/function/figlet.openfaas-fn/"),
            ("/", Some(""), "/function/figlet.openfaas-fn/?"),
            (
                "/a%2Fb//c/../%3F%25",
                Some("x=%2F&x"),
                "/function/figlet.openfaas-fn/a%2Fb//c/../%3F%25?x=%2F&x",
            ),
        ] {
            let url = target.url(&call(path, query), None).unwrap();
            assert_eq!(url.path_and_query().unwrap().as_str(), expected);
            assert_eq!(url.authority().unwrap(), "gateway:8080");
        }
    }

    #[test]
    fn a_function_is_where_the_directory_says_or_else_where_its_name_says() {
        let target = Target::Direct("http://{function}.{namespace}.svc.cluster.local:8080".to_owned());
        let invocation = call("/p", None);
        let url = target.url(&invocation, None).unwrap();
        assert_eq!(url, "http://figlet.openfaas-fn.svc.cluster.local:8080/p");
        let mut directory = Directory::default();
        let entry =
            FunctionEntry { url: Some("http://127.0.0.1:9000".to_owned()), ..FunctionEntry::default() };
        directory.functions.insert(invocation.function.clone(), entry);
        assert_eq!(target.url(&invocation, Some(&directory)).unwrap(), "http://127.0.0.1:9000/p");
    }

    #[test]
    fn the_function_is_told_of_the_call_and_the_callers_own_word_stands() {
        let mut invocation = call("", None);
        let attempt = Attempt { number: 2, max: 10 };
        let headers = request_headers(&invocation, attempt).unwrap();
        for (name, value) in [
            ("x-call-id", "id-1"),
            ("idempotency-key", "id-1"),
            ("x-start-time", "1795514400000000000"),
            ("x-retry", "2"),
            ("x-retry-max", "10"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        for (name, value) in
            [("x-call-id", "job.42"), ("idempotency-key", "mine"), ("traceparent", "00-1"), ("x-retry", "9")]
        {
            invocation.headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let headers = request_headers(&invocation, attempt).unwrap();
        assert_eq!(headers["x-call-id"], "job.42");
        assert_eq!(headers["idempotency-key"], "mine");
        assert_eq!(headers["traceparent"], "00-1");
        assert_eq!(headers["x-retry"], "2");
    }
}
