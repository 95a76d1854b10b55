// The source as an async iterable: what it gives, when it ends, and how much it holds.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { broken, completed, down, events, fakeFetch, fakeTime, names, numbers, open, pass, settle, source, status, until, whole } from './fake.mjs';

async function collect(iterable) {
  const all = [];
  for await (const event of iterable) all.push(event);
  return all;
}

test('it gives the events, gaps and restarts in order, and ends with the terminal event', async (t) => {
  fakeTime(t);
  const gap = 'event: gap\ndata: {"after":"e1-2","resumesAt":"e1-5","missed":2}\n\n';
  const connected = 'event: connected\ndata: {"streamId":"42"}\n\n';
  const { fetch } = fakeFetch(broken(connected + events(1, 2, 1) + gap), down(), whole(connected + events(5, 6, 1) + completed(2)));
  const { source: made, seen } = source(t, { fetch });
  const collected = collect(made);
  await pass(20_000);
  const all = await collected;
  assert.deepEqual(names(all), ['message', 'message', 'gap', 'message', 'message', 'completed']);
  assert.equal(all[2].detail.missed, 2);
  // They are the very events that listeners get.
  assert.deepEqual(all, seen.filter(({ type }) => type !== 'open' && type !== 'connected'));
});

test('it throws what the source gave up with, once, after the events that came before', async (t) => {
  fakeTime(t);
  const { fetch } = fakeFetch(broken(events(1, 3, 1)), status(404));
  const { source: made } = source(t, { fetch });
  const iterator = made[Symbol.asyncIterator]();
  await pass(20_000);
  assert.equal(made.state, 'gaveup');
  for (const s of [1, 2, 3]) assert.equal(JSON.parse((await iterator.next()).value.data).s, s);
  await assert.rejects(iterator.next(), { reason: 'status', status: 404 });
  assert.deepEqual(await iterator.next(), { done: true, value: undefined });
  await assert.rejects(collect(made), { reason: 'status' }, 'also for one that is made later');
});

test('a loop that waits is told when the source gives up', async (t) => {
  const { fetch } = fakeFetch(status(404));
  const { source: made } = source(t, { fetch });
  await assert.rejects(collect(made), { reason: 'status' });
});

test('a loop that is left closes the source', async (t) => {
  const stream = open();
  const { fetch, requests } = fakeFetch(() => stream.response);
  const { source: made } = source(t, { fetch });
  stream.send(events(1, 5, 1));
  for await (const { data } of made) if (JSON.parse(data).s === 2) break;
  assert.equal(made.state, 'closed');
  await settle();
  assert.ok(requests[0].signal.aborted && stream.cancelled);
});

test('a loop ends when the source is closed', async (t) => {
  const { fetch } = fakeFetch(() => open().response);
  const { source: made } = source(t, { fetch });
  const collected = collect(made);
  await settle();
  made.close();
  assert.deepEqual(await collected, []);
  assert.deepEqual(await collect(made), []);
});

test('several calls of next at once are answered in order', async (t) => {
  const { fetch } = fakeFetch(whole(events(1, 2, 1) + completed(2)));
  const { source: made } = source(t, { fetch });
  const iterator = made[Symbol.asyncIterator]();
  const results = await Promise.all([iterator.next(), iterator.next(), iterator.next(), iterator.next(), iterator.next()]);
  assert.deepEqual(results.map(({ done, value }) => (done ? done : value.type)), ['message', 'message', 'completed', true, true]);
});

for (const [what, size, most] of [
  ['256 small events', 10, 256],
  ['1 Mi characters of large ones', 100_000, 11],
]) {
  test(`a loop that does not take holds no more than that: ${what}`, async (t) => {
    fakeTime(t);
    const stream = open({ 'x-stream-heartbeat': '15' });
    const { fetch } = fakeFetch(() => stream.response);
    const { source: made, seen } = source(t, { fetch });
    const iterator = made[Symbol.asyncIterator]();
    for (let s = 1; s <= 1000; s += 1) stream.send(`data: {"s":${s},"x":"${'x'.repeat(size)}"}\nid: e1-${s}\n\n`);
    await settle();
    assert.equal(seen.length - 1, most);
    const { pulls } = stream;
    // It waits, and takes its own waiting for no silence of the server's.
    await pass(600_000, 10_000);
    assert.deepEqual([made.state, seen.length - 1, stream.pulls], ['open', most, pulls]);
    const taken = [];
    while (taken.length < 1000) taken.push((await iterator.next()).value);
    assert.deepEqual(numbers(taken), Array.from({ length: 1000 }, (_, index) => index + 1), 'nothing is dropped');
    stream.send(completed(2));
    assert.equal((await iterator.next()).value.type, 'completed');
  });
}

test('the slowest of several loops sets the pace, and one that is closed does not', async (t) => {
  const stream = open();
  const { fetch } = fakeFetch(() => stream.response);
  const { source: made, seen } = source(t, { fetch });
  const slow = made[Symbol.asyncIterator]();
  const fast = collect(made);
  for (let chunk = 0; chunk < 10; chunk += 1) stream.send(events(chunk * 100 + 1, chunk * 100 + 100, 1));
  await settle();
  assert.equal(seen.length - 1, 256);
  for (let taken = 0; taken < 10; taken += 1) await slow.next();
  await until('ten more', () => seen.length - 1 === 266);
  await slow.return();
  assert.equal((await fast).length, 266, 'the source is closed, and the fast loop gets what was delivered');
});
