//! Tracks the cancelled calls that this worker knows of, and the calls that it has in flight.
//!
//! Cancellations arrive in two ways. The broadcast arrives at once, and the worker answers it. The
//! bucket of tombstones also has those that were sent while the worker was not connected.
//!
//! The answer is a promise that the call does not start here any more. So if the call runs, the
//! task that runs it sends the answer, after it has closed the connection to the function.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{Client, Subject, jetstream::Context};
use asyncqueue::{
    QueueName, buckets,
    call::CallRef,
    connection::wait_until_flapping,
    kv::{PollEvent, poll_bucket},
    tombstone::{self, Mark},
    worker_requests::{REPLY_ENDED, REPLY_HELD, REPLY_RUNNING, REPLY_WAITING, cancel_subject},
};
use futures::StreamExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::recent::RecentMap;
use super::{stall::MAX_GAP, status::CallStatuses};
use crate::responder;

mod recent;

/// Wait between attempts to watch the bucket, while NATS or the bucket is unavailable.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of cancelled calls that are remembered. The oldest half of them is forgotten at a
/// time: such a call has left the stream long ago.
const MAX_CANCELLED: usize = 100_000;

/// Maximum number of calls that are remembered because they have ended by themselves. Enough for
/// half a second of a worker at full rate.
const MAX_RECENTLY_ENDED: usize = 16_384;

/// Maximum number of requests that wait for the answer about one call.
const MAX_INBOXES: usize = 16;

/// The cancellations of a queue. Clones share their state.
#[derive(Clone, Debug)]
pub(crate) struct Cancellations {
    client: Client,
    statuses: CallStatuses,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    cancelled: RecentMap<CallRef, CancelReply>,
    in_flight: HashMap<CallRef, Stage>,
    ended: RecentlyEnded,
}

/// The calls that ended by themselves most recently, by sequence. A cancellation that came too late
/// may ask for one of them a moment later.
#[derive(Debug, Default)]
struct RecentlyEnded {
    order: VecDeque<u64>,
    ends: HashMap<u64, LocalEnd>,
}

/// What is known about the end of a call that ended by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LocalEnd {
    /// Whether the client gets this end and no other, or wants no callback.
    is_settled: bool,
    /// Whether a tombstone arrived after the end that marks the call as cancelled.
    has_late_tombstone: bool,
}

/// The answer of this worker about a cancelled call.
#[derive(Debug)]
enum CancelReply {
    /// There is no answer yet: the worker does not know the call (yet), or has not stopped it yet.
    /// These inboxes wait for the answer.
    Pending(Vec<Subject>),
    /// The answer is final.
    Final(&'static str),
}

/// The stage of a call that this worker has in flight.
#[derive(Debug)]
enum Stage {
    /// The call does not run.
    Idle,
    /// The call runs. Cancelling the token stops it.
    Running(CancellationToken),
    /// The call has ended by itself, and can't be cancelled any more.
    Ended(LocalEnd),
}

/// A call that this worker has in flight, until this is dropped.
#[derive(Debug)]
pub(crate) struct CallGuard {
    cancellations: Cancellations,
    call: CallRef,
}

// === impl State ===

impl Default for State {
    fn default() -> Self {
        Self {
            cancelled: RecentMap::new(MAX_CANCELLED),
            in_flight: HashMap::new(),
            ended: RecentlyEnded::default(),
        }
    }
}

// === impl Cancellations ===

impl Cancellations {
    pub(crate) fn new(client: Client, statuses: CallStatuses) -> Self {
        Self { client, statuses, state: Arc::default() }
    }

    /// Records that this worker has a call in flight.
    pub(crate) fn register(&self, call: CallRef) -> CallGuard {
        self.lock().in_flight.insert(call.clone(), Stage::Idle);
        CallGuard { cancellations: self.clone(), call }
    }

    /// Records that a call is cancelled, and stops it if it runs here. Returns the answer, or
    /// `None` if it is not known yet: it is then sent to the inbox later.
    fn cancel(&self, call: &CallRef, inbox: Option<&Subject>) -> Option<&'static str> {
        let mut state = self.lock();
        let State { cancelled, in_flight, ended } = &mut *state;
        if matches!(in_flight.get(call), Some(Stage::Ended(_)))
            || ended.ends.contains_key(&call.sequence)
        {
            return Some(REPLY_ENDED);
        }
        let reply = cancelled.get_or_insert(call.clone(), || CancelReply::Pending(Vec::new()));
        match in_flight.get(call) {
            Some(Stage::Running(token)) => token.cancel(),
            None if self.statuses.is_waiting(call) => {
                self.statuses.scheduled().remove(call.sequence);
                *reply = reply.or_final(REPLY_WAITING);
            }
            // Its task checks for a cancellation before it starts the call, and answers then.
            Some(Stage::Idle | Stage::Ended(_)) | None => {}
        }
        match reply {
            CancelReply::Final(text) => Some(text),
            CancelReply::Pending(inboxes) => {
                if inboxes.len() < MAX_INBOXES {
                    inboxes.extend(inbox.cloned());
                }
                None
            }
        }
    }

    /// Receives cancellations for as long as it is polled.
    pub(crate) async fn run(&self, js: &Context, queue: &QueueName) {
        let broadcast = responder::answer(&self.client, cancel_subject(queue), |call, inbox| {
            self.cancel(&CallRef::decode(call)?, inbox).map(Into::into)
        });
        tokio::join!(broadcast, self.receive_tombstones(js, queue));
    }

    async fn receive_tombstones(&self, js: &Context, queue: &QueueName) {
        loop {
            let client = js.client();
            tokio::select! {
                read = self.watch_tombstones(js, queue) => {
                    if let Err(error) = read {
                        debug!(%error, "failed to watch tombstones, will retry");
                    }
                    sleep(RETRY_INTERVAL).await;
                }
                () = wait_until_flapping(&client) => self.poll_tombstones(js, queue).await,
            }
        }
    }

    async fn poll_tombstones(&self, js: &Context, queue: &QueueName) {
        let apply = |polled| {
            if let PollEvent::Entry(key, Some(value)) = polled {
                self.apply_tombstone(js, queue, &key, &value);
            }
        };
        poll_bucket(js, &buckets::TOMBSTONES, &tombstone::keys_of_queue(queue), apply).await;
    }

    fn apply_tombstone(&self, js: &Context, queue: &QueueName, key: &str, value: &[u8]) {
        let Some((call, mark)) = tombstone::read_entry(queue, key, value) else { return };
        if !mark.is_cancelled() {
            return;
        }
        if self.cancel(&call, None) == Some(REPLY_ENDED)
            && mark == Mark::Cancelling
            && self.record_late_tombstone(&call)
        {
            let (js, queue) = (js.clone(), queue.clone());
            tokio::spawn(async move {
                let marked = tombstone::mark_too_late(&js, &queue, &call).await;
                if let Err(error) = marked {
                    debug!(call_id = %call.id, %error, "failed to mark a cancellation as too late");
                }
            });
        }
    }

    async fn watch_tombstones(
        &self,
        js: &Context,
        queue: &QueueName,
    ) -> Result<(), async_nats::Error> {
        let store = buckets::TOMBSTONES.open(js).await?;
        let mut entries = store.watch_with_history(tombstone::keys_of_queue(queue)).await?;
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            self.apply_tombstone(js, queue, &entry.key, &entry.value);
        }
        Ok(())
    }

    /// Records a tombstone of a call that had ended by itself here. Returns whether that end is
    /// settled: the tombstone must then say so. The writer of the tombstone may stop before it
    /// asks, and a request after the delivery of the result would find only the tombstone.
    fn record_late_tombstone(&self, call: &CallRef) -> bool {
        let mut state = self.lock();
        let State { in_flight, ended, .. } = &mut *state;
        let end = match in_flight.get_mut(call) {
            Some(Stage::Ended(end)) => Some(end),
            _ => ended.ends.get_mut(&call.sequence),
        };
        end.is_some_and(|end| {
            end.has_late_tombstone = true;
            end.is_settled
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl CancelReply ===

impl CancelReply {
    /// Returns the answer from now on: this one, unless there is one already.
    fn or_final(&self, text: &'static str) -> Self {
        match self {
            Self::Final(text) => Self::Final(text),
            Self::Pending(_) => Self::Final(text),
        }
    }
}

// === impl CallGuard ===

impl CallGuard {
    /// Returns the call.
    pub(crate) fn call(&self) -> &CallRef {
        &self.call
    }

    /// Starts to run the call. Returns `None` if it is cancelled; otherwise a token that is
    /// cancelled when the call is.
    pub(crate) fn try_start(&self) -> Option<CancellationToken> {
        let mut state = self.cancellations.lock();
        if state.cancelled.contains(&self.call) {
            return None;
        }
        let token = CancellationToken::new();
        state.in_flight.insert(self.call.clone(), Stage::Running(token.clone()));
        Some(token)
    }

    /// Records that the run is over, and that the call has not ended.
    pub(crate) fn mark_idle(&self) {
        self.cancellations.lock().in_flight.insert(self.call.clone(), Stage::Idle);
    }

    /// Ends the call by itself unless it is cancelled, and returns whether it did. From then on,
    /// the call can't be cancelled.
    pub(crate) fn try_end(&self) -> bool {
        let mut state = self.cancellations.lock();
        if state.cancelled.contains(&self.call) {
            return false;
        }
        state.in_flight.insert(self.call.clone(), Stage::Ended(LocalEnd::default()));
        true
    }

    /// Records that the client gets the call's own end and no other, or wants no callback. Returns
    /// whether a tombstone has arrived since the end: it must then be marked as too late.
    pub(crate) fn mark_settled(&self) -> bool {
        let mut state = self.cancellations.lock();
        let Some(Stage::Ended(end)) = state.in_flight.get_mut(&self.call) else { return false };
        end.is_settled = true;
        end.has_late_tombstone
    }

    /// Returns whether the call is cancelled, as far as this worker knows.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancellations.lock().cancelled.contains(&self.call)
    }

    /// Records that the cancelled call does not run, and sends the answer to the waiting inboxes.
    /// If the call ran, its connection is closed by now.
    ///
    /// If the lease is not certain, another worker may be about to start the call. That worker
    /// receives the cancellation within [`MAX_GAP`] or looks it up, so the answer is sent after
    /// that time.
    pub(crate) async fn confirm_stopped(&self, was_running: bool, is_lease_certain: bool) {
        if !is_lease_certain {
            sleep(MAX_GAP).await;
        }
        let text = if was_running { REPLY_RUNNING } else { REPLY_HELD };
        let inboxes = {
            let mut state = self.cancellations.lock();
            state.in_flight.insert(self.call.clone(), Stage::Idle);
            let reply = state
                .cancelled
                .get_or_insert(self.call.clone(), || CancelReply::Pending(Vec::new()));
            match std::mem::replace(reply, CancelReply::Final(text)) {
                CancelReply::Pending(inboxes) => inboxes,
                before @ CancelReply::Final(_) => {
                    *reply = before;
                    Vec::new()
                }
            }
        };
        for inbox in inboxes {
            responder::send(&self.cancellations.client, inbox, text.into()).await;
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut state = self.cancellations.lock();
        if let Some(Stage::Ended(end)) = state.in_flight.remove(&self.call) {
            state.ended.add(self.call.sequence, end);
        }
    }
}

// === impl RecentlyEnded ===

impl RecentlyEnded {
    fn add(&mut self, sequence: u64, end: LocalEnd) {
        if self.order.len() >= MAX_RECENTLY_ENDED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ends.remove(&oldest);
        }
        if self.ends.insert(sequence, end).is_none() {
            self.order.push_back(sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(sequence: u64) -> CallRef {
        CallRef { id: "id-1".parse().unwrap(), sequence }
    }

    /// Creates cancellations without a connection: nothing that is sent arrives.
    async fn cancellations() -> Cancellations {
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let client = options.connect("nats://127.0.0.1:1").await.unwrap();
        Cancellations::new(client, CallStatuses::new("w".to_owned()))
    }

    #[tokio::test]
    async fn a_cancelled_call_does_not_start_and_its_id_may_be_used_again() {
        let cancellations = cancellations().await;
        assert_eq!(cancellations.cancel(&call(1), None), None);
        assert!(cancellations.register(call(1)).try_start().is_none());
        assert!(cancellations.register(call(2)).try_start().is_some());
    }

    #[tokio::test]
    async fn an_idle_call_is_answered_when_it_does_not_start() {
        let cancellations = cancellations().await;
        let held = cancellations.register(call(1));
        assert_eq!(cancellations.cancel(&call(1), None), None);
        assert!(held.try_start().is_none() && held.is_cancelled() && !held.try_end());
        held.confirm_stopped(false, true).await;
        assert_eq!(cancellations.cancel(&call(1), None), Some(REPLY_HELD));
    }

    #[tokio::test]
    async fn a_running_call_is_answered_when_it_has_stopped() {
        let cancellations = cancellations().await;
        let running = cancellations.register(call(1));
        let token = running.try_start().unwrap();
        assert_eq!(cancellations.cancel(&call(1), Some(&"inbox".into())), None);
        assert!(token.is_cancelled());
        running.confirm_stopped(true, true).await;
        assert_eq!(cancellations.cancel(&call(1), None), Some(REPLY_RUNNING));
        drop(running);
        assert_eq!(cancellations.cancel(&call(1), None), Some(REPLY_RUNNING));
    }

    #[tokio::test]
    async fn a_call_that_has_ended_is_not_cancelled_any_more() {
        let cancellations = cancellations().await;
        let ended = cancellations.register(call(1));
        assert!(ended.try_start().is_some() && ended.try_end());
        assert_eq!(cancellations.cancel(&call(1), None), Some(REPLY_ENDED));
        drop(ended);
        assert_eq!(cancellations.cancel(&call(1), None), Some(REPLY_ENDED));
        for sequence in 2..MAX_RECENTLY_ENDED as u64 + 2 {
            let call = cancellations.register(call(sequence));
            assert!(call.try_end());
        }
        assert_eq!(cancellations.cancel(&call(1), None), None);
    }

    #[tokio::test]
    async fn a_tombstone_comes_too_late_once_the_end_is_settled() {
        let cancellations = cancellations().await;
        // The tombstone arrives after the end is settled, and before.
        let ended = cancellations.register(call(1));
        assert!(ended.try_end() && !ended.mark_settled());
        drop(ended);
        assert!(cancellations.record_late_tombstone(&call(1)));
        let ended = cancellations.register(call(2));
        assert!(
            ended.try_end()
                && !cancellations.record_late_tombstone(&call(2))
                && ended.mark_settled()
        );
        // The client gets the result of the cancellation.
        let ended = cancellations.register(call(3));
        assert!(ended.try_end());
        drop(ended);
        assert!(!cancellations.record_late_tombstone(&call(3)));
        // Nothing is known about a call that has not ended here.
        assert!(!cancellations.record_late_tombstone(&call(4)));
    }
}
