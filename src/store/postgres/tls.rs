//! TLS to PostgreSQL: the certificate must be for the host's name and signed by a known authority, always.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::{TlsConnector, client};

/// Whom a connection believes.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// The authorities of this PEM file; without one, the system's.
    pub fn of(ca_path: Option<&str>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match ca_path {
            Some(path) => {
                let failed = |error: &dyn std::fmt::Display| {
                    format!("store.postgres_ca_path = {path:?}: {error}; give the path of a readable PEM file")
                };
                for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
                    let certificate = certificate.map_err(|error| failed(&error))?;
                    roots.add(certificate).map_err(|error| failed(&error))?;
                }
                if roots.is_empty() {
                    return Err(failed(&"it has no certificate"));
                }
            }
            // Those that do not read are of no use to anybody.
            None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?;
        Ok(Self(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = Named;
    type Error = InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Named, InvalidDnsNameError> {
        Ok(Named { connector: TlsConnector::from(Arc::clone(&self.0)), name: ServerName::try_from(host)?.to_owned() })
    }
}

/// A handshake with a server of this name.
pub struct Named {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsConnect<Socket> for Named {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move { self.connector.connect(self.name, stream).await.map(Encrypted) })
    }
}

/// A connection by TLS. Where the server can, the password is bound to its certificate (SCRAM-SHA-256-PLUS).
pub struct Encrypted(client::TlsStream<Socket>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        let certificate = self.0.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let end_point = certificate.and_then(|certificate| end_point(certificate));
        end_point.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// `tls-server-end-point` (RFC 5929 §4.1): the certificate's hash, by the hash of its signature; `None` where that names
/// none, or one that is not known here.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    // RFC 5280 §4.1: Certificate ::= SEQUENCE { tbsCertificate, SEQUENCE { algorithm OID, … }, … }
    let (signed, _) = element(certificate)?;
    let (_, behind) = element(signed)?;
    let (algorithm, _) = element(behind)?;
    let (oid, _) = element(algorithm)?;
    let hash = SIGNATURES.iter().find(|(known, _)| *known == oid)?.1;
    Some(hash(certificate))
}

/// The contents of the first DER element (X.690 §8.1), and what is behind it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_tag, first], rest) = der.split_first_chunk()?;
    let digits = if first < 0x80 { 0 } else { usize::from(first & 0x7f) };
    let (long, rest) = rest.split_at_checked(digits).filter(|_| digits <= 4)?;
    let long = long.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    rest.split_at_checked(if digits == 0 { usize::from(first) } else { long })
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, to)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// A hash function.
type Hash = fn(&[u8]) -> Vec<u8>;

const SHA_256: Hash = |bytes| Sha256::digest(bytes).to_vec();
const SHA_384: Hash = |bytes| Sha384::digest(bytes).to_vec();
const SHA_512: Hash = |bytes| Sha512::digest(bytes).to_vec();
/// Object identifiers of signatures by RSA (PKCS #1) and ECDSA, in DER; old hashes are strengthened to SHA-256.
const SIGNATURES: [(&[u8], Hash); 7] = [
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", SHA_256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", SHA_256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", SHA_384),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", SHA_512),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", SHA_256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", SHA_384),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", SHA_512),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
        let mut der = vec![tag];
        match contents.len() {
            length @ 0..128 => der.push(u8::try_from(length).unwrap()),
            length => der.extend([0x82, u8::try_from(length >> 8).unwrap(), u8::try_from(length & 0xff).unwrap()]),
        }
        [der, contents.to_vec()].concat()
    }

    /// A certificate is hashed as its signature was; of an unknown signature, or of anything cut short, nothing is said.
    #[test]
    fn an_end_point_is_the_hash_of_its_certificate() {
        let certificate = |oid: &[u8]| {
            let algorithm = der(0x30, &der(6, oid));
            der(0x30, &[der(0x30, &[7; 300]), algorithm, der(3, &[0; 70])].concat())
        };
        for (oid, length) in [(SIGNATURES[1].0, 32), (SIGNATURES[2].0, 48), (SIGNATURES[6].0, 64)] {
            let certificate = certificate(oid);
            assert_eq!(end_point(&certificate).map(|hash| hash.len()), Some(length));
            assert!((0..certificate.len()).all(|end| end_point(&certificate[..end]).is_none()));
        }
        let (certificate, ed25519) = (certificate(SIGNATURES[4].0), certificate(b"\x2b\x65\x70"));
        assert_eq!(end_point(&certificate), Some(Sha256::digest(&certificate).to_vec()));
        assert_eq!(end_point(&ed25519), None);
        assert_eq!(end_point(&[0x30, 0x85, 1, 1, 1, 1, 1, 0]), None);
    }
}
