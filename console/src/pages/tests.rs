//! Tests that concern all pages.

use std::{collections::BTreeMap, time::Duration};

use asyncqueue::{
    CallbackUrl, EndState, FunctionName, Invocation,
    batch::{BatchReport, Counts, ListedBatches},
    call::{AttemptFailure, CallState, CallStatus},
    dead_letters::DeadLetter,
    directory::{FunctionEntry, QueueEntry, QueueSettings},
    failed_attempts::{FailedAttempt, Tried},
    inventory::QueueInventory,
    message::kept_result::KeptResult,
    stats::{BlockedCalls, WorkerReplies, WorkerStats},
};
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use maud::Markup;

use super::*;
use crate::{
    actions::LetterAction,
    letters::{Filter, samples},
    overview::{Overview, QueueState},
    pages::{call::CallDetails, queue::QueueDetails},
    settings::AllowedActions,
};

/// What a user types or a function sends. It must be shown, as text.
const HOSTILE: &str = r#""'><script>alert(1)</script>"#;

fn function() -> FunctionName {
    FunctionName::new("figlet", "dev").unwrap()
}

fn overview() -> Overview {
    let directory = [("jobs".parse().unwrap(), QueueEntry::new("jobs", "jobs"))];
    let inventory = QueueInventory::new(directory, Vec::new());
    Overview::new(inventory, std::collections::HashMap::new(), Timestamp::UNIX_EPOCH, None)
}

fn letter(reason: &str, sequence: u64) -> DeadLetter {
    DeadLetter { worker: HOSTILE.to_owned(), ..samples::letter(sequence, reason) }
}

fn hostile_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (HeaderName::from_static("x-text"), HOSTILE.parse().unwrap()),
        (HeaderName::from_static("authorization"), "Bearer topsecret".parse().unwrap()),
    ])
}

fn call_page(show_payloads: bool) -> Markup {
    call_page_with(show_payloads, &AllowedActions::All)
}

fn call_page_with(show_payloads: bool, allowed: &AllowedActions) -> Markup {
    let id = "call-1".parse().unwrap();
    let mut request = Invocation::new("call-1".parse().unwrap(), function(), HOSTILE);
    request.path = format!("/{HOSTILE}");
    request.query = Some(format!("{HOSTILE}&api_key=topsecret"));
    request.headers = hostile_headers();
    request.callback_url = CallbackUrl::parse("https://user:topsecret@example.com/x?a=<b>").ok();
    let result = KeptResult {
        headers: hostile_headers(),
        body: HOSTILE.into(),
        duration: Duration::from_millis(5),
        ..KeptResult::new(&request, 7, EndState::Done, 200)
    };
    let status = CallStatus {
        call_id: HOSTILE.to_owned(),
        function: Some(HOSTILE.to_owned()),
        queue: "jobs".parse().unwrap(),
        state: CallState::Waiting {
            attempt: 1,
            max_attempts: 3,
            next_attempt: Timestamp::UNIX_EPOCH,
            failure: Some(AttemptFailure { last_status: 500, last_error: HOSTILE.to_owned() }),
            not_counted_until: None,
        },
        submitted_at: Some(Timestamp::UNIX_EPOCH),
        age: None,
        others: Some(2),
    };
    let details = CallDetails {
        status: Some(status),
        request: Some(request),
        result: Some(result),
        failed: vec![FailedAttempt {
            sequence: 7,
            of: Tried::Call,
            attempt: 1,
            at: Timestamp::UNIX_EPOCH,
            status: 500,
            error: HOSTILE.to_owned(),
        }],
        letters: vec![letter(HOSTILE, 1)],
    };
    call::render(&id, &details, show_payloads, allowed)
}

fn queue_page() -> Markup {
    let worker = WorkerStats {
        worker: HOSTILE.to_owned(),
        running: 1,
        max_inflight: 5,
        blocked: vec![BlockedCalls {
            record: HOSTILE.to_owned(),
            reason: HOSTILE.to_owned(),
            calls: 1,
        }],
        ..WorkerStats::default()
    };
    let details = QueueDetails {
        state: QueueState::default(),
        consumers: Vec::new(),
        replies: WorkerReplies::Replied(vec![worker]),
        settings: Err(HOSTILE.to_owned()),
        samples: Vec::new(),
        functions: BTreeMap::from([(function(), FunctionEntry::default())]),
    };
    queue::render(&"jobs".parse().unwrap(), &details, &overview(), Some(HOSTILE))
}

fn dead_letters_page() -> Markup {
    let filter =
        Filter { function: Some(HOSTILE.to_owned()), reason: Some(HOSTILE.to_owned()), kind: None };
    letters_page(vec![letter(HOSTILE, 1)], filter, &AllowedActions::All)
}

fn letters_page(letters: Vec<DeadLetter>, filter: Filter, allowed: &AllowedActions) -> Markup {
    dead_letters::render(&dead_letters::Details {
        queue: &"jobs".parse().unwrap(),
        letters: &samples::index(letters),
        selection: dead_letters::Selection { filter, page: None },
        allowed,
        job: None,
    })
}

fn question_page() -> Markup {
    let chosen =
        letter_action::Chosen { sequences: vec![7], callbacks: 0, redundant: 0, others: 0 };
    let filter =
        Filter { function: Some(HOSTILE.to_owned()), reason: Some(HOSTILE.to_owned()), kind: None };
    let (queue, target) = ("jobs".parse().unwrap(), letter_target::Target::group(filter));
    letter_action::question(&queue, LetterAction::Delete, &target, &chosen, 7).page(HOSTILE)
}

fn batch_page() -> Markup {
    let report = BatchReport {
        batch_id: HOSTILE.to_owned(),
        queue: "jobs".parse().unwrap(),
        state: HOSTILE.to_owned(),
        total: 1,
        counts: Counts { failed: 1, ..Counts::default() },
        submitted_at: Timestamp::UNIX_EPOCH,
        calls: serde_json::from_value(serde_json::json!([
            { "callId": HOSTILE, "function": "figlet.dev", "state": HOSTILE, "status": 500 }
        ]))
        .unwrap(),
    };
    batch::render(&report, batches::Selection::default(), true)
}

fn queues_page() -> Markup {
    let selection =
        queues::Selection { filter: HOSTILE.to_owned(), ..queues::Selection::default() };
    queues::render(&overview(), &selection, Some(HOSTILE))
}

#[test]
fn what_users_and_functions_send_is_shown_as_text() {
    let pages = [
        call_page(true),
        queue_page(),
        dead_letters_page(),
        question_page(),
        batch_page(),
        queues_page(),
    ];
    for page in pages {
        let page = page.into_string();
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(!page.contains(r#""'>"#), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    }
}

#[tokio::test]
async fn error_pages_show_what_was_typed_as_text() {
    for (error, status) in [
        (PageError::id(HOSTILE)("x y".parse::<asyncqueue::CallId>().unwrap_err()), 400),
        (PageError::NotFound { what: HOSTILE.to_owned(), remedy: "none" }, 404),
        (PageError::NoSample(Some(HOSTILE.to_owned())), 503),
        (PageError::SlowSearch(HOSTILE.to_owned()), 504),
        (PageError::NotAllowed(HOSTILE.to_owned()), 403),
        (PageError::NotCertain(HOSTILE.to_owned()), 504),
        (PageError::Conflict { what: HOSTILE.to_owned(), remedy: "none" }, 409),
    ] {
        let response = error.into_response();
        assert_eq!(response.status(), status);
        let page = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let page = String::from_utf8(page.to_vec()).unwrap();
        assert!(!page.contains("<script>alert") && page.contains("&lt;script&gt;"), "{page}");
    }
}

#[test]
fn payloads_are_shown_only_if_allowed_and_credentials_never() {
    let (with, without) = (call_page(true).into_string(), call_page(false).into_string());
    assert!(with.contains("x-text") && !without.contains("x-text"));
    assert!(without.contains("show_payloads=true"));
    for page in [with, without] {
        assert!(!page.contains("topsecret"), "{page}");
    }
}

#[test]
fn pages_have_no_inline_scripts_and_styles() {
    let pages = [call_page(true), queue_page(), dead_letters_page(), question_page(), batch_page()];
    for page in pages {
        let page = page.into_string();
        for part in page.split("<script").skip(1) {
            assert!(part.starts_with(" src=\"/assets/") && part.contains("></script>"), "{part}");
        }
        assert!(!page.contains("<style") && !page.contains(" style="), "{page}");
        assert!(!page.contains(" onclick=") && !page.contains("javascript:"), "{page}");
    }
}

#[test]
fn empty_pages_say_what_to_do() {
    let empty = Overview::default();
    let queues = queues::render(&empty, &queues::Selection::default(), None).into_string();
    assert!(queues.contains("Create an AsyncQueue"), "{queues}");
    let letters = letters_page(Vec::new(), Filter::default(), &AllowedActions::None);
    assert!(letters.into_string().contains("No dead letters"));
    let batches = batches::render(&ListedBatches::default(), batches::Selection::default());
    assert!(batches.into_string().contains("POST /async-batch"));
    let settings: Result<QueueSettings, String> = Ok(QueueSettings::default());
    let details = QueueDetails {
        state: QueueState::default(),
        consumers: Vec::new(),
        replies: WorkerReplies::None,
        settings,
        samples: Vec::new(),
        functions: BTreeMap::new(),
    };
    let queue = queue::render(&"jobs".parse().unwrap(), &details, &empty, None).into_string();
    assert!(queue.contains("No worker is connected") && queue.contains("com.openfaas.queue"));
}

#[test]
fn actions_are_offered_only_where_they_are_allowed() {
    let page = |allowed: &str| {
        let letters = vec![letter("a", 1), letter("b", 2), letter("b", 3)];
        letters_page(letters, Filter::default(), &allowed.parse().unwrap()).into_string()
    };
    let off = page("false");
    assert!(!off.contains("/dead/replay") && off.contains("kubectl aq dead replay jobs"), "{off}");
    let on = page("true");
    for target in [
        "/queues/jobs/dead/replay\"",
        "/queues/jobs/dead/delete\"",
        "/queues/jobs/dead/replay?function=figlet.dev&amp;reason=b&amp;kind=call\"",
        "/queues/jobs/dead/delete?sequence=2\"",
    ] {
        assert!(on.contains(target), "{target} in {on}");
    }
    let other = page("other");
    assert!(!other.contains("sequence=2") && !other.contains("reason=b&amp;kind=call\" aria"));
    let call = |allowed: &AllowedActions| call_page_with(true, allowed).into_string();
    assert!(call(&AllowedActions::All).contains("/queues/jobs/dead/replay?sequence=1"));
    assert!(!call(&AllowedActions::None).contains("/dead/replay?"));
}
