//! Gets the share of this worker from NATS, and renews it while it is needed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::Context;
use asyncqueue::{
    FunctionName,
    directory::Directory,
    jetstream::NatsError,
    shares::{
        self, Shares, StoredShares, WorkerShare,
        division::{self, Claim, FunctionClaim, Renewal},
    },
};
use asyncqueue_runtime::{error::error_chain, log_limit::LogLimit};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{LEASE, RENEW_INTERVAL, STARTS_WITHIN, function_gate::FunctionGate, gate::Gate};
use crate::{live_settings::LiveSettings, metrics::Metrics};

/// Maximum time for one renewal.
const RENEW_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum time for removing the share at the end.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Minimum time between two warnings about the share.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Number of renewals in a row over which other workers may write.
const MAX_CONFLICTS: usize = 20;

/// Keeps the share of this worker.
pub(crate) struct ShareKeeper {
    pub(crate) js: Context,
    /// The key of the shares: the name of the queue.
    pub(crate) key: String,
    /// The id of this process. No other process has ever had it.
    pub(crate) worker: String,
    pub(crate) settings: watch::Receiver<LiveSettings>,
    pub(crate) directory: watch::Receiver<Option<Arc<Directory>>>,
    pub(crate) gate: Gate,
    pub(crate) functions: FunctionGate,
    /// Receives the settings, with as many slots as the share permits.
    pub(crate) limited: watch::Sender<LiveSettings>,
    pub(crate) metrics: Metrics,
    /// Cancelled when the worker shuts down.
    pub(crate) leaving: CancellationToken,
    /// The share that was written last.
    pub(crate) last: WorkerShare,
}

/// The last writes of the workers, and when they were first seen here.
#[derive(Debug, Default)]
struct Observed(HashMap<String, (u64, Instant)>);

// === impl ShareKeeper ===

impl ShareKeeper {
    /// Keeps the share for as long as it is polled.
    pub(crate) async fn run(&mut self) {
        let mut observed = Observed::default();
        let (failures, leaving) = (LogLimit::new(WARNING_INTERVAL), self.leaving.clone());
        loop {
            let settings = self.settings.borrow_and_update().clone();
            let _ = self.directory.borrow_and_update();
            let claims = self.functions.claims();
            let pause = if settings.has_shared_limits() || !claims.is_empty() {
                let renewed = timeout(RENEW_TIMEOUT, self.renew(&settings, &mut observed)).await;
                let failure = match renewed {
                    Ok(Ok(share)) => {
                        self.report(&settings, &share);
                        self.last = share;
                        None
                    }
                    Ok(Err(error)) => Some(error_chain(&error)),
                    Err(_) => Some("NATS did not answer in time".to_owned()),
                };
                if let Some(failure) = failure.filter(|_| failures.allow(Instant::now()).is_some())
                {
                    warn!(
                        queue = self.key,
                        "failed to renew the share of concurrency and rate, no invocation starts \
                         {STARTS_WITHIN:?} after the last renewal: {failure}"
                    );
                }
                Some(RENEW_INTERVAL.mul_f64(0.8 + 0.4 * rand::random::<f64>()))
            } else {
                self.leave_if_limited().await;
                None
            };
            self.publish();
            let is_due = async {
                match pause {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = is_due => {}
                Ok(()) = self.settings.changed() => {}
                () = self.functions.claims_changed() => {}
                () = claims_differ(&mut self.directory, &self.functions, &claims) => {}
                () = leaving.cancelled(), if pause.is_some() && !self.last.leaving => {}
            }
        }
    }

    /// Gives up the share, if this worker has one.
    pub(crate) async fn leave_if_limited(&mut self) {
        if std::mem::take(&mut self.last) != WorkerShare::default() {
            self.leave().await;
        }
    }

    /// Removes the share, if that succeeds at once. Otherwise others take it after the lease.
    async fn leave(&self) {
        let left = async {
            loop {
                let StoredShares { shares, revision } = shares::read(&self.js, &self.key).await?;
                let left = division::leave(&shares, &self.worker);
                let is_done =
                    left == shares || shares::write(&self.js, &self.key, &left, revision).await?;
                if is_done {
                    return Ok::<(), NatsError>(());
                }
            }
        };
        let _ = timeout(LEAVE_TIMEOUT, left).await;
        self.gate.release();
        self.functions.release();
        self.metrics.remove_share();
    }

    /// Renews the share over what other workers have written, and returns it.
    async fn renew(
        &self,
        settings: &LiveSettings,
        observed: &mut Observed,
    ) -> Result<WorkerShare, NatsError> {
        let mut conflicts = 0;
        loop {
            let StoredShares { shares, revision } = shares::read(&self.js, &self.key).await?;
            let dead = observed.dead(&shares, &self.worker, Instant::now());
            let before = shares.workers.get(&self.worker).map_or(0, |share| share.rate);
            let renewal = self.gate.prepare(|open| {
                let renew = |functions: &_, busy| {
                    let claim = Claim {
                        worker: &self.worker,
                        concurrency: settings.concurrency,
                        has_rate: settings.rate.is_some(),
                        max_inflight: settings.max_inflight.into(),
                        open,
                        leaving: self.leaving.is_cancelled(),
                        busy,
                        functions,
                    };
                    division::renew(&shares, &dead, &claim)
                };
                let renewal = self
                    .functions
                    .prepare(renew, |renewal| (&renewal.function_slots, &renewal.own.functions));
                (renewal.slots, renewal)
            });
            let Renewal { shares: renewed, own, slots, function_slots } = renewal;
            self.gate.lower_rate(settings.rate, before, own.rate);
            let sent = Instant::now();
            if shares::write(&self.js, &self.key, &renewed, revision).await? {
                let until = sent + STARTS_WITHIN;
                self.functions.confirm(&function_slots, &own.functions, until);
                let allowed = WorkerShare { slots, ..own.clone() };
                self.gate.confirm(&allowed, settings.rate, until);
                return Ok(own);
            }
            conflicts += 1;
            if conflicts >= MAX_CONFLICTS {
                sleep(RENEW_INTERVAL.mul_f64(rand::random::<f64>() / 10.0)).await;
            }
        }
    }

    /// Logs and counts a share that has changed.
    fn report(&self, settings: &LiveSettings, share: &WorkerShare) {
        self.metrics.set_share((settings.concurrency, settings.rate), share);
        let (queue, last) = (&self.key, &self.last);
        if last.functions != share.functions {
            debug!(queue, functions = ?share.functions, "shares of the limits of functions");
        }
        if (last.slots, last.rate) == (share.slots, share.rate) {
            return;
        }
        match (settings.concurrency, settings.rate) {
            (Some(total), None) => info!(queue, "share of concurrency: {} of {total}", share.slots),
            (total, _) => {
                let slots = total.map(|total| format!("{} of {total}", share.slots));
                info!(queue, concurrency = slots, "share of the rate: {} of 1000000", share.rate);
            }
        }
    }

    /// Publishes the number of slots.
    fn publish(&self) {
        let mut settings = self.settings.borrow().clone();
        if settings.concurrency.is_some() {
            let slots = u16::try_from(self.gate.slots()).unwrap_or(u16::MAX);
            settings.max_inflight = settings.max_inflight.min(slots);
        }
        self.limited.send_if_modified(|limited| {
            let has_changed = *limited != settings;
            if has_changed {
                *limited = settings;
            }
            has_changed
        });
    }
}

/// Waits until a change of the directory has changed the limits of functions.
async fn claims_differ(
    directory: &mut watch::Receiver<Option<Arc<Directory>>>,
    functions: &FunctionGate,
    claims: &BTreeMap<FunctionName, FunctionClaim>,
) {
    while directory.changed().await.is_ok() {
        if !functions.claims().iter().map(limits).eq(claims.iter().map(limits)) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Returns the limits in a claim.
fn limits<'a>(
    (function, claim): (&'a FunctionName, &FunctionClaim),
) -> (&'a FunctionName, Option<u32>, bool) {
    (function, claim.concurrency, claim.has_rate)
}

// === impl Observed ===

impl Observed {
    /// Records the last writes of the workers. Returns the workers that have not written for the
    /// lease, as seen from here.
    fn dead(&mut self, shares: &Shares, own: &str, now: Instant) -> BTreeSet<String> {
        self.0.retain(|worker, _| shares.workers.contains_key(worker));
        let mut dead = BTreeSet::new();
        for (worker, share) in &shares.workers {
            let seen = self.0.entry(worker.clone()).or_insert((share.beat, now));
            if seen.0 != share.beat {
                *seen = (share.beat, now);
            } else if worker != own && now.duration_since(seen.1) >= LEASE {
                dead.insert(worker.clone());
            }
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_dead_when_it_has_not_written_for_the_lease() {
        let (mut observed, start) = (Observed::default(), Instant::now());
        let shares = |beat| {
            let share = |beat| WorkerShare { beat, ..WorkerShare::default() };
            let workers = [("own", 1), ("stops", 1), ("runs", beat)];
            let workers = workers.map(|(worker, beat)| (worker.to_owned(), share(beat)));
            Shares { workers: workers.into() }
        };
        let mut dead = |beat, after| observed.dead(&shares(beat), "own", start + after);
        assert!(dead(1, Duration::ZERO).is_empty());
        assert!(dead(2, LEASE / 2).is_empty());
        assert!(dead(2, LEASE.mul_f64(0.99)).is_empty());
        assert_eq!(dead(2, LEASE), BTreeSet::from(["stops".to_owned()]));
        assert_eq!(dead(3, LEASE * 2), BTreeSet::from(["stops".to_owned()]));
    }
}
