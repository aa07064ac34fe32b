//! What has to be done so that a session has the declared subscriptions.
//!
//! Subscriptions belong to their session (vendor document, SubscriptionResponse), so every new session starts without.
//! They are matched by description: a missing one is created, a different one replaced with PUT, others are left alone,
//! or deleted where the source asks for that (`prune`).
//! The plan is made from a fresh list each time, so repeating it after a lost answer creates nothing twice.

use serde::{Deserialize, Deserializer, Serialize};

use crate::settings::Subscription;

/// A subscription that stands in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActualSubscription {
    /// The vendor's `subscriptionId`, unique within the session.
    pub id: String,
    /// What it says, in the form in which subscriptions are declared.
    pub subscription: Subscription,
}

/// One thing to do. The first two carry the index of the declared subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionChange {
    /// It is missing.
    Create(usize),
    /// The one with this id has its description and says something else.
    Update(usize, String),
    /// It is not declared, and the source prunes.
    Delete {
        /// Its id.
        id: String,
        /// Its description.
        description: String,
    },
}

impl SubscriptionChange {
    /// The index of the declared subscription that it is about.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        match self {
            Self::Create(index) | Self::Update(index, _) => Some(*index),
            Self::Delete { .. } => None,
        }
    }
}

/// What turns `actual` into `declared`, in the order of the declaration; deletions come last, so that nothing is missed
/// between two subscriptions of which one takes the other's place. Without `prune` there are none.
#[must_use]
pub fn plan_subscriptions(
    declared: &[Subscription],
    actual: &[ActualSubscription],
    prune: bool,
) -> Vec<SubscriptionChange> {
    let mut changes = Vec::new();
    let mut kept: Vec<&str> = Vec::new();
    for (index, wanted) in declared.iter().enumerate() {
        let same_name = || actual.iter().filter(|one| one.subscription.description == wanted.description);
        match same_name().find(|one| says_the_same(wanted, &one.subscription)) {
            Some(right) => kept.push(&right.id),
            None => match same_name().next() {
                Some(first) => {
                    kept.push(&first.id);
                    changes.push(SubscriptionChange::Update(index, first.id.clone()));
                }
                None => changes.push(SubscriptionChange::Create(index)),
            },
        }
    }
    if prune {
        let foreign = actual.iter().filter(|one| !kept.contains(&one.id.as_str()));
        changes.extend(foreign.map(|one| SubscriptionChange::Delete {
            id: one.id.clone(),
            description: one.subscription.description.clone(),
        }));
    }
    changes
}

/// Order does not matter, `["*"]` is the empty list, and with resource type `*` the ids are skipped (vendor document,
/// Resources).
fn says_the_same(wanted: &Subscription, actual: &Subscription) -> bool {
    let sorted = |list: &[String]| {
        let mut list: Vec<_> = list.iter().filter(|id| *id != "*").cloned().collect();
        list.sort_unstable();
        list.dedup();
        list
    };
    wanted.catalog_type == actual.catalog_type
        && sorted(&wanted.events) == sorted(&actual.events)
        && wanted.resource_type == actual.resource_type
        && (wanted.resource_type == "*" || sorted(&wanted.resource_ids) == sorted(&actual.resource_ids))
}

/// The vendor's form of a subscription.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Wire {
    #[serde(default, skip_serializing)]
    subscription_id: String,
    #[serde(default)]
    description: String,
    filter_criteria: FilterCriteria,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FilterCriteria {
    catalog_type: String,
    #[serde(default, deserialize_with = "one_or_many")]
    catalog_type_events: Vec<String>,
    resources: Resources,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resources {
    #[serde(default)]
    resource_type: String,
    #[serde(default, deserialize_with = "one_or_many")]
    resource_ids: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireList {
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) subscriptions: Vec<Wire>,
}

impl Wire {
    pub(crate) fn declared(subscription: &Subscription) -> Self {
        Self {
            subscription_id: String::new(),
            description: subscription.description.clone(),
            filter_criteria: FilterCriteria {
                catalog_type: subscription.catalog_type.clone(),
                catalog_type_events: subscription.events.clone(),
                resources: Resources {
                    resource_type: subscription.resource_type.clone(),
                    resource_ids: subscription.resource_ids.clone(),
                },
            },
        }
    }

    pub(crate) fn into_actual(self) -> ActualSubscription {
        let FilterCriteria { catalog_type, catalog_type_events, resources } = self.filter_criteria;
        ActualSubscription {
            id: self.subscription_id,
            subscription: Subscription {
                description: self.description,
                catalog_type,
                events: catalog_type_events,
                resource_type: resources.resource_type,
                resource_ids: resources.resource_ids,
            },
        }
    }
}

/// The document's example of Resources has a string where the schema has an array.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        Many(Vec<String>),
        One(String),
        Nothing(()),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::Many(many) => many,
        OneOrMany::One(one) => vec![one],
        OneOrMany::Nothing(()) => Vec::new(),
    })
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Wire>, D::Error> {
    Ok(Option::<Vec<Wire>>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(description: &str, events: &[&str], ids: &[&str]) -> Subscription {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Subscription {
            description: description.into(),
            catalog_type: "engagementCenterThirdParty".into(),
            events: owned(events),
            resource_type: "users".into(),
            resource_ids: owned(ids),
        }
    }

    fn actual(id: &str, subscription: Subscription) -> ActualSubscription {
        ActualSubscription { id: id.into(), subscription }
    }

    #[test]
    fn the_plan_creates_what_is_missing_and_changes_what_differs() {
        let declared = [
            subscription("a", &["Idle", "Wrap"], &[]),
            subscription("b", &["Idle"], &["u1"]),
            subscription("c", &["all"], &[]),
        ];
        let standing = [
            actual("s1", subscription("a", &["Wrap", "Idle"], &["*"])),
            actual("s2", subscription("b", &["Idle"], &["u1", "u2"])),
            actual("s3", subscription("somebody else's", &["all"], &[])),
        ];
        assert_eq!(
            plan_subscriptions(&declared, &standing, false),
            [SubscriptionChange::Update(1, "s2".into()), SubscriptionChange::Create(2)]
        );
        let deletion = |id: &str, description: &str| SubscriptionChange::Delete {
            id: id.into(),
            description: description.into(),
        };
        assert_eq!(
            plan_subscriptions(&declared, &standing, true)[2..],
            [deletion("s3", "somebody else's")],
            "what is not declared goes last"
        );
        let twice =
            [actual("s0", subscription("c", &["Idle"], &[])), actual("s4", subscription("c", &["all"], &[]))];
        assert_eq!(
            plan_subscriptions(&declared[2..], &twice, true),
            [deletion("s0", "c")],
            "of two with one name the right one stays"
        );
        assert_eq!(plan_subscriptions(&[], &standing, true).len(), 3);
    }

    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do() {
        let declared = [subscription("a", &["Idle"], &["u1"]), subscription("b", &["all"], &[])];
        let standing: Vec<_> =
            declared.iter().enumerate().map(|(n, one)| actual(&n.to_string(), one.clone())).collect();
        assert!(plan_subscriptions(&declared, &standing, true).is_empty());
        let mut any = subscription("a", &["Idle"], &["u9"]);
        any.resource_type = "*".into();
        let mut standing = any.clone();
        standing.resource_ids = vec![];
        assert!(plan_subscriptions(&[any], &[actual("1", standing)], true).is_empty());
    }

    #[test]
    fn the_documented_forms_are_read() {
        let text = r#"{"kind":"via#subscriptionsCollection","subscriptions":[{"kind":"via#subscription",
            "subscriptionId":"ab7dbcbc","description":"string","filterCriteria":{"catalogType":"changeNotification",
            "catalogTypeEvents":["user"],"resources":{"resourceType":"users","resourceIds":"2d890d0d2a6ac46"}},
            "creationTime":"1985-04-12T23:20:50.525Z"}]}"#;
        let list: WireList = serde_json::from_str(text).unwrap();
        let actual = list.subscriptions.into_iter().next().unwrap().into_actual();
        assert_eq!(
            (actual.id.as_str(), &*actual.subscription.resource_ids),
            ("ab7dbcbc", &["2d890d0d2a6ac46".to_owned()][..])
        );
        let none: WireList = serde_json::from_str(r#"{"subscriptions":null}"#).unwrap();
        assert!(none.subscriptions.is_empty());
        let sent = serde_json::to_string(&Wire::declared(&subscription("d", &["Idle"], &[]))).unwrap();
        assert_eq!(
            sent,
            r#"{"description":"d","filterCriteria":{"catalogType":"engagementCenterThirdParty","catalogTypeEvents":["Idle"],"resources":{"resourceType":"users","resourceIds":[]}}}"#
        );
    }
}
