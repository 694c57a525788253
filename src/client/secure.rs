//! The way to a daemon over TCP: TLS 1.3, where both sides show certificates.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cli::tls::TlsFiles;

const HTTP: &[u8] = b"http/1.1";

/// Connects to `address`, a host and a port, if who is there has a certificate for that host.
pub(super) async fn connect(address: &str, files: &TlsFiles) -> io::Result<TlsStream<TcpStream>> {
    let config = config(files)?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await
}

fn config(files: &TlsFiles) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for authority in read(&files.ca)? {
        let added = roots.add(authority);
        added.map_err(|error| wrong(&files.ca, error))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.map_err(|error| unread(&files.key, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_client_auth_cert(read(&files.cert)?, key)
        .map_err(|error| wrong(&files.cert, error))?;
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(config)
}

fn read(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| unread(path, error))
}

fn unread(path: &Path, error: pem::Error) -> io::Error {
    let kind = match &error {
        pem::Error::Io(error) => error.kind(),
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, format!("{}: {error}", path.display()))
}

fn wrong(path: &Path, error: rustls::Error) -> io::Error {
    let text = format!("{}: {error}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}
