//! The description says what the code does: statuses, headers, error codes and fields.

use std::collections::BTreeSet;

use asyncqueue::{
    CallId, CallbackUrl, FunctionName, GoDuration, IdempotencyKey, QueueName,
    call::{AttemptFailure, CallState, CallStatus, CallbackState},
    delay::DelayRefused,
    function_namespaces::check_system,
    submit::{BatchError, SubmitError},
};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;

use super::*;
use crate::{
    base_url::ProxyTarget,
    context::RequestContext,
    rejection::{CATEGORIES, Rejection},
    response,
    service::PROXIED_METHODS,
};

/// The requests that a rejection answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// `POST /async-function/…`
    Submission,
    /// Status or cancellation.
    Call,
    /// Status or cancellation of a call of a function.
    CallOfFunction,
    /// Cancellation.
    Cancellation,
    /// The kept result.
    KeptResult,
    /// `/function/…`
    Forwarded,
    /// `POST /async-batch`
    Batch,
    /// Status or cancellation of a batch.
    OneBatch,
    /// Cancellation of a batch.
    BatchCancellation,
}

use Request::{
    Batch, BatchCancellation, Call, CallOfFunction, Cancellation, Forwarded, KeptResult, OneBatch,
    Submission,
};

/// A rejection of each kind, with the requests that it answers.
fn rejections() -> Vec<(Rejection, &'static [Request])> {
    let function = || FunctionName::new("f", "ns").unwrap();
    let call_id = || -> CallId { "id-1".parse().unwrap() };
    let name = FunctionName::new("", "ns").unwrap_err();
    let id = "a.b".parse::<CallId>().unwrap_err();
    let key = "".parse::<IdempotencyKey>().unwrap_err();
    let url = CallbackUrl::parse("ftp://h").unwrap_err();
    let delay = "soon".parse::<GoDuration>().unwrap_err();
    let value = || "value".to_owned();
    let target = || ProxyTarget::Function(function());
    let budget = "1Mi".parse().unwrap();
    let queue = || -> QueueName { "q".parse().unwrap() };
    let submit = |error| Rejection::Submit { queue: queue(), error };
    let batch = |error| Rejection::Batch { queue: queue(), error };
    vec![
        (Rejection::NoFunction, &[Submission, CallOfFunction, Forwarded, Batch]),
        (Rejection::FunctionName(name), &[Submission, Call, Forwarded, Batch]),
        (Rejection::InvalidEscape { escape: value() }, &[Submission, Batch]),
        (Rejection::AmbiguousPath, &[Forwarded]),
        (Rejection::UnescapedWhitespace { space: ' ' }, &[Submission]),
        (Rejection::TargetTooLong, &[Submission, Batch]),
        (Rejection::RepeatedHeader("X-Call-Id"), &[Submission, Batch]),
        (Rejection::HeaderNotText("X-Call-Id"), &[Submission, Batch]),
        (Rejection::CallId { field: "path", error: id }, &[Submission, Call, Batch, OneBatch]),
        (Rejection::IdempotencyKey { value: value(), error: key }, &[Submission]),
        (Rejection::KeepResult { value: value(), rule: value() }, &[Submission, Batch]),
        (Rejection::ResultNotKept { call_id: call_id() }, &[KeptResult]),
        (Rejection::ResultForbidden { call_id: call_id() }, &[KeptResult]),
        (Rejection::InvalidDepth { value: value() }, &[Submission, Batch]),
        (Rejection::ChainTooDeep { depth: 2, max: 1 }, &[Submission, Batch]),
        (Rejection::InvalidDelay(delay), &[Submission, Batch]),
        (Rejection::InvalidNotBefore { value: value() }, &[Submission, Batch]),
        (Rejection::TwoDelays, &[Submission, Batch]),
        (
            Rejection::Delay { queue: queue(), error: DelayRefused::NotSupported },
            &[Submission, Batch],
        ),
        (Rejection::TooManyHops { hops: 2, max: 1 }, &[Forwarded]),
        (Rejection::NoCallId, &[Call]),
        (Rejection::CallbackUrl { value: value(), error: url }, &[Submission, Batch]),
        (Rejection::InvalidBody(value()), &[Submission, Batch]),
        (Rejection::UnknownFunction(function()), &[Submission, Forwarded, Batch]),
        (
            Rejection::Namespace(check_system("kube-system").unwrap_err()),
            &[Submission, Forwarded, Batch],
        ),
        // Of a path that is not described.
        (Rejection::NotFound, &[]),
        (Rejection::MethodNotAllowed { method: Method::GET, allow: "POST" }, &[CallOfFunction]),
        (Rejection::BodyTimeout(std::time::Duration::from_secs(1)), &[Submission, Batch]),
        (Rejection::BodyTooLarge { limit: 1, set_by: "the queue" }, &[Submission, Batch]),
        (Rejection::TooLargeForDeadLetter { limit: 1 }, &[Submission, Batch]),
        (Rejection::DirectoryPending, &[Submission, Call, Forwarded, Batch]),
        (Rejection::JetStreamDisabled, &[Submission, Call, Batch, OneBatch]),
        (Rejection::UnknownCall { call_id: call_id(), queue: None }, &[Call]),
        (Rejection::CallEnded { call_id: call_id(), how: "has run" }, &[Cancellation]),
        (Rejection::CancellationUnconfirmed { call_id: call_id() }, &[Cancellation]),
        (Rejection::StoreFull, &[Submission, Batch]),
        (Rejection::ShuttingDown, &[Cancellation, BatchCancellation]),
        (Rejection::NatsUnavailable, &[Submission, Call, Batch, OneBatch]),
        (Rejection::Overloaded { what: "lookups", limit: 1 }, &[Submission, Call, Batch, OneBatch]),
        (Rejection::MemoryExhausted { budget }, &[Submission, Forwarded, Batch]),
        (Rejection::Unreachable { target: target(), reason: value() }, &[Forwarded]),
        (Rejection::Unreachable { target: ProxyTarget::Upstream, reason: value() }, &[Forwarded]),
        (Rejection::UpstreamClosed { target: target(), reason: value() }, &[Forwarded]),
        (Rejection::InvalidUpstreamResponse { target: target(), reason: value() }, &[Forwarded]),
        (Rejection::BatchLine { reason: value() }.in_line(1), &[Batch]),
        (Rejection::BatchEmpty, &[Batch]),
        (Rejection::BatchTooLong, &[Batch]),
        (Rejection::BatchHeadTooLarge { limit: 1 }, &[Batch]),
        (Rejection::BatchQueues { queue: queue(), other: queue() }, &[Batch]),
        (Rejection::OnFailure { value: value() }, &[Batch]),
        (Rejection::UnknownBatch(call_id()), &[OneBatch]),
        (Rejection::BatchEnded(call_id()), &[BatchCancellation]),
        (Rejection::BatchUnconfirmed(call_id()), &[BatchCancellation]),
        (batch(BatchError::CallIdInUse { line: Some(1) }), &[Batch]),
        (batch(BatchError::IdReused(call_id())), &[Batch]),
        (batch(BatchError::InProgress(call_id())), &[Batch]),
        (batch(BatchError::NotAllowed), &[Batch]),
        (batch(BatchError::TooMany), &[Batch]),
        (batch(BatchError::Submit(SubmitError::NoStream)), &[Batch]),
        (submit(SubmitError::TooLarge { limit: 1 }), &[Submission]),
        (submit(SubmitError::QueueFull { reason: value() }), &[Submission]),
        (submit(SubmitError::KeyReused { key: "key".parse().unwrap() }), &[Submission]),
        (submit(SubmitError::NoStream), &[Submission]),
        (submit(SubmitError::Unavailable { reason: value() }), &[Submission]),
    ]
}

fn description() -> Value {
    serde_json::from_slice(DESCRIPTION).unwrap()
}

/// The operations of the description, each with its path.
fn operations(description: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (path, item) in object(&description["paths"]) {
        let methods = object(item).into_iter().filter(|(key, _)| *key != "parameters");
        found.extend(methods.map(|(method, operation)| (format!("{method} {path}"), operation)));
    }
    found
}

/// What is asked by an operation, `METHOD PATH`.
fn requests(operation: &str) -> &'static [Request] {
    let (method, path) = operation.split_once(' ').unwrap();
    match (path, method) {
        ("/async-function/{nameOrId}" | "/async-function/{nameOrId}/{pathOrId}", "post") => {
            &[Submission]
        }
        ("/async-function/{nameOrId}", "delete") => &[Call, Cancellation],
        (
            "/async-function/{nameOrId}/result" | "/async-function/{nameOrId}/{pathOrId}/result",
            _,
        ) => &[Call, KeptResult],
        ("/async-function/{nameOrId}", _) => &[Call],
        ("/async-function/{nameOrId}/{pathOrId}", "delete") => {
            &[Call, CallOfFunction, Cancellation]
        }
        ("/async-function/{nameOrId}/{pathOrId}", _) => &[Call, CallOfFunction],
        ("/async-batch", _) => &[Batch],
        ("/async-batch/{id}", "delete") => &[OneBatch, BatchCancellation],
        ("/async-batch/{id}", _) => &[OneBatch],
        ("/function/{name}" | "/function/{name}/{path}", _) => &[Forwarded],
        _ => &[],
    }
}

fn object(value: &Value) -> Vec<(&str, &Value)> {
    let object = value.as_object().unwrap_or_else(|| panic!("not an object: {value}"));
    object.iter().map(|(key, value)| (key.as_str(), value)).collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

/// The value that a `$ref` names, or the value itself.
fn resolved<'a>(description: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value["$ref"].as_str() else { return value };
    let found = description.pointer(reference.strip_prefix('#').unwrap());
    found.unwrap_or_else(|| panic!("there is no {reference}"))
}

/// The headers of the gateway's own response to a rejected request, but for its content type.
fn headers_of(rejection: &Rejection, asked: &[Request]) -> BTreeSet<String> {
    let is_batch = asked.contains(&Batch) || asked.contains(&OneBatch);
    let id = || Some("id-1".parse().unwrap());
    let context = RequestContext {
        call_id: if is_batch { None } else { id() },
        batch_id: if is_batch { id() } else { None },
        started_at: "2026-11-24T10:11:12Z".parse().unwrap(),
        accepts_problem_json: false,
    };
    let response = response::problem_response(&context, rejection);
    let names = response.headers().keys().map(|name| name.as_str().to_owned());
    names.filter(|name| name != "content-type").collect()
}

fn described_headers(response: &Value) -> BTreeSet<String> {
    keys(&response["headers"]).into_iter().map(str::to_ascii_lowercase).collect()
}

#[test]
fn each_kind_of_rejection_is_in_the_table_of_this_test() {
    let rejections = rejections();
    let seen: BTreeSet<_> = rejections.iter().map(|(rejection, _)| rejection.category()).collect();
    let all: BTreeSet<_> = CATEGORIES.into_iter().chain(SubmitError::CATEGORIES).collect();
    assert_eq!(seen, all);
}

#[test]
fn each_operation_has_the_statuses_of_its_rejections() {
    let (description, rejections) = (description(), rejections());
    for (name, operation) in operations(&description) {
        let asked = requests(&name);
        let answers = rejections
            .iter()
            .filter(|(_, answers)| answers.iter().any(|request| asked.contains(request)));
        let mut expected: BTreeSet<_> =
            answers.map(|(rejection, _)| rejection.status().as_str().to_owned()).collect();
        // The parser answers it.
        expected.insert(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_str().to_owned());
        if name.ends_with(" /readyz") {
            expected.insert(StatusCode::SERVICE_UNAVAILABLE.as_str().to_owned());
        }
        let described: BTreeSet<_> = keys(&operation["responses"])
            .into_iter()
            .filter(|status| status.starts_with(['4', '5']))
            .map(str::to_owned)
            .collect();
        assert_eq!(described, expected, "{name}");
    }
}

#[test]
fn each_error_has_its_headers_and_both_forms_of_its_body() {
    let (description, rejections) = (description(), rejections());
    for (name, operation) in operations(&description) {
        let asked = requests(&name);
        for (status, response) in object(&operation["responses"]) {
            let response = resolved(&description, response);
            let of_status: Vec<_> = rejections
                .iter()
                .filter(|(rejection, answers)| {
                    rejection.status().as_str() == status
                        && answers.iter().any(|request| asked.contains(request))
                })
                .collect();
            if of_status.is_empty() {
                continue;
            }
            let content = keys(&response["content"]);
            for media_type in ["text/plain", "application/problem+json"] {
                assert!(content.contains(media_type), "{name} {status} lacks {media_type}");
            }
            let mut sent: BTreeSet<_> =
                of_status.iter().flat_map(|(rejection, _)| headers_of(rejection, asked)).collect();
            if asked == [Forwarded] {
                // The response may be the function's, which has none of the others.
                for header in ["x-call-id", "x-start-time", "x-content-type-options"] {
                    sent.remove(header);
                }
            }
            assert_eq!(described_headers(response), sent, "{name} {status}");
        }
    }
}

#[test]
fn codes_are_the_categories_of_rejections() {
    let description = description();
    let codes = &description["components"]["schemas"]["Problem"]["properties"]["code"]["enum"];
    let codes: Vec<_> = codes.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let all: BTreeSet<_> = CATEGORIES.into_iter().chain(SubmitError::CATEGORIES).collect();
    assert_eq!(codes, all.into_iter().collect::<Vec<_>>());
}

#[test]
fn each_header_of_the_contract_is_described() {
    let source = include_str!("../../../asyncqueue/src/headers.rs");
    let contract: BTreeSet<_> = source
        .split("from_static(\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect();
    assert!(contract.len() > 10, "{contract:?}");
    let description = description();
    let mut described = BTreeSet::new();
    add_headers(&description, &mut described);
    let missing: Vec<_> = contract.difference(&described).collect();
    assert!(missing.is_empty(), "not described: {missing:?}");
    let unknown: Vec<_> = described.difference(&contract).filter(|name| is_own(name)).collect();
    assert!(unknown.is_empty(), "not in headers.rs: {unknown:?}");
}

/// Whether a header is not one of a standard.
fn is_own(name: &str) -> bool {
    name.starts_with("x-") && name != header::X_CONTENT_TYPE_OPTIONS.as_str()
}

/// Adds the names of all headers that a part of the description has.
fn add_headers(part: &Value, names: &mut BTreeSet<String>) {
    if part["in"] == "header" {
        names.extend(part["name"].as_str().map(str::to_ascii_lowercase));
    }
    let below: Vec<_> = match part {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    // Of a response. The components have names of their own.
    if part.get("description").is_some() {
        names.extend(described_headers(part));
    }
    for value in below {
        add_headers(value, names);
    }
}

#[test]
fn each_forwarded_method_is_described() {
    let description = description();
    let methods: BTreeSet<_> = PROXIED_METHODS.split(", ").map(str::to_ascii_lowercase).collect();
    for path in ["/function/{name}", "/function/{name}/{path}"] {
        let mut described = keys(&description["paths"][path]);
        described.remove("parameters");
        assert_eq!(described, methods.iter().map(String::as_str).collect(), "{path}");
    }
}

#[test]
fn operation_ids_are_unique_and_links_name_them() {
    let description = description();
    let operations = operations(&description);
    let ids: BTreeSet<_> =
        operations.iter().filter_map(|(_, o)| o["operationId"].as_str()).collect();
    assert_eq!(ids.len(), operations.len());
    let mut links = 0;
    for (name, operation) in &operations {
        let Some(linked) = operation["responses"]["202"].get("links") else { continue };
        for (_, link) in object(linked) {
            assert!(ids.contains(link["operationId"].as_str().unwrap()), "{name}: {link}");
            links += 1;
        }
    }
    assert_eq!(links, 8, "of both paths: status and cancellation, with the function and without");
}

#[test]
fn status_of_a_call_has_the_described_fields() {
    let description = description();
    let schema = &description["components"]["schemas"]["CallStatus"];
    let since = "2026-11-24T10:11:12Z".parse().unwrap();
    let failure = AttemptFailure { last_status: 500, last_error: "it failed".to_owned() };
    let some = || Some("why".to_owned());
    let all = [
        CallState::Queued { position: Some(1) },
        CallState::Scheduled { not_before: since },
        CallState::Delivered,
        CallState::Running {
            worker: "w".to_owned(),
            attempt: 1,
            max_attempts: 2,
            since,
            blocked: some(),
        },
        CallState::Waiting {
            attempt: 1,
            max_attempts: 2,
            next_attempt: since,
            failure: Some(failure),
            not_counted_until: Some(since),
        },
        CallState::Done {
            status: 200,
            attempt: 1,
            duration: "1s".parse().unwrap(),
            finished_at: since,
            callback: Some(CallbackState::Dead),
        },
        CallState::Dead { reason: "why".to_owned(), attempt: Some(1), status: Some(500), since },
        CallState::Cancelled { since },
        CallState::Expired { since },
    ];
    let forms = schema["oneOf"].as_array().unwrap();
    assert_eq!(forms.len(), all.len());
    for (form, state) in forms.iter().zip(all) {
        let status = CallStatus {
            call_id: "id-1".to_owned(),
            function: Some("f.ns".to_owned()),
            queue: QueueName::parse_new("q").unwrap(),
            state,
            submitted_at: Some(since),
            age: Some("1s".parse().unwrap()),
            others: Some(1),
        };
        let value = serde_json::to_value(&status).unwrap();
        assert_eq!(form["properties"]["state"]["const"], value["state"]);
        let mut described = keys(&schema["properties"]);
        described.extend(keys(&form["properties"]));
        assert_eq!(described, keys(&value), "{}", value["state"]);
    }
}

#[tokio::test]
async fn description_is_served_with_the_version_at_its_own_path_only() {
    let response = answer(&Method::GET, "/openapi.json").unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let served: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(served["openapi"], "3.1.0");
    assert_eq!(served["info"]["version"], asyncqueue_runtime::VERSION);
    let refused = answer(&Method::POST, "/openapi.json").unwrap();
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(refused.headers()["allow"], "GET, HEAD");
    for other in ["/", "/openapi.json/", "/openapi", "/function/openapi.json", "/ui/openapi.json"] {
        assert!(answer(&Method::GET, other).is_none(), "{other}");
    }
}
