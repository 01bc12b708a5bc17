//! docs/wire.md, docs/standalone.md and docs/faasd.md name what the library and the programs have:
//! settings, headers, JSON, names and limits.

use std::{collections::BTreeSet, time::Duration};

use async_nats::HeaderMap as NatsHeaders;
use asyncqueue::{
    CallId, CallbackUrl, EndState, FunctionName, IdempotencyKey, Invocation, QueueName,
    batch_member::BatchMember,
    buckets,
    call::{RememberedEnd, WorkerReport},
    dead_letters::DeathInfo,
    directory::{self, FunctionEntry, QueueEntry},
    message::{callback::Callback, dead_letter, kept_result::KeptResult, native},
    reserve,
    shares::Shares,
    stats::{WorkerStats, stats_subject},
    stream::{Owner, QueueSpec},
    waiting_calls::WaitingRecords,
    worker_requests::{cancel_subject, end_request_subject, status_request_subject},
};
use test_support::{documents::section, program};

const WIRE: &str = include_str!("../../docs/wire.md");
const STANDALONE: &str = include_str!("../../docs/standalone.md");
const FAASD: &str = include_str!("../../docs/faasd.md");
const COMPOSE: &str = include_str!("../../examples/standalone/compose.yaml");

/// The settings of a program, as its manual has them.
pub(crate) async fn settings(name: &'static str) -> Vec<String> {
    let manual = program::run(name, &["--help"], &[]).await.text();
    let names = manual.split("[env: ").skip(1);
    names.filter_map(|rest| rest.split(['=', ']']).next()).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_setting_in_the_documentation_is_one_of_a_program() {
    let mut known = BTreeSet::new();
    for name in ["asyncqueue-gateway", "asyncqueue-worker", "asyncqueue-example-function"] {
        known.extend(settings(name).await);
    }
    // Of compose's own keys these look like settings.
    known.extend(["depends_on", "stop_grace_period", "read_only"].map(str::to_owned));
    let is_setting = |name: &&str| {
        name.contains('_') && name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase())
    };
    let words = [STANDALONE, FAASD].into_iter().flat_map(|text| text.split([' ', '\n', '`']));
    let documented = words.filter_map(|word| Some(word.split_once('=')?.0));
    let composed = COMPOSE.lines().filter_map(|line| Some(line.trim().split_once(": ")?.0));
    let used: BTreeSet<_> = documented.chain(composed).filter(is_setting).collect();
    assert!(used.len() > 8, "{used:?}");
    for name in used {
        assert!(known.contains(name), "{name} is no setting: {known:?}");
    }
}

/// The names of headers that a text mentions.
fn header_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("Async-") && word.len() > "Async-".len()).collect()
}

#[test]
fn documented_headers_are_those_of_the_library() {
    let function = FunctionName::new("figlet", "openfaas-fn").unwrap();
    let id = CallId::generate(&"jobs".parse().unwrap());
    let mut call = Invocation::new(id, function, "hi");
    (call.path, call.query, call.callback_url) =
        ("/".to_owned(), Some(String::new()), CallbackUrl::parse("http://h").ok());
    call.headers.insert("a", "b".parse().unwrap());
    call.depth = 1;
    call.not_before = Some(call.submitted_at);
    call.keep_result = Some(Duration::from_secs(60));
    call.written_name = Some("written".to_owned());
    call.batch = Some(BatchMember { id: call.call_id.clone(), size: 1 });
    let url = call.callback_url.clone().unwrap();
    let result = Callback {
        headers: call.headers.clone(),
        ..Callback::new(&call, url, 1, EndState::Done, 200)
    };
    let kept = KeptResult { omitted: Some(1), ..KeptResult::new(&call, 1, EndState::Done, 200) };
    let death = DeathInfo { reason: "why".to_owned(), attempts: 1, status: Some(500) };
    let message = native::encode(&call);
    let mut dead =
        dead_letter::headers(Some(&message), "jobs", &death, "worker", call.submitted_at);
    dead.insert(dead_letter::H_OMITTED_HEADERS, "1");
    dead.insert(dead_letter::H_OMITTED_BODY, "1");
    let mut note = NatsHeaders::new();
    note.insert(reserve::H_FULL_AT, "1");
    let written = [message, result.encode(), kept.encode(), dead, note]
        .map(|headers| format!("{headers:?}"))
        .join(" ");
    assert_eq!(header_names(WIRE), header_names(&written));
}

#[test]
fn documented_ids_of_a_key_are_those_of_the_library() {
    let key: IdempotencyKey = "order-7".parse().unwrap();
    let (queue, function) =
        ("jobs".parse().unwrap(), FunctionName::new("figlet", "openfaas-fn").unwrap());
    let hash = key.message_id(&function).replace("k.", "");
    for id in [hash, key.call_id(&queue, &function).to_string()] {
        assert!(WIRE.contains(&format!("`{id}`")), "{id}");
    }
}

/// The texts in a section that are JSON objects.
fn json(section: &str) -> Vec<&str> {
    section
        .split('`')
        .filter(|text| text.starts_with('{') && text.ends_with('}') && !text.contains('<'))
        .collect()
}

/// Reads JSON, and fails if it says more, or says it otherwise, than what is read writes.
fn reads_back<T: serde::Serialize + serde::de::DeserializeOwned>(json: &str) {
    let read: T = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
}

#[test]
fn documented_json_is_what_the_library_writes() {
    let [queue, marker, function] = json(section(WIRE, "## The directory"))[..] else { panic!() };
    assert!(
        marker == "{}" && WIRE.contains(&format!("| `{}` | `{{}}`", directory::MARKER)),
        "{marker}"
    );
    reads_back::<QueueEntry>(queue);
    reads_back::<FunctionEntry>(function);
    let [shares] = json(section(WIRE, "## Limits of all workers"))[..] else { panic!() };
    reads_back::<Shares>(shares);
    let [report, records, end, stats] = json(section(WIRE, "## Follow and cancel a call"))[..]
    else {
        panic!()
    };
    reads_back::<WorkerReport>(report);
    reads_back::<WaitingRecords>(records);
    reads_back::<RememberedEnd>(end);
    reads_back::<WorkerStats>(stats);
    let parts = ["limited", "durations"].map(|field| {
        let of_field = |text: &&str| text.starts_with(&format!("\"{field}\":"));
        section(WIRE, "## Follow and cancel a call").split('`').find(of_field).unwrap()
    });
    let stats = stats.strip_suffix('}').unwrap();
    reads_back::<WorkerStats>(&format!("{stats},{}}}", parts.join(",")));
}

#[test]
fn names_and_limits_in_the_documentation_are_those_of_the_library() {
    let queue: QueueName = "slow-queue".parse().unwrap();
    let spec = QueueSpec::new(queue.clone(), Owner::standalone());
    let [calls, results, dead] =
        [spec.stream_config(), spec.callback_config(), spec.dead_letter_config()];
    for name in [
        spec.durable,
        results.name,
        spec.queue.callback_durable(),
        dead.name,
        cancel_subject(&queue),
        status_request_subject(&queue),
        end_request_subject(&queue),
        stats_subject(&queue),
    ] {
        let name = name.replace(queue.as_str(), "<queue>");
        assert!(WIRE.contains(&format!("`{name}`")), "{name}");
    }
    for bucket in buckets::OF_WORKERS.into_iter().chain([buckets::DIRECTORY]) {
        assert!(WIRE.contains(&format!("bucket `{}`", bucket.name)), "{}", bucket.name);
    }
    for (limit, values) in [
        (
            "max_msgs",
            [calls.max_messages, results.max_messages, dead.max_messages].map(|n| n.to_string()),
        ),
        (
            "max_age",
            ["0".to_owned(), "0".to_owned(), format!("{} days", dead.max_age.as_secs() / 86400)],
        ),
        (
            "duplicate_window",
            [
                format!("{} minutes", calls.duplicate_window.as_secs() / 60),
                format!("{} hour", results.duplicate_window.as_secs() / 3600),
                format!("{} minutes", dead.duplicate_window.as_secs() / 60),
            ],
        ),
    ] {
        let row = format!("| `{limit}` | {} |", values.join(" | "));
        assert!(WIRE.contains(&row), "{row}");
    }
}
