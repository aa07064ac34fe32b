//! The floor: the loop that a good engineer writes in an afternoon. GET 200 → parse → publish all → wait → acknowledge →
//! GET, one event loop, one session each. It makes the same records as Viaduct (value, key, headers) and keeps the same
//! rule (acknowledged only when durable); it knows no failure.

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use futures_util::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::job::{Target, VendorAddress};

/// Runs one loop for each session, until it is killed.
pub(crate) async fn run(
    vendor: &VendorAddress,
    target: &Target,
    sessions: usize,
    batch: usize,
) -> Result<()> {
    let publisher = Publisher::connect(target).await?;
    let loops = (0..sessions).map(|_| one_session(vendor, &publisher, batch));
    try_join_all(loops).await.map(drop)
}

async fn one_session(vendor: &VendorAddress, publisher: &Publisher, batch: usize) -> Result<()> {
    let session = Session::create(vendor).await?;
    loop {
        let body = session.get(batch).await?;
        let records = records(&body)?;
        if records.is_empty() {
            continue;
        }
        publisher.publish(&records).await?;
        session.acknowledge(&records).await?;
    }
}

/// The vendor's API, as much of it as is needed.
pub(crate) struct Session {
    http: reqwest::Client,
    base: String,
    token: String,
    id: String,
}

impl Session {
    pub(crate) async fn create(vendor: &VendorAddress) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
        #[derive(Deserialize)]
        struct Token {
            access_token: String,
        }
        let form = [("grant_type", "client_credentials"), ("scope", "streamingapi")];
        let request = http.post(&vendor.token_url).basic_auth("floor", Some("hunter2")).form(&form);
        let token: Token = request.send().await?.error_for_status()?.json().await?;
        let mut session = Self {
            http,
            base: format!("{}/via/v3/organizations/acme/streaming", vendor.api_url),
            token: format!("Bearer {}", token.access_token),
            id: String::new(),
        };
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Created {
            session_id: String,
        }
        let asked = serde_json::json!({ "inactivityDelay": 120, "requireAcknowledgement": true });
        let request = session.request(reqwest::Method::POST, "session").json(&asked);
        session.id = request.send().await?.error_for_status()?.json::<Created>().await?.session_id;
        Ok(session)
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}/{path}", self.base))
            .header("authorization", &self.token)
            .header("x-api-key", "floor")
            .header("via-client-sessionid", &self.id)
    }

    /// A GET as it goes over the wire, for a reader that wants nothing but speed.
    pub(crate) fn raw_get(&self, batch: usize) -> String {
        let path = self.base.splitn(4, '/').last().unwrap_or_default();
        format!(
            "GET /{path}/events?maxEvents={batch} HTTP/1.1\r\nhost: vendor\r\nauthorization: {}\r\n\
             x-api-key: floor\r\nvia-client-sessionid: {}\r\n\r\n",
            self.token, self.id
        )
    }

    pub(crate) async fn get(&self, batch: usize) -> Result<bytes::Bytes> {
        let request = self.request(reqwest::Method::GET, &format!("events?maxEvents={batch}"));
        Ok(request.send().await?.error_for_status()?.bytes().await?)
    }

    async fn acknowledge(&self, records: &[Record<'_>]) -> Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Id<'a> {
            event_id: &'a str,
        }
        #[derive(Serialize)]
        struct Payload<'a> {
            events: Vec<Id<'a>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            event_ids_acknowledged: Vec<String>,
        }
        let events = records.iter().map(|record| Id { event_id: &record.id }).collect();
        let request = self.request(reqwest::Method::POST, "acknowledge").json(&Payload { events });
        let answer: Answer = request.send().await?.error_for_status()?.json().await?;
        ensure!(answer.event_ids_acknowledged.len() == records.len(), "the vendor did not take all of them");
        Ok(())
    }
}

/// A header's name as CloudEvents spells it for Kafka and for NATS.
pub(crate) type Name = (&'static str, &'static str);

/// What is published of one event.
pub(crate) struct Record<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) key: Option<String>,
    pub(crate) headers: Vec<(Name, Cow<'a, str>)>,
    pub(crate) value: Vec<u8>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    events: Vec<Event<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'a str,
    event_id: &'a str,
    correlation_id: &'a str,
    event_type: &'a str,
    published_time: &'a str,
    #[serde(borrow)]
    schema_version: &'a RawValue,
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Unwrapped<'a> {
    kind: &'a str,
    event_id: &'a str,
    correlation_id: &'a str,
    event_type: &'a str,
    published_time: &'a str,
    schema_version: &'a RawValue,
    payload: &'a RawValue,
}

/// The fields that may be a key, on either level of a payload.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Keys<'a> {
    #[serde(borrow)]
    interaction_id: Option<&'a RawValue>,
    #[serde(borrow)]
    session_id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    ehub_session_id: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// The records of a response.
pub(crate) fn records(body: &[u8]) -> Result<Vec<Record<'_>>> {
    let page: Page<'_> = serde_json::from_slice(body).context("the response")?;
    page.events.into_iter().map(record).collect()
}

fn record(event: Event<'_>) -> Result<Record<'_>> {
    let payload: &RawValue = serde_json::from_str(&event.payload)?;
    let outer: Keys<'_> = serde_json::from_str(payload.get())?;
    let inner: Keys<'_> = outer
        .payload
        .filter(|inner| inner.get().starts_with('{'))
        .map(|inner| serde_json::from_str(inner.get()))
        .transpose()?
        .unwrap_or_default();
    let usable = |value: Option<&RawValue>| {
        let text = value?.get().trim_matches('"');
        (!matches!(text, "" | "0" | "null")).then(|| text.to_owned())
    };
    let either =
        |of: for<'k> fn(&Keys<'k>) -> Option<&'k RawValue>| usable(of(&inner)).or_else(|| usable(of(&outer)));
    let key = either(|keys| keys.interaction_id)
        .or_else(|| either(|keys| keys.session_id))
        .or_else(|| either(|keys| keys.user_id))
        .or_else(|| either(|keys| keys.ehub_session_id))
        .or_else(|| Some(event.correlation_id.to_owned()));
    let value = serde_json::to_vec(&Unwrapped {
        kind: event.kind,
        event_id: event.event_id,
        correlation_id: event.correlation_id,
        event_type: event.event_type,
        published_time: event.published_time,
        schema_version: event.schema_version,
        payload,
    })?;
    let mut headers = vec![
        (("ce_specversion", "ce-specversion"), Cow::Borrowed("1.0")),
        (("ce_id", "ce-id"), event.event_id.into()),
        (("ce_source", "ce-source"), "via://acme".into()),
        (("ce_type", "ce-type"), format!("com.alvaria.{}", event.event_type).into()),
        (("ce_time", "ce-time"), event.published_time.into()),
        (("ce_correlationid", "ce-correlationid"), event.correlation_id.into()),
        (("ce_schemaversion", "ce-schemaversion"), event.schema_version.get().trim_matches('"').into()),
        (("content-type", "content-type"), "application/json".into()),
    ];
    if let Some(key) = &key {
        headers.push((("ce_subject", "ce-subject"), key.clone().into()));
    }
    Ok(Record { id: event.event_id.into(), key, headers, value })
}

/// Where records go.
enum Publisher {
    Kafka { producer: FutureProducer, topic: String },
    Nats { context: Box<jetstream::Context>, subject: String },
}

impl Publisher {
    async fn connect(target: &Target) -> Result<Self> {
        Ok(match target {
            Target::Kafka { bootstrap, topic } => {
                let producer = ClientConfig::new()
                    .set("bootstrap.servers", bootstrap)
                    .set("acks", "all")
                    .set("enable.idempotence", "true")
                    .set("linger.ms", "0")
                    .create()?;
                Self::Kafka { producer, topic: topic.clone() }
            }
            Target::Nats { url, subject, .. } => {
                let client = async_nats::connect(url).await?;
                Self::Nats { context: Box::new(jetstream::new(client)), subject: subject.clone() }
            }
        })
    }

    /// Publishes all and waits until all of them are durable.
    async fn publish(&self, records: &[Record<'_>]) -> Result<()> {
        match self {
            Self::Kafka { producer, topic } => {
                let mut reports = Vec::with_capacity(records.len());
                for record in records {
                    let mut headers = OwnedHeaders::new_with_capacity(9);
                    for ((name, _), value) in &record.headers {
                        headers = headers.insert(Header { key: name, value: Some(&**value) });
                    }
                    let mut message = FutureRecord::to(topic).payload(&record.value).headers(headers);
                    message.key = record.key.as_ref();
                    reports.push(producer.send_result(message).map_err(|(error, _)| error)?);
                }
                for report in reports {
                    report.await?.map_err(|(error, _)| error)?;
                }
            }
            Self::Nats { context, subject } => {
                let mut acks = Vec::with_capacity(records.len());
                for record in records {
                    let mut headers = async_nats::HeaderMap::new();
                    for ((_, name), value) in &record.headers {
                        headers.insert(*name, &**value);
                    }
                    headers.insert("Nats-Msg-Id", &*record.id);
                    let value = record.value.clone().into();
                    acks.push(
                        context.publish_with_headers(subject.clone(), headers, value).await?.into_future(),
                    );
                }
                try_join_all(acks).await?;
            }
        }
        Ok(())
    }
}
