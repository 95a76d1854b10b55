// The real fetch against a real server on loopback: what sockets do to a stream.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { completed, events, names, numbers, source, until } from './fake.mjs';

/** Answers each request; a test sets it. @type {(request: import('node:http').IncomingMessage, response: import('node:http').ServerResponse) => void} */
let answer;
const server = createServer((request, response) => answer(request, response));
let url;

before(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${server.address().port}/`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

const QUICK = { minDelay: 0, maxDelay: 0 };

function head(response) {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.flushHeaders();
}

/** The seq that a request's cursor names. */
const cursor = ({ headers }) => Number(/-(\d+)$/.exec(headers['last-event-id'] ?? '')?.[1] ?? 0);

for (const [what, cut] of [
  ['the socket is reset', (response) => response.socket.resetAndDestroy()],
  ['the response ends cleanly', (response) => response.end()],
]) {
  test(`a stream that is cut at every byte is whole and without a repetition: ${what}`, async (t) => {
    // Events with characters of two to four bytes, an id before and after the data, and all line ends.
    const blocks = ['data: één 🐢\r\nid: e1-1\r\n\r\n', 'id: e1-2\ndata: żółw\ndata: 2\n\n', 'data: 3€\rid: e1-3\r\r', 'event: completed\ndata: ✓\nid: e2-0\n\n'];
    const transcript = Buffer.from(blocks.join(''));
    const ends = blocks.map((_, index) => Buffer.byteLength(blocks.slice(0, index + 1).join('')));
    const wanted = [['message', 'één 🐢'], ['message', 'żółw\n2'], ['message', '3€'], ['completed', '✓']];
    let requests = 0;
    for (let at = 0; at < transcript.length; at += 1) {
      let isFirst = true;
      answer = (request, response) => {
        requests += 1;
        head(response);
        const from = [0, ...ends][cursor(request)];
        if (!isFirst) return response.end(transcript.subarray(from));
        isFirst = false;
        const given = transcript.subarray(0, at);
        // The head and the bytes are delivered before the cut.
        if (given.length === 0) setImmediate(() => cut(response));
        else response.write(given, () => setImmediate(() => cut(response)));
      };
      const { source: made, seen } = source(t, QUICK, url);
      const end = await made.finished;
      assert.deepEqual([end.type, end.lastEventId], ['completed', 'e2-0']);
      const got = seen.filter(({ type }) => type !== 'open').map(({ type, data }) => [type, data]);
      assert.deepEqual(got, wanted, `cut after ${at} bytes`);
    }
    assert.ok(requests >= transcript.length * 2 - 4, `${requests} requests`);
  });
}

test('a stream that comes byte by byte', async (t) => {
  answer = async (_, response) => {
    head(response);
    for (const byte of Buffer.from(`data: 🐢\nid: e1-1\n\n${completed(2)}`)) {
      response.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    response.end();
  };
  const { source: made, seen } = source(t, QUICK, url);
  await made.finished;
  assert.equal(seen[1].data, '🐢');
});

test('a server that is not there yet', async (t) => {
  const late = createServer((_, response) => {
    head(response);
    response.end(completed());
  });
  late.listen(0, '127.0.0.1');
  await once(late, 'listening');
  const { port } = late.address();
  late.close();
  await once(late, 'close');
  const { source: made, states } = source(t, { minDelay: 1, maxDelay: 20, maxAttempts: 10_000 }, `http://127.0.0.1:${port}/`);
  await until('a failed attempt', () => states.some(({ state }) => state === 'waiting'));
  late.listen(port, '127.0.0.1');
  t.after(() => (late.closeAllConnections(), late.close()));
  assert.equal((await made.finished).type, 'completed');
});

test('a server that accepts and says nothing is given up by the watchdog', async (t) => {
  let requests = 0;
  answer = (_, response) => {
    requests += 1;
    response.writeHead(200, { 'content-type': 'text/event-stream', 'x-stream-heartbeat': '0.04' });
    response.flushHeaders();
    if (requests === 3) response.end(completed());
  };
  const { source: made, states } = source(t, QUICK, url);
  await made.finished;
  assert.equal(requests, 3);
  assert.deepEqual(new Set(states.flatMap(({ state, error }) => (state === 'waiting' ? [error.reason] : []))), new Set(['timeout']));
});

test('the server sees that a source was closed, or had its end', async (t) => {
  for (const end of [(made) => made.close(), (_, response) => response.write(completed())]) {
    let response;
    let isGone = false;
    answer = (_, given) => {
      response = given;
      head(response);
      response.write(events(1, 1));
      response.on('close', () => (isGone = true));
    };
    const { source: made, seen } = source(t, QUICK, url);
    await until('an event', () => seen.length === 2);
    end(made, response);
    await until('the connection to be closed', () => isGone);
  }
});

test('a loop that does not take makes the server wait', async (t) => {
  let written = 0;
  let isBlocked = false;
  answer = (_, response) => {
    head(response);
    const more = () => {
      while (response.write(`data: ${'x'.repeat(60_000)}\nid: e1-${(written += 1)}\n\n`)) isBlocked = false;
      isBlocked = true;
    };
    response.on('drain', more);
    more();
  };
  const { source: made } = source(t, QUICK, url);
  const iterator = made[Symbol.asyncIterator]();
  await iterator.next();
  // Until nothing was written for a while: socket buffers hold some megabytes.
  for (let before = -1; before !== written || !isBlocked; ) {
    before = written;
    assert.ok(written < 1000, `${written} events of 60 kB were written`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  const stopped = written;
  for (let taken = 0; taken < stopped; taken += 1) await iterator.next();
  await until('the server to go on', () => written > stopped);
  made.close();
});

test('many attempts leave no listeners behind', async (t) => {
  const warnings = [];
  const note = (warning) => warnings.push(warning.name);
  process.on('warning', note);
  t.after(() => process.off('warning', note));
  const controller = new AbortController();
  let served = 0;
  answer = (request, response) => {
    head(response);
    const from = cursor(request);
    served += 1;
    response.end(from === 300 ? completed() : events(from + 1, from + 1));
  };
  const { source: made, seen } = source(t, { ...QUICK, signal: controller.signal, headers: async () => ({ a: 'b' }) }, url);
  await made.finished;
  assert.deepEqual(numbers(seen), Array.from({ length: 300 }, (_, index) => index + 1));
  assert.deepEqual([served, warnings], [301, []]);
});

test('5,000 events as fast as they come', async (t) => {
  answer = (_, response) => {
    head(response);
    response.end(events(1, 5000) + completed());
  };
  const { source: made, seen } = source(t, QUICK, url);
  await made.finished;
  assert.equal(numbers(seen).length, 5000);
  assert.equal(names(seen).at(-1), 'completed');
});

test('a POST is sent again with its body and its key', async (t) => {
  const bodies = [];
  answer = async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    bodies.push([request.method, request.headers['idempotency-key'], body]);
    head(response);
    if (bodies.length === 1) response.write(events(1, 1), () => setImmediate(() => response.socket.resetAndDestroy()));
    else response.end(completed());
  };
  const { source: made } = source(t, { ...QUICK, body: { question: 'why?' } }, url);
  await made.finished;
  assert.equal(bodies.length, 2);
  assert.deepEqual(bodies[0], bodies[1]);
  assert.equal(bodies[0][2], '{"question":"why?"}');
});
