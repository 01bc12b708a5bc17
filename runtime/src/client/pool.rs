//! A pool of idle connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Uri,
    uri::{Authority, Scheme},
};
use hyper::client::conn::http1::SendRequest;
use tokio::time::timeout;

use super::{counting_stream::BytesRead, lifetime::Lifetime};

/// The destination of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    is_https: bool,
    authority: Authority,
}

/// Idle connections by their destination, the most recently used one last.
pub(super) struct Pool<B> {
    idle_timeout: Duration,
    idle: Mutex<IdleConnections<B>>,
}

struct IdleConnections<B> {
    by_target: HashMap<Target, Vec<Idle<B>>>,
    /// Whether a task runs that closes connections after the idle timeout.
    has_cleanup_task: bool,
}

struct Idle<B> {
    connection: Connection<B>,
    since: Instant,
}

struct Connection<B> {
    sender: SendRequest<B>,
    lifetime: Lifetime,
    bytes_read: BytesRead,
}

/// A connection that serves a request. Dropping it closes the connection.
pub(super) struct PooledConnection<B> {
    connection: Connection<B>,
    target: Target,
    pool: Weak<Pool<B>>,
}

// === impl Target ===

impl Target {
    /// Returns the destination of a request to this URI. Returns `None` if the URI has none, or its
    /// scheme is not HTTP or HTTPS.
    pub(super) fn from_uri(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme()?;
        let authority = uri.authority()?.clone();
        let is_https = *scheme == Scheme::HTTPS;
        (is_https || *scheme == Scheme::HTTP).then_some(Self { is_https, authority })
    }

    /// Returns the URI for a connector.
    pub(super) fn uri(&self) -> Result<Uri, http::Error> {
        let scheme = if self.is_https { Scheme::HTTPS } else { Scheme::HTTP };
        Uri::builder().scheme(scheme).authority(self.authority.clone()).path_and_query("/").build()
    }

    /// Returns host and port, as far as the URI has them.
    pub(super) fn host(&self) -> &str {
        let authority = self.authority.as_str();
        authority.rsplit_once('@').map_or(authority, |(_, host)| host)
    }

    /// Returns the value of `Host`: without credentials, and without the default port of the
    /// scheme.
    pub(super) fn host_header(&self) -> Option<HeaderValue> {
        let implied = if self.is_https { 443 } else { 80 };
        let host = match self.authority.port_u16() {
            Some(port) if port == implied => self.authority.host(),
            _ => self.host(),
        };
        HeaderValue::from_str(host).ok()
    }
}

// === impl Pool ===

impl<B> Pool<B> {
    pub(super) fn new(idle_timeout: Duration) -> Arc<Self> {
        let idle = IdleConnections { by_target: HashMap::new(), has_cleanup_task: false };
        Arc::new(Self { idle_timeout, idle: Mutex::new(idle) })
    }

    /// Takes a connection that is ready for its next request.
    pub(super) fn acquire(self: &Arc<Self>, target: &Target) -> Option<PooledConnection<B>> {
        let now = Instant::now();
        let mut idle = self.lock();
        let connections = idle.by_target.get_mut(target)?;
        while let Some(last) = connections.pop() {
            if last.is_usable(now, self.idle_timeout) {
                let pool = Arc::downgrade(self);
                return Some(PooledConnection {
                    connection: last.connection,
                    target: target.clone(),
                    pool,
                });
            }
        }
        None
    }

    /// Wraps a connection that was just opened.
    pub(super) fn wrap(
        self: &Arc<Self>,
        target: Target,
        sender: SendRequest<B>,
        lifetime: Lifetime,
        bytes_read: BytesRead,
    ) -> PooledConnection<B> {
        PooledConnection {
            connection: Connection { sender, lifetime, bytes_read },
            target,
            pool: Arc::downgrade(self),
        }
    }

    fn lock(&self) -> MutexGuard<'_, IdleConnections<B>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Send + 'static> Pool<B> {
    fn insert(self: &Arc<Self>, target: Target, connection: Connection<B>) {
        let now = Instant::now();
        if connection.lifetime.is_expired(now) {
            return;
        }
        let mut idle = self.lock();
        idle.by_target.entry(target).or_default().push(Idle { connection, since: now });
        if !std::mem::replace(&mut idle.has_cleanup_task, true) {
            tokio::spawn(close_idle_connections(Arc::downgrade(self), self.idle_timeout));
        }
    }

    /// Closes connections that can't be used any more. Returns whether any are left.
    fn close_unusable(&self) -> bool {
        let now = Instant::now();
        let mut idle = self.lock();
        idle.by_target.retain(|_, connections| {
            connections.retain(|idle| idle.is_usable(now, self.idle_timeout));
            !connections.is_empty()
        });
        idle.has_cleanup_task = !idle.by_target.is_empty();
        idle.has_cleanup_task
    }
}

/// Closes connections after the idle timeout, until none are left.
async fn close_idle_connections<B: Send + 'static>(pool: Weak<Pool<B>>, idle_timeout: Duration) {
    loop {
        tokio::time::sleep(idle_timeout / 2).await;
        let is_done = pool.upgrade().is_none_or(|pool| !pool.close_unusable());
        if is_done {
            return;
        }
    }
}

// === impl Idle ===

impl<B> Idle<B> {
    fn is_usable(&self, now: Instant, idle_timeout: Duration) -> bool {
        let Connection { sender, lifetime, .. } = &self.connection;
        sender.is_ready()
            && !lifetime.is_expired(now)
            && now.duration_since(self.since) < idle_timeout
    }
}

// === impl PooledConnection ===

impl<B> PooledConnection<B> {
    pub(super) fn sender(&mut self) -> &mut SendRequest<B> {
        &mut self.connection.sender
    }

    /// Returns how many bytes were read from the connection so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.connection.bytes_read.get()
    }
}

impl<B: Send + 'static> PooledConnection<B> {
    /// Returns the connection to the pool after a response was read. It is used again once the
    /// whole request was sent, too.
    pub(super) fn release(self) {
        let Self { mut connection, target, pool } = self;
        connection.lifetime.count_request();
        let Some(pool) = pool.upgrade() else { return };
        if connection.sender.is_ready() {
            pool.insert(target, connection);
        } else if !connection.sender.is_closed() {
            tokio::spawn(async move {
                let ready = timeout(pool.idle_timeout, connection.sender.ready()).await;
                if matches!(ready, Ok(Ok(()))) {
                    pool.insert(target, connection);
                }
            });
        }
    }
}
