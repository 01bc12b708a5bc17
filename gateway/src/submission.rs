//! A submission: a request to call a function later. Converts its head into the invocation that is
//! stored.

use asyncqueue::{
    CallId, CallbackUrl, FunctionName, IdempotencyKey, Invocation,
    directory::Directory,
    hop_by_hop::strip_connection_headers,
    idempotency::IDEMPOTENCY_KEY,
    invocation::{MAX_TARGET, X_ASYNC_DEPTH, read_depth},
    retry::RetryOverrides,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;

use crate::{forwarded::Forwarded, refusal::Refusal, resource::Call};

/// Header with the call's id, from the client or generated here.
pub const X_CALL_ID: HeaderName = HeaderName::from_static("x-call-id");
/// Header with the URL to which the result is sent.
pub const X_CALLBACK_URL: HeaderName = HeaderName::from_static("x-callback-url");
/// Header with the time at which the gateway accepted the call, in nanoseconds since 1970.
pub const X_START_TIME: HeaderName = HeaderName::from_static("x-start-time");

/// Maximum number of characters of a client's value that a response repeats. It exceeds the longest
/// valid value, so that shortening never makes a value valid.
const SHOWN: usize = 160;

/// A request to call a function later, checked as far as its head allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    function: FunctionName,
    /// The function's name as the client wrote it, for the callback. `None` without a callback.
    written_name: Option<String>,
    path: String,
    query: Option<String>,
    callback_url: Option<CallbackUrl>,
    depth: u32,
}

// === impl Submission ===

impl Submission {
    /// Checks the head of a request. `namespace` is that of a function named without one.
    pub fn parse(
        call: Call<'_>,
        query: Option<&str>,
        headers: &HeaderMap,
        namespace: &str,
    ) -> Result<Self, Refusal> {
        let function = function_name(call.function, namespace)?;
        check_escapes(call.path)?;
        check_target(call.path, query)?;
        let callback_url = callback_url(headers)?;
        let depth = depth(headers)?;
        let (path, query) = (call.path.to_owned(), query.map(str::to_owned));
        let written_name = callback_url.is_some().then(|| call.function.to_owned());
        Ok(Self { function, written_name, path, query, callback_url, depth })
    }

    /// Refuses a call with more than `max` calls before it in its chain.
    pub fn check_depth(&self, max: u32) -> Result<(), Refusal> {
        if self.depth > max {
            Err(Refusal::ChainTooDeep { depth: self.depth, max })
        } else {
            Ok(())
        }
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

    /// Refuses a call that could not become a dead letter, even without its headers and its body:
    /// path, query and callback URL together may have at most `limit` bytes.
    pub fn check_dead_letter(&self, limit: usize) -> Result<(), Refusal> {
        let url = self.callback_url.as_ref().map_or(0, |url| url.as_url().as_str().len());
        let bytes = self.path.len() + self.query.as_ref().map_or(0, String::len) + url;
        if bytes <= limit { Ok(()) } else { Err(Refusal::TooLargeForDeadLetter { limit }) }
    }

    /// Returns the invocation to store, with the headers as the client sent them. Headers are added
    /// for the function: the call's id, the time of its acceptance and the origin of the request.
    /// Those of the connection are removed.
    #[must_use]
    pub fn into_invocation(
        self,
        call_id: CallId,
        submitted_at: Timestamp,
        mut headers: HeaderMap,
        forwarded: Forwarded,
        body: Bytes,
    ) -> Invocation {
        let Self { function, written_name, path, query, callback_url, depth } = self;
        strip_connection_headers(&mut headers);
        // The depth is stored separately: the function gets the depth of its own call.
        headers.remove(X_ASYNC_DEPTH);
        // The worker sends another request: chains of calls are limited by their depth.
        headers.remove(header::VIA);
        forwarded.add_to(&mut headers);
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
            depth,
            retry: RetryOverrides::default(),
            submitted_at,
            body,
        }
    }
}

/// Parses the function's name in a path.
pub fn function_name(text: &str, namespace: &str) -> Result<FunctionName, Refusal> {
    if text.is_empty() {
        return Err(Refusal::NoFunction);
    }
    Ok(FunctionName::parse(&shorten(text), namespace)?)
}

/// Returns the client's own call id, if it sent one.
pub fn client_call_id(headers: &HeaderMap) -> Result<Option<CallId>, Refusal> {
    let id = single(headers, &X_CALL_ID, "X-Call-Id")?;
    id.map(|id| call_id("X-Call-Id", id)).transpose()
}

/// Returns the client's idempotency key, if it sent one.
pub fn client_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Refusal> {
    let Some(value) = single_or_empty(headers, &IDEMPOTENCY_KEY, "Idempotency-Key")? else {
        return Ok(None);
    };
    let key =
        value.parse().map_err(|error| Refusal::IdempotencyKey { value: shorten(value), error })?;
    Ok(Some(key))
}

/// Parses a call id. `field` says where it was found.
pub fn call_id(field: &'static str, text: &str) -> Result<CallId, Refusal> {
    shorten(text).parse().map_err(|error| Refusal::CallId { field, error })
}

/// Formats a time as the value of `X-Start-Time`.
#[must_use]
pub fn start_time(at: Timestamp) -> HeaderValue {
    // Sufficient until the year 2262.
    HeaderValue::from(i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX))
}

fn callback_url(headers: &HeaderMap) -> Result<Option<CallbackUrl>, Refusal> {
    let Some(value) = single(headers, &X_CALLBACK_URL, "X-Callback-Url")? else { return Ok(None) };
    match CallbackUrl::parse(value) {
        Ok(url) => Ok(Some(url)),
        Err(error) => Err(Refusal::CallbackUrl { value: shorten(value), error }),
    }
}

fn depth(headers: &HeaderMap) -> Result<u32, Refusal> {
    let Some(value) = single(headers, &X_ASYNC_DEPTH, "X-Async-Depth")? else { return Ok(0) };
    read_depth(value).ok_or_else(|| Refusal::Depth { value: shorten(value) })
}

/// Returns the value of a header that may occur at most once. An empty value counts as absent.
fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'a str>, Refusal> {
    Ok(single_or_empty(headers, name, shown)?.filter(|text| !text.is_empty()))
}

/// Returns the value of a header that may occur at most once.
fn single_or_empty<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::RepeatedHeader(shown));
    }
    str::from_utf8(value.as_bytes()).map(Some).map_err(|_| Refusal::HeaderNotText(shown))
}

/// Refuses a `%` without two hex digits: no HTTP client could send it to the function.
fn check_escapes(path: &str) -> Result<(), Refusal> {
    for (at, _) in path.match_indices('%') {
        let escape: String = path[at..].chars().take(3).collect();
        if escape.len() != 3 || !escape[1..].bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Refusal::PathEscape { escape });
        }
    }
    Ok(())
}

/// Refuses a target that could not be stored, or not be called later.
fn check_target(path: &str, query: Option<&str>) -> Result<(), Refusal> {
    let query = query.unwrap_or_default();
    if path.len() + query.len() > MAX_TARGET {
        return Err(Refusal::TargetTooLong);
    }
    // ASCII white space ends the target in a request line. Other white space is lost at the end of
    // a NATS header.
    match path.chars().chain(query.chars()).find(|c| c.is_whitespace()) {
        Some(space) => Err(Refusal::WhiteSpace { space }),
        None => Ok(()),
    }
}

/// Shortens a client's value to what a response repeats.
fn shorten(text: &str) -> String {
    if text.len() <= SHOWN {
        text.to_owned()
    } else {
        text.chars().take(SHOWN).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::{Request, request::Parts};
    use proptest::prelude::*;

    use super::*;
    use crate::resource::Resource;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn parse(target: &str, headers: &[(&str, &str)]) -> Result<Submission, Refusal> {
        let head = head(target, headers);
        let Resource::Queue(call) = Resource::of(head.uri.path()) else { panic!("{target}") };
        Submission::parse(call, head.uri.query(), &head.headers, "openfaas-fn")
    }

    fn invocation(target: &str, headers: &[(&str, &str)]) -> Invocation {
        let at = "2026-11-24T10:11:12.123456789Z".parse().unwrap();
        let submission = parse(target, headers).unwrap();
        let head = head(target, headers);
        let forwarded = Forwarded::of(&head, Ipv4Addr::LOCALHOST.into());
        submission.into_invocation(
            "id-1".parse().unwrap(),
            at,
            head.headers,
            forwarded,
            "body".into(),
        )
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
    fn the_calls_headers_are_stored_with_its_id_and_time_and_those_of_the_connection_are_not() {
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
            ],
        );
        let values = |name| {
            call.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(values("x-call-id"), ["id-1"]);
        assert_eq!(values("x-start-time"), ["1", "1795515072123456789"]);
        assert_eq!(values("authorization"), ["Bearer t"]);
        assert_eq!(values("x-forwarded-host"), ["gateway"]);
        assert_eq!(values("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(values("x-forwarded-proto"), ["http"]);
        assert_eq!(call.headers.keys_len(), 6);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value() {
        let long = "x".repeat(1000);
        for (target, headers, expected) in [
            ("/async-function/", &[][..], "no function is named"),
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
            ("/async-function/figlet", &[("x-async-depth", "-1")], "X-Async-Depth `-1`"),
            (
                "/async-function/figlet",
                &[("x-async-depth", "1"), ("x-async-depth", "1")],
                "more than once",
            ),
        ] {
            let refusal = parse(target, headers).unwrap_err();
            let text = refusal.to_string();
            assert!(text.contains(expected), "{text}");
            assert!(text.len() < 400, "{text}");
            let status = match &text {
                text if text.starts_with("no function") => 404,
                text if text.contains("longer than") => 414,
                _ => 400,
            };
            assert_eq!(refusal.status(), status, "{text}");
        }
    }

    #[test]
    fn a_client_may_send_one_call_id() {
        let id = |headers: &[(&str, &str)]| client_call_id(&head("/", headers).headers);
        assert_eq!(id(&[]).unwrap(), None);
        assert_eq!(id(&[("x-call-id", "")]).unwrap(), None);
        assert_eq!(id(&[("x-call-id", "a_B-9")]).unwrap().unwrap().as_str(), "a_B-9");
        assert!(matches!(
            id(&[("x-call-id", "a"), ("x-call-id", "a")]),
            Err(Refusal::RepeatedHeader(_))
        ));
        for bad in ["a.b", "a b", "ü", &"x".repeat(129), &"x".repeat(5000)] {
            let refusal = id(&[("x-call-id", bad)]).unwrap_err();
            assert_eq!(refusal.status(), 400);
            assert!(refusal.to_string().len() < 400, "{refusal}");
        }
    }

    #[test]
    fn a_client_may_send_one_key() {
        let key = |headers: &[(&str, &str)]| client_key(&head("/", headers).headers);
        assert_eq!(key(&[]).unwrap(), None);
        for value in ["order-7", "\"order-7\""] {
            assert_eq!(key(&[("idempotency-key", value)]).unwrap().unwrap().as_str(), "order-7");
        }
        let twice = key(&[("idempotency-key", "a"), ("idempotency-key", "a")]);
        assert!(matches!(twice, Err(Refusal::RepeatedHeader(_))));
        for bad in ["", "\"a", &"x".repeat(256), &"x".repeat(5000)] {
            let refusal = key(&[("idempotency-key", bad)]).unwrap_err();
            assert_eq!(refusal.status(), 400, "{bad}");
            assert!(refusal.to_string().len() < 400, "{refusal}");
        }
    }

    #[test]
    fn depth_is_stored_apart_from_headers_and_bounded() {
        let call = invocation("/async-function/figlet", &[("x-async-depth", "7")]);
        assert_eq!((call.depth, call.headers.contains_key("x-async-depth")), (7, false));
        assert_eq!(invocation("/async-function/figlet", &[]).depth, 0);
        let submission = parse("/async-function/figlet", &[("x-async-depth", "7")]).unwrap();
        assert!(submission.check_depth(7).is_ok());
        let refusal = submission.check_depth(6).unwrap_err();
        assert_eq!(refusal.status(), 508);
        assert!(
            refusal.to_string().contains("7 calls came before")
                && refusal.to_string().contains('6')
        );
    }

    #[test]
    fn an_empty_callback_url_is_none() {
        assert_eq!(invocation("/async-function/f", &[("x-callback-url", "")]).callback_url, None);
        let call = invocation("/async-function/f", &[("x-callback-url", "http://u:p@h/cb?q")]);
        assert_eq!(call.callback_url.unwrap().as_url().as_str(), "http://u:p@h/cb?q");
    }

    proptest! {
        #[test]
        fn whatever_path_is_taken_reads_back_from_the_message(path in "(/[!-~]{0,20}){0,3}", query in "[!-~]{0,20}") {
            prop_assume!(!path.contains(['?', '#']) && !query.contains('#'));
            let target = format!("/async-function/f{path}?{query}");
            let Ok(request) = Request::post(&target).body(()) else { return Ok(()) };
            let head = request.into_parts().0;
            let Resource::Queue(call) = Resource::of(head.uri.path()) else { panic!("{target}") };
            let Ok(submission) = Submission::parse(call, head.uri.query(), &head.headers, "ns") else { return Ok(()) };
            let at = Timestamp::UNIX_EPOCH;
            let forwarded = Forwarded::of(&head, Ipv4Addr::LOCALHOST.into());
            let call = submission.into_invocation("id".parse().unwrap(), at, head.headers, forwarded, Bytes::new());
            prop_assert_eq!(&call.path, &path);
            prop_assert_eq!(call.query.as_deref(), Some(query.as_str()));
            let message = asyncqueue::message::native::encode(&call);
            prop_assert_eq!(asyncqueue::message::native::decode(&message, Bytes::new()).unwrap(), call);
        }
    }
}
