//! Builds the responses of the gateway itself.

use asyncqueue::{
    CallId,
    batch::BatchReport,
    call::CallStatus,
    cancel::{BatchCancelCounts, CancelCounts},
    headers::{
        X_BATCH_ID, X_CALL_DUPLICATE, X_CALL_ID, X_CALL_STATE, X_DURATION_SECONDS, X_FUNCTION_NAME,
        X_FUNCTION_STATUS, X_OPENFAAS_INTERNAL, X_RESULT_OMITTED, X_START_TIME,
    },
    message::kept_result::KeptResult,
    submission::start_time,
    submit::{BatchOutcome, SubmitError, SubmitOutcome},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use serde::Serialize;

use crate::{
    base_url::ProxyTarget,
    context::RequestContext,
    proxy::UpstreamBody,
    proxy_body::ProxyBody,
    rejection::{CATEGORIES, Rejection},
};

/// A response, from this gateway or passed on.
pub(crate) type GatewayResponse = Response<Either<Full<Bytes>, ProxyBody<UpstreamBody>>>;

/// Names the preferences that were honoured (RFC 7240, 3).
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Seconds after which a client may ask again for a result that is not there yet.
const RETRY_AFTER_PENDING: HeaderValue = HeaderValue::from_static("1");

/// The numbers of calls in the response to a cancellation.
#[derive(Debug, Serialize)]
struct Counts {
    cancelled: u64,
    /// Calls that had already ended in another way.
    ended: u64,
}

/// A rejection as JSON (RFC 9457).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    /// The category of the rejection: one of a fixed set.
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<&'a str>,
}

/// Builds the response for a call that is stored: 202 without a body.
#[must_use]
pub(crate) fn accepted(context: &RequestContext, submitted: &SubmitOutcome) -> GatewayResponse {
    let mut response = new_response(StatusCode::ACCEPTED, Bytes::new(), context);
    if matches!(submitted, SubmitOutcome::Duplicate { .. }) {
        response.headers_mut().insert(X_CALL_DUPLICATE, HeaderValue::from_static("true"));
    }
    response
}

/// Builds the response for cancelled calls, which do not start any more: 202, with their number as
/// JSON.
#[must_use]
pub(crate) fn cancelled(context: &RequestContext, tally: &CancelCounts) -> GatewayResponse {
    let counts = Counts { cancelled: tally.cancelled, ended: tally.ended };
    let mut response = new_response(StatusCode::ACCEPTED, json(&counts), context);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The response to a batch that is stored.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StoredBatch<'a> {
    batch_id: &'a str,
    /// The ids of the calls, in the order of the lines.
    calls: &'a [String],
}

/// Builds the response for a batch that is stored: 202, with the ids of its calls as JSON.
#[must_use]
pub(crate) fn batch_accepted(context: &RequestContext, outcome: &BatchOutcome) -> GatewayResponse {
    let id = context.batch_id.as_ref().map_or("", |id| id.as_str());
    let stored = StoredBatch { batch_id: id, calls: &outcome.calls };
    let mut response = new_response(StatusCode::ACCEPTED, json(&stored), context);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(location) = HeaderValue::from_str(&format!("/async-batch/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    if outcome.is_duplicate {
        headers.insert(X_CALL_DUPLICATE, HeaderValue::from_static("true"));
    }
    response
}

/// Builds the response with the state of a batch, as JSON.
#[must_use]
pub(crate) fn batch(context: &RequestContext, report: &BatchReport) -> GatewayResponse {
    json_status(context, report)
}

/// Builds the response for the cancelled rest of a batch: 202, with the numbers of calls as JSON.
#[must_use]
pub(crate) fn batch_cancelled(
    context: &RequestContext,
    counts: BatchCancelCounts,
) -> GatewayResponse {
    let counts = Counts { cancelled: counts.cancelled, ended: counts.ended };
    let mut response = new_response(StatusCode::ACCEPTED, json(&counts), context);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Builds the response with the status of a call, as JSON.
#[must_use]
pub(crate) fn status(context: &RequestContext, status: &CallStatus) -> GatewayResponse {
    json_status(context, status)
}

fn json_status(context: &RequestContext, status: &impl Serialize) -> GatewayResponse {
    let mut response = new_response(StatusCode::OK, json(status), context);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // The status may change at any moment.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Builds the response with the result of a call: the headers and the body of the function's
/// response, with this status.
#[must_use]
pub(crate) fn result(
    context: &RequestContext,
    status: StatusCode,
    result: KeptResult,
) -> GatewayResponse {
    let KeptResult { end, function, status: of_function, duration, omitted, headers, body, .. } =
        result;
    let mut response = new_response(status, body, context);
    let own = response.headers_mut();
    let call_id = own.remove(X_CALL_ID);
    // The function's headers take the place of the gateway's own, except for those that describe
    // the call.
    let names: Vec<_> = headers.keys().cloned().collect();
    for name in &names {
        own.remove(name);
    }
    own.extend(headers);
    for name in [&X_RESULT_OMITTED, &X_CALL_ID] {
        own.remove(name);
    }
    let mut set = |name, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            own.insert(name, value);
        }
    };
    set(X_CALL_STATE, end.to_string());
    set(X_FUNCTION_NAME, function.to_string());
    set(X_FUNCTION_STATUS, of_function.to_string());
    set(X_DURATION_SECONDS, format!("{:.6}", duration.as_secs_f64()));
    if let Some(bytes) = omitted {
        set(X_RESULT_OMITTED, bytes.to_string());
    }
    if let Some(call_id) = call_id {
        own.insert(X_CALL_ID, call_id);
    }
    response
}

/// Builds the response for a client that has waited for the result of its call: the function's
/// status, headers and body.
#[must_use]
pub(crate) fn waited(context: &RequestContext, kept: KeptResult) -> GatewayResponse {
    // A status that is no status of HTTP can't be sent; the header has it.
    let status = StatusCode::from_u16(kept.status)
        .ok()
        .filter(|status| !status.is_informational())
        .unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = result(context, status, kept);
    response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static("wait"));
    response
}

/// Builds the response for a call whose client preferred to wait, and whose result is not there
/// yet: 202, with the path of the call's status.
#[must_use]
pub(crate) fn accepted_without_result(
    context: &RequestContext,
    submitted: &SubmitOutcome,
) -> GatewayResponse {
    let mut response = accepted(context, submitted);
    let path = context.call_id.as_ref().map(|id| format!("/async-function/{id}"));
    if let Some(path) = path.and_then(|path| HeaderValue::try_from(path).ok()) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    response
}

/// Builds the response for a result that is not there yet: 202, and when to ask again.
#[must_use]
pub(crate) fn result_pending(context: &RequestContext) -> GatewayResponse {
    let mut response = new_response(StatusCode::ACCEPTED, Bytes::new(), context);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, RETRY_AFTER_PENDING);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Builds the response for a rejected request. It contains the reason and the remedy: in one line
/// of text, or as JSON for a client that accepts it.
#[must_use]
pub(crate) fn problem_response(context: &RequestContext, rejection: &Rejection) -> GatewayResponse {
    debug_assert!(is_listed(rejection.category()), "CATEGORIES lacks {}", rejection.category());
    let (content_type, body) = if context.accepts_problem_json {
        ("application/problem+json", json(&Problem::new(context, rejection)))
    } else {
        ("text/plain; charset=utf-8", Bytes::from(format!("{rejection}\n")))
    };
    let mut response = new_response(rejection.status(), body, context);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // The text repeats what the client sent: browsers must not interpret it as a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(after) = rejection.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    match rejection {
        Rejection::MethodNotAllowed { allow, .. } => {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        // An unreachable function counts as failed, like one that answers with an error: the
        // attempt counts.
        Rejection::Unreachable { target: ProxyTarget::Upstream, .. } => {
            headers.insert(X_OPENFAAS_INTERNAL, HeaderValue::from_static("asyncqueue-gateway"));
        }
        _ => {}
    }
    response
}

/// Adds the headers that describe the call.
pub(crate) fn add_call_headers(headers: &mut HeaderMap, context: &RequestContext) {
    if let Some(value) =
        context.call_id.as_ref().and_then(|id| HeaderValue::from_str(id.as_str()).ok())
    {
        headers.insert(X_CALL_ID, value);
    }
    if let Some(value) =
        context.batch_id.as_ref().and_then(|id| HeaderValue::from_str(id.as_str()).ok())
    {
        headers.insert(X_BATCH_ID, value);
    }
    headers.insert(X_START_TIME, start_time(context.started_at));
}

/// Encodes a value as JSON. All values here have only strings as keys, so this does not fail.
fn json(value: &impl Serialize) -> Bytes {
    let mut json = serde_json::to_vec(value).unwrap_or_default();
    json.push(b'\n');
    json.into()
}

fn is_listed(category: &str) -> bool {
    CATEGORIES.iter().chain(&SubmitError::CATEGORIES).any(|listed| *listed == category)
}

// === impl Problem ===

impl<'a> Problem<'a> {
    fn new(context: &'a RequestContext, rejection: &Rejection) -> Self {
        let status = rejection.status();
        Self {
            // No page says more about it than the detail.
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: rejection.to_string(),
            code: rejection.category(),
            call_id: context.call_id.as_ref().map(CallId::as_str),
        }
    }
}

fn new_response(status: StatusCode, body: Bytes, context: &RequestContext) -> GatewayResponse {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    add_call_headers(response.headers_mut(), context);
    response
}

#[cfg(test)]
mod tests {
    use asyncqueue::{EndState, FunctionName, Invocation, submit::SubmitError};
    use http::Method;
    use http_body_util::BodyExt;

    use super::*;

    fn context(id: Option<&str>) -> RequestContext {
        RequestContext {
            call_id: id.map(|id| id.parse().unwrap()),
            batch_id: None,
            started_at: "2026-11-24T10:11:12.123456789Z".parse().unwrap(),
            accepts_problem_json: false,
        }
    }

    async fn text(response: GatewayResponse) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec())
            .unwrap()
    }

    #[tokio::test]
    async fn accepted_call_has_its_id_and_no_body() {
        let response = accepted(&context(Some("id-1")), &SubmitOutcome::Stored);
        assert_eq!(response.status(), 202);
        assert_eq!(response.headers()["x-call-id"], "id-1");
        assert_eq!(response.headers()["x-start-time"], "1795515072123456789");
        assert_eq!(response.headers().len(), 2);
        assert_eq!(text(response).await, "");
    }

    #[test]
    fn duplicate_call_is_accepted_and_marked() {
        let of = "id-1".parse().unwrap();
        let response = accepted(&context(Some("id-1")), &SubmitOutcome::Duplicate { of });
        assert_eq!(response.status(), 202);
        assert_eq!(response.headers()["x-call-duplicate"], "true");
    }

    #[tokio::test]
    async fn result_has_the_functions_headers_and_says_how_the_call_ended() {
        let function = FunctionName::new("figlet", "openfaas-fn").unwrap();
        let call = Invocation::new("id-1".parse().unwrap(), function, "");
        let own = [
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-start-time", "7"),
            ("x-call-id", "forged"),
            ("x-function-status", "999"),
            ("x-result-omitted", "1"),
        ];
        let mut kept = KeptResult::new(&call, 7, EndState::Done, 201);
        for (name, value) in own {
            kept.headers.append(name, HeaderValue::from_static(value));
        }
        kept.duration = std::time::Duration::from_millis(1_500);
        kept.body = Bytes::from_static(b"hi");
        let response = result(&context(Some("id-1")), StatusCode::OK, kept.clone());
        let headers = response.headers();
        let values = |name| {
            let values = headers.get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(values("set-cookie"), ["a=1", "b=2"]);
        for (name, value) in [
            ("x-start-time", "7"),
            ("x-call-id", "id-1"),
            ("x-call-state", "done"),
            ("x-function-status", "201"),
            ("x-function-name", "figlet.openfaas-fn"),
            ("x-duration-seconds", "1.500000"),
        ] {
            assert_eq!(values(name), [value], "{name}");
        }
        assert!(values("x-result-omitted").is_empty());
        assert_eq!(text(response).await, "hi");
        kept.omitted = Some(9);
        let response = result(&context(Some("id-1")), StatusCode::OK, kept);
        assert_eq!(response.headers()["x-result-omitted"], "9");
    }

    #[tokio::test]
    async fn rejection_is_a_line_of_text_with_the_call_id() {
        let response = problem_response(&context(Some("id-1")), &Rejection::NotFound);
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(response.headers()["x-call-id"], "id-1");
        let text = text(response).await;
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
    }

    #[tokio::test]
    async fn rejection_is_problem_json_if_accepted() {
        let context = RequestContext { accepts_problem_json: true, ..context(Some("id-1")) };
        let response = problem_response(&context, &Rejection::NotFound);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["title"], "Not Found");
        assert_eq!(problem["status"], 404);
        assert_eq!(problem["detail"], Rejection::NotFound.to_string());
        assert_eq!((&problem["code"], &problem["callId"]), (&"not_found".into(), &"id-1".into()));
    }

    #[test]
    fn rejection_has_retry_after_and_allow() {
        let queue: asyncqueue::QueueName = "q".parse().unwrap();
        for (error, status, retry) in [
            (SubmitError::TooLarge { limit: 9 }, 413, false),
            (SubmitError::QueueFull { reason: "full".to_owned() }, 429, true),
            (SubmitError::KeyReused { key: "key-1".parse().unwrap() }, 422, false),
            (SubmitError::NoStream, 503, true),
            (SubmitError::Unavailable { reason: "away".to_owned() }, 503, true),
        ] {
            let response = problem_response(
                &context(None),
                &Rejection::Submit { queue: queue.clone(), error },
            );
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key("retry-after"), retry);
            assert!(!response.headers().contains_key("x-call-id"));
        }
        let rejection = Rejection::MethodNotAllowed { method: Method::GET, allow: "POST" };
        assert_eq!(problem_response(&context(None), &rejection).headers()["allow"], "POST");
    }

    #[test]
    fn only_an_unreachable_upstream_is_a_platform_failure() {
        let function = || ProxyTarget::Function(FunctionName::new("f", "ns").unwrap());
        let unreachable = |target| Rejection::Unreachable { target, reason: "refused".to_owned() };
        let broken = |target| Rejection::UpstreamClosed { target, reason: "reset".to_owned() };
        for (rejection, internal) in [
            (unreachable(ProxyTarget::Upstream), true),
            (unreachable(function()), false),
            (broken(ProxyTarget::Upstream), false),
            (broken(function()), false),
        ] {
            let response = problem_response(&context(None), &rejection);
            assert_eq!(response.status(), 502);
            assert_eq!(response.headers().contains_key("x-openfaas-internal"), internal);
        }
    }
}
