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
use tracing::debug;

use crate::outcome::Ending;

/// A connection to a function that takes longer than this to open is taken for none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections are closed sooner than functions commonly close theirs, so that a call does not meet a
/// connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The header that says the platform failed, and not the function (`openfaas/faas-provider`, `proxy/proxy.go`).
const H_INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");
const H_CALL_ID: HeaderName = HeaderName::from_static("x-call-id");

/// Where functions are.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Behind a gateway, at `<URL>/function/<name>.<namespace>`.
    Gateway(String),
    /// Each at its own URL: the directory's, or else this one with `{function}` and `{namespace}` filled in.
    Direct(String),
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
    pub(crate) async fn call(&self, invocation: &Invocation, directory: Option<&Directory>) -> Reply {
        let begun = Instant::now();
        let deadline = (begun + self.time_limit).into();
        let reply = match timeout_at(deadline, self.exchange(invocation, directory)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => Reply::without_answer(Ending::Unreachable, format!("{error:#}")),
            Err(_) => Reply::without_answer(Ending::TimedOut, "the time limit was reached".to_owned()),
        };
        Reply { duration: begun.elapsed(), ..reply }
    }

    async fn exchange(
        &self,
        invocation: &Invocation,
        directory: Option<&Directory>,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::new(Full::new(invocation.body.clone()));
        *request.uri_mut() = self.target.url(invocation, directory)?;
        *request.method_mut() = invocation.method.clone();
        *request.headers_mut() = request_headers(invocation)?;
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
    fn without_answer(ending: Ending, error: String) -> Self {
        debug!(error, "no answer");
        Self {
            ending,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            truncated: false,
            duration: Duration::ZERO,
            error: Some(error),
        }
    }
}

/// The caller's headers, and the call id where the caller gave none.
fn request_headers(invocation: &Invocation) -> Result<HeaderMap, http::header::InvalidHeaderValue> {
    let mut headers = invocation.headers.clone();
    strip_connection_headers(&mut headers);
    if !headers.contains_key(&H_CALL_ID) {
        headers.insert(H_CALL_ID, HeaderValue::from_str(invocation.call_id.as_str())?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use asyncqueue::directory::FunctionEntry;

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
        let entry = FunctionEntry { queue: None, url: Some("http://127.0.0.1:9000".to_owned()) };
        directory.functions.insert(invocation.function.clone(), entry);
        assert_eq!(target.url(&invocation, Some(&directory)).unwrap(), "http://127.0.0.1:9000/p");
    }

    #[test]
    fn the_callers_own_call_id_is_kept() {
        let mut invocation = call("", None);
        assert_eq!(request_headers(&invocation).unwrap()["x-call-id"], "id-1");
        invocation.headers.insert(H_CALL_ID, "job.42".parse().unwrap());
        assert_eq!(request_headers(&invocation).unwrap()["x-call-id"], "job.42");
    }
}
