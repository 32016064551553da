//! TLS with a database: which certificates are trusted, and our own.
//!
//! The meaning is libpq's. `sslmode=require` encrypts and trusts whoever answers, unless `sslrootcert` names an
//! authority: then its signature is asked for, as with `verify-ca`. `verify-full` asks for the host's name as well. It
//! must stand in the certificate's subjectAltName; the common name, which libpq also takes, does not count.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_cert::certificate::{Certificate, Version};
use x509_cert::der::{Decode, Encode};

use super::Trouble;
use crate::config::database::{Encryption, Proof, Roots, Versions};
use crate::trust;

/// # Errors
/// A file of certificates or a key that cannot be used.
pub(super) fn connector(encryption: &Encryption, deadline: Instant) -> Result<MakeRustlsConnect, Trouble> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = match encryption.versions {
        Versions::Any => &[&TLS13, &TLS12][..],
        Versions::Only12 => &[&TLS12],
        Versions::Only13 => &[&TLS13],
    };
    let verifier = Verifier::new(encryption, &provider, deadline)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("the provider has ciphers for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &encryption.identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate, "sslcert", deadline)?;
            let der = PrivateKeyDer::from_pem_slice(&read(key, "sslkey", deadline)?).map_err(|_| {
                let hint = "give the key in PEM form and without a passphrase";
                Trouble::file("sslkey", key, "it holds no key that can be read", hint)
            })?;
            config.with_client_auth_cert(chain, der).map_err(|error| {
                let hint = "give the key that belongs to the certificate of sslcert";
                Trouble::file("sslkey", key, &error.to_string(), hint)
            })?
        }
    };
    config.enable_sni = encryption.names_host;
    if encryption.direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(MakeRustlsConnect::new(config))
}

/// For connections without TLS; nobody is trusted.
pub(super) fn unused() -> MakeRustlsConnect {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for the default versions");
    MakeRustlsConnect::new(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// The same connector, and whether TLS was begun with it: with `sslmode=prefer` that is the server's to say.
pub(super) fn noting(tls: &MakeRustlsConnect) -> (Noting<MakeRustlsConnect>, Arc<AtomicBool>) {
    let begun = Arc::new(AtomicBool::new(false));
    (Noting { inner: tls.clone(), begun: Arc::clone(&begun) }, begun)
}

/// Notes that TLS is begun.
pub(super) struct Noting<T> {
    inner: T,
    begun: Arc<AtomicBool>,
}

impl<T: MakeTlsConnect<Socket>> MakeTlsConnect<Socket> for Noting<T> {
    type Stream = T::Stream;
    type TlsConnect = Noting<T::TlsConnect>;
    type Error = T::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        let inner = self.inner.make_tls_connect(domain)?;
        Ok(Noting { inner, begun: Arc::clone(&self.begun) })
    }
}

impl<T: TlsConnect<Socket>> TlsConnect<Socket> for Noting<T> {
    type Stream = T::Stream;
    type Error = T::Error;
    type Future = T::Future;

    fn connect(self, stream: Socket) -> Self::Future {
        self.begun.store(true, Ordering::Relaxed);
        self.inner.connect(stream)
    }
}

/// Asks of a certificate what was asked for, and no more.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` trusts whoever answers.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that are trusted themselves. Many a server has one that it signed itself, which for that reason
    /// calls itself an authority and would be taken for nothing else.
    pinned: Vec<CertificateDer<'static>>,
    asks_name: bool,
}

impl Verifier {
    fn new(
        encryption: &Encryption,
        provider: &Arc<CryptoProvider>,
        deadline: Instant,
    ) -> Result<Self, Trouble> {
        let blank =
            Self { provider: Arc::clone(provider), chain: None, pinned: Vec::new(), asks_name: false };
        if encryption.proof == Proof::Nothing {
            return Ok(blank);
        }
        let mut store = RootCertStore::empty();
        let pinned = match &encryption.roots {
            Roots::File(path) => certificates(path, "sslrootcert", deadline)?,
            Roots::System(authorities) => match authorities.read(deadline) {
                Some(found) => found.into_iter().map(CertificateDer::from).collect(),
                None => {
                    store.roots.extend_from_slice(webpki_roots::TLS_SERVER_ROOTS);
                    Vec::new()
                }
            },
        };
        store.add_parsable_certificates(pinned.iter().cloned());
        let chain =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider)).build();
        let chain = chain.map_err(|_| Trouble::no_authority(&encryption.roots))?;
        Ok(Self { chain: Some(chain), pinned, asks_name: encryption.proof == Proof::Name, ..blank })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            if self.asks_name {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: all else is right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.asks_name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    // Channel binding relies on these, also where any certificate will do.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms).or_else(|error| {
            // The recipe in PostgreSQL's manual makes certificates of version 1 with many an OpenSSL; they have a key
            // like any other.
            let key = bare_key(cert).ok_or(error)?;
            verify_tls13_signature_with_raw_key(message, &key, dss, algorithms)
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The key of a certificate of version 1.
fn bare_key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let certificate = Certificate::from_der(certificate).ok()?.tbs_certificate;
    let is_old = certificate.version == Version::V1;
    is_old.then_some(certificate.subject_public_key_info.to_der().ok()?).map(SubjectPublicKeyInfoDer::from)
}

fn certificates(
    path: &Path,
    setting: &str,
    deadline: Instant,
) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let found = trust::certificates(&read(path, setting, deadline)?);
    if found.is_empty() {
        let hint = format!("let {setting} name a file with certificates in PEM form");
        return Err(Trouble::file(setting, path, "it holds no certificate", &hint));
    }
    Ok(found.into_iter().map(CertificateDer::from).collect())
}

fn read(path: &Path, setting: &str, deadline: Instant) -> Result<Vec<u8>, Trouble> {
    trust::read(path, deadline).map_err(|error| {
        let hint = format!("let {setting} name a file that you may read");
        Trouble::file(setting, path, &crate::exit::cause(&error), &hint)
    })
}
