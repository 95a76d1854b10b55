// What the server itself says in a stream, in each of its voices.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { broken, completed, events, fakeFetch, fakeTime, names, numbers, open, pass, source, status, whole } from './fake.mjs';

const GAP = { after: 'e1-2', resumesAt: 'e1-5', missed: 2 };

const voices = {
  named: (name, detail) => `event: ${name}\ndata: ${JSON.stringify(detail)}\n\n`,
  json: (name, detail) => `data: ${JSON.stringify({ ...detail, type: name })}\n\n`,
};

for (const [voice, say] of Object.entries(voices)) {
  test(`${voice}: connected, gap and restart are what they are, and no events of the stream`, async (t) => {
    const text =
      say('connected', { streamId: '42' }) + events(1, 2, 1) + say('gap', GAP) + events(5, 5, 1) + say('restart', { epoch: '7' }) + events(1, 1, 7);
    const { fetch } = fakeFetch(whole(`retry: 1000\n${text}${completed(8)}`));
    const { source: made, seen } = source(t, { fetch });
    await made.finished;
    assert.deepEqual(names(seen), ['open', 'connected', 'message', 'message', 'gap', 'message', 'restart', 'message', 'completed']);
    const [, connected, , , gap, , restart] = seen;
    assert.deepEqual(connected.detail, { streamId: '42' });
    assert.deepEqual(gap.detail, GAP);
    assert.deepEqual(restart.detail, { epoch: '7' });
    assert.equal(made.streamId, '42');
    // None of them moves the cursor, and `data` is what stood on the wire.
    assert.deepEqual([gap.lastEventId, JSON.parse(gap.data).missed], ['e1-2', 2]);
  });

  test(`${voice}: an ending that the server supplies`, async (t) => {
    const text = voice === 'named' ? 'event: orphaned\ndata: {"reason":"node_lost"}' : 'data: {"reason":"node_lost","type":"orphaned"}';
    const { fetch } = fakeFetch(whole(`${events(1, 1, 1)}${text}\nid: e2-0\n\n`));
    const { source: made } = source(t, { fetch });
    const end = await made.finished;
    assert.deepEqual([end.type, JSON.parse(end.data).reason, end.lastEventId], ['orphaned', 'node_lost', 'e2-0']);
  });
}

test("the stream's own events that look like notices are its own", async (t) => {
  const own = [
    'event: gap\ndata: {"after":"e1-2","resumesAt":"e1-5","missed":2}\nid: e1-9\n\n', // has an id
    'event: gap\ndata: {"width":3}\nid: e1-10\n\n',
    'event: gap\ndata: mind it\n\n', // a stream that is not recorded has no ids
    'event: restart\ndata: {"epoch":"1","why":"x"}\n\n',
    'event: connected\ndata: {"to":"you"}\n\n',
    'data: {"type":"gap","after":null}\n\n',
    'data: {"error":{"type":"invalid_request_error","code":"x"}}\n\n',
    `data: {"type":"gap","after":null,"resumesAt":null,"missed":"${'x'.repeat(2000)}"}\n\n`,
  ];
  const { fetch } = fakeFetch(whole(own.join('') + completed(2)));
  const { source: made, seen } = source(t, { fetch });
  await made.finished;
  assert.deepEqual(names(seen).slice(1, -1), ['gap', 'gap', 'gap', 'restart', 'connected', 'message', 'message', 'message']);
  assert.ok(seen.slice(1).every((event) => event instanceof MessageEvent && event.detail === undefined));
});

const error = (code, id = '') => `data: {"error":{"message":"…","type":"stream_error","code":"${code}"}}\n${id && `id: ${id}\n`}\n`;

test('openai: an error that breaks off is a break, and the source resumes', async (t) => {
  fakeTime(t);
  for (const code of ['shutdown', 'superseded', 'interrupted', 'gone', 'not_opened']) {
    const { fetch, requests } = fakeFetch(broken(events(1, 2, 1) + error(code)), whole(events(3, 3, 1) + 'data: [DONE]\nid: e2-0\n\n'));
    const { source: made, seen } = source(t, { fetch });
    await pass(5000);
    assert.equal((await made.finished).data, '[DONE]');
    assert.deepEqual(names(seen), ['open', 'message', 'message', 'open', 'message', 'message'], code);
    assert.equal(requests[1].headers.get('last-event-id'), 'e1-2');
  }
});

test('openai: an error with the id of the end is the end, under the name of its state', async (t) => {
  for (const [code, state] of [['stopped', 'cancelled'], ['replaced', 'cancelled'], ['node_lost', 'orphaned'], ['lifetime', 'expired'], ['panic', 'failed']]) {
    const { fetch, requests } = fakeFetch(whole(events(1, 1, 1) + error(code, 'e2-0')));
    const { source: made, seen } = source(t, { fetch });
    assert.equal((await made.finished).type, state);
    assert.deepEqual([names(seen), requests.length], [['open', 'message', 'message'], 1]);
  }
});

test('openai: after a restart it begins anew without its cursor', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(broken(events(1, 2, 1) + error('restart')), whole(events(1, 1, 7) + 'data: [DONE]\nid: e8-0\n\n'));
  const { source: made, seen } = source(t, { fetch });
  await pass(5000);
  await made.finished;
  assert.deepEqual(names(seen), ['open', 'message', 'message', 'restart', 'open', 'message', 'message']);
  assert.equal(requests[1].headers.get('last-event-id'), null);
});

test('openai: after a gap it says so, and begins anew; if that is no use it gives up', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(broken(events(1, 2, 1) + error('gap')), broken(error('gap')));
  const { source: made, seen } = source(t, { fetch });
  await pass(20_000);
  await assert.rejects(made.finished, { reason: 'gap' });
  assert.deepEqual(names(seen), ['open', 'message', 'message', 'gap', 'restart', 'open']);
  assert.deepEqual(seen[3].detail, { after: 'e1-2', resumesAt: null, missed: null });
  assert.equal(requests.length, 2);
});

test('silent: the ids tell a restart', async (t) => {
  fakeTime(t);
  const { fetch } = fakeFetch(broken(events(1, 2, 1)), whole(events(1, 2, 7) + 'data: end\nid: e8-0\n\n'));
  const { source: made, seen } = source(t, { fetch });
  await pass(5000);
  await made.finished;
  assert.deepEqual(names(seen), ['open', 'message', 'message', 'open', 'restart', 'message', 'message', 'message']);
  assert.deepEqual(seen[4].detail, { epoch: '7' });
});

test('silent: a hole in the ids is a gap', async (t) => {
  const { fetch } = fakeFetch(whole(events(1, 2, 1) + events(6, 6, 1) + events(3, 3, 7) + 'data: end\nid: e8-0\n\n'));
  const { source: made, seen } = source(t, { fetch });
  await made.finished;
  assert.deepEqual(names(seen), ['open', 'message', 'message', 'gap', 'message', 'gap', 'restart', 'message', 'message']);
  assert.deepEqual(seen[3].detail, { after: 'e1-2', resumesAt: 'e1-6', missed: 3 });
  assert.deepEqual(seen[5].detail, { after: 'e1-6', resumesAt: 'e7-3', missed: null });
});

for (const [what, chunks] of [
  ['in one chunk', (blocks) => [blocks.join('')]],
  ['in chunks of their own', (blocks) => blocks],
]) {
  const seenOf = async (t, blocks) => {
    const stream = open();
    for (const chunk of chunks([...blocks, 'data: end\nid: e8-0\n\n'])) stream.send(chunk);
    const { source: made, seen } = source(t, { fetch: fakeFetch(() => stream.response).fetch });
    await made.finished;
    return seen;
  };

  test(`silent: a block without data is no hole in the ids: ${what}`, async (t) => {
    const seen = await seenOf(t, [events(1, 1, 1), 'id: e1-2\n\n', events(3, 3, 1), 'id: e1-4\n\n', events(6, 6, 1)]);
    assert.deepEqual(names(seen), ['open', 'message', 'message', 'gap', 'message', 'message']);
    assert.deepEqual(seen[3].detail, { after: 'e1-4', resumesAt: 'e1-6', missed: 1 });
  });

  test(`silent: a run that begins with a block without data is a restart, once: ${what}`, async (t) => {
    const seen = await seenOf(t, [events(1, 2, 1), 'id: e7-1\n\n', events(2, 3, 7)]);
    assert.deepEqual(names(seen), ['open', 'message', 'message', 'restart', 'message', 'message', 'message']);
    assert.deepEqual(seen[3].detail, { epoch: '7' });
  });
}

test('silent: a restart is told once, though its first block has no data and the connection breaks after it', async (t) => {
  fakeTime(t);
  const restart = voices.named('restart', { epoch: '7' });
  const { fetch } = fakeFetch(broken(`${events(1, 2, 1)}${restart}id: e7-1\n\n`), whole(events(2, 2, 7) + completed(8)));
  const { source: made, seen } = source(t, { fetch });
  await pass(5000);
  await made.finished;
  assert.deepEqual(names(seen), ['open', 'message', 'message', 'restart', 'open', 'message', 'completed']);
});

test('silent: another stream, and an end, are no restart', async (t) => {
  const { fetch } = fakeFetch(whole(`${events(1, 1, 1, 'a.')}${events(3, 3, 7, 'b.')}id: c.e9-1\n\n${events(2, 2, 9, 'c.')}data: end\nid: c.e10-0\n\n`));
  const { source: made, seen } = source(t, { fetch });
  await made.finished;
  assert.deepEqual(names(seen), ['open', 'message', 'message', 'message', 'message']);
});

test('silent: another run than that of the cursor which the source began with is a restart', async (t) => {
  const { fetch } = fakeFetch(whole(events(1, 1, 7) + 'data: end\nid: e8-0\n\n'));
  const { source: made, seen } = source(t, { fetch, lastEventId: 'e1-2' });
  await made.finished;
  assert.deepEqual(names(seen), ['open', 'restart', 'message', 'message']);
});

test('silent: a complete body without a word for its end is ended by the next 204', async (t) => {
  fakeTime(t);
  const { fetch, requests } = fakeFetch(whole(events(1, 2, 1)), status(204));
  const { source: made } = source(t, { fetch });
  await pass(5000);
  assert.deepEqual(await made.finished, { type: 'ended', data: '', lastEventId: 'e1-2' });
  assert.equal(requests.length, 2);
});

test('a stream that is not recorded cannot be resumed: the source says that it begins anew', async (t) => {
  fakeTime(t);
  const plain = 'data: {"s":1}\n\ndata: {"s":2}\n\n';
  const { fetch } = fakeFetch(broken(plain, { 'x-stream-recorded': 'false' }), whole(`${plain}event: completed\ndata: {}\n\n`));
  const { source: made, seen } = source(t, { fetch });
  await pass(5000);
  await made.finished;
  assert.deepEqual(names(seen), ['open', 'message', 'message', 'open', 'restart', 'message', 'message', 'completed']);
});

test('a stream that is not recorded but has ids of its own is resumed by them: no restart is made up', async (t) => {
  fakeTime(t);
  const header = { 'x-stream-recorded': 'false' };
  const { fetch, requests } = fakeFetch(
    broken('data: {"s":1}\nid: 1\n\ndata: {"s":2}\nid: 2\n\n', header),
    whole('data: {"s":3}\nid: 3\n\nevent: completed\ndata: {}\nid: 4\n\n', header),
  );
  const { source: made, seen } = source(t, { fetch });
  await pass(5000);
  await made.finished;
  assert.deepEqual(names(seen), ['open', 'message', 'message', 'open', 'message', 'completed']);
  assert.deepEqual([numbers(seen), requests[1].headers.get('last-event-id')], [[1, 2, 3], '2']);
});

test('openai: an ending of a stream that is not recorded has no id', async (t) => {
  const { fetch } = fakeFetch(whole(`data: {"x":1}\n\n${error('stopped')}`, { 'x-stream-recorded': 'false' }));
  assert.equal((await source(t, { fetch }).source.finished).type, 'cancelled');
});

test('a server without ids is no recorded one: nothing is made up', async (t) => {
  fakeTime(t);
  const { fetch } = fakeFetch(broken('data: {"s":1}\n\n'), whole('data: {"s":2}\n\nevent: completed\ndata: 1\n\n'));
  const { source: made, seen } = source(t, { fetch });
  await pass(5000);
  await made.finished;
  assert.deepEqual([names(seen), numbers(seen)], [['open', 'message', 'open', 'message', 'completed'], [1, 2]]);
});
