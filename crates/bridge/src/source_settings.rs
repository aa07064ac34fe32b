//! From the checked configuration of a source to the poller's settings.

use std::sync::{Arc, PoisonError, RwLock};

use viaduct_poller as poller;

use crate::config::{self, SecretRef};
use crate::danger;

/// The settings of one source.
pub(crate) fn of(source: &config::Source) -> poller::SourceSettings {
    let auth = &source.auth;
    let session = &source.session;
    poller::SourceSettings {
        name: source.name.clone(),
        api_url: source.api_url.clone(),
        org_id: source.org_id.clone(),
        api: match source.api {
            config::Api::V2 => poller::ApiVersion::V2,
            config::Api::V3 => poller::ApiVersion::V3,
        },
        max_events: source.max_events,
        max_in_flight: source.max_in_flight,
        auth: poller::AuthSettings {
            token_url: auth.token_url.clone(),
            client_id: secret(&auth.client_id),
            client_secret: secret(&auth.client_secret),
            api_key: secret(&auth.api_key),
            scope: auth.scope.clone(),
            realm: auth.realm.clone(),
            realm_in: match auth.realm_in {
                config::RealmIn::Form => poller::RealmIn::Form,
                config::RealmIn::Query => poller::RealmIn::Query,
            },
            client_auth: match auth.client_auth {
                config::ClientAuth::Basic => poller::ClientAuth::Basic,
                config::ClientAuth::Post => poller::ClientAuth::Post,
            },
        },
        tls: poller::TlsSettings {
            ca_file: source.tls.ca_file.clone(),
            verifier: source.tls.accept_invalid_certificates.then(danger::accept_any),
        },
        session: poller::SessionSettings {
            inactivity_delay: session.inactivity_delay,
            resume: session.resume,
            on_shutdown: match session.on_shutdown {
                config::OnShutdown::Keep => poller::OnShutdown::Keep,
                config::OnShutdown::Delete => poller::OnShutdown::Delete,
            },
            poll_timeout: session.poll_timeout,
            properties: session.properties.clone(),
            end_events: session.end_events.clone(),
        },
        subscriptions: source.subscriptions.iter().map(subscription).collect(),
        prune: source.prune,
        retry: poller::RetrySettings { initial: source.retry.initial, max: source.retry.max },
    }
}

/// Read again whenever the poller asks, so that a rotated file takes effect.
fn secret(reference: &SecretRef) -> poller::Secret {
    let reference = reference.clone();
    poller::Secret::reader(move || reference.read().map_err(|error| error.to_string()))
}

/// Where the credentials of a source are. A reload of the configuration puts others in their place; the next token is
/// fetched with those.
#[derive(Debug, Clone)]
pub(crate) struct Credentials(Arc<RwLock<config::Auth>>);

impl Credentials {
    /// As `source` names them.
    pub(crate) fn of(source: &config::Source) -> Self {
        Self(Arc::new(RwLock::new(source.auth.clone())))
    }

    /// From now on as `source` names them.
    pub(crate) fn replace(&self, source: &config::Source) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = source.auth.clone();
    }

    /// Lets a poller read them here, each time.
    pub(crate) fn put_into(&self, auth: &mut poller::AuthSettings) {
        auth.client_id = self.secret(|auth| &auth.client_id);
        auth.client_secret = self.secret(|auth| &auth.client_secret);
        auth.api_key = self.secret(|auth| &auth.api_key);
    }

    fn secret(&self, which: fn(&config::Auth) -> &SecretRef) -> poller::Secret {
        let auth = self.0.clone();
        poller::Secret::reader(move || {
            let reference = which(&auth.read().unwrap_or_else(PoisonError::into_inner)).clone();
            reference.read().map_err(|error| error.to_string())
        })
    }
}

fn subscription(subscription: &config::Subscription) -> poller::Subscription {
    poller::Subscription {
        description: subscription.description.clone(),
        catalog_type: subscription.catalog_type.word().to_owned(),
        events: subscription.events.clone(),
        resource_type: subscription.resource_type.word().to_owned(),
        resource_ids: subscription.resource_ids.clone(),
    }
}
