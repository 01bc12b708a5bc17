//! Handles requests: runs the steps of each request in order.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{connection::State, jetstream::context::ContextBuilder};
use asyncqueue::{
    CallId, FunctionName, Invocation, QueueName,
    call::{CallQuery, CallStatus},
    cancel::CancelCounts,
    directory::{Directory, QueueRoute},
    function_namespaces::FunctionNamespaces,
    message::{dead_letter, kept_result::KeptResult},
    submit::{BatchError, ClientNaming, SubmitError, SubmitOutcome, Submitted, Submitter},
};
use asyncqueue_runtime::{
    admin,
    client::ConnectionLimits,
    health::Health,
    memory::{Account, Budget, MemoryPermit},
    nats::jetstream_check,
    server,
};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header, request::Parts};
use http_body_util::Either;
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    ambiguous_path::is_unambiguous,
    base_url::{BaseUrl, FunctionUrlTemplate, ProxyTarget},
    body::{self, BodyLimit},
    concurrency_limit::ConcurrencyLimit,
    context::RequestContext,
    forwarded::ForwardedHeaders,
    hop_limit::HopLimit,
    lookup::{self, Lookups},
    metrics::Metrics,
    openapi,
    proxy::{Proxy, rewrite_request_headers},
    proxy_body,
    rejection::Rejection,
    response::{self, GatewayResponse},
    results,
    route::{RequestTarget, Route},
    settings::Settings,
    submission::{self, Submission},
    unknown_functions::UnknownFunctions,
    wait::{self, Wait, Waits},
};

mod batches;

/// The methods of `/async-function/…`.
const ASYNC_FUNCTION_METHODS: &str = "POST, GET, HEAD, DELETE";

/// The methods that `Allow` lists for requests that are passed on. All others are passed on too,
/// except for CONNECT, which asks for a tunnel.
pub(crate) const PROXIED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Handles requests.
#[derive(Debug)]
pub(crate) struct Service {
    /// Readiness, for probes.
    health: Health,
    metrics: Metrics,
    /// The directory. `None` until it was read for the first time.
    directory: watch::Receiver<Option<Arc<Directory>>>,
    submitter: Submitter,
    lookups: Lookups,
    waits: Waits,
    /// The NATS connection, for its state and for the server's payload limit.
    nats: async_nats::Client,
    proxy: Proxy,
    /// The queue of functions that have no queue of their own.
    default_queue: QueueName,
    /// The namespaces whose functions may be called.
    namespaces: FunctionNamespaces,
    /// Template of the URL of functions for which the directory has no URL.
    function_url: FunctionUrlTemplate,
    /// The gateway that gets all requests that are not for this one.
    upstream_url: Option<BaseUrl>,
    unknown_functions: UnknownFunctions,
    /// The maximum size of a body, in bytes.
    max_payload: usize,
    /// Maximum time for a client to send a body.
    read_timeout: Duration,
    /// The memory for calls, mostly for their bodies.
    call_memory: Account,
    /// The memory for requests that are passed on.
    proxy_memory: Account,
    /// The maximum memory of one request that is passed on, in bytes.
    exchange_bytes: usize,
    /// Maximum size of the head of a call, in bytes.
    max_header_bytes: usize,
    /// Limits the calls that are being published to NATS.
    publish_limit: ConcurrencyLimit,
    /// Whether the NATS store is full, except for the reserve that ends calls.
    is_store_full: watch::Receiver<bool>,
    /// The maximum number of calls before a call in its chain.
    max_chain_depth: u32,
    hop_limit: HopLimit,
    /// Whether each request is logged.
    access_log: bool,
}

/// What the service needs besides its settings.
#[derive(Debug)]
pub(crate) struct Dependencies<'a> {
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) nats: async_nats::Client,
    pub(crate) directory: watch::Receiver<Option<Arc<Directory>>>,
    pub(crate) is_store_full: watch::Receiver<bool>,
    pub(crate) namespaces: FunctionNamespaces,
    pub(crate) unknown_functions: UnknownFunctions,
    pub(crate) memory: &'a Budget,
    /// How many waits the connections permit.
    pub(crate) max_waits: usize,
    pub(crate) shutdown: CancellationToken,
}

// === impl Service ===

impl Service {
    /// Creates a service with these settings.
    pub(crate) fn new(settings: Settings, dependencies: Dependencies<'_>) -> anyhow::Result<Self> {
        // Every field is listed, so that a setting that is not used does not compile. Those that
        // are ignored here are used in `server`.
        let Settings {
            log: _,
            nats: _,
            http_addr: _,
            metrics_addr: _,
            default_queue,
            function_namespace: _,
            function_namespaces: _,
            pod_namespace,
            upstream_url,
            function_url,
            unknown_function: _,
            directory_file: _,
            max_payload,
            max_header_bytes,
            publish_timeout,
            cancel_timeout,
            read_timeout,
            max_publishing,
            max_wait,
            max_waits,
            max_chain_depth,
            max_hops,
            memory_budget: _,
            max_connections: _,
            max_connection_age,
            max_connection_requests,
            access_log,
            ensure_stream: _,
        } = settings;
        let Dependencies {
            health,
            metrics,
            nats,
            directory,
            is_store_full,
            namespaces,
            unknown_functions,
            memory,
            max_waits: of_connections,
            shutdown,
        } = dependencies;
        let max_publishing = usize::try_from(max_publishing).unwrap_or(usize::MAX);
        let lookup_context = ContextBuilder::new().timeout(publish_timeout.0).build(nats.clone());
        let limits = ConnectionLimits {
            max_age: max_connection_age.0,
            max_requests: max_connection_requests,
        };
        let max_waits = usize::try_from(max_waits).unwrap_or(usize::MAX).min(of_connections);
        let waits = Waits::new(
            nats.clone(),
            max_waits,
            memory.account("waits"),
            max_wait.0,
            shutdown,
            metrics.clone(),
        );
        Ok(Self {
            health,
            call_memory: memory.account("calls"),
            proxy_memory: memory.account("passed_on"),
            exchange_bytes: proxy_body::max_exchange_memory(max_header_bytes.0),
            metrics,
            directory,
            lookups: Lookups::new(lookup_context, cancel_timeout.0),
            waits,
            submitter: submitter(&nats, publish_timeout.0, max_publishing),
            nats,
            proxy: Proxy::new(limits, max_header_bytes.0)?,
            default_queue,
            namespaces,
            function_url,
            upstream_url: upstream_url.0,
            unknown_functions,
            max_payload: max_payload.0,
            read_timeout: read_timeout.0,
            max_header_bytes: max_header_bytes.0,
            publish_limit: ConcurrencyLimit::new(max_publishing, "concurrent publishes to NATS"),
            is_store_full,
            max_chain_depth,
            hop_limit: HopLimit::new(pod_namespace.as_ref().map(String::as_str), max_hops.into()),
            access_log,
        })
    }

    /// Handles a request of the client with this address.
    pub(crate) async fn handle(
        self: Arc<Self>,
        client: SocketAddr,
        request: Request<Incoming>,
    ) -> GatewayResponse {
        let started = Instant::now();
        if let Some(response) = admin::probe(request.method(), request.uri().path(), &self.health) {
            return response.map(Either::Left);
        }
        if let Some(response) = openapi::answer(request.method(), request.uri().path()) {
            return response.map(Either::Left);
        }
        let (mut head, body) = request.into_parts();
        let method = head.method.clone();
        let forwarded = ForwardedHeaders::from_request(&head, client.ip());
        let target = RequestTarget::parse(std::mem::take(&mut head.uri));
        let label = target.route().label();
        // Without the query, which may contain secrets.
        let logged_path = self.access_log.then(|| target.path().to_owned());
        let mut context = RequestContext::new(&head.headers);
        let response = match self.dispatch(target, head, body, forwarded, &mut context).await {
            Ok(response) => response,
            Err(rejection) => {
                // Without its text, which repeats what the client sent.
                debug!(
                    path = label,
                    call_id = context.logged_call_id(),
                    status = %rejection.status(),
                    "request rejected: {}",
                    rejection.category()
                );
                response::problem_response(&context, &rejection)
            }
        };
        let (status, duration) = (response.status(), started.elapsed());
        self.metrics.record_request(&method, label, status, duration);
        if let Some(path) = logged_path {
            info!(
                %method,
                path,
                status = status.as_u16(),
                call_id = context.logged_call_id(),
                seconds = duration.as_secs_f64(),
                "request"
            );
        }
        response
    }

    async fn dispatch(
        &self,
        target: RequestTarget,
        mut head: Parts,
        mut body: Incoming,
        forwarded: ForwardedHeaders,
        context: &mut RequestContext,
    ) -> Result<GatewayResponse, Rejection> {
        let expects_continue = head.headers.contains_key(header::EXPECT);
        let result = if let Route::AsyncFunction(_) = target.route() {
            self.handle_async_function(target, head, forwarded, &mut body, context).await
        } else if let Route::AsyncBatch(_) = target.route() {
            Box::pin(self.handle_batch(target, head, forwarded, &mut body, context)).await
        } else {
            match self.next_hop(&target, &mut head, forwarded) {
                Ok((memory, proxy_target, uri)) => {
                    let sent = self.proxy.send(proxy_target, uri, head, body, memory);
                    return Ok(Box::pin(sent).await?.map(Either::Right));
                }
                Err(rejection) => Err(rejection),
            }
        };
        if result.is_err() && !expects_continue {
            server::discard(body);
        }
        result
    }

    /// Prepares the head of a request that is passed on. Returns the memory of the exchange, its
    /// target, and the URI there.
    fn next_hop(
        &self,
        target: &RequestTarget,
        head: &mut Parts,
        forwarded: ForwardedHeaders,
    ) -> Result<(MemoryPermit, ProxyTarget, Uri), Rejection> {
        rewrite_request_headers(&mut head.headers);
        forwarded.add_to(&mut head.headers);
        self.hop_limit.append_via(&mut head.headers, head.version)?;
        let (proxy_target, uri) = self.proxy_target(target, &head.method)?;
        let memory = self.proxy_memory.try_take(self.exchange_bytes);
        let memory = memory
            .ok_or_else(|| Rejection::MemoryExhausted { budget: self.proxy_memory.budget() })?;
        Ok((memory, proxy_target, uri))
    }

    /// Returns the target of a request that is passed on, and its URI there.
    fn proxy_target(
        &self,
        target: &RequestTarget,
        method: &Method,
    ) -> Result<(ProxyTarget, Uri), Rejection> {
        let route = target.route();
        if !is_unambiguous(route, target.path()) {
            return Err(Rejection::AmbiguousPath);
        }
        if *method == Method::CONNECT {
            return Err(Rejection::MethodNotAllowed {
                method: method.clone(),
                allow: PROXIED_METHODS,
            });
        }
        match (&self.upstream_url, route) {
            (Some(upstream), _) => {
                join(ProxyTarget::Upstream, upstream, target.path(), target.query())
            }
            (None, Route::Function(function_path)) => {
                let (proxy_target, url) = self.resolve_function(function_path.function)?;
                join(proxy_target, &url, function_path.path, target.query())
            }
            (None, _) => Err(Rejection::NotFound),
        }
    }

    /// Handles a request to `/async-function/…`.
    ///
    /// All futures but that of a submission are boxed. The future that handles a request is moved:
    /// boxing keeps it no larger than that of a submission.
    async fn handle_async_function(
        &self,
        target: RequestTarget,
        head: Parts,
        forwarded: ForwardedHeaders,
        body: &mut Incoming,
        context: &mut RequestContext,
    ) -> Result<GatewayResponse, Rejection> {
        match head.method {
            Method::POST => {
                let result = self.submit(target, head.headers, forwarded, body, context).await;
                let result = result.map_err(|rejection| self.with_cause(rejection));
                self.metrics.record_submission(match &result {
                    Ok(Accepted { outcome: SubmitOutcome::Stored, .. }) => "stored",
                    Ok(Accepted { outcome: SubmitOutcome::Duplicate { .. }, .. }) => "duplicate",
                    Err(rejection) => rejection.category(),
                });
                let Accepted { outcome, sequence, wait } = result?;
                match wait {
                    None => Ok(response::accepted(context, &outcome)),
                    Some(wait) => {
                        let found = Box::pin(self.wait_for(wait, &outcome, sequence, context));
                        Ok(match found.await {
                            Some(result) => response::waited(context, result),
                            None => response::accepted_without_result(context, &outcome),
                        })
                    }
                }
            }
            Method::GET | Method::HEAD if results::is_result(target.function_path()) => {
                let result = Box::pin(self.result(&target, &head.method, context)).await;
                let result = result.map_err(|rejection| self.with_cause(rejection));
                self.metrics.record_lookup(
                    "result",
                    match &result {
                        Ok(Some(_)) => "found",
                        Ok(None) => "pending",
                        Err(rejection) => rejection.category(),
                    },
                );
                Ok(match result? {
                    Some(result) => response::result(context, StatusCode::OK, *result),
                    None => response::result_pending(context),
                })
            }
            Method::GET | Method::HEAD => {
                let result = Box::pin(self.status(&target, &head.method, context)).await;
                let result = result.map_err(|rejection| self.with_cause(rejection));
                self.metrics.record_lookup(
                    "status",
                    result.as_ref().map_or_else(Rejection::category, |_| "found"),
                );
                Ok(response::status(context, &result?))
            }
            Method::DELETE => {
                let result = Box::pin(self.cancel(&target, &head.method, context)).await;
                let result = result.map_err(|rejection| self.with_cause(rejection));
                self.metrics.record_lookup(
                    "cancel",
                    match &result {
                        Ok(tally) if tally.running > 0 => "running",
                        Ok(tally) if tally.before == tally.cancelled => "before",
                        Ok(_) => "waiting",
                        Err(rejection) => rejection.category(),
                    },
                );
                Ok(response::cancelled(context, &result?))
            }
            method => Err(Rejection::MethodNotAllowed { method, allow: ASYNC_FUNCTION_METHODS }),
        }
    }

    /// Replaces a rejection by its cause if JetStream is not enabled: then there is no directory
    /// and no stream either.
    fn with_cause(&self, rejection: Rejection) -> Rejection {
        let needs_jetstream = matches!(
            rejection,
            Rejection::DirectoryPending
                | Rejection::LookupFailed(_)
                | Rejection::CancelFailed(_)
                | Rejection::Submit {
                    error: SubmitError::NoStream | SubmitError::Unavailable { .. },
                    ..
                }
                | Rejection::Batch {
                    error: BatchError::Submit(
                        SubmitError::NoStream | SubmitError::Unavailable { .. }
                    ),
                    ..
                }
        );
        let is_disabled =
            needs_jetstream && self.health.reason(jetstream_check::CONDITION).is_some();
        if is_disabled { Rejection::JetStreamDisabled } else { rejection }
    }

    /// Answers `GET /async-function/CALL-ID` and `GET /async-function/NAME/CALL-ID`.
    async fn status(
        &self,
        target: &RequestTarget,
        method: &Method,
        context: &mut RequestContext,
    ) -> Result<CallStatus, Rejection> {
        let query = self.call_query(target, method, context)?;
        let directory = self.directory()?;
        self.lookups.status(&directory, &self.default_queue, query).await
    }

    /// Answers `GET /async-function/CALL-ID/result` and
    /// `GET /async-function/NAME/CALL-ID/result`. Returns `None` while the call has not ended.
    async fn result(
        &self,
        target: &RequestTarget,
        method: &Method,
        context: &mut RequestContext,
    ) -> Result<Option<Box<KeptResult>>, Rejection> {
        let namespace = self.namespaces.default_namespace();
        let query = results::result_query(target.function_path(), target.query(), namespace)?;
        let query = self.resolved_query(query, method, context)?;
        let directory = self.directory()?;
        let result = self.lookups.result(&directory, &self.default_queue, query).await?;
        result.map(|result| self.account_result(result)).transpose()
    }

    /// Counts the body of a result as memory that the gateway holds for its client.
    fn account_result(&self, mut result: Box<KeptResult>) -> Result<Box<KeptResult>, Rejection> {
        let memory = self.call_memory.try_take(result.body.len());
        let memory = memory
            .ok_or_else(|| Rejection::MemoryExhausted { budget: self.call_memory.budget() })?;
        result.body = memory.attach(std::mem::take(&mut result.body));
        Ok(result)
    }

    /// Answers `DELETE /async-function/CALL-ID` and `DELETE /async-function/NAME/CALL-ID`.
    async fn cancel(
        &self,
        target: &RequestTarget,
        method: &Method,
        context: &mut RequestContext,
    ) -> Result<CancelCounts, Rejection> {
        let query = self.call_query(target, method, context)?;
        let directory = self.directory()?;
        let result = self.lookups.cancel(&directory, &self.default_queue, query).await;
        debug!(call_id = context.logged_call_id(), ?result, "cancel");
        result
    }

    /// Returns the call that a path names.
    fn call_query(
        &self,
        target: &RequestTarget,
        method: &Method,
        context: &mut RequestContext,
    ) -> Result<CallQuery, Rejection> {
        let namespace = self.namespaces.default_namespace();
        let query = lookup::call_query(target.function_path(), target.query(), namespace)?;
        self.resolved_query(query, method, context)
    }

    /// Returns the call that a path names, with its function as the directory spells it.
    fn resolved_query(
        &self,
        query: Option<CallQuery>,
        method: &Method,
        context: &mut RequestContext,
    ) -> Result<CallQuery, Rejection> {
        // A longer path is a path of the function, which supports only POST.
        let mut query = query
            .ok_or_else(|| Rejection::MethodNotAllowed { method: method.clone(), allow: "POST" })?;
        context.call_id = Some(query.id.clone());
        let directory = self.directory()?;
        query.function = query.function.map(|function| directory.resolve(function));
        Ok(query)
    }

    /// Checks a call against what its queue permits. Returns when it runs, with the route of the
    /// queue.
    fn admit(
        &self,
        submission: Submission,
        started_at: Timestamp,
    ) -> Result<(Submission, QueueRoute), Rejection> {
        let route = self.route_submission(submission.function())?;
        let submission = submission.scheduled(started_at, &route)?;
        submission.check_keep_result(&route.results)?;
        Ok((submission, route))
    }

    /// Answers `POST /async-function/NAME[/path][?query]`.
    async fn submit(
        &self,
        target: RequestTarget,
        headers: HeaderMap,
        forwarded: ForwardedHeaders,
        body: &mut Incoming,
        context: &mut RequestContext,
    ) -> Result<Accepted, Rejection> {
        let client_id = submission::client_call_id(&headers)?;
        context.call_id.clone_from(&client_id);
        let key = submission::client_key(&headers)?;
        let submission = self.parse_submission(&target, &headers)?;
        let (submission, route) = self.admit(submission, context.started_at)?;
        let QueueRoute { queue, max_payload, .. } = &route;
        let wait = wait::preferred_wait(&headers);
        let submission = match wait {
            Some(_) => submission.with_result_kept(&route.results),
            None => submission,
        };
        let generate = || match &key {
            Some(key) => key.call_id(queue, submission.function()),
            None => CallId::generate(queue),
        };
        let call_id = context.call_id.get_or_insert_with(generate).clone();
        self.check_nats()?;
        submission.check_dead_letter(dead_letter::max_target(self.nats.max_payload()))?;
        let limit =
            BodyLimit::new(self.max_payload, self.nats.max_payload()).min_with(*max_payload);
        let memory = self.call_memory.try_take(head_bytes(&target, &headers));
        let memory = memory
            .ok_or_else(|| Rejection::MemoryExhausted { budget: self.call_memory.budget() })?;
        let bytes = body::read(body, limit, self.read_timeout, memory).await?;
        // The URI and the headers are slices of the connection's read buffer. Dropping them frees
        // the buffer while the stream is waited for, so that it is not allocated again for each
        // call.
        drop(target);
        let length = bytes.len();
        let invocation =
            submission.into_invocation(call_id, context.started_at, headers, forwarded, bytes);
        let _permit = self.publish_limit.try_acquire()?;
        // Before the call is stored: its result can't come earlier.
        let begun = match wait {
            Some(time) => Some(self.begin_wait(&invocation, &route, time).await),
            None => None,
        };
        let in_flight = self.metrics.track_publish();
        let started = Instant::now();
        let naming = match (&key, client_id) {
            (Some(key), _) => ClientNaming::Key(key),
            (None, Some(_)) => ClientNaming::Id,
            (None, None) => ClientNaming::Generated,
        };
        let result = self.submitter.submit_named(invocation, naming, &route).await;
        drop(in_flight);
        if result.is_ok() {
            self.metrics.record_publish(started.elapsed());
        }
        let call_id = context.logged_call_id();
        debug!(call_id, %queue, bytes = length, ?result, "submitted");
        let Submitted { outcome, sequence } = result
            .map_err(|error: SubmitError| Rejection::Submit { queue: queue.clone(), error })?;
        if let SubmitOutcome::Duplicate { of } = &outcome {
            context.call_id = Some(of.clone());
        }
        Ok(Accepted { outcome, sequence, wait: begun })
    }

    /// Begins to wait for the result of a call that is about to be stored, if it may be read.
    async fn begin_wait(
        &self,
        call: &Invocation,
        route: &QueueRoute,
        time: Duration,
    ) -> WaitRequest {
        let (Invocation { call_id, function, .. }, queue) = (call, &route.queue);
        let query = CallQuery { id: call_id.clone(), function: Some(function.clone()) };
        let wait = if route.results.permits_reading(call_id) {
            self.waits.begin(queue, function, call_id, time).await
        } else {
            None
        };
        WaitRequest { queue: queue.clone(), query, wait }
    }

    /// Waits for the result of a call that is stored. Returns `None` if the client gets 202.
    async fn wait_for(
        &self,
        WaitRequest { queue, query, wait }: WaitRequest,
        outcome: &SubmitOutcome,
        sequence: Option<u64>,
        context: &RequestContext,
    ) -> Option<KeptResult> {
        let wait = wait?;
        // The call that is repeated may have ended before, or have another id.
        if context.call_id.as_ref() != Some(&query.id) {
            return None;
        }
        let is_repeat = matches!(outcome, SubmitOutcome::Duplicate { .. });
        let kept = || self.lookups.kept_result(&queue, &query, sequence);
        let before = if is_repeat { kept().await } else { None };
        let result = match before {
            Some(result) => Some(result),
            None => self.waits.result(wait, sequence).await,
        };
        let result = match result {
            Some(result) => Some(result),
            // The connection to NATS may have been lost while the result was published.
            None => kept().await,
        };
        self.account_result(Box::new(result?)).ok().map(|result| *result)
    }

    /// Parses the head of a call, and checks it as far as neither NATS nor its queue is needed.
    fn parse_submission(
        &self,
        target: &RequestTarget,
        headers: &HeaderMap,
    ) -> Result<Submission, Rejection> {
        let namespace = self.namespaces.default_namespace();
        let submission =
            Submission::parse(target.function_path(), target.query(), headers, namespace)?;
        let submission = submission.resolved(&*self.directory()?);
        submission.check_depth(self.max_chain_depth)?;
        Ok(submission)
    }

    /// Rejects calls while they could not be stored.
    fn check_nats(&self) -> Result<(), Rejection> {
        if self.nats.connection_state() != State::Connected {
            return Err(Rejection::NatsUnavailable);
        }
        if *self.is_store_full.borrow() {
            return Err(Rejection::StoreFull);
        }
        Ok(())
    }

    /// Returns the function that `/function/NAME[/path]` names, and its base URL. Used without an
    /// upstream gateway.
    fn resolve_function(&self, name: &str) -> Result<(ProxyTarget, BaseUrl), Rejection> {
        let function = submission::function_name(name, self.namespaces.default_namespace())?;
        let function = self.directory()?.resolve(function);
        self.queue_route(&function)?;
        let url = match self.url_in_directory(&function) {
            Some(url) => url.parse(),
            None => self.function_url.expand(&function),
        };
        let target = ProxyTarget::Function(function);
        match url {
            Ok(url) => Ok((target, url)),
            Err(error) => Err(Rejection::Unreachable { target, reason: error.to_string() }),
        }
    }

    /// Returns the route of a call that is being submitted. Counts and reports unknown functions.
    fn route_submission(&self, function: &FunctionName) -> Result<QueueRoute, Rejection> {
        let route = self.queue_route(function);
        match &route {
            Ok(QueueRoute { known: false, queue, .. }) => {
                self.unknown_functions.record(function, queue, &self.metrics);
            }
            Err(Rejection::UnknownFunction(_)) => {
                self.unknown_functions.record(function, &self.default_queue, &self.metrics);
            }
            _ => {}
        }
        route
    }

    /// Returns the route of a function's calls, if it may be called. Until the directory is known,
    /// a function may belong to any queue.
    fn queue_route(&self, function: &FunctionName) -> Result<QueueRoute, Rejection> {
        let directory = self.directory()?;
        let route = directory.route(function, &self.default_queue);
        if !route.known {
            self.unknown_functions.check(function)?;
        }
        self.namespaces.check(function, Some(&*directory))?;
        Ok(route)
    }

    fn directory(&self) -> Result<Arc<Directory>, Rejection> {
        self.directory.borrow().clone().ok_or(Rejection::DirectoryPending)
    }

    fn url_in_directory(&self, function: &FunctionName) -> Option<String> {
        self.directory.borrow().as_ref()?.functions.get(function)?.url.clone()
    }
}

/// A call that is stored.
struct Accepted {
    outcome: SubmitOutcome,
    /// Its sequence on its queue's stream, if that is known.
    sequence: Option<u64>,
    /// Set if the client prefers to wait for the result.
    wait: Option<WaitRequest>,
}

/// The wish of a client to wait for the result of its call.
struct WaitRequest {
    queue: QueueName,
    query: CallQuery,
    /// `None` if the client does not wait: there are too many waits, or the result may not be
    /// read.
    wait: Option<Wait>,
}

/// Creates the submitter of calls.
fn submitter(client: &async_nats::Client, timeout: Duration, max_publishing: usize) -> Submitter {
    let context = ContextBuilder::new()
        // Longer than the submitter's own timeout, whose error is more specific.
        .timeout(timeout * 2)
        .ack_timeout(timeout)
        // More than can be published at once, so that a call never waits in the client. Acks whose
        // request has ended count as well.
        .max_ack_inflight(max_publishing.saturating_mul(2))
        .build(client.clone());
    Submitter::new(context, timeout)
}

/// Returns the memory for the head of a call as a message that waits to be sent, in bytes.
fn head_bytes(target: &RequestTarget, headers: &HeaderMap) -> usize {
    /// Bytes per header, for its name in the message and its place in the map.
    const HEADER_OVERHEAD: usize = 64;
    let fields =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD);
    target.path().len() + target.query().map_or(0, str::len) + fields.sum::<usize>()
}

/// Returns the target of a request that is passed on, and the URI of a path and query below its
/// base URL.
fn join(
    target: ProxyTarget,
    base: &BaseUrl,
    path: &str,
    query: Option<&str>,
) -> Result<(ProxyTarget, Uri), Rejection> {
    match base.join(path, query) {
        Ok(uri) => Ok((target, uri)),
        Err(error) => Err(Rejection::Unreachable { target, reason: error.to_string() }),
    }
}
