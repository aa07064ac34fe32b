// The status page as a person sees it. Run by ./page: viaduct, nats-server, chromium, folder for screenshots.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [viaduct, natsServer, browserPath, shots] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), 'viaduct-page-'));
const PATIENCE = 60_000;
const children = new Set();
let [passed, failed] = [0, 0];

function check(what, holds, detail = '') {
  if (holds) passed++; else failed++;
  console.log(`${holds ? 'ok  ' : 'FAIL'} ${what}${holds || detail === '' ? '' : `: ${detail}`}`);
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

function start(name, command, args) {
  const log = openSync(join(folder, `${name}.log`), 'a');
  const child = spawn(command, args, { stdio: ['ignore', log, log] });
  child.over = once(child, 'exit').then(([code]) => { children.delete(child); return code; });
  children.add(child);
  return child;
}

const [vendorPort, natsPort, adminPort] = [await freePort(), await freePort(), await freePort()];
const vendor = () => start('vendor', viaduct, ['simulate', '--listen', `127.0.0.1:${vendorPort}`, '--rate', '40']);
const nats = () => start('nats', natsServer, ['-js', '-sd', join(folder, 'nats'), '-a', '127.0.0.1', '-p', String(natsPort)]);
const bridge = () => start('bridge', viaduct, ['run', '-c', join(folder, 'viaduct.toml')]);
const steer = async (path, body) => {
  const answer = await fetch(`http://127.0.0.1:${vendorPort}/_simulator/${path}`, { method: 'POST', body });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
};

writeFileSync(join(folder, 'viaduct.toml'), `
[bridge]
name = "page-test"
[source.main]
api_url = "http://127.0.0.1:${vendorPort}"
org_id = "acme"
[source.main.auth]
token_url = "http://127.0.0.1:${vendorPort}/tokenservice/oauth2/access_token"
client_id = "hunter2-id"
client_secret = "hunter2-secret"
api_key = "hunter2-key"
[source.main.retry]
initial = "50ms"
max = "1s"
[sink.bus]
type = "nats"
url = "nats://127.0.0.1:${natsPort}"
stream = "VIA"
create_stream = true
[sink.archive]
type = "file"
dir = ${JSON.stringify(join(folder, 'events'))}
required = false
[[route]]
match = ["engagementCenter.*", "messaging.*", "outreach.*"]
sink = "bus"
to = "via.{category}.{name}"
[[route]]
match = ["engagementCenter.*", "messaging.*", "outreach.*"]
sink = "archive"
to = "{category}"
[state]
dir = ${JSON.stringify(join(folder, 'state'))}
[admin]
listen = "127.0.0.1:${adminPort}"
`);

const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox'] });
const wide = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'light' });
const phone = await browser.newContext({ viewport: { width: 390, height: 844 }, colorScheme: 'dark', hasTouch: true });
const pages = { wide: await wide.newPage(), phone: await phone.newPage() };
const page = pages.wide;
const complaints = [];
const requested = new Set();
for (const one of Object.values(pages)) {
  one.on('pageerror', error => complaints.push(String(error)));
  one.on('console', message => {
    // That nothing answers while the bridge is away is what the page is to show.
    if (message.type() === 'error' && !/ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY/.test(message.text())) complaints.push(message.text());
  });
  one.on('dialog', dialog => { complaints.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  one.on('request', request => requested.add(new URL(request.url()).origin));
}

async function state(name, wanted = name) {
  for (const [size, one] of Object.entries(pages)) {
    const seen = await one.waitForSelector(`#verdict[data-state="${wanted}"]`, { timeout: PATIENCE }).then(() => true, () => false);
    const sentence = await one.textContent('#sentence');
    check(`${name} on the ${size} page: ${sentence}`, seen, `the page says ${await one.getAttribute('#verdict', 'data-state')}`);
    await one.screenshot({ path: join(shots, `${name}-${size}.png`), fullPage: true });
    const [content, screen] = await one.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    check(`${name} fits the ${size} page`, content <= screen, `${content} > ${screen}`);
  }
  return page.textContent('#sentence');
}
const has = (what, pattern, text) => check(`${what}: ${pattern}`, pattern.test(text), text);
const until = (what, condition) => page.waitForFunction(condition, null, { timeout: PATIENCE }).then(() => check(what, true), () => check(what, false));

try {
  // Nothing is there yet but the bridge.
  let running = bridge();
  for (const one of Object.values(pages)) {
    for (let tries = 0; tries < 200; tries++) {
      if (await one.goto(`http://127.0.0.1:${adminPort}/`).then(() => true, () => false)) break;
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  }
  has('starting', /^Starting: source main has no session yet/, await state('starting'));

  const broker1 = nats();
  let simulator = vendor();
  await state('flowing');
  await until('categories have sparklines', () => document.querySelectorAll('.rate polyline').length >= 3);
  await until('the last events are shown', () => document.querySelectorAll('#events tbody tr').length >= 20);
  await until('latencies are shown', () => /latency p99\d+ ms/.test(document.querySelector('[data-source=main]').textContent));
  await page.waitForTimeout(8000); // some seconds of a sparkline, for whoever looks at the screenshot
  has('all is well', /^(Everything received has been published; last event \d+ s ago|Events flow)/, await state('flowing'));

  // The numbers are the vendor's.
  await steer('pause');
  const report = async () => (await fetch(`http://127.0.0.1:${vendorPort}/_simulator/report`)).json();
  for (let tries = 0; tries < 400 && (await report()).unacknowledged > 0; tries++) await new Promise(resolve => setTimeout(resolve, 50));
  const { acknowledged } = await report();
  const funnel = await page.waitForFunction(count => {
    const seen = [...document.querySelectorAll('[data-source=main] .funnel b')].map(node => node.textContent.replace(/,/g, ''));
    return seen.length === 3 && seen.every(number => number === String(count));
  }, acknowledged, { timeout: PATIENCE }).then(() => true, () => false);
  check(`the funnel says ${acknowledged} three times, as the vendor's journal does`, funnel);
  await steer('resume');

  // Text from outside stays text.
  await steer('emit-raw', JSON.stringify({ eventId: '<b>1</b>', eventType: '<img src=x onerror=alert(1)>.x', payload: '{}' }));
  await until('an event that no route matches is in the dead letters, as text', () =>
    /unrouted1/.test(document.querySelector('#reasons').textContent) &&
    [...document.querySelectorAll('#events td')].some(cell => cell.textContent === '<img src=x onerror=alert(1)>.x'));
  await state('dead-letters', 'flowing');

  broker1.kill('SIGKILL');
  await broker1.over;
  await until('events are held', () => /[1-9]/.test([...document.querySelectorAll('[data-source=main] dt')].find(dt => dt.textContent === 'unacknowledged').nextSibling.textContent));
  has('broker down', /^Sink bus has taken no records for .*so nothing is lost\./, await state('broker-down', 'sink_down'));
  nats();
  await state('healed', 'flowing');

  await steer('faults', 'session_create:503:100%');
  await steer('expire-sessions');
  has('session lost', /^Source main has no session \(.*503/, await state('session-lost', 'session_lost'));
  await steer('faults', '');
  await state('session-again', 'flowing');

  running.kill('SIGTERM');
  check('the bridge ends in order', (await running.over) === 0);
  has('stopped', /^The bridge was stopped at \d\d:\d\d:\d\d\. Stopped; every event is acknowledged/, await state('stopped'));

  running = bridge();
  await state('started-again', 'flowing');
  running.kill('SIGKILL');
  await running.over;
  has('killed', /^The bridge is gone: nothing has answered here for/, await state('gone'));

  const shown = (await page.content()) + (await pages.phone.content());
  for (const canary of ['hunter2', 'interactionId', 'phoneNumber', 'ehubSessionId']) check(`no ${canary} on the page`, !shown.includes(canary));
  check('the page complains of nothing', complaints.length === 0, complaints.join('; '));
  check('nothing is asked for elsewhere', [...requested].every(origin => origin === `http://127.0.0.1:${adminPort}` || origin === 'null'), [...requested].join(' '));

  // A name that points at 127.0.0.1 is refused.
  const { request } = await import('node:http');
  running = bridge();
  await state('once-more', 'flowing');
  for (const path of ['/', '/events', '/status']) {
    const status = await new Promise((resolve, reject) =>
      request({ port: adminPort, path, headers: { host: 'evil.example' } }, answer => resolve(answer.statusCode)).on('error', reject).end());
    check(`${path} is not for evil.example`, status === 421, String(status));
  }
  for (const [method, path] of [['POST', '/'], ['PUT', '/status'], ['DELETE', '/events']]) {
    const { status } = await fetch(`http://127.0.0.1:${adminPort}${path}`, { method });
    check(`${method} ${path} is refused`, status === 405, String(status));
  }
} catch (error) {
  check('the test comes to its end', false, error.stack);
} finally {
  await browser.close();
  for (const child of [...children]) { child.kill('SIGKILL'); await child.over; }
  if (failed > 0) console.log(readFileSync(join(folder, 'bridge.log'), 'utf8').split('\n').slice(-30).join('\n'));
  rmSync(folder, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
