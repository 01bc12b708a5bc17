//! Decides who may see the pages.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use asyncqueue_runtime::{error::error_chain, program::UsageError};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, header, uri::Authority};
use ipnet::IpNet;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use self::{htpasswd::Passwords, limit::FailureLimit, verified::VerifiedLogins};
use crate::{metrics::Metrics, settings::Settings};

mod htpasswd;
mod limit;
mod verified;

/// Maximum number of passwords that are checked at the same time. Each takes a processor for up to
/// a second.
const MAX_CHECKS: usize = 2;

/// Maximum time that a login waits for its turn to be checked.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum length of a user's name, in bytes.
const MAX_USER: usize = 256;

/// The header in which a proxy names its client.
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// How users are authenticated.
#[derive(Debug)]
pub(crate) struct Authenticator {
    file: Option<PathBuf>,
    header: Option<HeaderName>,
    trusted_proxies: Vec<IpNet>,
    /// Without authentication, only requests to a loopback name are answered, unless the settings
    /// ask for more.
    allows_any_host: bool,
    limit: Mutex<FailureLimit>,
    verified: Mutex<VerifiedLogins>,
    checks: Arc<Semaphore>,
    metrics: Metrics,
}

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User(pub(crate) String);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Name and password are missing or wrong.
    #[error("Log in with a user and a password of auth_file.")]
    NoLogin,
    /// The proxy is not trusted, or names no user.
    #[error(
        "No user: open this page through the ingress that authenticates users. If you did, check \
         auth_header and trusted_proxies of the console."
    )]
    NoUser,
    /// Too many logins have failed.
    #[error("Too many failed logins from this address. Wait a minute.")]
    TooManyFailures,
    /// The passwords could not be read or checked.
    #[error("Logins can't be checked now. The log of the console says why.")]
    Unavailable,
    /// The host of the request is not a loopback address.
    #[error("Without authentication, the console answers only at localhost or 127.0.0.1.")]
    WrongHost,
}

/// Checks that the settings of authentication can be used.
///
/// # Errors
///
/// A message that names the setting and the remedy.
pub(crate) fn check(settings: &Settings) -> anyhow::Result<()> {
    check_together(settings)?;
    if let Some(file) = settings.auth_file.as_ref() {
        let passwords = Passwords::read(file).context("auth_file")?;
        info!(users = passwords.len(), "read auth_file");
    }
    if settings.insecure_no_auth {
        warn!("insecure_no_auth=true: everyone who can connect sees all pages");
    }
    Ok(())
}

/// Checks that the settings of authentication fit together.
fn check_together(settings: &Settings) -> Result<(), UsageError> {
    let Settings {
        http_addr,
        auth_file,
        auth_header,
        trusted_proxies,
        insecure_no_auth,
        actions,
        ..
    } = settings;
    let has_auth = auth_file.as_ref().is_some() || auth_header.as_ref().is_some();
    let refuse = |why: String| Err(UsageError(why));
    if auth_header.as_ref().is_some() && trusted_proxies.0.is_empty() {
        return refuse(
            "auth_header needs trusted_proxies: set it to the addresses of the ingress, as \
             10.0.0.0/8"
                .to_owned(),
        );
    }
    if *insecure_no_auth && has_auth {
        return refuse(
            "insecure_no_auth=true contradicts auth_file and auth_header: remove one of them"
                .to_owned(),
        );
    }
    if *insecure_no_auth && !actions.is_off() {
        return refuse(
            "actions needs users, and insecure_no_auth=true admits everyone: set auth_file, or \
             auth_header with trusted_proxies, or actions=false"
                .to_owned(),
        );
    }
    if !has_auth && !insecure_no_auth && !http_addr.ip().is_loopback() {
        return refuse(format!(
            "http_addr {http_addr} is reachable from other machines, which needs a login: \
             set auth_file, auth_header with trusted_proxies, or insecure_no_auth=true"
        ));
    }
    Ok(())
}

// === impl Authenticator ===

impl Authenticator {
    /// Creates the authenticator of settings that [`check`] accepts.
    pub(crate) fn new(settings: &Settings, metrics: Metrics) -> Self {
        Self {
            file: settings.auth_file.as_ref().cloned(),
            header: settings.auth_header.as_ref().cloned(),
            trusted_proxies: settings.trusted_proxies.0.clone(),
            allows_any_host: settings.insecure_no_auth,
            limit: Mutex::default(),
            verified: Mutex::default(),
            checks: Arc::new(Semaphore::new(MAX_CHECKS)),
            metrics,
        }
    }

    /// Returns who sends a request.
    pub(crate) async fn authenticate(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        host: Option<&Authority>,
    ) -> Result<User, Refusal> {
        let is_trusted = self.trusted_proxies.iter().any(|net| net.contains(&peer.ip()));
        if let (Some(header), true) = (&self.header, is_trusted)
            && let Some(user) = single_value(headers, header)
        {
            return Ok(User(user));
        }
        if let Some(file) = &self.file {
            return self
                .check_password(file, client_address(peer, is_trusted, headers), headers)
                .await;
        }
        if self.header.is_some() {
            self.metrics.login("no_user");
            return Err(Refusal::NoUser);
        }
        if self.allows_any_host || is_loopback_host(headers, host) {
            Ok(User("anonymous".to_owned()))
        } else {
            Err(Refusal::WrongHost)
        }
    }

    async fn check_password(
        &self,
        file: &Path,
        client: IpAddr,
        headers: &HeaderMap,
    ) -> Result<User, Refusal> {
        let Some((user, password)) = basic_login(headers) else { return Err(Refusal::NoLogin) };
        let now = Instant::now();
        if lock(&self.verified).contains(&user, &password, now) {
            return Ok(User(user));
        }
        if lock(&self.limit).is_exceeded(client, now) {
            self.metrics.login("limited");
            return Err(Refusal::TooManyFailures);
        }
        // Counted before the check, so that many logins at once do not pass the limit.
        lock(&self.limit).add(client, now);
        let permit = tokio::time::timeout(CHECK_TIMEOUT, self.checks.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            self.metrics.login("unavailable");
            warn!("a login was not checked within {CHECK_TIMEOUT:?}: too many at the same time");
            return Err(Refusal::Unavailable);
        };
        let (file, login) = (file.to_owned(), (user.clone(), password.clone()));
        let checked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            anyhow::Ok(Passwords::read(&file)?.verify(&login.0, &login.1))
        });
        match checked.await.map_err(anyhow::Error::from).and_then(|checked| checked) {
            Ok(true) => {
                lock(&self.limit).forgive(client);
                lock(&self.verified).insert(&user, &password, now);
                self.metrics.login("success");
                info!(user, %client, "user logged in");
                Ok(User(user))
            }
            Ok(false) => {
                self.metrics.login("failure");
                // Without the name: it may be a password that was typed into the wrong field.
                warn!(%client, "login refused: wrong user or password");
                Err(Refusal::NoLogin)
            }
            Err(error) => {
                self.metrics.login("unavailable");
                warn!(error = error_chain(error.as_ref()), "failed to check a login");
                Err(Refusal::Unavailable)
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the value of a header that occurs once and is a user's name.
fn single_value(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    let is_valid = values.next().is_none() && !value.is_empty() && value.len() <= MAX_USER;
    is_valid.then(|| value.to_owned())
}

/// Returns the address whose failures are counted. A trusted proxy appends its client to the
/// header, so only the last entry is not the client's own claim.
fn client_address(peer: SocketAddr, is_trusted: bool, headers: &HeaderMap) -> IpAddr {
    let forwarded = headers.get_all(X_FORWARDED_FOR).iter().next_back();
    let last = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next());
    let claimed = last.and_then(|address| address.trim().parse().ok());
    claimed.filter(|_| is_trusted).unwrap_or(peer.ip())
}

/// Returns user and password of the header `Authorization`.
fn basic_login(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded =
        STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Returns whether a request is for a loopback name. A page of another site could otherwise have
/// its own name resolve to 127.0.0.1, and read the pages in the browser of a viewer.
fn is_loopback_host(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let from_header =
        headers.get(header::HOST).and_then(|value| value.to_str().ok()?.parse::<Authority>().ok());
    let Some(authority) = host.cloned().or(from_header) else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use prometheus_client::registry::Registry;

    use super::*;

    fn settings(arguments: &[&str]) -> Settings {
        Settings::parse_from([&["asyncqueue-console"], arguments].concat())
    }

    fn authenticator(arguments: &[&str]) -> Authenticator {
        let metrics = Metrics::register(&mut Registry::default());
        Authenticator::new(&settings(arguments), metrics)
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        lines.iter().map(parse).collect()
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    #[test]
    fn open_address_needs_authentication() {
        let check = |arguments: &[&str]| check_together(&settings(arguments));
        let open = "--http-addr=0.0.0.0:1";
        assert!(check(&[]).is_ok());
        assert!(check(&["--http-addr=[::1]:1"]).is_ok());
        for refused in [&[open][..], &["--http-addr=[::]:1"]] {
            let error = check(refused).unwrap_err().to_string();
            assert!(error.contains("http_addr") && error.contains("auth_file"), "{error}");
        }
        assert!(check(&[open, "--insecure-no-auth=true"]).is_ok());
        assert!(check(&[open, "--auth-file=/f"]).is_ok());
        assert!(check(&[open, "--auth-header=x-user", "--trusted-proxies=10.0.0.1"]).is_ok());
        let error = check(&["--auth-header=x-user"]).unwrap_err().to_string();
        assert!(error.contains("trusted_proxies"), "{error}");
        assert!(check(&["--auth-file=/f", "--insecure-no-auth=true"]).is_err());
        let error = check(&["--insecure-no-auth=true", "--actions=dev"]).unwrap_err().to_string();
        assert!(error.contains("actions") && error.contains("auth_file"), "{error}");
        assert!(check(&["--actions=true"]).is_ok());
    }

    #[tokio::test]
    async fn header_is_believed_only_from_a_trusted_proxy() {
        let auth = authenticator(&["--auth-header=x-user", "--trusted-proxies=10.1.0.0/16"]);
        let named = headers(&[("x-user", "ada")]);
        let from = |address: &str| address.parse::<SocketAddr>().unwrap();
        let proxy = from("10.1.2.3:4");
        assert_eq!(auth.authenticate(proxy, &named, None).await, Ok(User("ada".to_owned())));
        for peer in ["10.2.0.1:4", "127.0.0.1:4"] {
            let refused = auth.authenticate(from(peer), &named, None).await;
            assert_eq!(refused, Err(Refusal::NoUser));
        }
        for wrong in [&[][..], &[("x-user", "")], &[("x-user", "ada"), ("x-user", "eve")]] {
            let refused = auth.authenticate(proxy, &headers(wrong), None).await;
            assert_eq!(refused, Err(Refusal::NoUser), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn host_is_a_loopback_name_without_authentication() {
        let auth = authenticator(&[]);
        let peer = "127.0.0.1:4".parse().unwrap();
        for host in ["localhost:8084", "127.0.0.1:8084", "[::1]", "LOCALHOST"] {
            assert!(auth.authenticate(peer, &headers(&[("host", host)]), None).await.is_ok());
        }
        for lines in [&[("host", "evil.example:8084")][..], &[]] {
            let refused = auth.authenticate(peer, &headers(lines), None).await;
            assert_eq!(refused, Err(Refusal::WrongHost));
        }
    }

    #[tokio::test]
    async fn password_is_checked_and_failures_are_limited() {
        let folder = std::env::temp_dir().join(format!("console-auth-{}", std::process::id()));
        std::fs::write(&folder, format!("ada:{}\n", bcrypt::hash("right", 4).unwrap())).unwrap();
        let auth = authenticator(&[&format!("--auth-file={}", folder.display())]);
        let (peer, other) = ("10.0.0.1:4".parse().unwrap(), "10.0.0.2:4".parse().unwrap());
        let login =
            |user: &str, password: &str| headers(&[("authorization", &basic(user, password))]);
        let right = login("ada", "right");
        assert_eq!(auth.authenticate(peer, &headers(&[]), None).await, Err(Refusal::NoLogin));
        assert_eq!(auth.authenticate(peer, &right, None).await, Ok(User("ada".to_owned())));
        for _ in 0..limit::MAX_FAILURES {
            let refused = auth.authenticate(peer, &login("ada", "wrong"), None).await;
            assert_eq!(refused, Err(Refusal::NoLogin));
        }
        let refused = auth.authenticate(peer, &login("eve", "x"), None).await;
        assert_eq!(refused, Err(Refusal::TooManyFailures));
        // Others may log in, and a session continues.
        assert!(auth.authenticate(other, &right, None).await.is_ok());
        assert!(auth.authenticate(peer, &right, None).await.is_ok());
        std::fs::remove_file(&folder).unwrap();
        let refused = auth.authenticate(other, &login("ada", "new"), None).await;
        assert_eq!(refused, Err(Refusal::Unavailable));
    }

    #[test]
    fn client_address_is_the_last_that_a_trusted_proxy_adds() {
        let peer: SocketAddr = "10.0.0.1:4".parse().unwrap();
        let forwarded = headers(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2")]);
        assert_eq!(client_address(peer, true, &forwarded).to_string(), "2.2.2.2");
        assert_eq!(client_address(peer, false, &forwarded), peer.ip());
        assert_eq!(client_address(peer, true, &headers(&[])), peer.ip());
    }
}
