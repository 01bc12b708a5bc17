//! Leader election: the operator that holds the Lease `asyncqueue-operator` works.
//!
//! Names and rules are those of client-go's `leaderelection`. Every write to the Lease contains the
//! resource version that it was decided on, so the API server accepts only one of two concurrent
//! claims. An operator that can't renew in time exits before another one may lead. This exit is the
//! fence: after the restart it is a standby.

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};

use asyncqueue_runtime::health::Health;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::lease::{ObservedLease, claim, release};
use crate::{
    app::App,
    depth::{DepthEndpoint, Leader},
    error::chain,
    labels::{ADDRESS_ANNOTATION, OPERATOR_NAME},
    metrics::Metrics,
};

mod lease;

/// The name of the Lease.
const LEASE_NAME: &str = OPERATOR_NAME;

/// The readiness condition. A standby is ready: it could lead at any time.
const CONDITION: &str = "leader-election";

/// Interval of renewals. Five seconds is the longest one that leaves room for a second attempt.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);

/// A leader that has not renewed for this time exits. The rest of [`lease::LEASE_DURATION`] is for
/// what it has started, and for a clock that runs slow.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Interval at which a standby reads the Lease, and delay after an attempt that failed.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Time limit of one request: a connection that hangs must leave time for another attempt.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// An operator that takes part in the election.
pub(crate) struct LeaderElector {
    api: Api<Lease>,
    /// The name with which it holds the Lease.
    identity: String,
    /// Address of its HTTP endpoints, for standbys, if it is known.
    address: Option<SocketAddr>,
    health: Health,
    metrics: Metrics,
    /// Redirects to the leader while this operator is a standby.
    depth: DepthEndpoint,
}

/// The Lease of an operator that leads.
pub(crate) struct LeaderLease {
    elector: LeaderElector,
    /// The Lease as it was last written.
    lease: Lease,
    /// Time at which that write began.
    renewed: Instant,
}

/// Result of an attempt to acquire the Lease.
enum Acquisition {
    Acquired(Box<Lease>),
    /// Another operator holds it.
    HeldBy(Leader),
}

/// Reason why an operator no longer leads.
#[derive(Debug, thiserror::Error)]
#[error("lost leadership, exiting so that another operator can lead: {0}")]
pub(crate) struct LeadershipLost(String);

// === impl LeaderElector ===

impl LeaderElector {
    /// Creates an elector for the Lease in this namespace. The identity is the name of the pod: a
    /// container that restarts in its pod need not wait for the lease of the previous one. Outside
    /// of pods, each process has an identity of its own.
    pub(crate) fn new(app: &App, namespace: &str) -> Self {
        let App { settings, client, health, metrics, depth, .. } = app;
        let pod_name = settings.pod_name.0.clone();
        Self {
            api: Api::namespaced(client.clone(), namespace),
            identity: pod_name.unwrap_or_else(|| format!("{LEASE_NAME}-{}", std::process::id())),
            address: settings.own_address(),
            health: health.clone(),
            metrics: metrics.clone(),
            depth: depth.clone(),
        }
    }

    /// Acquires the Lease. Waits while another operator leads or the API server is unavailable.
    pub(crate) async fn acquire(self) -> LeaderLease {
        self.health.register(CONDITION, "the Lease has not been read yet");
        let (mut observed, mut logged_leader) = (None, None);
        loop {
            let started = Instant::now();
            match self.try_acquire(&mut observed).await {
                Ok(Acquisition::Acquired(lease)) => {
                    info!(lease = LEASE_NAME, identity = self.identity, "became leader");
                    self.health.ready(CONDITION);
                    self.metrics.set_leader(true);
                    self.depth.set_unknown("this operator has just become the leader");
                    return LeaderLease { elector: self, lease: *lease, renewed: started };
                }
                Ok(Acquisition::HeldBy(leader)) => {
                    self.health.ready(CONDITION);
                    if logged_leader.as_ref() != Some(&leader.name) {
                        info!(lease = LEASE_NAME, leader = leader.name, "standing by");
                        logged_leader = Some(leader.name.clone());
                    }
                    self.depth.set_standby(leader);
                }
                Err(reason) => {
                    warn!(lease = LEASE_NAME, "failed to acquire the lease: {reason}");
                    self.depth.set_unknown(format!(
                        "the leader is unknown: failed to read the Lease: {reason}"
                    ));
                    self.health.not_ready(CONDITION, reason);
                }
            }
            sleep(RETRY_PERIOD).await;
        }
    }

    /// Acquires the Lease if it is free.
    async fn try_acquire(
        &self,
        observed: &mut Option<ObservedLease>,
    ) -> Result<Acquisition, String> {
        let lease = match with_timeout(self.api.get_opt(LEASE_NAME)).await? {
            Some(lease) => lease,
            None => {
                with_timeout(self.api.create(&PostParams::default(), &lease_without_holder()))
                    .await?
            }
        };
        let now = Instant::now();
        let spec = lease.spec.clone().unwrap_or_default();
        let latest = ObservedLease::new(spec.clone(), observed.take(), now);
        let name = latest.holder(now).filter(|holder| *holder != self.identity);
        let name = name.map(str::to_owned);
        *observed = Some(latest);
        if let Some(name) = name {
            return Ok(Acquisition::HeldBy(Leader { name, address: holder_address(&lease) }));
        }
        let claimed = claim(&spec, &self.identity, Timestamp::now());
        self.update(lease, claimed).await.map(|lease| Acquisition::Acquired(Box::new(lease)))
    }

    /// Updates the Lease, if it is still the one that was read.
    async fn update(&self, lease: Lease, spec: LeaseSpec) -> Result<Lease, String> {
        let lease = with_address(Lease { spec: Some(spec), ..lease }, self.address);
        with_timeout(self.api.replace(LEASE_NAME, &PostParams::default(), &lease)).await
    }
}

// === impl LeaderLease ===

impl LeaderLease {
    /// Renews the Lease until the work is done, and then releases it. Returns earlier if the Lease
    /// is lost.
    pub(crate) async fn hold(mut self, done: CancellationToken) -> Result<(), LeadershipLost> {
        let lost = tokio::select! {
            () = done.cancelled() => None,
            Err(lost) = self.renew_loop() => Some(lost),
        };
        self.elector.metrics.set_leader(false);
        if let Some(lost) = lost {
            return Err(lost);
        }
        self.release().await;
        Ok(())
    }

    async fn renew_loop(&mut self) -> Result<Infallible, LeadershipLost> {
        loop {
            sleep(RENEW_INTERVAL).await;
            let deadline = (self.renewed + RENEW_DEADLINE).into();
            let mut last_error = String::new();
            let renewed = timeout_at(deadline, self.renew(&mut last_error)).await;
            renewed.map_err(|_| {
                LeadershipLost(format!("failed to renew the lease in time: {last_error}"))
            })??;
        }
    }

    /// Retries the renewal until it succeeds, and stores the last failure in `last_error`.
    async fn renew(&mut self, last_error: &mut String) -> Result<(), LeadershipLost> {
        loop {
            let started = Instant::now();
            let elector = &self.elector;
            let spec = self.lease.spec.clone().unwrap_or_default();
            let spec = claim(&spec, &elector.identity, Timestamp::now());
            match elector.update(self.lease.clone(), spec).await {
                Ok(lease) => {
                    (self.lease, self.renewed) = (lease, started);
                    return Ok(());
                }
                Err(error) => {
                    warn!(lease = LEASE_NAME, "failed to renew the lease, retrying: {error}");
                    *last_error = error;
                }
            }
            sleep(RETRY_PERIOD / 2).await;
            // Another operator may have written the Lease, or the response to our own write was
            // lost: what counts is who holds the Lease.
            if let Ok(Some(lease)) = with_timeout(elector.api.get_opt(LEASE_NAME)).await {
                let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
                if holder != Some(&*elector.identity) {
                    let holder = holder.filter(|holder| !holder.is_empty());
                    return Err(LeadershipLost(match holder {
                        Some(holder) => format!("{holder} holds the lease"),
                        None => "the lease has no holder".to_owned(),
                    }));
                }
                self.lease = lease;
            }
        }
    }

    /// Releases the Lease, so that another operator can lead at once. If that fails, the other one
    /// waits until the lease has expired.
    async fn release(self) {
        let spec = release(&self.lease.spec.clone().unwrap_or_default(), Timestamp::now());
        match self.elector.update(self.lease, spec).await {
            Ok(_) => info!(lease = LEASE_NAME, "released the lease"),
            Err(error) => warn!(lease = LEASE_NAME, "failed to release the lease: {error}"),
        }
    }
}

/// Returns a Lease without a holder.
fn lease_without_holder() -> Lease {
    let metadata = ObjectMeta { name: Some(LEASE_NAME.to_owned()), ..ObjectMeta::default() };
    Lease { metadata, spec: Some(LeaseSpec::default()) }
}

/// Returns a Lease with the address of its holder.
fn with_address(mut lease: Lease, address: Option<SocketAddr>) -> Lease {
    let annotations = lease.metadata.annotations.get_or_insert_default();
    match address {
        Some(address) => annotations.insert(ADDRESS_ANNOTATION.to_owned(), address.to_string()),
        None => annotations.remove(ADDRESS_ANNOTATION),
    };
    lease
}

/// Returns the address of the holder of a Lease, if the Lease has it.
fn holder_address(lease: &Lease) -> Option<SocketAddr> {
    lease.metadata.annotations.as_ref()?.get(ADDRESS_ANNOTATION)?.parse().ok()
}

/// Returns the response of the API server, or the reason why it did not respond within the timeout.
async fn with_timeout<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    let Ok(response) = timeout(REQUEST_TIMEOUT, request).await else {
        let seconds = REQUEST_TIMEOUT.as_secs();
        return Err(format!("the Kubernetes API did not answer within {seconds} s"));
    };
    response.map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_the_address_of_its_holder_and_not_of_the_last_one() {
        for address in ["10.0.0.7:8083", "[fd00::7]:8083"] {
            let address = address.parse().ok();
            let lease = with_address(lease_without_holder(), address);
            assert_eq!(holder_address(&lease), address);
            assert_eq!(holder_address(&with_address(lease, None)), None);
        }
        assert_eq!(holder_address(&lease_without_holder()), None);
    }
}
