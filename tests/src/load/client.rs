//! A client of the gateway that submits calls as planned, repeats what may not be stored, cancels, and takes down each
//! answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{function, plan::PlannedCall, receiver::Receiver};
use crate::history::{event::Step, recorder::Recorder};

/// Before a client comes again that was refused for now. Sooner than it is told: the more it is refused, the more is
/// seen.
const PAUSE: Duration = Duration::from_millis(200);

/// For how long a client comes again and again.
const PATIENCE: Duration = Duration::from_secs(90);

/// A client.
#[derive(Clone, Debug)]
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    gateways: Arc<Vec<SocketAddr>>,
    recorder: Recorder,
    /// The longest that a gateway may take to answer.
    limit: Duration,
}

/// What the gateway said.
struct Answer {
    status: u16,
    call_id: Option<String>,
    retry_after: bool,
}

/// Why it said nothing.
enum NoAnswer {
    Broken,
    Hung,
}

impl Client {
    /// A client of these gateways, each of which it lets take at most `limit` to answer.
    #[must_use]
    pub fn new(gateways: Vec<SocketAddr>, recorder: Recorder, limit: Duration) -> Self {
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Self { http, gateways: Arc::new(gateways), recorder, limit }
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

    /// One call, from its first submission to its cancellation.
    async fn see_through(&self, call: &PlannedCall, callback_url: Option<&str>) {
        let own_id = call.own_id.then(|| format!("client-{}", call.number));
        let Some(id) = self.submit(call, own_id, callback_url).await else { return };
        for _ in 0..call.repeats {
            // 202 again, or not known: the call is stored in any case.
            let _ = self.submit_once(call, Some(&id), callback_url).await;
        }
        if let Some(after) = call.cancel_after {
            sleep(after).await;
            self.cancel(call, &id).await;
        }
    }

    /// Submits until the call is stored, or for certain is not; returns its id if it is.
    async fn submit(
        &self,
        call: &PlannedCall,
        mut id: Option<String>,
        callback_url: Option<&str>,
    ) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.submit_once(call, id.as_deref(), callback_url).await {
                Ok(Answer { status: 202, call_id, .. }) => return call_id,
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
        call: &PlannedCall,
        id: Option<&str>,
        callback_url: Option<&str>,
    ) -> Result<Answer, NoAnswer> {
        self.recorder.step(call.number, Step::Submitted { callback: callback_url.is_some() });
        let target = format!("/async-function/figlet?{}", function::query(call.number));
        let headers = [("x-call-id", id), ("x-callback-url", callback_url)];
        let answer = self.ask(call, Method::POST, &target, headers, vec![b'x'; call.bytes]).await;
        self.recorder.step(
            call.number,
            match &answer {
                Ok(answer) => Step::Answered { status: answer.status, retry_after: answer.retry_after },
                Err(NoAnswer::Broken) => Step::Unanswered,
                Err(NoAnswer::Hung) => Step::Hung,
            },
        );
        answer
    }

    /// Cancels a call, as often as it takes to hear what became of that.
    async fn cancel(&self, call: &PlannedCall, id: &str) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.recorder.step(call.number, Step::CancelSent);
            let target = format!("/async-function/{id}");
            let none = [("x-call-id", None), ("x-callback-url", None)];
            match self.ask(call, Method::DELETE, &target, none, Vec::new()).await {
                Ok(Answer { status, .. }) => {
                    self.recorder.step(call.number, Step::CancelAnswered { status });
                    if status != 503 {
                        return;
                    }
                }
                Err(NoAnswer::Broken) => self.recorder.step(call.number, Step::Unanswered),
                Err(NoAnswer::Hung) => self.recorder.step(call.number, Step::Hung),
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask(
        &self,
        call: &PlannedCall,
        method: Method,
        target: &str,
        headers: [(&str, Option<&str>); 2],
        body: Vec<u8>,
    ) -> Result<Answer, NoAnswer> {
        // Where one gateway is away, there may be another.
        let first = usize::try_from(call.number).unwrap_or_default();
        for turn in 0..self.gateways.len() {
            let gateway = self.gateways[(first + turn) % self.gateways.len()];
            let mut request = Request::builder().method(&method).uri(format!("http://{gateway}{target}"));
            for (name, value) in headers {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            let request = request.body(Full::from(body.clone())).expect("a request");
            match timeout(self.limit, self.exchange(request)).await {
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
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let response = self.http.request(request).await?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let answer = Answer {
            status: response.status().as_u16(),
            call_id: header("x-call-id").map(str::to_owned),
            retry_after: header("retry-after").is_some(),
        };
        // A refusal's text, which nobody reads here.
        let _ = response.into_body().collect().await;
        Ok(answer)
    }
}
