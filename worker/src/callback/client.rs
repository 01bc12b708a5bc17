//! Posts results to the callback URLs of clients.

use std::{sync::Arc, time::Duration};

use asyncqueue::{
    CallbackUrl,
    error::find_cause,
    headers::{
        IDEMPOTENCY_KEY, X_ASYNC_DEPTH, X_CALL_ID, X_DURATION_SECONDS, X_FUNCTION_NAME,
        X_FUNCTION_STATUS, X_RETRY, X_RETRY_MAX,
    },
    message::callback::Callback,
};
use asyncqueue_runtime::{
    client::{self, Client, Config, ConnectionLimits},
    error::error_chain,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use jiff::Timestamp;
use tokio::time::timeout;

use super::{
    connector::Connector,
    egress::{BlockedTarget, EgressPolicy, EgressResolver},
    signature::{H_ID, H_SIGNATURE, H_TIMESTAMP, Signer},
    tls::Trust,
};
use crate::{metrics::CallbackOutcome, retry::outcome::InvocationEnd};

/// Maximum length of a `Location` in logs and dead letters, in characters.
const MAX_LOCATION: usize = 200;

/// Maximum number of bytes that are read of a receiver's response, so that its connection can be
/// reused.
const MAX_BODY_READ: usize = 64 * 1024;

/// Maximum time to wait for the rest of a receiver's response.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Path prefix of callback URLs that submit another call, to this project's gateway or to the
/// gateway of OpenFaaS.
const ASYNC_FUNCTION: &str = "/async-function/";

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("asyncqueue-worker/", env!("CARGO_PKG_VERSION")));

/// Posts results.
#[derive(Clone, Debug)]
pub(crate) struct CallbackClient {
    client: Client<Connector, Full<Bytes>>,
    policy: Arc<EgressPolicy>,
    signer: Option<Signer>,
    time_limit: Duration,
}

/// Outcome of a request that posts a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PostResult {
    /// The receiver accepted the result, with this status.
    Accepted(u16),
    /// The receiver did not accept the result, and another attempt may succeed.
    Failed(InvocationEnd, String),
    /// The result must not be posted to this URL, now or later.
    Refused(String),
}

// === impl PostResult ===

impl PostResult {
    /// Returns the outcome for the metrics.
    pub(crate) fn outcome(&self) -> CallbackOutcome {
        match self {
            Self::Accepted(_) => CallbackOutcome::Accepted,
            Self::Failed(..) => CallbackOutcome::Failed,
            Self::Refused(_) => CallbackOutcome::Refused,
        }
    }
}

// === impl CallbackClient ===

impl CallbackClient {
    pub(crate) fn new(
        policy: EgressPolicy,
        signer: Option<Signer>,
        trust: Trust,
        time_limit: Duration,
        limits: ConnectionLimits,
    ) -> Self {
        let policy = Arc::new(policy);
        let connector = Connector::new(EgressResolver::new(policy.clone()), trust);
        Self { client: Client::new(connector, Config::new(limits)), policy, signer, time_limit }
    }

    /// Posts a result once. Does not follow redirects: they would bypass the egress policy.
    pub(crate) async fn post(&self, callback: &Callback) -> PostResult {
        if let Err(blocked) = self.policy.check_url(callback.url.as_url()) {
            return PostResult::Refused(blocked.to_string());
        }
        let request = match request(callback, self.signer.as_ref()) {
            Ok(request) => request,
            Err(error) => {
                return PostResult::Refused(format!("not a valid HTTP request: {error}"));
            }
        };
        let exchange = async {
            // The receiver recognises a repeat by its webhook-id or Idempotency-Key.
            let response = self.client.send(request, |request| Some(request.clone())).await?;
            let (head, body) = response.into_parts();
            // The content does not matter. Neither does a failure to read it, or a body that does
            // not end.
            let _ = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_READ).collect()).await;
            Ok::<_, client::Error>(head)
        };
        match timeout(self.time_limit, exchange).await {
            Ok(Ok(head)) => classify(head.status, &head.headers),
            Ok(Err(error)) => match find_cause::<BlockedTarget>(&error) {
                Some(blocked) => PostResult::Refused(blocked.to_string()),
                None => PostResult::Failed(InvocationEnd::Unreachable, error_chain(&error)),
            },
            Err(_) => PostResult::Failed(
                InvocationEnd::TimedOut,
                "the receiver did not answer within callback_timeout".to_owned(),
            ),
        }
    }
}

/// Classifies the response of a receiver.
///
/// 2xx means that the result is accepted. With 410 the receiver asks never to be called again, and
/// 508 says that the chain of calls is too long. Any other status is a failure that may pass
/// (Standard Webhooks, "Deliverability and reliability"). So is a redirect, which is not followed:
/// it would bypass the egress policy.
fn classify(status: StatusCode, headers: &HeaderMap) -> PostResult {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match status {
        _ if status.is_success() => PostResult::Accepted(status.as_u16()),
        StatusCode::GONE => PostResult::Refused("the receiver answered 410".to_owned()),
        StatusCode::LOOP_DETECTED => PostResult::Refused(
            "the receiver answered 508: the chain of calls is longer than its max_chain_depth \
             allows"
                .to_owned(),
        ),
        _ => {
            let retry_after = text(header::RETRY_AFTER).map(str::to_owned);
            let code = status.as_u16();
            let reason = match text(header::LOCATION).filter(|_| status.is_redirection()) {
                Some(location) => format!(
                    "the receiver answered {code} with Location `{}`: redirects are not followed, \
                     use that URL",
                    redacted(location)
                ),
                None => format!("the receiver answered {code}"),
            };
            PostResult::Failed(
                InvocationEnd::Answered { status: code, internal: false, retry_after },
                reason,
            )
        }
    }
}

/// Formats a `Location` for logs and dead letters: without credentials, query and fragment, which
/// may be secret.
fn redacted(location: &str) -> String {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    let redacted = match (path.split_once("://"), path.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => path.to_owned(),
    };
    redacted.chars().take(MAX_LOCATION).collect()
}

/// Builds the request: the function's response, and the headers that the platform adds.
fn request(
    callback: &Callback,
    signer: Option<&Signer>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let url = callback.url.as_url();
    let mut request = Request::new(Full::new(callback.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri(&callback.url)?;
    let headers = request.headers_mut();
    headers.clone_from(&callback.headers);
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    headers.insert(X_CALL_ID, HeaderValue::from_str(callback.call_id.as_str())?);
    headers.insert(
        X_DURATION_SECONDS,
        HeaderValue::from_str(&format!("{:.6}", callback.duration.as_secs_f64()))?,
    );
    headers.insert(X_FUNCTION_STATUS, HeaderValue::from(callback.status));
    headers.insert(X_RETRY, HeaderValue::from(callback.attempt));
    headers.insert(X_RETRY_MAX, HeaderValue::from(callback.max_attempts));
    headers.insert(X_FUNCTION_NAME, HeaderValue::from_str(&callback.function_as_written())?);
    headers.insert(X_ASYNC_DEPTH, HeaderValue::from(callback.depth.saturating_add(1)));
    let event_id = callback.event_id();
    if url.path().starts_with(ASYNC_FUNCTION) {
        // Makes a repeat of this request the same call.
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(&event_id)?);
    }
    // Only the platform sets these headers: a function can't sign on its behalf.
    for name in [H_ID, H_TIMESTAMP, H_SIGNATURE] {
        headers.remove(name);
    }
    if let Some(signer) = signer {
        let (id, now) = (event_id.as_str(), Timestamp::now().as_second());
        headers.insert(H_ID, HeaderValue::from_str(id)?);
        headers.insert(H_TIMESTAMP, HeaderValue::from(now));
        headers.insert(H_SIGNATURE, HeaderValue::from_str(&signer.sign(id, now, &callback.body))?);
    }
    if !url.username().is_empty() || url.password().is_some() {
        headers.insert(header::AUTHORIZATION, basic_auth(url)?);
    }
    Ok(request)
}

/// Returns the URI of the request: the URL without its credentials and its fragment, which are not
/// sent.
pub fn uri(url: &CallbackUrl) -> Result<Uri, http::Error> {
    let url = url.as_url();
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let authority = match (url.host_str(), url.port()) {
        (host, Some(port)) => format!("{}:{port}", host.unwrap_or_default()),
        (host, None) => host.unwrap_or_default().to_owned(),
    };
    Uri::builder().scheme(url.scheme()).authority(authority).path_and_query(target).build()
}

/// Encodes the credentials of a URL as the value of a header.
fn basic_auth(url: &url::Url) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let decode = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let mut pair = decode(url.username());
    pair.push(b':');
    pair.extend(decode(url.password().unwrap_or_default()));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use asyncqueue::{EndState, FunctionName};

    use super::*;

    fn callback(url: &str) -> Callback {
        Callback {
            call_id: "id-1".parse().unwrap(),
            sequence: 7,
            end: EndState::Done,
            depth: 0,
            function: FunctionName::new("figlet", "openfaas-fn").unwrap(),
            written_name: None,
            url: CallbackUrl::parse(url).unwrap(),
            status: 200,
            duration: Duration::from_micros(2_843),
            attempt: 1,
            max_attempts: 10,
            headers: HeaderMap::from_iter([
                (header::CONTENT_TYPE, "text/plain".parse().unwrap()),
                (X_DURATION_SECONDS, "9".parse().unwrap()),
            ]),
            body: Bytes::from_static(b"hi"),
        }
    }

    #[test]
    fn a_callback_carries_the_response_and_the_end_of_the_call() {
        let request = request(&callback("http://h:9/cb%2Fx?a=%2F"), None).unwrap();
        assert_eq!(request.uri(), "http://h:9/cb%2Fx?a=%2F");
        let header = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!(header("content-type"), "text/plain");
        assert_eq!(header("x-call-id"), "id-1");
        assert_eq!(header("x-duration-seconds"), "0.002843");
        assert_eq!(header("x-function-status"), "200");
        assert_eq!(header("x-function-name"), "figlet.openfaas-fn");
        assert_eq!(header("x-async-depth"), "1");
        assert!(!request.headers().contains_key("idempotency-key"));
        assert!(!request.headers().contains_key("authorization"));
    }

    #[test]
    fn a_callback_that_is_a_call_has_its_event_id_as_key() {
        let mut callback = Callback { depth: 4, ..callback("http://h:9/async-function/next?a=b") };
        for name in [IDEMPOTENCY_KEY, X_ASYNC_DEPTH] {
            callback.headers.append(name, HeaderValue::from_static("the function's"));
        }
        let request = request(&callback, None).unwrap();
        let values = |name| request.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(values(IDEMPOTENCY_KEY), ["id-1_7_done"]);
        assert_eq!(values(X_ASYNC_DEPTH), ["5"]);
        assert_eq!(values(X_CALL_ID), ["id-1"]);
    }

    #[test]
    fn a_chain_that_is_too_long_is_refused_and_names_the_limit() {
        let PostResult::Refused(reason) = classify(StatusCode::LOOP_DETECTED, &HeaderMap::new())
        else {
            panic!()
        };
        assert!(reason.contains("508") && reason.contains("max_chain_depth"), "{reason}");
    }

    #[test]
    fn credentials_of_the_url_become_a_header() {
        let request = request(&callback("http://user:pa%20ss@[::1]:9/"), None).unwrap();
        assert_eq!(request.uri(), "http://[::1]:9/");
        assert_eq!(request.headers()["authorization"], "Basic dXNlcjpwYSBzcw==");
    }

    #[test]
    fn only_status_410_is_never_retried() {
        let classify = |status| classify(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        for status in [200, 202, 204, 299] {
            assert_eq!(classify(status), PostResult::Accepted(status));
        }
        assert!(matches!(classify(410), PostResult::Refused(_)));
        for status in [300, 301, 302, 304, 307, 308, 400, 404, 429, 500, 503, 999] {
            assert!(matches!(classify(status), PostResult::Failed(..)), "{status}");
        }
    }

    #[test]
    fn a_redirect_fails_and_names_its_location() {
        for (location, named) in [
            (
                "https://u:secret@new.example/hooks?token=secret#secret",
                "`https://new.example/hooks`",
            ),
            ("/hooks?token=secret", "`/hooks`"),
            ("//new.example/a@b", "`//new.example/a@b`"),
        ] {
            let headers = HeaderMap::from_iter([(header::LOCATION, location.parse().unwrap())]);
            let PostResult::Failed(_, reason) = classify(StatusCode::PERMANENT_REDIRECT, &headers)
            else {
                panic!("not failed")
            };
            assert!(
                reason.contains("308") && reason.contains(named) && !reason.contains("secret"),
                "{reason}"
            );
        }
        let long = HeaderMap::from_iter([(header::LOCATION, "x".repeat(5000).parse().unwrap())]);
        let PostResult::Failed(_, reason) = classify(StatusCode::FOUND, &long) else {
            panic!("not failed")
        };
        assert!(reason.len() < 400, "{reason}");
    }
}
