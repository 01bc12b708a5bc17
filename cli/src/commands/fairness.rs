//! `kubectl aq fairness`

use std::time::Duration;

use anyhow::{Context, bail};
use asyncqueue::{
    GoDuration, QueueName,
    directory::QueueEntry,
    fairness_change::{SwitchStep, SwitchWait, give_up_switch, switch_fairness},
    lanes::Fairness,
    stream::{META_OWNER, Owner, QueueSpec},
};
use clap::{ArgGroup, Args};
use tokio::{
    signal,
    time::{Instant, sleep, sleep_until},
};

use crate::{inventory, output, session::Session};

/// Interval between the checks whether calls are in flight.
const STEP_INTERVAL: Duration = Duration::from_secs(1);

/// Changes the order in which the calls of a queue are run
///
/// For queues without an operator: set spec.fairness of an AsyncQueue instead. Pauses the queue,
/// waits until no call is in flight, and replaces its consumers. Gateways continue to store calls.
/// Calls that wait for a retry keep their attempts. Afterwards, set `fairness` of gateways and
/// workers to the same value and restart them: they refuse to start with the other one.
///
/// If the time is over, or the command is interrupted, the queue continues as it was.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("wanted").required(true),
    after_help = "Example:\n  kubectl aq fairness slow-queue --function"
)]
pub(crate) struct FairnessArgs {
    /// Name of the queue
    queue: QueueName,

    /// Round robin between the functions of the queue
    #[arg(long, group = "wanted")]
    function: bool,

    /// The order in which calls were stored
    #[arg(long, group = "wanted")]
    fifo: bool,

    /// Maximum time until no call is in flight. No call is delivered in this time
    #[arg(long, default_value = "10m")]
    timeout: GoDuration,
}

pub(crate) async fn run(session: &Session, arguments: &FairnessArgs) -> anyhow::Result<()> {
    let wanted = if arguments.function { Fairness::Function } else { Fairness::Fifo };
    let entry = inventory::queue_entry(&session.js, &arguments.queue).await?;
    let spec = read_spec(session, &arguments.queue, entry, wanted).await?;
    let Err(error) = switch(session, &spec, arguments.timeout).await else { return Ok(()) };
    if let Err(resume) = give_up_switch(&session.js, &spec).await {
        return Err(error.context(format!(
            "the queue may still be paused, since resuming it failed ({resume}): repeat the command"
        )));
    }
    Err(error.context("the fairness is not changed, and the queue continues as it was"))
}

/// Reads what the new consumers have in common with the existing one.
async fn read_spec(
    session: &Session,
    queue: &QueueName,
    entry: QueueEntry,
    wanted: Fairness,
) -> anyhow::Result<QueueSpec> {
    let QueueEntry { stream, subject, .. } = entry;
    let existing = session.js.get_stream(&stream).await;
    let existing = existing.with_context(|| format!("failed to read stream `{stream}`"))?;
    let owner = existing.cached_info().config.metadata.get(META_OWNER).cloned();
    let standalone = Owner::standalone();
    match owner {
        Some(owner) if owner == standalone.name => {}
        Some(owner) => bail!(
            "queue `{queue}` belongs to AsyncQueue {owner}: set spec.fairness there, and its \
             operator changes it"
        ),
        None => bail!("stream `{stream}` was not created by AsyncQueue"),
    }
    let durable = queue.durable();
    let consumer = existing.consumer_info(&durable).await;
    let consumer = consumer.with_context(|| format!("failed to read consumer `{durable}`"))?;
    Ok(QueueSpec {
        stream,
        subject,
        ack_wait: consumer.config.ack_wait,
        fairness: wanted,
        suspended: consumer.paused,
        ..QueueSpec::new(queue.clone(), standalone)
    })
}

/// Repeats the steps until the fairness is changed. Prints what is waited for when that changes.
async fn switch(session: &Session, spec: &QueueSpec, timeout: GoDuration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout.0;
    let mut last: Option<SwitchWait> = None;
    loop {
        match switch_fairness(&session.js, spec).await? {
            SwitchStep::Done { changes, .. } if changes.is_empty() => {
                return Ok(output::print(&format!(
                    "queue {} has fairness={} already\n",
                    spec.queue, spec.fairness
                ))?);
            }
            SwitchStep::Done { forgotten, changes } => {
                for change in changes {
                    output::print(&format!("{change}\n"))?;
                }
                if forgotten > 0 {
                    output::print(&format!(
                        "{forgotten} calls that wait for a retry begin at their first attempt \
                         again: the worker that knew their attempts was gone\n"
                    ))?;
                }
                return Ok(());
            }
            SwitchStep::Waiting(wait) => {
                let is_same = last.as_ref().is_some_and(|last| {
                    std::mem::discriminant(last) == std::mem::discriminant(&wait)
                });
                if !is_same {
                    output::print(&format!("waiting: {wait}\n"))?;
                }
                last = Some(wait);
            }
        }
        // A step is not interrupted: it may have removed consumers.
        tokio::select! {
            _ = signal::ctrl_c() => bail!("interrupted"),
            () = sleep_until(deadline) => bail!(
                "calls are still in flight after {timeout}: raise --timeout, or cancel them with \
                 `kubectl aq cancel`"
            ),
            () = sleep(STEP_INTERVAL) => {}
        }
    }
}
