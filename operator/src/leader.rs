//! Which of several operators works: the one that holds the Lease `asyncqueue-operator`.
//!
//! Every write to the Lease names the version that it was decided on, so of two that want it at the same time the API
//! server lets one have it. Who can't renew in time ends, before anybody else may lead: the start that follows is
//! the fence, and begins as a standby.

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

/// The Lease's name.
const NAME: &str = "asyncqueue-operator";

/// The readiness condition. A standby is ready: it could lead at any time.
const CONDITION: &str = "leader-election";

/// Between two renewals. A write every five seconds is the least that leaves room for a second attempt.
const RENEW: Duration = Duration::from_secs(5);

/// A leader that has not renewed for so long ends. The rest of [`lease::DURATION`] is for what it has begun, and
/// for a clock that runs slow.
const DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks of a standby, which reads only, and between attempts that fail.
const RETRY: Duration = Duration::from_secs(2);

/// One request may take this long: a connection that hangs must leave time for another attempt.
const REQUEST: Duration = Duration::from_secs(3);

/// One that wants to lead.
#[derive(Debug)]
pub(crate) struct Candidate {
    api: Api<Lease>,
    /// Under this name.
    me: String,
    health: Health,
    metrics: Metrics,
}

/// One that leads.
#[derive(Debug)]
pub(crate) struct Leader {
    candidate: Candidate,
    /// The Lease as we wrote it last.
    lease: Lease,
    /// When we began to write it.
    renewed: Instant,
}

/// Why one does not lead any more.
#[derive(Debug, thiserror::Error)]
#[error("does not lead any more, and ends for another to take over: {0}")]
pub(crate) struct Deposed(String);

// === impl Candidate ===

impl Candidate {
    /// Prepares to stand for election, with a Lease in this namespace.
    pub(crate) fn new(program: &Program, namespace: &str) -> Self {
        let Program { settings, client, health, metrics, .. } = program;
        // A container that starts again in its pod need not wait for the lease of the one before it. Outside of pods,
        // each process is one of its own.
        let me = settings.pod_name.as_ref().cloned();
        Self {
            api: Api::namespaced(client.clone(), namespace),
            me: me.unwrap_or_else(|| format!("{NAME}-{}", std::process::id())),
            health: health.clone(),
            metrics: metrics.clone(),
        }
    }

    /// Waits for as long as another leads, and for the API server. Then this one leads.
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

    /// Takes the Lease if it is free; else returns who has it.
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

    /// Writes the Lease, if it is still the one that was seen.
    async fn write(&self, lease: Lease, spec: LeaseSpec) -> Result<Lease, String> {
        let lease = Lease { spec: Some(spec), ..lease };
        bounded(self.api.replace(NAME, &PostParams::default(), &lease)).await
    }
}

// === impl Leader ===

impl Leader {
    /// Renews the Lease until the work is done, and then gives it up. Returns earlier if it is lost.
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

    /// Tries to renew until that works, and keeps in `why` how it failed.
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
            // Somebody else's write, or our own whose answer got lost: what counts is who holds it.
            if let Ok(Some(lease)) = bounded(candidate.api.get_opt(NAME)).await {
                let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
                if holder != Some(&*candidate.me) {
                    return Err(Deposed(format!("{} holds the Lease", holder.unwrap_or("nobody"))));
                }
                self.lease = lease;
            }
        }
    }

    /// Lets another one lead at once. If that fails, it waits until the lease is over.
    async fn give_up(self) {
        let spec = release(&self.lease.spec.clone().unwrap_or_default(), Timestamp::now());
        match self.candidate.write(self.lease, spec).await {
            Ok(_) => info!(lease = NAME, "gave the lease up"),
            Err(why) => warn!(lease = NAME, "could not give the lease up: {why}"),
        }
    }
}

/// The Lease that nobody has held yet.
fn unclaimed() -> Lease {
    let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
    Lease { metadata, spec: Some(LeaseSpec::default()) }
}

/// An answer that comes in time, or why there is none.
async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(REQUEST, request).await {
        Ok(answer) => answer.map_err(|error| chain(&error)),
        Err(_) => Err(format!("the Kubernetes API did not answer within {} s", REQUEST.as_secs())),
    }
}
