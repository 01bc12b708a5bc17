//! A client of the gateway that submits calls as planned, repeats what may not be stored, cancels,
//! asks, and records each answer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use asyncqueue::headers::{X_CALL_STATE, X_FUNCTION_STATUS};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Collected, Full};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    body, function,
    plan::{Delay, Id, PlannedBatch, PlannedCall},
    receiver::Receiver,
};
use crate::history::{
    call_ids,
    event::{CallNumber, QueueNumber, Reported, ResultRead, SeenResult, Step},
    recorder::Recorder,
};

mod batches;

/// Before a client comes again that was refused for now. Sooner than Retry-After says: the more it
/// is refused, the more is seen.
const PAUSE: Duration = Duration::from_millis(200);

/// For how long a client comes again and again.
const WAIT_TIMEOUT: Duration = Duration::from_secs(90);

/// How long results are kept: longer than any scenario lasts.
const KEEP: &str = "1h";

/// A client. Clones know of the same calls.
#[derive(Clone, Debug)]
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    gateways: Arc<Vec<SocketAddr>>,
    recorder: Recorder,
    /// The longest that a gateway may take to answer.
    limit: Duration,
    known: Arc<Mutex<Known>>,
}

/// What a client knows of its calls.
#[derive(Debug, Default)]
struct Known {
    /// The calls with each id that several share.
    sharers: HashMap<String, Vec<CallNumber>>,
    /// The ids of calls to ask about when all is over.
    asked: Vec<(PlannedCall, String)>,
    /// The batches to ask about when all is over.
    batches: Vec<PlannedBatch>,
}

/// A call as its client submits it, each time the same.
struct Submission<'a> {
    call: &'a PlannedCall,
    callback_url: Option<&'a str>,
    /// The time before which it may not run.
    due: Option<Duration>,
}

/// When a client reads the result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// At any time.
    Any,
    /// When all calls have left their queues.
    Last,
}

/// What the gateway said.
struct Answer {
    status: u16,
    call_id: Option<String>,
    retry_after: bool,
    /// The result of the call, if this is one.
    result: Option<SeenResult>,
    /// Whether that is what the client waited for.
    is_waited: bool,
    body: Bytes,
}

/// Why it said nothing.
enum NoAnswer {
    Broken,
    Hung,
}

/// The headers of a request that has none.
const NO_HEADERS: &[(&str, Option<&str>)] = &[];

impl Client {
    /// A client of these gateways, each of which it lets take at most `limit` to answer.
    #[must_use]
    pub fn new(gateways: Vec<SocketAddr>, recorder: Recorder, limit: Duration) -> Self {
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Self { http, gateways: Arc::new(gateways), recorder, limit, known: Arc::default() }
    }

    /// Submits calls, each at its time, and returns when the last word on each is said.
    pub async fn submit_all(self, calls: Vec<PlannedCall>, receiver: &Receiver) {
        let (begun, mut clients) = (Instant::now(), JoinSet::new());
        for call in calls {
            let (client, url) = (self.clone(), receiver.url(&call));
            clients.spawn(async move {
                sleep_until(begun + call.at).await;
                client.see_through(&call, url.as_deref()).await;
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended.expect("no client panicked");
        }
    }

    /// Asks about each call for which that is planned, when all has ended.
    pub async fn ask_all(&self) {
        let asked = std::mem::take(&mut self.lock().asked);
        for (call, id) in asked {
            if call.ask_after.is_some() {
                self.ask_status(&call, &id).await;
            }
            if call.has_result() {
                self.read_result(&call, &id, Moment::Last).await;
            }
        }
        self.ask_batches().await;
    }

    /// One call, from its first submission to its cancellation.
    async fn see_through(&self, call: &PlannedCall, callback_url: Option<&str>) {
        let own_id = match call.id {
            Id::Generated => None,
            Id::Own => Some(call_ids::own_id(call.number)),
            Id::Shared(id) => Some(shared_id(call.queue, id)),
        };
        if let (Id::Shared(_), Some(id)) = (call.id, &own_id) {
            self.lock().sharers.entry(id.clone()).or_default().push(call.number);
        }
        let due = call.delay.map(|delay| self.recorder.now() + delay.time());
        let submission = Submission { call, callback_url, due };
        let id = match own_id {
            Some(id) if call.cancels_wait => self.cancel_wait(&submission, id).await,
            id => self.submit(&submission, id).await,
        };
        let Some(id) = id else { return };
        let repeats = if call.cancels_wait { 0 } else { call.repeats };
        for _ in 0..repeats {
            // 202 again, or not known: the call is stored in any case.
            let _ = self.submit_once(&submission, Some(&id)).await;
        }
        let asking = async {
            if let Some(after) = call.ask_after {
                sleep(after).await;
                self.ask_status(call, &id).await;
                if call.has_result() && !matches!(call.id, Id::Shared(_)) {
                    self.read_result(call, &id, Moment::Any).await;
                }
            }
        };
        let cancelling = async {
            if let Some(after) = call.cancel_after
                && !call.cancels_wait
            {
                sleep(after).await;
                self.cancel(call, &id).await;
            }
        };
        tokio::join!(asking, cancelling);
        let is_asked = call.ask_after.is_some() || call.has_result();
        if is_asked && !matches!(call.id, Id::Shared(_)) {
            self.lock().asked.push((*call, id));
        }
    }

    /// Submits a call, waits for its result, and cancels it during the wait; returns its id if
    /// it is stored. It is sent once: nats-server may not recognise a repeat after the end.
    async fn cancel_wait(&self, submission: &Submission<'_>, id: String) -> Option<String> {
        let call = submission.call;
        let cancelling = async {
            sleep(call.cancel_after.unwrap_or_default()).await;
            self.cancel(call, &id).await;
        };
        let (answer, ()) = tokio::join!(self.submit_once(submission, Some(&id)), cancelling);
        let is_stored = answer.is_ok_and(|answer| answer.is_waited || answer.status == 202);
        is_stored.then_some(id)
    }

    /// Submits until the call is stored, or for certain is not; returns its id if it is.
    async fn submit(&self, submission: &Submission<'_>, mut id: Option<String>) -> Option<String> {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while Instant::now() < deadline {
            match self.submit_once(submission, id.as_deref()).await {
                Ok(
                    Answer { is_waited: true, call_id, .. } | Answer { status: 202, call_id, .. },
                ) => {
                    return call_id;
                }
                // The id makes the repeat safe.
                Ok(Answer { status: 429 | 503 | 507, call_id, .. }) => id = call_id.or(id),
                Ok(_) => return None,
                // Without an id a repeat would be another call.
                Err(_) => drop(id.as_ref()?),
            }
            sleep(PAUSE).await;
        }
        None
    }

    async fn submit_once(
        &self,
        submission: &Submission<'_>,
        id: Option<&str>,
    ) -> Result<Answer, NoAnswer> {
        let Submission { call, callback_url, due } = *submission;
        let shares_id = matches!(call.id, Id::Shared(_));
        let submitted =
            Step::Submitted { callback: callback_url.is_some(), queue: call.queue, shares_id };
        self.recorder.step(call.number, submitted);
        if call.has_result() {
            self.recorder.step(call.number, Step::ResultWanted);
        }
        if let Some(due) = due {
            self.recorder.step(call.number, Step::Delayed { due });
        }
        let asked = self.recorder.now();
        let name = function::function_name(call.queue, call.function);
        let target = format!("/async-function/{name}?{}", function::query(call.number));
        let large = (call.header_bytes > 0).then(|| "x".repeat(call.header_bytes));
        let wait = call.waits.map(|time| format!("wait={}", time.as_secs()));
        let (delay, date) = self.delay_headers(call.delay, due);
        let headers = [
            ("x-call-id", id),
            ("x-callback-url", callback_url),
            ("x-large", large.as_deref()),
            ("x-keep-result", call.keeps_result.then_some(KEEP)),
            ("prefer", wait.as_deref()),
            ("x-delay", delay.as_deref()),
            ("x-not-before", date.as_deref()),
        ];
        let answer =
            self.send(call.number, Method::POST, &target, &headers, vec![b'x'; call.bytes]).await;
        self.recorder.step(
            call.number,
            match &answer {
                // Who waits learns that the call is stored when it has ended.
                Ok(Answer { is_waited: true, .. }) => {
                    Step::Answered { status: 202, retry_after: false }
                }
                Ok(answer) => {
                    Step::Answered { status: answer.status, retry_after: answer.retry_after }
                }
                Err(NoAnswer::Broken) => Step::Unanswered,
                Err(NoAnswer::Hung) => Step::Hung,
            },
        );
        if call.waits.is_some()
            && let Ok(Answer { result, is_waited, status, .. }) = &answer
            && (*is_waited || *status == 202)
        {
            self.recorder.step(call.number, Step::WaitAnswered { asked, result: *result });
        }
        answer
    }

    /// The values of X-Delay and X-Not-Before.
    fn delay_headers(
        &self,
        delay: Option<Delay>,
        due: Option<Duration>,
    ) -> (Option<String>, Option<String>) {
        match (delay, due) {
            (Some(Delay::By(time)), _) => (Some(format!("{}ms", time.as_millis())), None),
            (Some(Delay::Until(_)), Some(due)) => {
                let date = Timestamp::try_from(self.recorder.date_at(due)).expect("a date");
                (None, Some(date.to_string()))
            }
            _ => (None, None),
        }
    }

    /// Cancels a call, as often as it takes to get an answer that lasts.
    async fn cancel(&self, call: &PlannedCall, id: &str) {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while Instant::now() < deadline {
            // All that have the id are meant, if they are stored.
            let meant = match call.id {
                Id::Shared(_) => self.lock().sharers.get(id).cloned().unwrap_or_default(),
                Id::Own | Id::Generated => vec![call.number],
            };
            let record = |step| meant.iter().for_each(|meant| self.recorder.step(*meant, step));
            record(Step::CancelSent);
            let target = format!("/async-function/{id}");
            match self.send(call.number, Method::DELETE, &target, NO_HEADERS, Vec::new()).await {
                Ok(Answer { status, retry_after, .. }) => {
                    record(Step::CancelAnswered { status, retry_after });
                    if status != 503 {
                        return;
                    }
                }
                Err(NoAnswer::Broken) => record(Step::CancelUnanswered),
                Err(NoAnswer::Hung) => record(Step::Hung),
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask_status(&self, call: &PlannedCall, id: &str) {
        let (asked, target) = (self.recorder.now(), format!("/async-function/{id}"));
        let step = match self.send(call.number, Method::GET, &target, NO_HEADERS, Vec::new()).await
        {
            Ok(answer) => {
                Step::StatusAnswered { asked, reported: Reported::of(answer.status, &answer.body) }
            }
            Err(NoAnswer::Broken) => {
                Step::StatusAnswered { asked, reported: Reported::Unavailable }
            }
            Err(NoAnswer::Hung) => Step::Hung,
        };
        self.recorder.step(call.number, step);
    }

    async fn read_result(&self, call: &PlannedCall, id: &str, moment: Moment) {
        let (asked, target) = (self.recorder.now(), format!("/async-function/{id}/result"));
        let read = match self.send(call.number, Method::GET, &target, NO_HEADERS, Vec::new()).await
        {
            Ok(Answer { status: 200, result: Some(result), .. }) => ResultRead::Kept(result),
            Ok(Answer { status: 202, .. }) => ResultRead::Pending,
            Ok(Answer { status: 404, .. }) => ResultRead::Unknown,
            Ok(Answer { status: 410, .. }) => ResultRead::NotKept,
            Ok(Answer { status: 503, .. }) | Err(NoAnswer::Broken) => ResultRead::Unavailable,
            Ok(Answer { status, .. }) => ResultRead::Other(status),
            Err(NoAnswer::Hung) => return self.recorder.step(call.number, Step::Hung),
        };
        let is_last = moment == Moment::Last;
        self.recorder.step(call.number, Step::ResultRead { asked, read, is_last });
    }

    /// Sends a request for a call or batch with this number.
    async fn send(
        &self,
        number: CallNumber,
        method: Method,
        target: &str,
        headers: &[(&str, Option<&str>)],
        body: Vec<u8>,
    ) -> Result<Answer, NoAnswer> {
        // Where one gateway is away, there may be another.
        let first = usize::try_from(number).unwrap_or_default();
        for turn in 0..self.gateways.len() {
            let gateway = self.gateways[(first + turn) % self.gateways.len()];
            let mut request =
                Request::builder().method(&method).uri(format!("http://{gateway}{target}"));
            for (name, value) in headers {
                if let Some(value) = value {
                    request = request.header(*name, *value);
                }
            }
            let request = request.body(Full::from(body.clone())).expect("a request");
            match timeout(self.limit, self.exchange(number, request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if error.is_connect() => {}
                Ok(Err(_)) => return Err(NoAnswer::Broken),
                Err(_) => return Err(NoAnswer::Hung),
            }
        }
        Err(NoAnswer::Broken)
    }

    async fn exchange(
        &self,
        call: CallNumber,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let response = self.http.request(request).await?;
        let (head, body) = response.into_parts();
        let header = |name| text(&head.headers, name);
        let (status, retry_after) = (head.status.as_u16(), header("retry-after").is_some());
        let call_id = header("x-call-id").map(str::to_owned);
        let is_waited = header("preference-applied") == Some("wait");
        // An answer that breaks off is read as one that says nothing.
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        let result = seen_result(call, &head.headers, &body);
        Ok(Answer { status, call_id, retry_after, result, is_waited, body })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("no client panicked")
    }
}

/// Reads the result of a call from an answer.
fn seen_result(call: CallNumber, headers: &HeaderMap, body: &[u8]) -> Option<SeenResult> {
    let end = text(headers, X_CALL_STATE.as_str())?.parse().ok()?;
    let status = text(headers, X_FUNCTION_STATUS.as_str())?.parse().ok()?;
    Some(SeenResult { end, status, body: body::read(call, body) })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn shared_id(queue: QueueNumber, id: u64) -> String {
    format!("shared-{queue}-{id}")
}
