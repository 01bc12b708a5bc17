//! A nats-server of a test's own in the cluster.

use serde_json::Value;

use super::{apply, kubectl, loaded_image, secret};

/// Starts one with `JetStream` at `nats.NAMESPACE:4222`, and returns when it answers. Its
/// configuration is completed by where it stores; what that names of `files`, a text each, it finds
/// in `/etc/nats`.
///
/// # Panics
///
/// If it does not answer within two minutes.
pub fn start(namespace: &str, config: &str, mut files: Value) {
    let config = format!("{config}\nhttp_port: 8222\njetstream {{ store_dir: /data }}\n");
    files["nats.conf"] = config.into();
    apply(&secret(namespace, "server", &files));
    let image = loaded_image("nats");
    apply(&format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: nats, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: nats}}}}
  template:
    metadata: {{labels: {{app: nats}}}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        fsGroup: 65532
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: nats
          image: {image}
          imagePullPolicy: IfNotPresent
          args: [--config, /etc/nats/nats.conf]
          readinessProbe:
            httpGet: {{path: '/healthz?js-server-only=true', port: 8222}}
            periodSeconds: 1
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts: [{{name: config, mountPath: /etc/nats}}, {{name: data, mountPath: /data}}]
      volumes: [{{name: config, secret: {{secretName: server}}}}, {{name: data, emptyDir: {{}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: nats, namespace: {namespace}}}
spec: {{selector: {{app: nats}}, ports: [{{port: 4222}}]}}
"
    ));
    let _ = kubectl(&["rollout", "status", "-n", namespace, "deployment/nats", "--timeout=120s"]);
}
