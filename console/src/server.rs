//! Starts the parts of the console, and serves requests until the shutdown.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use async_nats::jetstream::ContextBuilder;
use asyncqueue_runtime::{admin, health::Health, nats, server};
use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Request, header};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use tracing::info;

use crate::{
    actions::Actions,
    auth::{self, Authenticator, User},
    letters::Letters,
    metrics::Metrics,
    pages::{self, App, PageError},
    sampler::Samples,
    settings::Settings,
};

/// The name of the connection in NATS.
const CONNECTION_NAME: &str = "asyncqueue-console";

/// Maximum time for each answer of NATS: a person waits for the page.
const NATS_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time that running requests have after the shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of connections. Each viewer has a few.
const MAX_CONNECTIONS: usize = 512;

/// Maximum number of pages that are made at the same time. Each may hold 16 MiB of dead letters.
const MAX_PAGES: usize = 16;

/// Maximum time for a page, and for its turn.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// What a page may load and do. Everything comes from the console itself, and scripts and styles
/// are files.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);

/// A console that listens and does not answer yet.
#[derive(Debug)]
pub struct Console {
    settings: Settings,
    http: TcpListener,
    admin: TcpListener,
}

/// Runs a console until `shutdown`.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    Console::bind(settings)?.run(shutdown).await
}

// === impl Console ===

impl Console {
    /// Checks the settings and listens on both addresses.
    pub fn bind(settings: Settings) -> anyhow::Result<Self> {
        auth::check(&settings)?;
        let http = server::bind(settings.http_addr).context("http_addr")?;
        let admin = admin::bind(settings.metrics_addr).context("metrics_addr")?;
        Ok(Self { settings, http, admin })
    }

    /// Answers requests until `shutdown`, and then finishes those that had begun.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { settings, http, admin, .. } = self;
        let (http_addr, metrics_addr) = (http.local_addr()?, admin.local_addr()?);
        let health = Health::new();
        let mut registry = Registry::default();
        admin::register_build_info(&mut registry);
        let console_registry = registry.sub_registry_with_prefix("console");
        let metrics = Metrics::register(console_registry);
        let auth = Authenticator::new(&settings, metrics.clone());
        let client =
            nats::connect(&settings.nats, CONNECTION_NAME, &health, console_registry).await?;
        let js = ContextBuilder::new().timeout(NATS_TIMEOUT).build(client.clone());
        let app = Arc::new(App {
            samples: Samples::new(&js, &health),
            js: js.clone(),
            show_payloads: settings.show_payloads,
            letters: Letters::new(js.clone(), settings.function_namespace.clone()),
            actions: Actions::new(settings.actions.clone(), metrics.clone()),
        });
        let pages = Arc::new(Pages {
            router: pages::router(app.clone()),
            auth,
            turns: Semaphore::new(MAX_PAGES),
            metrics,
        });
        let handler = {
            let pages = pages.clone();
            move |peer, request: Request<_>| {
                let pages = pages.clone();
                async move { pages.answer(peer, request.map(Body::new)).await }
            }
        };
        let config =
            server::Config { max_connections: MAX_CONNECTIONS, ..server::Config::default() };
        let stop_admin = CancellationToken::new();
        let admin = tokio::spawn(admin::serve(
            admin,
            health.clone(),
            Arc::new(registry),
            stop_admin.clone(),
        ));
        info!("pages at http://{http_addr}/, metrics at http://{metrics_addr}/metrics");
        let servers = nats::jetstream_check::urls(&settings.nats)?;
        let sampling =
            app.samples.keep_sampling(&js, settings.sample_interval.0, &health, &pages.metrics);
        let serving = async {
            server::serve(http, config, handler, shutdown, DRAIN_TIMEOUT).await;
            let _ = timeout(DRAIN_TIMEOUT, app.actions.jobs.stop()).await;
        };
        let result = tokio::select! {
            () = serving => Ok(()),
            () = sampling => Ok(()),
            error = nats::failure(&client, &servers) => Err(error),
        };
        stop_admin.cancel();
        admin.await.context("the metrics server failed")?;
        result
    }
}

/// The pages, and who may see them.
#[derive(Debug)]
struct Pages {
    router: Router,
    auth: Authenticator,
    turns: Semaphore,
    metrics: Metrics,
}

// === impl Pages ===

impl Pages {
    async fn answer(&self, peer: SocketAddr, request: Request<Body>) -> Response {
        let began = Instant::now();
        let user = self.auth.authenticate(peer, request.headers(), request.uri().authority()).await;
        let mut response = match user {
            Ok(user) => self.page(user, request).await,
            Err(refusal) => pages::refusal(refusal),
        };
        protect(&mut response);
        self.metrics.answered(response.status(), began.elapsed());
        response
    }

    async fn page(&self, user: User, mut request: Request<Body>) -> Response {
        request.extensions_mut().insert(user);
        let page = async {
            let _turn = self.turns.acquire().await;
            let Ok(response) = self.router.clone().call(request).await;
            response
        };
        let made = timeout(PAGE_TIMEOUT, page).await;
        made.unwrap_or_else(|_| PageError::TimedOut.into_response())
    }
}

/// Adds the headers that limit what a browser does with a page.
fn protect(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    let others = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in others {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
