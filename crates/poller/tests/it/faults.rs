//! The vendor misbehaves; the poller does not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use viaduct_poller::{
    ApiVersion, Finished, NoObserver, PollerError, SavedSession, SessionStore, VendorClient,
};
use viaduct_simulator::{CatalogType, Rate, Redelivery, Settings};

use crate::bench::{
    Polling, SharedStore, at_once, settings, simulated, start, subscription, until, until_acknowledged,
};

/// Faults of every kind at 5 % of every operation. The token endpoint starts with success: a "no" to the very first
/// request ends a poller.
const FAULTS: &str = "*:500:2% *:503:1% *:429:0.5% *:429+retry-after=1:0.1% *:reset-before:1% *:reset-after:1% \
                      *:html:0.5% *:401:0.5% events:cut:1% events:invalid-json:1% events:session-expiry:0.3% \
                      events:unknown-fields:3% events:unknown-type:1% events:unicode:3% events:malformed:1%";

async fn survives_faults(redelivery: Redelivery) {
    let simulator = start(Settings { redelivery, ..simulated(5000) }).await;
    let mut settings = settings(&simulator);
    settings.subscriptions = vec![subscription("changes", "changeNotification", &["all"])];
    settings.max_events = 20;
    let polling = Polling::start(settings);
    let control = simulator.control();
    until("the first events", || polling.received() > 0).await;
    control.set_faults(FAULTS.parse().unwrap());
    until("all events", || {
        let report = control.report();
        report.emitted >= 5000 && report.unacknowledged == 0 && report.queued == 0
    })
    .await;
    control.set_faults("".parse().unwrap());
    let (ids, malformed) = (polling.ids(), polling.seen.lock().unwrap().malformed.len());
    assert_eq!(polling.stop().await.unwrap(), Finished::Stopped { unacknowledged: 0 });
    let report = simulator.stop().await;
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
    assert!(report.faults.values().sum::<u64>() > 30, "{:?}", report.faults);
    let unique: HashSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "an identity was handed out twice");
    assert!(unique.len() + malformed >= 5000, "{} {malformed}", unique.len());
}

#[tokio::test]
async fn five_percent_of_everything() {
    survives_faults(Redelivery::PerSessionNewThenPending).await;
}

#[tokio::test]
async fn five_percent_of_everything_from_the_head() {
    survives_faults(Redelivery::FromHead).await;
}

/// The simulator notes every call of the client before the time is over, whatever the call.
#[tokio::test]
async fn retry_after_is_kept_in_seconds_and_as_a_date() {
    for fault in ["retry-after=1", "retry-after-date=2"] {
        let simulator = start(simulated(500)).await;
        let control = simulator.control();
        control.set_faults(
            format!("events:429+{fault}:@3 acknowledge:503+{fault}:@3 session_create:429+{fault}:@1")
                .parse()
                .unwrap(),
        );
        let polling = Polling::start(settings(&simulator));
        until_acknowledged(&simulator, 500).await;
        polling.stop().await.unwrap();
        let report = simulator.stop().await;
        assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
        assert_eq!(report.faults.values().sum::<u64>(), 3, "{:?}", report.faults);
    }
}

#[tokio::test]
async fn tokens_end_and_are_revoked_without_a_gap() {
    let simulator = start(Settings {
        token_ttl: Duration::from_secs(1),
        rate: Rate::PerSecond(500.0),
        ..simulated(1500)
    })
    .await;
    let polling = Polling::start(settings(&simulator));
    let control = simulator.control();
    until("progress", || polling.received() > 300).await;
    control.revoke_tokens();
    until_acknowledged(&simulator, 1500).await;
    assert!(polling.counts.get("TokenRefreshed") >= 3);
    polling.stop().await.unwrap();
    let report = simulator.stop().await;
    // Refreshed ahead of its end, a token is refused only where it was revoked.
    assert!(
        report.answered("events", "401") + report.answered("acknowledge", "401") <= 3,
        "{:?}",
        report.requests
    );
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
}

#[tokio::test]
async fn refused_credentials_end_the_start() {
    let simulator = start(Settings { client_secret: Some("another".to_owned()), ..simulated(1) }).await;
    let polling = Polling::start(settings(&simulator));
    let error = polling.end().await.unwrap_err();
    assert!(matches!(&error, PollerError::CredentialsRefused(_)), "{error}");
    assert!(!format!("{error} {error:?}").contains("canary"));
}

#[tokio::test]
async fn credentials_that_are_refused_later_are_waited_for() {
    let simulator = start(simulated(100)).await;
    let polling = Polling::start(settings(&simulator));
    let control = simulator.control();
    until_acknowledged(&simulator, 100).await;
    control.set_faults("token:401:100%".parse().unwrap());
    control.revoke_tokens();
    until("a reason", || {
        polling
            .status
            .borrow()
            .reason
            .as_ref()
            .is_some_and(|reason| reason.contains("refuses the credentials"))
    })
    .await;
    assert!(!polling.status.borrow().session_up || polling.status.borrow().reason.is_some());
    control.set_faults("".parse().unwrap());
    control.emit(50);
    until_acknowledged(&simulator, 150).await;
    assert_eq!(polling.status.borrow().reason, None);
    polling.stop().await.unwrap();
}

#[tokio::test]
async fn a_subscription_that_is_not_enabled_does_not_hold_back_events() {
    let simulator =
        start(Settings { catalog_types: vec![CatalogType::ChangeNotification], ..simulated(200) }).await;
    let mut settings = settings(&simulator);
    settings.subscriptions = vec![
        subscription("third party", "engagementCenterThirdParty", &["all"]),
        subscription("changes", "changeNotification", &["all"]),
    ];
    let polling = Polling::start(settings);
    until_acknowledged(&simulator, 200).await;
    let status = polling.status.borrow().clone();
    assert!(status.session_up);
    assert!(status.reason.as_ref().unwrap().contains("third party"), "{:?}", status.reason);
    polling.stop().await.unwrap();
    assert_eq!(simulator.stop().await.sessions[0].subscriptions.len(), 1);
}

/// A source that prunes takes over a session with somebody else's subscription in it.
#[tokio::test]
async fn what_is_not_declared_is_deleted_from_a_resumed_session() {
    let simulator = start(simulated(100)).await;
    let mut settings = settings(&simulator);
    settings.subscriptions = vec![subscription("mine", "changeNotification", &["all"])];
    let client = VendorClient::new(settings.clone(), Arc::new(NoObserver)).unwrap();
    let access = client.token_provider().fetch().await.unwrap();
    let session = client.create_session(&access).await.unwrap();
    let foreign = subscription("somebody else's", "changeNotification", &["user"]);
    client.create_subscription(&access, &session.id, &foreign).await.unwrap();
    let mut store = SharedStore::default();
    store
        .save(&SavedSession {
            session_id: session.id.clone(),
            inactivity_delay_s: 60,
            created_at_ms: 0,
            api: ApiVersion::V3,
        })
        .unwrap();
    settings.prune = true;
    let polling = Polling::with(settings, store, None, at_once());
    until_acknowledged(&simulator, 100).await;
    let standing = client.list_subscriptions(&access, &session.id).await.unwrap();
    let names: Vec<_> = standing.iter().map(|one| one.subscription.description.as_str()).collect();
    assert_eq!(names, ["mine"]);
    polling.stop().await.unwrap();
    assert_eq!(simulator.stop().await.sessions_created, 1);
}

/// One broken entry among good ones: the good ones flow, the broken one is handed out as such, all are acknowledged.
#[tokio::test]
async fn malformed_entries_are_isolated_and_acknowledged() {
    let simulator = start(simulated(0)).await;
    let control = simulator.control();
    control.emit(10);
    control.emit_raw(r#"{"eventId":"bad-1","payload":"{}"}"#).unwrap();
    control
        .emit_raw(r#"{"eventId":"odd-1","eventType":"new.Thing","payload":17,"future":{"a":[1]}}"#)
        .unwrap();
    control.emit(10);
    let polling = Polling::start(settings(&simulator));
    until("all", || control.report().acknowledged >= 22).await;
    assert_eq!(polling.received(), 21);
    assert!(polling.ids().contains(&"odd-1".to_owned()));
    let malformed = polling.seen.lock().unwrap().malformed.clone();
    assert_eq!(malformed, [(Some("bad-1".to_owned()), "eventType is missing".to_owned())]);
    polling.stop().await.unwrap();
    assert!(simulator.stop().await.misbehaviour.is_empty());
}

/// An entry without an id can never be acknowledged, so the vendor repeats it for ever.
#[tokio::test]
async fn an_event_without_an_id_is_handed_out_once_and_holds_nothing_up() {
    for redelivery in [Redelivery::FromHead, Redelivery::PerSessionNewThenPending] {
        let simulator = start(Settings { redelivery, ..simulated(0) }).await;
        let control = simulator.control();
        control.emit_raw(r#"{"eventType":"a.B","payload":"{}"}"#).unwrap();
        control.emit(100);
        let polling = Polling::start(settings(&simulator));
        until("the others", || polling.received() == 100).await;
        until("their acknowledgement", || control.report().acknowledged >= 100).await;
        let before = control.report().answered("events", "200");
        let at = std::time::Instant::now();
        until("repetitions", || control.report().answered("events", "200") >= before + 5).await;
        assert!(at.elapsed() > Duration::from_millis(100), "a tight loop: {:?}", at.elapsed());
        assert_eq!(polling.seen.lock().unwrap().malformed.len(), 1);
        polling.stop().await.unwrap();
        assert!(simulator.stop().await.misbehaviour.is_empty());
    }
}
