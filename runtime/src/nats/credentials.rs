//! Credentials that may change while a program runs: each connection uses the current ones.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use async_nats::{Auth, AuthError};
use futures::future::BoxFuture;
use nkeys::KeyPair;

/// Beginning of the lines before JWT and seed, in a file as `nsc generate creds` writes it.
const BEGIN_MARKER: &str = "-----BEGIN";

/// Beginning of the seed of a user's nkey. A seed has 58 characters, so that no token of another
/// kind is taken for one.
const SEED_PREFIX: &str = "SU";

/// Length of a seed.
const SEED_LENGTH: usize = 58;

/// Provides the content of a credentials file for each new connection.
#[derive(Clone)]
pub struct Credentials(Arc<dyn Fn() -> BoxFuture<'static, anyhow::Result<String>> + Send + Sync>);

/// The parsed content of a credentials file.
enum ParsedCredentials {
    /// A JWT and the key that it was issued for.
    Jwt { jwt: String, key: Box<KeyPair> },
    /// A key without a JWT: the server knows its public part.
    Nkey(Box<KeyPair>),
    /// A user and a password.
    Password { user: String, password: String },
    /// A token.
    Token(String),
}

// === impl Credentials ===

impl Credentials {
    /// Creates credentials that `load` provides.
    pub fn new<F>(load: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<String>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(load())))
    }

    /// Creates credentials from a file, which is read for each connection.
    #[must_use]
    pub fn file(file: PathBuf) -> Self {
        Self::new(move || {
            // A few hundred bytes: not worth another thread.
            let text = std::fs::read_to_string(&file);
            let text =
                text.with_context(|| format!("nats_creds_file `{}` can't be read", file.display()));
            std::future::ready(text)
        })
    }

    /// Checks whether the credentials can be used now.
    ///
    /// # Errors
    ///
    /// The credentials are missing, or have no known form.
    pub async fn validate(&self) -> anyhow::Result<()> {
        ParsedCredentials::read(&(self.0)().await?).map(|_| ())
    }

    /// Returns the login for a server. `nonce` is what must be signed.
    pub(super) async fn sign_nonce(&self, nonce: Vec<u8>) -> Result<Auth, AuthError> {
        // In a task of its own, since the client requires a future that is `Sync`.
        let loaded = tokio::spawn((self.0)()).await.map_err(AuthError::new)?;
        loaded
            .and_then(|text| ParsedCredentials::read(&text)?.auth(&nonce))
            .map_err(|error| AuthError::new(format!("{error:#}")))
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

// === impl ParsedCredentials ===

impl ParsedCredentials {
    /// Parses a credentials file. The errors show none of its content.
    fn read(text: &str) -> anyhow::Result<Self> {
        if text.contains(BEGIN_MARKER) { Self::read_jwt(text) } else { Self::read_line(text) }
    }

    /// Parses the lines after the first two lines that begin with [`BEGIN_MARKER`].
    fn read_jwt(text: &str) -> anyhow::Result<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let mut begun =
            lines.windows(2).filter(|pair| pair[0].starts_with(BEGIN_MARKER)).map(|pair| pair[1]);
        let (Some(jwt), Some(seed)) = (begun.next(), begun.next()) else {
            bail!(
                "not a credentials file: a JWT and a seed are missing, as `nsc generate creds` \
                 writes them"
            );
        };
        let Ok(key) = KeyPair::from_seed(seed) else {
            bail!("not a credentials file: its seed is not valid")
        };
        Ok(Self::Jwt { jwt: jwt.to_owned(), key: Box::new(key) })
    }

    /// Parses one line: `user:password`, the seed of an nkey, or a token.
    fn read_line(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        match (lines.next(), lines.next()) {
            (Some(line), None) if !line.contains(char::is_whitespace) => {
                Ok(match line.split_once(':') {
                    Some((user, password)) => {
                        Self::Password { user: user.to_owned(), password: password.to_owned() }
                    }
                    None => match Self::read_seed(line) {
                        Some(key) => Self::Nkey(Box::new(key)),
                        None => Self::Token(line.to_owned()),
                    },
                })
            }
            _ => bail!(
                "not a credentials file: it must contain a JWT and a seed, as `nsc generate creds` \
                 writes them, or one line: USER:PASSWORD, the seed of an nkey, or a token"
            ),
        }
    }

    /// Parses the seed of a user's nkey. `None` if the line is not one: its checksum decides.
    fn read_seed(line: &str) -> Option<KeyPair> {
        let has_form = line.starts_with(SEED_PREFIX) && line.len() == SEED_LENGTH;
        has_form.then(|| KeyPair::from_seed(line).ok()).flatten()
    }

    /// Returns the login for the server that sent this nonce.
    fn auth(self, nonce: &[u8]) -> anyhow::Result<Auth> {
        let mut auth = Auth::new();
        match self {
            Self::Jwt { jwt, key } => {
                auth.signature =
                    Some(key.sign(nonce).context("failed to sign the nonce of the server")?);
                auth.jwt = Some(jwt);
            }
            Self::Nkey(key) => {
                auth.signature =
                    Some(key.sign(nonce).context("failed to sign the nonce of the server")?);
                auth.nkey = Some(key.public_key());
            }
            Self::Password { user, password } => {
                auth.username = Some(user);
                auth.password = Some(password);
            }
            Self::Token(token) => auth.token = Some(token),
        }
        Ok(auth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn creds(seed: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.e30.c2ln\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\nKeep it secret.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    #[tokio::test]
    async fn a_credentials_file_is_read_whenever_a_connection_is_made() {
        let (first, second) = (KeyPair::new_user(), KeyPair::new_user());
        let file = tempfile::NamedTempFile::new().unwrap();
        let credentials = Credentials::file(file.path().to_owned());
        for key in [first, second] {
            std::fs::write(file.path(), creds(&key.seed().unwrap())).unwrap();
            let auth = credentials.sign_nonce(b"nonce".to_vec()).await.unwrap();
            assert_eq!(auth.jwt.as_deref(), Some("eyJ0.e30.c2ln"));
            assert!(key.verify(b"nonce", &auth.signature.unwrap()).is_ok());
        }
    }

    #[tokio::test]
    async fn a_line_is_a_user_and_a_password_or_a_token() {
        let answer = async |text: &str| {
            let text = text.to_owned();
            let credentials = Credentials::new(move || std::future::ready(Ok(text.clone())));
            let auth = credentials.sign_nonce(Vec::new()).await.unwrap();
            assert!(auth.jwt.is_none() && auth.signature.is_none());
            (auth.username, auth.password, auth.token)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(answer("user:pass:word\n").await, (some("user"), some("pass:word"), None));
        assert_eq!(answer("\n t0ken \n").await, (None, None, some("t0ken")));
    }

    #[tokio::test]
    async fn a_seed_alone_is_an_nkey_and_any_other_line_a_token() {
        let key = KeyPair::new_user();
        let seed = key.seed().unwrap();
        let auth = |text: String| {
            let credentials = Credentials::new(move || std::future::ready(Ok(text.clone())));
            async move { credentials.sign_nonce(b"nonce".to_vec()).await.unwrap() }
        };
        let login = auth(format!("{seed}\n")).await;
        assert_eq!(login.nkey, Some(key.public_key()));
        assert!(key.verify(b"nonce", &login.signature.unwrap()).is_ok());
        assert!(login.token.is_none() && login.jwt.is_none());
        // Its checksum is wrong, or it is the key of an account.
        let other_letter = if &seed[30..31] == "A" { "B" } else { "A" };
        let damaged = format!("{}{other_letter}{}", &seed[..30], &seed[31..]);
        for other in [damaged, KeyPair::new_account().seed().unwrap(), "SUnday".to_owned()] {
            assert_eq!(auth(other.clone()).await.token, Some(other));
        }
    }

    #[tokio::test]
    async fn invalid_credentials_file_is_refused_without_being_shown() {
        let unmarked = creds("hunter2").replace("-----", "");
        for bad in ["", "hunter2 hunter2", "u:hunter2\nhunter2", &creds("hunter2"), &unmarked] {
            let text = bad.to_owned();
            let credentials = Credentials::new(move || std::future::ready(Ok(text.clone())));
            let error = format!("{:#}", credentials.validate().await.unwrap_err());
            assert!(
                error.contains("not a credentials file") && !error.contains("hunter2"),
                "{error}"
            );
        }
        let missing = Credentials::file("/does/not/exist".into());
        let error = format!("{:#}", missing.validate().await.unwrap_err());
        assert!(error.contains("nats_creds_file `/does/not/exist` can't be read"), "{error}");
    }
}
