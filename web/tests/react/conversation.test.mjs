/** Turns of a conversation: what runs, the next one, and stopping. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Boundary, h, mount, probe } from './harness/page.mjs';
import { serve } from './harness/server.mjs';
import { until } from './harness/until.mjs';

const quick = { minDelay: 1, maxDelay: 1 };
const append = (text, { type, data }) => (type === 'message' ? `${text}${data} ` : text);

/**
 * A conversation on a page. `turn` answers its POSTs; nothing runs when the page is loaded, unless `resume` says otherwise, and
 * `stop` answers DELETEs.
 */
async function chat(t, { turn, resume = (exchange) => exchange.answer(204), stop = (exchange) => exchange.answer(202), options }) {
  const server = await serve(t, (exchange) => ({ POST: turn, GET: resume, DELETE: stop })[exchange.method](exchange));
  const view = probe();
  const url = `${server.url}/chat/42/stream`;
  const element = h(view.Probe, { url, options: { conversation: true, reduce: append, initial: '', ...quick, ...options } });
  const page = mount(t, element, { isStrict: true });
  return { server, view, page, url, element };
}

const isIdle = (view) => () => view.last?.status === 'idle';
const named = { 'x-stream-id': 'turn-1' };

test('204 is idle; send posts a turn and follows it, and the next turn begins anew', async (t) => {
  const { server, view } = await chat(t, { turn: (exchange) => exchange.stream().event(exchange.body, { id: 'e1-1' }).end() });
  await until(isIdle(view), 'nothing runs');
  assert.deepEqual(view.statuses, ['connecting', 'idle']);
  const end = await view.last.send({ question: 1 });
  assert.deepEqual(end, { type: 'completed', data: '{}', lastEventId: 'e2-0' });
  // Who waits for the end finds it on the page.
  assert.equal(view.last.status, 'completed');
  assert.equal(view.last.data, '{"question":1} ');
  const before = view.renders.length;
  view.last.send('plain text');
  await until(() => view.last.data === 'plain text ', 'the next turn');
  assert.deepEqual([view.renders[before].status, view.renders[before].data], ['connecting', '']);
  const [resumed, first, second] = server.exchanges;
  assert.deepEqual([resumed.method, resumed.path], ['GET', '/chat/42/stream']);
  assert.deepEqual([first.method, first.path, first.headers['content-type']], ['POST', '/chat/42', 'application/json']);
  assert.notEqual(first.headers['idempotency-key'], second.headers['idempotency-key']);
  assert.equal(second.headers['last-event-id'], undefined);
  assert.equal(server.exchanges.length, 3);
});

test('a turn that runs already is followed from its first event', async (t) => {
  const { view } = await chat(t, { resume: (exchange) => exchange.stream().count(1, 3).end() });
  await until(() => view.last?.status === 'completed', 'the turn has ended');
  assert.equal(view.last.data, '1 2 3 ');
});

test('a turn that is cut is posted again, with its key, its body and the cursor', async (t) => {
  const { server, view } = await chat(t, { turn: (exchange) => exchange.stream().count(exchange.seen + 1, exchange.seen + 2) });
  await until(isIdle(view), 'nothing runs');
  const sent = view.last.send({ question: 1 });
  await until(() => view.last.data === '1 2 ', 'two events');
  server.with('POST')[0].cut();
  await until(() => view.last.data === '1 2 3 4 ', 'four events');
  server.with('POST')[1].end();
  assert.equal((await sent).type, 'completed');
  const [first, second, ...others] = server.with('POST');
  assert.equal(second.headers['idempotency-key'], first.headers['idempotency-key']);
  assert.equal(second.body, '{"question":1}');
  assert.deepEqual([first, second].map(({ headers }) => headers['last-event-id']), [undefined, 'e1-2']);
  assert.equal(others.length, 0);
});

test('an Idempotency-Key in the headers does not make two turns one', async (t) => {
  const { server, view } = await chat(t, {
    turn: (exchange) => exchange.stream().end(),
    options: { headers: { 'Idempotency-Key': 'mine', 'x-token': 'abc' } },
  });
  await until(isIdle(view), 'nothing runs');
  await view.last.send({});
  await view.last.send({});
  const [first, second] = server.with('POST');
  assert.notEqual(first.headers['idempotency-key'], second.headers['idempotency-key']);
  assert.equal(first.headers['x-token'], 'abc');
});

test('a stored cursor and recovery, which concern one stream, are not used for a conversation', async (t) => {
  t.after(() => sessionStorage.clear());
  sessionStorage.setItem('chat', 'e1-7');
  const { server, view } = await chat(t, {
    turn: (exchange) => exchange.stream().count(1, 2),
    options: { storage: 'chat', recover: 'http://127.0.0.1:1/recover' },
  });
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => view.last.data === '1 2 ', 'it runs');
  assert.ok(server.exchanges.every(({ headers }) => headers['last-event-id'] === undefined));
  assert.equal(sessionStorage.getItem('chat'), 'e1-7');
  assert.equal(sessionStorage.getItem('chat:idempotency-key'), null);
});

test('a turn that gave up is tried again by reconnect, with the same key', async (t) => {
  let isBroken = true;
  const { server, view } = await chat(t, { turn: (exchange) => (isBroken ? exchange.answer(503) : exchange.stream().count(1, 1).end()) });
  await until(isIdle(view), 'nothing runs');
  await assert.rejects(view.last.send({ question: 1 }), { reason: 'attempts' });
  await until(() => view.last.status === 'error', 'it has given up');
  isBroken = false;
  view.last.reconnect();
  await until(() => view.last.status === 'completed', 'the turn has ended');
  const posts = server.with('POST');
  assert.equal(posts.length, 3 + 1);
  assert.equal(new Set(posts.map(({ headers }) => headers['idempotency-key'])).size, 1);
});

test('a turn that is refused because another one runs is an error, and reconnect shows the one that runs', async (t) => {
  let runs = false;
  const { server, view } = await chat(t, {
    turn: (exchange) => exchange.answer(409),
    resume: (exchange) => (runs ? exchange.stream().count(1, 3) : exchange.answer(204)),
  });
  await until(isIdle(view), 'nothing runs');
  runs = true;
  await assert.rejects(view.last.send({ question: 1 }), { status: 409 });
  await until(() => view.last.status === 'error', 'it is refused');
  view.last.reconnect();
  await until(() => view.last.data === '1 2 3 ', 'the one that runs');
  assert.equal(server.with('POST').length, 1);
});

test('a turn in the place of another one closes it, and shows nothing of it', async (t) => {
  const { server, view } = await chat(t, { turn: (exchange) => exchange.stream().event(exchange.body, { id: 'e1-1' }) });
  await until(isIdle(view), 'nothing runs');
  const first = view.last.send('one');
  await until(() => view.last.data === 'one ', 'the first turn');
  view.last.send('two');
  await assert.rejects(first, { reason: 'closed' });
  await until(() => view.last.data === 'two ', 'the second turn');
  await until(() => server.open === 1, 'one connection is open');
});

test('a turn that takes the place of another one in the middle of its events shows none of them', async (t) => {
  const { server, view } = await chat(t, {
    turn: (exchange) => (server.with('POST').length === 1 ? exchange.stream().count(1, 200) : exchange.stream().event('two', { id: 'e1-1' })),
    options: { terminal: ({ data }) => data === '100' && queueMicrotask(() => view.last.send({})) },
  });
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => view.last.data.includes('two'), 'the second turn');
  assert.equal(view.last.data, 'two ');
});

test('components share a conversation, and the turns that one of them sends', async (t) => {
  const { server, view, page, url, element } = await chat(t, { turn: (exchange) => exchange.stream().count(1, 2) });
  const other = probe('other');
  const options = { conversation: true, reduce: append, initial: '', ...quick };
  page.render([h('div', { key: 1 }, element), h(other.Probe, { key: 2, url, options })]);
  await until(() => isIdle(view)() && isIdle(other)(), 'nothing runs');
  other.last.send({});
  await until(() => view.last.data === '1 2 ' && other.last.data === '1 2 ', 'both show the turn');
  assert.equal(server.with('POST').length, 1);
  page.unmount();
  await until(() => server.open === 0, 'no connection is open');
});

test('an unmount rejects what was sent, and later calls do nothing', async (t) => {
  const { server, view, page } = await chat(t, { turn: (exchange) => exchange.stream() });
  await until(isIdle(view), 'nothing runs');
  const sent = view.last.send({});
  await until(() => view.last.status === 'connected', 'it runs');
  page.unmount();
  await assert.rejects(sent, { reason: 'closed' });
  await until(() => server.open === 0, 'no connection is open');
  await assert.rejects(view.last.send({}), /nothing is connected/);
  assert.equal(await view.last.stop(), false);
  view.last.reconnect();
  assert.equal(server.with('POST').length, 1);
  assert.equal(server.with('GET').length, 1);
});

test('stop asks the server to stop this very turn, and shows how it ended', async (t) => {
  const { server, view } = await chat(t, {
    turn: (exchange) => exchange.stream(named).count(1, 2),
    stop: (exchange) => {
      exchange.answer(202);
      server.with('POST')[0].end('cancelled', '{"reason":"stopped"}');
    },
    options: { headers: { 'x-user-id': 'ada' }, reduce: (all, { type, data }) => [...all, `${type} ${data}`], initial: [] },
  });
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => view.last.data.length === 2, 'it runs');
  assert.equal(await view.last.stop(), true);
  await until(() => view.last.status === 'cancelled', 'it is cancelled');
  assert.equal(view.last.data.at(-1), 'cancelled {"reason":"stopped"}');
  const [request] = server.with('DELETE');
  assert.equal(request.path, '/chat/42/stream?stream=turn-1');
  assert.equal(request.headers['x-user-id'], 'ada');
  assert.equal(request.headers['idempotency-key'], undefined);
  assert.equal(server.open, 0);
});

test('stop closes also where the stream says nothing of its end', async (t) => {
  const { server, view } = await chat(t, { turn: (exchange) => exchange.stream().count(1, 2) });
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => view.last.data === '1 2 ', 'it runs');
  assert.equal(await view.last.stop(), true);
  await until(() => view.last.status === 'cancelled' && server.open === 0, 'it is closed');
});

test('a stop that the server refuses leaves the turn running', async (t) => {
  const { server, view } = await chat(t, { turn: (exchange) => exchange.stream().count(1, 2), stop: (exchange) => exchange.answer(403) });
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => view.last.data === '1 2 ', 'it runs');
  await assert.rejects(view.last.stop(), /status 403/);
  server.with('POST')[0].count(3, 3);
  await until(() => view.last.data === '1 2 3 ', 'it runs on');
  assert.equal(view.last.status, 'connected');
});

test('a stop that overtakes its turn is repeated when the turn has begun', async (t) => {
  const { server, view } = await chat(t, {
    turn: () => {},
    stop: (exchange) => exchange.answer(server.with('DELETE').length === 1 ? 404 : 202),
  });
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => server.with('POST').length === 1, 'it is sent');
  const stopped = view.last.stop();
  await until(() => server.with('DELETE').length === 1, 'the server is asked to stop it');
  server.with('POST')[0].stream(named).count(1, 1);
  assert.equal(await stopped, true);
  assert.deepEqual(server.with('DELETE').map(({ path }) => path), ['/chat/42/stream', '/chat/42/stream?stream=turn-1']);
  await until(() => view.last.status === 'cancelled' && server.open === 0, 'it is closed');
});

test('a stop that has met the turn before is repeated, however late its answer is', async (t) => {
  const { server, view } = await chat(t, {
    turn: () => {},
    stop: (exchange) => server.with('DELETE').length > 1 && exchange.answer(202),
  });
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => server.with('POST').length === 1, 'it is sent');
  const stopped = view.last.stop();
  await until(() => server.with('DELETE').length === 1, 'the server is asked to stop it');
  server.with('POST')[0].stream(named).count(1, 1);
  await until(() => view.last.status === 'connected', 'the turn has begun');
  server.with('DELETE')[0].answer(202);
  assert.equal(await stopped, true);
  assert.equal(server.with('DELETE')[1].path, '/chat/42/stream?stream=turn-1');
});

test('stop with a token that has expired asks for a new one', async (t) => {
  const { server, view } = await chat(t, {
    turn: (exchange) => exchange.stream().count(1, 2),
    stop: (exchange) => exchange.answer(exchange.headers.authorization === 'new' ? 202 : 401),
    options: { headers: async ({ unauthorized }) => ({ authorization: unauthorized ? 'new' : 'old' }) },
  });
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => view.last.data === '1 2 ', 'it runs');
  assert.equal(await view.last.stop(), true);
  assert.equal(server.with('DELETE').length, 2);
});

test('with `stop: false` the connection is closed, and the server is asked nothing', async (t) => {
  const { server, view } = await chat(t, { turn: (exchange) => exchange.stream().count(1, 2), options: { stop: false } });
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => view.last.data === '1 2 ', 'it runs');
  assert.equal(await view.last.stop(), false);
  await until(() => view.last.status === 'cancelled' && server.open === 0, 'it is closed');
  assert.equal(server.with('DELETE').length, 0);
});

test('where turns are posted and what stops them can be chosen', async (t) => {
  const server = await serve(t, (exchange) => (exchange.path === '/turns' || exchange.path === '/runs' ? exchange.stream(named).count(1, 2) : exchange.answer(204)));
  const view = probe();
  const options = {
    conversation: { send: `${server.url}/turns` },
    stop: (streamId) => ({ url: `${server.url}/turns/${streamId}/cancel`, method: 'POST' }),
  };
  mount(t, h(view.Probe, { url: `${server.url}/what-runs`, options }));
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => view.last.data === '2', 'it runs');
  assert.equal(await view.last.stop(), true);
  assert.equal(server.exchanges.at(-1).path, '/turns/turn-1/cancel');
  assert.equal(server.exchanges.at(-1).method, 'POST');

  const single = probe();
  mount(t, h(single.Probe, { url: `${server.url}/runs`, options: { stop: `${server.url}/stop` } }));
  await until(() => single.last?.data === '2', 'it runs');
  assert.equal(await single.last.stop(), true);
  assert.deepEqual([server.exchanges.at(-1).method, server.exchanges.at(-1).path], ['DELETE', '/stop']);
});

test('a stream is stopped by DELETE on its own URL', async (t) => {
  const server = await serve(t, (exchange) => (exchange.method === 'GET' ? exchange.stream(named).count(1, 2) : exchange.answer(404)));
  const view = probe();
  mount(t, h(view.Probe, { url: `${server.url}/a?n=5` }));
  await until(() => view.last?.data === '2', 'it runs');
  assert.equal(await view.last.stop(), false);
  assert.deepEqual(server.with('DELETE').map(({ path }) => path), ['/a?n=5']);
  await until(() => view.last.status === 'cancelled' && server.open === 0, 'it is closed');
});

test('a body that cannot be sent twice is refused, and changes nothing', async (t) => {
  const { server, view } = await chat(t, { turn: (exchange) => exchange.stream().count(1, 2) });
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => view.last.data === '1 2 ', 'it runs');
  await assert.rejects(view.last.send(new ReadableStream()), TypeError);
  server.with('POST')[0].count(3, 3);
  await until(() => view.last.data === '1 2 3 ', 'it runs on');
});

test('a turn of which nothing is known any more can still be stopped', async (t) => {
  const { server, view } = await chat(t, {
    turn: (exchange) => (server.with('POST').length === 1 ? exchange.stream(named).count(1, 2) : exchange.answer(502)),
  });
  await until(isIdle(view), 'nothing runs');
  view.last.send({});
  await until(() => view.last.data === '1 2 ', 'it runs');
  server.with('POST')[0].cut();
  await until(() => view.last.status === 'error', 'it has given up');
  assert.equal(await view.last.stop(), true);
  await until(() => view.last.status === 'cancelled', 'it is stopped');
  assert.equal(view.last.error, null);
});

test('stop asks once after the source has given up, and the error stays where the server has nothing to stop', async (t) => {
  const { server, view } = await chat(t, {
    turn: (exchange) => exchange.answer(403),
    stop: (exchange) => exchange.answer(404),
  });
  await until(isIdle(view), 'nothing runs');
  await assert.rejects(view.last.send({}), { status: 403 });
  await until(() => view.last.status === 'error', 'it is refused');
  const shown = view.last;
  assert.equal(await view.last.stop(), false);
  assert.equal(server.with('DELETE').length, 1);
  // A frame later: what `stop` changes would be shown.
  await new Promise((frame) => requestAnimationFrame(frame));
  assert.equal(view.last, shown);
});

test('with `stop: false` the error stays after the source has given up, since there is nothing to close', async (t) => {
  const { server, view } = await chat(t, { turn: (exchange) => exchange.answer(403), options: { stop: false } });
  await until(isIdle(view), 'nothing runs');
  await assert.rejects(view.last.send({}), { status: 403 });
  await until(() => view.last.status === 'error', 'it is refused');
  const shown = view.last;
  assert.equal(await view.last.stop(), false);
  await new Promise((frame) => requestAnimationFrame(frame));
  assert.equal(view.last, shown);
  assert.equal(server.with('DELETE').length, 0);
});

test('a URL that does not say where turns are posted is refused at once', async (t) => {
  t.mock.method(console, 'error', () => {});
  const element = h(probe().Probe, { url: 'http://127.0.0.1:1/chat/42', options: { conversation: true } });
  const page = mount(t, h(Boundary, null, element));
  await until(() => /does not end in \/stream/.test(page.container.textContent), 'the boundary shows it');
});
