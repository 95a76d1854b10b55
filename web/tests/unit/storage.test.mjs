// What a source keeps in `sessionStorage`, and for how long.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { URL, completed, events, fakeFetch, fakeStorage, fakeTime, global, json, numbers, open, pass, settle, source, status, whole } from './fake.mjs';

test('`storage` keeps the cursor, a reload resumes from it, and the end removes it', async (t) => {
  fakeTime(t);
  const map = fakeStorage(t);
  const first = fakeFetch(() => {
    const stream = open();
    stream.send(events(1, 3, 1));
    return stream.response;
  });
  const { source: before } = source(t, { fetch: first.fetch, storage: 'cursor' });
  await settle();
  assert.deepEqual([...map], [['cursor', 'e1-3']]);
  before.close();
  assert.equal(map.size, 1, 'a page that is left closes its source, and comes back');

  const second = fakeFetch(whole(events(4, 5, 1) + completed(2)));
  const { source: after, seen } = source(t, { fetch: second.fetch, storage: 'cursor' });
  await after.finished;
  assert.equal(second.requests[0].headers.get('last-event-id'), 'e1-3');
  assert.deepEqual([numbers(seen), map.size], [[4, 5], 0]);
});

test('a source that its page closes at the terminal event has ended: nothing is kept, and the promise is kept', async (t) => {
  fakeTime(t);
  for (const recover of [undefined, 'http://h/recover']) {
    const map = fakeStorage(t);
    const ended = json({ status: 'completed', terminalEventType: 'completed', terminalEventData: { tokens: 2 }, missing: 0 });
    const { fetch } = fakeFetch(...(recover ? [ended, ended, ended] : [whole(events(1, 2, 1) + completed(2))]));
    const { source: made } = source(t, { fetch, recover, storage: 'cursor' });
    made.addEventListener('completed', () => made.close());
    const { type } = await made.finished;
    assert.deepEqual([type, made.state, map.size], ['completed', 'ended', 0]);
  }
});

test('an explicit cursor goes before the kept one', async (t) => {
  fakeStorage(t).set('cursor', 'e1-3');
  const { fetch, requests } = fakeFetch(() => open().response);
  source(t, { fetch, storage: 'cursor', lastEventId: 'e1-1' });
  await settle();
  assert.equal(requests[0].headers.get('last-event-id'), 'e1-1');
});

test('the cursor that is kept is that of the last event a loop is done with', async (t) => {
  const map = fakeStorage(t);
  const stream = open();
  const { source: made } = source(t, { fetch: fakeFetch(() => stream.response).fetch, storage: 'cursor' });
  const iterator = made[Symbol.asyncIterator]();
  stream.send(events(1, 5, 1));
  await settle();
  assert.equal(map.get('cursor'), undefined);
  await iterator.next();
  await iterator.next();
  assert.equal(map.get('cursor'), 'e1-1', 'the second is still being worked on');
  await iterator.next();
  assert.equal(map.get('cursor'), 'e1-2');
});

test('what is kept outlives the end of the stream until a slow loop has been given it: a reload resumes', async (t) => {
  const map = fakeStorage(t);
  const { fetch, requests } = fakeFetch(whole(events(1, 3, 1) + completed(2)), () => open().response);
  const options = { fetch, body: 'q', storage: 'cursor' };
  const { source: made } = source(t, options);
  const iterator = made[Symbol.asyncIterator]();
  await made.finished;
  await iterator.next();
  await iterator.next();
  assert.deepEqual([made.state, map.get('cursor')], ['ended', 'e1-1']);
  // The page is reloaded here.
  const { source: reloaded } = source(t, options);
  await settle();
  const [first, second] = requests.map(({ headers }) => headers);
  assert.deepEqual([second.get('last-event-id'), second.get('idempotency-key')], ['e1-1', first.get('idempotency-key')]);
  reloaded.close();

  await iterator.next();
  assert.equal(map.get('cursor'), 'e1-2');
  assert.equal((await iterator.next()).value.type, 'completed');
  assert.equal(map.size, 0);
});

test('the slowest of several loops decides how long that is', async (t) => {
  const map = fakeStorage(t);
  const { source: made } = source(t, { fetch: fakeFetch(whole(events(1, 2, 1) + completed(2))).fetch, storage: 'cursor' });
  const [slow, fast] = [made[Symbol.asyncIterator](), made[Symbol.asyncIterator]()];
  await made.finished;
  for (const _ of [1, 2, 3, 4]) await fast.next();
  assert.equal(map.size, 0, 'the slow one is done with nothing');
  for (const kept of [undefined, 'e1-1', undefined]) {
    await slow.next();
    assert.equal(map.get('cursor'), kept);
  }
});

test('an end that is no event: what is kept goes once the loop asks for more', async (t) => {
  fakeTime(t);
  const map = fakeStorage(t);
  const { source: made } = source(t, { fetch: fakeFetch(whole(events(1, 2, 1)), status(204)).fetch, storage: 'cursor' });
  const iterator = made[Symbol.asyncIterator]();
  await iterator.next();
  await iterator.next();
  await pass(5000);
  assert.deepEqual([made.state, map.get('cursor')], ['ended', 'e1-1'], 'the last event is still being worked on');
  assert.equal((await iterator.next()).done, true);
  assert.equal(map.size, 0);
});

test('a loop that is given the terminal event may begin the next stream: what that keeps stays', async (t) => {
  const map = fakeStorage(t);
  const { fetch, requests } = fakeFetch(whole(events(1, 2, 1) + completed(2)), () => open().response);
  const options = { fetch, body: 'q', storage: 'cursor' };
  const { source: made } = source(t, options);
  for await (const { type } of made) if (type === 'completed') source(t, options);
  await settle();
  const keys = requests.map(({ headers }) => headers.get('idempotency-key'));
  assert.notEqual(keys[0], keys[1]);
  assert.deepEqual([requests[1].headers.get('last-event-id'), map.get('cursor:idempotency-key')], [null, keys[1]]);
});

test('an end that recovery tells is one, too: what is kept goes once the loop has been given it', async (t) => {
  const map = fakeStorage(t);
  const ended = json({ status: 'completed', terminalEventType: 'completed', terminalEventData: {}, events: [], missing: 0 });
  const { source: made } = source(t, { fetch: fakeFetch(ended, status(204), ended).fetch, recover: `${URL}/recover`, storage: 'cursor', lastEventId: 'e1-2' });
  const iterator = made[Symbol.asyncIterator]();
  await made.finished;
  assert.equal(map.get('cursor'), 'e1-2');
  assert.equal((await iterator.next()).value.type, 'completed');
  assert.equal(map.size, 0);
});

for (const [what, finish] of [
  ['was closed', (made) => made.close()],
  ['has given up', (_, stream) => stream.send(`data: ${'x'.repeat(2000)}`)],
]) {
  test(`a source that ${what} writes no more, though a loop still takes what it holds: the storage may be another's`, async (t) => {
    const map = fakeStorage(t);
    const stream = open();
    stream.send(events(1, 3, 1));
    const { source: made } = source(t, { fetch: fakeFetch(() => stream.response).fetch, storage: 'cursor', maxEventBytes: 1000 });
    const iterator = made[Symbol.asyncIterator]();
    await settle();
    finish(made, stream);
    await assert.rejects(made.finished);
    map.set('cursor', 'e5-5');
    for (const _ of [1, 2, 3]) assert.equal((await iterator.next()).value.type, 'message');
    assert.equal(map.get('cursor'), 'e5-5');
  });
}

test('a loop that is left before the end keeps its cursor, whether or not the stream has ended meanwhile', async (t) => {
  const map = fakeStorage(t);
  const running = () => {
    const stream = open();
    stream.send(events(1, 3, 1));
    return stream.response;
  };
  for (const answer of [running, whole(events(1, 3, 1) + completed(2))]) {
    map.clear();
    const { source: made } = source(t, { fetch: fakeFetch(answer).fetch, storage: 'cursor' });
    for await (const { lastEventId } of made) {
      await settle();
      if (lastEventId === 'e1-2') break;
    }
    assert.equal(map.get('cursor'), 'e1-1', made.state);
  }
});

test('a reloaded page repeats its POST with the same key', async (t) => {
  const map = fakeStorage(t);
  const { fetch, requests } = fakeFetch(() => open().response, () => open().response, whole(completed()));
  const options = { fetch, body: 'q', storage: 'cursor' };
  source(t, options).source.close();
  for (const _ of [1, 2]) {
    const { source: made } = source(t, options);
    await settle();
    made.close();
  }
  assert.equal(requests[0].headers.get('idempotency-key'), requests[1].headers.get('idempotency-key'));
  assert.ok(map.has('cursor:idempotency-key'));
  await source(t, options).source.finished;
  assert.equal(map.size, 0);
});

test('a cursor that is refused is forgotten; one that waits for a login is kept', async (t) => {
  const map = fakeStorage(t);
  for (const [code, kept] of [[404, false], [400, false], [401, true], [403, true]]) {
    map.set('cursor', 'e1-3');
    await source(t, { fetch: fakeFetch(status(code)).fetch, storage: 'cursor' }).source.finished.catch(() => {});
    assert.equal(map.has('cursor'), kept, String(code));
  }
});

test('storage that is full, forbidden or missing breaks nothing', async (t) => {
  const fail = () => {
    throw new DOMException('no', 'QuotaExceededError');
  };
  for (const storage of [{ getItem: fail, setItem: fail, removeItem: fail }, { getItem: () => null, setItem: fail, removeItem: fail }, undefined, null]) {
    global(t, 'sessionStorage', storage);
    const { source: made, seen } = source(t, { fetch: fakeFetch(whole(events(1, 2, 1) + completed(2))).fetch, storage: 'cursor' });
    await made.finished;
    assert.deepEqual(numbers(seen), [1, 2]);
  }
  Object.defineProperty(globalThis, 'sessionStorage', { configurable: true, get: fail });
  await source(t, { fetch: fakeFetch(whole(completed())).fetch, storage: 'cursor' }).source.finished;
});

test('a listener that closes the source finds the cursor kept at its event, in the middle of a chunk', async (t) => {
  const map = fakeStorage(t);
  const stream = open();
  const { source: made, seen } = source(t, { fetch: fakeFetch(() => stream.response).fetch, storage: 'cursor' });
  made.addEventListener('message', ({ lastEventId }) => lastEventId === 'e1-3' && made.close());
  stream.send(events(1, 5, 1));
  await settle();
  assert.deepEqual([made.state, numbers(seen), map.get('cursor')], ['closed', [1, 2, 3], 'e1-3']);
});

test('a source that gives up in the middle of a chunk has kept the cursor of its last event', async (t) => {
  const map = fakeStorage(t);
  const { fetch } = fakeFetch(whole(`${events(1, 3, 1)}data: ${'x'.repeat(2000)}\n\n`));
  const { source: made, seen } = source(t, { fetch, storage: 'cursor', maxEventBytes: 1000 });
  await assert.rejects(made.finished, { reason: 'event-too-large' });
  assert.deepEqual([numbers(seen), map.get('cursor')], [[1, 2, 3], 'e1-3']);
});

test('the cursor is kept after each page of a recovery that speaks JSON only', async (t) => {
  const map = fakeStorage(t);
  const ended = { status: 'completed', terminalEventType: 'completed', terminalEventData: {}, missing: 0 };
  const page = json({ ...ended, events: [1, 2].map((s) => ({ id: `e1-${s}`, type: 'message', data: `{"s":${s}}` })), next: 'e1-2' });
  // The question, the request to follow, and the first page. The second page does not come.
  const { fetch, requests } = fakeFetch(page, page, page, () => new Promise(() => {}));
  const { seen } = source(t, { fetch, recover: `${URL}/recover`, storage: 'cursor' });
  await settle();
  assert.deepEqual([requests.length, numbers(seen), map.get('cursor')], [4, [1, 2], 'e1-2']);
});
