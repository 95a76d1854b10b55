/**
 * The demo page. Its address names the stream, so that a reload and a second tab find it: `/?stream=ID&n=&rate=&file=`.
 */
import { follow } from './follow.js';
import { Health } from './health.js';
import { Nodes } from './nodes.js';
import { Run } from './run.js';
import { Timeline } from './timeline.js';
import { Transcript } from './transcript.js';

/** A cursor as the server gives them, of a stream that it never had. */
const WRONG_CURSOR = 'e1-1';

const $ = (id) => document.getElementById(id);
const address = new URLSearchParams(location.search);
const nodes = new Nodes(address.getAll('node'));
const timeline = new Timeline($('timeline'));
const transcript = new Transcript($('text'));
new Health($('health'), $('standing'), nodes);

/** @type {Run | null} */
let run = null;
/** @type {ReturnType<typeof follow> | null} */
let source = null;
/** When the next attempt is due, in the time of `Date.now`. */
let due = 0;

/** Begins a generation of its own. */
function begin() {
  leave();
  const { n, rate, file } = Object.fromEntries(new FormData($('begin')));
  const id = `demo-${randomId()}`;
  show(Object.assign(new Run({ id, n: Number(n), rate: Number(rate), file }), { isOwn: true }));
  run.happened('start', `Asked for ${n} events, ${rate} a second.`);
  connect();
}

/** Whoever knows an anonymous stream's id may read it, so nobody must guess one. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Takes up the stream that the address names, if it does. */
function takeUp() {
  const id = address.get('stream');
  if (!id) return show(null);
  const fields = $('begin').elements;
  for (const name of ['n', 'rate', 'file']) {
    const value = address.get(name);
    if ([...fields[name].options].some((option) => option.value === value)) fields[name].value = value;
  }
  const [n, rate] = ['n', 'rate'].map((name) => Number(address.get(name)) || Number(fields[name].value));
  const plan = { id, n, rate, file: address.get('file') ?? fields.file.value };
  const kept = Run.restore(id);
  show(kept ?? new Run(plan));
  if (run.end) return;
  if (kept) run.happened('reload', 'The page was reloaded: it continues after its cursor.');
  else run.happened('start', 'Joined a stream that somebody has begun.');
  connect();
}

/** Lets go of the stream, which runs on. */
function leave() {
  source?.close();
  source = null;
}

function connect(cursor = run.cursor) {
  leave();
  run.cursor = cursor;
  source = follow(run, nodes);
  source.addEventListener('statechange', ({ detail }) => {
    due = Date.now() + (detail.delay ?? 0);
  });
}

function show(shown) {
  run = shown;
  // The run before may still have something to say.
  run?.addEventListener('change', ({ detail }) => run === shown && changed(detail));
  timeline.show(run);
  transcript.show(run);
  $('log').firstElementChild.replaceChildren(...(run?.happenings ?? []).map(entry));
  $('hint').hidden = run !== null;
  $('text').lang = run?.plan.file === 'cicero.txt' ? 'la' : 'en';
  name(run);
  tell();
}

/** Puts the stream into the address. */
function name(run) {
  const query = new URLSearchParams();
  if (run) {
    const { id, ...plan } = run.plan;
    for (const [key, value] of Object.entries({ stream: id, ...plan })) query.set(key, value);
  }
  for (const node of nodes.others) query.append('node', node);
  history.replaceState(null, '', query.size > 0 ? `/?${query}` : '/');
  $('tab').toggleAttribute('href', run !== null);
  if (run) $('tab').href = location.href;
  $('tab').ariaDisabled = String(run === null);
}

/** Shows a change of the run: of one token, of all of them, or something that happened. */
function changed({ s, redraw, happening }) {
  if (redraw) transcript.show(run);
  else if (s !== undefined) tokenArrived(s);
  if (happening) {
    $('timeline').ariaLabel = summary(run);
    transcript.seam(happening.kind);
    const log = $('log');
    log.firstElementChild.append(entry(happening));
    log.scrollTop = log.scrollHeight;
    tell();
  } else {
    tellSoon();
  }
}

/** The timeline in words. */
function summary({ count, happenings, lost }) {
  const breaks = happenings.filter(({ kind }) => kind === 'cut' || kind === 'reload').length;
  return `Events over time: ${count.live} arrived live, ${count.replayed} were replayed after ${breaks} breaks, ${lost.length} gaps.`;
}

function tokenArrived(s) {
  const gap = run.lost.at(-1);
  if (gap?.to === s - 1) transcript.gap(gap.to - gap.from + 1);
  transcript.add(run.tokens[s]);
}

function entry({ at, kind, words }) {
  const [item, time] = ['li', 'time'].map((tag) => document.createElement(tag));
  item.dataset.kind = kind;
  time.textContent = `${(at / 1000).toFixed(1)} s`;
  item.append(time, words);
  return item;
}

let telling = false;

/** Tells before the next frame: many events that come together are told once. */
function tellSoon() {
  if (telling) return;
  telling = true;
  requestAnimationFrame(() => {
    telling = false;
    tell();
  });
}

function tell() {
  const state = !run ? 'idle' : run.end ?? run.states.at(-1)?.state ?? 'connecting';
  const count = run?.count ?? { all: 0, live: 0, replayed: 0, missing: 0 };
  document.body.dataset.state = state;
  $('state').textContent = { open: 'connected', gaveup: 'gave up' }[state] ?? state;
  tellAttempts();
  $('live').textContent = count.live.toLocaleString('en');
  $('replayed').textContent = count.replayed.toLocaleString('en');
  $('gaps').textContent = run ? run.happenings.filter(({ kind }) => kind === 'gap').length : 0;
  $('requests').textContent = run?.requests ?? 0;
  $('cursor').textContent = run?.cursor || 'none';
  $('node').textContent = new URL(nodes.current).host;
  const going = run !== null && !run.end;
  for (const id of ['stop', 'cut', 'reload', 'lose']) $(id).disabled = !going;
  $('start').textContent = going ? 'Start another' : 'Start';
  tellVerdict(count);
  timeline.draw();
}

/** How many attempts there were since the last event, and when the next one is due. */
function tellAttempts() {
  $('attempts').textContent = source?.attempts ?? 0;
  $('due').textContent = source?.state === 'waiting' ? `next in ${Math.max(0, (due - Date.now()) / 1000).toFixed(1)} s` : '';
}

/** The sentence that the demo is about: whether the numbers that arrived are without a hole. */
function tellVerdict({ all, missing }) {
  const told = run?.lost.reduce((sum, { from, to }) => sum + to - from + 1, 0) ?? 0;
  const silent = missing - told;
  const good = silent === 0 && (run?.twice ?? 0) === 0;
  const verdict = $('verdict');
  verdict.dataset.kind = all === 0 ? 'none' : good ? 'good' : 'bad';
  const words = [`${all.toLocaleString('en')} events`, `${silent} missing`, `${run?.twice ?? 0} twice`];
  if (told > 0) words.push(`${told} told as lost`);
  verdict.firstElementChild.textContent = all === 0 ? 'Nothing has arrived yet' : words.join(' · ');
  verdict.dataset.numbers = all === 0 ? '' : `0-${run.tokens.length - 1}`;
}

/** Asks the node for something, and notes it where that fails. */
async function ask(path, method, what) {
  try {
    const response = await nodes.fetch(path, { method });
    if (response.ok) return response;
    run.happened('note', `${what}: the server answered ${response.status}.`);
  } catch {
    run.happened('note', `${what}: the server does not answer.`);
  }
  return null;
}

$('begin').addEventListener('submit', (event) => {
  event.preventDefault();
  begin();
});
$('stop').addEventListener('click', () => ask(run.path, 'DELETE', 'Stop'));
$('cut').addEventListener('click', async () => {
  const asked = run;
  const response = await ask(`/demo/cut/${encodeURIComponent(asked.plan.id)}`, 'POST', 'Cut');
  if (!response) return;
  const { cut } = await response.json();
  asked.happened('note', `The server cuts ${cut === 1 ? '1 connection' : `${cut} connections`}, within an event.`);
});
$('offline').addEventListener('click', () => {
  nodes.offline = !nodes.offline;
});
$('reload').addEventListener('click', () => location.reload());
$('lose').addEventListener('click', () => {
  run.happened('note', `The cursor is lost; the page connects with ${WRONG_CURSOR}.`);
  connect(WRONG_CURSOR);
});

$('kill').addEventListener('click', () => {
  $('address').value = nodes.others[0] ?? '';
  linkThere();
  $('killing').showModal();
});
$('other').addEventListener('submit', () => {
  nodes.others = [$('address').value];
  name(run);
  tell();
});
$('address').addEventListener('input', linkThere);

/** Links to the same stream on the other node. */
function linkThere() {
  const there = $('address').value;
  $('there').hidden = !run || there === '' || !$('address').validity.valid;
  if (!$('there').hidden) $('there').firstElementChild.href = new URL(location.search, there);
}

nodes.addEventListener('change', () => {
  if (run && !run.end) run.happened('node', `Turns to the node at ${new URL(nodes.current).host}.`);
  tellSoon();
});

// The browser's own events, and those that the button plays.
for (const kind of ['offline', 'online']) {
  window.addEventListener(kind, () => {
    $('offline').ariaPressed = String(nodes.offline);
    $('offline').lastChild.textContent = nodes.offline ? ' Come back online' : ' Go offline';
    if (!run || run.end) return;
    run.happened(kind, kind === 'offline' ? 'Offline.' : 'Online again: it tries at once.');
  });
}
window.addEventListener('pagehide', () => {
  if (!run) return;
  run.state(run.end ?? 'connecting');
  run.save();
});

/** Time goes on also while nothing arrives. */
setInterval(() => {
  if (run && !run.end && document.visibilityState === 'visible') {
    tellAttempts();
    timeline.draw();
  }
}, 100);

takeUp();
