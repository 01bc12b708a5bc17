//! Messages on the streams of a queue.

use super::{Elsewhere, code};

/// A message, and why it becomes a dead letter.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Its headers.
    pub headers: &'static [(&'static str, &'static str)],
    /// Its payload.
    pub payload: &'static str,
    /// What the dead letter's reason says.
    pub reason: &'static str,
}

/// The headers that a call must have.
pub const CALL: [(&str, &str); 3] = [
    ("Async-Call-Id", "order-7"),
    ("Async-Function", "figlet.openfaas-fn"),
    ("Async-Submitted-At", "2026-11-24T10:11:12Z"),
];

/// The headers that a result must have.
pub const RESULT: [(&str, &str); 7] = [
    ("Async-Call-Id", "order-7"),
    ("Async-Function", "figlet.openfaas-fn"),
    ("Async-Callback-Url", "http://127.0.0.1:9/"),
    ("Async-Status", "200"),
    ("Async-Duration-Microseconds", "1"),
    ("Async-Attempt", "1"),
    ("Async-Max-Attempts", "1"),
];

const fn json(payload: &'static str, reason: &'static str) -> Message {
    Message { headers: &[], payload, reason }
}

const fn with(headers: &'static [(&'static str, &'static str)], reason: &'static str) -> Message {
    Message { headers, payload: "hi", reason }
}

/// On the stream of calls. With headers, they are in the place of those in [`CALL`], or next to
/// them.
pub const CALLS: &[Message] = &[
    json("", "undecodable: payload is not an OpenFaaS QueueRequest"),
    json("hello", "undecodable: payload is not an OpenFaaS QueueRequest"),
    json("[]", "undecodable: payload is not an OpenFaaS QueueRequest"),
    json("⟨200 [⟩", "undecodable: payload is not an OpenFaaS QueueRequest"),
    json("{}", "undecodable: Function `` is not valid"),
    json(r#"{"Function":"a b"}"#, "undecodable: Function `a b` is not valid"),
    json(r#"{"Function":"f","Body":"%"}"#, "undecodable: Body `…` is not valid"),
    json(
        r#"{"Function":"f","Method":"CONNECT"}"#,
        "undecodable: Method `CONNECT` is not valid: it asks for a tunnel",
    ),
    json(r#"{"Function":"f","Header":{"a b":["x"]}}"#, "undecodable: Header `a b` is not valid"),
    json(r#"{"Function":"f","Header":{"a":"x"}}"#, "it must be an object of lists of strings"),
    json(r#"{"Function":"f","CallbackUrl":{"Scheme":"ftp","Host":"h"}}"#, "its scheme is `ftp`"),
    json(r#"{"Function":"f","Path":"⟨30000 %⟩"}"#, "at most 61440 bytes together"),
    with(
        &[("Async-Version", "99")],
        "message version 99 is not known to this worker: upgrade it, then replay",
    ),
    with(&[("Async-Call-Id", "a.b")], "undecodable: Async-Call-Id `a.b` is not valid"),
    with(
        &[("Async-Function", "figlet")],
        "undecodable: Async-Function `figlet` is not valid: write it as name.namespace",
    ),
    with(
        &[("Async-Submitted-At", "today")],
        "undecodable: Async-Submitted-At `today` is not valid",
    ),
    with(
        &[("Async-Method", "CONNECT")],
        "undecodable: Async-Method `CONNECT` is not valid: it asks for a tunnel",
    ),
    with(
        &[("Async-Path", "a")],
        "undecodable: Async-Path `a` is not valid: it must be percent-encoded and begin with /",
    ),
    with(&[("Async-Path", "/a<b")], "undecodable: Async-Path `/a<b` is not valid"),
    with(
        &[("Async-Query", "a b")],
        "undecodable: Async-Query `…` is not valid: it must be percent-encoded",
    ),
    with(
        &[("Async-Query", "a=\"b\"")],
        "undecodable: Async-Query `…` is not valid: it must be percent-encoded",
    ),
    with(&[("Async-Query", "⟨61441 x⟩")], "at most 61440 bytes together"),
    with(&[("Async-Callback-Url", "ftp://h")], "its scheme is `ftp`"),
    with(
        &[("Async-Depth", "-1")],
        "undecodable: Async-Depth `-1` is not valid: it must be a decimal number",
    ),
    with(
        &[("Async-Header", "no colon")],
        "undecodable: Async-Header `…` is not valid: write it as `name: value`",
    ),
    with(&[("Async-Header", "a b: c")], "undecodable: Async-Header `a b` is not valid"),
    with(&[("Async-Header", "x: a%0Ab")], "undecodable: Async-Header `…` is not valid"),
];

/// What takes more than a row.
pub const CALLS_ELSEWHERE: &[Elsewhere] = &[
    Elsewhere {
        input: "`Async-Function` alone",
        answer: "header Async-Call-Id is missing",
        folder: "asyncqueue",
        test: "what_is_missing_or_wrong_is_named",
    },
    Elsewhere {
        input: "more than 32768 `Async-Header`s",
        answer: "Async-Header `…` is not valid: max size reached",
        folder: "asyncqueue",
        test: "more_headers_than_can_be_kept_are_refused",
    },
    Elsewhere {
        input: "a call of a function in a namespace that its worker does not call",
        answer: "functions in the namespace `…` are not called: add it to the setting \
                 function_namespaces. The callback has the status 403",
        folder: "tests/nats",
        test: "a_stored_call_of_another_namespace_is_dead_at_once",
    },
    Elsewhere {
        input: "headers that are no headers of NATS: not UTF-8, a line without a colon",
        answer: "undecodable: headers can't be read. Found when it has broken the worker's \
                 connection; the calls behind it lose no attempt",
        folder: "tests/nats",
        test: "headers_that_can_not_be_read_cost_their_neighbours_no_attempt",
    },
    Elsewhere {
        input: "a subject that is not UTF-8, or with headers holds white space of Unicode",
        answer: "undecodable: subject can't be read. Found when it has broken the worker's \
                 connection; the calls behind it lose no attempt",
        folder: "tests/nats",
        test: "a_subject_that_can_not_be_read_costs_its_neighbours_no_attempt",
    },
    Elsewhere {
        input: "a carriage return within a header",
        answer: "undecodable: headers can't be read. Found when it has ended the worker twice, \
                 which is started again",
        folder: "tests/nats",
        test: "headers_that_panic_the_nats_client_become_a_dead_letter",
    },
    Elsewhere {
        input: "a call that kills each worker that makes it",
        answer: "its worker crashed during the last of so many attempts",
        folder: "tests/nats",
        test: "a_call_under_which_its_workers_die_becomes_a_dead_letter",
    },
];

/// On the stream of results. With headers, they are in the place of those in [`RESULT`].
pub const RESULTS: &[Message] = &[
    with(
        &[("Async-Function", "figlet")],
        "not a result of a call: Async-Function `figlet` is not valid",
    ),
    with(
        &[("Async-Status", "all good")],
        "not a result of a call: Async-Status `all good` is not valid",
    ),
    with(&[("Async-Attempt", "-1")], "not a result of a call: Async-Attempt `-1` is not valid"),
    with(&[("Async-Callback-Url", "ftp://h")], "not a result of a call: Async-Callback-Url"),
    with(&[("Async-Sequence", "-1")], "not a result of a call: Async-Sequence `-1` is not valid"),
    with(&[("Async-End", "lost")], "not a result of a call: Async-End `lost` is not valid"),
    with(
        &[("Async-Callback-Url", "http://127.0.0.1:9/")],
        "callback: 127.0.0.1 is a loopback address: add it to callback_allowed_hosts",
    ),
    with(
        &[("Async-Callback-Url", "http://localhost:9/")],
        "is a loopback address: add it to callback_allowed_hosts",
    ),
    with(
        &[("Async-Callback-Url", "http://2130706433/")],
        "callback: 127.0.0.1 is a loopback address",
    ),
    with(
        &[("Async-Callback-Url", "http://169.254.169.254/latest/meta-data")],
        "callback: 169.254.169.254 is never allowed as the target of a callback",
    ),
    with(
        &[("Async-Callback-Url", "http://0xa9fea9fe/")],
        "callback: 169.254.169.254 is never allowed as the target of a callback",
    ),
    with(
        &[("Async-Callback-Url", "http://[::ffff:169.254.169.254]/")],
        "callback: 169.254.169.254 is never allowed as the target of a callback",
    ),
    with(
        &[("Async-Callback-Url", "http://[64:ff9b::a9fe:a9fe]/")],
        "callback: 169.254.169.254 is never allowed as the target of a callback",
    ),
    with(
        &[("Async-Callback-Url", "http://[fe80::1]/")],
        "callback: fe80::1 is never allowed as the target of a callback",
    ),
    with(
        &[("Async-Callback-Url", "http://good.example@169.254.169.254/")],
        "callback: 169.254.169.254 is never allowed as the target of a callback",
    ),
];

/// What takes more than a row.
pub const RESULTS_ELSEWHERE: &[Elsewhere] = &[Elsewhere {
    input: "a host that is not in `callback_allowed_hosts`",
    answer: "`…` is not in callback_allowed_hosts",
    folder: "worker",
    test: "a_list_allows_what_it_names_and_nothing_else",
}];

/// Messages outside of the streams.
pub const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere {
        input: "a stream that the deleted AsyncQueue `team-a/payroll` left, \
                for an AsyncQueue `team-b/payroll`",
        answer: "refused, and nothing changes; the condition names the owner and \
                 asyncqueue.io/release-to",
        folder: "tests/nats",
        test: "a_released_stream_keeps_its_calls_from_other_namespaces",
    },
    Elsewhere {
        input: "a stream `orders` of another program, for an AsyncQueue with \
                `asyncqueue.io/adopt=true`",
        answer: "refused, and nothing changes; the condition names allowed_streams of the operator",
        folder: "tests/nats",
        test: "a_stream_of_another_program_is_left_alone",
    },
    Elsewhere {
        input: "an entry of the directory that is no JSON, or lacks a field",
        answer: "it is logged, and what was known before stays",
        folder: "asyncqueue",
        test: "an_entry_that_cannot_be_read_changes_nothing",
    },
    Elsewhere {
        input: "an entry of the directory or of the tombstones whose key is not UTF-8, \
                or whose headers are not NATS headers",
        answer: "found when it has broken the connection twice within 3 s: it is passed over, \
                 and its bucket is polled for ten minutes in place of a watch, \
                 which it would break again",
        folder: "tests/nats",
        test: "entries_that_break_a_watch_are_passed_over",
    },
    Elsewhere {
        input: "an entry of the tombstones that is not one of the five marks",
        answer: "it is ignored: the call runs",
        folder: "asyncqueue",
        test: "marks_are_read_as_they_are_written",
    },
    Elsewhere {
        input: "`asyncqueue.stats.<queue>` of an invented queue, or of more workers than a queue \
                can have",
        answer: "the operator keeps nothing of it; of known queues 2,000 workers at most",
        folder: "operator",
        test: "invented_queues_and_workers_are_bounded",
    },
    Elsewhere {
        input: "`asyncqueue.unknown-functions.<queue>` of an invented queue, or with what is no \
                function's name",
        answer: "the operator keeps nothing of it",
        folder: "operator",
        test: "reports_about_unknown_queues_are_ignored",
    },
    Elsewhere {
        input: "calls, or `asyncqueue.unknown-functions.<queue>`, of invented functions without \
                end",
        answer: "64 of a queue are kept for an hour, in one event a minute at most; \
                 the rest is dropped",
        folder: "operator",
        test: "invented_names_are_bounded",
    },
    Elsewhere {
        input: "more advisories of JetStream than the operator takes in",
        answer: "4,096 are kept, the rest is dropped; queues are still checked, a little later",
        folder: "operator",
        test: "advisories_beyond_the_capacity_are_dropped",
    },
    Elsewhere {
        input: "anything else on `asyncqueue.cancel.<queue>`, `asyncqueue.status.<queue>` and \
                `asyncqueue.end.<queue>`",
        answer: "no reply, and nothing changes",
        folder: "tests/nats",
        test: "invalid_status_question_is_not_answered",
    },
];

/// The rows of the document.
pub(super) fn call_rows() -> Vec<[String; 2]> {
    rows(CALLS, "payload")
}

/// The rows of the document.
pub(super) fn result_rows() -> Vec<[String; 2]> {
    rows(RESULTS, "payload")
}

fn rows(messages: &[Message], payload: &str) -> Vec<[String; 2]> {
    let row = |message: &Message| {
        let input = match message.headers {
            [] if message.payload.is_empty() => format!("no headers, no {payload}"),
            [] => format!("no headers, {payload} {}", code(message.payload)),
            headers => {
                let headers: Vec<String> =
                    headers.iter().map(|(name, value)| code(&format!("{name}: {value}"))).collect();
                headers.join(", ")
            }
        };
        [input, message.reason.to_owned()]
    };
    messages.iter().map(row).collect()
}
