//! Answers requests: the parts of this crate, put in order.

use std::{sync::Arc, time::Instant};

use asyncqueue::{
    CallId, FunctionName, QueueName,
    directory::{Directory, Route},
    submit::{SubmitError, Submitted, Submitter},
};
use asyncqueue_runtime::{admin, health::Health};
use http::{Method, Request, Uri, request::Parts};
use http_body_util::Either;
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::debug;

use crate::{
    answer::{self, About, Answer},
    body::{self, Limit},
    metrics::Metrics,
    proxy::Proxy,
    refusal::Refusal,
    resource::{Call, Resource},
    settings::UnknownFunction,
    submission::{self, Submission},
    target::{BaseUrl, FunctionUrl},
};

/// What an answer calls the gateway upstream.
const UPSTREAM: &str = "the gateway at upstream_url";

/// The methods that are sent on. All others are too, but for CONNECT: it asks for a tunnel, and is no request.
const FORWARDED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// All that answering a request takes.
#[derive(Debug)]
pub struct Service {
    /// Readiness, for probes.
    pub health: Health,
    /// Counters.
    pub metrics: Metrics,
    /// The directory; `None` until it was read once.
    pub directory: watch::Receiver<Option<Arc<Directory>>>,
    /// Stores calls.
    pub submitter: Submitter,
    /// Its connection, for the server's limit of payload.
    pub nats: async_nats::Client,
    /// Sends requests on.
    pub proxy: Proxy,
    /// The queue of functions without one of their own.
    pub default_queue: QueueName,
    /// The namespace of functions called without one.
    pub function_namespace: String,
    /// Where a function is for which the directory has no URL.
    pub function_url: FunctionUrl,
    /// Where everything goes that is not ours.
    pub upstream_url: Option<BaseUrl>,
    /// What to do with calls of functions that the directory does not have.
    pub unknown_function: UnknownFunction,
    /// The largest body taken, in bytes.
    pub max_payload: usize,
}

// === impl Service ===

impl Service {
    /// Answers a request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let started = Instant::now();
        let method = request.method().clone();
        if let Some(answer) = admin::probe(&method, request.uri().path(), &self.health) {
            return answer.map(Either::Left);
        }
        let label = Resource::of(request.uri().path()).label();
        let mut about = About { call_id: None, started_at: Timestamp::now() };
        let answer = self.dispatch(request, &mut about).await.unwrap_or_else(|refusal| {
            // Not its text, which repeats what the client sent.
            let call_id = about.call_id.as_ref().map(tracing::field::display);
            debug!(path = label, call_id, status = %refusal.status(), "refused: {}", refusal.category());
            answer::refused(&about, &refusal)
        });
        self.metrics.answered(&method, label, answer.status(), started.elapsed());
        answer
    }

    async fn dispatch(&self, request: Request<Incoming>, about: &mut About) -> Result<Answer, Refusal> {
        let (head, mut body) = request.into_parts();
        let path = head.uri.path();
        let next = match (Resource::of(path), &self.upstream_url) {
            (Resource::Queue(call), _) => match self.queue(call, &head, &mut body, about).await {
                Ok(submitted) => return Ok(answer::accepted(about, submitted)),
                Err(refusal) => Err(refusal),
            },
            (_, _) if head.method == Method::CONNECT => {
                Err(Refusal::MethodNotAllowed { method: head.method.clone(), allow: FORWARDED })
            }
            (_, Some(upstream)) => next_hop(UPSTREAM.to_owned(), upstream, path, &head),
            (Resource::Function(call), None) => self.function(call, &head),
            (Resource::Other, None) => Err(Refusal::NotFound),
        };
        match next {
            Ok((target, uri)) => {
                let response = self.proxy.send(&target, uri, head, body).await?;
                Ok(response.map(Either::Right))
            }
            Err(refusal) => {
                body::discard(&head.headers, body);
                Err(refusal)
            }
        }
    }

    /// `/async-function/NAME[/path]`
    async fn queue(
        &self,
        call: Call<'_>,
        head: &Parts,
        body: &mut Incoming,
        about: &mut About,
    ) -> Result<Submitted, Refusal> {
        let result = match head.method {
            Method::POST => self.submit(call, head, body, about).await,
            ref method => Err(Refusal::MethodNotAllowed { method: method.clone(), allow: "POST" }),
        };
        self.metrics.submitted(match &result {
            Ok(Submitted::Stored) => "stored",
            Ok(Submitted::Duplicate) => "duplicate",
            Err(refusal) => refusal.category(),
        });
        result
    }

    async fn submit(
        &self,
        call: Call<'_>,
        head: &Parts,
        body: &mut Incoming,
        about: &mut About,
    ) -> Result<Submitted, Refusal> {
        about.call_id = submission::client_call_id(&head.headers)?;
        let submission = Submission::parse(call, head, &self.function_namespace)?;
        let Route { queue, subject, .. } = self.route(submission.function())?;
        let call_id = about.call_id.get_or_insert_with(|| CallId::generate(&queue)).clone();
        let body = body::read(body, Limit::new(self.max_payload, self.nats.max_payload())).await?;

        let invocation = submission.into_invocation(call_id, about.started_at, body);
        let publishing = self.metrics.publishing();
        let started = Instant::now();
        let result = self.submitter.submit(&invocation, &subject).await;
        drop(publishing);
        if result.is_ok() {
            self.metrics.stored(started.elapsed());
        }
        debug!(call_id = %invocation.call_id, function = %invocation.function, %queue,
            bytes = invocation.body.len(), ?result, "submitted");
        result.map_err(|error: SubmitError| Refusal::Submit { queue, error })
    }

    /// `/function/NAME[/path]`, without an upstream: what to call it, and where it is.
    fn function(&self, call: Call<'_>, head: &Parts) -> Result<(String, Uri), Refusal> {
        let function = submission::function_name(call.function, &self.function_namespace)?;
        self.route(&function)?;
        let target = format!("function `{function}`");
        let url = match self.url_in_directory(&function) {
            Some(url) => url.parse(),
            None => self.function_url.of(&function),
        };
        match url {
            Ok(url) => next_hop(target, &url, call.path, head),
            Err(error) => Err(Refusal::Unreachable { target, reason: error.to_string() }),
        }
    }

    /// Where calls of a function go. Until the directory is known, a function may belong to any queue.
    fn route(&self, function: &FunctionName) -> Result<Route, Refusal> {
        let directory = self.directory.borrow();
        let directory = directory.as_ref().ok_or(Refusal::NoDirectory)?;
        let route = directory.route(function, &self.default_queue);
        if !route.known && self.unknown_function == UnknownFunction::Reject {
            return Err(Refusal::UnknownFunction(function.clone()));
        }
        Ok(route)
    }

    fn url_in_directory(&self, function: &FunctionName) -> Option<String> {
        self.directory.borrow().as_ref()?.functions.get(function)?.url.clone()
    }
}

/// Where a request goes on to, and what to call that.
fn next_hop(target: String, base: &BaseUrl, path: &str, head: &Parts) -> Result<(String, Uri), Refusal> {
    match base.join(path, head.uri.query()) {
        Ok(uri) => Ok((target, uri)),
        Err(error) => Err(Refusal::Unreachable { target, reason: error.to_string() }),
    }
}
