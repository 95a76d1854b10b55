// What a user does.
import { deepStrictEqual, strictEqual } from 'node:assert';
import { AFTER_TEN, UNTIL_STOPPED } from './stream.mjs';

export async function reload({ world, source }) {
  await world.node();
  // A page that is loaded again knows nothing of what it has shown, and is given the stream from its start. The module can keep the
  // cursor, for a page that keeps the rest.
  const keeps = source === 'module';
  const settings = keeps ? { options: { storage: 'a' } } : {};
  world.front.stops.push(AFTER_TEN);
  const tab = await world.tab(source, '/api/stream/a?n=50&rate=20', settings);
  await tab.seen(10);
  await tab.page.reload();
  await tab.ends('completed');
  const [, again] = world.front.requests.entries;
  strictEqual(again.cursor, keeps ? tab.events[9].id : '');
  if (!keeps) {
    const first = tab.numbers.indexOf(0, 1);
    const before = new Set(tab.events.slice(0, first));
    tab.forget((line) => before.has(line));
  }
  tab.isWhole(50);
}

export async function twoTabs({ world, source }) {
  await world.node();
  const one = await world.tab(source, '/api/stream/a?n=100&rate=20');
  await one.seen(5);
  const two = await world.tab(source, '/api/stream/a?n=100&rate=20');
  for (const tab of [one, two]) {
    await tab.ends('completed');
    tab.isWhole(100);
  }
  // The work was done once: another run would have other ids.
  deepStrictEqual(ids(one), ids(two));
}

function ids(tab) {
  return tab.events.map(({ id }) => id);
}

export async function stopFromAnotherTab({ world, source }) {
  await world.node();
  const one = await world.tab(source, UNTIL_STOPPED);
  const two = await world.tab(source, UNTIL_STOPPED);
  await Promise.all([one.seen(5), two.seen(5)]);
  await two.evaluate(() => source.stop());
  for (const tab of [one, two]) {
    await tab.ends('cancelled');
    tab.isWhole(tab.events.length);
  }
  // The hook waits for the end that it has asked for, but not for long.
  deepStrictEqual(ids(two), ids(one).slice(0, two.events.length));
}
