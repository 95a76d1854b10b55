/** A conversation with the example server. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Server } from '../browser/harness/server.mjs';
import { h, mount, probe } from './harness/page.mjs';
import { until } from './harness/until.mjs';

/** The numbers of the events of a turn. */
const append = (numbers, { type, data }) => (type === 'message' ? [...numbers, JSON.parse(data).s] : numbers);
const upTo = (count) => Array.from({ length: count }, (_, n) => n);

for (const voice of ['named', 'json', 'silent']) {
  test(`turns, a stop, a page that is left and a second page, in the voice ${voice}`, async (t) => {
    const server = await Server.start(['--voice', voice]);
    t.after(() => server.kill());
    const health = () => server.health();
    const page = () => {
      const view = probe();
      // Its own header is another connection, as that of another page is.
      const headers = { 'x-user-id': 'ada', 'x-page': String(Math.random()) };
      const options = { conversation: true, reduce: append, initial: [], headers };
      const url = `http://127.0.0.1:${server.port}/api/chat/42/stream`;
      return { view, ...mount(t, h(view.Probe, { url, options }), { isStrict: true }) };
    };
    const { view, unmount } = page();
    await until(() => view.last?.status === 'idle', 'nothing runs');

    assert.equal((await view.last.send({ n: 200, rate: 0 })).type, 'completed');
    await until(() => view.last.status === 'completed', 'the first turn');
    assert.deepEqual(view.last.data, upTo(200));

    view.last.send({ n: 100_000, rate: 100 });
    const runs = () => view.last.status === 'connected' && view.last.data.length > 5;
    await until(runs, 'the second turn runs');
    assert.equal(await view.last.stop(), true);
    await until(() => view.last.status === 'cancelled', 'it is stopped');
    assert.equal((await health()).active, 0);

    // The turn is stopped also where the server has not begun to answer it.
    view.last.send({ n: 100_000, rate: 100 });
    assert.equal(await view.last.stop(), true);
    await until(() => view.last.status === 'cancelled', 'it is stopped');
    assert.equal((await health()).active, 0);

    view.last.send({ n: 100_000, rate: 100 });
    await until(runs, 'the fourth turn runs');
    unmount();
    const again = page();
    await until(() => again.view.last?.data.length > 20, 'it runs on, and is followed from its beginning');
    assert.deepEqual(again.view.last.data, upTo(again.view.last.data.length));

    const other = page();
    await until(() => other.view.last?.data.length > 20, 'another page follows it too');
    other.view.last.send({ n: 10, rate: 0 });
    await until(() => other.view.last.status === 'completed', 'the turn in its place');
    assert.deepEqual(other.view.last.data, upTo(10));
    if (voice !== 'silent') await until(() => again.view.last.status === 'cancelled', 'the first page sees the end of its turn');
    assert.equal((await health()).ended.cancelled, 3);
    assert.equal((await health()).active, 0);
  });
}
