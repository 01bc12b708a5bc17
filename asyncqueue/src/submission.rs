//! A submission: a request to call a function later, as a gateway or a command line gets it.
//! Converts its head into the invocation that is stored. Pure.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::Timestamp;

use self::{
    client_value::{single, single_or_empty},
    requested_delay::{DELAY_HEADERS, RequestedDelay},
};
use crate::{
    call_id::CallId,
    directory::{Directory, QueueRoute, ResultsSettings},
    duration::GoDuration,
    headers::{
        IDEMPOTENCY_KEY, X_ASYNC_DEPTH, X_BATCH_ID, X_CALL_ID, X_CALLBACK_URL, X_KEEP_RESULT,
        X_START_TIME,
    },
    hop_by_hop::strip_connection_headers,
    idempotency::IdempotencyKey,
    invocation::{CallbackUrl, Invocation, MAX_TARGET, read_depth},
    kept_results::WAIT_RETENTION,
    names::FunctionName,
    retry::RetryOverrides,
};

pub use self::{
    batch_calls::BatchCalls,
    batch_lines::{BatchLine, is_target, parse as parse_batch},
    client_value::{call_id, shorten},
    error::SubmissionError,
};

mod batch_calls;
mod batch_lines;
mod client_value;
mod error;
mod requested_delay;

/// A request to call a function later, checked as far as its head allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    function: FunctionName,
    /// The function's name as the client wrote it, for the callback. `None` without a callback.
    written_name: Option<String>,
    path: String,
    query: Option<String>,
    callback_url: Option<CallbackUrl>,
    keep_result: Option<Duration>,
    depth: u32,
    delay: Option<RequestedDelay>,
    not_before: Option<Timestamp>,
}

// === impl Submission ===

impl Submission {
    /// Checks the head of a request. `name` and `path` are the function's name, and what follows it
    /// in the path. `namespace` is that of a function named without one.
    pub fn parse(
        name: &str,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        namespace: &str,
    ) -> Result<Self, SubmissionError> {
        let function = function_name(name, namespace)?;
        check_escapes(path)?;
        check_target(path, query)?;
        let callback_url = callback_url(headers)?;
        let keep_result = keep_result(headers)?;
        let depth = depth(headers)?;
        let delay = RequestedDelay::from_headers(headers)?;
        let (path, query) = (path.to_owned(), query.map(str::to_owned));
        let written_name = callback_url.is_some().then(|| name.to_owned());
        let not_before = None;
        Ok(Self {
            function,
            written_name,
            path,
            query,
            callback_url,
            keep_result,
            depth,
            delay,
            not_before,
        })
    }

    /// Determines when a call runs that is accepted at this time. Rejects a delay that its queue
    /// does not accept.
    pub fn scheduled(self, now: Timestamp, route: &QueueRoute) -> Result<Self, SubmissionError> {
        let Some(delay) = self.delay else { return Ok(self) };
        let not_before = delay
            .not_before(now, route.delay)
            .map_err(|error| SubmissionError::Delay { queue: route.queue.clone(), error })?;
        Ok(Self { not_before, ..self })
    }

    /// Rejects a call with more than `max` calls before it in its chain.
    pub fn check_depth(&self, max: u32) -> Result<(), SubmissionError> {
        if self.depth > max {
            Err(SubmissionError::ChainTooDeep { depth: self.depth, max })
        } else {
            Ok(())
        }
    }

    /// Rejects a call whose result its queue does not keep for as long as the client asks.
    pub fn check_keep_result(&self, settings: &ResultsSettings) -> Result<(), SubmissionError> {
        let Some(retention) = self.keep_result else { return Ok(()) };
        settings.check(retention).map_err(|error| SubmissionError::KeepResult {
            value: GoDuration(retention).to_string(),
            rule: error.to_string(),
        })
    }

    /// Has the result kept for a client that waits for it, unless it is kept for longer anyway.
    #[must_use]
    pub fn with_result_kept(self, settings: &ResultsSettings) -> Self {
        let least = WAIT_RETENTION.min(settings.max_retention.0);
        let is_longer = settings.retention_of(None).is_some_and(|retention| retention >= least);
        if self.keep_result.is_some() || is_longer {
            return self;
        }
        Self { keep_result: Some(least), ..self }
    }

    /// Replaces the function's name with the spelling that the directory has.
    #[must_use]
    pub fn resolved(self, directory: &Directory) -> Self {
        Self { function: directory.resolve(self.function), ..self }
    }

    /// Returns the function to call.
    #[must_use]
    pub fn function(&self) -> &FunctionName {
        &self.function
    }

    /// Rejects a call that could not become a dead letter, even without its headers and its body:
    /// path, query and callback URL together may have at most `limit` bytes.
    pub fn check_dead_letter(&self, limit: usize) -> Result<(), SubmissionError> {
        let url = self.callback_url.as_ref().map_or(0, |url| url.as_url().as_str().len());
        let bytes = self.path.len() + self.query.as_ref().map_or(0, String::len) + url;
        if bytes <= limit { Ok(()) } else { Err(SubmissionError::TooLargeForDeadLetter { limit }) }
    }

    /// Returns the invocation to store, with the headers as the client sent them. Headers are added
    /// for the function: the call's id and the time of its acceptance. Those of the connection are
    /// removed.
    #[must_use]
    pub fn into_invocation(
        self,
        call_id: CallId,
        submitted_at: Timestamp,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Invocation {
        let Self {
            function,
            written_name,
            path,
            query,
            callback_url,
            keep_result,
            depth,
            not_before,
            ..
        } = self;
        strip_connection_headers(&mut headers);
        for name in DELAY_HEADERS {
            headers.remove(name);
        }
        // The depth is stored separately: the function gets the depth of its own call.
        headers.remove(X_ASYNC_DEPTH);
        // The worker sends another request: chains of calls are limited by their depth.
        headers.remove(header::VIA);
        if let Ok(value) = HeaderValue::from_str(call_id.as_str()) {
            headers.insert(X_CALL_ID, value);
        }
        headers.append(X_START_TIME, start_time(submitted_at));
        Invocation {
            call_id,
            written_name: written_name.filter(|written| *written != function.to_string()),
            function,
            method: Method::POST,
            path,
            query,
            headers,
            callback_url,
            keep_result,
            depth,
            batch: None,
            retry: RetryOverrides::default(),
            submitted_at,
            not_before,
            body,
        }
    }
}

/// Parses the function's name in a path.
pub fn function_name(text: &str, namespace: &str) -> Result<FunctionName, SubmissionError> {
    if text.is_empty() {
        return Err(SubmissionError::NoFunction);
    }
    Ok(FunctionName::parse(&shorten(text), namespace)?)
}

/// Returns the client's own call id, if it sent one.
pub fn client_call_id(headers: &HeaderMap) -> Result<Option<CallId>, SubmissionError> {
    let id = single(headers, &X_CALL_ID, "X-Call-Id")?;
    id.map(|id| call_id("X-Call-Id", id)).transpose()
}

/// Returns the client's own batch id, if it sent one.
pub fn client_batch_id(headers: &HeaderMap) -> Result<Option<CallId>, SubmissionError> {
    let id = single(headers, &X_BATCH_ID, "X-Batch-Id")?;
    id.map(|id| call_id("X-Batch-Id", id)).transpose()
}

/// Returns the client's idempotency key, if it sent one.
pub fn client_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, SubmissionError> {
    let Some(value) = single_or_empty(headers, &IDEMPOTENCY_KEY, "Idempotency-Key")? else {
        return Ok(None);
    };
    let key = value
        .parse()
        .map_err(|error| SubmissionError::IdempotencyKey { value: shorten(value), error })?;
    Ok(Some(key))
}

/// Formats a time as the value of `X-Start-Time`.
#[must_use]
pub fn start_time(at: Timestamp) -> HeaderValue {
    // Sufficient until the year 2262.
    HeaderValue::from(i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX))
}

/// Returns the client's callback URL, if it sent one.
pub fn callback_url(headers: &HeaderMap) -> Result<Option<CallbackUrl>, SubmissionError> {
    let Some(value) = single(headers, &X_CALLBACK_URL, "X-Callback-Url")? else { return Ok(None) };
    match CallbackUrl::parse(value) {
        Ok(url) => Ok(Some(url)),
        Err(error) => Err(SubmissionError::CallbackUrl { value: shorten(value), error }),
    }
}

fn keep_result(headers: &HeaderMap) -> Result<Option<Duration>, SubmissionError> {
    let Some(value) = single(headers, &X_KEEP_RESULT, "X-Keep-Result")? else { return Ok(None) };
    let retention = value.parse::<GoDuration>().map_err(|_| SubmissionError::KeepResult {
        value: shorten(value),
        rule: "write a duration as 90s, 15m or 1h30m".to_owned(),
    });
    retention.map(|retention| Some(retention.0))
}

/// Returns how many calls came before the request in its chain.
pub fn depth(headers: &HeaderMap) -> Result<u32, SubmissionError> {
    let Some(value) = single(headers, &X_ASYNC_DEPTH, "X-Async-Depth")? else { return Ok(0) };
    read_depth(value).ok_or_else(|| SubmissionError::InvalidDepth { value: shorten(value) })
}

/// Rejects a `%` without two hex digits: no HTTP client could send it to the function.
fn check_escapes(path: &str) -> Result<(), SubmissionError> {
    for (at, _) in path.match_indices('%') {
        let escape: String = path[at..].chars().take(3).collect();
        if escape.len() != 3 || !escape[1..].bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(SubmissionError::InvalidEscape { escape });
        }
    }
    Ok(())
}

/// Rejects a target that could not be stored, or not be called later.
fn check_target(path: &str, query: Option<&str>) -> Result<(), SubmissionError> {
    let query = query.unwrap_or_default();
    if path.len() + query.len() > MAX_TARGET {
        return Err(SubmissionError::TargetTooLong);
    }
    // ASCII white space ends the target in a request line. Other white space is lost at the end of
    // a NATS header.
    match path.chars().chain(query.chars()).find(|c| c.is_whitespace()) {
        Some(space) => Err(SubmissionError::UnescapedWhitespace { space }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, request::Parts};
    use proptest::prelude::*;

    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// Returns the function's name and what follows it.
    fn name_and_path(path: &str) -> (&str, &str) {
        let path = path.strip_prefix("/async-function/").unwrap();
        path.split_at(path.find('/').unwrap_or(path.len()))
    }

    fn parse(target: &str, headers: &[(&str, &str)]) -> Result<Submission, SubmissionError> {
        let head = head(target, headers);
        let (name, path) = name_and_path(head.uri.path());
        Submission::parse(name, path, head.uri.query(), &head.headers, "openfaas-fn")
    }

    fn invocation(target: &str, headers: &[(&str, &str)]) -> Invocation {
        let at = "2026-11-24T10:11:12.123456789Z".parse().unwrap();
        let submission = parse(target, headers).unwrap();
        let head = head(target, headers);
        submission.into_invocation("id-1".parse().unwrap(), at, head.headers, "body".into())
    }

    #[test]
    fn path_and_query_are_stored_byte_for_byte() {
        let call = invocation("/async-function/figlet//a/../%2F%3f;x?y=%zz&&z", &[]);
        assert_eq!(call.function.to_string(), "figlet.openfaas-fn");
        assert_eq!(call.path, "//a/../%2F%3f;x");
        assert_eq!(call.query.as_deref(), Some("y=%zz&&z"));
        let call = invocation("/async-function/figlet.dev", &[]);
        assert_eq!(call.function.to_string(), "figlet.dev");
        assert_eq!((call.path.as_str(), call.query), ("", None));
        assert_eq!(invocation("/async-function/figlet?", &[]).query.as_deref(), Some(""));
    }

    #[test]
    fn headers_of_the_call_are_stored_without_hop_by_hop_ones() {
        let call = invocation(
            "/async-function/figlet",
            &[
                ("connection", "x-private"),
                ("x-private", "1"),
                ("host", "gateway"),
                ("authorization", "Bearer t"),
                ("via", "1.1 asyncqueue-gateway"),
                ("x-call-id", "of-the-client"),
                ("x-start-time", "1"),
                ("x-delay", "90s"),
                ("async-not-before", "2036-01-01T00:00:00Z"),
            ],
        );
        let values = |name| {
            call.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(values("x-call-id"), ["id-1"]);
        assert_eq!(values("x-start-time"), ["1", "1795515072123456789"]);
        assert_eq!(values("authorization"), ["Bearer t"]);
        assert_eq!(call.headers.keys_len(), 4);
        assert_eq!(call.not_before, None);
    }

    #[test]
    fn error_names_the_invalid_value() {
        let long = "x".repeat(1000);
        for (target, headers, expected) in [
            ("/async-function/", &[][..], "missing function name"),
            ("/async-function/a.b.c", &[], "function name `a.b`"),
            ("/async-function/figlet%2Fx", &[], "function name `figlet%2Fx`"),
            (&format!("/async-function/{long}"), &[], "function name `xxx"),
            ("/async-function/figlet/100%", &[], "`%`"),
            ("/async-function/figlet/%zz", &[], "`%zz`"),
            ("/async-function/figlet/%2", &[], "`%2`"),
            ("/async-function/figlet/%2ü", &[], "`%2ü`"),
            ("/async-function/figlet/a\u{a0}", &[], "U+00A0"),
            ("/async-function/figlet?\u{3000}a", &[], "U+3000"),
            (&format!("/async-function/figlet?{}", "x".repeat(62_000)), &[], "61440 bytes"),
            ("/async-function/figlet", &[("x-callback-url", "ftp://h/p")], "`ftp://h/p`"),
            (
                "/async-function/figlet",
                &[("x-callback-url", "http://h"), ("x-callback-url", "")],
                "more than once",
            ),
            ("/async-function/figlet", &[("x-keep-result", "1")], "X-Keep-Result `1`"),
            (
                "/async-function/figlet",
                &[("x-keep-result", "1m"), ("x-keep-result", "1m")],
                "more than once",
            ),
            ("/async-function/figlet", &[("x-async-depth", "-1")], "X-Async-Depth `-1`"),
            (
                "/async-function/figlet",
                &[("x-async-depth", "1"), ("x-async-depth", "1")],
                "more than once",
            ),
        ] {
            let error = parse(target, headers).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(expected), "{text}");
            assert!(text.len() < 400, "{text}");
            let status = match &text {
                text if text.starts_with("missing function") => 404,
                text if text.contains("longer than") => 414,
                _ => 400,
            };
            assert_eq!(error.status(), status, "{text}");
        }
    }

    #[test]
    fn result_is_kept_for_as_long_as_the_queue_permits() {
        let settings = ResultsSettings::default();
        for (value, is_permitted) in [("1h", true), ("24h", true), ("24h1s", false), ("0s", false)]
        {
            let submission = parse("/async-function/f", &[("x-keep-result", value)]).unwrap();
            let checked = submission.check_keep_result(&settings);
            assert_eq!(checked.is_ok(), is_permitted, "{value}");
            if let Err(error) = checked {
                assert_eq!(error.status(), 400);
                let text = error.to_string();
                assert!(text.contains(value) && text.contains("24h"), "{text}");
            }
        }
        let call = invocation("/async-function/f", &[("x-keep-result", "90s")]);
        assert_eq!(call.keep_result, Some(Duration::from_secs(90)));
    }

    #[test]
    fn client_may_send_one_call_id() {
        let id = |headers: &[(&str, &str)]| client_call_id(&head("/", headers).headers);
        assert_eq!(id(&[]).unwrap(), None);
        assert_eq!(id(&[("x-call-id", "")]).unwrap(), None);
        assert_eq!(id(&[("x-call-id", "a_B-9")]).unwrap().unwrap().as_str(), "a_B-9");
        assert!(matches!(
            id(&[("x-call-id", "a"), ("x-call-id", "a")]),
            Err(SubmissionError::RepeatedHeader(_))
        ));
        for bad in ["a.b", "a b", "ü", &"x".repeat(129), &"x".repeat(5000)] {
            let error = id(&[("x-call-id", bad)]).unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(error.to_string().len() < 400, "{error}");
        }
    }

    #[test]
    fn client_may_send_one_key() {
        let key = |headers: &[(&str, &str)]| client_key(&head("/", headers).headers);
        assert_eq!(key(&[]).unwrap(), None);
        for value in ["order-7", "\"order-7\""] {
            assert_eq!(key(&[("idempotency-key", value)]).unwrap().unwrap().as_str(), "order-7");
        }
        let twice = key(&[("idempotency-key", "a"), ("idempotency-key", "a")]);
        assert!(matches!(twice, Err(SubmissionError::RepeatedHeader(_))));
        for bad in ["", "\"a", &"x".repeat(256), &"x".repeat(5000)] {
            let error = key(&[("idempotency-key", bad)]).unwrap_err();
            assert_eq!(error.status(), 400, "{bad}");
            assert!(error.to_string().len() < 400, "{error}");
        }
    }

    #[test]
    fn depth_is_stored_apart_from_headers_and_bounded() {
        let call = invocation("/async-function/figlet", &[("x-async-depth", "7")]);
        assert_eq!((call.depth, call.headers.contains_key("x-async-depth")), (7, false));
        assert_eq!(invocation("/async-function/figlet", &[]).depth, 0);
        let submission = parse("/async-function/figlet", &[("x-async-depth", "7")]).unwrap();
        assert!(submission.check_depth(7).is_ok());
        let error = submission.check_depth(6).unwrap_err();
        assert_eq!(error.status(), 508);
        assert!(
            error.to_string().contains("7 calls came before") && error.to_string().contains('6')
        );
    }

    #[test]
    fn empty_callback_url_counts_as_absent() {
        assert_eq!(invocation("/async-function/f", &[("x-callback-url", "")]).callback_url, None);
        let call = invocation("/async-function/f", &[("x-callback-url", "http://u:p@h/cb?q")]);
        assert_eq!(call.callback_url.unwrap().as_url().as_str(), "http://u:p@h/cb?q");
    }

    proptest! {
        #[test]
        fn message_preserves_path_and_query(
            path in "(/[!-~]{0,20}){0,3}",
            query in "[!-~]{0,20}",
        ) {
            prop_assume!(!path.contains(['?', '#']) && !query.contains('#'));
            let target = format!("/async-function/f{path}?{query}");
            let Ok(request) = Request::post(&target).body(()) else { return Ok(()) };
            let head = request.into_parts().0;
            let (name, rest) = name_and_path(head.uri.path());
            let query_sent = head.uri.query();
            let parsed = Submission::parse(name, rest, query_sent, &head.headers, "ns");
            let Ok(submission) = parsed else { return Ok(()) };
            let at = Timestamp::UNIX_EPOCH;
            let id = "id".parse().unwrap();
            let call = submission.into_invocation(id, at, head.headers, Bytes::new());
            prop_assert_eq!(&call.path, &path);
            prop_assert_eq!(call.query.as_deref(), Some(query.as_str()));
            let message = crate::message::native::encode(&call);
            let decoded = crate::message::native::decode(&message, Bytes::new()).unwrap();
            prop_assert_eq!(decoded, call);
        }
    }
}
