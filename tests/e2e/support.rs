//! A queue, a function and a receiver of callbacks in a namespace of their own, and calls through
//! the gateway.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use test_support::{
    cluster::{self, Namespace, PODS, PortForward, apply, is_true, kubectl, object_is},
    raw::{self, RawResponse},
    wait::until_in,
};
use tokio::time::timeout;

/// Maximum time of an answer. The tunnel to a pod that ends may stay open, and answer no more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A namespace with a queue, both of the same name, since queues share one broker.
pub(crate) struct Queue {
    pub(crate) namespace: Namespace,
}

impl Queue {
    /// Creates a queue with this spec (YAML in one line) and waits until it is ready.
    pub(crate) async fn ready(prefix: &str, spec: &str) -> Self {
        let queue = Self::create(prefix, spec);
        queue.is("ready", |queue| is_true(queue, "Ready")).await;
        queue
    }

    /// Creates a queue with this spec.
    pub(crate) fn create(prefix: &str, spec: &str) -> Self {
        let namespace = Namespace::create(prefix);
        let queue = Self { namespace };
        queue.apply(spec);
        queue
    }

    /// Applies another spec.
    pub(crate) fn apply(&self, spec: &str) {
        apply(&object(self.name(), self.name(), spec));
    }

    pub(crate) fn name(&self) -> &str {
        &self.namespace.name
    }

    /// Waits until the queue is in the desired state.
    pub(crate) async fn is(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        object_is(self.name(), &format!("asyncqueue/{}", self.name()), what, holds).await
    }

    pub(crate) fn worker(&self) -> String {
        format!("deployment/{}-worker", self.name())
    }

    /// Deploys the example function under these names, calls of which go to this queue.
    pub(crate) async fn deploy_functions(&self, names: &[&str]) {
        for name in names {
            apply(&function(self.name(), name, self.name()));
        }
        for name in names {
            let _ = kubectl(&[
                "rollout",
                "status",
                "-n",
                self.name(),
                &format!("deployment/{name}"),
                "--timeout=120s",
            ]);
        }
        self.is("its functions known", |queue| {
            queue["status"]["functions"].as_u64() == Some(names.len() as u64)
        })
        .await;
    }
}

/// An `AsyncQueue` as YAML.
pub(crate) fn object(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: asyncqueue.io/v1alpha1, kind: AsyncQueue, \
         metadata: {{namespace: {namespace}, name: {name}}}, spec: {spec}}}"
    )
}

/// The example function, as `OpenFaaS` deploys one, in a pod that passes the restricted standard.
pub(crate) fn function(namespace: &str, name: &str, queue: &str) -> String {
    let image = example_image();
    format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{faas_function: {name}}}}}
  template:
    metadata:
      labels: {{faas_function: {name}}}
      annotations: {{com.openfaas.queue: {queue}}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: {name}
          image: {image}
          imagePullPolicy: IfNotPresent
          ports: [{{containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
          resources: {{requests: {{cpu: 5m, memory: 8Mi}}}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{faas_function: {name}}}, ports: [{{port: 8080, targetPort: 8080}}]}}
"
    )
}

/// The example function's image, as the script that loads images has tagged it.
fn example_image() -> String {
    cluster::loaded_image("asyncqueue-example-function")
}

/// The gateway, from this machine.
pub(crate) struct Gateway {
    forward: Mutex<PortForward>,
}

/// The object behind which the gateway's pods are, and the port of it.
const GATEWAY: (&str, &str, u16) = ("openfaas", "service/asyncqueue-gateway", 8080);

/// What the gateway answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) call_id: String,
    /// How the call ended, if this is its result.
    pub(crate) call_state: String,
    pub(crate) body: String,
}

impl Gateway {
    pub(crate) fn connect() -> Self {
        let (namespace, service, port) = GATEWAY;
        Self { forward: PortForward::to(namespace, service, port).into() }
    }

    /// Submits a call, whose result goes to the callback receiver `callbacks` in the namespace.
    pub(crate) async fn submit(&self, namespace: &str, function: &str) -> Answer {
        let callback = format!("http://callbacks.{namespace}:8080/callback/");
        // The name may carry a query.
        let (name, query) = function.split_once('?').unwrap_or((function, ""));
        let target = format!("/async-function/{name}.{namespace}?{query}");
        self.request("POST", &target, &[("X-Callback-Url", &callback)], "hello").await
    }

    /// Waits until a call runs: as its worker reports, since a queue's counts are read every
    /// few seconds.
    pub(crate) async fn runs(&self, call_id: &str) {
        until_in(PODS, &format!("{call_id} runs"), async || {
            let answer = self.request("GET", &format!("/async-function/{call_id}"), &[], "").await;
            let status = serde_json::from_str::<Value>(&answer.body).ok()?;
            (status["state"] == "running").then_some(())
        })
        .await;
    }

    /// The callbacks that the receiver in the namespace has taken, one JSON object each.
    pub(crate) async fn callbacks(&self, namespace: &str) -> Vec<Value> {
        let answer = self
            .request("GET", &format!("/function/callbacks.{namespace}/callbacks"), &[], "")
            .await;
        answer.body.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the callback of a call.
    pub(crate) async fn callback(&self, namespace: &str, call_id: &str) -> Value {
        let what = format!("the callback of {call_id}");
        until_in(PODS, &what, async || {
            let callbacks = self.callbacks(namespace).await;
            callbacks.into_iter().find(|callback| callback.to_string().contains(call_id))
        })
        .await
    }

    /// Sends a request.
    pub(crate) async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let what = format!("{method} {target} is answered");
        until_in(Duration::from_secs(30), &what, async || {
            let sent = raw::try_request(self.addr(), method, target, headers, body.as_bytes());
            let answer =
                timeout(ANSWER_TIMEOUT, sent).await.unwrap_or_else(|elapsed| Err(elapsed.into()));
            answer.inspect_err(|_| self.reconnect()).ok()
        })
        .await
        .into()
    }

    fn addr(&self) -> SocketAddr {
        self.forward.lock().unwrap_or_else(PoisonError::into_inner).addr()
    }

    /// The tunnel to a pod breaks when that pod ends.
    fn reconnect(&self) {
        let (namespace, service, port) = GATEWAY;
        if let Some(forward) = PortForward::try_to(namespace, service, port) {
            *self.forward.lock().unwrap_or_else(PoisonError::into_inner) = forward;
        }
    }
}

impl From<RawResponse> for Answer {
    fn from(response: RawResponse) -> Self {
        Self {
            status: response.status,
            call_id: response.header("x-call-id").to_owned(),
            call_state: response.header("x-call-state").to_owned(),
            body: response.text(),
        }
    }
}
