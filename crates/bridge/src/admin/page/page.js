'use strict';
const KEPT = 50;
const SILENCE_MS = 5000;
const RETRY_MS = 2000;
const $ = id => document.getElementById(id);

let stream = null;
let heardAt = 0;       // when the bridge said something last
let goneAt = 0;        // since when it does not; 0 while it does
let stopped = null;    // what it said when it stopped in order
let full = false;      // it is there, but has too many readers
let lastState = '';
let paused = false;

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}
const number = value => value.toLocaleString('en');
const clock = at => new Date(at).toLocaleTimeString('en-GB');
function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [d, h, m, s] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s} s` : `${s} s`;
}
function short(seconds) {
  if (seconds < 0.001) return '< 1 ms';
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : span(seconds);
}
const fact = (name, value, level) => el('div', {}, el('dt', {}, name), el('dd', level ? { class: level } : {}, value));
const known = (value, say) => value === null || value === undefined ? '–' : say(value);

function showVerdict(state, level, sentence, more) {
  const verdict = $('verdict');
  verdict.className = level;
  verdict.dataset.state = state;
  $('sentence').textContent = sentence;
  $('more').textContent = more || '';
  $('more').hidden = !more;
  document.title = `${state.replace('_', ' ')} – ${$('bridge').textContent}`;
  if (state !== lastState) {
    // A screen reader is told of changes, not of every second.
    $('said').textContent = sentence;
    lastState = state;
  }
}

function spark(rate) {
  const width = 60, height = 20, most = Math.max(1, ...rate);
  const points = rate.map((value, index) =>
    `${width - rate.length + index + 0.5},${(height - 1 - value / most * (height - 2)).toFixed(2)}`);
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  if (points.length) {
    const area = document.createElementNS(svg.namespaceURI, 'polygon');
    area.setAttribute('points', `${width - rate.length + 0.5},${height} ${points.join(' ')} ${width - 0.5},${height}`);
    const line = document.createElementNS(svg.namespaceURI, 'polyline');
    line.setAttribute('points', points.join(' '));
    svg.append(area, line);
  }
  return svg;
}

function category(name, of) {
  const rate = of.rate, now = rate.length ? rate[rate.length - 1] : 0;
  return el('div', { class: 'rate' },
    el('div', {}, el('span', { class: 'name' }, name), el('span', {}, `${number(now)}/s`)),
    spark(rate),
    el('div', { class: 'faint' }, el('span', {}, `${number(of.received)} received`),
      el('span', { title: 'most in a second of the last minute' }, `max ${number(Math.max(0, ...rate))}/s`)));
}

function source(name, of) {
  const inTime = of.session_expires_in_seconds;
  const step = (what, value) => el('div', {}, el('b', {}, number(value)), el('span', {}, what));
  const arrow = () => el('span', { 'aria-hidden': 'true' }, '→');
  const oldest = of.oldest_unacknowledged_seconds;
  return el('div', { class: of.session_up ? 'card' : 'card bad', 'data-source': name },
    el('div', {}, el('span', { class: 'name' }, name), ' ',
      el('span', { class: of.session_up ? 'badge' : 'badge error' }, of.session_up ? of.phase : `no session, ${of.phase}`)),
    of.reason ? el('p', { class: 'reason' }, of.reason) : null,
    el('div', { class: 'funnel' }, step('received', of.received), arrow(), step('published', of.published), arrow(),
      step('acknowledged', of.acknowledged)),
    el('dl', {},
      fact('session age', known(of.session_age_seconds, span)),
      fact('vendor drops it in', known(inTime, left => left < 0 ? 'overdue' : span(left)), inTime < 0 ? 'error' : inTime < 15 && inTime !== null ? 'warning' : ''),
      fact('token expires in', known(of.token_expires_in_seconds, left => left < 0 ? 'expired' : span(left)), of.token_expires_in_seconds < 0 ? 'error' : ''),
      fact('unacknowledged', number(of.unacknowledged)),
      fact('oldest of them', known(oldest, span), oldest > 60 ? 'error' : oldest > 5 ? 'warning' : ''),
      fact('latency p50', known(of.latency, latency => short(latency.p50_seconds))),
      fact('latency p99', known(of.latency, latency => short(latency.p99_seconds))),
      fact('redelivered', number(of.redelivered))),
    el('div', { class: 'rates' }, ...Object.entries(of.categories).map(([name, of]) => category(name, of))));
}

function sink(name, of) {
  const retries = Object.entries(of.retries).map(([reason, count]) => `${number(count)} ${reason}`).join(', ');
  const level = of.up ? '' : of.required ? ' error' : ' warning';
  return el('div', { class: of.up ? 'card' : 'card bad', 'data-sink': name },
    el('div', {}, el('span', { class: 'name' }, name), ' ', el('span', { class: `badge${level}` }, of.up ? 'up' : 'down'),
      ' ', el('span', { class: 'faint' }, `for ${span(of.since_seconds)}${of.required ? '' : ', best effort'}`)),
    of.reason ? el('p', { class: 'reason' }, of.reason) : null,
    ...(of.weaknesses || []).map((weakness) => el('p', { class: 'warning' }, weakness)),
    el('dl', {}, fact('records published', number(of.published)), fact('retries', retries || 'none'),
      of.required ? null : fact('dropped', number(of.dropped), of.dropped ? 'warning' : '')));
}

function showStatus(status) {
  $('bridge').textContent = status.bridge;
  $('about').textContent = `viaduct ${status.version}, up for ${span(status.uptime_seconds)}`;
  showVerdict(status.verdict.state, status.verdict.level, status.verdict.sentence);
  // What is wrong stands first.
  const order = up => ([one, a], [other, b]) => up(a) - up(b) || one.localeCompare(other);
  $('sources').replaceChildren(el('h2', {}, 'Sources'), el('div', { class: 'stack' },
    ...Object.entries(status.sources).sort(order(of => of.session_up)).map(([name, of]) => source(name, of))));
  $('sinks').replaceChildren(
    ...Object.entries(status.sinks).sort(order(of => of.up)).map(([name, of]) => sink(name, of)));
  const reasons = {};
  for (const of of Object.values(status.sources))
    for (const [reason, count] of Object.entries(of.dead_lettered)) reasons[reason] = (reasons[reason] || 0) + count;
  $('buried').hidden = Object.keys(reasons).length === 0;
  $('reasons').replaceChildren(el('dl', { class: 'card' },
    ...Object.entries(reasons).map(([reason, count]) => fact(reason, number(count), 'warning'))));
}

function row(note) {
  const to = note.dead_letter ? [`dead letters: ${note.dead_letter}`] :
    note.records.map(record => el('div', {}, `${record.sink}: ${record.destination}`));
  const keys = [...new Set(note.records.map(record => record.key_hash).filter(Boolean))].join(' ');
  return el('tr', {}, el('td', { title: note.time }, clock(note.time)), el('td', {}, note.source),
    el('td', {}, note.type || 'not an event'), el('td', {}, note.id || '–'),
    el('td', note.dead_letter ? { class: 'bad' } : {}, ...(to.length ? to : ['dropped by a route'])), el('td', {}, keys || '–'),
    el('td', { class: 'number' }, number(note.size)));
}

function showEvents(notes) {
  if (paused || !notes.length) return;
  const body = $('events').tBodies[0];
  body.prepend(...notes.slice(-KEPT).reverse().map(row));
  while (body.rows.length > KEPT) body.deleteRow(-1);
  $('none').hidden = true;
}

function heard() {
  heardAt = Date.now();
  goneAt = 0;
  full = false;
  document.body.classList.remove('stale');
}

function connect() {
  if (stream) stream.close();
  let fresh = true;
  stream = new EventSource('events?status');
  stream.addEventListener('status', message => {
    stopped = null;
    heard();
    showStatus(JSON.parse(message.data));
  });
  stream.addEventListener('events', message => {
    if (fresh) $('events').tBodies[0].replaceChildren();
    fresh = false;
    showEvents(JSON.parse(message.data));
  });
  stream.addEventListener('stopped', message => {
    stopped = JSON.parse(message.data);
    showStatus(stopped);
    lost();
  });
  stream.addEventListener('error', lost);
}

function lost() {
  if (stream) stream.close();
  stream = null;
  goneAt = goneAt || Date.now();
  showGone();
  fetch('livez').then(answer => { full = answer.ok; }, () => { full = false; });
  clearTimeout(lost.again);
  lost.again = setTimeout(connect, RETRY_MS);
}

function showGone() {
  document.body.classList.add('stale');
  const known = heardAt ? `Below stands what was known at ${clock(heardAt)}. ` : '';
  const again = `${known}This page tries again by itself.`;
  if (full) {
    showVerdict('full', 'warning', 'The bridge runs, but too many pages follow it: close one of them.', again);
  } else if (stopped) {
    showVerdict('stopped', stopped.verdict.level === 'ok' ? 'gone' : 'warning',
      `The bridge was stopped at ${clock(goneAt)}. ${stopped.verdict.sentence}`, again);
  } else {
    showVerdict('gone', 'error', `The bridge is gone: nothing has answered here for ${span((Date.now() - goneAt) / 1000)}.`,
      `It was killed, it crashed, or the way to it is cut. What it had not acknowledged will be delivered again. ${again}`);
  }
}

$('pause').addEventListener('click', () => {
  paused = !paused;
  $('pause').textContent = paused ? 'go on' : 'pause';
  $('pause').setAttribute('aria-pressed', String(paused));
});
setInterval(() => {
  if (goneAt) showGone();
  else if (heardAt && Date.now() - heardAt > SILENCE_MS) lost();
}, 1000);
connect();
