//! Builds the responses that the gateway itself gives.

use asyncqueue::{CallId, call::CallStatus, cancel::CancelCounts, submit::SubmitOutcome};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    passed_on::PassedOn,
    proxy::AnswerBody,
    refusal::Refusal,
    submission::{X_CALL_ID, X_START_TIME, start_time},
    target::Receiver,
};

/// Header that says that a call with this id was stored before, and is not stored again.
pub const X_CALL_DUPLICATE: HeaderName = HeaderName::from_static("x-call-duplicate");

/// Header that says that the platform failed and not the function. The workers of OpenFaaS, and
/// ours, then do not count the attempt.
pub const X_OPENFAAS_INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

/// A response, from this gateway or passed on.
pub type Answer = Response<Either<Full<Bytes>, PassedOn<AnswerBody>>>;

/// What a response says about the call besides its outcome.
#[derive(Clone, Debug)]
pub struct About {
    /// The call's id, once it is known.
    pub call_id: Option<CallId>,
    /// When the request arrived.
    pub started_at: Timestamp,
    /// Whether the client reads errors as JSON.
    pub as_json: bool,
}

/// The numbers of calls in the response to a cancellation.
#[derive(Debug, Serialize)]
struct Counts {
    cancelled: u64,
    /// Calls that had already ended in another way.
    ended: u64,
}

/// A refusal as JSON, as RFC 9457 defines it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    /// The kind of refusal, one of a fixed set of words.
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<&'a str>,
}

/// Returns whether a client asks for JSON: `Accept` names a form of it, and not only `*/*`.
#[must_use]
pub fn asks_for_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let form = parts.next().unwrap_or_default().to_ascii_lowercase();
        let never = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        matches!(&form[..], "application/json" | "application/problem+json") && !never
    })
}

/// Builds the response for a call that is stored: 202 without a body.
#[must_use]
pub fn accepted(about: &About, submitted: &SubmitOutcome) -> Answer {
    let mut answer = answer(StatusCode::ACCEPTED, Bytes::new(), about);
    if matches!(submitted, SubmitOutcome::Duplicate { .. }) {
        answer.headers_mut().insert(X_CALL_DUPLICATE, HeaderValue::from_static("true"));
    }
    answer
}

/// Builds the response for cancelled calls, which do not start any more: 202, with their number as
/// JSON.
#[must_use]
pub fn cancelled(about: &About, tally: &CancelCounts) -> Answer {
    let counts = Counts { cancelled: tally.cancelled, ended: tally.ended };
    let mut answer = answer(StatusCode::ACCEPTED, json(&counts), about);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Builds the response that says where a call is, as JSON.
#[must_use]
pub fn status(about: &About, status: &CallStatus) -> Answer {
    let mut answer = answer(StatusCode::OK, json(status), about);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // The status may change at any moment.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Builds the response for a refused request. It says why, and what to do: in one line of text, or
/// as JSON for a client that asks for it.
#[must_use]
pub fn refused(about: &About, refusal: &Refusal) -> Answer {
    let (content_type, body) = if about.as_json {
        ("application/problem+json", json(&Problem::of(about, refusal)))
    } else {
        ("text/plain; charset=utf-8", Bytes::from(format!("{refusal}\n")))
    };
    let mut answer = answer(refusal.status(), body, about);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // The text repeats what the client sent: browsers must not interpret it as a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(after) = refusal.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    match refusal {
        Refusal::MethodNotAllowed { allow, .. } => {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        // An unreachable function counts as failed, like one that answers with an error: the
        // attempt counts.
        Refusal::Unreachable { target: Receiver::Upstream, .. } => {
            headers.insert(X_OPENFAAS_INTERNAL, HeaderValue::from_static("asyncqueue-gateway"));
        }
        _ => {}
    }
    answer
}

/// Adds the headers that describe the call.
pub fn describe(headers: &mut HeaderMap, about: &About) {
    if let Some(value) =
        about.call_id.as_ref().and_then(|id| HeaderValue::from_str(id.as_str()).ok())
    {
        headers.insert(X_CALL_ID, value);
    }
    headers.insert(X_START_TIME, start_time(about.started_at));
}

/// Encodes a value as JSON. All values here have only strings as keys, so this does not fail.
fn json(value: &impl Serialize) -> Bytes {
    let mut json = serde_json::to_vec(value).unwrap_or_default();
    json.push(b'\n');
    json.into()
}

// === impl Problem ===

impl<'a> Problem<'a> {
    fn of(about: &'a About, refusal: &Refusal) -> Self {
        let status = refusal.status();
        Self {
            // No page says more about it than the detail.
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: refusal.to_string(),
            code: refusal.category(),
            call_id: about.call_id.as_ref().map(CallId::as_str),
        }
    }
}

fn answer(status: StatusCode, body: Bytes, about: &About) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body)));
    *answer.status_mut() = status;
    describe(answer.headers_mut(), about);
    answer
}

#[cfg(test)]
mod tests {
    use asyncqueue::{FunctionName, submit::SubmitError};
    use http::Method;
    use http_body_util::BodyExt;

    use super::*;

    fn about(id: Option<&str>) -> About {
        About {
            call_id: id.map(|id| id.parse().unwrap()),
            started_at: "2026-11-24T10:11:12.123456789Z".parse().unwrap(),
            as_json: false,
        }
    }

    async fn text(answer: Answer) -> String {
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_accepted_call_is_answered_with_its_id_and_nothing_else() {
        let answer = accepted(&about(Some("id-1")), &SubmitOutcome::Stored);
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.headers()["x-call-id"], "id-1");
        assert_eq!(answer.headers()["x-start-time"], "1795515072123456789");
        assert_eq!(answer.headers().len(), 2);
        assert_eq!(text(answer).await, "");
    }

    #[test]
    fn a_call_that_was_stored_before_is_accepted_and_said_to_be() {
        let of = "id-1".parse().unwrap();
        let answer = accepted(&about(Some("id-1")), &SubmitOutcome::Duplicate { of });
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.headers()["x-call-duplicate"], "true");
    }

    #[tokio::test]
    async fn a_refusal_is_a_line_of_text_with_the_calls_id() {
        let answer = refused(&about(Some("id-1")), &Refusal::NotFound);
        assert_eq!(answer.status(), 404);
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.headers()["x-call-id"], "id-1");
        let text = text(answer).await;
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
    }

    #[tokio::test]
    async fn a_refusal_is_a_problem_for_who_reads_json() {
        let about = About { as_json: true, ..about(Some("id-1")) };
        let answer = refused(&about, &Refusal::NotFound);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_str(&text(answer).await).unwrap();
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["title"], "Not Found");
        assert_eq!(problem["status"], 404);
        assert_eq!(problem["detail"], Refusal::NotFound.to_string());
        assert_eq!((&problem["code"], &problem["callId"]), (&"not_found".into(), &"id-1".into()));
    }

    #[test]
    fn json_is_for_who_names_it() {
        let asks = |values: &[&str]| {
            let values = values.iter().map(|value| (header::ACCEPT, value.parse().unwrap()));
            asks_for_json(&values.collect())
        };
        for yes in ["application/json", "text/html, Application/Problem+JSON; q=0.5"] {
            assert!(asks(&[yes]), "{yes}");
        }
        assert!(asks(&["text/plain", "application/json"]));
        for no in [
            "*/*",
            "application/*",
            "text/plain",
            "application/json;q=0",
            "application/json-seq",
            "",
        ] {
            assert!(!asks(&[no]), "{no}");
        }
        assert!(!asks(&[]));
    }

    #[test]
    fn a_refusal_says_when_to_try_again_and_what_is_allowed() {
        let queue: asyncqueue::QueueName = "q".parse().unwrap();
        for (error, status, retry) in [
            (SubmitError::TooLarge { limit: 9 }, 413, false),
            (SubmitError::QueueFull { reason: "full".to_owned() }, 429, true),
            (SubmitError::KeyReused { key: "key-1".parse().unwrap() }, 422, false),
            (SubmitError::NoStream, 503, true),
            (SubmitError::Unavailable { reason: "away".to_owned() }, 503, true),
        ] {
            let answer = refused(&about(None), &Refusal::Submit { queue: queue.clone(), error });
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers().contains_key("retry-after"), retry);
            assert!(!answer.headers().contains_key("x-call-id"));
        }
        let refusal = Refusal::MethodNotAllowed { method: Method::GET, allow: "POST" };
        assert_eq!(refused(&about(None), &refusal).headers()["allow"], "POST");
    }

    #[test]
    fn only_an_upstream_that_is_away_is_the_platforms_failure() {
        let function = || Receiver::Function(FunctionName::new("f", "ns").unwrap());
        let unreachable = |target| Refusal::Unreachable { target, reason: "refused".to_owned() };
        let broken = |target| Refusal::NoAnswer { target, reason: "reset".to_owned() };
        for (refusal, internal) in [
            (unreachable(Receiver::Upstream), true),
            (unreachable(function()), false),
            (broken(Receiver::Upstream), false),
            (broken(function()), false),
        ] {
            let answer = refused(&about(None), &refusal);
            assert_eq!(answer.status(), 502);
            assert_eq!(answer.headers().contains_key("x-openfaas-internal"), internal);
        }
    }
}
