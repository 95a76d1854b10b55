// The source's life: states, the page's events, and what is left when it is over.
import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { ResilientEventSource } from '../../resilient-sse.js';
import { URL, broken, completed, down, events, fakeFetch, fakeTime, global, json, names, numbers, open, pass, settle, source, status, whole } from './fake.mjs';

/** A page: a document that can be hidden, a window that can be offline, and the listeners that both have. */
function fakePage(t) {
  const [target, window] = [new EventTarget(), new EventTarget()];
  const listeners = new Set();
  const page = { listeners, visibilityState: 'visible', baseURI: 'http://stream.test/page/' };
  for (const [object, where] of [[target, 'document'], [window, 'window']]) {
    const { addEventListener, removeEventListener } = object;
    object.addEventListener = (type, listener) => (listeners.add(`${where} ${type}`), addEventListener.call(object, type, listener));
    object.removeEventListener = (type, listener) => (listeners.delete(`${where} ${type}`), removeEventListener.call(object, type, listener));
  }
  Object.defineProperties(target, { visibilityState: { get: () => page.visibilityState }, baseURI: { get: () => page.baseURI } });
  page.show = (state) => ((page.visibilityState = state), target.dispatchEvent(new Event('visibilitychange')));
  page.online = () => window.dispatchEvent(new Event('online'));
  global(t, 'document', target);
  global(t, 'addEventListener', window.addEventListener);
  global(t, 'removeEventListener', window.removeEventListener);
  page.navigator = { onLine: true };
  global(t, 'navigator', page.navigator);
  return page;
}

test('closing settles everything and leaves nothing', async (t) => {
  const page = fakePage(t);
  const stream = open({ 'x-stream-heartbeat': '15' });
  const { fetch, requests } = fakeFetch(() => stream.response);
  const { source: made, states } = source(t, { fetch });
  stream.send(events(1, 1, 1));
  await settle();
  made.close();
  made.close();
  await assert.rejects(made.finished, { name: 'ResilientEventSourceError', reason: 'closed' });
  await settle();
  assert.deepEqual([made.state, states.at(-1).state, states.length], ['closed', 'closed', 2]);
  assert.ok(requests[0].signal.aborted && stream.cancelled);
  assert.equal(page.listeners.size, 0);
});

test('a signal closes it, and is let go', async (t) => {
  const controller = new AbortController();
  const { fetch } = fakeFetch(() => open().response);
  const { source: made } = source(t, { fetch, signal: controller.signal });
  await settle();
  controller.abort('why');
  await assert.rejects(made.finished, { reason: 'closed', cause: 'why' });

  const { signal } = new AbortController();
  let listeners = 0;
  const { addEventListener, removeEventListener } = EventTarget.prototype;
  signal.addEventListener = (...rest) => ((listeners += 1), addEventListener.apply(signal, rest));
  signal.removeEventListener = (...rest) => ((listeners -= 1), removeEventListener.apply(signal, rest));
  await source(t, { fetch: fakeFetch(whole(completed())).fetch, signal }).source.finished;
  assert.equal(listeners, 0);
});

test('a signal that was aborted before, or a source that is closed at once: no request', async (t) => {
  const { fetch, requests } = fakeFetch(() => open().response);
  const { source: aborted } = source(t, { fetch, signal: AbortSignal.abort() });
  const { source: closed } = source(t, { fetch });
  closed.close();
  await assert.rejects(aborted.finished, { reason: 'closed' });
  await settle();
  assert.deepEqual([aborted.state, closed.state, requests.length], ['closed', 'closed', 0]);
});

/** The timers that are set and have not gone off. */
function countTimers(t) {
  const timers = new Set();
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  global(t, 'setTimeout', (run, delay) => {
    const timer = set(() => (timers.delete(timer), run()), delay);
    timers.add(timer);
    return timer;
  });
  global(t, 'clearTimeout', (timer) => (timers.delete(timer), clear(timer)));
  return timers;
}

for (const [what, fetch] of [
  ['the terminal event', fakeFetch(whole(events(1, 2) + completed(), { 'x-stream-heartbeat': '15' })).fetch],
  ['204', fakeFetch(status(204)).fetch],
  ['giving up', fakeFetch(status(404)).fetch],
  ['giving up after attempts', fakeFetch(down()).fetch],
]) {
  test(`nothing is left after ${what}: no listener, no timer`, async (t) => {
    const page = fakePage(t);
    const timers = countTimers(t);
    const { source: made } = source(t, { fetch, minDelay: 1, maxDelay: 1 });
    assert.equal(page.listeners.size, 2);
    await made.finished.catch(() => {});
    await settle();
    assert.deepEqual([page.listeners.size, timers.size], [0, 0]);
  });
}

for (const [state, fetch] of [
  ['open', fakeFetch(() => open({ 'x-stream-heartbeat': '15' }).response).fetch],
  ['waiting', fakeFetch(down()).fetch],
  ['waiting', fakeFetch(status(503, { 'retry-after': '60' })).fetch],
]) {
  test(`nothing is left of a source that is closed while it is ${state}`, async (t) => {
    const page = fakePage(t);
    const timers = countTimers(t);
    const { source: made } = source(t, { fetch });
    await settle();
    assert.deepEqual([made.state, timers.size], [state, 1]);
    page.online();
    made.close();
    await settle();
    assert.deepEqual([page.listeners.size, timers.size], [0, 0]);
  });
}

test('closing while it waits, while it connects, while headers are fetched, while a listener runs', async (t) => {
  fakeTime(t);
  const never = () => new Promise(() => {});
  for (const [state, options] of [
    ['waiting', { fetch: fakeFetch(down()).fetch }],
    ['connecting', { fetch: never }],
    ['connecting', { fetch: fakeFetch(down()).fetch, headers: never }],
    ['connecting', { fetch: never, recover: URL }],
  ]) {
    const { source: made, states } = source(t, options);
    await settle();
    assert.equal(made.state, state);
    made.close();
    const { length } = states;
    await pass(60_000, 1000);
    assert.deepEqual([made.state, states.length], ['closed', length]);
  }
  for (const name of ['open', 'message', 'statechange', 'gap', 'connected']) {
    const text = `event: connected\ndata: {"streamId":"42"}\n\n${events(1, 1, 1)}event: gap\ndata: {"after":null,"resumesAt":null,"missed":1}\n\n${events(2, 3, 1)}${completed(2)}`;
    const { source: made, seen } = source(t, { fetch: fakeFetch(whole(text)).fetch });
    made.addEventListener(name, () => made.close());
    await pass(1000);
    assert.equal(made.state, 'closed', name);
    assert.ok(!names(seen).includes('completed') && numbers(seen).length <= 1, `${name}: nothing is dispatched after it`);
    await assert.rejects(made.finished, { reason: 'closed' });
  }
});

test('a late answer of a fetch that does not heed its signal is cancelled', async (t) => {
  const stream = open();
  let answer;
  const { source: made } = source(t, { fetch: () => new Promise((resolve) => (answer = resolve)) });
  await settle();
  made.close();
  answer(stream.response);
  await settle();
  assert.ok(stream.cancelled);
});

test('nobody who ignores `finished` is bothered', async (t) => {
  const unhandled = mock.fn();
  process.on('unhandledRejection', unhandled);
  t.after(() => process.off('unhandledRejection', unhandled));
  const { source: made } = source(t, { fetch: fakeFetch(status(404)).fetch });
  await settle();
  assert.equal(made.state, 'gaveup');
  assert.equal(unhandled.mock.callCount(), 0);
});

test('a `headers` function that closes its source and then fails bothers nobody', async (t) => {
  const unhandled = mock.fn();
  process.on('unhandledRejection', unhandled);
  t.after(() => process.off('unhandledRejection', unhandled));
  const headers = async () => {
    made.close();
    throw new Error('no token');
  };
  const { source: made } = source(t, { fetch: fakeFetch(down()).fetch, headers });
  await settle();
  assert.deepEqual([made.state, unhandled.mock.callCount()], ['closed', 0]);
});

for (const [what, happen] of [
  ['the page is seen again', (page) => page.show('visible')],
  ['the network is back', (page) => page.online()],
]) {
  test(`${what}: it tries at once, and the count begins anew`, async (t) => {
    fakeTime(t);
    const page = fakePage(t);
    const stream = open();
    const { fetch, requests } = fakeFetch(down(), down(), down(), () => stream.response);
    const { source: made } = source(t, { fetch, minDelay: 20_000 });
    while (requests.length < 3) await pass(10_000, 1000);
    await pass(5000, 1000);
    assert.deepEqual([requests.length, made.state], [3, 'waiting']);
    page.show('hidden');
    await pass(100);
    assert.equal(requests.length, 3, 'hiding is no reason');
    if (what === 'the page is seen again') page.visibilityState = 'visible';
    happen(page);
    await pass(10, 10);
    assert.deepEqual([requests.length, made.state, made.attempts], [4, 'open', 1]);
  });

  test(`${what} a thousand times: attempts are a second apart`, async (t) => {
    fakeTime(t);
    const page = fakePage(t);
    const { fetch, requests } = fakeFetch(down());
    source(t, { fetch, minDelay: 60_000, maxDelay: 60_000 });
    await settle();
    for (let times = 0; times < 1000; times += 1) {
      happen(page);
      if (times % 10 === 0) await pass(100, 50); // 10 s in all
    }
    assert.ok(requests.length >= 8 && requests.length <= 12, `${requests.length} attempts in 10 s`);
    for (const [index, { at }] of requests.slice(1).entries()) assert.ok(at - requests[index].at >= 1000);
  });

  test(`${what}: a server that said \`Retry-After\` is left alone all the same`, async (t) => {
    fakeTime(t);
    const page = fakePage(t);
    const { fetch, requests } = fakeFetch(status(503, { 'retry-after': '60' }));
    source(t, { fetch });
    await pass(10_000, 1000);
    happen(page);
    await pass(10_000, 1000);
    assert.equal(requests.length, 1);
  });
}

test('a connection that fails just after the page is seen again is replaced at once', async (t) => {
  fakeTime(t);
  const page = fakePage(t);
  const stream = open();
  const { fetch, requests } = fakeFetch(() => stream.response, () => open().response);
  const { source: made } = source(t, { fetch, minDelay: 600_000 });
  await pass(2000);
  // A page that was frozen learns of its lost connection only after it is seen again.
  page.show('visible');
  stream.cut();
  await pass(50);
  assert.deepEqual([requests.length, made.state], [2, 'open']);
});

test('only the first attempt after that is at once', async (t) => {
  fakeTime(t);
  const page = fakePage(t);
  const stream = open();
  const { fetch, requests } = fakeFetch(() => stream.response, down());
  source(t, { fetch, minDelay: 600_000 });
  await pass(2000);
  page.show('visible');
  stream.cut();
  await pass(60_000, 500);
  assert.equal(requests.length, 2);
});

test('a connection that died while the device slept is noticed when the page is seen', async (t) => {
  fakeTime(t);
  const page = fakePage(t);
  const { fetch, requests } = fakeFetch(() => open({ 'x-stream-heartbeat': '15' }).response);
  const { source: made, states } = source(t, { fetch });
  await settle();
  mock.timers.setTime(Date.now()); // timers stand still, the clock does not
  const now = Date.now();
  t.mock.method(Date, 'now', () => now + 3_600_000);
  page.show('visible');
  await settle();
  assert.deepEqual([made.state, states.at(-1).error.reason, requests.length], ['waiting', 'timeout', 1]);
});

test('offline it does not give up, and goes on when the network is back', async (t) => {
  fakeTime(t);
  const page = fakePage(t);
  page.navigator.onLine = false;
  const { fetch, requests } = fakeFetch(() => (page.navigator.onLine ? whole(completed())() : Promise.reject(down())));
  const { source: made } = source(t, { fetch, maxAttempts: 3 });
  await pass(600_000, 1000);
  assert.equal(made.state, 'waiting');
  assert.ok(requests.length > 3 && requests.length < 60, `${requests.length} attempts in 10 min`);
  page.navigator.onLine = true;
  page.online();
  await pass(1000);
  assert.equal((await made.finished).type, 'completed');
});

test('the network comes back to a page that is hidden: it has all its attempts again', async (t) => {
  fakeTime(t);
  const page = fakePage(t);
  page.show('hidden');
  page.navigator.onLine = false;
  const stream = open();
  let failures = 0;
  const { fetch } = fakeFetch(() => (page.navigator.onLine && (failures += 1) > 2 ? stream.response : Promise.reject(down())));
  const { source: made } = source(t, { fetch, maxAttempts: 3 });
  await pass(600_000, 1000);
  assert.equal(made.state, 'waiting');
  page.navigator.onLine = true;
  page.online();
  await pass(60_000, 1000);
  assert.deepEqual([made.state, failures], ['open', 3]);
});

test('a URL is resolved against the page; without a page it is taken as it is', async (t) => {
  assert.equal(source(t, { fetch: fakeFetch(down()).fetch }, '/a').source.url, '/a');
  fakePage(t);
  const { fetch, requests } = fakeFetch(json({ status: 'active' }), () => open().response);
  const { source: made } = source(t, { fetch, recover: 'b/recover' }, '../b');
  await settle();
  assert.equal(made.url, 'http://stream.test/b');
  assert.deepEqual(requests.map(({ url }) => url), ['http://stream.test/page/b/recover?limit=1', 'http://stream.test/b']);
});

test('the global fetch is used if none is given', async (t) => {
  const { fetch, requests } = fakeFetch(whole(completed()));
  global(t, 'fetch', fetch);
  await new ResilientEventSource(URL).finished;
  assert.equal(requests.length, 1);
});

test('a listener that throws does not harm the stream', async (t) => {
  const reported = [];
  const before = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', (error) => reported.push(error.message));
  t.after(() => {
    process.removeAllListeners('uncaughtException');
    for (const listener of before) process.on('uncaughtException', listener);
  });
  const { source: made, seen } = source(t, { fetch: fakeFetch(whole(events(1, 3, 1) + completed(2))).fetch });
  made.addEventListener('message', () => {
    throw new Error('oh');
  });
  await made.finished;
  await settle();
  assert.deepEqual([numbers(seen), reported], [[1, 2, 3], ['oh', 'oh', 'oh']]);
});

test('a break with a cursor in the middle of a line keeps the cursor of the whole block before', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(broken('data: 1\nid: e1-1\n\nid: e1-2\n'), whole(completed(2)));
  const { source: made } = source(t, { fetch });
  await pass(5000);
  await made.finished;
  assert.equal(requests[1].headers.get('last-event-id'), 'e1-1');
});
