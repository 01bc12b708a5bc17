//! The last look: what is left on the streams when all should have ended.

use async_nats::{
    HeaderMap,
    jetstream::{consumer::pull, stream::Info},
};
use asyncqueue::message::{callback::Callback, dead_letter::H_SUBJECT, native};
use asyncqueue_tests::{
    history::event::{CallNumber, Step},
    load::{function, receiver},
    wait::until_in,
};
use tokio::time::{Instant, sleep};

use super::{DEAD, LOOK_EVERY, PATIENCE, QUEUE, RESULTS, Stage};

impl Stage {
    /// Waits until every call has ended, or there is no more patience, and takes down what is left and what is dead.
    pub(crate) async fn last_look(&self) {
        let deadline = Instant::now() + self.setup.patience;
        while Instant::now() < deadline && !(self.is_empty(QUEUE).await && self.is_empty(RESULTS).await) {
            sleep(LOOK_EVERY).await;
        }
        self.keep_consumer().await;
        for headers in self.messages(QUEUE).await {
            self.take_down(of_call(&headers), Step::LeftQueued);
        }
        for headers in self.messages(RESULTS).await {
            self.take_down(of_result(&headers), Step::LeftResult);
        }
        for headers in self.messages(DEAD).await {
            let is_result = headers.get(H_SUBJECT).is_some_and(|was| was.as_str().starts_with(RESULTS));
            if is_result {
                self.take_down(of_result(&headers), Step::ResultBuried);
            } else {
                self.take_down(of_call(&headers), Step::Buried);
            }
        }
    }

    /// Deletes the dead letters, so that the next last look finds none that it has seen.
    pub(crate) async fn forget_the_dead(&self) {
        until_in(PATIENCE, "the dead letters are deleted", async || {
            self.js.get_stream_no_info(DEAD).await.ok()?.purge().await.ok()
        })
        .await;
    }

    /// What the server says of the consumer of calls, for who looks into a failure.
    async fn keep_consumer(&self) {
        let consumer =
            self.js.get_consumer_from_stream::<pull::Config, _, _>(&self.spec.durable, QUEUE).await;
        let told = consumer.map(|consumer| format!("{:#?}", consumer.cached_info()));
        std::fs::write(self.folder.join("consumer.txt"), told.unwrap_or_else(|error| error.to_string()))
            .unwrap();
    }

    fn take_down(&self, call: Option<CallNumber>, step: Step) {
        self.recorder.step(call.expect("each message has the number of its call"), step);
    }

    async fn is_empty(&self, stream: &str) -> bool {
        self.info(stream).await.is_some_and(|info| info.state.messages == 0)
    }

    pub(crate) async fn info(&self, stream: &str) -> Option<Info> {
        Some(self.js.get_stream(stream).await.ok()?.cached_info().clone())
    }

    async fn messages(&self, stream: &str) -> Vec<HeaderMap> {
        let info = until_in(PATIENCE, "the stream is there", async || self.info(stream).await).await;
        let stream = self.js.get_stream_no_info(stream).await.unwrap();
        let mut messages = Vec::new();
        if info.state.messages > 0 {
            for sequence in info.state.first_sequence..=info.state.last_sequence {
                // Some of them have ended out of turn.
                messages.extend(stream.get_raw_message(sequence).await.ok().map(|message| message.headers));
            }
        }
        messages
    }
}

fn of_call(headers: &HeaderMap) -> Option<CallNumber> {
    let call = native::decode(headers, bytes::Bytes::new()).ok()?;
    function::number_in(call.query.as_deref())
}

fn of_result(headers: &HeaderMap) -> Option<CallNumber> {
    let result = Callback::decode(headers, bytes::Bytes::new()).ok()?;
    receiver::number_in(result.url.as_url().path())
}
