//! The AsyncAPI 3 document of a configuration: its topics and subjects, and the records in them.
//!
//! ```text
//! sink       → server
//! destination → channel; a field of the template that only an event knows is a parameter of its address
//! event type in a format and with the headers of a system → message
//! ```
//!
//! The documented event types are routed as the bridge routes them. Files and standard output are no channels.

use serde_json::{Map, Value, json};
use viaduct_catalogue::{EventType, Form, bundle, listed, record_schema};

use crate::config::{Config, DeadLetter, FieldName, Format, Route, Sink, SinkKind, Source, Target, Template};
use crate::routing::outline;
use crate::sinks;

/// The version of the specification.
const VERSION: &str = "3.0.0";

/// The document.
pub(crate) fn document(config: &Config) -> Value {
    let mut document = Document::default();
    for sink in &config.sinks {
        document.server(sink);
    }
    for source in &config.sources {
        for event in listed() {
            for index in Route::applying(&config.routes, &event.event_type) {
                let Target::Sink { sink, to, format, .. } = &config.routes[index].target else { continue };
                let sink = config.sink(*sink);
                document.route(sink, Address::of(to, sink, source, event), event, *format);
            }
            if let DeadLetter::Sink { sink, to } = &config.dead_letter {
                let sink = config.sink(*sink);
                document.dead_letters(sink, Address::of_dead_letters(to, sink, source, event));
            }
        }
    }
    document.finish(&config.bridge.name)
}

#[derive(Default)]
struct Document {
    servers: Map<String, Value>,
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
}

/// Systems with topics or subjects.
#[derive(Clone, Copy)]
enum Protocol {
    Kafka,
    Nats,
}

impl Protocol {
    fn of(sink: &Sink) -> Option<Self> {
        match sink.kind {
            SinkKind::Kafka(_) => Some(Self::Kafka),
            SinkKind::Nats(_) => Some(Self::Nats),
            SinkKind::File(_) | SinkKind::Stdout => None,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Nats => "nats",
        }
    }

    /// What stands before the name of a CloudEvents attribute.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Kafka => "ce_",
            Self::Nats => "ce-",
        }
    }
}

impl Document {
    fn server(&mut self, sink: &Sink) {
        let (host, stream) = match &sink.kind {
            SinkKind::Kafka(kafka) => (kafka.bootstrap_servers.clone(), None),
            SinkKind::Nats(nats) => {
                let hosts = nats.urls.iter().map(|url| {
                    let host = url.host_str().unwrap_or_default();
                    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
                });
                (hosts.collect::<Vec<_>>().join(","), Some(&nats.stream))
            }
            SinkKind::File(_) | SinkKind::Stdout => return,
        };
        let Some(protocol) = Protocol::of(sink) else { return };
        let description = match stream {
            Some(stream) => format!("Sink `{}`: JetStream stream `{stream}`.", sink.name),
            None => format!("Sink `{}`.", sink.name),
        };
        let server = json!({"host": host, "protocol": protocol.word(), "description": description});
        self.servers.insert(sink.name.clone(), server);
    }

    fn route(&mut self, sink: &Sink, address: Address, event: &EventType, format: Format) {
        let Some(protocol) = Protocol::of(sink) else { return };
        let name = format!("{}.{}.{}", event.event_type, format.word(), protocol.word());
        self.messages.entry(name.clone()).or_insert_with(|| message(event, form(format), protocol));
        let channel = self.channel(sink, address);
        self.carry(&channel, &name);
    }

    fn dead_letters(&mut self, sink: &Sink, address: Address) {
        let Some(protocol) = Protocol::of(sink) else { return };
        let name = format!("dead-letter.{}", protocol.word());
        self.messages.entry(name.clone()).or_insert_with(dead_letter);
        let channel = self.channel(sink, address);
        self.carry(&channel, &name);
    }

    /// The channel of a destination, by its id.
    fn channel(&mut self, sink: &Sink, address: Address) -> String {
        let Address { text, parameters } = address;
        let id = format!("{}/{text}", sink.name);
        let id = id.replace(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c), "_");
        let channel = self.channels.entry(id.clone()).or_insert_with(|| {
            let mut channel = json!({
                "address": text,
                "servers": [{"$ref": format!("#/servers/{}", sink.name)}],
                "messages": {},
            });
            if !parameters.is_empty() {
                let parameters: Map<_, _> = parameters
                    .iter()
                    .map(|field| {
                        let description = format!(
                            "The event's `{field}`, `_` where it has none; see the route's template."
                        );
                        (parameter(field), json!({"description": description}))
                    })
                    .collect();
                channel["parameters"] = parameters.into();
            }
            channel
        });
        let operation = json!({
            "action": "send",
            "channel": {"$ref": format!("#/channels/{id}")},
            "summary": format!("What the bridge publishes to {}.", channel["address"].as_str().unwrap_or_default()),
        });
        self.operations.entry(format!("publish.{id}")).or_insert(operation);
        id
    }

    fn carry(&mut self, channel: &str, message: &str) {
        if let Some(messages) = self.channels.get_mut(channel).and_then(|it| it["messages"].as_object_mut()) {
            let reference = json!({"$ref": format!("#/components/messages/{message}")});
            messages.insert(message.to_owned(), reference);
        }
    }

    fn finish(self, bridge: &str) -> Value {
        let schemas = bundle()["$defs"].take();
        json!({
            "asyncapi": VERSION,
            "info": {
                "title": format!("Events published by the bridge {bridge}"),
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Events of the Alvaria Cloud stream, as this configuration of Viaduct routes them. The \
                    event types are those of the vendor's document (© Alvaria, CC BY 4.0); others are routed by the \
                    same rules.",
            },
            "defaultContentType": "application/json",
            "servers": self.servers,
            "channels": self.channels,
            "operations": self.operations,
            "components": {"messages": self.messages, "schemas": schemas},
        })
    }
}

/// The address of a channel.
struct Address {
    text: String,
    /// Fields whose values only an event knows.
    parameters: Vec<String>,
}

impl Address {
    /// Of the records of a route.
    fn of(to: &Template, sink: &Sink, source: &Source, event: &EventType) -> Self {
        let (mut text, fields) = outlined(to, sink, source, event);
        for field in &fields {
            text = text.replace(&format!("{{{field}}}"), &format!("{{{}}}", parameter(field)));
        }
        Self { text, parameters: fields }
    }

    /// Of dead letters, whose destinations depend on no field of an event.
    fn of_dead_letters(to: &Template, sink: &Sink, source: &Source, event: &EventType) -> Self {
        let (mut text, fields) = outlined(to, sink, source, event);
        for field in &fields {
            text = text.replace(&format!("{{{field}}}"), "_");
        }
        Self { text, parameters: Vec::new() }
    }
}

/// What is known of a destination without an event, and the fields that stand in braces in it.
fn outlined(to: &Template, sink: &Sink, source: &Source, event: &EventType) -> (String, Vec<String>) {
    let known = Some((source.name.as_str(), source.org_id.as_str()));
    let text = outline(to, sinks::naming(&sink.kind), &event.event_type, known);
    let fields = to.fields().filter(|field| matches!(field, FieldName::Event(_))).map(ToString::to_string);
    let fields = fields.filter(|field| text.contains(&format!("{{{field}}}"))).collect();
    (text, fields)
}

/// A parameter's name: letters, digits, `_` and `-`.
fn parameter(field: &str) -> String {
    field.replace(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c), "_")
}

fn form(format: Format) -> Form {
    match format {
        Format::Unwrapped => Form::Unwrapped,
        Format::Raw => Form::Raw,
        Format::Payload => Form::Payload,
        Format::CloudEvents => Form::CloudEvents,
    }
}

fn message(event: &EventType, form: Form, protocol: Protocol) -> Value {
    let payload = json!({"$ref": format!("#/components/schemas/{}", event.event_type)});
    let mut message = json!({
        "name": event.event_type,
        "title": event.event_type,
        "summary": event.about,
        "contentType": match form {
            Form::CloudEvents => "application/cloudevents+json",
            _ => "application/json",
        },
        "payload": record_schema(event, form, payload),
    });
    if form != Form::CloudEvents {
        message["headers"] = headers(event, protocol);
        let location = format!("$message.header#/{}correlationid", protocol.prefix());
        message["correlationId"] = json!({"location": location});
    }
    if let Protocol::Kafka = protocol {
        message["bindings"] = json!({"kafka": {"key": {"type": "string"}}});
    }
    message
}

/// The CloudEvents attributes beside the value.
fn headers(event: &EventType, protocol: Protocol) -> Value {
    let text = || json!({"type": "string"});
    let attributes = [
        ("specversion", json!({"const": "1.0"})),
        ("id", text()),
        ("source", text()),
        ("type", json!({"const": format!("com.alvaria.{}", event.event_type)})),
        ("subject", text()),
        ("time", json!({"type": "string", "format": "date-time"})),
        ("correlationid", text()),
        ("schemaversion", text()),
    ];
    let mut properties: Map<String, Value> = attributes
        .into_iter()
        .map(|(name, schema)| (format!("{}{name}", protocol.prefix()), schema))
        .collect();
    properties.insert("content-type".to_owned(), json!({"const": "application/json"}));
    let required: Vec<_> = ["specversion", "id", "source", "type"]
        .iter()
        .map(|name| format!("{}{name}", protocol.prefix()))
        .collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn dead_letter() -> Value {
    let names = [
        "__connect.errors.topic",
        "__connect.errors.class.name",
        "__connect.errors.exception.message",
        "__connect.errors.stage",
        "viaduct-source",
        "viaduct-session",
        "viaduct-reason",
        "viaduct-destination",
        "viaduct-masks",
    ];
    let properties: Map<String, Value> =
        names.into_iter().map(|name| (name.to_owned(), json!({"type": "string"}))).collect();
    json!({
        "name": "dead-letter",
        "title": "Dead letter",
        "summary": "An event that can never be published as routed, as the vendor sent it; the headers say why. \
                    Records with the header viaduct-replayed are none, but mark what was replayed.",
        "headers": {"type": "object", "properties": properties, "required": ["viaduct-reason"]},
        "payload": {"description": "The event, whatever it is."},
    })
}
