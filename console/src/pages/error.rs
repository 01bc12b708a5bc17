//! Pages that say what went wrong and what to do.

use asyncqueue::{CallIdError, NameError, NatsError};
use asyncqueue_runtime::error::error_chain;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use maud::html;
use tracing::warn;

use super::layout;
use crate::auth::Refusal;

/// Asks a browser for a user and a password.
const CHALLENGE: HeaderValue =
    HeaderValue::from_static(r#"Basic realm="AsyncQueue console", charset="UTF-8""#);

/// Why a page can't be shown.
#[derive(Debug)]
pub(crate) enum PageError {
    /// There is no such page.
    NoPage,
    /// The page can only be read.
    NoSuchMethod,
    /// The setting `actions` does not allow it. The text says what.
    NotAllowed(String),
    /// The request does not come from a form that this console has shown to the user a short time
    /// ago.
    NotConfirmed,
    /// There is nothing to do, or not now.
    Conflict { what: String, remedy: &'static str },
    /// Something was begun and is not certain yet.
    NotCertain(String),
    /// An id or a name in the request is not valid.
    NotValid(String),
    /// What the page is about does not exist.
    NotFound { what: String, remedy: &'static str },
    /// The queues were not read yet. The text says why, if that failed.
    NoSample(Option<String>),
    /// NATS could not answer.
    Nats(NatsError),
    /// A call was not found in the time that a page has. The text says what was searched.
    SlowSearch(String),
    /// NATS took too long, or too many pages are being made.
    TimedOut,
}

// === impl PageError ===

impl PageError {
    /// Returns a function that turns the error of a call or batch id into that of the page.
    pub(crate) fn id(text: &str) -> impl Fn(CallIdError) -> Self + '_ {
        move |_| {
            let shown: String = text.chars().take(140).collect();
            Self::NotValid(format!(
                "`{shown}` is not an id: an id has 1 to 128 of A-Z, a-z, 0-9, - and _. It is the \
                 header X-Call-Id of the response to a call."
            ))
        }
    }

    /// Returns the error of the name of a queue.
    pub(crate) fn name(error: &NameError) -> Self {
        Self::NotValid(error.to_string())
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoPage | Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::NoSuchMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAllowed(_) | Self::NotConfirmed => StatusCode::FORBIDDEN,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::NotValid(_) => StatusCode::BAD_REQUEST,
            Self::NoSample(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Nats(_) => StatusCode::BAD_GATEWAY,
            Self::TimedOut | Self::SlowSearch(_) | Self::NotCertain(_) => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::NotAllowed(_) | Self::NotConfirmed | Self::Conflict { .. } => "Not done",
            Self::NotCertain(_) => "Not certain",
            _ => "Not shown",
        }
    }

    /// Returns what is wrong, in a sentence.
    pub(crate) fn what(&self) -> String {
        self.text().0
    }

    fn text(&self) -> (String, &str) {
        match self {
            Self::NoPage => ("There is no such page.".to_owned(), "Begin with the list of queues."),
            Self::NoSuchMethod => {
                ("This page can only be read.".to_owned(), "Open it by its link.")
            }
            Self::NotAllowed(what) => (
                what.clone(),
                "Use kubectl aq to cancel calls, and to replay or delete dead letters. The setting \
                 actions of the console allows it here: see docs/console.md.",
            ),
            Self::NotConfirmed => (
                "Nothing was changed: the form was not sent from a page of this console within 30 \
                 minutes, or the console has started again since then."
                    .to_owned(),
                "Go back, reload the page and confirm again.",
            ),
            Self::NotCertain(what) => (what.clone(), "Do it again in a few seconds: that is safe."),
            Self::SlowSearch(what) => {
                (what.clone(), "Search on one queue: kubectl aq status CALL-ID --queue QUEUE.")
            }
            Self::NotValid(why) => (why.clone(), "Check what you typed."),
            Self::NotFound { what, remedy } | Self::Conflict { what, remedy } => {
                (what.clone(), remedy)
            }
            Self::NoSample(None) => {
                ("The queues were not read yet.".to_owned(), "Reload the page in a few seconds.")
            }
            Self::NoSample(Some(why)) => (format!("The queues can't be read: {why}"), NATS_REMEDY),
            Self::TimedOut => ("The page took too long.".to_owned(), NATS_REMEDY),
            Self::Nats(error) => (format!("{}.", error_chain(error)), NATS_REMEDY),
        }
    }
}

const NATS_REMEDY: &str = "Check that NATS is running, that the console is connected to it \
                           (/readyz), and that its NATS user has the permissions of \
                           docs/console.md.";

impl From<NatsError> for PageError {
    fn from(error: NatsError) -> Self {
        Self::Nats(error)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match &self {
            Self::Nats(error) => warn!(error = error_chain(error), "failed to show a page"),
            Self::TimedOut => warn!("failed to show a page: it took too long"),
            _ => {}
        }
        let (what, remedy) = self.text();
        let page = layout::page(
            self.title(),
            &html! {
                h1 { (self.title()) }
                p.problem role="alert" { (what) }
                p { (remedy) }
                p { a href="/" { "All queues" } }
            },
        );
        (self.status(), page).into_response()
    }
}

/// Answers a request that is refused before it reaches a page.
pub(crate) fn refusal(refusal: Refusal) -> Response {
    let status = match refusal {
        Refusal::NoLogin => StatusCode::UNAUTHORIZED,
        Refusal::NoUser => StatusCode::FORBIDDEN,
        Refusal::WrongHost => StatusCode::MISDIRECTED_REQUEST,
        Refusal::TooManyFailures => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let page = layout::bare("Not allowed", &html! { p.problem role="alert" { (refusal) } });
    let mut response = (status, page).into_response();
    match refusal {
        Refusal::NoLogin => {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        Refusal::TooManyFailures | Refusal::Unavailable => {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        Refusal::NoUser | Refusal::WrongHost => {}
    }
    response
}
