/** Which connections the hook opens and closes, counted on the server. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startTransition, Suspense, useEffect, useState } from 'react';
import { h, mount, probe } from './harness/page.mjs';
import { serve } from './harness/server.mjs';
import { until } from './harness/until.mjs';

/** Three events, and no end. */
const running = (exchange) => exchange.stream().count(1, 3);
const hasThree = (view) => () => view.last?.events.length === 3;
const tick = () => new Promise((resolve) => setTimeout(resolve, 0));

test('strict mode opens one connection, and unmounting leaves none', async (t) => {
  const server = await serve(t, running);
  const view = probe();
  const page = mount(t, h(view.Probe, { url: `${server.url}/a` }), { isStrict: true });
  await until(hasThree(view), 'three events');
  assert.equal(server.open, 1);
  page.unmount();
  await until(() => server.open === 0, 'no connection is open');
  assert.equal(server.exchanges.length, 1);
});

test('unmounting closes a connection whose response has not begun', async (t) => {
  const server = await serve(t, () => {});
  const page = mount(t, h(probe().Probe, { url: `${server.url}/a` }));
  await until(() => server.open === 1, 'the request is there');
  page.unmount();
  await until(() => server.open === 0, 'no connection is open');
});

test('components with the same URL and options share one connection', async (t) => {
  const server = await serve(t, running);
  const [one, other] = [probe('one'), probe('other')];
  const options = () => ({ headers: { b: '2', a: '1' }, terminal: new Set(['over']), fetch: (...request) => fetch(...request) });
  const both = (hasOther) => [
    h(one.Probe, { key: 1, url: `${server.url}/a`, options: options() }),
    hasOther && h(other.Probe, { key: 2, url: new URL(`${server.url}/a`), options: { ...options(), headers: { a: '1', b: '2' } } }),
  ];
  const page = mount(t, both(true));
  await until(() => hasThree(one)() && hasThree(other)(), 'both have three events');
  assert.equal(server.exchanges.length, 1);

  page.render(both(false));
  await until(() => !page.container.querySelector('#other'), 'the other one is unmounted');
  await tick();
  assert.equal(server.open, 1);

  page.render(both(true));
  await until(() => page.container.querySelector('#other'), 'the other one is mounted');
  assert.deepEqual(other.last.events, one.last.events);
  page.unmount();
  await until(() => server.open === 0, 'no connection is open');
  assert.equal(server.exchanges.length, 1);
});

test('other options make another connection', async (t) => {
  const server = await serve(t, running);
  const options = [{}, { headers: { a: '1' } }, { maxAttempts: 4 }, { maxAttempts: Infinity }, { terminal: ['over'] }, { method: 'POST' }];
  const views = options.map(() => probe());
  mount(t, views.map((view, key) => h(view.Probe, { key, url: `${server.url}/a`, options: options[key] })));
  await until(() => views.every((view) => hasThree(view)()), 'all have three events');
  assert.equal(server.open, options.length);
});

test('inline options and functions do not reconnect, and the latest functions are called', async (t) => {
  const server = await serve(t, running);
  const view = probe();
  const element = (n) =>
    h(view.Probe, { url: `${server.url}/a`, options: { headers: async () => ({ 'x-render': String(n) }), terminal: () => false, minDelay: 1, maxDelay: 1 } });
  const page = mount(t, element(0), { isStrict: true });
  await until(hasThree(view), 'three events');
  for (let n = 1; n <= 20; n++) {
    const before = view.renders.length;
    page.render(element(n));
    await until(() => view.renders.length > before, 'it is rendered again');
  }
  assert.equal(server.exchanges.length, 1);
  assert.equal(server.exchanges[0].headers['x-render'], '0');
  server.exchanges[0].cut();
  await until(() => server.exchanges.length === 2, 'it has reconnected');
  assert.equal(server.exchanges[1].headers['x-render'], '20');
});

test('another URL closes the connection, and shows nothing of it', async (t) => {
  const server = await serve(t, (exchange) => exchange.stream().event(exchange.path, { id: 'e1-1' }));
  const view = probe();
  function Pair({ path }) {
    return h(view.Probe, { url: `${server.url}${path}`, options: { reduce: (paths, { data }) => [...paths, data], initial: [] } });
  }
  const page = mount(t, h(Pair, { path: '/a' }), { isStrict: true });
  await until(() => view.last?.data.length === 1, 'the first stream');
  const before = view.renders.length;
  page.render(h(Pair, { path: '/b' }));
  await until(() => view.last.data.includes('/b'), 'the second stream');
  const seen = view.renders.slice(before).map(({ data }) => data.join());
  assert.ok(seen.every((paths) => paths === '' || paths === '/b'), seen.join(' | '));
  await until(() => server.open === 1, 'one connection is open');
  assert.deepEqual(server.exchanges.map(({ path }) => path), ['/a', '/b']);
});

test('without a URL nothing is opened', async (t) => {
  const server = await serve(t, running);
  const view = probe();
  const page = mount(t, h(view.Probe, { url: null }));
  await until(() => view.last?.status === 'idle', 'it is idle');
  assert.equal(await view.last.stop(), false);
  view.last.reconnect();
  await tick();
  assert.equal(server.exchanges.length, 0);
  page.render(h(view.Probe, { url: `${server.url}/a` }));
  await until(hasThree(view), 'three events');
  page.render(h(view.Probe, { url: undefined }));
  await until(() => view.last.status === 'idle' && server.open === 0, 'it is closed');
  assert.deepEqual(view.last.events, []);
});

test('a component that takes the place of another one keeps the connection', async (t) => {
  const server = await serve(t, running);
  const view = probe();
  const page = mount(t, h(view.Probe, { key: 'one', url: `${server.url}/a` }));
  await until(hasThree(view), 'three events');
  const before = view.renders.length;
  page.render(h(view.Probe, { key: 'other', url: `${server.url}/a` }));
  await until(() => view.renders.length > before, 'the other one is rendered');
  // Its very first render shows what the connection has brought.
  assert.equal(view.renders[before].events.length, 3);
  await tick();
  assert.equal(server.open, 1);
  assert.equal(server.exchanges.length, 1);
});

test('a render that is thrown away opens nothing', async (t) => {
  const server = await serve(t, running);
  const view = probe();
  const never = new Promise(() => {});
  let show;
  function Page() {
    const [isShown, setShown] = useState(false);
    show = setShown;
    return h(Suspense, { fallback: 'loading' }, isShown ? h(view.Probe, { url: `${server.url}/a` }, h(Stuck)) : h('b', null, 'idle'));
  }
  function Stuck() {
    throw never;
  }
  const page = mount(t, h(Page));
  await until(() => page.container.textContent === 'idle', 'the page is there');
  startTransition(() => show(true));
  await until(() => view.renders.length > 0, 'it was rendered');
  await tick();
  page.unmount();
  await tick();
  assert.equal(server.exchanges.length, 0);
});

test('mounting again after an unmount is another connection, from the beginning', async (t) => {
  const server = await serve(t, running);
  const view = probe();
  const element = h(view.Probe, { url: `${server.url}/a`, options: { reduce: (sum, { data }) => sum + Number(data), initial: 0 } });
  const page = mount(t, element);
  await until(() => view.last?.data === 6, 'three events');
  page.render(null);
  await until(() => server.open === 0, 'it is closed');
  page.render(element);
  await until(() => server.exchanges.length === 2 && view.last.data === 6, 'it is open again');
  assert.equal(server.exchanges[1].headers['last-event-id'], undefined);
});

test('a POST keeps one Idempotency-Key, also where it is tried again by hand', async (t) => {
  const server = await serve(t, (exchange) => (exchange.path === '/a' && server.exchanges.length < 2 ? exchange.answer(401) : running(exchange)));
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: { body: { question: 1 } } }), { isStrict: true });
  await until(() => view.last?.status === 'error', 'it is refused');
  view.last.reconnect();
  await until(hasThree(view), 'three events');
  const [first, second] = server.exchanges;
  assert.deepEqual([first.method, first.body], ['POST', '{"question":1}']);
  assert.match(first.headers['idempotency-key'], /^[0-9a-f]{32}$/);
  assert.equal(second.headers['idempotency-key'], first.headers['idempotency-key']);
});

test('where storage is forbidden, a POST that is tried again by hand keeps its Idempotency-Key', async (t) => {
  const forbid = () => assert.fail('storage is forbidden');
  const { sessionStorage } = globalThis;
  globalThis.sessionStorage = { getItem: forbid, setItem: forbid, removeItem: forbid };
  t.after(() => (globalThis.sessionStorage = sessionStorage));
  const server = await serve(t, (exchange) => (server.exchanges.length === 1 ? exchange.answer(503) : running(exchange)));
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: { body: { question: 1 }, storage: 'forbidden', maxAttempts: 1 } }));
  await until(() => view.last?.status === 'error', 'it has given up');
  view.last.reconnect();
  await until(hasThree(view), 'three events');
  const [first, second] = server.exchanges.map(({ headers }) => headers['idempotency-key']);
  assert.match(first, /^[0-9a-f]{32}$/);
  assert.equal(second, first);
});

test('a POST whose key is stored keeps it after a refusal and after its end, and so does a reloaded page', async (t) => {
  t.after(() => sessionStorage.clear());
  sessionStorage.setItem('answer:idempotency-key', 'of the page before');
  const server = await serve(t, (exchange) => {
    if (server.exchanges.length === 2) exchange.answer(408);
    else exchange.stream().count(exchange.seen + 1, exchange.seen + 3);
  });
  const view = probe();
  const options = { body: { question: 1 }, storage: 'answer', minDelay: 1, maxDelay: 1 };
  mount(t, h(view.Probe, { url: `${server.url}/a`, options }));
  await until(hasThree(view), 'three events');
  server.exchanges[0].cut();
  await until(() => view.last.status === 'error', 'it is refused');
  assert.equal(sessionStorage.getItem('answer:idempotency-key'), null);
  view.last.reconnect();
  await until(() => view.last.data === '6', 'three more events');
  assert.equal(server.exchanges[2].headers['last-event-id'], 'e1-3');
  assert.equal(sessionStorage.getItem('answer:idempotency-key'), 'of the page before');

  server.exchanges[2].end();
  await until(() => view.last.status === 'completed', 'it has ended');
  assert.equal(sessionStorage.getItem('answer:idempotency-key'), null);
  view.last.reconnect();
  await until(() => view.last.data === '3', 'the stream from its beginning');
  assert.equal(server.exchanges[3].headers['last-event-id'], undefined);
  assert.equal(sessionStorage.getItem('answer:idempotency-key'), 'of the page before');
  const keys = server.exchanges.map(({ headers }) => headers['idempotency-key']);
  assert.deepEqual(keys, Array(4).fill('of the page before'));
});

test('a key that no page before has stored is stored with the first request', async (t) => {
  t.after(() => sessionStorage.clear());
  const server = await serve(t, running);
  const [posted, read] = [probe('posted'), probe('read')];
  mount(t, [
    h(posted.Probe, { key: 1, url: `${server.url}/a`, options: { method: 'POST', storage: 'posted' } }),
    h(read.Probe, { key: 2, url: `${server.url}/a`, options: { storage: 'read' } }),
  ]);
  await until(() => hasThree(posted)() && hasThree(read)(), 'both have three events');
  const [post] = server.with('POST');
  assert.equal(sessionStorage.getItem('posted:idempotency-key'), post.headers['idempotency-key']);
  // A GET needs none.
  assert.equal(sessionStorage.getItem('read:idempotency-key'), null);
  assert.equal(server.with('GET')[0].headers['idempotency-key'], undefined);
});

test('the options of the event source reach it', async (t) => {
  const server = await serve(t, (exchange) => (exchange.path.startsWith('/recover') ? exchange.answer(404) : exchange.stream().count(4, 4)));
  t.after(() => sessionStorage.clear());
  const view = probe();
  const options = { lastEventId: 'e1-3', recover: `${server.url}/recover`, storage: 'answer', terminal: 'over', keep: 1 };
  mount(t, h(view.Probe, { url: `${server.url}/a`, options }));
  await until(() => view.last?.data === '4', 'an event');
  assert.deepEqual(server.exchanges.map(({ path }) => path), ['/recover?limit=1&after=e1-3', '/a']);
  assert.equal(server.exchanges[1].headers['last-event-id'], 'e1-3');
  await until(() => sessionStorage.getItem('answer') === 'e1-4', 'the cursor is kept');
  server.exchanges[1].event('', { name: 'over' });
  await until(() => view.last.status === 'completed', 'it has ended');
});

test('an aborted signal closes the connection', async (t) => {
  const server = await serve(t, running);
  const view = probe();
  const controller = new AbortController();
  mount(t, h(view.Probe, { url: `${server.url}/a`, options: { signal: controller.signal } }));
  await until(hasThree(view), 'three events');
  controller.abort();
  await until(() => view.last.status === 'idle' && server.open === 0, 'it is closed');
});

test('an effect of a child may use the connection before the parent has subscribed', async (t) => {
  const server = await serve(t, (exchange) => (exchange.method === 'POST' ? running(exchange) : exchange.answer(204)));
  const view = probe();
  function Child() {
    useEffect(() => void view.last.send({ question: 1 }), []);
    return null;
  }
  mount(t, h(view.Probe, { url: `${server.url}/chat/1/stream`, options: { conversation: true } }, h(Child)));
  await until(hasThree(view), 'three events');
  assert.equal(server.with('POST').length, 1);
  assert.equal(server.open, 1);
});
