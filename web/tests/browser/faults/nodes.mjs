// What becomes of the servers.
import { deepStrictEqual, strictEqual } from 'node:assert';
import { UNTIL_STOPPED, count } from './stream.mjs';

/** Short times, so that a lost node is found within seconds. */
const QUICK = ['--stale', '1', '--sweep', '0.5'];

/** Events that do not depend on the server's life: somebody else publishes them. */
async function publish(node, from, to) {
  for (let s = from; s < to; s += 1) await post(node, { type: 'token', data: { s } });
}

async function post(node, event) {
  const response = await node.fetch('/api/stream/a/events', { method: 'POST', body: JSON.stringify(event) });
  strictEqual(response.status, 202, await response.text());
}

export async function killedAndStarted({ world, source }) {
  const node = await world.nodeOnRedis();
  await publish(node, 0, 10);
  const tab = await world.tab(source, '/api/relay/a');
  await tab.seen(10);
  await node.kill();
  await node.startAgain();
  await publish(node, 10, 20);
  await tab.seen(20);
  await post(node, { type: 'completed', data: {}, terminal: true });
  await tab.ends('completed');
  tab.isWhole(20);
}

/** The route's work may run again, and does: from its beginning, and the client is told. */
export async function killedAndRunAgain({ world, source }) {
  const node = await world.nodeOnRedis(...QUICK, '--on-disconnect', 'interrupt');
  const tab = await world.tab(source, UNTIL_STOPPED);
  await tab.seen(5);
  await node.kill();
  await node.startAgain();
  await tab.said('restart');
  await tab.seen(tab.events.length + 10);
  await stopped(tab);
  deepStrictEqual([tab.all('restart').length, tab.all('gap')], [1, []], `one new run; so far:\n${tab.lines}`);
  // All that it had seen of the first run, and all of the second one.
  const again = tab.numbers.indexOf(0, 1);
  deepStrictEqual(tab.numbers, [...count(again), ...count(tab.numbers.length - again)]);
}

/** Stops the stream, so that it has lasted as long as the test wants it to. */
async function stopped(tab) {
  await tab.evaluate(() => source.stop());
  await tab.ends('cancelled');
}

/** The node that does the work is lost; another one says so. */
export async function orphaned({ world, source }) {
  const lost = await world.nodeOnRedis(...QUICK);
  const other = await world.nodeOnRedis(...QUICK);
  const tab = await world.tab(source, UNTIL_STOPPED);
  await tab.seen(10);
  await lost.kill();
  world.front.to = other;
  await tab.ends('orphaned');
  tab.isWhole(tab.events.length);
  strictEqual((await other.health()).orphaned, 1);
}

/** A node goes down in order: its clients continue on the other one, while it finishes its work. */
export async function drained({ world, source }) {
  const node = await world.nodeOnRedis('--drain', '60');
  const other = await world.nodeOnRedis();
  const tab = await world.tab(source, UNTIL_STOPPED);
  await tab.seen(10);
  // A load balancer sends it nothing new.
  world.front.to = other;
  const open = tab.next('open');
  node.drain();
  await open;
  await tab.seen(tab.events.length + 10);
  await stopped(tab);
  tab.isWhole(tab.events.length);
  strictEqual(await node.exitCode(), 0);
}
