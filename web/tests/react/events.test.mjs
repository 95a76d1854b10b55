/** What a component is given of a stream's events, and how often it renders for them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startTransition, useLayoutEffect, useState } from 'react';
import { Boundary, h, mount, probe } from './harness/page.mjs';
import { serve } from './harness/server.mjs';
import { until } from './harness/until.mjs';

const quick = { minDelay: 1, maxDelay: 1 };
const sum = (total, { data }) => total + (Number(data) || 0);
const list = (numbers, { data }) => [...numbers, data];

test('events, the latest data and the cursor, from connecting to the end', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream());
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a` }));
  await until(() => view.last?.status === 'connected', 'it is connected');
  assert.deepEqual({ ...view.last }, { ...view.last, data: null, events: [], error: null, lastEventId: null, gap: null });
  server.exchanges[0].event('one', { id: 'e1-1' }).event('{"n":2}', { id: 'e1-2', name: 'tool' });
  await until(() => view.last.events.length === 2, 'two events');
  assert.deepEqual(view.last.events, [
    { type: 'message', data: 'one', lastEventId: 'e1-1' },
    { type: 'tool', data: '{"n":2}', lastEventId: 'e1-2' },
  ]);
  assert.equal(view.last.data, '{"n":2}');
  assert.equal(view.last.lastEventId, 'e1-2');
  server.exchanges[0].end('completed', '{"tokens":2}');
  await until(() => view.last.status === 'completed', 'it has ended');
  // The terminal event is there as soon as the status says so.
  const ended = view.renders.find(({ status }) => status === 'completed');
  assert.equal(ended.data, '{"tokens":2}');
  assert.equal(ended.events.length, 3);
  assert.deepEqual(view.statuses, ['connecting', 'connected', 'completed']);
  assert.equal(await view.last.stop(), false);
});

for (const [name, status] of [
  ['completed', 'completed'],
  ['failed', 'failed'],
  ['cancelled', 'cancelled'],
  ['orphaned', 'orphaned'],
  ['expired', 'expired'],
  ['response.failed', 'failed'],
  ['error', 'failed'],
  ['done', 'completed'],
]) {
  test(`a stream that ends with the event ${name} has the status ${status}`, async (t) => {
    const server = await serve(t, (exchange) => exchange.stream().count(1, 1).end(name));
    const view = probe();
    mount(t, h(view.Probe, { url: `${server.url}/a` }));
    await until(() => view.last?.status === status, 'it has ended');
    assert.equal(server.exchanges.length, 1);
  });
}

test('parse makes the data, and keep bounds the events', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().count(1, 50));
  const [some, none] = [probe(), probe()];
  mount(t, [
    h(some.Probe, { key: 1, url: `${server.url}/a`, options: { parse: (data) => ({ n: Number(data) }), keep: 3 } }),
    h(none.Probe, { key: 2, url: `${server.url}/a`, options: { keep: 0 } }),
  ]);
  await until(() => some.last?.data?.n === 50 && none.last.data === '50', 'all events');
  assert.deepEqual(some.last.events.map(({ data }) => data.n), [48, 49, 50]);
  assert.deepEqual(none.last.events, []);
  assert.ok(some.renders.every(({ events }) => events.length <= 3));
});

test('without keep the latest 1,000 events are held', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().count(1, 2500));
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a` }));
  await until(() => view.last?.data === '2500', 'all events');
  assert.equal(view.last.events.length, 1000);
  assert.equal(view.last.events[0].data, '1501');
});

test('reduce folds every event once, in order, through cuts, and events stays empty', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().count(exchange.seen + 1, exchange.seen + 700));
  const view = probe();
  const options = { ...quick, parse: Number, reduce: (numbers, { type, data }) => (type === 'message' ? [...numbers, data] : numbers), initial: [] };
  mount(t, h(view.Probe, { url: `${server.url}/a`, options }), { isStrict: true });
  for (let connection = 0; connection < 4; connection++) {
    await until(() => view.last?.data.length === 700 * (connection + 1), '700 events more');
    if (connection < 3) server.exchanges[connection].cut();
  }
  server.exchanges[3].end();
  await until(() => view.last.status === 'completed', 'it has ended');
  assert.deepEqual(view.last.data, Array.from({ length: 2800 }, (_, n) => n + 1));
  assert.ok(view.renders.every(({ events }) => events.length === 0));
  assert.equal(server.exchanges.length, 4);
});

test('5,000 events render once a frame', async (t) => {
  const server = await serve(t, async (exchange) => {
    exchange.stream();
    for (let n = 0; n < 5000; n += 25) {
      exchange.count(n + 1, n + 25);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    exchange.end();
  });
  const view = probe();
  let frames = 0;
  const frame = globalThis.requestAnimationFrame;
  globalThis.requestAnimationFrame = (callback) => frame(() => callback((frames += 1)));
  t.after(() => (globalThis.requestAnimationFrame = frame));
  const begun = performance.now();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: { reduce: sum, initial: 0 } }));
  await until(() => view.last?.status === 'completed', 'all events', 20_000);
  const late = (performance.now() - begun) / 100; // frames that a busy machine delays, for which a timer renders
  assert.equal(view.last.data, (5000 * 5001) / 2);
  t.diagnostic(`${view.renders.length} renders in ${frames} frames`);
  // The first render comes with no event, and a second one may tell of the connection.
  assert.ok(view.renders.length <= frames + late + 2, `${view.renders.length} renders in ${frames} frames`);
  assert.ok(view.renders.length < 500, `${view.renders.length} renders`);
  assert.ok(view.renders.length > 2, 'it renders while the events come');
});

test('where no animation frame comes, as in a hidden tab, a timer renders', async (t) => {
  const frame = globalThis.requestAnimationFrame;
  globalThis.requestAnimationFrame = () => 0;
  t.after(() => (globalThis.requestAnimationFrame = frame));
  const server = await serve(t, (exchange) => exchange.stream().count(1, 500));
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a` }));
  await until(() => view.last?.data === '500', 'all events');
  server.exchanges[0].end();
  await until(() => view.last.status === 'completed', 'it has ended');
});

test('the end does not wait for a frame or a timer, which a hidden tab may keep back', async (t) => {
  const { requestAnimationFrame, setTimeout } = globalThis;
  globalThis.requestAnimationFrame = () => 0;
  globalThis.setTimeout = (callback, delay, ...rest) => setTimeout(callback, delay === 100 ? 1e6 : delay, ...rest);
  t.after(() => Object.assign(globalThis, { requestAnimationFrame, setTimeout }));
  const server = await serve(t, (exchange) => exchange.stream().count(1, 500).end());
  const view = probe();
  const page = mount(t, h(view.Probe, { url: `${server.url}/a`, options: { reduce: sum, initial: 0 } }));
  await until(() => view.last?.status === 'completed', 'it has ended');
  assert.equal(view.last.data, 125_250);
  page.unmount();
});

test('a lost connection is resumed after the cursor', async (t) => {
  const server = await serve(t, (exchange) => {
    if (server.exchanges.length === 1) exchange.stream().count(1, 5);
  });
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: quick }));
  await until(() => view.last?.data === '5', 'five events');
  server.exchanges[0].cut();
  await until(() => view.last.status === 'reconnecting' && server.exchanges.length === 2, 'it reconnects');
  assert.equal(server.exchanges[1].headers['last-event-id'], 'e1-5');
  server.exchanges[1].stream().count(6, 10);
  await until(() => view.last.data === '10', 'ten events');
  assert.deepEqual(view.last.events.map(({ data }) => Number(data)), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.deepEqual(view.statuses, ['connecting', 'connected', 'reconnecting', 'connected']);
  // What is tried again is no error.
  assert.ok(view.renders.every(({ error }) => error === null));
});

test('after three attempts without an event it gives up, and reconnect goes on after the cursor', async (t) => {
  let isBroken = true;
  const server = await serve(t, (exchange) => {
    if (server.exchanges.length === 1) exchange.stream().count(1, 5);
    else if (isBroken) exchange.answer(502);
    else exchange.stream().count(exchange.seen + 1, exchange.seen + 5).end();
  });
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: { ...quick, parse: Number, reduce: sum, initial: 0 } }));
  await until(() => view.last?.data === 15, 'five events');
  server.exchanges[0].cut();
  await until(() => view.last.status === 'error', 'it has given up');
  assert.equal(server.exchanges.length, 1 + 3);
  assert.equal(view.last.error.reason, 'attempts');
  assert.equal(view.last.data, 15);
  assert.equal(view.last.lastEventId, 'e1-5');
  isBroken = false;
  view.last.reconnect();
  await until(() => view.last.status === 'completed', 'it has ended');
  assert.equal(view.last.data, 55);
  assert.equal(view.last.error, null);
  assert.equal(server.exchanges.at(-1).headers['last-event-id'], 'e1-5');
});

test('reconnect before the first event begins after the given cursor', async (t) => {
  const server = await serve(t, (exchange) => (server.exchanges.length === 1 ? exchange.answer(401) : exchange.stream().count(exchange.seen + 1, exchange.seen + 1)));
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: { lastEventId: 'e1-7' } }));
  await until(() => view.last?.status === 'error', 'it is refused');
  view.last.reconnect();
  await until(() => view.last.data === '8', 'an event');
});

test('a status that is final is an error at once', async (t) => {
  const server = await serve(t, (exchange) => exchange.answer(404));
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a` }));
  await until(() => view.last?.status === 'error', 'it has given up');
  assert.equal(view.last.error.status, 404);
  assert.equal(server.exchanges.length, 1);
});

test('after the end reconnect begins anew', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().count(1, 4).end());
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: { reduce: sum, initial: 0 } }));
  await until(() => view.last?.status === 'completed', 'it has ended');
  const before = view.renders.length;
  view.last.reconnect();
  await until(() => view.renders.length > before && view.last.status === 'completed', 'it has ended again');
  assert.equal(view.renders[before].status, 'connecting');
  assert.equal(view.renders[before].data, 0);
  assert.equal(view.last.data, 10);
  assert.equal(server.exchanges[1].headers['last-event-id'], undefined);
});

test('a gap is told, and a restart begins anew', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().count(1, 3));
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: { reduce: list, initial: [] } }));
  await until(() => view.last?.data.length === 3, 'three events');
  const gap = { after: 'e1-3', resumesAt: 'e1-6', missed: 2 };
  server.exchanges[0].event(JSON.stringify(gap), { name: 'gap' }).count(6, 7);
  await until(() => view.last.data.length === 5, 'two more events');
  assert.deepEqual(view.last.gap, gap);
  server.exchanges[0].event('{"epoch":"2"}', { name: 'restart' }).event('again', { id: 'e2-1' });
  await until(() => view.last.data.includes('again'), 'the new run');
  assert.deepEqual(view.last.data, ['again']);
  assert.equal(view.last.gap, null);
});

for (const [what, resumesAt, isShown] of [
  ['the beginning of the new run is shown', 'e2-101', true],
  ['the end of the old run is not, since the new one is whole', 'e2-1', false],
]) {
  test(`a gap that is told before a restart: ${what}`, async (t) => {
    const server = await serve(t, (exchange) => exchange.stream().count(1, 3));
    const view = probe();
    mount(t, h(view.Probe, { url: `${server.url}/a`, options: { reduce: list, initial: [] } }));
    await until(() => view.last?.data.length === 3, 'three events');
    const gap = { after: 'e1-3', resumesAt, missed: null };
    server.exchanges[0].event(JSON.stringify(gap), { name: 'gap' }).event('{"epoch":"2"}', { name: 'restart' }).event('new', { id: resumesAt });
    await until(() => view.last.data.includes('new'), 'the new run');
    assert.deepEqual(view.last.data, ['new']);
    assert.deepEqual(view.last.gap, isShown ? gap : null);
  });
}

test('a component that mounts late folds the same events', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().count(1, 900));
  const [early, late] = [probe('early'), probe('late')];
  const options = () => ({ reduce: (total, event) => sum(total, event), initial: 0 });
  const both = (hasLate) => [
    h(early.Probe, { key: 1, url: `${server.url}/a`, options: options() }),
    hasLate && h(late.Probe, { key: 2, url: `${server.url}/a`, options: options() }),
  ];
  const page = mount(t, both(false));
  await until(() => early.last?.data === 405_450, '900 events');
  page.render(both(true));
  await until(() => late.last, 'the other one is there');
  assert.equal(late.renders[0].data, 405_450);
  assert.equal(late.last.gap, null);
  server.exchanges[0].count(901, 901);
  await until(() => early.last.data === 406_351 && late.last.data === 406_351, 'one more event');
  assert.equal(server.exchanges.length, 1);
});

test('one that mounts too late takes over the state of its like, and else is told of a gap', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().count(1, 1500));
  const [early, like, other] = [probe('early'), probe('like'), probe('other')];
  const all = (areLate) => [
    h(early.Probe, { key: 1, url: `${server.url}/a`, options: { reduce: sum, initial: 0 } }),
    areLate && h(like.Probe, { key: 2, url: `${server.url}/a`, options: { reduce: sum, initial: 0 } }),
    areLate && h(other.Probe, { key: 3, url: `${server.url}/a`, options: { reduce: list, initial: [] } }),
  ];
  const page = mount(t, all(false));
  await until(() => early.last?.data === 1_125_750, '1,500 events');
  page.render(all(true));
  await until(() => like.last && other.last, 'the others are there');
  assert.equal(like.last.data, 1_125_750);
  assert.equal(like.last.gap, null);
  assert.equal(other.last.data.length, 1000);
  assert.deepEqual(other.last.gap, { after: null, resumesAt: 'e1-501', missed: 500 });
  assert.equal(early.last.gap, null);
  assert.equal(server.exchanges.length, 1);
});

test('a component that wants to keep more, or to hold less, does not disturb the others', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().count(1, 50));
  const [few, many, none] = [probe('few'), probe('many'), probe('none')];
  const all = (isLate) => [
    h(few.Probe, { key: 1, url: `${server.url}/a`, options: { keep: isLate ? 20 : 5 } }),
    isLate && h(many.Probe, { key: 2, url: `${server.url}/a`, options: { keep: 2000 } }),
    isLate && h(none.Probe, { key: 3, url: `${server.url}/a`, options: { keep: 0 } }),
  ];
  const page = mount(t, all(false));
  await until(() => few.last?.data === '50', '50 events');
  page.render(all(true));
  await until(() => many.last && none.last, 'the others are there');
  // The number of events that have gone already cannot be mended; the latest one is always there.
  assert.deepEqual([few, many, none].map(({ last }) => last.data), ['50', '50', '50']);
  for (const [from, to] of [[51, 70], [71, 90], [91, 100]]) {
    server.exchanges[0].count(from, to);
    await until(() => [few, many, none].every(({ last }) => last.data === String(to)), 'some more');
  }
  assert.deepEqual(few.last.events.map(({ data }) => Number(data)), Array.from({ length: 20 }, (_, n) => 81 + n));
  assert.deepEqual(many.last.events.map(({ data }) => Number(data)), Array.from({ length: 55 }, (_, n) => 46 + n));
  assert.deepEqual(none.last.events, []);
});

test('the latest reduce is called', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().count(1, 1));
  const view = probe();
  const element = (name) => h(view.Probe, { url: `${server.url}/a`, options: { reduce: (all, { data }) => `${all}${name}${data} `, initial: '' } });
  const page = mount(t, element('a'));
  await until(() => view.last?.data === 'a1 ', 'one event');
  const before = view.renders.length;
  page.render(element('b'));
  await until(() => view.renders.length > before, 'it is rendered again');
  server.exchanges[0].count(2, 2);
  await until(() => view.last.data === 'a1 b2 ', 'two events');
});

test('an error of reduce reaches the error boundary', async (t) => {
  t.mock.method(console, 'error', () => {});
  const server = await serve(t, (exchange) => exchange.stream().count(1, 3));
  const options = { reduce: () => assert.fail('not this one'), initial: 0 };
  const page = mount(t, h(Boundary, null, h(probe().Probe, { url: `${server.url}/a`, options })));
  await until(() => page.container.textContent === 'not this one', 'the boundary shows it');
  await until(() => server.open === 0, 'the connection is closed');
});

test('what is returned is the same object until something changes', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().count(1, 3));
  const view = probe();
  const element = (n) => h(view.Probe, { url: `${server.url}/a`, options: { reduce: (all) => all + 1, initial: 0, keep: n } });
  const page = mount(t, element(1));
  await until(() => view.last?.data === 3, 'three events');
  const before = view.renders.length;
  page.render(element(2));
  await until(() => view.renders.length > before, 'it is rendered again');
  assert.equal(view.last, view.renders[before - 1]);
  assert.equal(view.renders[0].stop, view.last.stop);
});

test('no commit shows two components at different events', async (t) => {
  const server = await serve(t, async (exchange) => {
    exchange.stream();
    for (let n = 1; exchange.isOpen; n++) {
      exchange.count(n, n);
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
  });
  const views = Array.from({ length: 5 }, () => probe());
  const url = `${server.url}/a`;
  const commits = [];
  let grow;
  /** Takes time, so that React lets events come in between the components of one concurrent render. */
  function Slow() {
    const end = performance.now() + 4;
    while (performance.now() < end);
    return null;
  }
  function Page() {
    const [size, setSize] = useState(0);
    grow = () => startTransition(() => setSize((size + 1) % views.length));
    useLayoutEffect(() => {
      const shown = [...document.querySelectorAll('#probe')].map(({ textContent }) => textContent);
      if (shown.length > 2) commits.push(shown);
    });
    return views.slice(0, size + 1).map(({ Probe }, key) => h('div', { key }, h(Slow), h(Probe, { url })));
  }
  mount(t, h(Page));
  const timer = setInterval(() => grow?.(), 50);
  t.after(() => clearInterval(timer));
  await until(() => commits.length >= 20, 'twenty commits of several components', 30_000);
  for (const shown of commits) assert.equal(new Set(shown).size, 1, shown.join(' | '));
  assert.equal(server.exchanges.length, 1);
});
