//! The last look: what is left on the streams when all should have ended.

use async_nats::HeaderMap;
use asyncqueue::message::{
    dead_letter::{H_AT, H_SUBJECT},
    native,
};
use test_support::{
    history::event::{CallNumber, Step},
    load::message::{call_of, call_of_result},
    wait::until,
};
use tokio::time::{Instant, sleep};

use crate::stage::{DEAD, QUEUE, RESULTS, Stage, WAIT_TIMEOUT};

/// How many dead calls are asked for: there may be many, and one is as good as another.
const LOOKED_UP: usize = 10;

/// Between two looks.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(50);

impl Stage {
    /// Waits until every call has ended, or the timeout is over, and takes down what is left
    /// and what is dead.
    pub(crate) async fn last_look(&self) {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while Instant::now() < deadline
            && self.messages(QUEUE).await + self.messages(RESULTS).await > 0
        {
            sleep(LOOK_EVERY).await;
        }
        for headers in self.headers(QUEUE).await {
            self.take_down(call_of(&headers), Step::LeftQueued);
        }
        for headers in self.headers(RESULTS).await {
            self.take_down(call_of_result(&headers), Step::LeftResult);
        }
        for headers in self.headers(DEAD).await {
            let is_result =
                headers.get(H_SUBJECT).is_some_and(|was| was.as_str().starts_with(RESULTS));
            let (call, step) = if is_result {
                (call_of_result(&headers), Step::ResultDeadLetter)
            } else {
                let died =
                    headers.get(H_AT).and_then(|at| at.as_str().parse::<jiff::Timestamp>().ok());
                let stored = self.recorder.time_of(died.expect("a dead letter says when").into());
                (call_of(&headers), Step::DeadLetter { stored })
            };
            self.take_down(call, step);
        }
    }

    /// Asks the gateways for calls that died, whichever version stored their dead letters.
    pub(crate) async fn dead_calls_are_found(&self) {
        let calls = until("there are dead calls", async || {
            let letters = self.headers(DEAD).await;
            let calls = letters
                .iter()
                .filter_map(|headers| native::decode(headers, bytes::Bytes::new()).ok());
            // One with a callback may have its result on the way, of which a gateway speaks first.
            let calls: Vec<_> =
                calls.filter(|call| call.callback_url.is_none()).take(LOOKED_UP).collect();
            (!calls.is_empty()).then_some(calls)
        });
        for call in calls.await {
            let status = self.ask(&format!("/async-function/{}", call.call_id)).await;
            assert_eq!(
                (status.status, &status.json()["state"]),
                (200, &"dead".into()),
                "{}",
                call.call_id
            );
        }
    }

    fn take_down(&self, call: Option<CallNumber>, step: Step) {
        self.recorder.step(call.expect("each message has the number of its call"), step);
    }

    async fn headers(&self, stream: &str) -> Vec<HeaderMap> {
        let state = self.info(stream).await.expect("the stream is there").state;
        let stream = self.js().get_stream_no_info(stream).await.unwrap();
        let mut headers = Vec::new();
        if state.messages > 0 {
            for sequence in state.first_sequence..=state.last_sequence {
                // Some of them have ended out of turn.
                headers.extend(
                    stream.get_raw_message(sequence).await.ok().map(|message| message.headers),
                );
            }
        }
        headers
    }
}
