// The parser against the corpus that all clients of this project are held to.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { EventStreamParser } from '../../resilient-sse.js';

const { cases } = JSON.parse(await readFile(new URL('../../../tests/corpus/cases.json', import.meta.url), 'utf8'));

/** What a parser makes of these chunks, in the corpus's words. */
function parse(chunks, options) {
  const parser = new EventStreamParser(options);
  const events = [];
  for (const chunk of chunks) {
    for (const { type, data, lastEventId } of parser.push(chunk)) events.push({ type, data, id: lastEventId });
  }
  return { events, lastEventId: parser.lastEventId, reconnectionTime: parser.retry };
}

const bytesOf = ({ chunks }) => chunks.map((chunk) => Buffer.from(chunk, 'base64'));

/** What the corpus expects. The delays of single events are checked where they are set: at the end of each prefix. */
function expectation({ expected }) {
  const events = expected.events.map(({ type, data, id }) => ({ type, data, id }));
  return { events, lastEventId: expected.lastEventId, reconnectionTime: expected.reconnectionTime };
}

test('the corpus is there', () => assert.ok(cases.length >= 108));

test('the corpus in its own chunks', () => {
  for (const one of cases) assert.deepEqual(parse(bytesOf(one)), expectation(one), one.name);
});

test('the corpus byte by byte', () => {
  for (const one of cases) {
    const bytes = Array.from(Buffer.concat(bytesOf(one)), (byte) => Uint8Array.of(byte));
    assert.deepEqual(parse(bytes), expectation(one), one.name);
  }
});

test('the corpus, split in two at every byte', () => {
  let splits = 0;
  for (const one of cases) {
    const bytes = Buffer.concat(bytesOf(one));
    const wanted = JSON.stringify(expectation(one));
    for (let at = 0; at <= bytes.length; at += 1) {
      const got = JSON.stringify(parse([bytes.subarray(0, at), bytes.subarray(at)]));
      if (got !== wanted) assert.deepEqual(JSON.parse(got), JSON.parse(wanted), `${one.name}, split at ${at}`);
      splits += 1;
    }
  }
  assert.ok(splits > 200_000, `${splits} splits`);
});

test('the corpus, split in three at every pair of bytes, where it is short', () => {
  for (const one of cases) {
    const bytes = Buffer.concat(bytesOf(one));
    if (bytes.length > 80) continue;
    const wanted = JSON.stringify(expectation(one));
    for (let first = 0; first <= bytes.length; first += 1) {
      for (let second = first; second <= bytes.length; second += 1) {
        const chunks = [bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)];
        const got = JSON.stringify(parse(chunks));
        if (got !== wanted) assert.deepEqual(JSON.parse(got), JSON.parse(wanted), `${one.name}, split at ${first} and ${second}`);
      }
    }
  }
});

test('a delay counts from its line on', () => {
  for (const one of cases) {
    const delays = one.expected.events.map(({ retry }) => retry).filter((retry) => retry !== null);
    const parser = new EventStreamParser();
    const seen = [];
    for (const byte of Buffer.concat(bytesOf(one))) {
      for (const _ of parser.push(Uint8Array.of(byte)));
      if (parser.retry !== null && parser.retry !== seen.at(-1)) seen.push(parser.retry);
    }
    for (const delay of delays) assert.ok(seen.includes(delay), one.name);
  }
});

test('a block tells its own id from the one in force, and from the one before', () => {
  const parser = new EventStreamParser({ lastEventId: 'before' });
  const events = [...parser.push(Buffer.from('data: 1\n\nid: a\ndata: 2\n\ndata: 3\n\nid: b\n\nid\ndata: 4\n\n'))];
  assert.deepEqual(
    events.map(({ id, lastEventId, previousEventId }) => [id, lastEventId, previousEventId]),
    [[undefined, 'before', 'before'], ['a', 'a', 'before'], [undefined, 'a', 'a'], ['', '', 'b']],
  );
});

test('an id counts once its block is complete', () => {
  const parser = new EventStreamParser();
  assert.equal([...parser.push(Buffer.from('data: 1\nid: 7\n'))].length, 0);
  assert.equal(parser.lastEventId, '');
  assert.equal([...parser.push(Buffer.from('\n'))].length, 1);
  assert.equal(parser.lastEventId, '7');
});

test('an event may have as many bytes as the limit says, and no more', () => {
  const limit = { maxEventBytes: 12 };
  const tooLarge = { name: 'ResilientEventSourceError', reason: 'event-too-large', message: /maxEventBytes.*12 bytes/ };
  for (const size of [1, 2, 3, 1000]) {
    const chunks = (text) => {
      const bytes = Buffer.from(text);
      return Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) => bytes.subarray(at * size, (at + 1) * size));
    };
    const count = (text) => parse(chunks(text), limit).events.length;
    assert.equal(count('data:1\ndata:2\n\n'.repeat(3)), 3);
    assert.equal(count('data:€€1\n\n'), 1);
    assert.equal(count(': a remark\n'.repeat(9) + 'data:1234567\n\n'), 1, 'remarks are not held');
    assert.throws(() => count('data:12345678\n\n'), tooLarge);
    assert.throws(() => count('data:1\ndata:23\n\n'), tooLarge);
    assert.throws(() => count('data:€€12\n\n'), tooLarge);
    assert.throws(() => count('event:12\nid:34\n'), tooLarge);
    assert.throws(() => count('data:1234567, and so on without an end'), tooLarge);
    assert.throws(() => count(': a remark that has no end'), tooLarge);
  }
});

test('a large event in small chunks takes time in proportion to its size', () => {
  const chunk = new Uint8Array(1024).fill(97);
  const time = (chunks) => {
    const parser = new EventStreamParser({ maxEventBytes: 64 << 20 });
    const begun = process.cpuUsage();
    for (const _ of parser.push(Buffer.from('data: ')));
    for (let sent = 0; sent < chunks; sent += 1) for (const _ of parser.push(chunk));
    const [event] = parser.push(Buffer.from('\n\n'));
    assert.equal(event.data.length, chunks * 1024);
    const { user, system } = process.cpuUsage(begun);
    return (user + system) / 1000;
  };
  time(1024);
  // Sixteen times the size takes sixteen times as long, or 256 times if each chunk copied what came before.
  const [small, large] = [Math.min(time(1024), time(1024)), time(16 * 1024)];
  assert.ok(large < Math.max(small, 1) * 100, `1 MiB took ${small} ms of CPU, 16 MiB ${large} ms`);
});
