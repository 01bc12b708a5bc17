//! A function that does with each call what is planned for it, and records when it was invoked and
//! how that ended.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use tokio::task::JoinSet;

use super::{
    body,
    listener::listen,
    plan::{Answer, Behaviour, Failure, PlannedCall},
};
use crate::history::{
    event::{CallNumber, QueueNumber, Step},
    recorder::Recorder,
};

/// Between two pieces of an answer that never ends.
const ENDLESS_PAUSE: Duration = Duration::from_millis(50);

/// Longer than any worker waits.
const HANG_TIME: Duration = Duration::from_secs(3600);

/// Headers of an answer with many, and the length of each: 70 KB.
const MANY: usize = 70;
const LENGTH: usize = 1000;

/// The length of a header whose text is not ASCII, and one byte of it.
const WIDE: usize = 23_000;
const NOT_ASCII: u8 = 0xE9;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A function on loopback, ended when it is dropped.
#[derive(Debug)]
pub struct Function {
    port: u16,
    state: Arc<State>,
    _running: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    recorder: Recorder,
    behaviours: Mutex<HashMap<CallNumber, Behaviour>>,
    runs: Mutex<HashMap<CallNumber, u64>>,
}

/// An invocation that has no end yet. Dropped so, its worker closed the connection.
struct Run<'a> {
    recorder: &'a Recorder,
    call: CallNumber,
    number: u64,
    ended: bool,
}

impl Function {
    /// Starts a function that records what it sees.
    pub async fn start(recorder: Recorder) -> Self {
        let state =
            Arc::new(State { recorder, behaviours: Mutex::default(), runs: Mutex::default() });
        let answering = state.clone();
        let handler = move |request| {
            let state = answering.clone();
            async move { state.answer(request).await }
        };
        let (port, running) = listen(handler).await;
        Self { port, state, _running: running }
    }

    /// Its port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets what it does with calls.
    pub fn expect(&self, calls: &[PlannedCall]) {
        let mut behaviours = self.state.behaviours.lock().expect("no handler panicked");
        behaviours.extend(calls.iter().map(|call| (call.number, call.behaviour)));
    }

    /// Lets all further invocations of a call succeed.
    pub fn succeeds(&self, call: CallNumber) {
        let mut behaviours = self.state.behaviours.lock().expect("no handler panicked");
        if let Some(behaviour) = behaviours.get_mut(&call) {
            behaviour.fails = 0;
        }
    }
}

/// The first function of each queue.
pub const FUNCTIONS: [&str; 2] = ["figlet", "mailer"];

/// Returns the name of a function of a queue.
#[must_use]
pub fn function_name(queue: QueueNumber, function: u64) -> String {
    let name = FUNCTIONS[queue];
    if function == 0 { name.to_owned() } else { format!("{name}-{function}") }
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
            return whole(400, Bytes::new(), behaviour.answer);
        }
        let text = body::of_run(number, run.number);
        tokio::time::sleep(behaviour.takes).await;
        if run.number > behaviour.fails {
            run.returns(200);
            return whole(200, text, behaviour.answer);
        }
        match behaviour.failure {
            Failure::Status(status) => {
                run.returns(status);
                whole(status, text, behaviour.answer)
            }
            Failure::TooMany(retry_after) => {
                run.returns(429);
                let mut answer = whole(429, text, behaviour.answer);
                answer
                    .headers_mut()
                    .insert("retry-after", retry_after.parse().expect("a header's value"));
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
                tokio::time::sleep(HANG_TIME).await;
                whole(200, text, Answer::Short)
            }
        }
    }

    fn begin(&self, call: CallNumber) -> Run<'_> {
        let mut runs = self.runs.lock().expect("no handler panicked");
        let number = runs.entry(call).or_default();
        *number += 1;
        let run = Run { recorder: &self.recorder, call, number: *number, ended: false };
        // Under the lock, so that the invocations are recorded in the order of their numbers.
        self.recorder.step(call, Step::Started { run: run.number });
        run
    }
}

impl Run<'_> {
    /// Recorded before the answer is sent: what follows from it comes later.
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

fn whole(status: u16, text: Bytes, answer: Answer) -> Response<Body> {
    let body = match answer {
        Answer::Long(bytes) => Bytes::from(vec![b'x'; bytes]),
        Answer::Short | Answer::ManyHeaders | Answer::WideHeader => text,
    };
    let body = Full::new(body).map_err(|never: Infallible| match never {});
    let mut response = Response::builder().status(status);
    let text =
        |byte: u8, bytes| HeaderValue::from_bytes(&vec![byte; bytes]).expect("a header's value");
    match answer {
        Answer::ManyHeaders => {
            for number in 0..MANY {
                response = response.header(format!("x-many-{number}"), text(b'x', LENGTH));
            }
        }
        Answer::WideHeader => response = response.header("x-wide", text(NOT_ASCII, WIDE)),
        Answer::Short | Answer::Long(_) => {}
    }
    response.body(body.boxed_unsync()).expect("a response")
}

fn pieces(
    pieces: impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    Response::new(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync())
}
