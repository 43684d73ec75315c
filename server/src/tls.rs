//! Certificates: files → what the doors accept TLS with.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;
use crate::error::{Error, Result, SqlState};

/// The server's identity on the wire, the same behind every door.
#[derive(Debug, Clone)]
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    /// Reads and checks the files. The error names the file at fault.
    pub fn load(files: &TlsConfig) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(&files.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| unusable("certificate", &files.cert, &e))?;
        if chain.is_empty() {
            return Err(unusable(
                "certificate",
                &files.cert,
                &"no certificate in it",
            ));
        }
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|e| unusable("private key", &files.key, &e))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|e| unusable("private key", &files.key, &e))?;
        Ok(Self(Arc::new(config)))
    }

    /// For a door that negotiates one of `protocols` (ALPN); none means no negotiation.
    pub fn acceptor(&self, protocols: &[&str]) -> TlsAcceptor {
        TlsAcceptor::from(self.config(protocols))
    }

    /// As [`Tls::acceptor`], for a door with its own handshake.
    pub fn config(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        let mut config = (*self.0).clone();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Makes ring the process's provider. Several libraries are built with two providers and panic when
/// asked for "the" default without this.
pub fn install_provider() {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a TLS provider is already installed");
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(what: &str, path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::refused(
        SqlState::CONFIG_FILE_ERROR,
        format!("cannot use {what} file \"{}\"", path.display()),
    )
    .with_detail(why.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A certificate for `localhost` in a directory of its own, loaded, and its PEM text.
    pub(crate) fn self_signed() -> (Tls, String) {
        install_provider();
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let files = TlsConfig {
            cert: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        (Tls::load(&files).unwrap(), made.cert.pem())
    }

    #[test]
    fn the_file_at_fault_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsConfig {
            cert: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        };
        let told = || Tls::load(&files).unwrap_err().to_string();
        assert!(told().contains("cert.pem"));
        std::fs::write(&files.cert, "no PEM at all").unwrap();
        assert!(told().contains("cert.pem"));
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        assert!(told().contains("key.pem"));
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&files.key, other.signing_key.serialize_pem()).unwrap();
        assert!(told().contains("key.pem"), "the key of another certificate");
    }
}
