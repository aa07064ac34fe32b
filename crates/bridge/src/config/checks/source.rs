//! `[source.*]`.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::super::checked::{
    Api, Auth, Backoff, CatalogType, ClientAuth, KEEP_ALIVE_SLOTS, OnShutdown, RealmIn, ResourceType,
    Session, Source, Subscription, Validate,
};
use super::super::field::{Field, Named};
use super::super::mistake::closest;
use super::super::raw;
use super::super::reader::label;
use super::super::tree::Origin;
use super::super::units::duration_text;
use super::{Checks, Section};

/// How much longer than `poll_timeout` the client waits for the answer of a GET.
const POLL_MARGIN: Duration = Duration::from_secs(10);

impl Checks<'_> {
    /// Every source.
    pub(super) fn sources(&mut self, raw: &Field<Named<raw::Source>>, root: Origin) -> Option<Vec<Source>> {
        let (at, named) = match raw {
            Field::Given(given) => (given.at, given.value.0.as_slice()),
            Field::Absent => (root, [].as_slice()),
            Field::Wrong => return None,
        };
        if named.is_empty() {
            self.missing(at, "a source", "add [source.main]; `viaduct init` writes an example");
            return None;
        }
        let sources: Vec<_> = named.iter().map(|(name, source)| self.source(name, source)).collect();
        sources.into_iter().collect()
    }

    fn source(&mut self, name: &str, raw: &Field<raw::Source>) -> Option<Source> {
        let given = raw.given()?;
        let raw = &given.value;
        let path = format!("source.{name}");
        let section = Section::new(label(&path), given.at);
        let named = self.name(name, given.at, "a source");

        let api_url =
            self.http_url(&raw.api_url, "api_url", &section, "\"https://<org>.via.aspect-cloud.net\"");
        if let Some(url) = &api_url
            && url.value.path() != "/"
        {
            let message = format!("`api_url` in {} has a path", section.label);
            self.wrong(url.at, message, "keep scheme and host only; the paths of the API are added");
        }
        let org_id = self.text(&raw.org_id, "org_id", &section, "\"<your organisation>\"");
        let org_id = org_id.filter(|org_id| {
            let plain = !org_id.value.contains(|c: char| c.is_whitespace() || "/?#%".contains(c));
            if !plain {
                let message =
                    format!("`org_id` in {} contains a character that no organisation has", section.label);
                self.wrong(org_id.at, message, "write the id alone, as in org_id = \"acme\"");
            }
            plain
        });
        let org_id = org_id.map(|org_id| org_id.value.clone());
        let source_uri = match raw.source_uri.given() {
            Some(uri) if uri.value.contains(char::is_whitespace) => {
                let message = format!("`source_uri` in {} contains white space", section.label);
                self.wrong(uri.at, message, "write a URI, as in source_uri = \"via://acme\"");
                None
            }
            _ => {
                let default = org_id.as_ref().map(|org_id| format!("via://{org_id}")).unwrap_or_default();
                self.text_or(&raw.source_uri, "source_uri", &section, &default)
            }
        };
        let api = raw.api.or(Api::V3);
        let max_events = self.number(&raw.max_events, "max_events", &section, 200, 1..=200);
        let least = max_events.unwrap_or(200) + KEEP_ALIVE_SLOTS as i64;
        let max_in_flight =
            self.number(&raw.max_in_flight, "max_in_flight", &section, 2000, least..=1_000_000);

        let auth = self.auth(&raw.auth, &path, given.at);
        let tls = self.vendor_tls(raw, &section);
        let session = self.session(&raw.session, &path, api);
        let subscriptions = self.subscriptions(&raw.subscription, &path);
        let retry = self.retry(&raw.retry, &path);
        Some(Source {
            name: named?,
            api_url: api_url?.value,
            org_id: org_id?,
            api: api?,
            max_events: u16::try_from(max_events?).ok()?,
            max_in_flight: usize::try_from(max_in_flight?).ok()?,
            source_uri: source_uri?,
            auth: auth?,
            tls: tls?,
            session: session?,
            subscriptions: subscriptions?,
            prune: raw.prune.or(false)?,
            validate: raw.validate.or(Validate::Off)?,
            retry: retry?,
        })
    }

    fn auth(&mut self, raw: &Field<raw::Auth>, source: &str, at: Origin) -> Option<Auth> {
        let section = label(&format!("{source}.auth"));
        let Some(given) = raw.given() else {
            if matches!(raw, Field::Absent) {
                let hint = "add it with token_url, client_id, client_secret and api_key";
                self.missing(at, &section, hint);
            }
            return None;
        };
        let (raw, section) = (&given.value, Section::new(section, given.at));
        let example = "\"https://myaspect.id.aspect-cloud.net/tokenservice/oauth2/access_token\"";
        let token_url = self.http_url(&raw.token_url, "token_url", &section, example);
        let client_id = self.secret(&raw.client_id, "client_id", &section);
        let client_secret = self.secret(&raw.client_secret, "client_secret", &section);
        let api_key = self.secret(&raw.api_key, "api_key", &section);
        let scope = self.text_or(&raw.scope, "scope", &section, "streamingapi");
        let realm = match &raw.realm {
            Field::Absent => Some(None),
            realm => self.text(realm, "realm", &section, "\"acme\"").map(|realm| Some(realm.value.clone())),
        };
        if let (Field::Given(place), Field::Absent) = (&raw.realm_in, &raw.realm) {
            let message = format!("`realm_in` in {} has no effect without `realm`", section.label);
            self.warn(place.at, message, "add realm, or remove realm_in");
        }
        let realm_in = raw.realm_in.or(RealmIn::Form);
        let client_auth = raw.client_auth.or(ClientAuth::Basic);
        Some(Auth {
            token_url: token_url?.value,
            client_id: client_id?,
            client_secret: client_secret?,
            api_key: api_key?,
            scope: scope?,
            realm: realm?,
            realm_in: realm_in?,
            client_auth: client_auth?,
        })
    }

    fn session(&mut self, raw: &Field<raw::Session>, source: &str, api: Option<Api>) -> Option<Session> {
        let second = Duration::from_secs(1);
        let (raw, section) = self.section(raw, &label(&format!("{source}.session")))?;
        let inactivity_delay = self.duration(
            &raw.inactivity_delay,
            "inactivity_delay",
            &section,
            120 * second,
            60 * second..=600 * second,
        );
        let poll_timeout =
            self.duration(&raw.poll_timeout, "poll_timeout", &section, 15 * second, second..=120 * second);
        if let (Some(delay), Some(poll)) = (inactivity_delay, poll_timeout)
            && poll + POLL_MARGIN >= delay
        {
            let at = if raw.poll_timeout.given().is_some() { raw.poll_timeout.at() } else { section.at };
            let message = format!(
                "`poll_timeout` in {} must stay {} below `inactivity_delay`: the session would expire during a poll",
                section.label,
                duration_text(POLL_MARGIN),
            );
            self.wrong(at, message, "write poll_timeout = \"15s\", which is what the vendor holds a GET for");
        }
        let end_events = self.texts(&raw.end_events, "end_events", &section);
        let properties = self.session_properties(&raw, &section, api);
        Some(Session {
            inactivity_delay: inactivity_delay?,
            resume: raw.resume.or(true)?,
            on_shutdown: raw.on_shutdown.or(OnShutdown::Keep)?,
            poll_timeout: poll_timeout?,
            properties: properties?,
            end_events: end_events?.into_iter().map(|event| event.value).collect(),
        })
    }

    fn session_properties(
        &mut self,
        raw: &raw::Session,
        section: &Section,
        api: Option<Api>,
    ) -> Option<BTreeMap<String, String>> {
        let properties = raw.properties.or(BTreeMap::new())?;
        if api == Some(Api::V3) && !properties.is_empty() {
            let message = format!("`properties` in {} exist for v2 sessions only", section.label);
            self.wrong(raw.properties.at(), message, "remove them, or write api = \"v2\"");
        }
        if let Some(delay) = properties.get("inactivityDelay") {
            let message = format!("`properties` in {} must not contain `inactivityDelay`", section.label);
            self.wrong(delay.at(), message, "use the key inactivity_delay");
        }
        properties.iter().map(|(name, value)| Some((name.clone(), value.given()?.value.clone()))).collect()
    }

    fn subscriptions(
        &mut self,
        raw: &Field<Vec<Field<raw::Subscription>>>,
        source: &str,
    ) -> Option<Vec<Subscription>> {
        let items = match raw {
            Field::Absent => return Some(Vec::new()),
            Field::Wrong => return None,
            Field::Given(given) => &given.value,
        };
        let mut seen = HashSet::new();
        let subscriptions: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let given = item.given()?;
                let section = Section::new(label(&format!("{source}.subscription#{}", index + 1)), given.at);
                if let Some(description) = given.value.description.given()
                    && !seen.insert(description.value.clone())
                {
                    let message = format!("`description` in {} is used twice", section.label);
                    self.wrong(description.at, message, "subscriptions are matched by it: give each its own");
                }
                self.subscription(&given.value, &section)
            })
            .collect();
        subscriptions.into_iter().collect()
    }

    fn subscription(&mut self, raw: &raw::Subscription, section: &Section) -> Option<Subscription> {
        let description = self.text(&raw.description, "description", section, "\"third party events\"");
        let example = "\"engagementCenterThirdParty\" or \"changeNotification\"";
        let catalog_type =
            self.need(&raw.catalog_type, "catalog_type", section, example).map(|given| given.value);
        self.need(&raw.events, "events", section, "[\"all\"]");
        let events = self.texts(&raw.events, "events", section);
        if let (Some(list), Some(events)) = (raw.events.given(), &events) {
            if events.is_empty() {
                self.wrong(
                    list.at,
                    format!("`events` in {} is empty", section.label),
                    "write events = [\"all\"]",
                );
            }
            if let Some(catalog) = catalog_type {
                let known = catalogue(catalog);
                for event in events.iter().filter(|event| !known.contains(&event.value.as_str())) {
                    let hint = match closest(&event.value, known.iter().copied()) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => format!("write \"all\", or names such as \"{}\"", known[1]),
                    };
                    let message =
                        format!("`events` in {} names an event that its catalogue lacks", section.label);
                    self.warn(event.at, message, hint);
                }
            }
        }
        let resource_type = raw.resource_type.or(ResourceType::Any);
        if let (Some(CatalogType::EngagementCenterThirdParty), Some(ResourceType::Teams)) =
            (catalog_type, resource_type)
        {
            let message = format!("`resource_type` in {} cannot be teams for this catalogue", section.label);
            self.wrong(raw.resource_type.at(), message, "write resource_type = \"users\"");
        }
        let resource_ids = self.texts(&raw.resource_ids, "resource_ids", section);
        if resource_type == Some(ResourceType::Any)
            && resource_ids.as_ref().is_some_and(|ids| !ids.is_empty())
        {
            let message =
                format!("`resource_ids` in {} are ignored by the vendor for every resource", section.label);
            self.warn(raw.resource_ids.at(), message, "write resource_type = \"users\" or \"teams\"");
        }
        Some(Subscription {
            description: description?.value.clone(),
            catalog_type: catalog_type?,
            events: events?.into_iter().map(|event| event.value).collect(),
            resource_type: resource_type?,
            resource_ids: resource_ids?.into_iter().map(|id| id.value).collect(),
        })
    }

    fn retry(&mut self, raw: &Field<raw::Retry>, source: &str) -> Option<Backoff> {
        let (raw, section) = self.section(raw, &label(&format!("{source}.retry")))?;
        let (milli, minute) = (Duration::from_millis(1), Duration::from_secs(60));
        let initial = self.duration(&raw.initial, "initial", &section, 200 * milli, 10 * milli..=minute);
        let max = self.duration(&raw.max, "max", &section, 30_000 * milli, 10 * milli..=10 * minute);
        let (initial, max) = (initial?, max?);
        if initial > max {
            let at = if raw.max.given().is_some() { raw.max.at() } else { raw.initial.at() };
            self.wrong(at, format!("`max` in {} is below `initial`", section.label), "write max = \"30s\"");
            return None;
        }
        Some(Backoff { initial, max })
    }
}

/// The vendor's names of the events in a catalogue (vendor document, "FilterCriteria"); `all` first.
fn catalogue(catalog: CatalogType) -> Vec<&'static str> {
    let mut names = vec!["all"];
    match catalog {
        CatalogType::ChangeNotification => names.extend(viaduct_catalogue::CHANGE_NOTIFICATION_EVENTS),
        CatalogType::EngagementCenterThirdParty => names.extend(viaduct_catalogue::third_party_events()),
    }
    names
}
