//! A receiver of callbacks that does with each what is planned for it, and takes down what it was told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use super::plan::{PlannedCall, Reception};
use crate::{
    history::{
        event::{CallNumber, Step},
        recorder::Recorder,
    },
    http::{HttpServer, Received, respond},
    nats::free_port,
};

/// The path of callbacks, before the number of the call.
const PATH: &str = "/told/";

/// A receiver on loopback, ended when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    server: HttpServer,
    /// Where nobody listens.
    dead: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    recorder: Recorder,
    receptions: Mutex<HashMap<CallNumber, Reception>>,
    refused: Mutex<HashMap<CallNumber, u64>>,
}

/// A callback that has no answer yet. Dropped so, it was not taken.
struct Telling {
    recorder: Recorder,
    call: CallNumber,
    status: u16,
    taken: bool,
}

impl Receiver {
    /// Starts a receiver that takes down what it is told.
    pub async fn start(recorder: Recorder) -> Self {
        let state = Arc::new(State { recorder, receptions: Mutex::default(), refused: Mutex::default() });
        let answering = state.clone();
        let server = HttpServer::answering(move |received| {
            let state = answering.clone();
            Box::pin(async move { state.answer(&received).await })
        })
        .await;
        Self { server, dead: format!("http://127.0.0.1:{}", free_port()), state }
    }

    /// Tells it what to do with the callbacks of calls.
    pub fn expect(&self, calls: &[PlannedCall]) {
        let mut receptions = self.state.receptions.lock().expect("no handler panicked");
        receptions.extend(calls.iter().filter_map(|call| Some((call.number, call.callback?))));
    }

    /// The callback URL of a call, if it has one.
    #[must_use]
    pub fn url(&self, call: &PlannedCall) -> Option<String> {
        let server = match call.callback? {
            Reception::Dead => self.dead.clone(),
            _ => self.server.url(),
        };
        Some(format!("{server}{PATH}{}", call.number))
    }
}

/// The number of a call in the path of its callback URL.
#[must_use]
pub fn number_in(path: &str) -> Option<CallNumber> {
    path.strip_prefix(PATH)?.parse().ok()
}

impl State {
    async fn answer(&self, received: &Received) -> http::Response<http_body_util::Full<bytes::Bytes>> {
        let call = number_in(&received.target).expect("each callback has the number of its call");
        let status = received.header("x-function-status").parse().expect("each callback has a status");
        let mut telling = Telling { recorder: self.recorder.clone(), call, status, taken: false };
        let reception = self.receptions.lock().expect("no handler panicked").get(&call).copied();
        let answer = match reception.expect("each callback is planned") {
            Reception::Slow(time) => {
                tokio::time::sleep(time).await;
                200
            }
            Reception::Refuses(times, status) if self.refuse(call, times) => status,
            Reception::Prompt | Reception::Refuses(..) | Reception::Dead => 200,
        };
        telling.taken = answer == 200;
        drop(telling);
        respond(answer, "").await
    }

    fn refuse(&self, call: CallNumber, times: u64) -> bool {
        let mut refused = self.refused.lock().expect("no handler panicked");
        let count = refused.entry(call).or_default();
        *count += 1;
        *count <= times
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.recorder.step(self.call, Step::Told { status: self.status, taken: self.taken });
    }
}
