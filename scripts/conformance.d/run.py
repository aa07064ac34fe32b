"""Runs the bridge between the simulator and real brokers, and lets independent readers judge what arrives.

Usage: run.py VIADUCT HOME, with the brokers' addresses in VIADUCT_TEST_KAFKA and VIADUCT_TEST_NATS, and Kafka's Java tools
on VIADUCT_TEST_KAFKA_CLASS_PATH. See scripts/conformance.
"""

import asyncio
import base64
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import jsonschema
import nats
from cloudevents.core.bindings import http as ce_http
from cloudevents.core.bindings import kafka as ce_kafka
from kafka import KafkaConsumer, TopicPartition
from kafka.partitioner.default import murmur2

EVENTS = 600
PARTITIONS = 6
CATEGORIES = ["engagementCenter", "messaging", "outreach"]
DEADLINE = 120

viaduct, home = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
kafka, nats_url = os.environ["VIADUCT_TEST_KAFKA"], os.environ["VIADUCT_TEST_NATS"]
class_path = os.environ["VIADUCT_TEST_KAFKA_CLASS_PATH"]
counts = {"passed": 0, "failed": 0}


def check(name, judge):
    """Runs a check; it fails by raising."""
    try:
        detail = judge()
        counts["passed"] += 1
        print(f"ok      {name}" + (f": {detail}" if detail else ""), flush=True)
    except Exception as error:  # whatever a reader has to say
        counts["failed"] += 1
        print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)


def expect(wanted, seen, what):
    if wanted != seen:
        raise AssertionError(f"{what}: {seen!r} instead of {wanted!r}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"conformance: not within {DEADLINE} s: {what}")
        time.sleep(0.05)


def ask(*arguments):
    """Runs the program and returns what it prints."""
    return subprocess.run([viaduct, *arguments], check=True, capture_output=True, text=True).stdout


# The configuration, and what this program can do


def configuration(folder, vendor_port, structured):
    vendor = f"http://127.0.0.1:{vendor_port}"
    sinks = f"""
[sink.lake]
type = "kafka"
bootstrap_servers = "{kafka}"
create_topics = true
partitions = {PARTITIONS}
replication_factor = 1
[sink.bus]
type = "nats"
url = "{nats_url}"
stream = "VIA"
create_stream = true
[[route]]
match = ["*"]
sink = "lake"
to = "binary.{{category}}"
[[route]]
match = ["*"]
sink = "bus"
to = "binary.{{org}}.{{category}}.{{name}}"
"""
    more = f"""
[sink.pond]
type = "kafka"
bootstrap_servers = "{kafka}"
create_topics = true
partitions = {PARTITIONS}
replication_factor = 1
[sink.tram]
type = "nats"
url = "{nats_url}"
stream = "STRUCTURED"
create_stream = true
[[route]]
match = ["*"]
sink = "pond"
to = "structured.{{category}}"
format = "cloudevents"
[[route]]
match = ["*"]
sink = "tram"
to = "structured.{{org}}.{{category}}"
format = "cloudevents"
"""
    path = folder / ("structured.toml" if structured else "viaduct.toml")
    path.write_text(
        f"""
[source.main]
api_url = "{vendor}"
org_id = "acme"
[source.main.auth]
token_url = "{vendor}/tokenservice/oauth2/access_token"
client_id = "any"
client_secret = "any"
api_key = "any"
{sinks}{more if structured else ""}
[state]
dir = "{folder}/state"
[admin]
listen = "off"
[log]
level = "warn"
"""
    )
    return path


def run_bridge(folder):
    """Publishes EVENTS events; returns the configuration and whether structured CloudEvents are among the records."""
    port = free_port()
    config, structured = configuration(folder, port, True), True
    if subprocess.run([viaduct, "check", "-c", config], capture_output=True).returncode != 0:
        config, structured = configuration(folder, port, False), False
    odd = "events:unicode:5% events:control-characters:5% events:unknown-fields:5%"
    simulator = [viaduct, "simulate", "--listen", f"127.0.0.1:{port}", "--events", str(EVENTS)]
    simulator = subprocess.Popen(
        [*simulator, "--rate", "unlimited", "--faults", odd], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    bridge = None

    def acknowledged():
        if bridge.poll() is not None:
            raise SystemExit(f"conformance: the bridge ended with {bridge.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_simulator/report") as answer:
                return json.load(answer)["acknowledged"] >= EVENTS
        except OSError:
            return False

    try:
        bridge = subprocess.Popen([viaduct, "run", "-c", config])
        until("every event is acknowledged", acknowledged)
    finally:
        for process in filter(None, [bridge, simulator]):
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE)
    return config, structured


# What arrived


def read_kafka(prefix):
    """Every record of the topics of a prefix, by a client that is not the bridge's."""
    consumer = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, consumer_timeout_ms=30_000)
    topics = [f"{prefix}.{category}" for category in CATEGORIES]
    places = [TopicPartition(topic, partition) for topic in topics for partition in range(PARTITIONS)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    left = sum(consumer.end_offsets(places).values())
    records = []
    while left > 0:
        batches = consumer.poll(timeout_ms=5_000)
        if not batches:
            raise SystemExit("conformance: Kafka has fewer records than it says")
        for batch in batches.values():
            records.extend(batch)
            left -= len(batch)
    consumer.close()
    return records


async def read_nats(stream, subject):
    connection = await nats.connect(nats_url)
    subscription = await connection.jetstream().pull_subscribe(subject, stream=stream)
    messages = []
    while True:
        try:
            messages.extend(await subscription.fetch(200, timeout=2))
        except nats.errors.TimeoutError:
            break
    await connection.close()
    return [(message.subject, dict(message.headers or {}), message.data) for message in messages]


def same_event(event, value, key):
    """An event of the SDK against the value beside it, which the bridge's own format defines."""
    expect("1.0", event.get_specversion(), "specversion")
    expect(value["eventId"], event.get_id(), "id")
    expect("via://acme", event.get_source(), "source")
    expect(f"com.alvaria.{value['eventType']}", event.get_type(), "type")
    expect(value["publishedTime"], event.get_time().isoformat(timespec="milliseconds").replace("+00:00", "Z"), "time")
    expect(key, event.get_subject(), "subject")
    extensions = {name: event.get_extension(name) for name in ("correlationid", "schemaversion")}
    expect({"correlationid": value["correlationId"], "schemaversion": value["schemaVersion"]}, extensions, "extensions")


def text(key):
    return key.decode() if key is not None else None


def judge_binary_kafka(records):
    seen = set()
    for record in records:
        message = ce_kafka.KafkaMessage(headers=dict(record.headers), key=record.key, value=record.value)
        event = ce_kafka.from_binary_event(message)
        value = json.loads(record.value)
        same_event(event, value, text(record.key))
        expect(value, event.get_data(), "data")
        expect("application/json", event.get_datacontenttype(), "datacontenttype")
        seen.add(event.get_id())
    expect(EVENTS, len(seen), "different events")
    return f"{len(records)} records"


def judge_binary_nats(messages):
    seen = set()
    for _, headers, data in messages:
        # The NATS protocol binding of CloudEvents has the header names of the HTTP one.
        headers = {name.lower(): value for name, value in headers.items()}
        event = ce_http.from_binary_event(ce_http.HTTPMessage(headers=headers, body=data))
        value = json.loads(data)
        same_event(event, value, headers.get("ce-subject"))
        expect(value, event.get_data(), "data")
        seen.add(event.get_id())
    expect(EVENTS, len(seen), "different events")
    return f"{len(messages)} messages"


def judge_structured(events, binary):
    """Structured events say what the binary records say, whose `data` is the whole event where theirs is the payload."""
    by_id = {}
    for record in binary:
        value = json.loads(record.value)
        by_id[value["eventId"]] = (value, text(record.key))
    for event in events:
        value, key = by_id[event.get_id()]
        same_event(event, value, key)
        expect(value["payload"], event.get_data(), "data")
    expect(EVENTS, len({event.get_id() for event in events}), "different events")
    return f"{len(events)} events"


def structured_kafka(record):
    headers = dict(record.headers)
    expect([], [name for name in headers if name.startswith("ce_")], "ce_ headers beside a structured event")
    return ce_kafka.from_kafka_event(ce_kafka.KafkaMessage(headers=headers, key=record.key, value=record.value))


def structured_nats(message):
    headers = {name.lower(): value for name, value in message[1].items()}
    return ce_http.from_http_event(ce_http.HTTPMessage(headers=headers, body=message[2]))


def judge_schemas(records):
    """Every record of the run fits the schemas that the program prints."""
    schemas = json.loads(ask("schema", "events"))["$defs"]
    validators = {name: jsonschema.Draft202012Validator(schema) for name, schema in schemas.items()}
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    kinds = set()
    for record in records:
        value = json.loads(record.value)
        validators[value["eventType"]].validate(value["payload"])
        kinds.add(value["eventType"])
    return f"{len(records)} records of {len(kinds)} types"


# Partitions


def partitions(records):
    places = {}
    for record in records:
        if record.key is not None:
            places.setdefault(record.key, set()).add(record.partition)
    return places


def judge_python_partitions(records):
    places = partitions(records)
    for key, seen in places.items():
        expect({(murmur2(key) & 0x7FFFFFFF) % PARTITIONS}, seen, f"partition of {key!r}")
    return f"{len(places)} keys"


def judge_java_partitions(records):
    """The producer of the Java client writes the same keys into a topic of its own."""
    places = partitions(records)
    java = ["java", "-cp", class_path]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    create = ["--create", "--topic", "java.keys", "--partitions", str(PARTITIONS), "--replication-factor", "1"]
    subprocess.run([*java, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", kafka, *create], **quiet)
    producer = ["--bootstrap-server", kafka, "--topic", "java.keys", "--reader-property", "parse.key=true"]
    lines = b"".join(key + b"\tx\n" for key in places)
    subprocess.run([*java, "org.apache.kafka.tools.ConsoleProducer", *producer], input=lines, **quiet)
    consumer = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    topic = [TopicPartition("java.keys", partition) for partition in range(PARTITIONS)]
    consumer.assign(topic)
    consumer.seek_to_beginning(*topic)
    written = {}
    end = time.monotonic() + 30
    while len(written) < len(places) and time.monotonic() < end:
        for batch in consumer.poll(timeout_ms=1_000).values():
            written.update((record.key, {record.partition}) for record in batch)
    consumer.close()
    expect(written, places, "partitions by key")
    return f"{len(places)} keys"


# JavaScript


def node(script, *arguments):
    done = subprocess.run(["node", home / "js" / script, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError((done.stderr or done.stdout).strip().splitlines()[-1:])
    return done.stdout.strip()


def dump(path, messages):
    """Key, headers and value as they came, for another language's SDK."""
    with path.open("w") as out:
        for key, headers, value in messages:
            value = base64.b64encode(value).decode()
            out.write(json.dumps({"key": text(key), "headers": headers, "value": value}) + "\n")
    return path


def strings(headers):
    return {name: value.decode() for name, value in headers}


def javascript(folder, protocol, mode, messages):
    path = dump(folder / f"{protocol}-{mode}.jsonl", messages)
    return lambda: node("cloudevents.mjs", protocol, mode, str(EVENTS), path)


def asyncapi(folder, config, *more):
    path = folder / "asyncapi.json"
    path.write_text(ask("schema", "asyncapi", "-c", config, *more))
    return lambda: node("asyncapi.mjs", path)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        config, structured = run_bridge(folder)
        records = read_kafka("binary")
        messages = asyncio.run(read_nats("VIA", "binary.>"))
        check("Python CloudEvents SDK, Kafka, binary", lambda: judge_binary_kafka(records))
        check("Python CloudEvents SDK, NATS, binary", lambda: judge_binary_nats(messages))
        as_kafka = [(record.key, strings(record.headers), record.value) for record in records]
        as_nats = [(None, headers, value) for _, headers, value in messages]
        check("JavaScript CloudEvents SDK, Kafka, binary", javascript(folder, "kafka", "binary", as_kafka))
        check("JavaScript CloudEvents SDK, NATS, binary", javascript(folder, "nats", "binary", as_nats))
        if structured:
            pond = read_kafka("structured")
            tram = asyncio.run(read_nats("STRUCTURED", "structured.>"))
            check(
                "Python CloudEvents SDK, Kafka, structured",
                lambda: judge_structured([structured_kafka(record) for record in pond], records),
            )
            check(
                "Python CloudEvents SDK, NATS, structured",
                lambda: judge_structured([structured_nats(message) for message in tram], records),
            )
            as_kafka = [(record.key, strings(record.headers), record.value) for record in pond]
            as_nats = [(None, headers, value) for _, headers, value in tram]
            check("JavaScript CloudEvents SDK, Kafka, structured", javascript(folder, "kafka", "structured", as_kafka))
            check("JavaScript CloudEvents SDK, NATS, structured", javascript(folder, "nats", "structured", as_nats))
        else:
            print('not checked: format = "cloudevents", which this program does not have')
        check("Python JSON Schema validator, payloads", lambda: judge_schemas(records))
        check("Python client's partitions", lambda: judge_python_partitions(records))
        check("Java client's partitions", lambda: judge_java_partitions(records))
        check("AsyncAPI parser, the routes of the run", asyncapi(folder, config))
        more = folder / "templates.toml"
        more.write_text(
            config.read_text()
            + '[[route]]\nmatch = ["outreach.*"]\nsink = "none"\n[dead_letter]\nsink = "bus"\nto = "dead.{org}.{eventId}"\n'
        )
        more.write_text(more.read_text().replace('"binary.{category}"', '"by.{source}.{userId}"'))
        check("AsyncAPI parser, templates and dead letters", asyncapi(folder, more))
    print(f"{counts['passed']} passed, {counts['failed']} failed")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
