//! From the last version to this one and back, under load.

use serde_json::Value;
use test_support::{
    cluster::{
        PODS, apply, apply_folder, apply_folder_of, condition, get, installation::Restored,
        is_true, kubectl, loaded_image, object_is, repository,
    },
    versions,
    wait::until_in,
};

use crate::{
    e2e::{Gateway, Queue, function, object},
    load::{Call, Kind, Load, RETRY, all_ended_once, submit},
    support::{is_ready, rolled_out},
};

/// Calls that are accepted before the next step, while each version runs.
const CALLS: usize = 20;

/// Calls that each version stores on the suspended queue.
const HELD: usize = 3;

/// Which programs run.
#[derive(Clone, Copy, Debug)]
enum Version {
    Last,
    This,
}

/// The queues in tests/install/queues.yaml, which use each field of an old version.
struct OldQueues {
    namespace: String,
    names: [String; 2],
    objects: String,
}

/// A queue that is suspended, in the namespace of another.
struct Held<'a> {
    queue: &'a Queue,
    name: String,
    calls: Vec<Call>,
}

#[tokio::test]
async fn an_upgrade_and_its_rollback_give_each_call_one_end() {
    let restored = Restored;
    roll(Version::Last, None).await;
    let spec = format!("{{replicas: 2, maxInflight: 2, retry: {RETRY}, limits: {{maxAge: 1h}}}}");
    let queue = Queue::ready("rolled", &spec).await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let mut held = Held::create(&queue).await;
    held.submit().await;
    let created = held.is_stored().await["status"]["streamCreated"].clone();
    let old = OldQueues::create(queue.name()).await;

    let load = Load::start(queue.name(), "fast");
    load.accepts(CALLS).await;
    roll(Version::This, Some(&queue)).await;
    // The same stream, with what was in it.
    assert_eq!(held.is_stored().await["status"]["streamCreated"], created);
    held.is("distinguished", |queue| condition(queue, "UniqueSequences").1 == "SequencesBeginAt1")
        .await;
    held.submit().await;
    old.are_valid().await;
    load.accepts(CALLS).await;
    roll(Version::Last, Some(&queue)).await;
    assert_eq!(held.is_stored().await["status"]["streamCreated"], created);
    load.accepts(CALLS).await;
    all_ended_once(queue.name(), queue.name(), "fast", &load.end()).await;
    // The last version runs what both have stored, also after NATS has read it from its disk.
    restart_nats().await;
    held.resume();
    all_ended_once(queue.name(), &held.name, "held", &held.calls).await;

    drop(restored);
    queue.is("ready", |queue| is_true(queue, "Ready")).await;
}

/// Rolls operator and gateway, and waits until the workers of a queue have followed.
async fn roll(to: Version, workers_of: Option<&Queue>) {
    let image = match to {
        Version::Last => {
            apply_folder_of(versions::LAST, "manifests/standalone");
            loaded_image(&format!("asyncqueue-{}", versions::LAST))
        }
        Version::This => {
            apply_folder("manifests/standalone");
            loaded_image("asyncqueue")
        }
    };
    rolled_out();
    if let Some(queue) = workers_of {
        let has_image = |worker: &Value| {
            worker["spec"]["template"]["spec"]["containers"][0]["image"] == image.as_str()
        };
        object_is(queue.name(), &queue.worker(), &format!("of {image}"), has_image).await;
        let timeout = format!("--timeout={}s", PODS.as_secs());
        let _ = kubectl(&["rollout", "status", "-n", queue.name(), &queue.worker(), &timeout]);
    }
}

async fn restart_nats() {
    let uid = || get("openfaas", "pod/nats-0").map(|pod| pod["metadata"]["uid"].clone());
    let before = uid();
    let _ = kubectl(&["delete", "pod", "-n", "openfaas", "nats-0"]);
    until_in(PODS, "another pod of NATS", async || {
        uid().filter(|uid| Some(uid) != before.as_ref())
    })
    .await;
    let _ = kubectl(&["rollout", "status", "-n", "openfaas", "statefulset/nats", "--timeout=120s"]);
}

// === impl OldQueues ===

impl OldQueues {
    async fn create(namespace: &str) -> Self {
        let file = repository().join("tests/install/queues.yaml");
        let objects = std::fs::read_to_string(file).unwrap().replace("NAMESPACE", namespace);
        apply(&objects);
        let names = ["default", "full"].map(|name| format!("{namespace}-{name}"));
        for name in &names {
            is_ready(namespace, name).await;
        }
        Self { namespace: namespace.to_owned(), names, objects }
    }

    /// What users have in their files, and what the API server has, is valid.
    async fn are_valid(&self) {
        apply(&self.objects);
        for name in &self.names {
            let path = format!("asyncqueue/{name}");
            let _ = kubectl(&["annotate", "-n", &self.namespace, &path, "touched=by-this-version"]);
            is_ready(&self.namespace, name).await;
            let annotations =
                get(&self.namespace, &path).unwrap()["metadata"]["annotations"].take();
            assert!(annotations["touched"].is_string());
        }
    }
}

// === impl Held ===

impl<'a> Held<'a> {
    /// Creates the queue and its function `held`.
    async fn create(queue: &'a Queue) -> Self {
        let (namespace, name) = (queue.name(), format!("{}-held", queue.name()));
        apply(&object(namespace, &name, &format!("{{suspend: true, retry: {RETRY}}}")));
        apply(&function(namespace, "held", &name));
        let _ =
            kubectl(&["rollout", "status", "-n", namespace, "deployment/held", "--timeout=120s"]);
        let known = |queue: &Value| queue["status"]["functions"].as_u64() == Some(1);
        object_is(namespace, &format!("asyncqueue/{name}"), "its function known", known).await;
        is_ready(namespace, &name).await;
        Self { queue, name, calls: Vec::new() }
    }

    async fn submit(&mut self) {
        let gateway = Gateway::connect();
        for kind in [Kind::Quick, Kind::Retried, Kind::Dead].into_iter().cycle().take(HELD) {
            let id = format!("held-{:04}", self.calls.len());
            self.calls.push(submit(&gateway, self.queue.name(), "held", id, kind).await);
        }
    }

    /// Waits until all of its calls are pending.
    async fn is_stored(&self) -> Value {
        let stored =
            |queue: &Value| queue["status"]["pending"].as_u64() == Some(self.calls.len() as u64);
        self.is("all calls pending", stored).await
    }

    async fn is(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        object_is(self.queue.name(), &format!("asyncqueue/{}", self.name), what, holds).await
    }

    fn resume(&self) {
        let spec = format!("{{suspend: false, retry: {RETRY}}}");
        apply(&object(self.queue.name(), &self.name, &spec));
    }
}
