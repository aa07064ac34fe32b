//! The admin port, read-only, loopback by default:
//!
//! - `/`: the status page ([`mod@page`])
//! - `/status`: the state as JSON ([`mod@status`], with its [`verdict`])
//! - `/events`: what comes through, masked ([`mod@events`], [`records`], [`filter`])
//! - `/metrics`: OpenMetrics text
//! - `/livez`, `/readyz`: for whoever restarts and whoever routes

mod events;
mod filter;
mod page;
mod records;
pub(crate) mod status;
pub(crate) mod verdict;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::events::Seats;
use self::status::Status;
use crate::exit::{Exit, Failure};
use crate::telemetry::Telemetry;

/// Binds the port, before anything else starts; `None` where it is switched off.
///
/// # Errors
/// 69 where the address cannot be had.
pub(crate) async fn bind(address: Option<SocketAddr>) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = address else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).map_err(|error| {
        Failure::new(
            Exit::Unavailable,
            format!("the admin port {address} cannot be opened: {error}"),
            "set admin.listen to a free address, or to \"off\"",
        )
    })
}

/// The running admin port; dropping it closes the port.
#[derive(Debug)]
pub(crate) struct Admin {
    task: Option<JoinHandle<()>>,
    closing: CancellationToken,
}

/// How long those that look on may take to hear that the bridge has stopped.
const FAREWELL: Duration = Duration::from_millis(500);

impl Admin {
    /// Tells those that look on that the bridge has stopped, and closes the port.
    pub(crate) async fn close(mut self) {
        self.closing.cancel();
        if let Some(task) = &mut self.task {
            // Too slow to listen: the port closes without them.
            let _ = tokio::time::timeout(FAREWELL, task).await;
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// What the answers are made of.
#[derive(Debug, Clone)]
struct Shared {
    telemetry: Arc<Telemetry>,
    closing: CancellationToken,
    seats: Seats,
}

/// Serves the port until the returned value is dropped.
pub(crate) fn serve(listener: Option<TcpListener>, telemetry: Arc<Telemetry>) -> Admin {
    let closing = CancellationToken::new();
    let Some(listener) = listener else { return Admin { task: None, closing } };
    let address = listener.local_addr().ok();
    if let Some(address) = address {
        info!(%address, "admin port is open");
    }
    let shared = Shared { telemetry, closing: closing.clone(), seats: Seats::default() };
    let app = Router::new()
        .route("/", get(page::page))
        .route("/events", get(events::events))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .layer(middleware::from_fn_with_state(address, check_host))
        .with_state(shared);
    let closed = closing.clone().cancelled_owned();
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(closed).await {
            warn!(%error, "the admin port broke");
        }
    });
    Admin { task: Some(task), closing }
}

/// Refuses requests whose `Host` is a foreign name: a page in somebody's browser could otherwise read this port by
/// pointing a name of its own at 127.0.0.1 (DNS rebinding). Addresses and `localhost` cannot be rebound. A port that is
/// not bound to loopback is meant to be reached by name.
async fn check_host(State(address): State<Option<SocketAddr>>, request: Request, next: Next) -> Response {
    let loopback = address.is_none_or(|address| address.ip().is_loopback());
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if loopback && !is_local(host) {
        return (StatusCode::MISDIRECTED_REQUEST, "this port answers to localhost only\n").into_response();
    }
    next.run(request).await
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Ready: every source has its session and every required sink takes records.
async fn readyz(State(Shared { telemetry, .. }): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let mut ready = true;
    let mut lines = Vec::new();
    for (name, status) in telemetry.sources() {
        ready &= status.session_up;
        let reason = status.reason.as_deref().unwrap_or("session is up");
        lines.push((status.session_up, format!("source {name}: {reason}")));
    }
    for sink in telemetry.sinks() {
        let state = sink.state();
        ready &= state.up || !sink.required;
        let reason = if state.up { "up" } else { state.reason.as_str() };
        let weight = if sink.required { "" } else { " (best effort)" };
        lines.push((state.up, format!("sink {}{weight}: {reason}", sink.name)));
    }
    let verbose = has_parameter(query.as_deref(), "verbose");
    let mut body = String::from(if ready { "ready\n" } else { "not ready\n" });
    for (ok, line) in &lines {
        if verbose || !ok {
            body.push_str(if *ok { "[+] " } else { "[-] " });
            body.push_str(line);
            body.push('\n');
        }
    }
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, body).into_response()
}

/// Whether a query has this parameter, with a value or without.
fn has_parameter(query: Option<&str>, name: &str) -> bool {
    query.is_some_and(|query| {
        query.split('&').any(|part| part.split_once('=').map_or(part, |(key, _)| key) == name)
    })
}

async fn status(State(shared): State<Shared>) -> Json<Status> {
    Json(Status::of(&shared.telemetry))
}

async fn metrics(State(Shared { telemetry, .. }): State<Shared>) -> Response {
    match telemetry.openmetrics() {
        Ok(body) => {
            let mut headers = HeaderMap::new();
            let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
            (headers, body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_localhost_and_addresses_are_local() {
        for host in
            ["localhost", "LOCALHOST:9464", "127.0.0.1", "127.0.0.1:9464", "[::1]:9464", "::1", "10.0.0.7:80"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:9464", "localhost.evil.example", "127.0.0.1.evil.example"]
        {
            assert!(!is_local(host), "{host}");
        }
    }
}
