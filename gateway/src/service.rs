//! Answers requests: the parts of this crate, put in order.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::connection::State;
use asyncqueue::{
    CallId, FunctionName, QueueName,
    cancel::Tally,
    directory::{Directory, Route},
    function_namespaces::FunctionNamespaces,
    locate::Wanted,
    message::dead_letter,
    status::CallStatus,
    submit::{SubmitError, Submitted, Submitter},
};
use asyncqueue_runtime::{admin, health::Health, memory::Account, nats::jetstream, server};
use http::{HeaderMap, Method, Request, Uri, header, request::Parts};
use http_body_util::Either;
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{debug, info};

use crate::{
    answer::{self, About, Answer},
    body::{self, Limit},
    forwarded::Forwarded,
    hops::Hops,
    lookup::{self, Lookups},
    metrics::Metrics,
    plain_path::is_plain,
    proxy::{Proxy, renew_request_headers},
    refusal::Refusal,
    resource::{Call, Resource},
    slots::Slots,
    submission::{self, Submission},
    target::{BaseUrl, FunctionUrl, Receiver},
    unknown_functions::UnknownFunctions,
};

/// The methods of `/async-function/…`.
const QUEUE_METHODS: &str = "POST, GET, HEAD, DELETE";

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
    /// Looks for calls.
    pub lookups: Lookups,
    /// The connection, for its state and the server's limit of payload.
    pub nats: async_nats::Client,
    /// Sends requests on.
    pub proxy: Proxy,
    /// The queue of functions without one of their own.
    pub default_queue: QueueName,
    /// The namespaces whose functions may be called.
    pub namespaces: FunctionNamespaces,
    /// Where a function is for which the directory has no URL.
    pub function_url: FunctionUrl,
    /// Where everything goes that is not ours.
    pub upstream_url: Option<BaseUrl>,
    /// What to do with calls of functions that the directory does not have.
    pub unknown_functions: UnknownFunctions,
    /// The largest body taken, in bytes.
    pub max_payload: usize,
    /// How long a client has to send a body.
    pub read_timeout: Duration,
    /// The memory for calls, their bodies above all.
    pub calls: Account,
    /// The memory for requests that are passed on.
    pub passed_on: Account,
    /// What one of them takes at most, in bytes.
    pub passed_on_bytes: usize,
    /// Calls on their way to NATS at once.
    pub publishing: Slots,
    /// Whether the store of NATS is full but for what ends calls.
    pub is_store_full: watch::Receiver<bool>,
    /// How many calls may come before a call in its chain.
    pub max_chain_depth: u32,
    /// How often a request may come through this installation.
    pub hops: Hops,
    /// Whether each request is logged.
    pub access_log: bool,
}

// === impl Service ===

impl Service {
    /// Answers a request of a client at this address.
    pub async fn answer(self: Arc<Self>, client: SocketAddr, request: Request<Incoming>) -> Answer {
        let started = Instant::now();
        let method = request.method().clone();
        if let Some(answer) = admin::probe(&method, request.uri().path(), &self.health) {
            return answer.map(Either::Left);
        }
        let label = Resource::of(request.uri().path()).label();
        // Without the query, which may hold secrets.
        let logged = self.access_log.then(|| request.uri().path().to_owned());
        let as_json = answer::asks_for_json(request.headers());
        let mut about = About { call_id: None, started_at: Timestamp::now(), as_json };
        let answer = self.dispatch(client, request, &mut about).await.unwrap_or_else(|refusal| {
            // Not its text, which repeats what the client sent.
            let call_id = about.call_id.as_ref().map(tracing::field::display);
            debug!(path = label, call_id, status = %refusal.status(), "refused: {}", refusal.category());
            answer::refused(&about, &refusal)
        });
        let (status, took) = (answer.status(), started.elapsed());
        self.metrics.answered(&method, label, status, took);
        if let Some(path) = logged {
            let call_id = about.call_id.as_ref().map(tracing::field::display);
            info!(%method, path, status = status.as_u16(), call_id, seconds = took.as_secs_f64(), "request");
        }
        answer
    }

    async fn dispatch(
        &self,
        client: SocketAddr,
        request: Request<Incoming>,
        about: &mut About,
    ) -> Result<Answer, Refusal> {
        let (mut head, mut body) = request.into_parts();
        let forwarded = Forwarded::of(&head, client.ip());
        let asks_before_it_sends = head.headers.contains_key(header::EXPECT);
        let next_hop = self.next_hop(&head).map(|next_hop| {
            renew_request_headers(&mut head.headers);
            forwarded.clone().add_to(&mut head.headers);
            self.hops.pass(&mut head.headers, head.version)?;
            next_hop
        });
        let result = match next_hop {
            Some(Ok((target, uri))) => {
                let Some(memory) = self.passed_on.try_take(self.passed_on_bytes) else {
                    if !asks_before_it_sends {
                        server::discard(body);
                    }
                    return Err(Refusal::MemoryShort { budget: self.passed_on.budget() });
                };
                let response = Box::pin(self.proxy.send(target, uri, head, body, memory)).await?;
                return Ok(response.map(Either::Right));
            }
            Some(Err(refusal)) => Err(refusal),
            None => self.queue(head, forwarded, &mut body, about).await,
        };
        if result.is_err() && !asks_before_it_sends {
            server::discard(body);
        }
        result
    }

    /// Whom a request goes on to, and where that is; `None` for what is answered here.
    fn next_hop(&self, head: &Parts) -> Option<Result<(Receiver, Uri), Refusal>> {
        let path = head.uri.path();
        if !is_plain(path) {
            return Some(Err(Refusal::PathNotPlain));
        }
        Some(match (Resource::of(path), &self.upstream_url) {
            (Resource::Queue(_), _) => return None,
            (_, _) if head.method == Method::CONNECT => {
                Err(Refusal::MethodNotAllowed { method: head.method.clone(), allow: FORWARDED })
            }
            (_, Some(upstream)) => next_hop(Receiver::Upstream, upstream, path, head),
            (Resource::Function(call), None) => self.function(call, head),
            (Resource::Other, None) => Err(Refusal::NotFound),
        })
    }

    /// `/async-function/…`
    ///
    /// All but submissions are in boxes: what answers a request is moved about, and is no larger then than a submission.
    async fn queue(
        &self,
        head: Parts,
        forwarded: Forwarded,
        body: &mut Incoming,
        about: &mut About,
    ) -> Result<Answer, Refusal> {
        match head.method {
            Method::POST => {
                let result = self.submit(head.uri, head.headers, forwarded, body, about).await;
                let result = result.map_err(|refusal| self.with_cause(refusal));
                self.metrics.submitted(match &result {
                    Ok(Submitted::Stored) => "stored",
                    Ok(Submitted::Duplicate { .. }) => "duplicate",
                    Err(refusal) => refusal.category(),
                });
                let submitted = result?;
                Ok(answer::accepted(about, &submitted))
            }
            Method::GET | Method::HEAD => {
                let result = Box::pin(self.status(&head, about)).await;
                let result = result.map_err(|refusal| self.with_cause(refusal));
                self.metrics.looked_up("status", result.as_ref().map_or_else(Refusal::category, |_| "found"));
                Ok(answer::status(about, &result?))
            }
            Method::DELETE => {
                let result = Box::pin(self.cancel(&head, about)).await;
                let result = result.map_err(|refusal| self.with_cause(refusal));
                self.metrics.looked_up(
                    "cancel",
                    match &result {
                        Ok(tally) if tally.running > 0 => "running",
                        Ok(tally) if tally.before == tally.cancelled => "before",
                        Ok(_) => "waiting",
                        Err(refusal) => refusal.category(),
                    },
                );
                Ok(answer::cancelled(about, &result?))
            }
            method => Err(Refusal::MethodNotAllowed { method, allow: QUEUE_METHODS }),
        }
    }

    /// A refusal by its cause, where that is that JetStream is not enabled: then there is no directory and no stream either.
    fn with_cause(&self, refusal: Refusal) -> Refusal {
        let is_ours = matches!(
            refusal,
            Refusal::NoDirectory
                | Refusal::LookUp(_)
                | Refusal::Cancel(_)
                | Refusal::Submit { error: SubmitError::NoStream | SubmitError::Unavailable { .. }, .. }
        );
        let is_off = is_ours && self.health.reason(jetstream::CONDITION).is_some();
        if is_off { Refusal::NoJetStream } else { refusal }
    }

    /// `GET /async-function/CALL-ID` and `GET /async-function/NAME/CALL-ID`
    async fn status(&self, head: &Parts, about: &mut About) -> Result<CallStatus, Refusal> {
        let wanted = self.wanted(head, about)?;
        let directory = self.known_directory()?;
        self.lookups.status(&directory, &self.default_queue, wanted).await
    }

    /// `DELETE /async-function/CALL-ID` and `DELETE /async-function/NAME/CALL-ID`
    async fn cancel(&self, head: &Parts, about: &mut About) -> Result<Tally, Refusal> {
        let wanted = self.wanted(head, about)?;
        let directory = self.known_directory()?;
        let cancelled = self.lookups.cancel(&directory, &self.default_queue, wanted).await;
        debug!(call_id = about.call_id.as_ref().map(tracing::field::display), ?cancelled, "cancel");
        cancelled
    }

    fn wanted(&self, head: &Parts, about: &mut About) -> Result<Wanted, Refusal> {
        let wanted =
            lookup::wanted(queued(&head.uri)?, head.uri.query(), self.namespaces.default_namespace())?;
        // A longer path is one of the function's own, for calls alone.
        let not_allowed = || Refusal::MethodNotAllowed { method: head.method.clone(), allow: "POST" };
        let mut wanted = wanted.ok_or_else(not_allowed)?;
        about.call_id = Some(wanted.id.clone());
        let directory = self.known_directory()?;
        wanted.function = wanted.function.map(|function| directory.resolve(function));
        Ok(wanted)
    }

    /// `POST /async-function/NAME[/path][?query]`
    async fn submit(
        &self,
        uri: Uri,
        headers: HeaderMap,
        forwarded: Forwarded,
        body: &mut Incoming,
        about: &mut About,
    ) -> Result<Submitted, Refusal> {
        let own_id = submission::client_call_id(&headers)?;
        about.call_id.clone_from(&own_id);
        let key = submission::client_key(&headers)?;
        let namespace = self.namespaces.default_namespace();
        let submission = Submission::parse(queued(&uri)?, uri.query(), &headers, namespace)?;
        let submission = submission.resolved(&*self.known_directory()?);
        submission.check_depth(self.max_chain_depth)?;
        let Route { queue, subject, max_payload, .. } = self.route_of_call(submission.function())?;
        let made = || match &key {
            Some(key) => key.call_id(&queue, submission.function()),
            None => CallId::generate(&queue),
        };
        let call_id = about.call_id.get_or_insert_with(made).clone();
        if self.nats.connection_state() != State::Connected {
            return Err(Refusal::NatsAway);
        }
        if *self.is_store_full.borrow() {
            return Err(Refusal::StoreFull);
        }
        submission.check_dead_letter(dead_letter::max_target(self.nats.max_payload()))?;
        let limit = Limit::new(self.max_payload, self.nats.max_payload()).within(max_payload);
        let memory = self.calls.try_take(head_bytes(&uri, &headers));
        let memory = memory.ok_or_else(|| Refusal::MemoryShort { budget: self.calls.budget() })?;
        let bytes = body::read(body, limit, self.read_timeout, memory).await?;
        // It and the headers lie in what the connection reads into, which is free for it again while the stream is
        // waited for, and need not be allocated anew for each call.
        drop(uri);
        let length = bytes.len();
        let invocation = submission.into_invocation(call_id, about.started_at, headers, forwarded, bytes);
        let _slot = self.publishing.take()?;
        let publishing = self.metrics.publishing();
        let started = Instant::now();
        let result = match (key, own_id) {
            (Some(key), _) => self.submitter.submit_with_key(&invocation, &key, &subject).await,
            (None, Some(_)) => self.submitter.submit(&invocation, &subject).await,
            (None, None) => self.submitter.submit_new(invocation, &subject).await,
        };
        drop(publishing);
        if result.is_ok() {
            self.metrics.stored(started.elapsed());
        }
        let call_id = about.call_id.as_ref().map(tracing::field::display);
        debug!(call_id, %queue, bytes = length, ?result, "submitted");
        let submitted = result.map_err(|error: SubmitError| Refusal::Submit { queue, error })?;
        if let Submitted::Duplicate { of } = &submitted {
            about.call_id = Some(of.clone());
        }
        Ok(submitted)
    }

    /// `/function/NAME[/path]`, without an upstream: which function that is, and where it is.
    fn function(&self, call: Call<'_>, head: &Parts) -> Result<(Receiver, Uri), Refusal> {
        let function = submission::function_name(call.function, self.namespaces.default_namespace())?;
        let function = self.known_directory()?.resolve(function);
        self.route(&function)?;
        let url = match self.url_in_directory(&function) {
            Some(url) => url.parse(),
            None => self.function_url.of(&function),
        };
        let target = Receiver::Function(function);
        match url {
            Ok(url) => next_hop(target, &url, call.path, head),
            Err(error) => Err(Refusal::Unreachable { target, reason: error.to_string() }),
        }
    }

    /// Where a call of a function goes, which is submitted now.
    fn route_of_call(&self, function: &FunctionName) -> Result<Route, Refusal> {
        let route = self.route(function);
        match &route {
            Ok(Route { known: false, queue, .. }) => {
                self.unknown_functions.submitted(function, queue, &self.metrics);
            }
            Err(Refusal::UnknownFunction(_)) => {
                self.unknown_functions.submitted(function, &self.default_queue, &self.metrics);
            }
            _ => {}
        }
        route
    }

    /// Where calls of a function go, if it may be called. Until the directory is known, a function may belong to any queue.
    fn route(&self, function: &FunctionName) -> Result<Route, Refusal> {
        let directory = self.known_directory()?;
        let route = directory.route(function, &self.default_queue);
        if !route.known {
            self.unknown_functions.check(function)?;
        }
        self.namespaces.check(function, Some(&*directory))?;
        Ok(route)
    }

    fn known_directory(&self) -> Result<Arc<Directory>, Refusal> {
        self.directory.borrow().clone().ok_or(Refusal::NoDirectory)
    }

    fn url_in_directory(&self, function: &FunctionName) -> Option<String> {
        self.directory.borrow().as_ref()?.functions.get(function)?.url.clone()
    }
}

/// What the head of a call takes as a message that waits to be sent.
fn head_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    /// For the name that it has in the message, and the map that holds it.
    const EACH: usize = 64;
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + EACH);
    uri.path().len() + uri.query().map_or(0, str::len) + fields.sum::<usize>()
}

/// What a path below `/async-function` names.
fn queued(uri: &Uri) -> Result<Call<'_>, Refusal> {
    match Resource::of(uri.path()) {
        Resource::Queue(call) => Ok(call),
        _ => Err(Refusal::NotFound),
    }
}

/// Whom a request goes on to, and where that is.
fn next_hop(target: Receiver, base: &BaseUrl, path: &str, head: &Parts) -> Result<(Receiver, Uri), Refusal> {
    match base.join(path, head.uri.query()) {
        Ok(uri) => Ok((target, uri)),
        Err(error) => Err(Refusal::Unreachable { target, reason: error.to_string() }),
    }
}
