//! What is typed around the commands of the migration guide: an OpenFaaS before them, checks
//! between them, and at the end that OpenFaaS is as it was. around/openfaas.yaml is that OpenFaaS.

use crate::known::{Around, NOTHING, prints};

const MIGRATION: &str = "docs/migration.md";

/// Lists the callbacks that have arrived in the walk through the migration guide.
const RECEIVED: &str = "curl http://callbacks.openfaas-fn:8080/callbacks";

/// A call through OpenFaaS's gateway, its result, and the line of OpenFaaS's worker.
const OLD_CALL: (&str, &str) = (
    "curl -d hi -H 'X-Callback-Url: http://callbacks.openfaas-fn:8080/callback/' \
     http://gateway.openfaas:8080/async-function/hello",
    "",
);
const OLD_RESULT: (&str, &str) =
    ("curl http://callbacks.openfaas-fn:8080/callbacks | grep CALL-ID", "");
const OLD_LINE: (&str, &str) =
    ("kubectl logs -n openfaas deploy/queue-worker --tail=20", "Invoked: hello [200]");

/// A call of five seconds through OpenFaaS's gateway.
macro_rules! queued {
    ($number:literal) => {
        (
            concat!(
                "curl -d hi -H 'X-Callback-Url: http://callbacks.openfaas-fn:8080/callback/' \
                 -H 'X-Call-Id: queued-",
                $number,
                "' 'http://gateway.openfaas:8080/async-function/hello?sleep=5s'"
            ),
            "",
        )
    };
}

/// Calls that wait in OpenFaaS's queue, one behind the other.
const QUEUED_1: (&str, &str) = queued!("1");
const QUEUED_2: (&str, &str) = queued!("2");
const QUEUED_3: (&str, &str) = queued!("3");

/// What is typed around which commands.
pub(crate) const AROUND: &[Around] = &[
    Around {
        document: MIGRATION,
        command: "kubectl apply --server-side -k .",
        // An OpenFaaS as its users have it: functions are there, a client calls one every second,
        // and it works.
        before: &[
            ("kubectl apply --server-side -f openfaas.yaml", ""),
            ("kubectl rollout status -n openfaas deploy/gateway --timeout=120s", ""),
            ("kubectl rollout status -n openfaas deploy/queue-worker --timeout=120s", ""),
            ("export OPENFAAS_URL=http://gateway.openfaas:8080", ""),
            ("faas-cli deploy --name hello --image example/hello", "Deployed"),
            ("faas-cli deploy --name callbacks --image example/callbacks", "Deployed"),
            ("kubectl rollout status -n openfaas-fn deploy/hello --timeout=120s", ""),
            ("kubectl rollout status -n openfaas-fn deploy/callbacks --timeout=120s", ""),
            ("kubectl scale -n openfaas deploy/cron-connector --replicas=1", ""),
            OLD_CALL,
            OLD_RESULT,
            OLD_LINE,
            ("./no-call-is-missing", ""),
            ("./objects | tee before", "Deployment openfaas/gateway "),
        ],
        ..NOTHING
    },
    Around {
        document: MIGRATION,
        command: "kubectl wait -n openfaas --for=condition=Ready asyncqueue/faas-request",
        // Of the NATS of step 1, and through the gateway of step 2.
        after: &[
            (
                "kubectl get -n openfaas deploy/faas-request-worker -o yaml",
                "nats://nats-asyncqueue.openfaas:4222",
            ),
            (
                "kubectl get -n openfaas deploy/faas-request-worker -o yaml",
                "http://gateway.openfaas:8080",
            ),
            ("kubectl rollout status -n openfaas deploy/asyncqueue-gateway --timeout=120s", ""),
        ],
        ..NOTHING
    },
    Around {
        document: MIGRATION,
        command: "kubectl wait -n openfaas --for=condition=Ready asyncqueue --all",
        after: &[(
            "kubectl get -n openfaas asyncqueue/slow-queue -o jsonpath={.spec.timeout}",
            "15m",
        )],
        ..NOTHING
    },
    Around {
        document: MIGRATION,
        command: "faas-cli store deploy figlet",
        prints: "Deployed",
        after: &[
            ("kubectl rollout status -n openfaas-fn deploy/figlet --timeout=120s", ""),
            (
                "kubectl get -n openfaas-fn deploy/figlet \
                 -o jsonpath={.spec.template.metadata.annotations}",
                r#""com.openfaas.queue":"slow-queue""#,
            ),
        ],
        ..NOTHING
    },
    Around {
        document: MIGRATION,
        command: "faas-cli deploy -f stack.yml",
        prints: "Deployed",
        after: &[
            ("kubectl rollout status -n openfaas-fn deploy/report --timeout=120s", ""),
            (
                "kubectl wait -n openfaas --for=jsonpath='{.status.functions}'=2 \
                 asyncqueue/slow-queue --timeout=60s",
                "",
            ),
            // By the old worker, whatever the annotation says.
            ("curl -d hi http://gateway.openfaas:8080/async-function/figlet", ""),
            ("kubectl logs -n openfaas deploy/queue-worker", "Invoked: figlet [200]"),
        ],
        ..NOTHING
    },
    Around { document: MIGRATION, command: "curl -i -d hi", prints: "202 Accepted", ..NOTHING },
    Around {
        document: MIGRATION,
        command: "kubectl logs -n openfaas deploy/slow-queue-worker",
        prints: "Invoked figlet [200]",
        after: &[
            ("curl -d hi http://asyncqueue-gateway.openfaas:8080/async-function/report", ""),
            (
                "kubectl logs -n openfaas deploy/slow-queue-worker | grep CALL-ID",
                "Invoked report [200]",
            ),
            // Without an annotation.
            ("curl -d hi http://asyncqueue-gateway.openfaas:8080/async-function/hello", ""),
            (
                "kubectl logs -n openfaas deploy/faas-request-worker | grep CALL-ID",
                "Invoked hello [200]",
            ),
            // All else goes through, and clients still use the old gateway.
            (
                "curl -d synchronous http://asyncqueue-gateway.openfaas:8080/function/hello",
                "synchronous",
            ),
            (
                "kubectl logs -n openfaas deploy/cron-connector --tail=1",
                "202 by http://gateway.openfaas:8080",
            ),
        ],
        ..NOTHING
    },
    Around {
        document: MIGRATION,
        command: "kubectl set env -n openfaas deploy/cron-connector \
                  gateway_url=http://asyncqueue-gateway",
        after: &[
            ("kubectl rollout status -n openfaas deploy/cron-connector --timeout=120s", ""),
            (
                "kubectl logs -n openfaas deploy/cron-connector --tail=1",
                "202 by http://asyncqueue-gateway.openfaas:8080",
            ),
            (
                "kubectl get -n openfaas ingress/openfaas-ingress \
                 -o jsonpath={.spec.rules[0].http.paths[0].backend.service}",
                r#""name":"asyncqueue-gateway""#,
            ),
            ("./no-call-is-missing", ""),
        ],
        ..NOTHING
    },
    Around {
        document: MIGRATION,
        command: "kubectl scale -n openfaas deploy/queue-worker --replicas=0",
        // It is stopped with a call in hand, and others behind it.
        before: &[QUEUED_1, QUEUED_2, QUEUED_3],
        after: &[(
            "kubectl wait -n openfaas --for=delete pod -l app=queue-worker --timeout=60s",
            "",
        )],
        ..NOTHING
    },
    Around {
        document: MIGRATION,
        command: "kubectl logs -n openfaas job/asyncqueue-drain-stan",
        prints: r#""stored":"#,
        after: &[
            (RECEIVED, "queued-1"),
            (RECEIVED, "queued-2"),
            (RECEIVED, "queued-3"),
            // Run here, and not there.
            (
                "kubectl logs -n openfaas deploy/faas-request-worker | grep queued-3",
                "Invoked hello [200]",
            ),
        ],
        ..NOTHING
    },
    Around {
        document: MIGRATION,
        command: "kubectl apply -f report-queue.yaml",
        // A queue as OpenFaaS's documentation had it made, with a call as a gateway publishes it.
        before: &[
            ("kubectl rollout status -n openfaas statefulset/nats-asyncqueue --timeout=120s", ""),
            // Again where it ends: it takes whichever pod there is, also one that is just going.
            (
                "until kubectl port-forward -n openfaas service/nats-asyncqueue 4222; do sleep 1; \
                 done &",
                "",
            ),
            (
                "nats --server=nats://127.0.0.1:4222 stream add report-queue \
                 --subjects=report-queue --replicas=1 --retention=work --discard=old \
                 --max-msgs-per-subject=-1 --defaults",
                "",
            ),
            (
                "nats --server=nats://127.0.0.1:4222 consumer add report-queue \
                 report-queue-workers --pull --deliver=all --ack=explicit --replay=instant \
                 --max-deliver=-1 --max-pending=-1 --wait=3m --defaults",
                "",
            ),
            (
                "nats --server=nats://127.0.0.1:4222 pub --jetstream report-queue \
                 '{\"Method\":\"POST\",\"Function\":\"figlet\",\"Body\":\"aGk=\"}'",
                "",
            ),
        ],
        ..NOTHING
    },
    Around {
        document: MIGRATION,
        command: "kubectl wait -n openfaas --for=condition=Ready asyncqueue/report-queue",
        after: &[("kubectl logs -n openfaas deploy/report-queue-worker", "Invoked figlet [200]")],
        ..NOTHING
    },
    prints(
        MIGRATION,
        "kubectl exec -n openfaas deploy/asyncqueue-gateway -- kubectl-aq queues",
        "slow-queue",
    ),
    Around {
        document: MIGRATION,
        command: "kubectl delete pvc",
        after: &[
            ("! kubectl get crd,clusterroles,clusterrolebindings -o name | grep asyncqueue", ""),
            // What is there is what was there, and the functions that the guide had deployed.
            (
                "./objects | grep -v -e ' openfaas-fn/figlet ' -e ' openfaas-fn/report ' \
                 | diff before -",
                "",
            ),
            // And it works as before.
            OLD_CALL,
            OLD_RESULT,
            OLD_LINE,
            (
                "kubectl logs -n openfaas deploy/cron-connector --tail=1",
                "202 by http://gateway.openfaas:8080",
            ),
            ("./no-call-is-missing", ""),
        ],
        ..NOTHING
    },
];
