//! A receiver of callbacks that does with each what is planned for it, and records what it got.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::task::JoinSet;

use super::{
    listener::listen,
    plan::{PlannedBatch, PlannedCall, Reception},
};
use crate::{
    history::{
        event::{BatchNumber, BatchStep, CallNumber, Step},
        recorder::Recorder,
    },
    loopback::free_port,
};

/// The path of callbacks, before the number of the call.
const PATH: &str = "/callback/";

/// The path of callbacks of batches, before the number of the batch.
const BATCH_PATH: &str = "/batch/";

/// A receiver on loopback, ended when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    url: String,
    /// An address without a listener.
    dead: String,
    state: Arc<State>,
    _running: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    recorder: Recorder,
    receptions: Mutex<HashMap<CallNumber, Reception>>,
    refused: Mutex<HashMap<CallNumber, u64>>,
    batch_receptions: Mutex<HashMap<BatchNumber, Reception>>,
    batch_refused: Mutex<HashMap<BatchNumber, u64>>,
}

/// A callback that has no answer yet. Dropped so, it was not taken.
struct Receiving {
    recorder: Recorder,
    call: CallNumber,
    status: u16,
    taken: bool,
}

impl Receiver {
    /// Starts a receiver that records what it gets.
    pub async fn start(recorder: Recorder) -> Self {
        let state = Arc::new(State {
            recorder,
            receptions: Mutex::default(),
            refused: Mutex::default(),
            batch_receptions: Mutex::default(),
            batch_refused: Mutex::default(),
        });
        let answering = state.clone();
        let (port, running) = listen(move |request| {
            let state = answering.clone();
            async move { state.answer(request).await }
        })
        .await;
        let url = |port| format!("http://127.0.0.1:{port}");
        Self { url: url(port), dead: url(free_port()), state, _running: running }
    }

    /// Sets what it does with the callbacks of calls.
    pub fn expect(&self, calls: &[PlannedCall]) {
        let mut receptions = self.state.receptions.lock().expect("no handler panicked");
        receptions.extend(calls.iter().filter_map(|call| Some((call.number, call.callback?))));
    }

    /// Sets what it does with the callbacks of batches.
    pub fn expect_batches(&self, batches: &[PlannedBatch]) {
        let mut receptions = self.state.batch_receptions.lock().expect("no handler panicked");
        receptions.extend(batches.iter().filter_map(|batch| Some((batch.number, batch.callback?))));
    }

    /// The callback URL of a batch, if it has one.
    #[must_use]
    pub fn batch_url(&self, batch: &PlannedBatch) -> Option<String> {
        let server = self.server(batch.callback?);
        Some(format!("{server}{BATCH_PATH}{}", batch.number))
    }

    fn server(&self, reception: Reception) -> &str {
        match reception {
            Reception::Dead => &self.dead,
            _ => &self.url,
        }
    }

    /// The callback URL of a call, if it has one.
    #[must_use]
    pub fn url(&self, call: &PlannedCall) -> Option<String> {
        let server = self.server(call.callback?);
        Some(format!("{server}{PATH}{}", call.number))
    }
}

/// The number of a call in the path of its callback URL.
#[must_use]
pub fn number_in(path: &str) -> Option<CallNumber> {
    path.strip_prefix(PATH)?.parse().ok()
}

/// The number of a batch in the path of its callback URL.
#[must_use]
pub fn batch_in(path: &str) -> Option<BatchNumber> {
    path.strip_prefix(BATCH_PATH)?.parse().ok()
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if let Some(batch) = batch_in(request.uri().path()) {
            return self.answer_batch(batch, request).await;
        }
        let call =
            number_in(request.uri().path()).expect("each callback has the number of its call");
        let status =
            request.headers().get("x-function-status").and_then(|status| status.to_str().ok());
        let status =
            status.and_then(|status| status.parse().ok()).expect("each callback has a status");
        let mut receiving =
            Receiving { recorder: self.recorder.clone(), call, status, taken: false };
        if request.into_body().collect().await.is_err() {
            return respond(400);
        }
        let reception = self.receptions.lock().expect("no handler panicked").get(&call).copied();
        let answer = receive(&self.refused, reception, call).await;
        receiving.taken = answer == 200;
        drop(receiving);
        respond(answer)
    }

    /// A callback of a batch is not cut off in tests: its receiver answers it as a whole.
    async fn answer_batch(
        &self,
        batch: BatchNumber,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let Ok(body) = request.into_body().collect().await else { return respond(400) };
        let report = serde_json::from_slice(&body.to_bytes()).expect("a report of a batch");
        let reception =
            self.batch_receptions.lock().expect("no handler panicked").get(&batch).copied();
        let answer = receive(&self.batch_refused, reception, batch).await;
        let step = BatchStep::CallbackReceived { report, taken: answer == 200 };
        self.recorder.batch(batch, step);
        respond(answer)
    }
}

/// Does with a callback what is planned for it, and returns the status of the answer.
async fn receive(
    refused: &Mutex<HashMap<u64, u64>>,
    reception: Option<Reception>,
    number: u64,
) -> u16 {
    match reception.expect("each callback is planned") {
        Reception::Slow(time) => {
            tokio::time::sleep(time).await;
            200
        }
        Reception::Refuses(times, status) if refuse(refused, number, times) => status,
        Reception::Prompt | Reception::Refuses(..) | Reception::Dead => 200,
    }
}

fn refuse(refused: &Mutex<HashMap<u64, u64>>, number: u64, times: u64) -> bool {
    let mut refused = refused.lock().expect("no handler panicked");
    let count = refused.entry(number).or_default();
    *count += 1;
    *count <= times
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let step = Step::CallbackReceived { status: self.status, taken: self.taken };
        self.recorder.step(self.call, step);
    }
}

fn respond(status: u16) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::default()).expect("a response")
}
