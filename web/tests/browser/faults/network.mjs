// What a network does to a connection.
import { deepStrictEqual, ok, strictEqual } from 'node:assert';
import { after, inside } from '../harness/front.mjs';
import { AFTER_TEN, cursors } from './stream.mjs';

/** In the middle of an event's data, and between an event's `id:` and its blank line. */
export async function cutInAnEvent({ world, source }) {
  await world.node();
  world.front.stops.push(after('"s":12,', 3), afterIdOf(24));
  const tab = await world.tab(source, '/api/stream/a?n=40&rate=40');
  await tab.seen(12);
  world.front.drop();
  await tab.seen(24);
  world.front.drop();
  await tab.ends('completed');
  tab.isWhole(40);
  // An event that did not arrive whole is asked for again.
  deepStrictEqual(cursors(world.front), ['', tab.events[11].id, tab.events[23].id]);
}

/** After the line `id:` of the event with this number, before the blank line that ends the event. */
function afterIdOf(s) {
  return (body) => {
    const at = body.indexOf(`"s":${s},`);
    const id = at < 0 ? -1 : body.indexOf('\nid: ', at);
    return id < 0 ? -1 : body.indexOf('\n', id + 1) + 1 || -1;
  };
}

export async function cutInACharacter({ world, source }) {
  await world.node();
  world.front.stops.push(inside('Æ'));
  // The server makes up the stream's id, so only the cursor names it.
  const tab = await world.tab(source, '/api/stream?n=320&rate=0');
  await tab.seen(312);
  world.front.drop();
  await tab.ends('completed');
  tab.isWhole(320);
  strictEqual(tab.events[312].text, ' Æquations');
  deepStrictEqual(cursors(world.front), ['', tab.events[311].id]);
}

/** A request that must not be done twice: all its attempts are one. */
export async function cutPost({ world, source }) {
  await world.node();
  world.front.stops.push(AFTER_TEN);
  const tab = await world.tab(source, '/api/chat/a', { options: { body: { n: 30, rate: 20 } } });
  await tab.seen(10);
  world.front.drop();
  await tab.ends('completed');
  tab.isWhole(30);
  const [first, second] = world.front.requests.entries;
  deepStrictEqual([first.method, second.method], ['POST', 'POST']);
  ok(first.key);
  strictEqual(second.key, first.key);
}

/** The second half of a character comes later than its first one. */
export async function characterInTwoParts({ world, source }) {
  await world.node();
  world.front.stops.push(inside('Æ'));
  const tab = await world.tab(source, '/api/stream/a?n=320&rate=0');
  await tab.seen(312);
  world.front.goOn();
  await tab.ends('completed');
  tab.isWhole(320);
  strictEqual(tab.events[312].text, ' Æquations');
}

/** A wait that no test outlasts: whoever comes back earlier was woken. `EventSource` knows no such thing, and waits for its `retry:`. */
const ASLEEP = { options: { minDelay: 600_000 } };

export async function offlineAndOnline({ world, source }) {
  await world.node();
  world.front.stops.push(AFTER_TEN);
  const tab = await world.tab(source, '/api/stream/a?n=60&rate=20', ASLEEP);
  await tab.seen(10);
  // In Chromium's emulation, a page that is offline opens no new connection. Those that it has stay: the front drops them.
  await world.setOffline(true);
  const lost = tab.next('state');
  world.front.goAway();
  await lost;
  world.front.comeBack();
  await world.setOffline(false);
  await tab.ends('completed');
  tab.isWhole(60);
}

/** Another tab in front, the page frozen as on a phone, and its connection gone when it comes back. */
export async function hiddenAndShown({ world, source }) {
  await world.node();
  world.front.stops.push(AFTER_TEN);
  const { tab, hide, show } = await world.tabOfAWindow(source, '/api/stream/a?n=60&rate=20', ASLEEP);
  await tab.seen(10);
  await hide();
  world.front.drop();
  await show();
  await tab.ends('completed');
  tab.isWhole(60);
}

/** The connection is half open: nothing comes, and nobody says so. */
export async function silence({ world, source }) {
  const node = await world.node('--heartbeat', '0.4');
  world.front.stops.push(AFTER_TEN);
  const tab = await world.tab(source, '/api/stream/a?n=40&rate=20');
  await tab.seen(10);
  if (source === 'native') {
    // It does not notice: it still waits when the stream has long ended. Only the end of the connection wakes it.
    await node.ended('a');
    deepStrictEqual([tab.numbers.length, tab.all('state')], [10, []]);
    world.front.drop();
  }
  await tab.ends('completed');
  tab.isWhole(40);
}

export async function completionWhileAway({ world, source }) {
  const node = await world.node();
  world.front.stops.push(AFTER_TEN);
  const tab = await world.tab(source, '/api/stream/a?n=30&rate=20', { options: { maxAttempts: 10 } });
  await tab.seen(10);
  world.front.goAway();
  await node.ended('a');
  world.front.comeBack();
  await tab.ends('completed');
  tab.isWhole(30);
}
