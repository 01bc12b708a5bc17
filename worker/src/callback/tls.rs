//! Configures TLS for callbacks: which certificates of receivers are accepted.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use asyncqueue_runtime::nats::CaBundle;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tracing::warn;

/// Accepts any certificate. The signatures of the handshake are still verified.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

/// Says which certificates of receivers are accepted.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Any certificate, for receivers with self-signed certificates.
    Any(Arc<ClientConfig>),
    /// Certificates that chain to a public root.
    Public(Arc<ClientConfig>),
    /// Certificates that chain to a public root or to one in a file, the CA bundle. The file is
    /// read again for each new connection, so a replaced certificate authority takes effect without
    /// a restart.
    AndFile {
        /// Path of the CA bundle, in PEM.
        file: PathBuf,
        /// What was read from the file last.
        last_valid: Arc<Mutex<CaFile>>,
    },
}

/// The content of a CA bundle, and the TLS configuration for it.
#[derive(Debug)]
pub(crate) struct CaFile {
    pem: String,
    config: Arc<ClientConfig>,
}

// === impl Trust ===

impl Trust {
    /// Creates the configuration from the settings `tls_insecure` and `callback_ca_file`.
    ///
    /// # Errors
    ///
    /// The file can't be read, contains no certificate, or contains something else.
    pub(crate) fn new(is_insecure: bool, ca_file: Option<PathBuf>) -> anyhow::Result<Self> {
        if is_insecure {
            let verifier = Arc::new(AnyCertificate(ring::default_provider()));
            let config =
                ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
            return Ok(Self::Any(Arc::new(config.with_no_client_auth())));
        }
        let Some(file) = ca_file else {
            return Ok(Self::Public(config_with_roots(public_roots())));
        };
        let pem = read(&file)?;
        let config = config_for_ca(&file, &pem)?;
        Ok(Self::AndFile { file, last_valid: Arc::new(Mutex::new(CaFile { pem, config })) })
    }

    /// Returns the TLS configuration for a new connection.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        match self {
            Self::Any(config) | Self::Public(config) => config.clone(),
            Self::AndFile { file, last_valid } => {
                let mut last_valid = last_valid.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = last_valid.update(file) {
                    warn!(
                        "verifying receivers of callbacks with the last valid CA bundle: {error:#}"
                    );
                }
                last_valid.config.clone()
            }
        }
    }
}

impl CaFile {
    fn update(&mut self, file: &Path) -> anyhow::Result<()> {
        let pem = read(file)?;
        if pem != self.pem {
            self.config = config_for_ca(file, &pem)?;
            self.pem = pem;
        }
        Ok(())
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file)
        .with_context(|| format!("callback_ca_file `{}` can't be read", file.display()))
}

/// Creates a configuration that trusts the public roots and the certificates in the text of a file.
fn config_for_ca(file: &Path, pem: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let authority = CaBundle::from_pem(pem);
    let authority =
        authority.with_context(|| format!("callback_ca_file `{}` is not valid", file.display()))?;
    let mut roots = public_roots();
    roots.roots.extend_from_slice(&authority.roots().roots);
    Ok(config_with_roots(roots))
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn config_with_roots(roots: RootCertStore) -> Arc<ClientConfig> {
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
