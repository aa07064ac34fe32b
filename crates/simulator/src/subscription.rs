//! Subscriptions: what may be subscribed to. Vendor document, schemas Subscription, FilterCriteria and Resources.

use serde_json::{Map, Value, json};

use crate::clock;
use crate::settings::CatalogType;

/// A subscription that was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    description: String,
    filter_criteria: Value,
    created_ms: u64,
    modified_ms: u64,
}

impl Subscription {
    /// Reads a request body.
    ///
    /// # Errors
    /// What is wrong with it, for the answer with 400.
    pub(crate) fn read(body: &[u8], enabled: &[CatalogType], now_ms: u64) -> Result<Self, String> {
        let body: Value = serde_json::from_slice(body).map_err(|_| "the body is not JSON".to_owned())?;
        let body = body.as_object().ok_or("the body is not an object")?;
        let description = match body.get("description") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(_) => return Err("description is not a string".to_owned()),
        };
        let criteria =
            body.get("filterCriteria").and_then(Value::as_object).ok_or("filterCriteria is missing")?;
        check(criteria, enabled)?;
        let filter_criteria = Value::Object(criteria.clone());
        Ok(Self { description, filter_criteria, created_ms: now_ms, modified_ms: now_ms })
    }

    /// Puts this one in the place of an older one.
    pub(crate) fn replace(self, older: &Self) -> Self {
        Self { created_ms: older.created_ms, ..self }
    }

    /// As the API shows it.
    pub(crate) fn as_json(&self, id: &str) -> Value {
        json!({
            "kind": "via#subscription",
            "subscriptionId": id,
            "description": self.description,
            "filterCriteria": self.filter_criteria,
            "creationTime": clock::iso8601(self.created_ms),
            "lastModifiedTime": clock::iso8601(self.modified_ms),
        })
    }
}

fn check(criteria: &Map<String, Value>, enabled: &[CatalogType]) -> Result<(), String> {
    let catalog_type = criteria.get("catalogType").and_then(Value::as_str).ok_or("catalogType is missing")?;
    let catalog_type: CatalogType = catalog_type.parse().map_err(|error| format!("catalogType {error}"))?;
    if !enabled.contains(&catalog_type) {
        return Err(format!("catalogType {catalog_type} is not enabled for this organization"));
    }
    let events =
        criteria.get("catalogTypeEvents").and_then(Value::as_array).ok_or("catalogTypeEvents is missing")?;
    if events.is_empty() {
        return Err("catalogTypeEvents names no event".to_owned());
    }
    for event in events {
        let event = event.as_str().ok_or("catalogTypeEvents holds something that is no string")?;
        if event != "all" && !is_event_of(catalog_type, event) {
            return Err(format!("catalogTypeEvents: {event:?} is no event of {catalog_type}"));
        }
    }
    let resources = criteria.get("resources").and_then(Value::as_object).ok_or("resources is missing")?;
    let resource_type =
        resources.get("resourceType").and_then(Value::as_str).ok_or("resourceType is missing")?;
    match (resource_type, catalog_type) {
        ("*", _) => return Ok(()),
        ("users", _) | ("teams", CatalogType::ChangeNotification) => {}
        _ => return Err(format!("resourceType {resource_type:?} is not one of {catalog_type}")),
    }
    // The schema says a list; its example is a single string.
    match resources.get("resourceIds") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(ids)) if ids.iter().all(Value::is_string) => Ok(()),
        _ => Err("resourceIds is not a list of strings".to_owned()),
    }
}

fn is_event_of(catalog_type: CatalogType, event: &str) -> bool {
    match catalog_type {
        CatalogType::ChangeNotification => viaduct_catalogue::CHANGE_NOTIFICATION_EVENTS.contains(&event),
        CatalogType::EngagementCenterThirdParty => {
            viaduct_catalogue::third_party_events().any(|name| name == event)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CatalogType; 2] = [CatalogType::ChangeNotification, CatalogType::EngagementCenterThirdParty];

    fn read(
        catalog_type: &str,
        events: Value,
        resource_type: &str,
        enabled: &[CatalogType],
    ) -> Result<(), String> {
        let body = json!({"description": "d", "filterCriteria": {
            "catalogType": catalog_type, "catalogTypeEvents": events,
            "resources": {"resourceType": resource_type, "resourceIds": ["1"]}}});
        Subscription::read(body.to_string().as_bytes(), enabled, 0).map(drop)
    }

    #[test]
    fn what_the_document_allows_is_accepted_and_nothing_else() {
        let third_party = "engagementCenterThirdParty";
        assert_eq!(read(third_party, json!(["ScreenPop", "Idle"]), "users", &ALL), Ok(()));
        assert_eq!(read(third_party, json!(["all"]), "*", &ALL), Ok(()));
        assert_eq!(read("changeNotification", json!(["user", "team"]), "teams", &ALL), Ok(()));
        let refused = |result: Result<(), String>, why: &str| {
            assert!(result.clone().is_err_and(|error| error.contains(why)), "{result:?}");
        };
        refused(read("other", json!(["all"]), "users", &ALL), "is not one of changeNotification");
        refused(read(third_party, json!(["all"]), "users", &ALL[..1]), "is not enabled");
        refused(read(third_party, json!([]), "users", &ALL), "names no event");
        refused(read(third_party, json!(["Nothing"]), "users", &ALL), "is no event of");
        refused(read(third_party, json!(["MultiTaskingStatus"]), "users", &ALL), "is no event of");
        refused(read(third_party, json!(["all"]), "teams", &ALL), "is not one of engagementCenterThirdParty");
        refused(read("changeNotification", json!(["user"]), "skills", &ALL), "is not one of");
        assert!(Subscription::read(b"{}", &ALL, 0).is_err_and(|error| error.contains("filterCriteria")));
        assert!(Subscription::read(b"<", &ALL, 0).is_err_and(|error| error.contains("not JSON")));
    }
}
