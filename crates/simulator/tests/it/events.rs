//! What GET /events returns when nothing goes wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use viaduct_simulator::{EmptyPoll, Rate, Settings, Types, event_types, payload_hash};

use crate::client::{World, endless, eventually, ids, order, quiet};

/// The vendor document's "Event List", copied by hand.
const DOCUMENTED: &str = "
engagementCenter: AcceptCallTimeout ActivateInteraction Active AdvanceFeature AgentStatistics AudioPathConnection
    CallReRouted ClientSessionKeepAlive Conference ConnectConfirm Connected Connecting Consult ConsultInitiated Dialing
    DialInitiated Disconnected DisconnectPending DispositionInitiated EmailRemoved Error Held Idle InteractionClear
    InteractionTransferred InteractionReleasedXferred MessageStatus MonitorState MultiTaskingStatus NewTeam NewVoiceMail
    NewWorkType NotReady NotReadyPending Park PhoneFoul PhoneOffhook PhoneReconnect PreviewScreenPop ReassignEmailAck
    RecordingState RemoveTeam RemoveWorkType ScreenPop SystemAvailable SystemStandby SystemUnavailable TelephonyAvailable
    TelephonyUnavailable UpdateAgentStatusReason UpdateDisposition UpdateDispositionPlan UpdateTeam UpdateWorkType
    VoiceLock VoiceUnlock Wrap WrapTimeout
outreach: disposition status automationScriptStatus
messaging: EntityAdded EntityDialRequest EntityList EntityPushURL EntityRemoved EntitySendText";

fn documented() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut category = "";
    for word in DOCUMENTED.split_whitespace() {
        match word.strip_suffix(':') {
            Some(name) => category = name,
            None => assert!(names.insert(format!("{category}.{word}"))),
        }
    }
    names
}

#[tokio::test]
async fn every_documented_type_comes_in_its_documented_shape() {
    assert_eq!(documented().len(), 67);
    assert_eq!(event_types().map(str::to_owned).collect::<BTreeSet<_>>(), documented());

    let world = World::new(Settings { total: Some(20_000), ..endless() }).await;
    let session = world.session().await;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut last = (0, 0);
    let mut interactions: HashMap<u64, usize> = HashMap::new();
    loop {
        let events = world.get(&session, 200).await;
        if events.is_empty() {
            break;
        }
        for event in &events {
            let id = order(event["eventId"].as_str().unwrap());
            assert!(id > last, "ids go up");
            last = id;
            let event_type = event["eventType"].as_str().unwrap();
            let category = event_type.split('.').next().unwrap();
            assert_eq!(event["kind"], format!("via#{category}Event"));
            assert_eq!(event["schemaVersion"], "1");
            assert_eq!(event["publishedTime"].as_str().unwrap().len(), 24);
            assert_eq!(event["correlationId"].as_str().unwrap().len(), 36);
            assert_eq!(event.as_object().unwrap().len(), 7);
            let payload: Value = serde_json::from_str(event["payload"].as_str().unwrap()).unwrap();
            if let Some(interaction) = payload["payload"]["interactionId"].as_u64().filter(|id| *id > 0) {
                *interactions.entry(interaction).or_default() += 1;
                let rev = &payload["payload"]["interactionIdRev"];
                let rev = rev.as_u64().or_else(|| rev.as_str()?.parse().ok());
                assert_eq!(rev, Some(interaction), "{payload}");
            }
            *seen.entry(event_type.to_owned()).or_default() += 1;
        }
        world.acknowledge(&session, &ids(&events)).await;
    }
    assert_eq!(seen.keys().cloned().collect::<BTreeSet<_>>(), documented());
    assert!(interactions.values().any(|count| *count > 5), "an interaction has several events");

    let report = world.report();
    assert_eq!((report.emitted, report.delivered, report.acknowledged), (20_000, 20_000, 20_000));
    assert_eq!((report.redelivered, report.unacknowledged, report.queued, report.lost), (0, 0, 0, 0));
    assert_eq!(report.waiting, Some(0));
    assert_eq!(report.categories.keys().collect::<Vec<_>>(), ["engagementCenter", "messaging", "outreach"]);
    assert_eq!(report.categories.values().map(|category| category.acknowledged).sum::<u64>(), 20_000);
    assert!(report.misbehaviour.is_empty());
}

#[tokio::test]
async fn the_journal_knows_each_event_by_id_key_and_content() {
    let world = World::new(Settings { total: Some(500), keep_entries: true, ..endless() }).await;
    let session = world.session().await;
    let mut given = Vec::new();
    while given.len() < 500 {
        given.extend(world.get(&session, 100).await);
    }
    world.acknowledge(&session, &ids(&given[..10])).await;
    let journal = world.simulator.control().events(0, usize::MAX);
    assert_eq!(journal.len(), 500);
    for (index, (row, event)) in journal.iter().zip(&given).enumerate() {
        assert_eq!(row.event_id.as_deref(), event["eventId"].as_str());
        assert_eq!(row.event_type, event["eventType"]);
        let payload = event["payload"].as_str().unwrap();
        assert_eq!(row.payload_hash, payload_hash(payload));
        assert_eq!(serde_json::from_str::<Value>(row.entry.as_ref().unwrap()).unwrap(), *event);
        let payload: Value = serde_json::from_str(payload).unwrap();
        let field = |name: &str| payload["payload"].get(name).or(payload.get(name)).cloned();
        let text = |name: &str| field(name).and_then(|value| value.as_str().map(str::to_owned));
        assert_eq!(row.user_id, text("userId"));
        assert_eq!(row.session_id, text("sessionId"));
        let interaction =
            field("interactionId").and_then(|id| id.as_u64().or_else(|| id.as_str()?.parse().ok()));
        assert_eq!(row.interaction_id, interaction.filter(|id| *id != 0));
        assert_eq!(row.first_delivery.unwrap().order as usize, index + 1);
        assert_eq!(row.state, if index < 10 { "acknowledged" } else { "pending" });
        assert_eq!(row.acknowledged.map(|moment| moment.order as usize), (index < 10).then_some(index + 1));
    }
}

#[tokio::test]
async fn v2_has_its_own_shape_and_no_acknowledgement() {
    let world = World::new(Settings { total: Some(30), ..endless() }).await;
    let session = world.create(2, json!([])).await["sessionId"].as_str().unwrap().to_owned();
    let get = async |max: usize| -> Vec<Value> {
        let path = format!("events?maxEvents={max}");
        let response = world.in_session(Method::GET, 2, &path, &session).send().await.unwrap();
        response.json::<Value>().await.unwrap()["events"].as_array().unwrap().clone()
    };
    let events = get(20).await;
    for event in &events {
        let keys: Vec<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["id", "kind", "payload", "publishedTime", "schemaVersion", "type"]);
        assert!(documented().contains(event["type"].as_str().unwrap()));
    }
    assert_eq!(get(200).await.len(), 10);
    assert_eq!(get(200).await.len(), 0, "what was given is gone");
    let report = world.report();
    assert_eq!((report.delivered, report.consumed, report.unacknowledged), (30, 30, 0));
}

#[tokio::test]
async fn a_poll_waits_for_an_event_and_wakes_up() {
    let world = World::new(Settings { hold: Duration::from_secs(10), ..quiet() }).await;
    let session = world.session().await;
    let started = Instant::now();
    let emit = async {
        eventually("a poll", || world.report().sessions[0].gets == 1).await;
        world.simulator.control().emit(3);
    };
    let (events, ()) = tokio::join!(world.get(&session, 200), emit);
    assert_eq!(events.len(), 3);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_poll_in_vain_ends_with_an_empty_list_or_204() {
    let world = World::new(quiet()).await;
    let session = world.session().await;
    let started = Instant::now();
    assert_eq!(world.get(&session, 200).await, Vec::<Value>::new());
    assert!(started.elapsed() >= Duration::from_millis(200));

    let world = World::new(Settings { empty_poll: EmptyPoll::NoContent, ..quiet() }).await;
    let session = world.session().await;
    assert_eq!(world.try_get(&session, 200).await.unwrap().status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn events_arise_at_their_rate_with_the_time_they_arose() {
    let settings = Settings { rate: Rate::PerSecond(200.0), burst: 10, total: Some(60), ..endless() };
    let started = Instant::now();
    let world = World::new(settings).await;
    let session = world.session().await;
    let mut times = Vec::new();
    while times.len() < 60 {
        let events = world.get(&session, 200).await;
        times.extend(events.iter().map(|event| event["publishedTime"].as_str().unwrap().to_owned()));
        world.acknowledge(&session, &ids(&events)).await;
    }
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    assert!(times.is_sorted());
    times.dedup();
    assert_eq!(times.len(), 6, "six bursts of ten: {times:?}");
}

#[tokio::test]
async fn same_seed_same_events() {
    let stream = async |seed: u64, chunk: usize| {
        let world = World::new(Settings { seed, total: Some(600), ..endless() }).await;
        let session = world.session().await;
        let mut events = Vec::new();
        while events.len() < 600 {
            events.extend(world.get(&session, chunk).await);
        }
        for event in &mut events {
            event.as_object_mut().unwrap().remove("publishedTime");
        }
        events
    };
    let first = stream(7, 200).await;
    assert_eq!(first, stream(7, 23).await);
    assert_ne!(first, stream(8, 200).await);
}

#[tokio::test]
async fn types_and_size_can_be_chosen() {
    let types = Types::Only(vec!["messaging.*".to_owned(), "outreach.status".to_owned()]);
    let world = World::new(Settings { types, payload_bytes: Some(3_000), ..endless() }).await;
    let session = world.session().await;
    for event in world.get(&session, 200).await {
        let event_type = event["eventType"].as_str().unwrap();
        assert!(event_type.starts_with("messaging.") || event_type == "outreach.status");
        let payload = event["payload"].as_str().unwrap();
        assert_eq!(payload.len(), 3_000);
        assert!(serde_json::from_str::<Value>(payload).is_ok());
    }
}
