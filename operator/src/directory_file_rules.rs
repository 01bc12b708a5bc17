//! Checks that the directory file of a gateway without an operator and the CRD accept the same
//! names, subjects and waits, so that a queue can be moved from one to the other.

use asyncqueue::{
    retry::MAX_ATTEMPTS,
    stream::{MAX_STREAM_NAME, MAX_SUBJECT},
};
use asyncqueue_gateway::parse_directory_file;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::CustomResourceExt;

use crate::{
    controller::conflict,
    crd::{AsyncQueue, AsyncQueueSpec},
    fixtures,
    nats::queue_spec::queue_spec,
};

fn file_accepts(yaml: &str) -> bool {
    parse_directory_file(yaml, "openfaas-fn", &"faas-request".parse().unwrap()).is_ok()
}

fn crd_accepts(change: impl FnOnce(&mut AsyncQueueSpec)) -> bool {
    let mut queue = fixtures::queue("a");
    change(&mut queue.spec);
    queue.validate_cel().is_ok()
}

/// Returns a text as a YAML and JSON string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// Returns the schema of a field of the spec.
fn schema(path: &[&str]) -> JSONSchemaProps {
    let version = AsyncQueue::crd().spec.versions.remove(0);
    let root = version.schema.unwrap().open_api_v3_schema.unwrap();
    ["spec"]
        .iter()
        .chain(path)
        .fold(root, |schema, name| schema.properties.unwrap().remove(*name).unwrap())
}

#[test]
fn directory_file_and_crd_accept_the_same_queue_names() {
    for (name, good) in [
        ("a", true),
        ("slow-queue", true),
        ("9", true),
        (&"a".repeat(40), true),
        ("asyncqueue2", true),
        ("asyncqueue", false),
        ("asyncqueue-reserve", false),
        ("asyncqueue-reserve-2", false),
        (&"a".repeat(41), false),
        ("slow_queue", false),
        ("-a", false),
        ("a-", false),
        ("A", false),
        ("a.b", false),
        ("", false),
    ] {
        let yaml = format!("queues: {{{}: {{}}}}", quoted(name));
        let taken = (file_accepts(&yaml), fixtures::queue(name).validate_cel().is_ok());
        assert_eq!(taken, (good, good), "{name}");
    }
}

#[test]
fn directory_file_and_crd_accept_the_same_subjects() {
    for (name, good) in [
        ("SLOW", true),
        ("a_b-1", true),
        ("a.b", false),
        ("a b", false),
        ("a*", false),
        ("ä", false),
        ("asyncqueue-reserve", false),
        ("KV_asyncqueue-directory", false),
        ("", false),
    ] {
        let yaml = format!("queues: {{a: {{stream: {}}}}}", quoted(name));
        let taken =
            (file_accepts(&yaml), crd_accepts(|spec| spec.stream.name = Some(name.to_owned())));
        assert_eq!(taken, (good, good), "{name}");
    }
    for (subject, good) in [
        ("jobs.slow-1.B_2", true),
        ("asyncqueue2.x", true),
        ("-a", true),
        ("_INBOX.a", false),
        ("a..b", false),
        ("a.", false),
        ("a.>", false),
        ("a.*", false),
        ("a b", false),
        ("asyncqueue", false),
        ("asyncqueue.stats", false),
        ("asyncqueue-reserve", false),
        ("asyncqueue-reserve-3.x", false),
        ("", false),
    ] {
        let yaml = format!("queues: {{a: {{subject: {}}}}}", quoted(subject));
        let taken = (
            file_accepts(&yaml),
            crd_accepts(|spec| spec.stream.subject = Some(subject.to_owned())),
        );
        assert_eq!(taken, (good, good), "{subject}");
    }
    let length = |field| schema(&["stream", field]).max_length;
    assert_eq!(length("name"), i64::try_from(MAX_STREAM_NAME).ok());
    assert_eq!(length("subject"), i64::try_from(MAX_SUBJECT).ok());
}

#[test]
fn directory_file_and_crd_accept_the_same_retries() {
    for (min, max, good) in [
        ("0s", "0s", true),
        ("200ms", "1h30m", true),
        ("1.5s", "24h", true),
        ("2m", "1m", false),
        ("1s", "24h1s", false),
        ("1s", "25h", false),
    ] {
        let yaml = format!("functions: {{f: {{retry: {{minWait: {min}, maxWait: {max}}}}}}}");
        let of_spec = crd_accepts(|spec| {
            spec.retry.min_backoff = min.parse().unwrap();
            spec.retry.max_backoff = max.parse().unwrap();
        });
        assert_eq!((file_accepts(&yaml), of_spec), (good, good), "{min} {max}");
    }
    let attempts = schema(&["retry", "maxAttempts"]);
    assert_eq!(
        (attempts.minimum, attempts.maximum),
        (Some(1.0), u32::try_from(MAX_ATTEMPTS).ok().map(f64::from))
    );
    for (attempts, good) in [(0, false), (1, true), (1000, true), (1001, false)] {
        assert_eq!(
            file_accepts(&format!("functions: {{f: {{retry: {{attempts: {attempts}}}}}}}")),
            good
        );
    }
}

#[test]
fn directory_file_and_crd_refuse_the_same_collisions() {
    for (first, second, good) in [
        (("a", None, None), ("b", None, None), true),
        (("a", None, None), ("a2", None, None), true),
        (("a", None, None), ("a-dead", None, None), false),
        (("a", None, None), ("a-callbacks", None, None), false),
        (("a", Some("S"), None), ("b", Some("S"), None), false),
        (("a", None, None), ("b", Some("a"), None), false),
        (("a", None, None), ("b", None, Some("a")), false),
        (("a", None, Some("jobs")), ("b", None, Some("jobs.slow")), false),
        (("a", None, Some("jobs")), ("b", None, Some("jobs2")), true),
    ] {
        let entry = |(name, stream, subject): (&str, Option<&str>, Option<&str>)| {
            let field = |name, value: Option<&str>| value.map(|value| format!("{name}: {value}"));
            let fields = [field("stream", stream), field("subject", subject)];
            format!("{name}: {{{}}}", fields.into_iter().flatten().collect::<Vec<_>>().join(", "))
        };
        let yaml = format!("queues: {{{}, {}}}", entry(first), entry(second));
        let object = |(name, stream, subject): (&str, Option<&str>, Option<&str>)| {
            let mut queue = fixtures::owner(name);
            queue.spec.stream.name = stream.map(str::to_owned);
            queue.spec.stream.subject = subject.map(str::to_owned);
            queue
        };
        let (first, mut second) = (object(first), object(second));
        second.status = None;
        let conflict =
            conflict::conflict(&second, &queue_spec(&second).unwrap(), [&first, &second]);
        assert_eq!((file_accepts(&yaml), conflict.is_none()), (good, good), "{yaml}");
    }
}
