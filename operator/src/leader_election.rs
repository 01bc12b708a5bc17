//! Elects the operator that works: the one that holds the Lease `asyncqueue-operator`.
//!
//! Every write to the Lease names the version that it was decided on, so the API server accepts
//! only one of two concurrent claims. An operator that can't renew in time exits before another one
//! may lead. This exit is the fence: after the restart it begins as a standby.

use std::{
    convert::Infallible,
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

use self::lease::{Seen, claim, release};
use crate::{error::chain, metrics::Metrics, run::Program};

mod lease;

/// The name of the Lease.
const NAME: &str = "asyncqueue-operator";

/// The readiness condition. A standby is ready: it could lead at any time.
const CONDITION: &str = "leader-election";

/// Interval of renewals. Five seconds is the longest one that leaves room for a second attempt.
const RENEW: Duration = Duration::from_secs(5);

/// A leader that has not renewed for this time exits. The rest of [`lease::DURATION`] is for what
/// it has begun, and for a clock that runs slow.
const DEADLINE: Duration = Duration::from_secs(10);

/// Interval at which a standby reads the Lease, and pause after an attempt that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Time limit of one request: a connection that hangs must leave time for another attempt.
const REQUEST: Duration = Duration::from_secs(3);

/// An operator that takes part in the election.
#[derive(Debug)]
pub(crate) struct Candidate {
    api: Api<Lease>,
    /// The name with which it holds the Lease.
    me: String,
    health: Health,
    metrics: Metrics,
}

/// An operator that leads.
#[derive(Debug)]
pub(crate) struct Leader {
    candidate: Candidate,
    /// The Lease as it was last written.
    lease: Lease,
    /// Time at which that write began.
    renewed: Instant,
}

/// Reason why an operator no longer leads.
#[derive(Debug, thiserror::Error)]
#[error("does not lead any more, and ends for another to take over: {0}")]
pub(crate) struct Deposed(String);

// === impl Candidate ===

impl Candidate {
    /// Creates a candidate for the Lease in this namespace.
    pub(crate) fn new(program: &Program, namespace: &str) -> Self {
        let Program { settings, client, health, metrics, .. } = program;
        // A container that restarts in its pod need not wait for the lease of the previous one.
        // Outside of pods, each process has a name of its own.
        let me = settings.pod_name.as_ref().cloned();
        Self {
            api: Api::namespaced(client.clone(), namespace),
            me: me.unwrap_or_else(|| format!("{NAME}-{}", std::process::id())),
            health: health.clone(),
            metrics: metrics.clone(),
        }
    }

    /// Waits while another operator leads or the API server is unavailable. Returns when this one
    /// leads.
    pub(crate) async fn elected(self) -> Leader {
        self.health.register(CONDITION, "the Lease has not been read yet");
        let mut seen = None;
        let mut told = None;
        loop {
            let begun = Instant::now();
            match self.stand(&mut seen).await {
                Ok(Ok(lease)) => {
                    info!(lease = NAME, me = self.me, "leading");
                    self.health.ready(CONDITION);
                    self.metrics.leads(true);
                    return Leader { candidate: self, lease, renewed: begun };
                }
                Ok(Err(leader)) => {
                    self.health.ready(CONDITION);
                    if told.as_ref() != Some(&leader) {
                        info!(lease = NAME, leader, "standing by");
                        told = Some(leader);
                    }
                }
                Err(why) => {
                    warn!(lease = NAME, "can't stand for election: {why}");
                    self.health.not_ready(CONDITION, why);
                }
            }
            sleep(RETRY).await;
        }
    }

    /// Takes the Lease if it is free; otherwise returns the name of its holder.
    async fn stand(&self, seen: &mut Option<Seen>) -> Result<Result<Lease, String>, String> {
        let lease = match bounded(self.api.get_opt(NAME)).await? {
            Some(lease) => lease,
            None => bounded(self.api.create(&PostParams::default(), &unclaimed())).await?,
        };
        let now = Instant::now();
        let spec = lease.spec.clone().unwrap_or_default();
        let latest = Seen::new(spec.clone(), seen.take(), now);
        let leader = latest.leader(now).filter(|leader| *leader != self.me).map(str::to_owned);
        *seen = Some(latest);
        match leader {
            Some(leader) => Ok(Err(leader)),
            None => self.write(lease, claim(&spec, &self.me, Timestamp::now())).await.map(Ok),
        }
    }

    /// Writes the Lease, if it is still the one that was read.
    async fn write(&self, lease: Lease, spec: LeaseSpec) -> Result<Lease, String> {
        let lease = Lease { spec: Some(spec), ..lease };
        bounded(self.api.replace(NAME, &PostParams::default(), &lease)).await
    }
}

// === impl Leader ===

impl Leader {
    /// Renews the Lease until the work is done, and then releases it. Returns earlier if the Lease
    /// is lost.
    pub(crate) async fn lead(mut self, done: CancellationToken) -> Result<(), Deposed> {
        let lost = tokio::select! {
            () = done.cancelled() => None,
            Err(lost) = self.renew_on() => Some(lost),
        };
        self.candidate.metrics.leads(false);
        if let Some(lost) = lost {
            return Err(lost);
        }
        self.give_up().await;
        Ok(())
    }

    async fn renew_on(&mut self) -> Result<Infallible, Deposed> {
        loop {
            sleep(RENEW).await;
            let deadline = (self.renewed + DEADLINE).into();
            let mut why = String::new();
            let renewed = timeout_at(deadline, self.renew(&mut why)).await;
            renewed.map_err(|_| Deposed(format!("the Lease could not be renewed: {why}")))??;
        }
    }

    /// Retries the renewal until it succeeds, and stores the last failure in `why`.
    async fn renew(&mut self, why: &mut String) -> Result<(), Deposed> {
        loop {
            let begun = Instant::now();
            let candidate = &self.candidate;
            let spec = self.lease.spec.clone().unwrap_or_default();
            let spec = claim(&spec, &candidate.me, Timestamp::now());
            match candidate.write(self.lease.clone(), spec).await {
                Ok(lease) => {
                    (self.lease, self.renewed) = (lease, begun);
                    return Ok(());
                }
                Err(problem) => {
                    warn!(lease = NAME, "could not renew: {problem}");
                    *why = problem;
                }
            }
            sleep(RETRY / 2).await;
            // Another write, or our own whose answer was lost: what counts is who holds the Lease.
            if let Ok(Some(lease)) = bounded(candidate.api.get_opt(NAME)).await {
                let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
                if holder != Some(&*candidate.me) {
                    return Err(Deposed(format!("{} holds the Lease", holder.unwrap_or("nobody"))));
                }
                self.lease = lease;
            }
        }
    }

    /// Releases the Lease, so that another operator can lead at once. If that fails, the other one
    /// waits until the lease has expired.
    async fn give_up(self) {
        let spec = release(&self.lease.spec.clone().unwrap_or_default(), Timestamp::now());
        match self.candidate.write(self.lease, spec).await {
            Ok(_) => info!(lease = NAME, "gave the lease up"),
            Err(why) => warn!(lease = NAME, "could not give the lease up: {why}"),
        }
    }
}

/// Returns a Lease without a holder.
fn unclaimed() -> Lease {
    let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
    Lease { metadata, spec: Some(LeaseSpec::default()) }
}

/// Returns the answer if it comes in time, or the failure.
async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(REQUEST, request).await {
        Ok(answer) => answer.map_err(|error| chain(&error)),
        Err(_) => Err(format!("the Kubernetes API did not answer within {} s", REQUEST.as_secs())),
    }
}
