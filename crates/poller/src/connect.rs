//! Whether an address of the vendor can be reached, step by step, with a cause that a person can act on: name, connection,
//! certificate. With the same trusted certificates as every call, and without sending a request.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::http::tls;
use crate::settings::TlsSettings;

/// How long each step may take.
const STEP: Duration = Duration::from_secs(5);

/// Why an address cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreachable {
    /// The name is not known to the resolver.
    NameNotFound(String),
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The certificate comes from an authority that this machine does not trust.
    Untrusted,
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// The certificate is another host's.
    WrongName,
    /// TLS fails otherwise.
    Tls(String),
    /// The connection fails otherwise.
    Other(String),
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameNotFound(detail) => write!(f, "the name cannot be resolved ({detail})"),
            Self::Refused => f.write_str("the connection is refused: nothing listens there"),
            Self::TimedOut => f.write_str("no answer within 5 s"),
            Self::Untrusted => {
                f.write_str("the certificate comes from an authority that this machine does not trust")
            }
            Self::Expired => f.write_str("the certificate has expired, or is not valid yet"),
            Self::WrongName => f.write_str("the certificate is for another name"),
            Self::Tls(detail) => write!(f, "TLS fails: {detail}"),
            Self::Other(detail) => write!(f, "the connection fails: {detail}"),
        }
    }
}

/// Resolves the host of `url`.
///
/// # Errors
/// The name is not known, or the resolver does not answer.
pub async fn resolve(url: &Url) -> Result<Vec<SocketAddr>, Unreachable> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    lookup(&host, port).await
}

/// Resolves a host.
///
/// # Errors
/// As [`resolve`].
pub async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, Unreachable> {
    let looked = tokio::time::timeout(STEP, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = looked
        .map_err(|_| Unreachable::TimedOut)?
        .map_err(|error| Unreachable::NameNotFound(error.to_string()))?
        .collect();
    if addresses.is_empty() {
        return Err(Unreachable::NameNotFound("it has no address".to_owned()));
    }
    Ok(addresses)
}

/// Connects to one of `addresses`.
///
/// # Errors
/// None of them answers.
pub async fn reach(addresses: &[SocketAddr]) -> Result<TcpStream, Unreachable> {
    let mut last = Unreachable::TimedOut;
    for address in addresses {
        match tokio::time::timeout(STEP, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = of_io(&error),
            Err(_) => last = Unreachable::TimedOut,
        }
    }
    Err(last)
}

/// Connects to one of the resolved addresses of `url`, and greets it over TLS where the URL asks for that.
///
/// # Errors
/// See [`Unreachable`].
pub async fn greet(url: &Url, addresses: &[SocketAddr], settings: &TlsSettings) -> Result<(), Unreachable> {
    let stream = reach(addresses).await?;
    if url.scheme() != "https" {
        return Ok(());
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| Unreachable::Tls(error.to_string()))?;
    let config = tls(settings).map_err(|error| Unreachable::Tls(error.to_string()))?;
    let greeted =
        tokio::time::timeout(STEP, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    match greeted {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(of_tls(&error)),
        Err(_) => Err(Unreachable::TimedOut),
    }
}

fn of_io(error: &io::Error) -> Unreachable {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Unreachable::Refused,
        io::ErrorKind::TimedOut => Unreachable::TimedOut,
        _ => Unreachable::Other(error.to_string()),
    }
}

fn of_tls(error: &io::Error) -> Unreachable {
    use CertificateError as C;
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => {
                Unreachable::Expired
            }
            C::NotValidForName | C::NotValidForNameContext { .. } => Unreachable::WrongName,
            // An authority of a name that is known, and not the one that is known.
            C::UnknownIssuer | C::BadSignature => Unreachable::Untrusted,
            other => Unreachable::Tls(other.to_string()),
        },
        Some(other) => Unreachable::Tls(other.to_string()),
        None => Unreachable::Other(error.to_string()),
    }
}
