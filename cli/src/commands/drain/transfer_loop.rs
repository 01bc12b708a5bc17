//! Moves messages from a source, many concurrently, until it is empty or a signal arrives.

use std::{collections::HashSet, pin::pin, time::Duration};

use anyhow::Context;
use asyncqueue_runtime::{error::error_chain, signals::Signals};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, interval, sleep_until};
use tracing::{info, warn};

use super::{
    Common,
    counts::{EndReason, TransferCounts, TransferOutcome},
    identity::MessageIdentity,
    source::{AckHandle, Delivery, Source},
    transfer::Transfer,
};

/// Interval between two log lines with the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Interval between two checks whether the source is empty.
const EMPTY_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum time after a signal for messages that are being transferred.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// The progress of a drain.
#[derive(Debug)]
struct Progress {
    /// Messages that are being transferred. They are not transferred a second time.
    in_flight: HashSet<MessageIdentity>,
    /// Messages that cannot be transferred. Their source delivers them again and again.
    left: HashSet<MessageIdentity>,
    counts: TransferCounts,
    /// When a message last arrived or was transferred: the source may deliver more only after that.
    last_activity: Instant,
}

/// Moves messages until the source is empty, or with `--follow` until a signal arrives.
pub(super) async fn run<S: Source>(
    mut source: S,
    transfer: &Transfer,
    common: &Common,
) -> anyhow::Result<()> {
    let source_label = transfer.source_id().label();
    info!(source = source_label, "draining");
    let mut progress = Progress {
        in_flight: HashSet::new(),
        left: HashSet::new(),
        counts: TransferCounts::default(),
        last_activity: Instant::now(),
    };
    let result = transfer_all(&mut source, transfer, common, &mut progress).await;
    source.close().await;
    transfer.finish().await;
    let what = if result.is_ok() { "drain ended" } else { "drain failed" };
    progress.counts.log(what);
    if progress.counts == TransferCounts::default() && matches!(result, Ok(EndReason::Empty)) {
        warn!(
            "received no message: check that the names of the source are those of the queue-worker \
             (--help)"
        );
    }
    progress.counts.to_result(source_label, result?, common.follow)
}

async fn transfer_all<S: Source>(
    source: &mut S,
    transfer: &Transfer,
    common: &Common,
    progress: &mut Progress,
) -> anyhow::Result<EndReason> {
    let mut signals = Signals::listen().context("failed to listen to signals")?;
    let mut stop = pin!(signals.next());
    let mut deadline = None;
    let mut report = interval(PROGRESS_INTERVAL);
    let mut check = interval(EMPTY_CHECK_INTERVAL);
    // The first tick of each interval is immediate.
    report.tick().await;
    check.tick().await;
    let mut running = FuturesUnordered::new();
    loop {
        let is_stopping = deadline.is_some();
        if is_stopping && running.is_empty() {
            return Ok(EndReason::Stopped);
        }
        let has_room = running.len() < usize::from(common.max_inflight);
        tokio::select! {
            delivery = source.next(), if has_room && !is_stopping => {
                let delivery = delivery?;
                if progress.start(&delivery.identity) {
                    running.push(transfer_one(transfer, delivery));
                }
            }
            Some(transferred) = running.next() => {
                let (identity, outcome) = transferred?;
                progress.finish(identity, outcome);
            }
            _ = check.tick(), if !common.follow && !is_stopping && running.is_empty() => {
                let idle_time = progress.last_activity.elapsed();
                if source.is_empty(idle_time, progress.counts.left()).await? {
                    return Ok(EndReason::Empty);
                }
            }
            _ = report.tick() => progress.counts.log("draining"),
            signal = &mut stop, if !is_stopping => {
                info!("{signal} received, stopping");
                transfer.stop();
                deadline = Some(Instant::now() + STOP_TIMEOUT);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if is_stopping => {
                warn!(
                    messages = running.len(),
                    "stopped before these messages were stored: they stay at the source"
                );
                return Ok(EndReason::Stopped);
            }
        }
    }
}

/// Stores one message in AsyncQueue, and then acknowledges it at its source.
async fn transfer_one<R: AckHandle>(
    transfer: &Transfer,
    delivery: Delivery<R>,
) -> anyhow::Result<(MessageIdentity, TransferOutcome)> {
    let Delivery { identity, message, ack_handle } = delivery;
    let outcome = transfer.store(&identity, &message).await?;
    if outcome.is_stored()
        && let Err(error) = ack_handle.ack().await
    {
        // The source delivers it again, and its record then says that it is stored.
        warn!(
            sequence = identity.sequence,
            "failed to acknowledge a message: {}",
            error_chain(error.as_ref())
        );
    }
    Ok((identity, outcome))
}

// === impl Progress ===

impl Progress {
    /// Returns whether a message should be transferred: it is not being transferred, and is not one
    /// that cannot be transferred. If so, records that it is being transferred.
    fn start(&mut self, identity: &MessageIdentity) -> bool {
        if self.left.contains(identity) {
            return false;
        }
        self.last_activity = Instant::now();
        self.in_flight.insert(identity.clone())
    }

    fn finish(&mut self, identity: MessageIdentity, outcome: TransferOutcome) {
        self.last_activity = Instant::now();
        self.in_flight.remove(&identity);
        self.counts.add(outcome);
        if !outcome.is_stored() {
            self.left.insert(identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{super::identity::SourceId, *};

    #[test]
    fn message_is_moved_once_and_not_again_if_left() {
        let message =
            |sequence| SourceId::new("stan", &["c"], "c").message(sequence, Timestamp::UNIX_EPOCH);
        let mut progress = Progress {
            in_flight: HashSet::new(),
            left: HashSet::new(),
            counts: TransferCounts::default(),
            last_activity: Instant::now(),
        };
        assert!(progress.start(&message(1)) && progress.start(&message(2)));
        assert!(!progress.start(&message(1)), "it is being transferred");
        progress.finish(message(1), TransferOutcome::Stored);
        assert!(progress.start(&message(1)), "its acknowledgement was lost");
        progress.finish(message(2), TransferOutcome::Left);
        assert!(!progress.start(&message(2)));
        assert_eq!(progress.counts.left(), 1);
    }
}
