//! Signs callbacks as the Standard Webhooks specification describes
//! (`standard-webhooks/standard-webhooks`, `spec/standard-webhooks.md`). A receiver can thus
//! distinguish these callbacks from those of others, and a callback from its repeat.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tracing::warn;

/// Header that identifies a callback. It is the same for each attempt to deliver it.
pub(crate) const H_ID: &str = "webhook-id";
/// Header with the time of the attempt, in seconds since 1970.
pub(crate) const H_TIMESTAMP: &str = "webhook-timestamp";
/// Header with the signatures, one for each secret.
pub(crate) const H_SIGNATURE: &str = "webhook-signature";

/// Prefix of secrets that are written as the specification says.
const SECRET_PREFIX: &str = "whsec_";

/// Permitted length of a secret according to the specification, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs with the secrets in a file. The file is read again for each callback, so a rotated secret
/// takes effect at once, without a restart.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    file: PathBuf,
    last_valid: Arc<Mutex<Secrets>>,
}

/// The secrets, the newest first. While one replaces another, both sign.
#[derive(Clone, PartialEq, Eq)]
struct Secrets(Vec<Vec<u8>>);

// === impl Signer ===

impl Signer {
    /// Creates a signer with the secrets in a file: one `whsec_…` per line.
    ///
    /// # Errors
    ///
    /// The file can't be read, contains no secret, or contains something else.
    pub(crate) fn open(file: PathBuf) -> anyhow::Result<Self> {
        let secrets = read(&file)?;
        Ok(Self { file, last_valid: Arc::new(Mutex::new(secrets)) })
    }

    /// Returns the value of [`H_SIGNATURE`].
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut last_valid = self.last_valid.lock().unwrap_or_else(PoisonError::into_inner);
        match read(&self.file) {
            Ok(secrets) => *last_valid = secrets,
            Err(error) => warn!("signing callbacks with the last valid secrets: {error:#}"),
        }
        last_valid.sign(id, timestamp, body)
    }
}

fn read(file: &PathBuf) -> anyhow::Result<Secrets> {
    let name = || format!("callback_signing_secret_file `{}`", file.display());
    let text =
        std::fs::read_to_string(file).with_context(|| format!("{} can't be read", name()))?;
    Secrets::parse(&text).with_context(|| format!("{} is not valid", name()))
}

// === impl Secrets ===

impl Secrets {
    /// Reads secrets that are separated by white space. The error does not show the characters that
    /// are wrong.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let secrets = text
            .split_whitespace()
            .enumerate()
            .map(|(index, secret)| {
                let secret = secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret);
                STANDARD
                    .decode(secret)
                    .ok()
                    .filter(|secret| SECRET_BYTES.contains(&secret.len()))
                    .with_context(|| {
                        format!(
                            "secret {} must be {SECRET_PREFIX} and 24 to 64 bytes in base64",
                            index + 1
                        )
                    })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        anyhow::ensure!(!secrets.is_empty(), "it contains no secret");
        Ok(Self(secrets))
    }

    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signatures = self.0.iter().filter_map(|secret| {
            // HMAC accepts keys of any length, so this does not fail.
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vector of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn the_published_vector_holds() {
        assert_eq!(Secrets::parse(SECRET).unwrap().sign(ID, TIMESTAMP, BODY), SIGNATURE);
        let bare = SECRET.strip_prefix("whsec_").unwrap();
        assert_eq!(Secrets::parse(bare).unwrap().sign(ID, TIMESTAMP, BODY), SIGNATURE);
    }

    /// Checks a vector that Svix publishes (docs.svix.com, "Verifying payloads manually"). Its
    /// secret is shorter than the specification allows.
    #[test]
    fn the_published_vector_of_another_secret_holds() {
        let secrets = Secrets(vec![STANDARD.decode("plJ3nmyCDGBKInavdOK15jsl").unwrap()]);
        let body = br#"{"event_type":"ping","data":{"success":true}}"#;
        let signature = secrets.sign("msg_loFOjxBNrRLzqYUf", 1_731_705_121, body);
        assert_eq!(signature, "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=");
    }

    #[test]
    fn both_secrets_sign_during_a_rotation() {
        let new = format!("whsec_{}", STANDARD.encode([7; 32]));
        let both = Secrets::parse(&format!("{new}\n{SECRET}\n")).unwrap().sign(ID, TIMESTAMP, BODY);
        let signatures: Vec<_> = both.split(' ').collect();
        assert_eq!(signatures.len(), 2);
        assert_eq!(signatures[1], SIGNATURE);
    }

    #[test]
    fn an_invalid_secret_is_refused_without_being_shown() {
        for bad in ["", "  \n", "whsec_c2hvcnQ=", "hunter2", &format!("{SECRET} hunter2")] {
            let error = format!("{:#}", Secrets::parse(bad).unwrap_err());
            assert!(!error.contains("hunter2") && !error.contains("c2hvcnQ"), "{error}");
        }
    }

    #[test]
    fn a_rotated_file_is_used_at_once_and_an_invalid_one_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SECRET).unwrap();
        let signer = Signer::open(file.path().to_owned()).unwrap();
        assert_eq!(signer.sign(ID, TIMESTAMP, BODY), SIGNATURE);
        std::fs::write(file.path(), format!("whsec_{}", STANDARD.encode([7; 32]))).unwrap();
        let rotated = signer.sign(ID, TIMESTAMP, BODY);
        assert_ne!(rotated, SIGNATURE);
        std::fs::write(file.path(), "").unwrap();
        assert_eq!(signer.sign(ID, TIMESTAMP, BODY), rotated);
    }
}
