//! The last look: what is left on the streams when all should have ended.

use std::time::SystemTime;

use async_nats::{
    HeaderMap,
    jetstream::{
        consumer::pull,
        stream::{Info, RawMessageErrorKind},
    },
};
use asyncqueue::{batch::sweep, message::dead_letter::H_SUBJECT};
use jiff::{SignedDuration, Timestamp};
use test_support::{
    history::event::{CallNumber, Step},
    load::message::{call_of, call_of_result, is_of_batch},
    wait::until_in,
};
use tokio::time::{Instant, sleep};

use super::{LOOK_EVERY, Stage, WAIT_TIMEOUT};

/// Older than a sweep wants a batch to be.
const BATCH_AGE: SignedDuration = SignedDuration::from_mins(2);

/// Each sweep checks ten batches.
const SWEEPS: usize = 3;

impl Stage {
    /// Waits until every call has ended, and lets the clients ask about it; replays what is dead,
    /// and waits again.
    pub(crate) async fn all_ends(&self) {
        if !self.is_drained().await {
            return;
        }
        self.sweep_batches().await;
        self.is_drained().await;
        for client in &self.clients {
            client.ask_all().await;
        }
        self.replay_dead().await;
        self.is_drained().await;
    }

    /// Ends the batches whose calls have left their queues without a recorded end, as the operator
    /// does a minute later.
    async fn sweep_batches(&self) {
        let now = Timestamp::now() + BATCH_AGE;
        for turn in 0..SWEEPS {
            // Without batches there is no bucket of them.
            let _ = sweep(&self.js, turn, now).await;
        }
    }

    /// Records what is left, and what is dead.
    pub(crate) async fn last_look(&self) {
        self.keep_consumer().await;
        for spec in &self.specs {
            let [calls, results, dead] = spec.streams();
            for (headers, _) in self.messages(&calls).await {
                self.found(call_of(&headers), Step::LeftQueued);
            }
            let left = self.messages(&results).await;
            for (headers, _) in left.into_iter().filter(|(headers, _)| !is_of_batch(headers)) {
                self.found(call_of_result(&headers), Step::LeftResult);
            }
            for (headers, stored) in self.messages(&dead).await {
                let is_result =
                    headers.get(H_SUBJECT).is_some_and(|was| was.as_str().starts_with(&results));
                if is_result && is_of_batch(&headers) {
                    // The checker finds that its callback is missing.
                } else if is_result {
                    self.found(call_of_result(&headers), Step::ResultDeadLetter);
                } else {
                    let stored = self.recorder.time_of(stored);
                    self.found(call_of(&headers), Step::DeadLetter { stored });
                }
            }
        }
    }

    /// Waits until every call has ended, or the timeout is over.
    pub(crate) async fn is_drained(&self) -> bool {
        let deadline = Instant::now() + self.setup.timeout;
        while Instant::now() < deadline {
            if self.is_empty().await {
                return true;
            }
            sleep(LOOK_EVERY).await;
        }
        false
    }

    /// Deletes the dead letters, so that the next last look finds none that it has seen.
    pub(crate) async fn forget_the_dead(&self) {
        for spec in &self.specs {
            let [_, _, dead] = spec.streams();
            until_in(WAIT_TIMEOUT, "the dead letters are deleted", async || {
                self.js.get_stream_no_info(&dead).await.ok()?.purge().await.ok()
            })
            .await;
        }
    }

    /// What the server says of the consumer of calls, for who looks into a failure.
    async fn keep_consumer(&self) {
        let spec = self.spec();
        let consumer = self
            .js
            .get_consumer_from_stream::<pull::Config, _, _>(&spec.durable, &spec.stream)
            .await;
        let info = consumer.map(|consumer| format!("{:#?}", consumer.cached_info()));
        let text = info.unwrap_or_else(|error| error.to_string());
        std::fs::write(self.folder.join("consumer.txt"), text).unwrap();
    }

    fn found(&self, call: Option<CallNumber>, step: Step) {
        self.recorder.step(call.expect("each message has the number of its call"), step);
    }

    async fn is_empty(&self) -> bool {
        for spec in &self.specs {
            let [calls, results, _] = spec.streams();
            for stream in [calls, results] {
                if self.info(&stream).await.is_none_or(|info| info.state.messages > 0) {
                    return false;
                }
            }
        }
        true
    }

    pub(crate) async fn info(&self, stream: &str) -> Option<Info> {
        Some(self.js.get_stream(stream).await.ok()?.cached_info().clone())
    }

    async fn messages(&self, stream: &str) -> Vec<(HeaderMap, SystemTime)> {
        let info =
            until_in(WAIT_TIMEOUT, "the stream is there", async || self.info(stream).await).await;
        let stream = self.js.get_stream_no_info(stream).await.unwrap();
        let mut messages = Vec::new();
        if info.state.messages > 0 {
            for sequence in info.state.first_sequence..=info.state.last_sequence {
                let message = until_in(WAIT_TIMEOUT, "the message is read", async || {
                    match stream.get_raw_message(sequence).await {
                        Ok(message) => Some(Some((message.headers, message.time.into()))),
                        // Some of them have ended out of turn.
                        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                            Some(None)
                        }
                        Err(_) => None,
                    }
                });
                messages.extend(message.await);
            }
        }
        messages
    }
}
