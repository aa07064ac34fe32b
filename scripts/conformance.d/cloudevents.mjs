// Reads records with the CloudEvents SDK of JavaScript. Usage: cloudevents.mjs kafka|nats binary|structured COUNT FILE
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
import { HTTP, Kafka } from "cloudevents";

const [protocol, mode, count, file] = process.argv.slice(2);
const lines = readFileSync(file, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
const ids = new Set();

for (const { key, headers, value } of lines) {
  const body = Buffer.from(value, "base64").toString("utf8");
  // The NATS protocol binding of CloudEvents has the header names of the HTTP one.
  const event =
    protocol === "kafka"
      ? Kafka.toEvent({ key, headers, value: body, body })
      : HTTP.toEvent({
          headers: Object.fromEntries(Object.entries(headers).map(([name, text]) => [name.toLowerCase(), text])),
          body,
        });
  assert.ok(event.validate(), `${event.id} is not a valid CloudEvent`);
  assert.equal(event.specversion, "1.0");
  assert.equal(event.source, "via://acme");
  const whole = JSON.parse(body);
  if (mode === "binary") {
    assert.equal(event.id, whole.eventId);
    assert.equal(event.type, `com.alvaria.${whole.eventType}`);
    assert.equal(new Date(event.time).toISOString(), whole.publishedTime);
    assert.equal(event.correlationid, whole.correlationId);
    assert.equal(event.schemaversion, whole.schemaVersion);
    assert.deepEqual(event.data, whole);
  } else {
    assert.equal(event.id, whole.id);
    assert.equal(event.type, whole.type);
    assert.deepEqual(event.data, whole.data);
  }
  if (protocol === "kafka") assert.equal(event.subject ?? null, key);
  ids.add(event.id);
}
assert.equal(ids.size, Number(count), "different events");
console.log(`${lines.length} records`);
