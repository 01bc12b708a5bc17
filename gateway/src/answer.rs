//! The answers of the gateway itself.

use asyncqueue::{CallId, submit::Submitted};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use jiff::Timestamp;

use crate::{
    refusal::Refusal,
    submission::{X_CALL_ID, X_START_TIME, start_time},
};

/// Says that a call with this id was stored before, and not again.
pub const X_CALL_DUPLICATE: HeaderName = HeaderName::from_static("x-call-duplicate");

/// Says that the platform failed and not the function: OpenFaaS's workers, and ours, then do not count the
/// attempt.
pub const X_OPENFAAS_INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

/// An answer, from here or passed on.
pub type Answer = Response<Either<Full<Bytes>, Incoming>>;

/// What an answer says of the call besides its outcome.
#[derive(Clone, Debug)]
pub struct About {
    /// The call's id, once it is known.
    pub call_id: Option<CallId>,
    /// When the request came.
    pub started_at: Timestamp,
}

/// The call is stored: 202 without a body.
#[must_use]
pub fn accepted(about: &About, submitted: Submitted) -> Answer {
    let mut answer = answer(StatusCode::ACCEPTED, Bytes::new(), about);
    if submitted == Submitted::Duplicate {
        answer.headers_mut().insert(X_CALL_DUPLICATE, HeaderValue::from_static("true"));
    }
    answer
}

/// The request is refused: a line of text says why.
#[must_use]
pub fn refused(about: &About, refusal: &Refusal) -> Answer {
    let mut answer = answer(refusal.status(), Bytes::from(format!("{refusal}\n")), about);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // The text repeats what the client sent: let no browser take it for a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(after) = refusal.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    match refusal {
        Refusal::MethodNotAllowed { allow, .. } => {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        Refusal::Unreachable { .. } => {
            headers.insert(X_OPENFAAS_INTERNAL, HeaderValue::from_static("asyncqueue-gateway"));
        }
        _ => {}
    }
    answer
}

/// Adds what an answer says of the call.
pub fn describe(headers: &mut HeaderMap, about: &About) {
    if let Some(value) = about.call_id.as_ref().and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
        headers.insert(X_CALL_ID, value);
    }
    headers.insert(X_START_TIME, start_time(about.started_at));
}

fn answer(status: StatusCode, body: Bytes, about: &About) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body)));
    *answer.status_mut() = status;
    describe(answer.headers_mut(), about);
    answer
}

#[cfg(test)]
mod tests {
    use asyncqueue::submit::SubmitError;
    use http::Method;
    use http_body_util::BodyExt;

    use super::*;

    fn about(id: Option<&str>) -> About {
        About {
            call_id: id.map(|id| id.parse().unwrap()),
            started_at: "2026-11-24T10:11:12.123456789Z".parse().unwrap(),
        }
    }

    async fn text(answer: Answer) -> String {
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_accepted_call_is_answered_with_its_id_and_nothing_else() {
        let answer = accepted(&about(Some("id-1")), Submitted::Stored);
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.headers()["x-call-id"], "id-1");
        assert_eq!(answer.headers()["x-start-time"], "1795515072123456789");
        assert_eq!(answer.headers().len(), 2);
        assert_eq!(text(answer).await, "");
    }

    #[test]
    fn a_call_that_was_stored_before_is_accepted_and_said_to_be() {
        let answer = accepted(&about(Some("id-1")), Submitted::Duplicate);
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

    #[test]
    fn a_refusal_says_when_to_try_again_and_what_is_allowed() {
        let queue: asyncqueue::QueueName = "q".parse().unwrap();
        for (error, status, retry) in [
            (SubmitError::TooLarge { limit: 9 }, 413, false),
            (SubmitError::QueueFull { reason: "full".to_owned() }, 429, true),
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
    fn a_function_that_cannot_be_reached_is_the_platforms_failure_and_one_that_breaks_off_is_not() {
        let (target, reason) = ("function `f.ns`".to_owned(), "refused".to_owned());
        let unreachable = Refusal::Unreachable { target: target.clone(), reason: reason.clone() };
        let broken = Refusal::NoAnswer { target, reason };
        for (refusal, internal) in [(unreachable, true), (broken, false)] {
            let answer = refused(&about(None), &refusal);
            assert_eq!(answer.status(), 502);
            assert_eq!(answer.headers().contains_key("x-openfaas-internal"), internal);
        }
    }
}
