//! How a client submits batches, repeats what may not be stored, and asks for their reports.

use asyncqueue::batch::BatchReport;
use http::Method;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{Answer, Client, NO_HEADERS, NoAnswer, PAUSE, WAIT_TIMEOUT};
use crate::{
    history::event::{BatchStep, Step},
    load::{batch, plan::PlannedBatch, receiver::Receiver},
};

impl Client {
    /// Submits batches, each at its time, and returns when the last word on each is said.
    pub async fn submit_batches(self, batches: Vec<PlannedBatch>, receiver: &Receiver) {
        let (begun, mut clients) = (Instant::now(), JoinSet::new());
        for batch in batches {
            let (client, url) = (self.clone(), receiver.batch_url(&batch));
            clients.spawn(async move {
                sleep_until(begun + batch.at).await;
                client.see_batch_through(batch, url.as_deref()).await;
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended.expect("no client panicked");
        }
    }

    /// Asks about each batch, when all calls have ended.
    pub(super) async fn ask_batches(&self) {
        let batches = std::mem::take(&mut self.lock().batches);
        for batch in batches {
            let report = self.read_batch(&batch).await;
            self.recorder.batch(batch.number, BatchStep::ReportedLast(report));
            if batch.cancels_rest {
                self.step_of_all(&batch, Step::CancelUnanswered);
            }
        }
    }

    async fn see_batch_through(&self, batch: PlannedBatch, url: Option<&str>) {
        // A failed call may cancel the others before the client has its answer.
        if batch.cancels_rest {
            self.step_of_all(&batch, Step::CancelSent);
        }
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while Instant::now() < deadline {
            match self.submit_batch(&batch, url).await {
                Some(202) => break,
                // The id makes the repeat safe.
                Some(429 | 503 | 507) | None => sleep(PAUSE).await,
                Some(_) => return,
            }
        }
        for _ in 0..batch.repeats {
            self.submit_batch(&batch, url).await;
        }
        sleep(PAUSE).await;
        if let Some(after) = batch.cancel_after {
            sleep(after).await;
            self.cancel_batch(&batch).await;
        }
        if let Some(report) = self.read_batch(&batch).await {
            self.recorder.batch(batch.number, BatchStep::Reported(report));
        }
        self.lock().batches.push(batch);
    }

    /// Submits a batch once. Returns the status; `None` if there was no answer.
    async fn submit_batch(&self, batch: &PlannedBatch, url: Option<&str>) -> Option<u16> {
        let calls = batch.calls.iter().map(|call| call.number).collect();
        let submitted = BatchStep::Submitted { calls, callback: url.is_some() };
        self.recorder.batch(batch.number, submitted);
        for call in &batch.calls {
            let submitted =
                Step::Submitted { callback: false, queue: call.queue, shares_id: false };
            self.recorder.step(call.number, submitted);
        }
        let id = id_of(batch);
        let headers = [
            ("x-batch-id", Some(&*id)),
            ("x-callback-url", url),
            ("content-type", Some("application/x-ndjson")),
        ];
        let target =
            if batch.cancels_rest { "/async-batch?onFailure=cancel" } else { "/async-batch" };
        let lines = batch::lines(batch).to_vec();
        let answer = self.send(batch.number, Method::POST, target, &headers, lines).await;
        let step = match &answer {
            Ok(Answer { status, retry_after, .. }) => {
                Step::Answered { status: *status, retry_after: *retry_after }
            }
            Err(NoAnswer::Broken) => Step::Unanswered,
            Err(NoAnswer::Hung) => Step::Hung,
        };
        let status = answer.ok().map(|answer| answer.status);
        self.recorder.batch(batch.number, BatchStep::Answered(status));
        self.step_of_all(batch, step);
        status
    }

    /// Cancels what has not ended of a batch, as often as it takes to get an answer that lasts.
    async fn cancel_batch(&self, batch: &PlannedBatch) {
        let target = format!("/async-batch/{}", id_of(batch));
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while Instant::now() < deadline {
            self.step_of_all(batch, Step::CancelSent);
            let answer = self.send(batch.number, Method::DELETE, &target, NO_HEADERS, Vec::new());
            let answer = answer.await;
            // Which calls had ended is not in the answer.
            self.step_of_all(batch, Step::CancelUnanswered);
            match answer {
                Ok(Answer { status, body, .. }) => {
                    let counts = counts_of(&body).filter(|_| status == 202);
                    self.recorder.batch(batch.number, BatchStep::CancelAnswered { status, counts });
                    if status != 503 {
                        return;
                    }
                }
                Err(NoAnswer::Broken) => {}
                Err(NoAnswer::Hung) => self.step_of_all(batch, Step::Hung),
            }
            sleep(PAUSE).await;
        }
    }

    async fn read_batch(&self, batch: &PlannedBatch) -> Option<BatchReport> {
        let target = format!("/async-batch/{}", id_of(batch));
        let answer = self.send(batch.number, Method::GET, &target, NO_HEADERS, Vec::new()).await;
        let answer = answer.ok().filter(|answer| answer.status == 200)?;
        serde_json::from_slice(&answer.body).ok()
    }

    fn step_of_all(&self, batch: &PlannedBatch, step: Step) {
        batch.calls.iter().for_each(|call| self.recorder.step(call.number, step));
    }
}

/// Reads how many calls are cancelled, and how many had ended.
fn counts_of(body: &[u8]) -> Option<(u64, u64)> {
    let counts: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some((counts["cancelled"].as_u64()?, counts["ended"].as_u64()?))
}

fn id_of(batch: &PlannedBatch) -> String {
    format!("batch-{}", batch.number)
}
