// Recovery first: what each of its answers leads to.
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { URL, broken, completed, down, events, fakeFetch, fakeTime, json, names, numbers, pass, source, status, whole } from './fake.mjs';

const RECOVER = `${URL}/recover`;

/** Answers recovery's JSON, recovery's event stream, and the stream's own route. Each is a script of its own. */
function routes({ asked, followed = [status(500)], connected = [status(500)] }) {
  const scripts = { asked: fakeFetch(...asked), followed: fakeFetch(...followed), connected: fakeFetch(...connected) };
  const all = [];
  const fetch = (url, init) => {
    const isRecovery = String(url).startsWith(RECOVER);
    const kind = !isRecovery ? 'connected' : new Headers(init.headers).get('accept') === 'text/event-stream' ? 'followed' : 'asked';
    all.push(kind);
    return scripts[kind].fetch(url, init);
  };
  return { fetch, all, ...Object.fromEntries(Object.entries(scripts).map(([kind, { requests }]) => [kind, requests])) };
}

const running = (state = 'active') => json({ status: state, streamId: '42', events: [{ id: 'e1-1', type: 'message', data: '1' }], missing: 0, next: 'e1-1' });
const ended = (more = {}) =>
  json({ status: 'completed', reason: 'eof', streamId: '42', terminalEventType: 'completed', terminalEventData: { answer: 42 }, completedAt: 1, ...more });

test('a stream that runs, is interrupted or is unknown: it connects, and takes no event from the answer', async (t) => {
  for (const asked of [running(), running('interrupted'), status(404, {}, '{"status":"not_found"}'), status(400)]) {
    const route = routes({ asked: [asked], connected: [whole(events(1, 2, 1) + completed(2))] });
    const { source: made, seen } = source(t, { fetch: route.fetch, recover: RECOVER });
    await made.finished;
    assert.deepEqual(route.all, ['asked', 'connected']);
    assert.deepEqual(numbers(seen), [1, 2]);
    assert.equal(new globalThis.URL(route.asked[0].url).search, '?limit=1');
  }
});

test('a stream that has ended is delivered by recovery alone, as it stands on the wire', async (t) => {
  const route = routes({ asked: [ended()], followed: [whole(events(3, 4, 1) + completed(2))] });
  const { source: made, seen } = source(t, { fetch: route.fetch, recover: `${RECOVER}?x=1#part`, lastEventId: 'e1-2' });
  assert.deepEqual(await made.finished, { type: 'completed', data: '{"reason":"eof"}', lastEventId: 'e2-0' });
  assert.deepEqual(route.all, ['asked', 'followed']);
  assert.equal(route.asked[0].url, `${RECOVER}?x=1&limit=1&after=e1-2`);
  assert.equal(route.followed[0].headers.get('last-event-id'), 'e1-2');
  assert.deepEqual([numbers(seen), names(seen).at(-1)], [[3, 4], 'completed']);
});

test('recovery that breaks off is resumed from the cursor', async (t) => {
  fakeTime(t);
  const route = routes({ asked: [ended({ events: [{}], missing: 0 })], followed: [broken(events(1, 2, 1)), whole(events(3, 3, 1) + completed(2))] });
  const { source: made, seen } = source(t, { fetch: route.fetch, recover: RECOVER });
  await pass(60_000);
  await made.finished;
  assert.deepEqual(numbers(seen), [1, 2, 3]);
  // Its own URL is never asked, though events have come.
  assert.deepEqual(route.all, ['asked', 'followed', 'asked', 'asked', 'followed']);
  assert.equal(route.followed[1].headers.get('last-event-id'), 'e1-2');
});

for (const [what, followed] of [
  ['204', status(204)],
  ['an empty response', whole('')],
  ['a response that breaks off', broken('retry: 1000\n')],
]) {
  test(`an end that has no word on the wire is told as recovery says it: ${what}`, async (t) => {
    const route = routes({ asked: [ended({ events: [], missing: 0, status: 'failed', terminalEventType: 'failed' })], followed: [followed] });
    const { source: made, seen } = source(t, { fetch: route.fetch, recover: RECOVER, lastEventId: 'e1-2' });
    assert.deepEqual(await made.finished, { type: 'failed', data: '{"answer":42}', lastEventId: 'e1-2' });
    assert.deepEqual(names(seen).filter((name) => name !== 'open'), ['failed']);
    assert.ok(!route.all.includes('connected'));
  });
}

test('what recovery itself lacks is a gap', async (t) => {
  const route = routes({ asked: [ended({ events: [], missing: 3 })], followed: [broken('')] });
  const { source: made, seen } = source(t, { fetch: route.fetch, recover: RECOVER, lastEventId: 'e1-2' });
  await made.finished;
  assert.deepEqual(names(seen), ['open', 'gap', 'completed']);
  assert.deepEqual(seen[1].detail, { after: 'e1-2', resumesAt: null, missed: 3 });
});

test('recovery that speaks JSON only: its pages, each event once, then the end', async (t) => {
  const page = ({ url }) => {
    const { searchParams } = new globalThis.URL(url);
    const [after, limit] = [Number(searchParams.get('after')?.split('-')[1] ?? 0), Math.min(2, Number(searchParams.get('limit') ?? 2))];
    const all = [1, 2, 3, 4, 5].filter((seq) => seq > after);
    const given = all.slice(0, limit).map((seq) =>
      seq === 4 ? { id: 'e1-4', type: 'custom', data: 'plain', json: null } : { id: `e1-${seq}`, type: 'token', data: `{"type":"token","s":${seq}}`, json: { type: 'token', s: seq } },
    );
    return ended({ events: given, missing: 0, next: all.length > limit ? given.at(-1).id : null })();
  };
  const route = routes({ asked: [page], followed: [page] });
  const { source: made, seen } = source(t, { fetch: route.fetch, recover: RECOVER, lastEventId: 'e1-1' });
  assert.equal((await made.finished).type, 'completed');
  assert.deepEqual(names(seen), ['message', 'message', 'custom', 'message', 'completed']);
  assert.deepEqual(numbers(seen), [2, 3, 5]);
  assert.ok(!route.all.includes('connected'));
});

test('recovery that speaks JSON only: what it lacks is one gap, and another run a restart', async (t) => {
  const page = ended({ events: [{ id: 'e1-5', type: 'message', data: '{"s":5}' }, { id: 'e7-1', type: 'message', data: '{"s":1}' }], missing: 2, next: null });
  const route = routes({ asked: [page], followed: [page] });
  const { source: made, seen } = source(t, { fetch: route.fetch, recover: RECOVER, lastEventId: 'e1-2' });
  await made.finished;
  assert.deepEqual(names(seen), ['gap', 'message', 'restart', 'message', 'completed']);
  assert.deepEqual(seen[0].detail, { after: 'e1-2', resumesAt: 'e1-5', missed: 2 });
});

for (const code of [404, 400]) {
  test(`recovery that speaks JSON only: a page that is answered with ${code} is no end`, async (t) => {
    fakeTime(t);
    const page = (from, next) => ended({ events: [{ id: `e1-${from}`, type: 'message', data: `{"s":${from}}` }], missing: 0, next });
    const asked = [page(1, 'e1-1'), page(1, 'e1-1'), status(code), page(2, null), page(2, null)];
    const route = routes({ asked, followed: [page(1, 'e1-1'), page(2, null)] });
    const { source: made, seen, states } = source(t, { fetch: route.fetch, recover: RECOVER });
    await pass(60_000);
    assert.equal((await made.finished).type, 'completed');
    assert.deepEqual(numbers(seen), [1, 2]);
    assert.equal(states.find(({ state }) => state === 'waiting')?.error.reason, 'unfinished');
  });
}

test('recovery that speaks JSON only: its pages leave no listeners on the signal of their attempt', async (t) => {
  const counts = [];
  const fetch = async (url, { signal }) => {
    counts.push(getEventListeners(signal, 'abort').length);
    const seq = Number(new globalThis.URL(url).searchParams.get('after')?.split('-')[1] ?? 0) + 1;
    return ended({ events: [{ id: `e1-${seq}`, type: 'message', data: `{"s":${seq}}` }], missing: 0, next: seq < 20 ? `e1-${seq}` : null })();
  };
  const { source: made, seen } = source(t, { fetch, recover: RECOVER });
  await made.finished;
  assert.equal(numbers(seen).length, 20);
  assert.deepEqual([...new Set(counts)], [0]);
});

test('`Retry-After` counts where recovery is followed, too', async (t) => {
  fakeTime(t);
  const route = routes({ asked: [ended({ events: [{}], missing: 0 })], followed: [status(503, { 'retry-after': '20' }), whole(events(1, 1, 1) + completed(2))] });
  const { source: made } = source(t, { fetch: route.fetch, recover: RECOVER });
  await pass(10_000);
  assert.deepEqual(route.all, ['asked', 'followed'], 'nothing is asked meanwhile');
  await pass(60_000);
  assert.equal((await made.finished).type, 'completed');
  assert.ok(route.asked[1].at - route.followed[0].at >= 20_000);
});

test('after an attempt without an event recovery is asked again; after one with events it is not', async (t) => {
  fakeTime(t);
  const route = routes({ asked: [running()], connected: [broken(events(1, 1, 1)), down(), broken(events(2, 2, 1)), whole(completed(2))] });
  const { source: made } = source(t, { fetch: route.fetch, recover: RECOVER });
  await pass(60_000);
  await made.finished;
  assert.deepEqual(route.all, ['asked', 'connected', 'connected', 'asked', 'connected', 'connected']);
});

test('204 on the stream: recovery knows how it ended', async (t) => {
  const route = routes({ asked: [running(), ended({ status: 'cancelled', terminalEventType: 'cancelled', terminalEventData: { reason: 'stopped' } })], connected: [status(204)] });
  const { source: made } = source(t, { fetch: route.fetch, recover: RECOVER });
  assert.deepEqual(await made.finished, { type: 'cancelled', data: '{"reason":"stopped"}', lastEventId: '' });
});

test('recovery that fails is a failed attempt', async (t) => {
  fakeTime(t);
  const route = routes({ asked: [down(), status(503, { 'retry-after': '20' }), running()], connected: [whole(completed(2))] });
  const { source: made } = source(t, { fetch: route.fetch, recover: RECOVER });
  await pass(60_000);
  await made.finished;
  assert.deepEqual(route.all, ['asked', 'asked', 'asked', 'connected']);
  assert.ok(route.asked[2].at - route.asked[1].at >= 20_000);
});

for (const [what, answer, wanted] of [
  ['401', status(401), { reason: 'status', status: 401 }],
  ['405', status(405), { reason: 'status', status: 405 }],
  ['a page', whole('<html>', { 'content-type': 'text/html' }), { reason: 'recover', message: /text\/html/ }],
  ['other JSON', json({ hello: 1 }), { reason: 'recover', message: /status/ }],
  ['JSON that is none', whole('{', { 'content-type': 'application/json' }), { reason: 'recover' }],
]) {
  test(`a recovery URL that cannot be one is final: ${what}`, async (t) => {
    const route = routes({ asked: [answer] });
    const { source: made } = source(t, { fetch: route.fetch, recover: RECOVER });
    await assert.rejects(made.finished, wanted);
    assert.deepEqual(route.all, ['asked']);
  });
}

test('recovery is a GET with the headers of the source, without body and key', async (t) => {
  const route = routes({ asked: [ended()], followed: [whole(completed(2))] });
  const { source: made } = source(t, { fetch: route.fetch, recover: RECOVER, method: 'POST', body: { q: 1 }, headers: { authorization: 'a' } });
  await made.finished;
  for (const { method, body, headers } of [...route.asked, ...route.followed]) {
    assert.deepEqual([method, body ?? null], ['GET', null]);
    assert.deepEqual([headers.get('authorization'), headers.get('idempotency-key'), headers.get('content-type')], ['a', null, null]);
  }
});

test('recovery that does not answer is given up', async (t) => {
  fakeTime(t);
  const route = routes({ asked: [() => new Promise(() => {}), running()], connected: [whole(completed(2))] });
  const { source: made } = source(t, { fetch: route.fetch, recover: RECOVER });
  await pass(30_000);
  assert.equal((await made.finished).type, 'completed');
});
