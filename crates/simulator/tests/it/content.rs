//! Odd contents of single events.

use reqwest::Method;
use serde_json::{Value, json};
use viaduct_simulator::{Redelivery, Settings};

use crate::client::{World, counts, endless, ids, quiet};

/// Gets 10 events while this fault shapes one of them: the events, and the place of the odd one.
async fn shaped(fault: &str) -> (World, String, Vec<Value>) {
    let world = World::new(Settings { keep_entries: true, ..endless() }).await;
    let session = world.session().await;
    world.simulator.control().set_faults(format!("events:{fault}:@1").parse().unwrap());
    let events = world.get(&session, 10).await;
    assert_eq!(events.len(), 10);
    assert_eq!(world.report().faults[&format!("events:{fault}")], 1);
    (world, session, events)
}

fn payload(event: &Value) -> Value {
    serde_json::from_str(event["payload"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn one_malformed_event_among_good_ones_is_acknowledged_like_the_others() {
    for how in ["no-type", "type-number", "no-payload", "payload-object", "payload-text"] {
        let (world, session, events) = shaped(&format!("malformed={how}")).await;
        let good = |event: &&Value| {
            event["eventType"].is_string()
                && event["payload"].as_str().is_some_and(|text| serde_json::from_str::<Value>(text).is_ok())
        };
        assert_eq!(events.iter().filter(good).count(), 9, "{how}");
        assert_eq!(world.acknowledge(&session, &ids(&events)).await.0.len(), 10);
        let report = world.report();
        assert_eq!((report.malformed, report.acknowledged), (1, 10));
    }
}

#[tokio::test]
async fn an_entry_without_an_id_comes_three_times() {
    for how in ["no-id", "id-number", "not-an-object", "null"] {
        let settings = Settings { redelivery: Redelivery::FromHead, total: Some(3), ..endless() };
        let world = World::new(settings).await;
        let session = world.session().await;
        world.simulator.control().set_faults(format!("events:malformed={how}:@1").parse().unwrap());
        let first = world.get(&session, 10).await;
        assert_eq!(ids(&first).len(), 2, "{how}");
        world.acknowledge(&session, &ids(&first)).await;
        assert_eq!(world.report().acknowledged, 2);
        for _ in 0..2 {
            let again = world.get(&session, 10).await;
            assert_eq!(again.len(), 1);
            assert!(first.contains(&again[0]));
        }
        assert_eq!(world.get(&session, 10).await.len(), 0);
        let report = world.report();
        assert_eq!((report.forgotten, report.unacknowledged, report.emitted), (1, 0, 3));
    }
}

#[tokio::test]
async fn fields_and_types_that_the_document_does_not_know() {
    let (_, _, events) = shaped("unknown-fields").await;
    let odd: Vec<&Value> = events.iter().filter(|event| event.as_object().unwrap().len() > 7).collect();
    assert_eq!(odd.len(), 1);
    assert!(odd[0]["futureField"].is_object() && payload(odd[0])["futureField"].is_object());

    let (world, session, events) = shaped("unknown-type").await;
    let known: Vec<&str> = viaduct_simulator::event_types().collect();
    let is_odd = |event: &&Value| !known.contains(&event["eventType"].as_str().unwrap());
    assert_eq!(events.iter().filter(is_odd).count(), 1);
    // Each of four: with a category that is documented, ones that are not, and none at all.
    world.simulator.control().set_faults("events:unknown-type:always".parse().unwrap());
    for _ in 0..3 {
        world.get(&session, 1).await;
    }
    let categories: Vec<String> = world.report().categories.into_keys().collect();
    for category in ["changeNotification", "engagementCenter", "unknown"] {
        assert!(categories.contains(&category.to_owned()), "{categories:?}");
    }
}

#[tokio::test]
async fn huge_and_strange_payloads() {
    let (_, _, events) = shaped("huge=3000000").await;
    let sizes: Vec<usize> = events.iter().map(|event| event["payload"].as_str().unwrap().len()).collect();
    assert_eq!(sizes.iter().filter(|size| **size >= 3_000_000).count(), 1, "{sizes:?}");

    let (_, _, events) = shaped("unicode").await;
    let text = |event: &Value| payload(event)["text"].as_str().unwrap_or_default().to_owned();
    assert_eq!(events.iter().filter(|event| text(event).contains("你好")).count(), 1);
    let (_, _, events) = shaped("control-characters").await;
    assert_eq!(events.iter().filter(|event| text(event).contains('\0')).count(), 1);
}

#[tokio::test]
async fn two_events_of_one_id_stay_together() {
    let settings = Settings { redelivery: Redelivery::FromHead, total: Some(4), ..endless() };
    let world = World::new(settings).await;
    let session = world.session().await;
    world.simulator.control().set_faults("events:duplicate-id:@1".parse().unwrap());
    // The first event of an answer has nobody to share its id with.
    let first = world.get(&session, 1).await;
    world.acknowledge(&session, &ids(&first)).await;
    let events = world.get(&session, 2).await;
    assert_eq!(events[0]["eventId"], events[1]["eventId"]);
    assert_ne!(events[0], events[1]);
    assert_eq!(world.get(&session, 1).await, events, "one more than asked for, but not parted");
    let (acknowledged, _) = world.acknowledge(&session, &ids(&events[..1])).await;
    assert_eq!(acknowledged, ids(&events[..1]));
    assert_eq!(world.report().acknowledged, 3);
    let journal = world.simulator.control().events(0, 10);
    assert_eq!(journal.iter().map(|row| row.shares_id).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(journal[1].event_id, journal[2].event_id);
    assert_ne!(journal[1].number, journal[2].number);
}

#[tokio::test]
async fn one_event_twice_in_one_answer() {
    let (world, session, _) = {
        let world = World::new(endless()).await;
        let session = world.session().await;
        world.simulator.control().set_faults("events:repeat:@1".parse().unwrap());
        (world, session, ())
    };
    let events = world.get(&session, 5).await;
    assert_eq!(events.len(), 6);
    assert_eq!(events[0], events[5]);
    assert_eq!(counts(ids(&events)).len(), 5);
    world.acknowledge(&session, &ids(&events)).await;
    let report = world.report();
    assert_eq!((report.acknowledged, report.redelivered, report.acknowledged_again), (5, 1, 1));
}

#[tokio::test]
async fn anything_can_be_emitted_by_hand() {
    let world = World::new(quiet()).await;
    let session = world.session().await;
    let control = world.simulator.control();
    let entry = r#"{"eventId":"a-1","eventType":"engagementCenter.Idle","publishedTime":"t","payload":"{\"payload\":{\"interactionId\":7.0,\"big\":12345678901234567890123}}"}"#;
    control.emit_raw(entry).unwrap();
    control.emit_raw(&entry.replace("7.0", "8")).unwrap();
    control.emit_raw("17").unwrap();
    assert!(control.emit_raw("{]").is_err());
    let path = "events?maxEvents=200";
    let body = world.in_session(Method::GET, 3, path, &session).send().await.unwrap().text().await.unwrap();
    assert!(body.contains(entry), "word for word: {body}");
    let (acknowledged, _) = world.acknowledge(&session, &["a-1".to_owned()]).await;
    assert_eq!(acknowledged, ["a-1"], "an id means all events that have it");
    assert_eq!(world.report().acknowledged, 2);
    let journal = control.events(0, 10);
    assert_eq!(journal[1].interaction_id, Some(8));
    assert_eq!((journal[2].event_id.as_deref(), journal[2].malformed), (None, true));

    // A v2 session gets its own shape.
    control.emit_raw(entry).unwrap();
    let v2 = world.create(2, json!([])).await["sessionId"].as_str().unwrap().to_owned();
    world.simulator.control().expire_all_sessions();
    assert_eq!(world.in_session(Method::GET, 2, path, &v2).send().await.unwrap().status(), 400);
    let v2 = world.create(2, json!([])).await["sessionId"].as_str().unwrap().to_owned();
    let body: Value = world.in_session(Method::GET, 2, path, &v2).send().await.unwrap().json().await.unwrap();
    let event = body["events"].as_array().unwrap().iter().find(|event| event["id"] == "a-1").unwrap();
    assert_eq!(event["type"], "engagementCenter.Idle");
    assert!(event.get("eventId").is_none());
}
