//! The connection to NATS. It never gives up: not at the start, and not later.

use std::time::Duration;

use anyhow::{Context, anyhow};
use async_nats::{Client, ConnectOptions, client::FlushErrorKind, connection::State};
use prometheus_client::registry::Registry;

use self::{
    address::{Login, Servers},
    monitor::Monitor,
};
pub use self::{
    address::{holds_credentials, without_credentials},
    authority::Authority,
    credentials::Credentials,
};
use crate::{health::Health, settings::NatsSettings};

mod address;
mod authority;
mod credentials;
pub mod jetstream;
mod monitor;

/// The readiness condition that [`connect`] keeps.
pub const CONDITION: &str = "nats";

/// How often the server is asked whether it is still there. Two answers missing end the connection, so a
/// server whose node is gone without a word is noticed within half a minute.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How often [`wait_connected`] looks: the client offers its state, but no notice of its change.
const POLL: Duration = Duration::from_millis(50);

/// While the same is wrong with NATS, it is logged this often: often enough for somebody who watches, and seldom enough to be
/// no flood.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What a connection takes that is not in the settings, because it is not in files.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Who we are.
    pub credentials: Option<Credentials>,
    /// Whom we trust; set, TLS is required.
    pub authority: Option<Authority>,
}

/// A client that connects in the background, as often as it takes. The files that the settings name are read for each
/// connection, so that a change of them counts.
///
/// Registers the readiness condition `nats` and the metrics `nats_reconnect_total` and `nats_connected`, and logs when the
/// connection comes and goes and, while it doesn't come, why. `name` is what NATS lists the connection as.
///
/// # Errors
///
/// A setting that can't be used: an address or a file. Never because NATS is away.
pub async fn connect(
    settings: &NatsSettings,
    name: &str,
    health: &Health,
    registry: &mut Registry,
) -> anyhow::Result<Client> {
    let credentials = settings.nats_creds_file.as_ref().cloned().map(Credentials::file);
    let secrets = Secrets { credentials, authority: None };
    connect_with(settings, secrets, name, health, registry).await
}

/// The same with secrets that are not in files, which come before those that the settings name.
///
/// # Errors
///
/// A setting or a secret that can't be used. Never because NATS is away.
pub async fn connect_with(
    settings: &NatsSettings,
    secrets: Secrets,
    name: &str,
    health: &Health,
    registry: &mut Registry,
) -> anyhow::Result<Client> {
    let servers = Servers::from_settings(settings)?;
    let monitor = Monitor::new(servers.to_string(), health.clone(), registry);
    let mut options = match secrets.credentials {
        Some(credentials) => {
            credentials.check().await?;
            ConnectOptions::with_auth_callback(move |nonce| {
                let credentials = credentials.clone();
                async move { credentials.answer(nonce).await }
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
            let monitor = monitor.clone();
            move |event| {
                monitor.event(&event);
                std::future::ready(())
            }
        })
        // Chooses no server: it is the one place where the client says why the last attempt failed.
        .reconnect_to_server_callback(move |pool, _| {
            monitor.attempt(&pool);
            std::future::ready(None)
        });
    options = match servers.login {
        Some(Login::Password { user, password }) => options.user_and_password(user, password),
        Some(Login::Token(token)) => options.token(token),
        None => options,
    };
    if let Some(authority) = secrets.authority {
        options = options.tls_client_config(authority.into_config()).require_tls(true);
    } else if let Some(file) = settings.nats_tls_ca_file.as_ref() {
        // The client reads it at each attempt and would wait for ever for a file that isn't there.
        std::fs::metadata(file)
            .with_context(|| format!("nats_tls_ca_file `{}` can't be read", file.display()))?;
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    options.connect(&servers.addresses[..]).await.context("the NATS client can't be started")
}

/// Returns if the client has ended, which it never does by itself: what it was sent has ended its task in a panic. Nothing
/// that is asked of it is answered then, so that the program can only be started again; the error is why.
pub async fn ended(client: &Client) -> anyhow::Error {
    while !client.flush().await.is_err_and(|error| error.kind() == FlushErrorKind::SendError) {
        tokio::time::sleep(PING_INTERVAL).await;
    }
    anyhow!("the client of NATS has ended: a message may hold what it can't read")
}

/// Returns when the client is connected. To stop waiting, drop it.
pub async fn wait_connected(client: &Client) {
    while client.connection_state() != State::Connected {
        tokio::time::sleep(POLL).await;
    }
}
