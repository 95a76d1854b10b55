/** Streams that the server does not record (`X-Stream-Recorded: false`): it has nothing to go on from. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { h, mount, probe } from './harness/page.mjs';
import { serve } from './harness/server.mjs';
import { until } from './harness/until.mjs';

const unrecorded = { 'x-stream-recorded': 'false' };
const folded = { minDelay: 1, maxDelay: 1, parse: Number, reduce: (numbers, { data }) => [...numbers, data], initial: [] };

/** Sends numbers without ids, from the first one on: three at first, and one more with each request. */
function fromTheBeginning(exchange, count) {
  exchange.stream(unrecorded);
  for (let n = 1; n <= count; n++) exchange.event(n);
}

test('reconnect begins anew where events have no ids', async (t) => {
  const server = await serve(t, (exchange) => fromTheBeginning(exchange, 2 + server.exchanges.length));
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: folded }));
  await until(() => view.last?.data.length === 3, 'three events');
  view.last.reconnect();
  await until(() => view.last.data.includes(4), 'the events of the second response');
  assert.deepEqual(view.last.data, [1, 2, 3, 4]);
  assert.deepEqual(view.statuses, ['connecting', 'connected', 'connecting', 'connected']);
});

test('reconnect begins anew also after the source has given up', async (t) => {
  const server = await serve(t, (exchange) => {
    if (server.exchanges.length === 2) exchange.answer(503);
    else fromTheBeginning(exchange, 2 + server.exchanges.length);
  });
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: { ...folded, maxAttempts: 1 } }));
  await until(() => view.last?.data.length === 3, 'three events');
  server.exchanges[0].cut();
  await until(() => view.last.status === 'error', 'it has given up');
  assert.deepEqual(view.last.data, [1, 2, 3]);
  view.last.reconnect();
  await until(() => view.last.data.includes(5), 'the events of the third response');
  assert.deepEqual(view.last.data, [1, 2, 3, 4, 5]);
});

test('a stream that resumes by ids of its own goes on: after a cut, and by reconnect', async (t) => {
  const server = await serve(t, (exchange) => {
    const seen = Number(exchange.headers['last-event-id'] ?? 0);
    exchange.stream(unrecorded);
    for (let n = seen + 1; n <= seen + 3; n++) exchange.event(n, { id: String(n) });
  });
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: folded }));
  await until(() => view.last?.data.includes(3), 'three events');
  server.exchanges[0].cut();
  await until(() => view.last.data.includes(6), 'six events');
  assert.deepEqual(view.last.data, [1, 2, 3, 4, 5, 6]);
  view.last.reconnect();
  await until(() => view.last.data.includes(9), 'nine events');
  assert.deepEqual(view.last.data, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test('without that header a stream whose events have no ids goes on: it may be a feed of what is new', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().event(server.exchanges.length));
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: folded }));
  await until(() => view.last?.data.includes(1), 'an event');
  view.last.reconnect();
  await until(() => view.last.data.includes(2), 'the next event');
  assert.deepEqual(view.last.data, [1, 2]);
});
