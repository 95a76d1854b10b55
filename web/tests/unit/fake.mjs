// A fetch that answers from a script, and time that stands still until it is told to pass.
import assert from 'node:assert/strict';
import { mock } from 'node:test';
import { ResilientEventSource } from '../../resilient-sse.js';

export const URL = 'http://stream.test/answers/42';

/** Takes over timers and the clock for one test. */
export function fakeTime(t) {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_700_000_000_000 });
  t.after(() => mock.timers.reset());
}

/** Lets all promises settle that can without time passing. */
export async function settle() {
  for (let turn = 0; turn < 8; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** Lets time pass, a step at a time, so that a timer set on the way is due in time too. */
export async function pass(milliseconds, step = 50) {
  await settle();
  for (let left = milliseconds; left > 0; left -= step) {
    mock.timers.tick(Math.min(step, left));
    await settle();
  }
}

/** Waits until something is so, for real, with a deadline. */
export async function until(what, condition, limit = 10_000) {
  const deadline = performance.now() + limit;
  while (!condition()) {
    assert.ok(performance.now() < deadline, `waited in vain for ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/**
 * Answers each request with the next item of the script: a function of the request, an error to fail with, or a response's maker. The last
 * item answers all further requests.
 */
export function fakeFetch(...script) {
  const requests = [];
  async function fetch(url, init) {
    const request = { url: String(url), method: init.method, headers: new Headers(init.headers), body: init.body, signal: init.signal, at: Date.now() };
    requests.push(request);
    const item = script[Math.min(requests.length, script.length) - 1];
    const answer = typeof item === 'function' ? await item(request) : item;
    if (answer instanceof Error) throw answer;
    return answer;
  }
  return { fetch, requests };
}

/** A network failure, as fetch has it. */
export const down = () => new TypeError('fetch failed');

const EVENT_STREAM = { 'content-type': 'text/event-stream' };

/** An event stream that ends cleanly after this text. */
export const whole = (text, headers = {}) => () => new Response(text, { headers: { ...EVENT_STREAM, ...headers } });

/** An event stream that breaks off after this text. */
export const broken = (text, headers = {}) => () => {
  const stream = open(headers);
  stream.send(text);
  stream.cut();
  return stream.response;
};

/** Any other answer. */
export const status = (code, headers = {}, body = code === 204 ? null : 'no') => () => new Response(body, { status: code, headers });

/** A JSON answer, as recovery gives. */
export const json = (value) => () => new Response(JSON.stringify(value), { headers: { 'content-type': 'application/json' } });

/** An event stream that stays open until the test says otherwise. */
export function open(headers = {}) {
  let controller;
  const stream = { cancelled: false, pulls: 0 };
  const body = new ReadableStream(
    {
      start: (given) => (controller = given),
      pull: () => void (stream.pulls += 1),
      cancel: () => void (stream.cancelled = true),
    },
    // No chunk is taken ahead of the reader, so that what it does not read stays here.
    { highWaterMark: 0 },
  );
  stream.response = new Response(body, { headers: { ...EVENT_STREAM, ...headers } });
  stream.send = (data) => controller.enqueue(typeof data === 'string' ? new TextEncoder().encode(data) : data);
  stream.end = () => controller.close();
  // The error lets what was sent before it be read first, as a socket does.
  stream.cut = () => setImmediate(() => setImmediate(() => controller.error(new TypeError('terminated'))));
  return stream;
}

/** Events `from` to `to` as the server sends them, with ids of one run. */
export function events(from, to, epoch = 1_700_000_000_000, prefix = '') {
  let text = '';
  for (let seq = from; seq <= to; seq += 1) text += `data: {"s":${seq}}\nid: ${prefix}e${epoch}-${seq}\n\n`;
  return text;
}

export const completed = (epoch = 1_700_000_000_001) => `event: completed\ndata: {"reason":"eof"}\nid: e${epoch}-0\n\n`;

/** Puts something into the global scope for one test. */
export function global(t, name, value) {
  const before = Object.getOwnPropertyDescriptor(globalThis, name);
  Object.defineProperty(globalThis, name, { configurable: true, writable: true, value });
  t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
}

/** A `sessionStorage`, as a map. */
export function fakeStorage(t) {
  const map = new Map();
  global(t, 'sessionStorage', {
    getItem: (key) => map.get(key) ?? null,
    setItem: (key, value) => void map.set(key, String(value)),
    removeItem: (key) => void map.delete(key),
  });
  return map;
}

/** A source that is closed when the test ends, and the list of what it dispatches. */
export function source(t, options, url = URL) {
  const made = new ResilientEventSource(url, options);
  t.after(() => made.close());
  const seen = [];
  const names = ['open', 'message', 'connected', 'gap', 'restart', 'completed', 'failed', 'cancelled', 'orphaned', 'expired', 'custom'];
  for (const name of names) made.addEventListener(name, (event) => seen.push(event));
  const states = [];
  made.addEventListener('statechange', ({ detail }) => states.push(detail));
  return { source: made, seen, states };
}

/** The sequence numbers of the events, which `events` has put there. */
export const numbers = (seen) => seen.filter(({ type }) => type === 'message').map(({ data }) => JSON.parse(data).s);

/** The names of the events. */
export const names = (seen) => seen.map(({ type }) => type);
