//! The connection to NATS. It retries without limit, at the start and later.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use async_nats::{Client, ConnectOptions, client::FlushErrorKind, connection::State};
use prometheus_client::registry::Registry;

use self::{
    address::{Login, Servers},
    events::ConnectionEvents,
};
pub use self::{
    address::{has_credentials, without_credentials},
    ca::CaBundle,
    credentials::Credentials,
    keep_up::keep_up,
};
use crate::{contract::setting, health::Health, settings::NatsSettings};

mod address;
mod ca;
mod credentials;
mod events;
pub mod jetstream_check;
mod keep_up;
pub mod server_version;

/// Name of the readiness condition that [`connect`] maintains.
pub const CONDITION: &str = "nats";

/// Interval of the pings to the server. Two missing answers end the connection, so that the failure
/// of a server's node is noticed within half a minute.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How often [`wait_connected`] checks: the client has a state, but does not notify of its changes.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Interval at which a continuing problem with NATS is logged. It is short enough for somebody who
/// watches the log, and long enough not to flood it.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What a connection needs that is neither in the settings nor in files.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// The credentials of this program.
    pub credentials: Option<Credentials>,
    /// The trusted certificate authorities. If they are set, TLS is required.
    pub ca: Option<CaBundle>,
}

/// Creates a client that connects in the background and retries without limit. The files that the
/// settings name are read for each connection, so that a change takes effect.
///
/// Registers the readiness condition `nats` and the metrics `nats_reconnect_total` and
/// `nats_connected`. Logs when the connection is established or lost and, while it can't be
/// established, why. `name` is the name of the connection in NATS.
///
/// # Errors
///
/// A setting that can't be used: an address or a file. It never fails because NATS is unavailable.
pub async fn connect(
    settings: &NatsSettings,
    name: &str,
    health: &Health,
    registry: &mut Registry,
) -> anyhow::Result<Client> {
    let credentials = settings.nats_creds_file.as_ref().cloned().map(Credentials::file);
    let secrets = Secrets { credentials, ca: None };
    connect_with(settings, secrets, name, health, registry).await
}

/// Connects like [`connect`], with secrets that are not in files. They take precedence over those
/// that the settings name.
///
/// # Errors
///
/// A setting or a secret that can't be used. It never fails because NATS is unavailable.
pub async fn connect_with(
    settings: &NatsSettings,
    secrets: Secrets,
    name: &str,
    health: &Health,
    registry: &mut Registry,
) -> anyhow::Result<Client> {
    let servers = Servers::from_settings(settings)?;
    let events = ConnectionEvents::new(servers.to_string(), health.clone(), registry);
    let mut options = match secrets.credentials {
        Some(credentials) => {
            credentials.validate().await?;
            ConnectOptions::with_auth_callback(move |nonce| {
                let credentials = credentials.clone();
                async move { credentials.sign_nonce(nonce).await }
            })
        }
        None => ConnectOptions::new(),
    };
    options = options
        .name(name)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .ping_interval(PING_INTERVAL)
        .event_callback({
            let events = events.clone();
            move |event| {
                events.handle(&event);
                std::future::ready(())
            }
        })
        // Does not choose a server: this callback is the only place where the client says why the
        // last attempt failed.
        .reconnect_to_server_callback(move |pool, _| {
            events.connect_started(&pool);
            std::future::ready(None)
        });
    options = match servers.login {
        Some(Login::Password { user, password }) => options.user_and_password(user, password),
        Some(Login::Token(token)) => options.token(token),
        None => options,
    };
    if let Some(ca) = secrets.ca {
        options = options.tls_client_config(ca.into_config()).require_tls(true);
    } else if let Some(file) = settings.nats_tls_ca_file.as_ref() {
        ensure_readable(setting::NATS_TLS_CA_FILE, file)?;
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    if let Some((certificate, key)) = client_certificate(settings)? {
        options = options.add_client_certificate(certificate, key).require_tls(true);
    }
    options.connect(&servers.addresses[..]).await.context("failed to start the NATS client")
}

/// Returns the files of the client certificate and its key, if they are set.
fn client_certificate(settings: &NatsSettings) -> anyhow::Result<Option<(PathBuf, PathBuf)>> {
    match (settings.nats_tls_cert_file.as_ref(), settings.nats_tls_key_file.as_ref()) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            ensure_readable(setting::NATS_TLS_CERT_FILE, certificate)?;
            ensure_readable(setting::NATS_TLS_KEY_FILE, key)?;
            Ok(Some((certificate.clone(), key.clone())))
        }
        _ => bail!("nats_tls_cert_file and nats_tls_key_file need each other: set both or none"),
    }
}

/// Checks that a file exists. The client reads it at each attempt, and would wait without limit for
/// a file that does not exist.
fn ensure_readable(setting: &str, file: &Path) -> anyhow::Result<()> {
    std::fs::metadata(file)
        .with_context(|| format!("{setting} `{}` can't be read", file.display()))
        .map(|_| ())
}

/// Returns if this program can't work with its connection: the client has ended, or JetStream is
/// too old. The error gives the reason and, for the latter, the remedy. `servers` is the name of
/// the server in it, see [`urls`](jetstream_check::urls).
pub async fn failure(client: &Client, servers: &str) -> anyhow::Error {
    tokio::select! {
        error = client_terminated(client) => error,
        unsupported = server_version::unsupported(client, servers) => unsupported.into(),
    }
}

/// Returns if the client has ended. It never ends by itself: its task has panicked because of what
/// it was sent. It then answers nothing any more, so that the program must be restarted. The error
/// gives the reason.
async fn client_terminated(client: &Client) -> anyhow::Error {
    while !client.flush().await.is_err_and(|error| error.kind() == FlushErrorKind::SendError) {
        tokio::time::sleep(PING_INTERVAL).await;
    }
    anyhow!("the NATS client terminated unexpectedly, possibly because of a malformed message")
}

/// Returns when the client is connected. To stop waiting, drop the future.
pub async fn wait_connected(client: &Client) {
    while client.connection_state() != State::Connected {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
