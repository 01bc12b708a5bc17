//! Moves messages from a source, many concurrently, until it is empty or a signal arrives.

use std::{collections::HashSet, pin::pin, time::Duration};

use anyhow::Context;
use asyncqueue_runtime::error::error_chain;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, interval, sleep_until},
};
use tracing::{info, warn};

use super::{
    Common,
    arrival::{Arrival, Receipt, Source},
    identity::Identity,
    tally::{Outcome, Tally, Why},
    transfer::Transfer,
};

/// Interval between two log lines with the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Interval between two checks whether the source is empty.
const EMPTY_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum time after a signal for messages that are being moved.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// The progress of a drain.
#[derive(Debug)]
struct Progress {
    /// Messages that are being moved. They are not moved a second time.
    in_hand: HashSet<Identity>,
    /// Messages that cannot be moved. Their source delivers them again and again.
    left: HashSet<Identity>,
    tally: Tally,
    /// When a message last arrived or was moved: the source may deliver more only after that.
    last_activity: Instant,
}

/// Moves messages until the source is empty, or with `--follow` until a signal arrives.
pub(super) async fn drain<S: Source>(
    mut source: S,
    transfer: &Transfer,
    common: &Common,
) -> anyhow::Result<()> {
    let from = transfer.origin().label();
    info!(source = from, "draining");
    let mut progress = Progress {
        in_hand: HashSet::new(),
        left: HashSet::new(),
        tally: Tally::default(),
        last_activity: Instant::now(),
    };
    let ended = move_all(&mut source, transfer, common, &mut progress).await;
    source.close().await;
    let what = if ended.is_ok() { "drain ended" } else { "drain failed" };
    progress.tally.log(what);
    if progress.tally == Tally::default() && matches!(ended, Ok(Why::Empty)) {
        warn!(
            "no message came: see whether the names of the source are those of the old worker (--help)"
        );
    }
    progress.tally.conclude(from, ended?, common.follow)
}

async fn move_all<S: Source>(
    source: &mut S,
    transfer: &Transfer,
    common: &Common,
    progress: &mut Progress,
) -> anyhow::Result<Why> {
    let mut stop = pin!(stopped());
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
            return Ok(Why::Stopped);
        }
        let has_room = running.len() < usize::from(common.max_inflight);
        tokio::select! {
            arrival = source.next(), if has_room && !is_stopping => {
                let arrival = arrival?;
                if progress.takes(&arrival.identity) {
                    running.push(move_one(transfer, arrival));
                }
            }
            Some(moved) = running.next() => {
                let (identity, outcome) = moved?;
                progress.ended(identity, outcome);
            }
            _ = check.tick(), if !common.follow && !is_stopping && running.is_empty() => {
                if source.is_empty(progress.last_activity.elapsed(), progress.tally.left()).await? {
                    return Ok(Why::Empty);
                }
            }
            _ = report.tick() => progress.tally.log("draining"),
            signal = &mut stop, if !is_stopping => {
                info!("{} received, stopping", signal?);
                transfer.stop();
                deadline = Some(Instant::now() + STOP_TIMEOUT);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if is_stopping => {
                warn!(messages = running.len(), "stopped before these were stored: they stay where they are");
                return Ok(Why::Stopped);
            }
        }
    }
}

/// Stores one message in AsyncQueue, and then acknowledges it at its source.
async fn move_one<R: Receipt>(
    transfer: &Transfer,
    arrival: Arrival<R>,
) -> anyhow::Result<(Identity, Outcome)> {
    let Arrival { identity, message, receipt } = arrival;
    let outcome = transfer.store(&identity, &message).await?;
    if outcome.is_kept()
        && let Err(error) = receipt.ack().await
    {
        // The source delivers it again, and its record then says that it is stored.
        warn!(sequence = identity.sequence, "not acknowledged: {}", error_chain(error.as_ref()));
    }
    Ok((identity, outcome))
}

/// Waits for a signal that asks this program to end, and returns its name.
async fn stopped() -> anyhow::Result<&'static str> {
    let listen = |kind| signal(kind).context("signals can't be listened to");
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

// === impl Progress ===

impl Progress {
    /// Returns whether a message should be moved: it is not being moved, and is not one that cannot
    /// be moved. If so, records that it is being moved.
    fn takes(&mut self, identity: &Identity) -> bool {
        if self.left.contains(identity) {
            return false;
        }
        self.last_activity = Instant::now();
        self.in_hand.insert(identity.clone())
    }

    fn ended(&mut self, identity: Identity, outcome: Outcome) {
        self.last_activity = Instant::now();
        self.in_hand.remove(&identity);
        self.tally.add(outcome);
        if !outcome.is_kept() {
            self.left.insert(identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{super::identity::Origin, *};

    #[test]
    fn a_message_is_moved_once_at_a_time_and_not_again_once_it_is_left() {
        let message =
            |sequence| Origin::new("stan", &["c"], "c").message(sequence, Timestamp::UNIX_EPOCH);
        let mut progress = Progress {
            in_hand: HashSet::new(),
            left: HashSet::new(),
            tally: Tally::default(),
            last_activity: Instant::now(),
        };
        assert!(progress.takes(&message(1)) && progress.takes(&message(2)));
        assert!(!progress.takes(&message(1)), "it is being moved");
        progress.ended(message(1), Outcome::Stored);
        assert!(progress.takes(&message(1)), "its acknowledgement was lost");
        progress.ended(message(2), Outcome::Left);
        assert!(!progress.takes(&message(2)));
        assert_eq!(progress.tally.left(), 1);
    }
}
