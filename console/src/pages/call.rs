//! The page of one call.

use std::{sync::Arc, time::Duration};

use asyncqueue::{
    CallId, EndState, FunctionName, Invocation, QueueName,
    call::{CallQuery, CallState, CallStatus, CandidateQueues, Lookup, QueueLocation},
    dead_letters::{DeadLetter, DeadLetterContent, DeadLetterKind, OpenError},
    failed_attempts::{FailedAttempt, failed_attempts},
    lookup::{ResultLookup, find_call, find_request, find_result, remembered_end},
    message::kept_result::KeptResult,
    subject::call_filter,
};
use axum::{
    extract::{Path, State},
    response::IntoResponse,
};
use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use maud::{Markup, html};
use tokio::time::timeout;

use super::{
    Answer, App,
    cancel::{function_of, is_cancellable},
    error::PageError,
    layout::{self, count},
    letter_target::{Target, links},
    timeline::timeline,
};
use crate::{
    mask::{self, ShownBody},
    settings::AllowedActions,
};

/// Maximum number of dead letters of one call that are shown, and about the maximum of their bytes.
const MAX_LETTERS: usize = 20;
const MAX_LETTER_BYTES: usize = 8 * 1024 * 1024;

/// Maximum time to find a call: less than a page may take.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(15);

/// What is known of a call.
#[derive(Debug)]
pub(super) struct CallDetails {
    /// `None` if only its result is known.
    pub(super) status: Option<CallStatus>,
    /// Its request, while it is stored.
    pub(super) request: Option<Invocation>,
    pub(super) result: Option<KeptResult>,
    /// Attempts that workers remember.
    pub(super) failed: Vec<FailedAttempt>,
    pub(super) letters: Vec<DeadLetter>,
}

pub(super) async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    let id: CallId = id.parse().map_err(PageError::id(&id))?;
    let query = CallQuery { id: id.clone(), function: None };
    let queues = app.overview()?.inventory.candidate_queues(&query);
    let searched = queues.named.len() + queues.rest.len();
    let details = timeout(SEARCH_TIMEOUT, read(&app, &queues, &query)).await.map_err(|_| {
        PageError::SlowSearch(format!(
            "Call {id} was not found within {} seconds. Its id does not name its queue, and {} \
             may have it.",
            SEARCH_TIMEOUT.as_secs(),
            count(searched, "queue")
        ))
    })??;
    if details.status.is_none() && details.result.is_none() {
        return Err(PageError::NotFound {
            what: format!("Call {id} is not known."),
            remedy: "Check the id. A done call is known while its callback is not delivered, while \
                     its result is kept (X-Keep-Result), and else for up to 10 minutes, by the \
                     worker that ran it. A cancelled, expired or dead call is known for a day, and \
                     for as long as its dead letter is kept.",
        });
    }
    Ok(render(&id, &details, app.show_payloads, &app.actions.allowed).into_response())
}

async fn read(
    app: &App,
    queues: &CandidateQueues,
    query: &CallQuery,
) -> Result<CallDetails, PageError> {
    let (mut status, mut request) = (None, None);
    match find_call(&app.js, queues, query).await? {
        Lookup::Pending { newest, others } => {
            status = Some(app.pending_status(query, &newest, others).await?);
            request = find_request(&app.js, &newest).await?;
        }
        Lookup::Ended(ended) | Lookup::Cancelling(ended) => status = Some(ended),
        Lookup::NotFound => {}
    }
    // The result of a call is on the queue of the call. All others would be asked for it, too.
    let only = status.as_ref().map(|status| on_queue(queues, &status.queue));
    let result = match find_result(&app.js, only.as_ref().unwrap_or(queues), query).await? {
        ResultLookup::Kept(result) => Some(*result),
        ResultLookup::Pending | ResultLookup::NotKept | ResultLookup::NotFound => None,
    };
    if status.is_none() && result.is_none() {
        status = remembered_end(&app.js, queues, query).await?;
    }
    let mut letters = Vec::new();
    if let Some(status) = &status
        && request.is_none()
    {
        (letters, request) = read_letters(app, status, &query.id).await?;
    }
    let failed = match &status {
        Some(status) => read_failed(app, status, &query.id).await?,
        None => Vec::new(),
    };
    Ok(CallDetails { status, request, result, failed, letters })
}

/// Reads the dead letters of a call, and the request of the last one.
async fn read_letters(
    app: &App,
    status: &CallStatus,
    id: &CallId,
) -> Result<(Vec<DeadLetter>, Option<Invocation>), PageError> {
    let queue = &status.queue;
    let opened = match app.letters.open(queue).await {
        Ok(opened) => opened,
        Err(OpenError::NoStream { .. }) => return Ok((Vec::new(), None)),
        Err(OpenError::Nats(error)) => return Err(error.into()),
    };
    let read = async |function: Option<&FunctionName>| {
        let filter = call_filter(&queue.dead_letter_stream(), function, id);
        opened.page(&filter, 0, MAX_LETTERS, MAX_LETTER_BYTES).await
    };
    // NATS goes through all letters for a filter with wildcards: half a second for 100,000.
    let function = function_of(status);
    let mut letters = match &function {
        Some(function) => read(Some(function)).await?.letters,
        None => Vec::new(),
    };
    if letters.is_empty() && status.state.end() == Some(EndState::Dead) {
        letters = read(None).await?.letters;
    }
    let last = letters.iter().rev().find(|letter| letter.kind == DeadLetterKind::Call);
    let request = match last {
        Some(letter) if app.show_payloads => match opened.content(letter).await? {
            Some(DeadLetterContent::Call(request)) => Some(*request),
            _ => None,
        },
        _ => None,
    };
    Ok((letters, request))
}

pub(super) fn render(
    id: &CallId,
    details: &CallDetails,
    show_payloads: bool,
    allowed: &AllowedActions,
) -> Markup {
    let CallDetails { status, request, result, failed, letters } = details;
    let content = html! {
        h1 { "Call " (id) }
        @match status {
            Some(status) => {
                (layout::fields(&status_fields(status)))
                @if is_cancellable(status, allowed) {
                    p { a.action href=(format!("/calls/{id}/cancel")) { "Cancel the call" } }
                }
            }
            None => p { "The call has ended, and only its result is kept." },
        }
        h2 { "Timeline" }
        ol {
            @for event in timeline(status.as_ref(), result.as_ref(), failed, letters) {
                li {
                    @if let Some(at) = event.at { (layout::time(at)) " " }
                    (event.what)
                }
            }
        }
        @if let (Some(status), false) = (status, letters.is_empty()) {
            (letters_section(&status.queue, id, letters, allowed))
        }
        @if let Some(result) = result { (result_section(result, show_payloads)) }
        @if let Some(request) = request { (request_section(request, show_payloads)) }
    };
    layout::live(&format!("Call {id}"), &format!("/calls/{id}"), &content)
}

/// Selects the candidates that are this queue.
fn on_queue(
    CandidateQueues { named, rest }: &CandidateQueues,
    queue: &QueueName,
) -> CandidateQueues {
    let is_queue = |place: &&QueueLocation| place.queue == *queue;
    CandidateQueues {
        named: named.iter().chain(rest).filter(is_queue).cloned().collect(),
        rest: Vec::new(),
    }
}

/// Asks the workers for the failed attempts of a call that has had one, if it may have.
async fn read_failed(
    app: &App,
    CallStatus { queue, state, .. }: &CallStatus,
    id: &CallId,
) -> Result<Vec<FailedAttempt>, PageError> {
    if matches!(state, CallState::Queued { .. } | CallState::Scheduled { .. }) {
        return Ok(Vec::new());
    }
    let overview = app.samples.overview();
    let state = overview.as_ref().and_then(|overview| overview.queues.get(queue));
    let workers = state.and_then(|state| state.workers);
    Ok(failed_attempts(&app.js.client(), queue, id, workers).await?)
}

/// Says how the dead letters of a call are replayed and deleted.
fn letters_section(
    queue: &QueueName,
    id: &CallId,
    letters: &[DeadLetter],
    allowed: &AllowedActions,
) -> Markup {
    let may_act = |letter: &&DeadLetter| allowed.permits(letter.function.as_ref());
    html! {
        h2 { "Dead letters" }
        ul {
            @for letter in letters.iter().filter(may_act) {
                li {
                    @match letter.kind {
                        DeadLetterKind::Call => "The call",
                        DeadLetterKind::Callback => "Its callback",
                    }
                    ", died " (layout::time(letter.died_at)) ": "
                    (links(queue, &Target::one(letter.sequence)))
                }
            }
        }
        @if allowed.is_off() {
            p { "To run it again: " code { "kubectl aq dead replay " (queue) " " (id) } }
        }
    }
}

fn status_fields(status: &CallStatus) -> Vec<(&'static str, Markup)> {
    let CallStatus { function, queue, state, submitted_at, others, .. } = status;
    let mut fields = vec![("State", html! { span.state { (layout::text(&state.to_string())) } })];
    fields.extend(function.as_ref().map(|function| ("Function", html! { (function) })));
    fields.push(("Queue", html! { a href=(format!("/queues/{queue}")) { (queue) } }));
    fields.extend(submitted_at.map(|at| ("Submitted", layout::time_and_age(at, Timestamp::now()))));
    fields.extend(others.map(|others| {
        ("Others", html! { "stored with the same id: " (count(others, "more call")) })
    }));
    fields
}

fn result_section(result: &KeptResult, show_payloads: bool) -> Markup {
    html! {
        h2 { "Result" }
        (layout::fields(&[
            ("End", html! { (result.end) }),
            ("Function", html! { (result.function) }),
            ("Status", html! { (result.status) }),
            ("Duration", html! { (asyncqueue::Rounded(result.duration)) }),
            ("Attempts", html! { (result.attempt) " of " (result.max_attempts) }),
        ]))
        (content(&result.headers, &result.body, show_payloads))
    }
}

fn request_section(request: &Invocation, show_payloads: bool) -> Markup {
    let callback = request.callback_url.as_ref().map(asyncqueue::CallbackUrl::as_url);
    let (target, callback) = if show_payloads {
        let target = mask::path(&request.path, request.query.as_deref());
        (target, callback.map(|url| mask::url(url.as_str())))
    } else {
        let host = callback.map(|url| url.host_str().unwrap_or("-").to_owned());
        ("not shown".to_owned(), host)
    };
    html! {
        h2 { "Request" }
        (layout::fields(&[
            ("Method", html! { (request.method) }),
            ("Path", html! { (target) }),
            ("Callback", html! { (layout::known(callback)) }),
            ("Batch", html! {
                @match &request.batch {
                    Some(batch) => a href=(format!("/batches/{}", batch.id)) { (batch.id) },
                    None => "-",
                }
            }),
        ]))
        (content(&request.headers, &request.body, show_payloads))
    }
}

/// Renders headers and body, if the settings allow it.
fn content(headers: &HeaderMap, body: &Bytes, show_payloads: bool) -> Markup {
    html! {
        @if show_payloads {
            div.table tabindex="0" role="region" aria-label="Headers" {
                table {
                    caption { "Headers. Credentials are not shown." }
                    tbody {
                        @for (name, value) in mask::headers(headers) {
                            tr { th scope="row" { (name) } td { (value) } }
                        }
                    }
                }
            }
            @match mask::body(body) {
                ShownBody::Empty => p.note { "No body." },
                ShownBody::Binary(bytes) => p.note { "Not text: " (count(bytes, "byte")) "." },
                ShownBody::Text(text, omitted) => {
                    pre tabindex="0" { (text) }
                    @if omitted > 0 { p.note { "Not shown: " (count(omitted, "more byte")) "." } }
                }
            }
        } @else {
            p.note {
                "Not shown: " (count(headers.len(), "header")) " and "
                (count(body.len(), "byte")) " of body, since "
                "the console runs without show_payloads=true." }
        }
    }
}
