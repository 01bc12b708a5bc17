//! Creates the queue's streams, consumers and buckets where no operator does, and recreates them if
//! they are missing.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::{connection::State, jetstream::Context};
use asyncqueue::{
    batch, buckets,
    lanes::{Fairness, SWEEP_INTERVAL, Sweeper},
    reserved_names,
    stream::{
        DeadLetterSettings, EnsureError, Limits, Owner, QueueSpec, RequiredStream, ensure_buckets,
        ensure_queue, first_missing, required_bucket, required_by_workers,
    },
};
use asyncqueue_runtime::{
    error::error_chain,
    health::Health,
    nats::{self, jetstream_check::JetStreamOff},
    program::UsageError,
};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::Settings;

/// The readiness condition of a program that creates the streams.
pub(crate) const CONDITION: &str = "streams";

/// Wait between attempts to create what is missing.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between checks whether everything exists.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Creates the streams, consumers and buckets of one queue.
#[derive(Debug)]
pub(crate) struct StreamProvisioner {
    js: Context,
    spec: QueueSpec,
    needed: Vec<RequiredStream>,
    health: Health,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

// === impl StreamProvisioner ===

impl StreamProvisioner {
    /// Prepares for the queue that the settings name. Registers the readiness condition.
    ///
    /// # Errors
    ///
    /// A name is reserved.
    pub(crate) fn new(
        settings: &Settings,
        js: Context,
        health: Health,
    ) -> Result<Self, UsageError> {
        check_names(settings)?;
        let spec = spec(settings);
        let needed = buckets::OF_WORKERS
            .iter()
            .map(required_bucket)
            .chain(required_by_workers(&spec))
            .collect();
        health.register(CONDITION, "waiting for NATS to create the streams");
        Ok(Self { js, spec, needed, health })
    }

    /// Creates the streams, or updates them to the settings. Waits for NATS as long as necessary.
    ///
    /// # Errors
    ///
    /// The streams belong to another owner: trying again does not help.
    pub(crate) async fn create(&self) -> anyhow::Result<()> {
        loop {
            nats::wait_connected(&self.js.client()).await;
            match self.ensure().await {
                Ok(()) => return Ok(()),
                Err(error) if is_final(&*error) => {
                    return Err(anyhow::Error::from_boxed(error))
                        .context("failed to create the queue's streams");
                }
                Err(error) => self.report_failure(&*error),
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// Recreates what is missing, for as long as it is polled.
    pub(crate) async fn run(&self) {
        loop {
            sleep(CHECK_INTERVAL).await;
            let client = self.js.client();
            if client.connection_state() != State::Connected {
                // `nats` says why. The previous reason says nothing about the current state.
                if self.health.reason(CONDITION).is_some() {
                    self.health.not_ready(CONDITION, "waiting for NATS to create the streams");
                }
                nats::wait_connected(&client).await;
            }
            match first_missing(&self.js, &self.needed).await {
                Ok(None) => self.health.ready(CONDITION),
                Ok(Some(missing)) => match self.ensure().await {
                    Ok(()) => warn!("{missing} was missing and has been recreated"),
                    Err(error) => self.report_failure(&*error),
                },
                Err(error) => self.report_failure(&error),
            }
        }
    }

    /// Sweeps the lanes of the queue, for as long as it is polled: creates those that are missing,
    /// and removes those that are not used.
    pub(crate) async fn sweep_lanes(&self) {
        if self.spec.fairness == Fairness::Fifo {
            return;
        }
        let mut sweeper = Sweeper::new(self.js.clone(), &self.spec);
        loop {
            sleep(SWEEP_INTERVAL).await;
            nats::wait_connected(&self.js.client()).await;
            match sweeper.sweep().await {
                Ok(changes) => changes.iter().for_each(|change| info!("{change}")),
                Err(error) => warn!("failed to sweep the lanes: {}", error_chain(&error)),
            }
        }
    }

    /// Checks the batches at each interval, for as long as it is polled: reports the end of those
    /// whose end was not reported.
    pub(crate) async fn sweep_batches(&self) {
        batch::keep_sweeping(&self.js).await;
    }

    async fn ensure(&self) -> Result<(), BoxError> {
        // The buckets come first: without them no call can be cancelled.
        ensure_buckets(&self.js, self.spec.replicas).await?;
        let ensured = ensure_queue(&self.js, &self.spec, true).await?;
        ensured.changes.iter().for_each(|change| info!("{change}"));
        self.health.ready(CONDITION);
        Ok(())
    }

    /// Reports what is wrong now.
    fn report_failure(&self, error: &(dyn std::error::Error + 'static)) {
        if JetStreamOff::from_error(error).is_some() {
            // The condition `jetstream` and the log say what to do.
            return self.health.not_ready(CONDITION, "waiting for JetStream");
        }
        let reason = error_chain(error);
        // Logged once, as long as the reason is the same.
        if self.health.reason(CONDITION).as_ref() != Some(&reason) {
            warn!("waiting for the queue's streams: {reason}");
        }
        self.health.not_ready(CONDITION, reason);
    }
}

/// Refuses names that no queue can have: such streams would receive messages that are meant for
/// others.
fn check_names(settings: &Settings) -> Result<(), UsageError> {
    let refused = |setting| move |error| UsageError(format!("{setting}: {error}"));
    let has_subject = settings.nats_subject.0.is_some();
    reserved_names::check_queue(&settings.queue_name, has_subject)
        .map_err(refused("queue_name"))?;
    reserved_names::check_subject(&settings.subject()).map_err(refused("nats_subject"))?;
    reserved_names::check_stream(&settings.stream()).map_err(refused("nats_stream"))
}

/// Returns whether an error persists, however often the operation is repeated.
fn is_final(error: &(dyn std::error::Error + 'static)) -> bool {
    match error.downcast_ref() {
        Some(EnsureError::Refused(_) | EnsureError::SubjectOverlap { .. }) => true,
        Some(EnsureError::Consumer(of_consumer)) => is_final(&**of_consumer),
        _ => false,
    }
}

/// Returns the specification of the queue for JetStream.
fn spec(settings: &Settings) -> QueueSpec {
    let dead_letters =
        DeadLetterSettings { enabled: settings.dead_letters, ..DeadLetterSettings::default() };
    let limits =
        Limits { max_age: settings.max_age.as_ref().map(|age| age.0), ..Limits::default() };
    QueueSpec {
        dead_letters,
        limits,
        stream: settings.stream(),
        subject: settings.subject(),
        durable: settings.durable(),
        ack_wait: settings.ack_wait.0,
        fairness: settings.fairness,
        ..QueueSpec::new(settings.queue_name.clone(), Owner::standalone())
    }
}
