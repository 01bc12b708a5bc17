//! The addresses of NATS, and the login that they contain.

use std::{fmt, net::Ipv6Addr};

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::{program::UsageError, settings::NatsSettings};

/// The servers of a NATS cluster. Their addresses contain no credentials, so that they can be
/// logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Servers {
    pub(super) addresses: Vec<ServerAddr>,
    pub(super) login: Option<Login>,
}

/// The login that a URL contains.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    Password { user: String, password: String },
    Token(String),
}

/// Returns whether a list of servers contains credentials.
#[must_use]
pub fn has_credentials(urls: &str) -> bool {
    urls.contains('@')
}

/// Returns a list of servers without its credentials, to be shown to others.
#[must_use]
pub fn without_credentials(urls: &str) -> String {
    if !has_credentials(urls) {
        return urls.to_owned();
    }
    let bare = urls.split(',').map(|url| {
        let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + "://".len()));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{}{}", scheme.trim(), host.trim())
    });
    bare.collect::<Vec<_>>().join(",")
}

// === impl Servers ===

impl Servers {
    /// Parses the servers that the settings name. The errors name the setting and never its value,
    /// which may contain a password.
    pub(super) fn from_settings(settings: &NatsSettings) -> Result<Self, UsageError> {
        match settings.nats_url.as_ref() {
            Some(urls) => Self::parse("nats_url", urls, None),
            None => Self::parse("nats_host", &settings.nats_host, Some(settings.nats_port)),
        }
    }

    fn parse(setting: &str, list: &str, port: Option<u16>) -> Result<Self, UsageError> {
        let mut servers = Self { addresses: Vec::new(), login: None };
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let (address, login) = server(text, port)
                .map_err(|rule| UsageError(format!("{setting} is not valid: {rule}")))?;
            servers.addresses.push(address);
            servers.login = servers.login.or(login);
        }
        if servers.addresses.is_empty() {
            return Err(UsageError(format!(
                "{setting} names no server: write it as nats://host:4222"
            )));
        }
        Ok(servers)
    }
}

impl Servers {
    /// Returns their URLs, separated by commas, without credentials.
    pub(super) fn urls(&self) -> String {
        let url =
            |address: &ServerAddr| format!("{}://{}", address.scheme(), host_and_port(address));
        self.addresses.iter().map(url).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.addresses.iter().map(host_and_port).collect::<Vec<_>>().join(", "))
    }
}

fn host_and_port(address: &ServerAddr) -> String {
    match (address.host(), address.port()) {
        (ipv6, port) if ipv6.contains(':') => format!("[{ipv6}]:{port}"),
        (host, port) => format!("{host}:{port}"),
    }
}

/// Parses one address, with or without scheme, port and credentials. `port` is the port of an
/// address that has none.
fn server(text: &str, port: Option<u16>) -> Result<(ServerAddr, Option<Login>), String> {
    let text = match text.parse::<Ipv6Addr>() {
        // An IPv6 address without brackets, as it is written if no port follows.
        Ok(address) => format!("nats://[{address}]"),
        Err(_) if text.contains("://") => text.to_owned(),
        Err(_) => format!("nats://{text}"),
    };
    let mut url =
        Url::parse(&text).map_err(|error| format!("{error}; write it as nats://host:4222"))?;
    if !matches!(url.scheme(), "nats" | "tls") {
        return Err(format!("its scheme is `{}`; use nats:// or tls://", url.scheme()));
    }
    if !url.has_host() {
        return Err("it has no host; write it as nats://host:4222".to_owned());
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let login = match (url.username(), url.password()) {
        ("", None) => None,
        (token, None) => Some(Login::Token(decode(token))),
        (user, Some(password)) => {
            Some(Login::Password { user: decode(user), password: decode(password) })
        }
    };
    // These fail only for a URL without a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.port().is_none() {
        let _ = url.set_port(port);
    }
    let address = ServerAddr::from_url(url).map_err(|error| error.to_string())?;
    Ok((address, login))
}

// === impl Login ===

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<Servers, UsageError> {
        Servers::from_settings(&NatsSettings::from_url(text))
    }

    fn host(host: &str, port: u16) -> String {
        let settings = NatsSettings {
            nats_host: host.to_owned(),
            nats_port: port,
            ..NatsSettings::from_url("")
        };
        let settings = NatsSettings { nats_url: crate::settings::Optional(None), ..settings };
        Servers::from_settings(&settings).unwrap().to_string()
    }

    #[test]
    fn a_host_may_carry_a_scheme_and_a_port() {
        assert_eq!(host("nats", 4222), "nats:4222");
        assert_eq!(host("nats.openfaas:4333", 4222), "nats.openfaas:4333");
        assert_eq!(host("nats://nats.openfaas", 5222), "nats.openfaas:5222");
        assert_eq!(host("tls://nats:1/", 4222), "nats:1");
        assert_eq!(host("[::1]", 4222), "[::1]:4222");
        assert_eq!(host("::1", 4222), "[::1]:4222");
        assert_eq!(host("[fd00::1]:4333", 4222), "[fd00::1]:4333");
        assert_eq!(host("nats://u:p@[::1]:1", 4222), "[::1]:1");
    }

    #[test]
    fn credentials_are_taken_out_of_the_address() {
        let servers = url("nats://user:pa%20ss@a:1, b").unwrap();
        assert_eq!(servers.to_string(), "a:1, b:4222");
        assert!(
            servers.login
                == Some(Login::Password { user: "user".to_owned(), password: "pa ss".to_owned() })
        );
        assert!(!format!("{servers:?}").contains("pa ss"), "{servers:?}");
        assert!(!format!("{servers:?}").contains("pa%20ss"), "{servers:?}");
        assert!(url("token@a").unwrap().login == Some(Login::Token("token".to_owned())));
        assert!(url("nats://a").unwrap().login.is_none());
    }

    #[test]
    fn an_address_that_others_read_holds_no_credentials() {
        for (urls, bare) in [
            ("nats://a:4222", "nats://a:4222"),
            ("nats://u:p@a:4222", "nats://a:4222"),
            ("tls://token@a, nats://u:p@b:1,c", "tls://a,nats://b:1,c"),
            ("u:p@a", "a"),
            ("nats://u:p@ss@a", "nats://a"),
        ] {
            assert_eq!(without_credentials(urls), bare, "{urls}");
            assert_eq!(has_credentials(urls), urls != bare);
            assert!(!has_credentials(bare));
        }
    }

    #[test]
    fn invalid_address_is_refused_without_its_password() {
        for bad in ["http://u:secret@h", "nats://u:secret@", "nats://u:secret@h:99999", ","] {
            let error = url(bad).unwrap_err().to_string();
            assert!(error.starts_with("nats_url "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
