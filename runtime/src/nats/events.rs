//! Reports the state of the connection to readiness, the log and the metrics.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use async_nats::{ClientError, ConnectErrorKind, Event, Server};
use jiff::Timestamp;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tracing::{info, warn};

use super::{CONDITION, LOG_INTERVAL};
use crate::health::Health;

/// Monitors the connection of one client.
#[derive(Debug)]
pub(super) struct ConnectionEvents {
    servers: String,
    health: Health,
    reconnects: Counter,
    connected: Gauge,
    state: Mutex<ConnectionState>,
}

#[derive(Debug)]
struct ConnectionState {
    connected: bool,
    connected_before: bool,
    /// What is not connected, and since when: the beginning of the reason for not being ready.
    not_ready_reason: String,
    logged: Option<(String, Instant)>,
}

// === impl ConnectionEvents ===

impl ConnectionEvents {
    pub(super) fn new(servers: String, health: Health, registry: &mut Registry) -> Arc<Self> {
        let (reconnects, connected) = (Counter::default(), Gauge::default());
        registry.register(
            "nats_reconnect",
            "Connections to NATS after the first",
            reconnects.clone(),
        );
        registry.register(
            "nats_connected",
            "1 while there is a connection to NATS, else 0",
            connected.clone(),
        );
        let not_ready_reason = format!("waiting for NATS at {servers}");
        health.register(CONDITION, not_ready_reason.clone());
        let state = ConnectionState {
            connected: false,
            connected_before: false,
            not_ready_reason,
            logged: None,
        };
        Arc::new(Self { servers, health, reconnects, connected, state: Mutex::new(state) })
    }

    /// Handles an event of the connection.
    pub(super) fn handle(&self, event: &Event) {
        match event {
            Event::Connected => self.connected(),
            Event::Disconnected => self.disconnected(),
            Event::LameDuckMode => info!("the NATS server is shutting down, using another one"),
            Event::ServerError(error) => warn!(%error, "NATS reported an error"),
            Event::SlowConsumer(subscription) => {
                warn!(subscription, "slow consumer: messages arrive faster than they are read");
            }
            // The only connection failure that the server pool does not record.
            Event::ClientError(ClientError::Other(kind))
                if *kind == ConnectErrorKind::Dns.to_string() =>
            {
                self.report_waiting("its name does not resolve");
            }
            // For the other failures, `connect_started` has the reason.
            Event::ClientError(_) | Event::Draining | Event::Closed => {}
        }
    }

    /// Handles the start of an attempt to connect. The pool says how the previous attempt failed.
    pub(super) fn connect_started(&self, pool: &[Server]) {
        if let Some(reason) = failures(pool) {
            self.report_waiting(&reason);
        }
    }

    fn connected(&self) {
        let mut state = self.lock();
        if state.connected_before {
            self.reconnects.inc();
        }
        state.connected = true;
        state.connected_before = true;
        state.logged = None;
        self.connected.set(1);
        self.health.ready(CONDITION);
        info!("connected to NATS at {}", self.servers);
    }

    fn disconnected(&self) {
        let mut state = self.lock();
        state.connected = false;
        self.connected.set(0);
        state.not_ready_reason =
            format!("disconnected from NATS at {} since {:.0}", self.servers, Timestamp::now());
        self.health.not_ready(CONDITION, state.not_ready_reason.clone());
        warn!("disconnected from NATS at {}", self.servers);
    }

    fn report_waiting(&self, reason: &str) {
        let mut state = self.lock();
        if state.connected {
            return;
        }
        self.health.not_ready(CONDITION, format!("{}: {reason}", state.not_ready_reason));
        let now = Instant::now();
        if should_log(state.logged.as_ref(), reason, now) {
            state.logged = Some((reason.to_owned(), now));
            warn!("waiting for NATS at {}: {reason}", self.servers);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Describes how the last attempts failed, for each server if they differ. The order of the pool
/// changes each time, but the text stays the same.
fn failures(pool: &[Server]) -> Option<String> {
    let failed =
        pool.iter().filter_map(|server| Some((&server.addr, server.last_error.as_deref()?)));
    let mut failed: Vec<_> =
        failed.map(|(addr, error)| (addr.host(), addr.port(), error)).collect();
    failed.sort_unstable();
    let (_, _, first) = *failed.first()?;
    if failed.iter().all(|(_, _, error)| *error == first) {
        return Some(first.to_owned());
    }
    let each = failed.iter().map(|(host, port, error)| format!("{host}:{port}: {error}"));
    Some(each.collect::<Vec<_>>().join("; "))
}

/// Returns whether a reason is logged: it differs from the last one, or the last line was long ago.
fn should_log(last: Option<&(String, Instant)>, reason: &str, now: Instant) -> bool {
    last.is_none_or(|(last, at)| last != reason || now.duration_since(*at) >= LOG_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(health: &Health) -> String {
        health.report().unwrap_err().remove(0).1
    }

    #[test]
    fn readiness_follows_the_connection_and_says_why() {
        let health = Health::new();
        let events =
            ConnectionEvents::new("nats:4222".to_owned(), health.clone(), &mut Registry::default());
        assert_eq!(reason(&health), "waiting for NATS at nats:4222");
        events.report_waiting("refused");
        assert_eq!(reason(&health), "waiting for NATS at nats:4222: refused");

        events.handle(&Event::Connected);
        assert_eq!(health.report(), Ok(()));
        assert_eq!((events.reconnects.get(), events.connected.get()), (0, 1));

        events.handle(&Event::Disconnected);
        events.report_waiting("refused");
        let reason = reason(&health);
        assert_eq!(events.connected.get(), 0);
        assert!(reason.starts_with("disconnected from NATS at nats:4222 since "), "{reason}");
        assert!(reason.ends_with(": refused"), "{reason}");

        events.handle(&Event::Connected);
        assert_eq!(health.report(), Ok(()));
        assert_eq!((events.reconnects.get(), events.connected.get()), (1, 1));
    }

    #[test]
    fn failures_of_different_servers_are_distinguished() {
        let server = |host: &str, error: Option<&str>| Server {
            addr: format!("nats://{host}:4222").parse().unwrap(),
            failed_attempts: 1,
            did_connect: false,
            is_discovered: false,
            last_error: error.map(str::to_owned),
        };
        assert_eq!(failures(&[server("a", None)]), None);
        let (a, b) = (server("a", Some("refused")), server("b", Some("timed out")));
        assert_eq!(
            failures(&[a.clone(), server("b", Some("refused"))]).as_deref(),
            Some("refused")
        );
        let both = Some("a:4222: refused; b:4222: timed out".to_owned());
        assert_eq!(failures(&[a.clone(), b.clone()]), both);
        assert_eq!(failures(&[b, a]), both);
    }

    #[test]
    fn a_reason_is_logged_when_it_changes_and_every_few_seconds() {
        let start = Instant::now();
        let last = ("refused".to_owned(), start);
        assert!(should_log(None, "refused", start));
        assert!(should_log(Some(&last), "timed out", start));
        assert!(!should_log(Some(&last), "refused", start + LOG_INTERVAL / 2));
        assert!(should_log(Some(&last), "refused", start + LOG_INTERVAL));
    }
}
