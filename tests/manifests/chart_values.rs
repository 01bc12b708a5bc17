//! What the values of the chart change, and which are refused.

use serde_json::{Value, json};
use test_support::chart::Example;

use crate::support::{helm_template, list, name, of_kind, refusal, the, variable};

const OPERATOR: &str = "asyncqueue-operator";
const GATEWAY: &str = "asyncqueue-gateway";

/// What the chart renders with an example.
fn example(name: &str) -> Vec<Value> {
    helm_template(&[&Example::named(name).argument()])
}

fn deployment<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    the(objects, "Deployment", name)
}

fn pod<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    &deployment(objects, name)["spec"]["template"]["spec"]
}

fn container<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    &pod(objects, name)["containers"][0]
}

fn setting<'a>(objects: &'a [Value], name: &str, setting: &str) -> &'a Value {
    &variable(deployment(objects, name), setting)["value"]
}

#[test]
fn the_image_is_of_the_chart_version_or_as_the_values_say() {
    let image = |arguments: &[&str]| {
        let objects = helm_template(arguments);
        let images = [OPERATOR, GATEWAY].map(|name| container(&objects, name)["image"].clone());
        let test =
            the(&objects, "Pod", "asyncqueue-test")["spec"]["containers"][0]["image"].clone();
        assert!(images.iter().all(|image| *image == test), "{images:?}");
        test
    };
    assert_eq!(image(&[]), concat!("asyncqueue:", env!("CARGO_PKG_VERSION")));
    assert_eq!(
        image(&["--set=image.registry=registry.example.com,image.repository=a/b,image.tag=1.2.3"]),
        "registry.example.com/a/b:1.2.3"
    );
    let digest = format!("sha256:{}", "0a".repeat(32));
    assert_eq!(
        image(&[&format!("--set=image.digest={digest},image.tag=1.2.3")]),
        format!("asyncqueue@{digest}")
    );
}

#[test]
fn settings_are_variables_and_large_numbers_keep_their_form() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let values =
        "gateway: {settings: {max_payload: 2097152, ensure_stream: true, nats_url: \"nats://a\"}}";
    std::fs::write(file.path(), values).unwrap();
    let objects = helm_template(&[
        &format!("--values={}", file.path().display()),
        "--set=nats.url=nats://nats.messaging:4222",
    ]);
    for (name, expected) in
        [("max_payload", "2097152"), ("ensure_stream", "true"), ("nats_url", "nats://a")]
    {
        assert_eq!(setting(&objects, GATEWAY, name), expected, "{name}");
    }
    assert_eq!(setting(&objects, OPERATOR, "nats_url"), "nats://nats.messaging:4222");
}

#[test]
fn pull_secrets_are_for_the_programs_and_the_workers() {
    let objects =
        helm_template(&["--set=imagePullSecrets[0].name=registry,imagePullSecrets[1].name=mirror"]);
    let expected = json!([{"name": "registry"}, {"name": "mirror"}]);
    for name in [OPERATOR, GATEWAY] {
        assert_eq!(pod(&objects, name)["imagePullSecrets"], expected, "{name}");
    }
    assert_eq!(the(&objects, "Pod", "asyncqueue-test")["spec"]["imagePullSecrets"], expected);
    assert_eq!(setting(&objects, OPERATOR, "worker_image_pull_secrets"), "registry,mirror");
}

#[test]
fn a_secret_for_nats_may_have_any_of_its_keys() {
    let objects = helm_template(&[
        "--set=nats.url=tls://nats.messaging:4222,nats.existingSecret.name=login",
        "--set=nats.existingSecret.keys.url=,nats.existingSecret.keys.credentials=",
        "--set=nats.existingSecret.keys.clientCertificate=tls.crt",
        "--set=nats.existingSecret.keys.clientKey=tls.key",
    ]);
    for name in [OPERATOR, GATEWAY] {
        assert_eq!(setting(&objects, name, "nats_url"), "tls://nats.messaging:4222");
        assert!(setting(&objects, name, "nats_creds_file").is_null());
        for (variable, file) in [
            ("nats_tls_ca_file", "ca.crt"),
            ("nats_tls_cert_file", "tls.crt"),
            ("nats_tls_key_file", "tls.key"),
        ] {
            assert_eq!(setting(&objects, name, variable), &format!("/etc/nats/{file}"), "{name}");
        }
        let volume = &pod(&objects, name)["volumes"][0]["secret"];
        assert_eq!(volume["secretName"], "login");
        let keys: Vec<_> = list(&volume["items"]).iter().map(|item| item["key"].clone()).collect();
        assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
    }
    for (variable, key) in [
        ("worker_nats_ca_secret", "ca.crt"),
        ("worker_nats_tls_cert_secret", "tls.crt"),
        ("worker_nats_tls_key_secret", "tls.key"),
    ] {
        assert_eq!(setting(&objects, OPERATOR, variable), &format!("login/{key}"));
    }

    let objects = example("nats-password");
    assert_eq!(setting(&objects, GATEWAY, "nats_creds_file"), "/etc/nats/credentials");
    assert!(setting(&objects, GATEWAY, "nats_tls_ca_file").is_null());
    assert_eq!(setting(&objects, OPERATOR, "worker_nats_creds_secret"), "nats-login/credentials");
}

#[test]
fn the_default_queue_has_what_the_values_say() {
    let objects = example("default-queue");
    for name in [OPERATOR, GATEWAY] {
        assert_eq!(setting(&objects, name, "default_queue"), "jobs", "{name}");
    }
    let spec = setting(&objects, OPERATOR, "default_queue_spec").as_str().unwrap();
    let spec: Value = serde_json::from_str(spec).unwrap();
    assert_eq!((&spec["maxInflight"], &spec["consumer"]["ackWait"]), (&json!(5), &json!("1m")));
    assert!(setting(&objects, GATEWAY, "default_queue_spec").is_null());
    let none = helm_template(&["--set=defaultQueue.create=false"]);
    assert_eq!(setting(&none, OPERATOR, "default_queue"), "");
    assert!(setting(&none, GATEWAY, "default_queue").is_null());
}

#[test]
fn without_a_user_no_pod_has_a_fixed_id() {
    let objects = example("openshift");
    assert_eq!(setting(&objects, OPERATOR, "worker_user_id"), "");
    let mut pods = vec![the(&objects, "Pod", "asyncqueue-test")["spec"].clone()];
    pods.extend([OPERATOR, GATEWAY].map(|name| pod(&objects, name).clone()));
    for pod in pods {
        let context = &pod["securityContext"];
        assert!(context["runAsUser"].is_null() && context["runAsGroup"].is_null(), "{context}");
        assert_eq!(context["runAsNonRoot"], true);
    }
    let other = helm_template(&["--set=runAsUser=1000650000"]);
    assert_eq!(setting(&other, OPERATOR, "worker_user_id"), "1000650000");
    assert_eq!(pod(&other, GATEWAY)["securityContext"]["runAsUser"], 1_000_650_000);
}

#[test]
fn placement_resources_and_metadata_reach_the_pods() {
    let objects = example("scheduling");
    let operator = pod(&objects, OPERATOR);
    assert_eq!(operator["priorityClassName"], "system-cluster-critical");
    assert_eq!(operator["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
    assert_eq!(operator["tolerations"][0]["key"], "dedicated");
    // A setting may use it.
    let names: Vec<_> =
        list(&operator["containers"][0]["env"]).iter().map(|item| item["name"].clone()).collect();
    let index = |name: &str| names.iter().position(|other| other == name).unwrap();
    assert!(index("NODE_NAME") < index("log_encoding"));
    assert_eq!(operator["containers"][0]["resources"]["limits"]["memory"], "1Gi");

    let gateway = &deployment(&objects, GATEWAY)["spec"]["template"];
    assert_eq!(gateway["spec"]["serviceAccountName"], "queue-gateway");
    let account = the(&objects, "ServiceAccount", "queue-gateway");
    assert_eq!(account["metadata"]["annotations"]["example.com/role"], "queue-gateway");
    assert_eq!(gateway["metadata"]["labels"]["team"], "platform");
    assert_eq!(gateway["metadata"]["annotations"]["example.com/owner"], "platform");
    assert_eq!(gateway["metadata"]["annotations"]["prometheus.io/scrape"], "true");
    assert!(gateway["spec"]["affinity"]["podAntiAffinity"].is_object());
    // What the example does not name stays.
    assert_eq!(gateway["spec"]["containers"][0]["resources"]["requests"]["memory"], "32Mi");
    for object in &objects {
        assert_eq!(object["metadata"]["labels"]["team"], "platform", "{}", name(object));
    }
}

#[test]
fn labels_of_users_do_not_replace_those_of_selectors() {
    let label = "app\\.kubernetes\\.io/name";
    let objects = helm_template(&[&format!("--set=gateway.podLabels.{label}=mine")]);
    let labels = &deployment(&objects, GATEWAY)["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/name"], GATEWAY);
}

#[test]
fn the_gateway_is_published_as_the_values_say() {
    let objects = example("ingress");
    let service = &the(&objects, "Service", GATEWAY)["spec"];
    assert_eq!(
        (&service["type"], &service["externalTrafficPolicy"]),
        (&json!("NodePort"), &json!("Local"))
    );
    let ingress = &the(&objects, "Ingress", GATEWAY)["spec"];
    assert_eq!(ingress["ingressClassName"], "nginx");
    let path = &ingress["rules"][0]["http"]["paths"][0];
    assert_eq!((&path["path"], &path["pathType"]), (&json!("/async-function/"), &json!("Prefix")));
    let backend = json!({"service": {"name": GATEWAY, "port": {"name": "http"}}});
    assert_eq!(path["backend"], backend);
    let balanced = helm_template(&[
        "--set=gateway.service.type=LoadBalancer,gateway.service.nodePort=30080",
        "--set=gateway.service.loadBalancerSourceRanges={10.0.0.0/8},gateway.service.port=80",
    ]);
    let service = &the(&balanced, "Service", GATEWAY)["spec"];
    assert_eq!(
        service["ports"][0],
        json!({"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080})
    );
    assert_eq!(service["loadBalancerSourceRanges"], json!(["10.0.0.0/8"]));
    assert!(of_kind(&balanced, "Ingress").is_empty());
}

#[test]
fn the_pod_monitor_covers_the_namespaces_of_queues() {
    let monitor = |arguments: &[&str]| {
        let objects =
            helm_template(&[&["--set=monitoring.podMonitor.enabled=true"], arguments].concat());
        the(&objects, "PodMonitor", "asyncqueue")["spec"]["namespaceSelector"].clone()
    };
    assert_eq!(monitor(&[]), json!({"any": true}));
    let names = json!({"matchNames": ["team-b", "openfaas"]});
    assert_eq!(monitor(&["--set=watchNamespaces={team-b}"]), names);
}

#[test]
fn what_a_cluster_has_once_can_be_left_out() {
    let objects =
        helm_template(&["--set=crds.install=false,rbac.userRoles=false,rbac.create=false"]);
    for kind in
        ["CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]
    {
        assert!(of_kind(&objects, kind).is_empty(), "{kind}");
    }
    let removed = helm_template(&["--set=crds.keep=false"]);
    let crd = of_kind(&removed, "CustomResourceDefinition")[0];
    assert!(crd["metadata"]["annotations"].is_null());
    let external = helm_template(&[
        "--set=operator.serviceAccount.create=false,operator.serviceAccount.name=mine",
    ]);
    assert_eq!(pod(&external, OPERATOR)["serviceAccountName"], "mine");
    assert_eq!(of_kind(&external, "ServiceAccount").len(), 1);
    let binding = the(&external, "RoleBinding", OPERATOR);
    assert_eq!(binding["subjects"][0]["name"], "mine");
}

#[test]
fn a_value_that_is_not_valid_is_refused_by_name() {
    for (value, named) in [
        ("gateway.setings.max_payload=2Mi", "setings"),
        ("operator.settings.gateway_ulr=http://gateway:8080", "gateway_ulr"),
        // One of the operator's.
        ("gateway.settings.gateway_url=http://gateway:8080", "gateway_url"),
        ("gateway.replicas=2", "replicas"),
        ("gateway.service.type=External", "/gateway/service/type"),
        ("image.digest=sha256:abc", "/image/digest"),
        ("nats.url=nats://user:password@nats:4222", "/nats/url"),
        ("operator.affinity.nodeAfinity.a=b", "nodeAfinity"),
        ("defaultQueue.spec.maxInFlight=5", "maxInFlight"),
        ("defaultQueue.spec.timeout=soon", "/defaultQueue/spec/timeout"),
        (
            "nats.existingSecret.name=a,nats.existingSecret.keys.clientKey=tls.key",
            "clientCertificate",
        ),
        (
            "operator.extraEnv[0].name=POD_NAME,operator.extraEnv[0].value=a",
            "operator.settings.POD_NAME",
        ),
    ] {
        let complaint = refusal("helm", &[&format!("--set={value}")]);
        assert!(complaint.contains(named), "{value}: {complaint}");
    }
}
