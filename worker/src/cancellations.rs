//! Which calls are cancelled, as far as this worker has heard, and which calls it has.
//!
//! It hears twice: by the broadcast, at once, to which it answers; and by the bucket of tombstones, which also has what
//! it missed while it was not connected.
//!
//! The answer is a promise that the call does not start here any more. So where a call runs, the answer is sent by the
//! task that runs it, after it has closed the connection to the function.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{Client, Subject, jetstream::Context};
use asyncqueue::{
    QueueName,
    cancel::{HAS_ENDED, IS_HELD, IS_WAITING, WAS_RUNNING, broadcast_subject},
    connection::flaps,
    poll::{Polled, poll},
    stored_call::StoredCall,
    tombstone::{self, Mark},
};
use futures::StreamExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{questions, reports::Reports, stall::MAX_GAP};

/// Between attempts to follow the bucket, while NATS or the bucket is unavailable.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Cancelled calls that are remembered. One that is forgotten has left the stream long ago.
const REMEMBERED: usize = 100_000;

/// Calls that have ended by themselves and are remembered: half a second of a worker at full rate.
const RECENTLY_ENDED: usize = 16_384;

/// Requests that wait for the answer of one call.
const MAX_INBOXES: usize = 16;

/// The cancellations of a queue. Clones know the same.
#[derive(Clone, Debug)]
pub(crate) struct Cancellations {
    client: Client,
    reports: Reports,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    cancelled: HashMap<StoredCall, Answer>,
    in_flight: HashMap<StoredCall, Stage>,
    ended: RecentlyEnded,
}

/// The sequences of the calls that ended by themselves last: a cancellation that came too late may ask a moment later.
#[derive(Debug, Default)]
struct RecentlyEnded {
    order: VecDeque<u64>,
    ends: HashMap<u64, OwnEnd>,
}

/// What is known of the end of a call that ended by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OwnEnd {
    /// The client is sent this end and no other, or wants to hear of none.
    is_settled: bool,
    /// A tombstone came after it that says that the call is cancelled.
    has_late_tombstone: bool,
}

/// What this worker answers about a cancelled call.
#[derive(Debug)]
enum Answer {
    /// It does not know the call (yet), or has not stopped it yet; these wait for an answer.
    Later(Vec<Subject>),
    /// This.
    Now(&'static str),
}

/// How far a call is that this worker has.
#[derive(Debug)]
enum Stage {
    /// It does not run.
    Held,
    /// It runs; cancelled, it stops.
    Running(CancellationToken),
    /// It has ended by itself, and can't be cancelled any more.
    Ended(OwnEnd),
}

/// A call that this worker has, until this is dropped.
#[derive(Debug)]
pub(crate) struct CallInFlight {
    cancellations: Cancellations,
    call: StoredCall,
}

// === impl Cancellations ===

impl Cancellations {
    pub(crate) fn new(client: Client, reports: Reports) -> Self {
        Self { client, reports, state: Arc::default() }
    }

    /// Takes note that this worker has a call.
    pub(crate) fn take(&self, call: StoredCall) -> CallInFlight {
        self.lock().in_flight.insert(call.clone(), Stage::Held);
        CallInFlight { cancellations: self.clone(), call }
    }

    /// Takes note that a call is cancelled, and stops it if it runs here. Returns the answer to who asks, which comes later
    /// to the inbox if there is none yet.
    fn cancel(&self, call: &StoredCall, inbox: Option<&Subject>) -> Option<&'static str> {
        let mut state = self.lock();
        let State { cancelled, in_flight, ended } = &mut *state;
        if matches!(in_flight.get(call), Some(Stage::Ended(_))) || ended.ends.contains_key(&call.sequence) {
            return Some(HAS_ENDED);
        }
        if cancelled.len() >= REMEMBERED && !cancelled.contains_key(call) {
            cancelled.clear();
        }
        let answer = cancelled.entry(call.clone()).or_insert_with(|| Answer::Later(Vec::new()));
        match in_flight.get(call) {
            Some(Stage::Running(token)) => token.cancel(),
            None if self.reports.is_waiting(call) => *answer = answer.now(IS_WAITING),
            // It asks before it starts, and answers then.
            Some(Stage::Held | Stage::Ended(_)) | None => {}
        }
        match answer {
            Answer::Now(word) => Some(word),
            Answer::Later(inboxes) => {
                if inboxes.len() < MAX_INBOXES {
                    inboxes.extend(inbox.cloned());
                }
                None
            }
        }
    }

    /// Follows cancellations for as long as it is polled.
    pub(crate) async fn follow(&self, js: &Context, queue: &QueueName) {
        let broadcast = questions::answer(&self.client, broadcast_subject(queue), |call, inbox| {
            self.cancel(&StoredCall::decode(call)?, inbox).map(Into::into)
        });
        tokio::join!(broadcast, self.follow_tombstones(js, queue));
    }

    async fn follow_tombstones(&self, js: &Context, queue: &QueueName) {
        loop {
            let client = js.client();
            tokio::select! {
                read = self.read_tombstones(js, queue) => {
                    if let Err(error) = read {
                        debug!(%error, "tombstones can't be followed now");
                    }
                    sleep(RETRY_INTERVAL).await;
                }
                () = flaps(&client) => self.poll_tombstones(js, queue).await,
            }
        }
    }

    async fn poll_tombstones(&self, js: &Context, queue: &QueueName) {
        let take = |polled| {
            if let Polled::Entry(key, Some(value)) = polled {
                self.take_tombstone(js, queue, &key, &value);
            }
        };
        poll(js, &tombstone::BUCKET, &tombstone::keys_of_queue(queue), take).await;
    }

    fn take_tombstone(&self, js: &Context, queue: &QueueName, key: &str, value: &[u8]) {
        let Some((call, Mark::Cancelled { confirmed })) = tombstone::read_entry(queue, key, value) else {
            return;
        };
        if self.cancel(&call, None) == Some(HAS_ENDED) && !confirmed && self.is_too_late(&call) {
            let (js, queue) = (js.clone(), queue.clone());
            tokio::spawn(async move {
                let marked = tombstone::mark_too_late(&js, &queue, &call).await;
                if let Err(error) = marked {
                    debug!(call_id = %call.id, %error, "a cancellation that came too late is not marked so");
                }
            });
        }
    }

    async fn read_tombstones(&self, js: &Context, queue: &QueueName) -> Result<(), async_nats::Error> {
        let store = tombstone::BUCKET.open(js).await?;
        let mut entries = store.watch_with_history(tombstone::keys_of_queue(queue)).await?;
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            self.take_tombstone(js, queue, &entry.key, &entry.value);
        }
        Ok(())
    }

    /// Takes note of a tombstone of a call that had ended by itself here. Returns whether that end is settled, so that the
    /// tombstone is to say so: whoever wrote it may be gone before it asks, and who asks after the result is delivered
    /// would find nothing but the tombstone.
    fn is_too_late(&self, call: &StoredCall) -> bool {
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

// === impl Answer ===

impl Answer {
    /// The answer from now on: this, unless there is one already.
    fn now(&self, word: &'static str) -> Self {
        match self {
            Self::Now(word) => Self::Now(word),
            Self::Later(_) => Self::Now(word),
        }
    }
}

// === impl CallInFlight ===

impl CallInFlight {
    /// Begins to run the call; `None` if it is cancelled. From here on the token says when it is.
    pub(crate) fn start(&self) -> Option<CancellationToken> {
        let mut state = self.cancellations.lock();
        if state.cancelled.contains_key(&self.call) {
            return None;
        }
        let token = CancellationToken::new();
        state.in_flight.insert(self.call.clone(), Stage::Running(token.clone()));
        Some(token)
    }

    /// The run is over, and the call is not at its end.
    pub(crate) fn has_run(&self) {
        self.cancellations.lock().in_flight.insert(self.call.clone(), Stage::Held);
    }

    /// Ends the call by itself, unless it is cancelled: returns whether it may. From then on it can't be cancelled.
    pub(crate) fn end(&self) -> bool {
        let mut state = self.cancellations.lock();
        if state.cancelled.contains_key(&self.call) {
            return false;
        }
        state.in_flight.insert(self.call.clone(), Stage::Ended(OwnEnd::default()));
        true
    }

    /// The client is sent the call's own end and no other, or wants to hear of none. Returns whether a tombstone has come
    /// since the end, which is to say so.
    pub(crate) fn settle(&self) -> bool {
        let mut state = self.cancellations.lock();
        let Some(Stage::Ended(end)) = state.in_flight.get_mut(&self.call) else { return false };
        end.is_settled = true;
        end.has_late_tombstone
    }

    /// Whether the call is cancelled, as far as this worker has heard.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancellations.lock().cancelled.contains_key(&self.call)
    }

    /// The cancelled call does not run, now that its connection is closed if it had one: tells those who wait for that. Where
    /// the lease is in doubt another worker may be about to start it, which hears of the cancellation within
    /// [`MAX_GAP`] or looks for it: the promise is made after that.
    pub(crate) async fn has_stopped(&self, was_running: bool, is_lease_sure: bool) {
        if !is_lease_sure {
            sleep(MAX_GAP).await;
        }
        let word = if was_running { WAS_RUNNING } else { IS_HELD };
        let inboxes = {
            let mut state = self.cancellations.lock();
            state.in_flight.insert(self.call.clone(), Stage::Held);
            let answer = state.cancelled.entry(self.call.clone()).or_insert(Answer::Later(Vec::new()));
            match std::mem::replace(answer, Answer::Now(word)) {
                Answer::Later(inboxes) => inboxes,
                before @ Answer::Now(_) => {
                    *answer = before;
                    Vec::new()
                }
            }
        };
        for inbox in inboxes {
            questions::send(&self.cancellations.client, inbox, word.into()).await;
        }
    }
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        let mut state = self.cancellations.lock();
        if let Some(Stage::Ended(end)) = state.in_flight.remove(&self.call) {
            state.ended.add(self.call.sequence, end);
        }
    }
}

// === impl RecentlyEnded ===

impl RecentlyEnded {
    fn add(&mut self, sequence: u64, end: OwnEnd) {
        if self.order.len() >= RECENTLY_ENDED
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

    fn call(sequence: u64) -> StoredCall {
        StoredCall { id: "id-1".parse().unwrap(), sequence }
    }

    /// Without a connection: nothing that is sent arrives.
    async fn cancellations() -> Cancellations {
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let client = options.connect("nats://127.0.0.1:1").await.unwrap();
        Cancellations::new(client, Reports::new("w".to_owned()))
    }

    #[tokio::test]
    async fn a_cancelled_call_does_not_start_and_its_id_may_be_used_again() {
        let cancellations = cancellations().await;
        assert_eq!(cancellations.cancel(&call(1), None), None);
        assert!(cancellations.take(call(1)).start().is_none());
        assert!(cancellations.take(call(2)).start().is_some());
    }

    #[tokio::test]
    async fn a_held_call_is_answered_when_it_does_not_start() {
        let cancellations = cancellations().await;
        let held = cancellations.take(call(1));
        assert_eq!(cancellations.cancel(&call(1), None), None);
        assert!(held.start().is_none() && held.is_cancelled() && !held.end());
        held.has_stopped(false, true).await;
        assert_eq!(cancellations.cancel(&call(1), None), Some(IS_HELD));
    }

    #[tokio::test]
    async fn a_running_call_is_answered_when_it_has_stopped() {
        let cancellations = cancellations().await;
        let running = cancellations.take(call(1));
        let token = running.start().unwrap();
        assert_eq!(cancellations.cancel(&call(1), Some(&"inbox".into())), None);
        assert!(token.is_cancelled());
        running.has_stopped(true, true).await;
        assert_eq!(cancellations.cancel(&call(1), None), Some(WAS_RUNNING));
        drop(running);
        assert_eq!(cancellations.cancel(&call(1), None), Some(WAS_RUNNING));
    }

    #[tokio::test]
    async fn a_call_that_has_ended_is_not_cancelled_any_more() {
        let cancellations = cancellations().await;
        let ended = cancellations.take(call(1));
        assert!(ended.start().is_some() && ended.end());
        assert_eq!(cancellations.cancel(&call(1), None), Some(HAS_ENDED));
        drop(ended);
        assert_eq!(cancellations.cancel(&call(1), None), Some(HAS_ENDED));
        for sequence in 2..RECENTLY_ENDED as u64 + 2 {
            let call = cancellations.take(call(sequence));
            assert!(call.end());
        }
        assert_eq!(cancellations.cancel(&call(1), None), None);
    }

    #[tokio::test]
    async fn a_tombstone_comes_too_late_once_the_end_is_settled() {
        let cancellations = cancellations().await;
        // After it, and before it.
        let ended = cancellations.take(call(1));
        assert!(ended.end() && !ended.settle());
        drop(ended);
        assert!(cancellations.is_too_late(&call(1)));
        let ended = cancellations.take(call(2));
        assert!(ended.end() && !cancellations.is_too_late(&call(2)) && ended.settle());
        // The client is sent the result of the cancellation.
        let ended = cancellations.take(call(3));
        assert!(ended.end());
        drop(ended);
        assert!(!cancellations.is_too_late(&call(3)));
        // Of a call that has not ended here nothing is known.
        assert!(!cancellations.is_too_late(&call(4)));
    }
}
