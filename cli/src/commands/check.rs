//! `kubectl aq check`

use std::time::Duration;

use anyhow::{Context, bail};
use asyncqueue::GoDuration;
use asyncqueue_runtime::{
    client::{self, Client, Config, ConnectionLimits},
    error::error_chain,
    settings::parse_call_url,
};
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::connect::{HttpConnector, dns::GaiResolver};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{inventory, output, session::Session};

/// Interval between two requests to a gateway that is not ready.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum part of an answer that is shown.
const MAX_BODY: usize = 1024;

/// Checks that NATS, JetStream and a gateway answer
///
/// `helm test` runs it in the cluster.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
        kubectl aq check --gateway-url http://asyncqueue-gateway.openfaas:8080")]
pub(crate) struct CheckArgs {
    /// URL of a gateway. Default: only NATS is checked
    #[arg(long, value_parser = parse_call_url)]
    gateway_url: Option<String>,

    /// Maximum time until the gateway is ready
    #[arg(long, default_value = "30s")]
    timeout: GoDuration,
}

pub(crate) async fn run(session: &Session, arguments: &CheckArgs) -> anyhow::Result<()> {
    let queues = inventory::read(&session.js).await?.queues.len();
    output::print(&format!("NATS and JetStream answer: {queues} queues\n"))?;
    if let Some(url) = &arguments.gateway_url {
        let ready = format!("{}/readyz", url.trim_end_matches('/'));
        let uri = ready.parse().with_context(|| format!("--gateway-url `{url}` is not a URL"))?;
        wait_until_ready(&uri, arguments.timeout.0).await?;
        output::print(&format!("the gateway at {url} is ready\n"))?;
    }
    Ok(())
}

/// Asks a gateway until it is ready. The error is that of the last request.
async fn wait_until_ready(uri: &Uri, timeout: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    let limits = ConnectionLimits { max_age: timeout, max_requests: u32::MAX };
    let client = Client::new(client::tcp(GaiResolver::new()), Config::new(limits));
    let mut last = "no answer".to_owned();
    loop {
        match timeout_at(deadline, ask(&client, uri)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = error_chain(error.as_ref()),
            Err(_) => bail!("{uri} is not ready within {}: {last}", GoDuration(timeout)),
        }
        if timeout_at(deadline, sleep(RETRY_INTERVAL)).await.is_err() {
            bail!("{uri} is not ready within {}: {last}", GoDuration(timeout));
        }
    }
}

async fn ask(
    client: &Client<HttpConnector<GaiResolver>, Empty<Bytes>>,
    uri: &Uri,
) -> anyhow::Result<()> {
    let response = client.send(Request::get(uri).body(Empty::new())?, |_| None).await?;
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    bail!("it answers {status}: {}", String::from_utf8_lossy(&body).trim());
}
