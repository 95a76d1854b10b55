// When the source tries again, when it gives up, and what it asks with: counted with a fetch and a clock that are not real.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { broken, completed, down, events, fakeFetch, fakeTime, names, numbers, open, pass, settle, source, status, whole } from './fake.mjs';

/** The times between the requests, in milliseconds. */
const waits = (requests) => requests.slice(1).map(({ at }, index) => at - requests[index].at);

test('what is asked', async (t) => {
  const { fetch, requests } = fakeFetch(whole(completed()));
  await source(t, { fetch, lastEventId: 'e1-1', headers: { authorization: 'Bearer a' } }).source.finished;
  const [{ method, headers, body }] = requests;
  assert.equal(method, 'GET');
  assert.equal(body, null);
  assert.deepEqual(Object.fromEntries(headers), { accept: 'text/event-stream', authorization: 'Bearer a', 'last-event-id': 'e1-1' });
});

test('a cursor of any characters is sent as an EventSource sends it: in UTF-8', async (t) => {
  const { fetch, requests } = fakeFetch(broken('id: żółw 🐢\ndata: 1\n\n'), whole(completed()));
  fakeTime(t);
  const { source: made } = source(t, { fetch });
  await pass(5000);
  await made.finished;
  assert.equal(Buffer.from(requests[1].headers.get('last-event-id'), 'latin1').toString(), 'żółw 🐢');
});

test('after a cut it resumes from its cursor, and gives each event once', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(broken(events(1, 3)), broken(`${events(4, 5)}data: {"s":6}\nid: e1700000000000-6\n`), whole(events(6, 7) + completed()));
  const { source: made, seen, states } = source(t, { fetch });
  await pass(20_000);
  assert.deepEqual(await made.finished, { type: 'completed', data: '{"reason":"eof"}', lastEventId: 'e1700000000001-0' });
  assert.deepEqual(numbers(seen), [1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(requests.map(({ headers }) => headers.get('last-event-id')), [null, 'e1700000000000-3', 'e1700000000000-5']);
  assert.deepEqual(
    states.map(({ state }) => state),
    ['open', 'waiting', 'connecting', 'open', 'waiting', 'connecting', 'open', 'ended'],
  );
  assert.equal(states[1].error.reason, 'network');
  assert.ok(states[1].delay >= 250 && states[1].delay <= 4000);
});

test('a listener finds the cursor at its event', async (t) => {
  const { fetch } = fakeFetch(whole(events(1, 3, 1) + completed(2)));
  const { source: made } = source(t, { fetch });
  const cursors = [];
  made.addEventListener('message', ({ lastEventId }) => cursors.push([lastEventId, made.lastEventId]));
  await made.finished;
  assert.deepEqual(cursors, [['e1-1', 'e1-1'], ['e1-2', 'e1-2'], ['e1-3', 'e1-3']]);
});

test('a block without data moves the cursor, too', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(broken('data: 1\nid: e1-1\n\nid: e1-2\n\n'), whole(completed(2)));
  const { source: made } = source(t, { fetch });
  await pass(5000);
  await made.finished;
  assert.equal(requests[1].headers.get('last-event-id'), 'e1-2');
});

test('the end of a response is not the end of the stream', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(whole(events(1, 2)), whole(completed()));
  const { source: made, states } = source(t, { fetch });
  await pass(5000);
  await made.finished;
  assert.equal(requests.length, 2);
  assert.equal(states[1].error.reason, 'unfinished');
});

test('204 ends the stream, and says how `finished` settles', async (t) => {
  const { fetch, requests } = fakeFetch(status(204));
  const { source: made, seen } = source(t, { fetch, lastEventId: 'e1-0' });
  assert.deepEqual(await made.finished, { type: 'ended', data: '', lastEventId: 'e1-0' });
  assert.equal(made.state, 'ended');
  assert.deepEqual([requests.length, seen.length], [1, 0]);
});

for (const code of [304, 400, 401, 403, 404, 405, 409, 410, 422]) {
  test(`status ${code} is final`, async (t) => {
    fakeTime(t);
    const { fetch, requests } = fakeFetch(code === 304 ? () => new Response(null, { status: 304 }) : status(code, { 'retry-after': '1' }));
    const { source: made } = source(t, { fetch });
    await assert.rejects(made.finished, { name: 'ResilientEventSourceError', reason: 'status', status: code });
    await pass(60_000, 1000);
    assert.deepEqual([requests.length, made.state, made.error.status], [1, 'gaveup', code]);
  });
}

for (const type of ['text/html', 'application/json', '', 'text/event-streams']) {
  test(`the content type ${type || 'none'} is final`, async (t) => {
    const answer = () => {
      const response = new Response(new Blob(['x']).stream(), { headers: { 'content-type': type || 'x' } });
      if (!type) response.headers.delete('content-type');
      return response;
    };
    const { fetch, requests } = fakeFetch(answer);
    const { source: made } = source(t, { fetch });
    await assert.rejects(made.finished, { reason: 'content-type', message: /text\/event-stream/ });
    assert.equal(requests.length, 1);
  });
}

test('an event stream may say its charset', async (t) => {
  const { fetch } = fakeFetch(whole(completed(), { 'content-type': 'Text/Event-Stream ; charset=utf-8' }));
  assert.equal((await source(t, { fetch }).source.finished).type, 'completed');
});

for (const [what, answer] of [['429', status(429)], ['500', status(500)], ['503', status(503)], ['no connection', down()], ['an empty response', whole('')]]) {
  test(`after ten attempts that bring no event it gives up: ${what}`, async (t) => {
    fakeTime(t);
    const { fetch, requests } = fakeFetch(answer);
    const { source: made, states } = source(t, { fetch });
    await pass(300_000, 500);
    await assert.rejects(made.finished, { reason: 'attempts', message: /10 attempts/ });
    assert.deepEqual([requests.length, made.attempts, made.state], [10, 10, 'gaveup']);
    assert.equal(states.at(-1).error.cause.status, Number(what) || undefined);
    await pass(60_000, 1000);
    assert.equal(requests.length, 10);
  });
}

test('an event begins the count anew; a notice does not', async (t) => {
  fakeTime(t);
  const connected = 'event: connected\ndata: {"streamId":"42"}\n\n';
  const { fetch, requests } = fakeFetch(down(), down(), broken(events(1, 1)), broken(connected));
  const { source: made } = source(t, { fetch, maxAttempts: 3 });
  await pass(120_000, 500);
  await assert.rejects(made.finished, { reason: 'attempts' });
  assert.equal(requests.length, 6, 'three with an event at last, and three without');
});

test('waits grow from 0.25 to 30 s, and each is drawn from its whole range', async (t) => {
  fakeTime(t);
  const least = Array(9).fill(Infinity);
  const most = Array(9).fill(0);
  const all = Array.from({ length: 200 }, () => {
    const { fetch } = fakeFetch(down());
    const { source: made } = source(t, { fetch });
    let attempt = 0;
    made.addEventListener('statechange', ({ detail: { state, delay } }) => {
      if (state !== 'waiting') return;
      least[attempt] = Math.min(least[attempt], delay);
      most[attempt] = Math.max(most[attempt], delay);
      attempt += 1;
    });
    return made;
  });
  await pass(300_000, 1000);
  assert.ok(all.every(({ state }) => state === 'gaveup'));
  const ceilings = [4000, 8000, 16_000, ...Array(6).fill(30_000)];
  for (const [attempt, ceiling] of ceilings.entries()) {
    assert.ok(least[attempt] >= 250 && least[attempt] < 250 + ceiling * 0.1, `attempt ${attempt}: at least ${least[attempt]}`);
    assert.ok(most[attempt] <= ceiling && most[attempt] > ceiling * 0.9, `attempt ${attempt}: at most ${most[attempt]}`);
  }
});

for (const [what, cut] of [
  ['their server gives them no delay', broken(events(1, 1))],
  ['their server gives all of them the same delay', broken(`retry: 2000\n${events(1, 1)}`)],
  ['their server is down for 3 s', broken(events(1, 1))],
  ['their server tells all of them to come again in 5 s', status(503, { 'retry-after': '5' })],
]) {
  test(`a thousand clients that are cut together come back spread over seconds: ${what}`, async (t) => {
    fakeTime(t);
    const begun = Date.now();
    const upAt = what.includes('down') ? begun + 3000 : begun;
    const windows = new Map();
    let count = 0;
    for (let client = 0; client < 1000; client += 1) {
      let first = true;
      const fetch = async () => {
        if (first) return (first = false), cut();
        count += 1;
        const at = Math.floor((Date.now() - begun) / 100);
        windows.set(at, (windows.get(at) ?? 0) + 1);
        if (Date.now() < upAt) throw down();
        return open().response;
      };
      source(t, { fetch });
    }
    await pass(20_000, 100);
    const busiest = Math.max(...windows.values());
    const times = [...windows.keys()];
    t.diagnostic(`at most ${busiest} attempts in 100 ms, ${count} attempts in all, from ${Math.min(...times) / 10} to ${Math.max(...times) / 10} s`);
    assert.ok(busiest <= 150, `${busiest} attempts in 100 ms`);
    assert.ok(Math.max(...times) - Math.min(...times) >= 9, 'spread over a second or more');
    assert.ok(count >= 1000 && count <= 3500, `${count} attempts`);
    await pass(60_000, 1000);
    assert.ok(count <= 3500, `${count} attempts`);
  });
}

test('`retry:` is honoured: no attempt is earlier, and not much later', async (t) => {
  fakeTime(t);
  for (const [retry, least, most] of [[7000, 7000, 10_500], [600, 600, 4000], [60_000, 60_000, 90_000], [0, 250, 4000]]) {
    const { fetch, requests } = fakeFetch(broken(`retry: ${retry}\n${events(1, 1)}`), () => open().response);
    source(t, { fetch });
    await pass(100_000, 50);
    const [wait] = waits(requests);
    assert.ok(wait >= least && wait <= most + 100, `retry: ${retry}, waited ${wait}`);
  }
});

test('`retry:` counts without an event, and until another one is said', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(broken('retry: 9000\n'), down(), () => open().response);
  source(t, { fetch });
  await pass(60_000);
  for (const wait of waits(requests)) assert.ok(wait >= 9000, `waited ${wait}`);
  assert.equal(requests.length, 3);
});

test('`Retry-After` is honoured, in seconds and as a date', async (t) => {
  fakeTime(t);
  for (const [code, value, least, most] of [
    [429, () => '20', 20_000, 30_000],
    [503, () => new Date(Date.now() + 20_000).toUTCString(), 19_000, 30_000],
    [503, () => '120', 120_000, 180_000],
    [503, () => 'soon', 250, 4000],
    [500, () => new Date(Date.now() - 20_000).toUTCString(), 250, 4000],
  ]) {
    const { fetch, requests } = fakeFetch(() => status(code, { 'retry-after': value() })(), () => open().response);
    source(t, { fetch });
    await pass(200_000, 100);
    const [wait] = waits(requests);
    assert.ok(wait >= least && wait <= most + 200, `Retry-After: ${value()}, waited ${wait}`);
  }
});

for (const [what, answer] of [
  ['`retry:` of 20 digits', broken(`retry: ${'9'.repeat(20)}\n\n`)],
  ['`retry:` of 400 digits, which is infinite', broken(`retry: ${'9'.repeat(400)}\n\n`)],
  ['`Retry-After` of 400 digits', status(503, { 'retry-after': '9'.repeat(400) })],
]) {
  test(`a delay that no timer knows is no hammering: ${what}`, async (t) => {
    fakeTime(t);
    const { fetch, requests } = fakeFetch(answer);
    const { states } = source(t, { fetch });
    await pass(600_000, 10_000);
    assert.equal(requests.length, 1);
    assert.equal(states.at(-1).delay, 2 ** 31 - 1);
  });
}

test('no least wait is no hammering: the waits grow all the same', async (t) => {
  fakeTime(t);
  t.mock.method(Math, 'random', () => 0.5);
  const { fetch } = fakeFetch(down());
  const { states } = source(t, { fetch, minDelay: 0 });
  await pass(120_000, 500);
  const delays = states.filter(({ state }) => state === 'waiting').map(({ delay }) => delay);
  assert.deepEqual(delays, [2000, 4000, 8000, ...Array(6).fill(15_000)]);
});

test('a connection that is silent for 2.5 heartbeats is given up; a heartbeat keeps it', async (t) => {
  fakeTime(t);
  const [first, second] = [open({ 'x-stream-heartbeat': '15' }), open()];
  const { fetch, requests } = fakeFetch(() => first.response, () => second.response);
  const { source: made, states } = source(t, { fetch });
  await settle();
  for (let beat = 0; beat < 4; beat += 1) {
    await pass(37_000, 500);
    first.send(': heartbeat\n');
  }
  await pass(37_400, 100);
  assert.deepEqual([requests.length, made.state], [1, 'open']);
  await pass(300, 100);
  assert.equal(made.state, 'waiting');
  assert.equal(states.at(-1).error.reason, 'timeout');
  assert.ok(first.cancelled && requests[0].signal.aborted, 'the dead connection is let go');
  await pass(4000);
  assert.equal(requests.length, 2);
});

for (const [what, options, header, silence] of [
  ['the option goes before the header', { heartbeat: 2 }, '15', 5000],
  ['0 turns it off', { heartbeat: 0 }, '15', null],
  ['no header, no option: never', {}, '', null],
  ['a fraction of a second', {}, '0.2', 500],
]) {
  test(`the watchdog: ${what}`, async (t) => {
    fakeTime(t);
    const stream = open(header ? { 'x-stream-heartbeat': header } : {});
    const { fetch } = fakeFetch(() => stream.response);
    const { source: made } = source(t, { fetch, ...options });
    await pass(silence === null ? 3_600_000 : silence - 100, silence === null ? 60_000 : 50);
    assert.equal(made.state, 'open');
    if (silence !== null) await pass(200);
    assert.equal(made.state, silence === null ? 'open' : 'waiting');
  });
}

test('a request that is never answered is given up, once the heartbeat is known', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(broken(events(1, 1), { 'x-stream-heartbeat': '1' }), () => new Promise(() => {}));
  const { source: made, states } = source(t, { fetch });
  await pass(20_000);
  assert.ok(requests.length >= 2);
  assert.equal(states.findLast(({ state }) => state === 'waiting').error.reason, 'timeout');
  assert.notEqual(made.state, 'gaveup');
});

test('a POST has time to begin', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(() => new Promise(() => {}));
  const { source: made } = source(t, { fetch, body: 'q', heartbeat: 1 });
  await pass(600_000, 10_000);
  assert.deepEqual([requests.length, made.state], [1, 'connecting']);
});

test('a POST that has begun is answered at once, or the connection is dead', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(broken(events(1, 1), { 'x-stream-heartbeat': '1' }), () => new Promise(() => {}), whole(completed()));
  const { source: made } = source(t, { fetch, body: 'q' });
  await pass(60_000, 500);
  assert.equal((await made.finished).type, 'completed');
  assert.equal(requests.length, 3);
});

test('all attempts of a POST carry one key, and their body', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(down(), status(503), broken(events(1, 1)), whole(completed()));
  const { source: made } = source(t, { fetch, method: 'post', body: { question: 'why?' } });
  const { source: other } = source(t, { fetch: fakeFetch(down()).fetch, method: 'POST' });
  await pass(60_000, 500);
  await made.finished;
  const keys = new Set(requests.map(({ headers }) => headers.get('idempotency-key')));
  assert.equal(requests.length, 4);
  assert.equal(keys.size, 1);
  assert.match([...keys][0], /^[A-Za-z0-9._~-]{16,128}$/);
  for (const { method, body, headers } of requests) {
    assert.deepEqual([method, body, headers.get('content-type')], ['POST', '{"question":"why?"}', 'application/json']);
  }
  assert.notEqual(other, made);
});

test('keys differ between sources, and a GET has none', async (t) => {
  const { fetch, requests } = fakeFetch(() => open().response);
  for (const method of ['POST', 'POST', 'GET']) source(t, { fetch, method });
  await settle();
  const keys = requests.map(({ headers }) => headers.get('idempotency-key'));
  assert.equal(new Set(keys).size, 3);
  assert.equal(keys[2], null);
});

test('a key of the host is kept', async (t) => {
  const { fetch, requests } = fakeFetch(() => open().response);
  source(t, { fetch, body: 'q', headers: { 'Idempotency-Key': 'mine' } });
  await settle();
  assert.equal(requests[0].headers.get('idempotency-key'), 'mine');
});

test('headers are asked for at each attempt', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(down(), broken(events(1, 1)), whole(completed()));
  let token = 0;
  const headers = async () => ({ authorization: `Bearer ${(token += 1)}` });
  const { source: made } = source(t, { fetch, headers });
  await pass(60_000);
  await made.finished;
  assert.deepEqual(requests.map((request) => request.headers.get('authorization')), ['Bearer 1', 'Bearer 2', 'Bearer 3']);
});

test('after 401 new headers are tried once', async (t) => {
  const { fetch, requests } = fakeFetch(status(401), whole(completed()));
  const asked = [];
  const headers = (context) => (asked.push(context), { authorization: context.unauthorized ? 'new' : 'old' });
  const { source: made } = source(t, { fetch, headers });
  assert.equal((await made.finished).type, 'completed');
  assert.deepEqual(asked, [{ unauthorized: false }, { unauthorized: true }]);
  assert.deepEqual(requests.map((request) => request.headers.get('authorization')), ['old', 'new']);
});

for (const [what, renew] of [
  ['fails', () => Promise.reject(new Error('no token'))],
  ['does not answer', () => new Promise(() => {})],
]) {
  test(`the 401 is let go where the function that is asked for new headers ${what}`, async (t) => {
    const stream = open();
    const { fetch, requests } = fakeFetch(() => new Response(stream.response.body, { status: 401 }));
    source(t, { fetch, headers: ({ unauthorized }) => (unauthorized ? renew() : {}), minDelay: 60_000 });
    await settle();
    assert.deepEqual([requests.length, stream.cancelled], [1, true]);
  });
}

for (const [what, headers, count] of [
  ['a second 401', ({ unauthorized }) => ({ authorization: unauthorized ? 'new' : 'old' }), 2],
  ['the same headers again', () => ({ authorization: 'old' }), 1],
  ['headers that are no function', { authorization: 'old' }, 1],
]) {
  test(`401 is final: ${what}`, async (t) => {
    fakeTime(t);
    const { fetch, requests } = fakeFetch(status(401));
    const { source: made } = source(t, { fetch, headers });
    await assert.rejects(made.finished, { reason: 'status', status: 401 });
    await pass(60_000, 1000);
    assert.equal(requests.length, count);
  });
}

test('a `headers` function that fails is a failed attempt', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(whole(completed()));
  let calls = 0;
  const headers = async () => {
    calls += 1;
    if (calls < 3) throw new Error('no token yet');
    return {};
  };
  const { source: made, states } = source(t, { fetch, headers });
  await pass(60_000);
  assert.equal((await made.finished).type, 'completed');
  assert.deepEqual([calls, requests.length, states[0].error.reason], [3, 1, 'headers']);
  assert.match(states[0].error.message, /no token yet/);
});

test('an event that is too large is final, and its limit is named', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(() => {
    const stream = open();
    stream.send(`${events(1, 1)}data: ${'x'.repeat(2000)}`);
    return stream.response;
  });
  const { source: made, seen } = source(t, { fetch, maxEventBytes: 1000 });
  await assert.rejects(made.finished, { reason: 'event-too-large', message: /maxEventBytes.*1000 bytes/ });
  await pass(60_000, 1000);
  assert.deepEqual([requests.length, numbers(seen)], [1, [1]]);
});

test('terminal events: by name, by the type of an unnamed payload, by a function, by the id of the end', async (t) => {
  const type = async (text, terminal) => {
    const { fetch } = fakeFetch(whole(text), status(204));
    const { source: made } = source(t, { fetch, terminal, minDelay: 0, maxDelay: 0 });
    return made.finished.then((event) => event.type, (error) => error.reason);
  };
  for (const name of ['completed', 'failed', 'cancelled', 'orphaned', 'expired']) {
    assert.equal(await type(`event: ${name}\ndata: {}\n\n`), name);
    assert.equal(await type(`data: {"type":"${name}","x":1}\n\n`), name);
    assert.equal(await type(`data: {"type":"${name}"}\nid: e5-0\n\n`), name);
    assert.equal(await type(`event: step\ndata: {"type":"${name}"}\n\n`), 'ended', 'a name goes before the payload');
    assert.equal(await type(`data: {"type":"${name}"}\nid: e5-7\n\n`), 'ended', 'the server knows that this is not the end');
  }
  assert.equal(await type('event: done\ndata: x\n\n', 'done'), 'done');
  assert.equal(await type('event: done\ndata: x\n\n', ['finished', 'done']), 'done');
  assert.equal(await type('event: completed\ndata: x\n\n', ['done']), 'ended');
  assert.equal(await type('data: [DONE]\n\n', ({ data }) => data === '[DONE]'), 'message');
  assert.equal(await type('data: [DONE]\nid: e5-0\n\n'), 'message');
  assert.equal(await type('event: message_stop\ndata: {"type":"message_stop"}\nid: uuid.e5-0\n\n', () => false), 'message_stop');
  assert.equal(
    await type('data: x\n\n', () => {
      throw new Error('oh');
    }),
    'terminal',
  );
});

test('the terminal event is dispatched, and nothing after it', async (t) => {
  const stream = open();
  const { fetch, requests } = fakeFetch(() => stream.response);
  const { source: made, seen } = source(t, { fetch });
  stream.send(events(1, 2) + completed() + events(3, 4));
  await made.finished;
  assert.deepEqual(names(seen), ['open', 'message', 'message', 'completed']);
  await settle();
  assert.ok(stream.cancelled && requests[0].signal.aborted);
});

test('options that cannot work are refused', () => {
  const make = (options) => source({ after: (close) => close() }, { fetch: fakeFetch(down()).fetch, ...options });
  for (const name of ['maxAttempts', 'minDelay', 'maxDelay', 'heartbeat', 'maxEventBytes']) {
    assert.throws(() => make({ [name]: NaN }), RangeError);
    assert.throws(() => make({ [name]: -1 }), { name: 'RangeError', message: new RegExp(name) });
    assert.throws(() => make({ [name]: '5' }), RangeError);
  }
  assert.throws(() => make({ body: new ReadableStream() }), { name: 'TypeError', message: /ReadableStream/ });
  const ring = {};
  ring.ring = ring;
  assert.throws(() => make({ body: ring }), TypeError);
});
