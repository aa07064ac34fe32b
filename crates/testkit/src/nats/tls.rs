//! Certificates for a server that wants TLS, made for one test.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// The year in which certificates expire that are to be good.
const FAR: i32 = 4096;

/// PEM files: an authority, a server's certificate for 127.0.0.1 and localhost, and a client's certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The server's certificate and key.
    pub server: (PathBuf, PathBuf),
    /// The client's certificate and key.
    pub client: (PathBuf, PathBuf),
    /// A server's certificate that has expired, and its key.
    pub expired: (PathBuf, PathBuf),
    /// The certificate of a server somewhere else, and its key.
    pub elsewhere: (PathBuf, PathBuf),
}

impl TlsFiles {
    /// Writes them into `dir`.
    pub fn write(dir: &Path) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // By name, too, the authority has to be another: OpenSSL takes a certificate for self-signed that has its issuer's.
        params.distinguished_name.push(DnType::CommonName, "Viaduct test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = dir.join("ca.pem");
        fs::write(&authority, issuer.pem())?;
        let leaf = |name: &str, names: &[&str], until: i32| -> Result<(PathBuf, PathBuf)> {
            let key = KeyPair::generate()?;
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.not_after = date_time_ymd(until, 1, 1);
            let certificate = params.signed_by(&key, &issuer)?;
            let paths = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
            fs::write(&paths.0, certificate.pem())?;
            fs::write(&paths.1, key.serialize_pem())?;
            Ok(paths)
        };
        Ok(Self {
            server: leaf("server", &["127.0.0.1", "localhost"], FAR)?,
            client: leaf("client", &["client"], FAR)?,
            expired: leaf("expired", &["127.0.0.1", "localhost"], 2001)?,
            elsewhere: leaf("elsewhere", &["elsewhere.example"], FAR)?,
            authority,
        })
    }

    /// The `tls { … }` block of the server's configuration; `verify`: clients need a certificate.
    pub fn server_config(&self, verify: bool) -> String {
        format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: {verify} }}\n",
            self.server.0, self.server.1, self.authority
        )
    }
}
