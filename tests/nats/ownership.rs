//! Whose a stream is: one that a deleted queue left, and one of another program.

use async_nats::jetstream::{
    Context,
    stream::{Config, RetentionPolicy},
};
use asyncqueue::{
    CallId, FunctionName, Invocation, QueueName,
    directory::QueueRoute,
    stream::{
        Adopt, EnsureError, Owner, PlanError, QueueSpec, Removal, RemovalPolicy, ensure_queue,
        remove_queue,
    },
    submit::Submitter,
};
use test_support::nats::{ANSWER_TIMEOUT, NatsServer};

/// The queue `payroll` of a namespace; `uid` distinguishes it from an earlier one.
fn payroll(namespace: &str, uid: &str) -> QueueSpec {
    let name: QueueName = "payroll".parse().unwrap();
    let owner = Owner { name: format!("{namespace}/{name}"), uid: format!("{namespace}-{uid}") };
    QueueSpec::new(name, owner)
}

/// Stores a call with a header that no other queue may read.
async fn submit(js: &Context) {
    let queue = "payroll".parse().unwrap();
    let function = FunctionName::new("pay", "team-a").unwrap();
    let mut call = Invocation::new(CallId::generate(&queue), function, "salaries");
    call.headers.insert("authorization", "Bearer s3cret".parse().unwrap());
    let route = QueueRoute::with_default_names(queue);
    Submitter::new(js.clone(), ANSWER_TIMEOUT).submit(&call, &route).await.unwrap();
}

/// The configuration of a stream, and how many messages it holds.
async fn state(js: &Context, stream: &str) -> (Config, u64) {
    let stream = js.get_stream(stream).await.unwrap();
    let info = stream.cached_info();
    (info.config.clone(), info.state.messages)
}

/// Why a queue may not have its streams.
async fn refused(js: &Context, spec: &QueueSpec, adopt: Adopt) -> PlanError {
    match ensure_queue(js, spec, adopt).await {
        Err(EnsureError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Deletes the AsyncQueue, of which the stream stays.
async fn delete(js: &Context, spec: &QueueSpec) {
    let removal = remove_queue(js, spec, RemovalPolicy::DeleteIfEmpty).await.unwrap();
    assert!(matches!(removal, Removal::Released { .. }), "{removal:?}");
}

#[tokio::test]
async fn a_released_stream_keeps_its_calls_from_other_namespaces() {
    let nats = NatsServer::start().await;
    let js = nats.jetstream().await;
    let first = payroll("team-a", "1");
    ensure_queue(&js, &first, false).await.unwrap();
    submit(&js).await;
    delete(&js, &first).await;

    let before = state(&js, "payroll").await;
    for adopt in [Adopt::None, Adopt::Ours, Adopt::Any] {
        let refusal = refused(&js, &payroll("team-b", "1"), adopt).await;
        let text = refusal.to_string();
        assert!(matches!(refusal, PlanError::Released { .. }), "{text}");
        for part in ["team-a/payroll", "asyncqueue.io/release-to=team-b/payroll"] {
            assert!(text.contains(part), "{text}");
        }
    }
    // One of another name does not get it by naming the stream.
    let mut thief = QueueSpec::new("thief".parse().unwrap(), payroll("team-b", "1").owner);
    (thief.stream, thief.subject) = ("payroll".to_owned(), "payroll".to_owned());
    refused(&js, &thief, Adopt::Any).await;
    assert_eq!(state(&js, "payroll").await, before);

    // The same namespace and name gets all of it, and owns it.
    let again = payroll("team-a", "2");
    ensure_queue(&js, &again, false).await.unwrap();
    assert_eq!(state(&js, "payroll").await.1, 1);
    let refusal = refused(&js, &payroll("team-b", "1"), Adopt::Any).await;
    assert!(matches!(refusal, PlanError::OtherOwner { .. }), "{refusal}");
}

#[tokio::test]
async fn a_stream_is_released_to_those_its_owner_names() {
    let nats = NatsServer::start().await;
    let js = nats.jetstream().await;
    let first = payroll("team-a", "1");
    ensure_queue(&js, &first, false).await.unwrap();
    submit(&js).await;
    let granting = QueueSpec { release_to: vec!["team-b/payroll".to_owned()], ..first };
    delete(&js, &granting).await;
    refused(&js, &payroll("team-c", "1"), Adopt::Any).await;
    ensure_queue(&js, &payroll("team-b", "1"), false).await.unwrap();
    let (config, messages) = state(&js, "payroll").await;
    assert_eq!(messages, 1);
    // The grant was for this once.
    let owner = payroll("team-b", "1").stream_config().metadata;
    assert!(owner.iter().all(|(key, value)| config.metadata.get(key) == Some(value)), "{config:?}");
    assert!(!config.metadata.keys().any(|key| key.contains("released")), "{config:?}");
    delete(&js, &payroll("team-b", "1")).await;
    refused(&js, &payroll("team-a", "2"), Adopt::Any).await;
}

#[tokio::test]
async fn a_stream_of_another_program_is_left_alone() {
    let nats = NatsServer::start().await;
    let js = nats.jetstream().await;
    let theirs = Config {
        name: "orders".to_owned(),
        subjects: vec!["orders".to_owned(), "orders.>".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    js.create_stream(theirs).await.unwrap();
    js.publish("orders.1", "an order".into()).await.unwrap().await.unwrap();
    let before = state(&js, "orders").await;
    let owner = Owner { name: "team-b/orders".to_owned(), uid: "1".to_owned() };
    let spec = QueueSpec::new("orders".parse().unwrap(), owner);
    // By an annotation alone; the operator's list has neither name nor subject.
    let refusal = refused(&js, &spec, Adopt::Ours).await.to_string();
    assert!(refusal.contains("allowed_streams of the operator"), "{refusal}");
    refused(&js, &spec, Adopt::None).await;
    assert_eq!(state(&js, "orders").await, before);
    ensure_queue(&js, &spec, Adopt::Any).await.unwrap();
    assert_eq!(state(&js, "orders").await.1, 1);
}
