//! The admin port from outside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{Client, Response};

use crate::admin::status::Status;
use crate::cli::BridgeArgs;
use crate::config;
use crate::exit::{Exit, Failure};

/// How long the port may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The admin port of a bridge.
#[derive(Debug)]
pub(super) struct Bridge {
    client: Client,
    address: String,
}

impl Bridge {
    /// The one that the arguments name.
    ///
    /// # Errors
    /// The configuration is wrong, or switches the port off.
    pub(super) fn of(args: &BridgeArgs) -> Result<Self, Failure> {
        let address = match &args.admin {
            Some(address) => address.clone(),
            None => configured(args)?,
        };
        // This client speaks plain HTTP alone, but it cannot be made without knowing who would do TLS.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().connect_timeout(TIMEOUT).build().map_err(|error| {
            Failure::new(Exit::Software, format!("no HTTP client: {error}"), "please report this")
        })?;
        Ok(Self { client, address })
    }

    /// Where it is.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Its state.
    ///
    /// # Errors
    /// 69 where nothing answers, or something else than a bridge does.
    pub(super) async fn status(&self) -> Result<Status, Failure> {
        let answer = self.get("/status", Some(TIMEOUT)).await?;
        let body = answer.bytes().await.map_err(|error| self.silent(&error))?;
        serde_json::from_slice(&body).map_err(|_| {
            Failure::new(
                Exit::Unavailable,
                format!("what answers at {} is not a bridge of this version", self.address),
                "compare `viaduct --version` here and there",
            )
        })
    }

    /// Those of its events that `query` asks for; the answer has no end.
    ///
    /// # Errors
    /// 69 where nothing answers, or too many follow already.
    pub(super) async fn events(&self, query: &str) -> Result<Response, Failure> {
        self.get(&format!("/events?{query}"), None).await
    }

    async fn get(&self, path: &str, timeout: Option<Duration>) -> Result<Response, Failure> {
        let mut request = self.client.get(format!("http://{}{path}", self.address));
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        let answer = request.send().await.map_err(|error| self.silent(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let said = answer.text().await.unwrap_or_default();
        Err(Failure::new(
            Exit::Unavailable,
            format!("the bridge at {} answers {status}: {}", self.address, super::tame(said.trim())),
            "is this the admin port of the bridge?",
        ))
    }

    /// Nobody is there.
    pub(super) fn silent(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() { "no answer in time" } else { "no connection" };
        Failure::new(
            Exit::Unavailable,
            format!("no bridge answers at {} ({why})", self.address),
            "is it running, with this admin.listen? Another address: --admin HOST:PORT",
        )
    }
}

fn configured(args: &BridgeArgs) -> Result<String, Failure> {
    let loaded = config::load(args.config.load_input()?)?;
    let address = loaded.config.admin.ok_or_else(|| {
        Failure::new(
            Exit::Config,
            "admin.listen is \"off\", so nobody can look into this bridge",
            "set it to an address and restart the bridge",
        )
    })?;
    Ok(reachable(address).to_string())
}

/// A port that is bound to all addresses is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_reached_on_loopback() {
        let reachable = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reachable("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(reachable("[::]:9464"), "[::1]:9464");
        assert_eq!(reachable("10.1.2.3:9464"), "10.1.2.3:9464");
    }
}
