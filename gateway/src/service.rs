//! Answers requests: combines the parts of this crate.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::connection::State;
use asyncqueue::{
    CallId, FunctionName, QueueName,
    call::{CallQuery, CallStatus},
    cancel::CancelCounts,
    directory::{Directory, QueueRoute},
    function_namespaces::FunctionNamespaces,
    message::dead_letter,
    submit::{SubmitError, SubmitOutcome, Submitter},
};
use asyncqueue_runtime::{admin, health::Health, memory::Account, nats::jetstream_check, server};
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

/// The methods that are listed as passed on. All others are passed on too, except for CONNECT: it
/// asks for a tunnel, and is not a request.
const FORWARDED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Everything that is needed to answer a request.
#[derive(Debug)]
pub struct Service {
    /// Readiness, for probes.
    pub health: Health,
    /// The metrics.
    pub metrics: Metrics,
    /// The directory. `None` until it was read for the first time.
    pub directory: watch::Receiver<Option<Arc<Directory>>>,
    /// Stores calls.
    pub submitter: Submitter,
    /// Looks up calls.
    pub lookups: Lookups,
    /// The NATS connection, for its state and for the server's payload limit.
    pub nats: async_nats::Client,
    /// Passes requests on.
    pub proxy: Proxy,
    /// The queue of functions that have no queue of their own.
    pub default_queue: QueueName,
    /// The namespaces whose functions may be called.
    pub namespaces: FunctionNamespaces,
    /// Template of the URL of functions for which the directory has no URL.
    pub function_url: FunctionUrl,
    /// The gateway that gets all requests that are not for this one.
    pub upstream_url: Option<BaseUrl>,
    /// Handles calls of functions that the directory does not have.
    pub unknown_functions: UnknownFunctions,
    /// The maximum size of a body, in bytes.
    pub max_payload: usize,
    /// How long a client may take to send a body.
    pub read_timeout: Duration,
    /// The memory for calls, mostly for their bodies.
    pub calls: Account,
    /// The memory for requests that are passed on.
    pub passed_on: Account,
    /// The maximum memory of one request that is passed on, in bytes.
    pub passed_on_bytes: usize,
    /// Slots for calls that are being published to NATS.
    pub publishing: Slots,
    /// Whether the NATS store is full, except for the reserve that ends calls.
    pub is_store_full: watch::Receiver<bool>,
    /// The maximum number of calls before a call in its chain.
    pub max_chain_depth: u32,
    /// Limits how often a request may come through this installation.
    pub hops: Hops,
    /// Whether each request is logged.
    pub access_log: bool,
}

// === impl Service ===

impl Service {
    /// Answers a request of the client with this address.
    pub async fn answer(self: Arc<Self>, client: SocketAddr, request: Request<Incoming>) -> Answer {
        let started = Instant::now();
        let method = request.method().clone();
        if let Some(answer) = admin::probe(&method, request.uri().path(), &self.health) {
            return answer.map(Either::Left);
        }
        let label = Resource::of(request.uri().path()).label();
        // Without the query, which may contain secrets.
        let logged = self.access_log.then(|| request.uri().path().to_owned());
        let as_json = answer::asks_for_json(request.headers());
        let mut about = About { call_id: None, started_at: Timestamp::now(), as_json };
        let answer = self.dispatch(client, request, &mut about).await.unwrap_or_else(|refusal| {
            // Without its text, which repeats what the client sent.
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

    /// Returns the receiver of a request that is passed on, and its URI there. Returns `None` for a
    /// request that this gateway answers itself.
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

    /// Answers a request to `/async-function/…`.
    ///
    /// All futures but that of a submission are boxed. The future that answers a request is moved:
    /// boxing keeps it no larger than that of a submission.
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
                    Ok(SubmitOutcome::Stored) => "stored",
                    Ok(SubmitOutcome::Duplicate { .. }) => "duplicate",
                    Err(refusal) => refusal.category(),
                });
                let submitted = result?;
                Ok(answer::accepted(about, &submitted))
            }
            Method::GET | Method::HEAD => {
                let result = Box::pin(self.status(&head, about)).await;
                let result = result.map_err(|refusal| self.with_cause(refusal));
                self.metrics.looked_up(
                    "status",
                    result.as_ref().map_or_else(Refusal::category, |_| "found"),
                );
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

    /// Replaces a refusal by its cause if that is that JetStream is not enabled: then there is no
    /// directory and no stream either.
    fn with_cause(&self, refusal: Refusal) -> Refusal {
        let is_ours = matches!(
            refusal,
            Refusal::NoDirectory
                | Refusal::LookUp(_)
                | Refusal::Cancel(_)
                | Refusal::Submit {
                    error: SubmitError::NoStream | SubmitError::Unavailable { .. },
                    ..
                }
        );
        let is_off = is_ours && self.health.reason(jetstream_check::CONDITION).is_some();
        if is_off { Refusal::NoJetStream } else { refusal }
    }

    /// Answers `GET /async-function/CALL-ID` and `GET /async-function/NAME/CALL-ID`.
    async fn status(&self, head: &Parts, about: &mut About) -> Result<CallStatus, Refusal> {
        let wanted = self.wanted(head, about)?;
        let directory = self.known_directory()?;
        self.lookups.status(&directory, &self.default_queue, wanted).await
    }

    /// Answers `DELETE /async-function/CALL-ID` and `DELETE /async-function/NAME/CALL-ID`.
    async fn cancel(&self, head: &Parts, about: &mut About) -> Result<CancelCounts, Refusal> {
        let wanted = self.wanted(head, about)?;
        let directory = self.known_directory()?;
        let cancelled = self.lookups.cancel(&directory, &self.default_queue, wanted).await;
        debug!(call_id = about.call_id.as_ref().map(tracing::field::display), ?cancelled, "cancel");
        cancelled
    }

    fn wanted(&self, head: &Parts, about: &mut About) -> Result<CallQuery, Refusal> {
        let wanted = lookup::wanted(
            queued(&head.uri)?,
            head.uri.query(),
            self.namespaces.default_namespace(),
        )?;
        // A longer path is a path of the function, and only calls have one.
        let not_allowed =
            || Refusal::MethodNotAllowed { method: head.method.clone(), allow: "POST" };
        let mut wanted = wanted.ok_or_else(not_allowed)?;
        about.call_id = Some(wanted.id.clone());
        let directory = self.known_directory()?;
        wanted.function = wanted.function.map(|function| directory.resolve(function));
        Ok(wanted)
    }

    /// Answers `POST /async-function/NAME[/path][?query]`.
    async fn submit(
        &self,
        uri: Uri,
        headers: HeaderMap,
        forwarded: Forwarded,
        body: &mut Incoming,
        about: &mut About,
    ) -> Result<SubmitOutcome, Refusal> {
        let own_id = submission::client_call_id(&headers)?;
        about.call_id.clone_from(&own_id);
        let key = submission::client_key(&headers)?;
        let namespace = self.namespaces.default_namespace();
        let submission = Submission::parse(queued(&uri)?, uri.query(), &headers, namespace)?;
        let submission = submission.resolved(&*self.known_directory()?);
        submission.check_depth(self.max_chain_depth)?;
        let QueueRoute { queue, subject, max_payload, .. } =
            self.route_of_call(submission.function())?;
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
        // The URI and the headers are slices of the connection's read buffer. Dropping them frees
        // the buffer while the stream is waited for, so that it is not allocated again for each
        // call.
        drop(uri);
        let length = bytes.len();
        let invocation =
            submission.into_invocation(call_id, about.started_at, headers, forwarded, bytes);
        let _slot = self.publishing.take()?;
        let publishing = self.metrics.publishing();
        let started = Instant::now();
        let result = match (key, own_id) {
            (Some(key), _) => self.submitter.submit_with_key(&invocation, &key, &subject).await,
            (None, Some(_)) => self.submitter.submit(&invocation, &subject).await,
            (None, None) => self.submitter.submit_generated(invocation, &subject).await,
        };
        drop(publishing);
        if result.is_ok() {
            self.metrics.stored(started.elapsed());
        }
        let call_id = about.call_id.as_ref().map(tracing::field::display);
        debug!(call_id, %queue, bytes = length, ?result, "submitted");
        let submitted = result.map_err(|error: SubmitError| Refusal::Submit { queue, error })?;
        if let SubmitOutcome::Duplicate { of } = &submitted {
            about.call_id = Some(of.clone());
        }
        Ok(submitted)
    }

    /// Returns the function that `/function/NAME[/path]` names, and its URI. Used without an
    /// upstream gateway.
    fn function(&self, call: Call<'_>, head: &Parts) -> Result<(Receiver, Uri), Refusal> {
        let function =
            submission::function_name(call.function, self.namespaces.default_namespace())?;
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

    /// Returns the route of a call that is being submitted. Counts and reports unknown functions.
    fn route_of_call(&self, function: &FunctionName) -> Result<QueueRoute, Refusal> {
        let route = self.route(function);
        match &route {
            Ok(QueueRoute { known: false, queue, .. }) => {
                self.unknown_functions.submitted(function, queue, &self.metrics);
            }
            Err(Refusal::UnknownFunction(_)) => {
                self.unknown_functions.submitted(function, &self.default_queue, &self.metrics);
            }
            _ => {}
        }
        route
    }

    /// Returns the route of a function's calls, if it may be called. Until the directory is known,
    /// a function may belong to any queue.
    fn route(&self, function: &FunctionName) -> Result<QueueRoute, Refusal> {
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

/// Returns the memory for the head of a call as a message that waits to be sent, in bytes.
fn head_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    /// Bytes per header, for its name in the message and its place in the map.
    const EACH: usize = 64;
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + EACH);
    uri.path().len() + uri.query().map_or(0, str::len) + fields.sum::<usize>()
}

/// Returns what a path below `/async-function` names.
fn queued(uri: &Uri) -> Result<Call<'_>, Refusal> {
    match Resource::of(uri.path()) {
        Resource::Queue(call) => Ok(call),
        _ => Err(Refusal::NotFound),
    }
}

/// Returns the receiver of a request that is passed on, and its URI there.
fn next_hop(
    target: Receiver,
    base: &BaseUrl,
    path: &str,
    head: &Parts,
) -> Result<(Receiver, Uri), Refusal> {
    match base.join(path, head.uri.query()) {
        Ok(uri) => Ok((target, uri)),
        Err(error) => Err(Refusal::Unreachable { target, reason: error.to_string() }),
    }
}
