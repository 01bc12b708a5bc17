//! The way to NATS through the Kubernetes API, for who has no address of NATS: kubectl forwards a
//! port to a pod of it.
//!
//! kubectl and not a library: it knows each way to log in, and where the user may not use
//! `WebSockets` (`get` of `pods/portforward`) it forwards the port without them.

use std::{net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use asyncqueue_runtime::settings::{NatsSettings, Optional};
use clap::{ArgMatches, Args, parser::ValueSource};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// The port of NATS in its pod.
const NATS_PORT: u16 = 4222;

/// Maximum time until kubectl forwards the port. Logging in to a cloud may take a while.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum time for reading an object. Logging in to a cloud may take a while.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// What kubectl prints before the address that it listens on.
const FORWARDING: &str = "Forwarding from ";

/// How NATS is found in the cluster.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterArgs {
    /// Namespace of NATS. Default: that of the context
    #[arg(long, short = 'n')]
    namespace: Option<String>,

    /// Context of the kubeconfig. Default: its current one
    #[arg(long)]
    context: Option<String>,

    /// Path of the kubeconfig. Default: `KUBECONFIG`, or `~/.kube/config`
    #[arg(long, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,

    /// Pod of NATS, to whose port 4222 kubectl forwards a port if neither `--nats-url` nor
    /// `--nats-host` is given
    #[arg(long, value_name = "POD", default_value = "nats-0")]
    nats_pod: String,

    /// Whether the user named the address of NATS.
    #[arg(skip)]
    is_address_given: bool,
}

/// A port that kubectl forwards until this is dropped.
#[derive(Debug)]
pub(crate) struct PortForward {
    _kubectl: Child,
}

impl ClusterArgs {
    /// Notes what was given and what has its default.
    pub(crate) fn note_sources(&mut self, matches: &ArgMatches) {
        let is_given =
            |id| matches.value_source(id).is_some_and(|source| source != ValueSource::DefaultValue);
        self.is_address_given = is_given("nats_url") || is_given("nats_host");
    }

    /// Forwards a port to NATS and returns settings that name it. Returns `None` if the user named
    /// the address, or if there is no kubectl: then NATS has its usual name, as for a pod.
    pub(crate) async fn find_nats(
        &self,
        settings: &NatsSettings,
    ) -> anyhow::Result<Option<(NatsSettings, PortForward)>> {
        if self.is_address_given {
            return Ok(None);
        }
        let mut command = Command::new("kubectl");
        command
            .arg("port-forward")
            .args(self.kubectl_options(self.namespace.as_deref()))
            .arg("--address=127.0.0.1")
            .arg(format!("pod/{}", self.nats_pod))
            .arg(format!(":{NATS_PORT}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut kubectl = match command.spawn() {
            Ok(kubectl) => kubectl,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("failed to start kubectl"),
        };
        let Ok(address) = timeout(START_TIMEOUT, address_of(&mut kubectl)).await else {
            let limit = START_TIMEOUT.as_secs();
            bail!("failed to find NATS: kubectl forwards no port within {limit}s; give --nats-url");
        };
        let address = match address? {
            Ok(address) => address,
            Err(said) => bail!("failed to find NATS: {}: {said}", self.remedy(&said)),
        };
        let url = Optional(Some(format!("nats://{address}")));
        let settings = NatsSettings { nats_url: url, ..settings.clone() };
        Ok(Some((settings, PortForward { _kubectl: kubectl })))
    }

    /// Returns what kubectl prints for `get` with these arguments, or why it can't be read.
    pub(crate) async fn get(&self, arguments: &[&str]) -> Result<Vec<u8>, String> {
        let kubectl = Command::new("kubectl")
            .arg("get")
            .args(arguments)
            .args(self.kubectl_options(None))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let limit = READ_TIMEOUT.as_secs();
        match timeout(READ_TIMEOUT, kubectl).await {
            Ok(Ok(output)) if output.status.success() => Ok(output.stdout),
            Ok(Ok(output)) => Err(last_line(&String::from_utf8_lossy(&output.stderr))),
            Ok(Err(error)) => Err(format!("failed to run kubectl: {error}")),
            Err(_) => Err(format!("kubectl does not answer within {limit}s")),
        }
    }

    /// Returns the options of kubectl for a namespace. `None` is that of the context.
    pub(crate) fn kubectl_options(&self, namespace: Option<&str>) -> Vec<String> {
        let namespace = namespace.map(|name| format!("--namespace={name}"));
        let context = self.context.as_ref().map(|name| format!("--context={name}"));
        let kubeconfig =
            self.kubeconfig.as_ref().map(|path| format!("--kubeconfig={}", path.display()));
        [namespace, context, kubeconfig].into_iter().flatten().collect()
    }

    /// Returns what to do about an error of kubectl.
    fn remedy(&self, said: &str) -> String {
        let of = self.namespace.as_ref().map_or_else(
            || "the namespace of the context".to_owned(),
            |name| format!("the namespace `{name}`"),
        );
        if said.contains("(Forbidden)") || said.contains("is forbidden") {
            format!(
                "you need `get` of `pods` and `create` of `pods/portforward` in {of}, \
                 or give --nats-url"
            )
        } else if said.contains("(NotFound)") {
            format!(
                "there is no pod `{}` in {of}: name that of NATS with --namespace and --nats-pod, \
                 or give --nats-url",
                self.nats_pod
            )
        } else {
            "check --context and --kubeconfig, or give --nats-url".to_owned()
        }
    }
}

/// Returns the address that kubectl listens on, or what it said when it ended.
async fn address_of(kubectl: &mut Child) -> anyhow::Result<Result<SocketAddr, String>> {
    let (Some(stdout), Some(mut stderr)) = (kubectl.stdout.take(), kubectl.stderr.take()) else {
        bail!("failed to read what kubectl prints");
    };
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await.context("failed to read from kubectl")? {
        if let Some(address) = listening_at(&line) {
            // It prints a line for each connection, and ends if it can't.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
            return Ok(Ok(address));
        }
    }
    let mut said = String::new();
    stderr.read_to_string(&mut said).await.context("failed to read from kubectl")?;
    Ok(Err(said.trim().replace('\n', "; ")))
}

/// Returns the last line that kubectl prints: the error, without the warnings before it.
fn last_line(said: &str) -> String {
    said.trim().lines().next_back().unwrap_or("kubectl failed and gave no reason").to_owned()
}

/// Returns the address in a line that kubectl prints when it listens.
fn listening_at(line: &str) -> Option<SocketAddr> {
    line.strip_prefix(FORWARDING)?.split_once(" -> ")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_what_kubectl_prints() {
        let address = listening_at("Forwarding from 127.0.0.1:34685 -> 4222");
        assert_eq!(address, Some("127.0.0.1:34685".parse().unwrap()));
        for other in ["", "Handling connection for 34685", "Forwarding from x -> 4222"] {
            assert_eq!(listening_at(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_line_of_kubectl_is_the_error() {
        assert_eq!(last_line("W: old\nThe connection was refused\n"), "The connection was refused");
        assert_eq!(last_line(""), "kubectl failed and gave no reason");
    }

    #[test]
    fn an_error_of_kubectl_is_printed_with_its_remedy() {
        let arguments = ClusterArgs {
            namespace: Some("openfaas".to_owned()),
            context: None,
            kubeconfig: None,
            nats_pod: "nats-0".to_owned(),
            is_address_given: false,
        };
        let remedies = [
            (
                r#"Error from server (Forbidden): pods "nats-0" is forbidden: ..."#,
                "`pods/portforward`",
            ),
            (r#"Error from server (NotFound): pods "nats-0" not found"#, "--nats-pod"),
            ("The connection to the server localhost:8080 was refused", "--kubeconfig"),
        ];
        for (said, remedy) in remedies {
            let text = arguments.remedy(said);
            assert!(text.contains(remedy) && text.contains("--nats-url"), "{text}");
        }
        assert!(arguments.remedy(remedies[0].0).contains("`openfaas`"));
        assert_eq!(arguments.kubectl_options(Some("openfaas")), ["--namespace=openfaas"]);
    }
}
