//! A function that does with each call what is planned for it, and takes down when it was called and how that ended.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use asyncqueue_runtime::server;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::plan::{Behaviour, Failure, PlannedCall};
use crate::history::{
    event::{CallNumber, Step},
    recorder::Recorder,
};

/// Between two pieces of an answer that never ends.
const ENDLESS_PAUSE: Duration = Duration::from_millis(50);

/// Longer than any worker waits.
const SILENCE: Duration = Duration::from_secs(3600);

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A function on loopback, ended when it is dropped.
#[derive(Debug)]
pub struct Function {
    port: u16,
    state: Arc<State>,
    _running: DropGuard,
}

#[derive(Debug)]
struct State {
    recorder: Recorder,
    behaviours: Mutex<HashMap<CallNumber, Behaviour>>,
    runs: Mutex<HashMap<CallNumber, u64>>,
}

/// A run that has no end yet. Dropped so, its caller went away.
struct Run<'a> {
    recorder: &'a Recorder,
    call: CallNumber,
    number: u64,
    ended: bool,
}

impl Function {
    /// Starts a function that takes down what it sees.
    pub async fn start(recorder: Recorder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(State { recorder, behaviours: Mutex::default(), runs: Mutex::default() });
        let answering = state.clone();
        let handler = move |request| {
            let state = answering.clone();
            async move { state.answer(request).await }
        };
        let shutdown = CancellationToken::new();
        tokio::spawn(server::serve(listener, handler, shutdown.clone(), Duration::ZERO));
        Self { port, state, _running: shutdown.drop_guard() }
    }

    /// Its port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Tells it what to do with calls.
    pub fn expect(&self, calls: &[PlannedCall]) {
        let mut behaviours = self.state.behaviours.lock().expect("no handler panicked");
        behaviours.extend(calls.iter().map(|call| (call.number, call.behaviour)));
    }
}

/// The number of a call, as the query that its client sends with it.
#[must_use]
pub fn query(number: CallNumber) -> String {
    format!("n={number}")
}

/// Reads the number of a call.
#[must_use]
pub fn number_in(query: Option<&str>) -> Option<CallNumber> {
    query?.strip_prefix("n=")?.parse().ok()
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let number = number_in(request.uri().query()).expect("each call has a number");
        let behaviour = self.behaviours.lock().expect("no handler panicked").get(&number).copied();
        let behaviour = behaviour.expect("each call is planned");
        let mut run = self.begin(number);
        if request.into_body().collect().await.is_err() {
            return whole(400);
        }
        tokio::time::sleep(behaviour.takes).await;
        if run.number > behaviour.fails {
            run.returns(200);
            return whole(200);
        }
        match behaviour.failure {
            Failure::Status(status) => {
                run.returns(status);
                whole(status)
            }
            Failure::TooMany(retry_after) => {
                run.returns(429);
                let mut answer = whole(429);
                answer.headers_mut().insert("retry-after", retry_after.parse().expect("a header's value"));
                answer
            }
            Failure::HalfAnswer => {
                run.fails();
                let broken = std::io::Error::other("broken off, as planned");
                pieces(stream::iter([Ok(Bytes::from_static(b"half")), Err(broken)]))
            }
            Failure::Endless => {
                run.fails();
                pieces(stream::repeat(Bytes::from_static(&[b'x'; 1024])).then(async |piece| {
                    tokio::time::sleep(ENDLESS_PAUSE).await;
                    Ok(piece)
                }))
            }
            Failure::Silent => {
                tokio::time::sleep(SILENCE).await;
                whole(200)
            }
        }
    }

    fn begin(&self, call: CallNumber) -> Run<'_> {
        let mut runs = self.runs.lock().expect("no handler panicked");
        let number = runs.entry(call).or_default();
        *number += 1;
        let run = Run { recorder: &self.recorder, call, number: *number, ended: false };
        // Under the lock, so that the runs are taken down in the order of their numbers.
        self.recorder.step(call, Step::Started { run: run.number });
        run
    }
}

impl Run<'_> {
    /// Taken down before the answer is sent: what follows from it comes later.
    fn returns(&mut self, status: u16) {
        self.ended = true;
        self.recorder.step(self.call, Step::Returned { run: self.number, status });
    }

    fn fails(&mut self) {
        self.ended = true;
        self.recorder.step(self.call, Step::Failed { run: self.number });
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.recorder.step(self.call, Step::BrokenOff { run: self.number });
        }
    }
}

fn whole(status: u16) -> Response<Body> {
    let body = Full::new(Bytes::from_static(b"ok")).map_err(|never: Infallible| match never {});
    Response::builder().status(status).body(body.boxed_unsync()).expect("a response")
}

fn pieces(pieces: impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    Response::new(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync())
}
