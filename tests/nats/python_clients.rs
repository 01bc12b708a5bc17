//! Clients in Python as they are published, on the gateway: Airflow's OpenFaaS hook, and requests.

use serde::Deserialize;
use serde_json::{Value, json};
use test_support::{
    clients::{self, Recording},
    http::{HttpServer, respond},
    nats::NatsServer,
};

use crate::{
    gateway::{Gateway, calls},
    support::Queue,
};

/// What `airflow_hook.py` prints.
#[derive(Deserialize)]
struct HookAnswer {
    version: String,
    path: String,
    /// Of a method that returns.
    #[serde(default)]
    returned: Value,
    /// The message of an `AirflowException`, which fails the task.
    raised: Option<String>,
}

/// What `python_requests.py` prints.
#[derive(Deserialize)]
struct Session {
    answers: Vec<Answer>,
    /// How many connections were opened.
    connections: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: u16,
    call_id: Option<String>,
    duplicate: Option<String>,
    text: String,
    raised: Option<String>,
}

/// Calls a method of the hook for the function `report`. Returns what it returns or raises, and its
/// log.
async fn hook(
    gateway: &Gateway,
    method: &str,
    arguments: &[Value],
) -> (Result<Value, String>, String) {
    let connection =
        json!({"conn_type": "openfaas", "host": format!("http://{}", gateway.addr)}).to_string();
    let arguments: Vec<_> = arguments.iter().map(Value::to_string).collect();
    let mut all = vec!["report", method];
    all.extend(arguments.iter().map(String::as_str));
    let environment = [("AIRFLOW_CONN_OPEN_FAAS_DEFAULT", connection.as_str())];
    let printed = clients::run::<HookAnswer>("airflow_hook.py", &all, &environment).await;
    let HookAnswer { version, path, returned, raised } = printed.answer;
    // It is the published one.
    assert_eq!(version, clients::version("apache-airflow-providers-openfaas"));
    assert!(
        path.ends_with("/site-packages/airflow/providers/openfaas/hooks/openfaas.py"),
        "{path}"
    );
    (raised.map_or(Ok(returned), Err), printed.log)
}

/// A gateway before an OpenFaaS that answers with this status.
async fn before_openfaas(status: u16) -> (HttpServer, NatsServer, Gateway) {
    let openfaas = HttpServer::answering(move |_| respond(status, "of OpenFaaS")).await;
    let nats = NatsServer::prepare();
    let gateway = Gateway::start(&nats, "queues: {}", &[("upstream_url", &openfaas.url())]).await;
    (openfaas, nats, gateway)
}

/// Sends requests of one session.
async fn session(gateway: &Gateway, steps: &Value) -> Session {
    let url = format!("http://{}", gateway.addr);
    clients::run("python_requests.py", &[&url, &steps.to_string()], &[]).await.answer
}

#[tokio::test]
async fn airflow_hook_runs_a_function_asynchronously() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let run = json!({"day": "2026-11-24", "full": "1"});
    let (returned, log) = hook(&gateway, "invoke_async_function", &[run]).await;
    assert_eq!(returned, Ok(Value::Null));
    assert!(log.contains("INFO Invoked report"), "{log}");
    let call = calls(&queue).await.remove(0);
    assert_eq!(call.function.to_string(), "report.openfaas-fn");

    let _worker = queue.worker(&function, &[]);
    let received = function.receives(1).await.remove(0);
    assert_eq!(
        (received.method.as_str(), received.body.as_ref()),
        ("POST", &b"day=2026-11-24&full=1"[..])
    );
    assert_eq!(received.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(received.header("x-call-id"), call.call_id.as_str());
    queue.empties().await;
}

#[tokio::test]
async fn airflow_hook_fails_the_task_of_a_refused_call() {
    let queue = Queue::start().await;
    let gateway =
        Gateway::start(&queue.nats, "queues: {jobs: }", &[("unknown_function", "reject")]).await;
    gateway.is_ready().await;
    let (raised, log) = hook(&gateway, "invoke_async_function", &[json!({})]).await;
    assert_eq!(raised, Err("failed to invoke function".to_owned()));
    assert!(log.contains("ERROR Response status 404"), "{log}");

    // Without NATS nothing is stored, and it must not seem so.
    let nats = NatsServer::prepare();
    let gateway = Gateway::start(&nats, "queues: {jobs: }", &[]).await;
    let (raised, log) = hook(&gateway, "invoke_async_function", &[json!({})]).await;
    assert_eq!(raised, Err("failed to invoke function".to_owned()));
    assert!(log.contains("ERROR Response status 503"), "{log}");
}

#[tokio::test]
async fn airflow_hook_runs_a_function_and_waits() {
    let function = HttpServer::answering(|request| match &request.body[..] {
        b"day=2026-11-24" => respond(200, "42 rows"),
        _ => respond(500, "no such day"),
    })
    .await;
    let nats = NatsServer::prepare();
    let gateway = Gateway::start(&nats, "queues: {}", &[("function_url", &function.url())]).await;
    let (returned, log) = hook(&gateway, "invoke_function", &[json!({"day": "2026-11-24"})]).await;
    assert_eq!(returned, Ok(Value::Null));
    // The result is in the task's log.
    assert!(
        log.contains("INFO Response code 200") && log.contains("INFO Response 42 rows"),
        "{log}"
    );
    let (raised, log) = hook(&gateway, "invoke_function", &[json!({"day": "never"})]).await;
    assert_eq!(raised, Err("failed to invoke function".to_owned()));
    assert!(log.contains("ERROR Response status 500"), "{log}");
}

#[tokio::test]
async fn airflow_hook_deploys_functions_through_the_gateway() {
    let image = r#"{"service":"report","image":"example.com/report:1"}"#;
    let (openfaas, _nats, gateway) = before_openfaas(202).await;
    // The hook passes on what it is given, and OpenFaaS wants JSON.
    for (method, arguments, sent) in [
        ("deploy_function", vec![json!(false), json!(image)], "POST"),
        ("deploy_function", vec![json!(true), json!(image)], "PUT"),
        ("update_function", vec![json!(image)], "PUT"),
    ] {
        assert_eq!(hook(&gateway, method, &arguments).await.0, Ok(Value::Null), "{method}");
        let received = openfaas.received().pop().unwrap();
        assert_eq!(
            (received.method.as_str(), received.target.as_str()),
            (sent, "/system/functions")
        );
        assert_eq!(received.body, image);
    }
    assert_eq!(openfaas.received().len(), 3);

    // Anything but 202 fails the task, 200 too.
    let (_openfaas, _nats, gateway) = before_openfaas(200).await;
    let (raised, _) = hook(&gateway, "deploy_function", &[json!(false), json!(image)]).await;
    assert_eq!(raised, Err("failed to deploy".to_owned()));
    let (raised, log) = hook(&gateway, "update_function", &[json!(image)]).await;
    assert_eq!(raised, Err("failed to update report".to_owned()));
    assert!(log.contains("Failed to update response of OpenFaaS"), "{log}");
}

#[tokio::test]
async fn airflow_hook_asks_openfaas_whether_a_function_exists() {
    let (openfaas, _nats, gateway) = before_openfaas(200).await;
    assert_eq!(hook(&gateway, "does_function_exist", &[]).await.0, Ok(json!(true)));
    assert_eq!(openfaas.received()[0].target, "/system/function/report");
    let (_openfaas, _nats, gateway) = before_openfaas(404).await;
    assert_eq!(hook(&gateway, "does_function_exist", &[]).await.0, Ok(json!(false)));
    // Without `upstream_url` there is no OpenFaaS to ask.
    let nats = NatsServer::prepare();
    let gateway = Gateway::start(&nats, "queues: {}", &[]).await;
    assert_eq!(hook(&gateway, "does_function_exist", &[]).await.0, Ok(json!(false)));
}

#[tokio::test]
async fn python_requests_submits_bodies_of_all_kinds() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let path = "/async-function/env";
    let steps = json!([
        {"path": path, "hex": "00ff0d0a"},
        {"path": path, "json": {"key": "v1"}},
        {"path": path, "data": {"day": "1 & 2", "full": "ü"}},
        {"path": path, "chunks": ["one, ", "two"]},
        {"path": path},
        {"path": path, "files": {"file": "content"}, "data": {"field": "value"}},
        {
            "path": "/async-function/env/a b/ü",
            "params": {"q": "1 ü", "empty": ""},
            "headers": {"X-Name": "1"},
        },
    ]);
    let session = session(&gateway, &steps).await;
    let calls = calls(&queue).await;
    assert_eq!((session.answers.len(), calls.len()), (7, 7));
    for (answer, call) in session.answers.iter().zip(&calls) {
        assert_eq!((answer.status, answer.text.as_str()), (202, ""));
        assert_eq!(answer.call_id.as_deref(), Some(call.call_id.as_str()));
    }
    let bodies: Vec<_> = calls[..5].iter().map(|call| &call.body[..]).collect();
    let expected: [&[u8]; 5] =
        [b"\0\xff\r\n", b"{\"key\": \"v1\"}", b"day=1+%26+2&full=%C3%BC", b"one, two", b""];
    assert_eq!(bodies, expected);
    assert_eq!(calls[1].headers["content-type"], "application/json");
    let multipart = calls[5].headers["content-type"].to_str().unwrap();
    let boundary = multipart.strip_prefix("multipart/form-data; boundary=").unwrap();
    let body = String::from_utf8(calls[5].body.to_vec()).unwrap();
    assert!(
        body.starts_with(&format!("--{boundary}\r\n")) && body.contains("\r\n\r\ncontent\r\n"),
        "{body}"
    );
    assert_eq!(
        (calls[6].path.as_str(), calls[6].query.as_deref()),
        ("/a%20b/%C3%BC", Some("empty=&q=1+%C3%BC"))
    );
    // All on one connection: none was closed for what was sent.
    assert_eq!(session.connections, 1);
}

#[tokio::test]
async fn python_requests_gets_the_callback_of_its_call() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond(200, "banner")).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[]);
    let callback = json!({"X-Callback-Url": format!("{}/cb", caller.url())});
    let steps = json!([{"path": "/async-function/figlet", "hex": "6869", "headers": callback}]);
    let session = session(&gateway, &steps).await;
    let received = caller.receives(1).await.remove(0);
    assert_eq!((received.target.as_str(), received.body.as_ref()), ("/cb", &b"banner"[..]));
    assert_eq!(Some(received.header("x-call-id")), session.answers[0].call_id.as_deref());
    assert_eq!(received.header("x-function-status"), "200");
}

#[tokio::test]
async fn python_requests_repeats_follows_and_cancels_a_call() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let headers = json!({"X-Call-Id": "order-7"});
    let submission = json!({"path": "/async-function/figlet", "hex": "6869", "headers": headers});
    let of_the_call = |method: &str| json!({"method": method, "path": "/async-function/order-7"});
    let refused = json!({"path": "/async-function/figlet%2", "fails": true});
    let steps = json!([
        submission,
        submission,
        of_the_call("GET"),
        of_the_call("DELETE"),
        of_the_call("GET"),
        refused
    ]);
    let session = session(&gateway, &steps).await;
    let statuses: Vec<_> = session.answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [202, 202, 200, 202, 200, 400]);
    let [first, repeat, queued, _, cancelled, refused] = &session.answers[..] else {
        unreachable!()
    };
    assert_eq!((first.duplicate.as_deref(), repeat.duplicate.as_deref()), (None, Some("true")));
    assert_eq!(repeat.call_id.as_deref(), Some("order-7"));
    let state =
        |answer: &Answer| serde_json::from_str::<Value>(&answer.text).unwrap()["state"].clone();
    assert_eq!((state(queued), state(cancelled)), (json!("queued"), json!("cancelled")));
    assert!(refused.raised.as_deref().unwrap().starts_with("400 Client Error: Bad Request"));
}

/// What a recording holds, without what depends on the Python that records: which encodings it
/// knows.
fn comparable(recording: &Recording) -> String {
    let text = String::from_utf8_lossy(&recording.bytes);
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("Accept-Encoding: ")).collect()
}

#[tokio::test]
async fn recordings_are_what_the_clients_send_today() {
    // The curl of a machine has the version that it has.
    let without_curl = |mut all: Vec<Recording>| {
        all.retain(|recording| !recording.name.starts_with("curl-"));
        all
    };
    let (kept, today) = (without_curl(clients::recordings()), without_curl(clients::record()));
    let names =
        |all: &[Recording]| all.iter().map(|recording| recording.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&kept), names(&today), "tests/clients/record writes them");
    for (kept, today) in kept.iter().zip(&today) {
        assert_eq!(
            comparable(kept),
            comparable(today),
            "{}: tests/clients/record writes it",
            kept.name
        );
    }
}
