//! Workers that are broken on purpose. Each breaks a promise, which the checker must find: the
//! proof that a history without a finding means something.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{AckKind, Context, Message, consumer::PullConsumer};
use asyncqueue::{
    EndState, Invocation,
    batch::{CallEnd, record_end},
    call::CallRef,
    directory::ResultsSettings,
    kept_results::ResultsStream,
    message::{kept_result::KeptResult, native},
    worker_requests::{REPLY_HELD, cancel_subject},
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use test_support::{
    history::{checker::Rule, event::Excuse},
    load::{body, plan::Mix},
};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    run::Scenario,
    stage::{LEASE, Setup, Stage},
};

/// How a worker is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// It acknowledges a call before it has made it.
    AcksEarly,
    /// It never acknowledges.
    NeverAcks,
    /// It runs all calls at once.
    IgnoresTotal,
    /// It acknowledges calls without a result for their clients, and without an end of their batch.
    KeepsNoResult,
    /// It keeps the response of another call.
    KeepsOtherResult,
    /// It records the end of each call of a batch as dead.
    RecordsOtherEnd,
    /// It runs calls before they are due.
    IgnoresDelay,
    /// It holds calls for a while before it makes them, and says of cancelled ones that it does not
    /// start them.
    RunsCancelled,
}

/// How long a broken worker keeps results.
const KEEP: Duration = Duration::from_secs(60);

/// A broken worker.
struct Worker {
    flaw: Flaw,
    js: Context,
    /// Where the function is.
    url: String,
    results: ResultsStream,
}

pub(crate) fn all() -> Vec<Scenario> {
    let mix = Mix {
        calls: 60,
        queues: 1,
        shared_ids: 0,
        over: Duration::from_secs(1),
        callbacks: 0,
        failing: 0,
        slow: 50,
        slowest: Duration::from_secs(1),
        ..Mix::default()
    };
    let setup = Setup { workers: 0, mix: mix.clone(), timeout: LEASE * 2, ..Setup::default() };
    let scenario = |name, rule, setup: &Setup, act| Scenario {
        is_short: true,
        setup: setup.clone(),
        breaks: Some(rule),
        ..Scenario::new(name, act)
    };
    let with_total = Setup { concurrency: Some(2), ..setup.clone() };
    let cancelling = Setup { mix: Mix { cancelled: 50, ..mix.clone() }, ..setup.clone() };
    let short = Mix { cancelled: 0, slow: 0, ..mix };
    let keeping = Setup { mix: Mix { kept: 100, ..short.clone() }, ..setup.clone() };
    let waits = Duration::from_secs(5);
    let waiting = Setup { mix: Mix { waiting: 50, waits, ..short.clone() }, ..setup.clone() };
    let batching = Setup { mix: Mix { batches: 5, ..short.clone() }, ..setup.clone() };
    let delaying = Setup { mix: Mix { delayed: 50, ..short }, ..setup.clone() };
    vec![
        scenario("a worker acknowledges early, and is killed", Rule::Lost, &setup, |stage| {
            killed(stage, Flaw::AcksEarly).boxed_local()
        }),
        scenario("a worker never acknowledges", Rule::RanAgain, &setup, |stage| {
            runs(stage, Flaw::NeverAcks).boxed_local()
        }),
        scenario("a worker ignores the total", Rule::TooManyOpen, &with_total, |stage| {
            runs(stage, Flaw::IgnoresTotal).boxed_local()
        }),
        scenario(
            "a worker runs what was cancelled",
            Rule::StartedAfterCancel,
            &cancelling,
            |stage| runs(stage, Flaw::RunsCancelled).boxed_local(),
        ),
        scenario(
            "a worker keeps the result of another call",
            Rule::WrongResult,
            &keeping,
            |stage| runs_load(stage, Flaw::KeepsOtherResult).boxed_local(),
        ),
        scenario("a worker runs delayed calls at once", Rule::StartedEarly, &delaying, |stage| {
            runs_load(stage, Flaw::IgnoresDelay).boxed_local()
        }),
        scenario("a worker records no ends of batches", Rule::BatchWrongEnd, &batching, |stage| {
            runs_load(stage, Flaw::KeepsNoResult).boxed_local()
        }),
        Scenario {
            is_short: false,
            ..scenario("a worker records wrong ends", Rule::BatchWrongEnd, &batching, |stage| {
                runs_load(stage, Flaw::RecordsOtherEnd).boxed_local()
            })
        },
        Scenario {
            is_short: false,
            ..scenario("a worker keeps no results", Rule::ResultMissing, &keeping, |stage| {
                runs_load(stage, Flaw::KeepsNoResult).boxed_local()
            })
        },
        Scenario {
            is_short: false,
            ..scenario(
                "a worker keeps no results for clients that wait",
                Rule::WaitMissed,
                &waiting,
                |stage| runs_load(stage, Flaw::KeepsNoResult).boxed_local(),
            )
        },
    ]
}

/// The worker dies in the middle of it, and a whole one takes over.
async fn killed(stage: &mut Stage, flaw: Flaw) {
    let worker = start(stage, flaw).await;
    stage.in_the_middle().await;
    stage.recorder.fault("the worker is killed", Excuse::Once);
    drop(worker);
    stage.add_worker();
}

/// The worker goes on until the load has ended, and for some leases more.
async fn runs(stage: &mut Stage, flaw: Flaw) {
    let worker = start(stage, flaw).await;
    stage.load_ends().await;
    sleep(LEASE * 2).await;
    drop(worker);
}

/// The worker goes on until the load has ended.
async fn runs_load(stage: &mut Stage, flaw: Flaw) {
    let worker = start(stage, flaw).await;
    stage.load_ends().await;
    stage.is_drained().await;
    drop(worker);
}

/// A worker in this process. Dropped, it is as dead as one that was killed.
async fn start(stage: &Stage, flaw: Flaw) -> JoinSet<()> {
    let spec = stage.spec();
    let consumer: PullConsumer =
        stage.js.get_consumer_from_stream(&spec.durable, &spec.stream).await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let url = format!("http://127.0.0.1:{}", stage.function.port());
    let mut worker = JoinSet::new();
    let results = ResultsStream::new(stage.js.clone(), spec.queue.clone(), spec.stream.clone());
    let broken = Arc::new(Worker { flaw, js: stage.js.clone(), url, results });
    worker.spawn(async move {
        let mut calls = JoinSet::new();
        while let Some(Ok(message)) = messages.next().await {
            let broken = broken.clone();
            calls.spawn(async move { broken.handle(message).await });
        }
    });
    if flaw == Flaw::RunsCancelled {
        let client = stage.js.client();
        let mut cancelled = client.subscribe(cancel_subject(&spec.queue)).await.unwrap();
        worker.spawn(async move {
            while let Some(question) = cancelled.next().await {
                client.publish(question.reply.unwrap(), REPLY_HELD.into()).await.unwrap();
            }
        });
    }
    worker
}

impl Worker {
    async fn handle(&self, message: Message) {
        match self.flaw {
            Flaw::AcksEarly => message.double_ack().await.unwrap(),
            Flaw::RunsCancelled => sleep(LEASE / 2).await,
            _ => {}
        }
        let call = native::decode(message.headers.as_ref().unwrap(), Bytes::new()).unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let uri = format!("{}/?{}", self.url, call.query.as_deref().unwrap());
        let request = Request::post(uri).body(Full::default()).unwrap();
        client.request(request).await.unwrap().into_body().collect().await.unwrap();
        self.record(&call, message.info().unwrap().stream_sequence).await;
        if !matches!(self.flaw, Flaw::AcksEarly | Flaw::NeverAcks) {
            message.ack_with(AckKind::Ack).await.unwrap();
        }
    }

    /// Records what is wrong of a call that has run.
    async fn record(&self, call: &Invocation, sequence: u64) {
        match (self.flaw, &call.batch) {
            (Flaw::KeepsOtherResult, _) => {
                let result = KeptResult {
                    body: body::of_run(u64::MAX, 1),
                    ..KeptResult::new(call, sequence, EndState::Done, 200)
                };
                self.results.store(&result, KEEP, &ResultsSettings::default()).await.unwrap();
            }
            (Flaw::RecordsOtherEnd, Some(member)) => {
                let call = CallRef { id: call.call_id.clone(), sequence };
                record_end(&self.js, member, &call, CallEnd::Dead, 500).await.unwrap();
            }
            _ => {}
        }
    }
}
