//! Encryption as the endpoint asks: the five modes mean what they mean to libpq.
//!
//! `prefer` goes on without encryption where the server has none, or lets this role in without it only (see `session`).
//! `prefer` and `require` check no certificate, except that `require` with a CA file checks the chain. The chain is
//! checked against the CA file or, without one, the system's roots; only `verify-full` also checks the host's name.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use godwit_model::{Error, Result, Tls, TlsMode, codes};
use postgres_protocol::message::frontend;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::gathering::Gathering;
use super::socket::Stream;
use crate::error;

/// Asks the server for encryption, unless the mode says not to, and makes it.
pub(super) async fn negotiate(mut socket: Gathering<TcpStream>, host: &str, tls: &Tls) -> Result<Stream> {
    if tls.mode == TlsMode::Disable {
        return Ok(Stream { bytes: Box::new(socket), is_encrypted: false });
    }
    // Before the first byte, so that a wrong file is named even where the server would not encrypt.
    let config = client_config(tls)?;
    if !server_agrees(&mut socket).await? {
        return match tls.mode {
            TlsMode::Prefer => Ok(Stream { bytes: Box::new(socket), is_encrypted: false }),
            _ => {
                Err(failed("the server does not encrypt connections")
                    .remedy("turn `ssl` on at the server, or choose another `tls: {mode}`"))
            }
        };
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| failed("the host is neither a name nor an address"))?;
    let encrypted = TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(refused)?;
    Ok(Stream { bytes: Box::new(encrypted), is_encrypted: true })
}

fn failed(what: &str) -> Error {
    Error::new(&codes::TLS_FAILED, what)
}

/// Exactly one byte is read: what follows belongs to the handshake, so nothing sent in the clear can slip behind it.
async fn server_agrees(socket: &mut Gathering<TcpStream>) -> Result<bool> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await.map_err(error::lost)?;
    match socket.read_u8().await.map_err(error::lost)? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // the server's first process speaks so while it has no other to answer with
        b'E' => Err(Error::new(&codes::UNREACHABLE, "the server cannot take a connection now")
            .remedy("look into the server's log; it is tried again")),
        _ => Err(failed("the server answered the request for encryption with something else")
            .remedy("check that a PostgreSQL server listens there")),
    }
}

/// A handshake that the network ended is tried again; one that a certificate ended is not.
fn refused(problem: io::Error) -> Error {
    let is_of_tls = problem.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    if !is_of_tls {
        return error::lost(problem);
    }
    failed(&format!("the encrypted connection could not be made: {problem}"))
        .remedy("check `tls: {mode, ca, certificate, key}` against the server's certificate and host name")
        .caused_by(problem)
}

fn client_config(tls: &Tls) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(tls, provider.clone())?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|problem| Error::internal(format!("the TLS library refuses its own defaults: {problem}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        return match (&tls.certificate, &tls.key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            _ => Err(failed("a client certificate needs both `certificate` and `key`")),
        };
    };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|problem| unreadable(key, &problem))?;
    builder.with_client_auth_cert(chain, key).map_err(|problem| failed(&format!("the client certificate cannot be used: {problem}")))
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    let read: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect())
        .map_err(|problem| unreadable(path, &problem))?;
    if read.is_empty() { Err(failed(&format!("{} holds no certificate", path.display()))) } else { Ok(read) }
}

fn unreadable(path: &std::path::Path, problem: &dyn std::fmt::Display) -> Error {
    failed(&format!("{} cannot be read as PEM: {problem}", path.display())).remedy("check the path, the rights, and that the file is PEM")
}

fn verifier(tls: &Tls, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    let check = match (tls.mode, &tls.ca) {
        (TlsMode::VerifyFull, _) => Check::ChainAndName,
        (TlsMode::VerifyCa, _) | (TlsMode::Require, Some(_)) => Check::Chain,
        _ => return Ok(Arc::new(AnyServer { provider })),
    };
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(tls)?), provider)
        .build()
        .map_err(|problem| failed(&format!("the CA certificates cannot be used: {problem}")))?;
    Ok(match check {
        Check::ChainAndName => inner,
        Check::Chain => Arc::new(AnyName { inner }),
    })
}

enum Check {
    Chain,
    ChainAndName,
}

fn roots(tls: &Tls) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match &tls.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                store.add(certificate).map_err(|problem| unreadable(path, &problem))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        return Err(failed("there is no CA certificate to check the server against").remedy("name the CA's file: `tls: {ca: FILE}`"));
    }
    Ok(store)
}

/// Encrypts with whoever answers: that the peer holds the key of the certificate it shows is all that is checked.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks the chain and lets the name be another: the library looks at the name only after the chain held.
#[derive(Debug)]
struct AnyName {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
