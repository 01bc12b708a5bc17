//! What the documents leave to the reader: what stands for something of the user's own, what has to
//! be there before a command, what is seen after it, and which commands are run elsewhere.

use crate::migration;

/// Where the commands of a document are typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// In the network of the cluster, one document after another, in this order.
    Cluster,
    /// The same, where there is an OpenFaaS and nothing else.
    OpenFaas,
    /// On a machine of their own without Kubernetes.
    Alone,
}

impl Session {
    /// Whether there is a cluster.
    pub(crate) fn has_cluster(self) -> bool {
        self != Self::Alone
    }
}

/// The documents with commands or objects. The last one of the cluster removes all that there is.
pub(crate) const SESSIONS: [(&str, Session); 14] = [
    ("docs/quickstart.md", Session::Cluster),
    ("README.md", Session::Cluster),
    ("docs/without-openfaas.md", Session::Cluster),
    ("docs/autoscaling.md", Session::Cluster),
    ("docs/operations.md", Session::Cluster),
    ("docs/flow-control.md", Session::Cluster),
    ("docs/results.md", Session::Cluster),
    ("docs/troubleshooting.md", Session::Cluster),
    ("docs/security.md", Session::Cluster),
    ("docs/migration.md", Session::OpenFaas),
    ("manifests/README.md", Session::Cluster),
    ("docs/standalone.md", Session::Alone),
    ("docs/faasd.md", Session::Alone),
    ("docs/wire.md", Session::Alone),
];

/// A document, and another one whose pieces it repeats.
pub(crate) const REPEATED: (&str, &str) = ("README.md", "docs/quickstart.md");

/// What stands for something of the user's own, and what it is here. Images are replaced, too: see
/// `plan`. CALL-ID is the call that was answered last: see `shell`.
pub(crate) const PLACEHOLDERS: [(&str, &str); 4] = [
    (
        concat!(
            "https://example.com/asyncqueue//manifests/standalone?ref=v",
            env!("CARGO_PKG_VERSION")
        ),
        "manifests/standalone",
    ),
    ("https://…/manifests", "manifests"),
    ("/var/lib/asyncqueue", "store"),
    ("/etc/asyncqueue", "etc"),
];

/// What is typed around a command of a document, which begins as said.
pub(crate) struct Around {
    pub(crate) document: &'static str,
    pub(crate) command: &'static str,
    /// Each with what it prints.
    pub(crate) before: &'static [(&'static str, &'static str)],
    /// What the command itself prints.
    pub(crate) prints: &'static str,
    pub(crate) after: &'static [(&'static str, &'static str)],
}

/// Around a command that is enough by itself.
pub(crate) const NOTHING: Around =
    Around { document: "", command: "", before: &[], prints: "", after: &[] };

/// Nothing but what a command prints.
pub(crate) const fn prints(
    document: &'static str,
    command: &'static str,
    prints: &'static str,
) -> Around {
    Around { document, command, prints, ..NOTHING }
}

/// What is typed around which commands.
pub(crate) fn around() -> impl Iterator<Item = &'static Around> {
    AROUND.iter().chain(migration::AROUND)
}

const AROUND: &[Around] = &[
    Around {
        document: "docs/quickstart.md",
        command: "kubectl apply --server-side -k asyncqueue/manifests/standalone",
        // What `git clone` creates.
        before: &[("ln -sn . asyncqueue", "")],
        ..NOTHING
    },
    Around {
        document: "docs/quickstart.md",
        command: "curl -i -d hi",
        // Which goes to slow-queue, and comes back.
        after: &[
            ("curl http://callbacks.openfaas-fn:8080/callbacks | grep CALL-ID", ""),
            (
                "kubectl logs -n openfaas deploy/slow-queue-worker | grep CALL-ID",
                "Invoked slow [200] in ",
            ),
        ],
        ..NOTHING
    },
    prints(
        "docs/quickstart.md",
        "curl http://127.0.0.1:8080/function/callbacks/callbacks",
        r#""x-function-name":"slow""#,
    ),
    Around {
        document: "docs/without-openfaas.md",
        command: "curl http://asyncqueue-gateway.openfaas:8080/async-function/CALL-ID",
        // That of the document may have ended.
        before: &[(
            "curl -d hi \
             'http://asyncqueue-gateway.openfaas:8080/async-function/report.shop?sleep=3s'",
            "",
        )],
        prints: r#""queue":"reports""#,
        ..NOTHING
    },
    Around {
        document: "docs/without-openfaas.md",
        command: "kubectl logs -n shop deploy/reports-worker",
        prints: "Invoked report [200] in ",
        ..NOTHING
    },
    Around {
        document: "docs/without-openfaas.md",
        command: "kubectl annotate -n shop service/report",
        after: &[
            ("kubectl delete -n shop asyncqueue/reports", ""),
            ("kubectl delete namespace shop --wait=false", ""),
        ],
        ..NOTHING
    },
    Around {
        document: "README.md",
        command: "kubectl apply -f slow-queue.yaml",
        before: &[
            // That of examples/demo, whose selector and port would be merged with these.
            ("kubectl delete service slow -n openfaas-fn --ignore-not-found", ""),
            ("kubectl apply -f around.yaml", ""),
            ("kubectl rollout status -n openfaas-fn deploy/functions --timeout=120s", ""),
        ],
        ..NOTHING
    },
    Around {
        document: "README.md",
        command: "curl -d hi",
        // A call that comes before its queue goes to another.
        before: &[
            (
                "kubectl wait -n openfaas --for=condition=Ready asyncqueue/slow-queue \
                 --timeout=120s",
                "",
            ),
            // What deploys a function with OpenFaaS.
            ("kubectl annotate -n openfaas-fn service/slow com.openfaas.queue=slow-queue", ""),
            (
                "kubectl wait -n openfaas --for=jsonpath='{.status.functions}'=2 \
                 asyncqueue/slow-queue --timeout=60s",
                "",
            ),
        ],
        ..NOTHING
    },
    prints(
        "README.md",
        "kubectl logs -n openfaas deploy/slow-queue-worker",
        "Invoked slow [200] in ",
    ),
    Around {
        document: "README.md",
        command: "curl http",
        before: &[(
            "curl -d hi 'http://asyncqueue-gateway.openfaas:8080/async-function/slow?sleep=1m'",
            "",
        )],
        prints: r#""state":"running""#,
        ..NOTHING
    },
    prints("README.md", "kubectl aq -n openfaas queues", "slow-queue"),
    Around {
        document: "README.md",
        command: "kubectl aq -n openfaas dead list",
        before: &[(
            "curl -d hi 'http://asyncqueue-gateway.openfaas:8080/async-function/broken?status=500'",
            "",
        )],
        prints: "broken.openfaas-fn",
        ..NOTHING
    },
    prints("README.md", "kubectl aq -n openfaas dead replay", "1 dead letter replayed"),
    prints(
        "docs/operations.md",
        "kubectl exec -n openfaas deploy/asyncqueue-gateway",
        "slow-queue",
    ),
    prints("docs/operations.md", "kubectl get --raw", "ok"),
    Around {
        document: "docs/operations.md",
        command: "kubectl patch configmap argocd-cm",
        before: &[
            ("kubectl create namespace argocd", ""),
            ("kubectl create configmap argocd-cm -n argocd", ""),
        ],
        after: &[
            ("kubectl get configmap argocd-cm -n argocd -o yaml", "AsyncQueue: |"),
            ("kubectl delete namespace argocd --wait=false", ""),
        ],
        ..NOTHING
    },
    prints("docs/operations.md", "kubectl aq -n openfaas invoke slow", "is done, status 200"),
    Around {
        document: "docs/operations.md",
        command: "kubectl aq -n openfaas status",
        before: &[(
            "curl -d hi 'http://asyncqueue-gateway.openfaas:8080/async-function/slow?sleep=1m'",
            "",
        )],
        prints: "running on slow-queue-worker-",
        ..NOTHING
    },
    prints(
        "docs/operations.md",
        "kubectl aq -n openfaas cancel - CALL-ID",
        "cancelled while running",
    ),
    Around {
        document: "docs/operations.md",
        command: "kubectl aq -n openfaas result CALL-ID --wait 30s",
        before: &[(
            "curl -d hi -H 'X-Keep-Result: 1h' \
             http://asyncqueue-gateway.openfaas:8080/async-function/slow",
            "",
        )],
        prints: "is done, status 200",
        ..NOTHING
    },
    Around {
        document: "docs/operations.md",
        command: "kubectl aq -n openfaas batch report-7 --submit",
        before: &[("echo '{\"function\":\"slow\",\"query\":\"sleep=1m\"}' >calls.ndjson", "")],
        prints: "report-7",
        ..NOTHING
    },
    prints("docs/operations.md", "kubectl aq -n openfaas batch report-7", "1 pending"),
    prints("docs/operations.md", "kubectl aq -n openfaas cancel --batch", "cancelled: 1"),
    Around {
        document: "docs/operations.md",
        command: "kubectl aq -n openfaas dead list",
        // The call of the commands after it.
        before: &[(
            "curl -d hi -H 'X-Call-Id: broken-1' \
             'http://asyncqueue-gateway.openfaas:8080/async-function/broken?status=500'",
            "",
        )],
        prints: "broken-1",
        ..NOTHING
    },
    prints(
        "docs/operations.md",
        "kubectl aq -n openfaas dead show slow-queue CALL-ID --body",
        "hi",
    ),
    prints(
        "docs/operations.md",
        "kubectl aq -n openfaas dead show",
        "the function answered 500 (attempt 1 of 1)",
    ),
    prints("docs/operations.md", "kubectl aq -n openfaas dead replay", "1 dead letter replayed"),
    prints("docs/operations.md", "kubectl aq -n openfaas dead purge", "deleted"),
    Around {
        document: "docs/operations.md",
        command: "nats --server=nats://127.0.0.1:4222 backup account",
        // A call that waits, and is there again when all else is.
        before: &[
            (
                "kubectl patch asyncqueue slow-queue -n openfaas \
                 --type=merge -p '{\"spec\":{\"suspend\":true}}'",
                "",
            ),
            (
                "kubectl wait -n openfaas --for=condition=Suspended asyncqueue/slow-queue \
                 --timeout=60s",
                "",
            ),
            ("curl -d hi http://asyncqueue-gateway.openfaas:8080/async-function/slow", ""),
        ],
        ..NOTHING
    },
    Around {
        document: "docs/operations.md",
        command: "nats --server=nats://127.0.0.1:4222 backup restore account",
        before: &[
            (
                "kubectl wait -n openfaas \
                 --for=delete pod -l app.kubernetes.io/name=asyncqueue-operator --timeout=60s",
                "",
            ),
            (
                "nats --server=nats://127.0.0.1:4222 stream ls --all --names | \
                 xargs -n 1 nats --server=nats://127.0.0.1:4222 stream rm --force",
                "",
            ),
        ],
        after: &[("kubectl aq -n openfaas status CALL-ID", "queued")],
        ..NOTHING
    },
    Around {
        document: "docs/operations.md",
        command: "kubectl scale -n openfaas deploy/asyncqueue-operator --replicas=1",
        after: &[
            ("kubectl rollout status -n openfaas deploy/asyncqueue-operator --timeout=120s", ""),
            (
                "kubectl patch asyncqueue slow-queue -n openfaas \
                 --type=merge -p '{\"spec\":{\"suspend\":false}}'",
                "",
            ),
            (
                "kubectl logs -n openfaas deploy/slow-queue-worker | grep CALL-ID",
                "Invoked slow [200] in ",
            ),
        ],
        ..NOTHING
    },
    prints("docs/operations.md", "nats --server=nats://127.0.0.1:4222 req", r#""success":true"#),
    Around {
        document: "docs/operations.md",
        command: "kubectl create secret generic webhooks -n openfaas --from-literal",
        before: &[("kubectl delete secret webhooks -n openfaas", "")],
        ..NOTHING
    },
    Around {
        document: "docs/troubleshooting.md",
        command: "curl http",
        before: &[(
            "curl -d hi 'http://asyncqueue-gateway.openfaas:8080/async-function/slow?sleep=5s'",
            "",
        )],
        prints: r#""queue":"slow-queue","state":"#,
        ..NOTHING
    },
    prints("docs/troubleshooting.md", "kubectl aq -n openfaas queue", "Dead letters:"),
    prints("docs/troubleshooting.md", "curl -H", r#""code":"call_id""#),
    prints(
        "docs/troubleshooting.md",
        "nats --server=nats://127.0.0.1:4222 kv get",
        r#""queue":"slow-queue""#,
    ),
    Around {
        document: "manifests/README.md",
        command: "kubectl delete asyncqueues --all",
        before: &[(
            "kubectl rollout status -n openfaas deploy/asyncqueue-operator --timeout=120s",
            "",
        )],
        ..NOTHING
    },
    Around {
        document: "docs/standalone.md",
        command: "curl -i -d hi",
        before: &[
            ("address=127.0.0.1 port=8091 asyncqueue-example-function &", ""),
            ("address=127.0.0.1 port=8092 sleep=1m asyncqueue-example-function &", ""),
        ],
        ..NOTHING
    },
    prints("docs/standalone.md", "curl http", r#""queue":"slow-queue","state":"running""#),
    Around {
        document: "docs/faasd.md",
        command: "nats-server -js -a 127.0.0.1 -p 4322",
        // What answers like a gateway stands for faasd's.
        before: &[("address=127.0.0.1 port=8080 asyncqueue-example-function &", "")],
        ..NOTHING
    },
    Around {
        document: "docs/faasd.md",
        command: "curl -i -d hi",
        after: &[(
            "curl http://127.0.0.1:8083/metrics",
            "queue_worker_messages_processed_total\
             {queue_name=\"slow-queue\",outcome=\"done\"} 1",
        )],
        ..NOTHING
    },
    // In docs/faasd.md, the worker of the first part of the page.
    prints("docs/faasd.md", "curl http://127.0.0.1:8083/readyz", "ok"),
    Around {
        document: "docs/wire.md",
        command: "nats pub",
        before: &[
            ("nats-server -js -a 127.0.0.1 -sd store &", ""),
            (
                "nats_url=nats://127.0.0.1:4222 default_queue=jobs ensure_stream=true \
                 http_addr=127.0.0.1:8080 metrics_addr=127.0.0.1:8082 asyncqueue-gateway &",
                "",
            ),
            ("nats stream info jobs", "jobs"),
        ],
        prints: "Stored in Stream: jobs Sequence: 1",
        ..NOTHING
    },
];

/// Programs that run until they are stopped: the next command does not wait for that.
pub(crate) const SERVERS: [&str; 3] = ["nats-server", "asyncqueue-gateway", "asyncqueue-worker"];

/// How a command is run that is not run here.
pub(crate) enum How {
    /// By a test: the folder that it is in, and its name.
    Test(&'static str, &'static str),
    /// By a script of this project, which has this text in it.
    Script(&'static str, &'static str),
    /// It is not, for this reason.
    Not(&'static str),
}

use How::{Not, Script, Test};

/// Why images are neither built nor loaded as users do it.
const NO_ENGINE: &str = "no container engine here; `demo` tests the commands that load images";

/// Why services are not started.
const NO_SYSTEMD: &str = "no systemd that runs here; `systemd` checks the units and runs a call";

/// Commands that are not run here, by how they begin; where something is typed around one, it is
/// run there.
pub(crate) const ELSEWHERE: &[(&str, How)] = &[
    ("make demo CLUSTER=current", Test("tests/docs", "commands_of_the_cluster_are_run")),
    ("make demo ", Script("tests/run", "examples/demo")),
    ("git clone", Not("the sources are here, and the address is an example")),
    ("kind ", Not(NO_ENGINE)),
    ("minikube ", Not(NO_ENGINE)),
    ("k3d ", Not(NO_ENGINE)),
    (
        "kubectl apply --server-side -f install.yaml",
        Test("tests/install", "the_files_of_a_release_take_a_call_within_two_minutes"),
    ),
    ("make test ", Script(".ci/run", "make test")),
    ("make chaos ", Script("tests/run", "play all")),
    (
        "make bench ",
        Not("it takes half an hour, alone on the machine; docs/bench.md is what it wrote last"),
    ),
    (
        "make demo-local",
        Test("tests/nats", "the_demo_shows_what_it_promises_and_leaves_nothing_behind"),
    ),
    ("cargo build --release --bin", Script("build/programs", "build --profile=")),
    (
        "docker build",
        Not("no container engine and no registry here; build/image makes the image from the same \
             Dockerfile"),
    ),
    ("cd examples/standalone && docker compose up", Not(NO_ENGINE)),
    ("docker compose -f asyncqueue/examples/standalone/compose.yaml build", Not(NO_ENGINE)),
    (
        "kubectl aq --nats-url nats://127.0.0.1:4223 drain stan",
        Test("tests/nats", "a_channel_of_ten_thousand_is_drained_once"),
    ),
    (
        "helm upgrade --install slow-queue",
        Test("tests/e2e", "the_documented_helm_command_makes_a_queue_that_runs"),
    ),
    ("helm test", Test("tests/install", "three_examples_of_the_chart_pass_helm_test")),
    (
        "kubectl create secret generic nats-login",
        Test("tests/install", "three_examples_of_the_chart_pass_helm_test"),
    ),
    (
        "kubectl apply --server-side -f https://example.com/asyncqueue/releases/",
        Test("tests/install", "the_files_of_a_release_take_a_call_within_two_minutes"),
    ),
    (
        "ctr --namespace k8s.io images import",
        Test("tests/install", "the_files_of_a_release_take_a_call_within_two_minutes"),
    ),
    ("skopeo copy", Script(".github/workflows/release.yml", "skopeo copy")),
    ("make release-check", Script(".github/workflows/nightly.yml", "make release-check")),
    ("make release ", Script(".github/workflows/release.yml", "make release")),
    ("git tag", Not("it starts a release")),
    ("cosign ", Not("nothing is signed here: the workflow of a release signs")),
    ("sudo ", Not(NO_SYSTEMD)),
    ("systemctl ", Not(NO_SYSTEMD)),
    ("password=", Test("tests/docs", "programs_run_a_call_with_the_environment_of_the_units")),
    ("echo ", Test("tests/docs", "programs_run_a_call_with_the_environment_of_the_units")),
    ("sha256sum --check", Script("build/release-check", "sha256sum --check")),
    (
        "helm install",
        Test("tests/install", "the_chart_takes_over_upgrades_and_goes_and_the_queues_stay"),
    ),
    (
        "kubectl delete -k manifests/base",
        Test("tests/install", "the_chart_takes_over_upgrades_and_goes_and_the_queues_stay"),
    ),
    ("faas-cli deploy", Test("tests/docs", "commands_of_the_cluster_migrate_an_openfaas_and_back")),
    ("kubectl drain", Not("the cluster has one node, so that its pods have nowhere to go")),
    (
        "python3 submit.py",
        Test("tests/nats", "the_documented_program_in_python_stores_a_call_once"),
    ),
];

/// What is neither a command nor an object that an API server could take: the document, and how the
/// piece begins.
pub(crate) const PICTURES: &[(&str, &str)] = &[
    ("README.md", "NAME         READY"),
    ("docs/durability.md", "jetstream {"),
    // A part of examples/keda/scaledobject.yaml, which `make test-keda` applies.
    ("docs/autoscaling.md", "scaleTargetRef:"),
    // A trigger in the place of that one.
    ("docs/autoscaling.md", "triggers:"),
    // prometheus-adapter's.
    ("docs/autoscaling.md", "externalRules:"),
    // A line of the directory file above it.
    ("docs/standalone.md", "  figlet: {queue: slow-queue"),
    ("docs/standalone.md", "  figlet: {queue: shared"),
    ("docs/standalone.md", "  jobs: {maxDelay"),
    ("docs/operations.md", "settings changed:"),
    // tests/nats submits such batches.
    ("docs/results.md", r"printf '%s\n' '{"),
    ("docs/results.md", "calls = [{"),
    ("docs/results.md", r#"{"batchId":"report-7""#),
    ("docs/wire.md", "<subject>.<namespace>"),
    ("docs/wire.md", r#"{"maxInflight":5"#),
    ("docs/wire.md", "Nats-Expected-Last-Subject-Sequence: 0"),
    // tests/nats runs it.
    ("docs/wire.md", "# pip install nats-py"),
    // tests/nats sends it.
    ("docs/wire.md", "HPUB jobs"),
];
