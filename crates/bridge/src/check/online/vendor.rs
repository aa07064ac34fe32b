//! A source: the vendor's addresses, the credentials, and a session for trial.

use std::sync::Arc;

use url::Url;
use viaduct_poller::connect::{self, Unreachable};
use viaduct_poller::{
    Access, CallError, GrantedSession, NoObserver, SessionId, SourceSettings, VendorClient,
    plan_subscriptions,
};

use super::report::{Check, Section};
use crate::config::{Api, Source, duration_text};
use crate::exit::Exit;
use crate::source_settings;
use crate::subscriptions::{concerns_the_subscription, refuses_credentials};

/// What the environment calls a proxy, in the words that the HTTP client knows.
const PROXIES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// Tries everything that a bridge needs of the vendor, except fetching events.
pub(super) async fn check(source: &Source) -> Section {
    let mut section = Section::new(format!("source {}", source.name));
    let settings = source_settings::of(source);
    let api = address(&mut section, "api_url", &source.api_url, source, &settings).await;
    // One address, one line.
    let same = source.api_url.origin() == source.auth.token_url.origin();
    let tokens = match same {
        true => api,
        false => address(&mut section, "token_url", &source.auth.token_url, source, &settings).await,
    };
    if !tokens {
        section.add(Check::unverified("token", "not tried: token_url cannot be reached", ""));
        return section;
    }
    let client = match VendorClient::new(settings.clone(), Arc::new(NoObserver)) {
        Ok(client) => client,
        Err(error) => {
            section.add(Check::fail("token", Exit::Config, error.to_string(), ""));
            return section;
        }
    };
    let auth = format!("[source.{}.auth]", source.name);
    let access = match client.token_provider().fetch().await {
        Ok(access) => access,
        Err(error) => {
            let hint = match refuses_credentials(&error) {
                true => format!("check client_id, client_secret, scope and realm in {auth}"),
                false => format!("check token_url in {auth}"),
            };
            section.add(refusal("token", &error, hint));
            return section;
        }
    };
    let lifetime = duration_text(access.lifetime());
    section.add(Check::ok("token", format!("granted for {lifetime}")));
    if !api {
        section.add(Check::unverified("session", "not tried: api_url cannot be reached", ""));
        return section;
    }
    let granted = match client.create_session(&access).await {
        Ok(granted) => granted,
        Err(error) => {
            // The token was granted, so it is the other credential, or what it may do.
            let name = if refuses_credentials(&error) { "api key" } else { "session" };
            let hint = match refuses_credentials(&error) {
                true => format!("check api_key and scope in {auth}, and org_id in [source.{}]", source.name),
                false => format!("check api_url, org_id and api in [source.{}]", source.name),
            };
            section.add(refusal(name, &error, hint));
            return section;
        }
    };
    section.add(Check::ok("api key", "accepted"));
    session(&mut section, source, &granted);
    subscriptions(&mut section, source, &settings, &client, &access, &granted.id).await;
    section.add(match client.delete_session(&access, &granted.id).await {
        Ok(()) => Check::ok("session deleted", "nothing is left of the trial"),
        Err(error) => {
            let left = duration_text(granted.inactivity_delay);
            let detail = format!("the session of this check is left, and ends in {left}: {}", error.detail);
            Check::warn("session deleted", detail, "nothing is lost by it")
        }
    });
    section
}

/// Name, connection and certificate of one address; whether calls may be tried.
async fn address(
    section: &mut Section,
    key: &str,
    url: &Url,
    source: &Source,
    settings: &SourceSettings,
) -> bool {
    let shown = format!("{key} {}", url.host_str().unwrap_or_default());
    if PROXIES.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        let detail = "a proxy is set in the environment, which does this itself";
        section.add(Check::unverified("connection", detail, "").of(shown));
        return true;
    }
    let addresses = match connect::resolve(url).await {
        Ok(addresses) => addresses,
        Err(why) => {
            let hint =
                format!("check the name in {key} of [source.{}], and this machine's resolver", source.name);
            section.add(Check::fail("dns", Exit::Unavailable, why.to_string(), hint).of(shown));
            return false;
        }
    };
    let count = match addresses.len() {
        1 => format!("1 address, {}", addresses[0].ip()),
        count => format!("{count} addresses, the first is {}", addresses[0].ip()),
    };
    section.add(Check::ok("dns", count).of(shown.clone()));
    let greeted = connect::greet(url, &addresses, &settings.tls).await;
    let reached = greeted.is_ok();
    let check = match greeted {
        Ok(()) if url.scheme() == "https" && source.tls.accept_invalid_certificates => {
            let detail = "TLS, with a certificate that nobody verifies (danger_accept_invalid_certificates)";
            Check::warn("connection", detail, "name the authority in ca_file instead")
        }
        Ok(()) if url.scheme() == "https" => {
            Check::ok("connection", "TLS, with a certificate that is trusted")
        }
        Ok(()) => Check::ok("connection", "without TLS"),
        Err(why) => {
            let hint = match &why {
                Unreachable::Untrusted => {
                    "name the authority in ca_file of the source, or add it to this machine's (a proxy that opens TLS?)"
                }
                Unreachable::Expired => {
                    "check this machine's clock; otherwise the server's owner has to renew it"
                }
                Unreachable::WrongName => "check the host name: another server answers there",
                Unreachable::Refused => "check host and port",
                _ => "check host, port, and firewalls on the way",
            };
            Check::fail("connection", Exit::Unavailable, why.to_string(), hint)
        }
    };
    section.add(check.of(shown));
    reached
}

/// A call that failed.
fn refusal(check: &'static str, error: &CallError, hint: String) -> Check {
    if refuses_credentials(error) {
        return Check::fail(check, Exit::NoPerm, format!("refused: {}", error.detail), hint);
    }
    let hint = error.retry_after.map_or(hint, |wait| format!("try again in {} s", wait.as_secs().max(1)));
    Check::fail(check, Exit::Unavailable, format!("failed: {}", error.detail), hint)
}

/// What was granted, against what was asked for.
fn session(section: &mut Section, source: &Source, granted: &GrantedSession) {
    let asked = source.session.inactivity_delay;
    let (is, wanted) = (duration_text(granted.inactivity_delay), duration_text(asked));
    section.add(if granted.inactivity_delay < asked {
        let detail = format!("created for trial; granted an inactivity delay of {is}, asked for {wanted}");
        Check::warn(
            "session",
            detail,
            format!("a session not polled for {is} is lost: write inactivity_delay = \"{is}\""),
        )
    } else {
        Check::ok("session", format!("created for trial; inactivity delay {is}"))
    });
    section.add(match (source.api, granted.acknowledges) {
        (Api::V3, true) => Check::ok("acknowledgement", "events stay at the vendor until they are acknowledged"),
        (Api::V3, false) => Check::fail(
            "acknowledgement",
            Exit::Config,
            "the vendor granted a session without acknowledgement: what is fetched is gone from the vendor",
            "ask the vendor's customer care, or write api = \"v2\", which keeps each response on disk first",
        )
        .bearing(),
        (Api::V2, _) => Check::ok(
            "acknowledgement",
            "API v2 has none: each response is on disk before it is published; only a kill before that loses it",
        ),
    });
}

/// Whether the vendor takes the declared subscriptions. They go with the session.
async fn subscriptions(
    section: &mut Section,
    source: &Source,
    settings: &SourceSettings,
    client: &VendorClient,
    access: &Access,
    session: &SessionId,
) {
    let declared = &settings.subscriptions;
    if declared.is_empty() {
        return;
    }
    let standing = match client.list_subscriptions(access, session).await {
        Ok(standing) => standing,
        Err(error) => {
            let hint = format!("check scope in [source.{}.auth]", source.name);
            section.add(refusal("subscriptions", &error, hint));
            return;
        }
    };
    for change in plan_subscriptions(declared, &standing, false) {
        let Some(wanted) = change.index().map(|index| &declared[index]) else { continue };
        let name = format!("{:?}", wanted.description);
        section.add(match client.change_subscription(access, session, declared, &change).await {
            Ok(()) => Check::ok("subscription", format!("accepted ({})", wanted.catalog_type)).of(name),
            Err(error) if concerns_the_subscription(&error) => Check::fail(
                "subscription",
                Exit::Config,
                format!("the vendor refuses catalog type {}: {}", wanted.catalog_type, error.detail),
                "have the catalog type enabled for the organisation by the vendor's customer care, or correct \
                 [[source.*.subscription]]",
            )
            .of(name),
            Err(error) => {
                refusal("subscription", &error, format!("check [source.{}]", source.name)).of(name)
            }
        });
    }
}
