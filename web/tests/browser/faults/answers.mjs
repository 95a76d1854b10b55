// What a server answers instead of a stream.
import { deepStrictEqual, ok, strictEqual } from 'node:assert';
import { AFTER_TEN, statuses } from './stream.mjs';

/** A cursor whose stream is gone: its work is not done twice. */
const GONE = 'e1700000000000-5';

/** The statuses that are worth another attempt; an `EventSource` knows none. */
const AGAIN = [429, 500, 502, 503, 504];
const FINAL = [400, 401, 403, 404, 405, 409, 410, 422];

/** In how many seconds an attempt is welcome: later than any source would come by itself. */
const LATER = 5;

export async function notFound({ world, source }) {
  await world.node();
  const tab = await world.tab(source, `/api/stream/a?last_event_id=${GONE}`);
  await tab.ends('gaveup');
  deepStrictEqual(statuses(world.front), [404], 'it does not come again');
}

/** What each source makes of a stream of which nothing is left. An `EventSource` does not tell that from a failure. */
const NOTHING_LEFT = { native: 'gaveup', module: 'ended', hook: 'completed' };

/** The first attempt is answered with each of the statuses, the next ones as they should be. */
export async function eachStatus({ world, source }) {
  await world.node();
  const answered = new Set();
  world.front.answer = ({ url }) => {
    const status = Number(/status=(\d+)/.exec(url)?.[1]);
    if (answered.has(status)) return undefined;
    answered.add(status);
    // 200 comes with a page: that is no event stream.
    return { status, headers: { 'content-type': 'text/html', ...(AGAIN.includes(status) && { 'retry-after': `${LATER}` }) } };
  };
  const again = source === 'native' ? [] : AGAIN;
  const expected = [
    [204, NOTHING_LEFT[source]],
    ...[200, ...FINAL].map((status) => [status, 'gaveup']),
    ...AGAIN.map((status) => [status, again.includes(status) ? 'completed' : 'gaveup']),
  ];
  const verdicts = expected.map(async ([status]) => {
    const tab = await world.tab(source, `/api/stream/a${status}?n=3&rate=0&status=${status}`);
    const { name } = await tab.last();
    if (again.includes(status)) tab.isWhole(3);
    return [status, name];
  });
  deepStrictEqual(await Promise.all(verdicts), expected);
  for (const [status] of expected) {
    const asked = world.front.requests.entries.filter(({ path }) => path.includes(`status=${status}`));
    strictEqual(asked.length, again.includes(status) ? 2 : 1, `requests after ${status}`);
    ok(!asked[1] || asked[1].at - asked[0].at >= LATER * 1000, 'not before the time that `Retry-After` says');
  }
}

/** Requests for a stream need the token that is good now, as a header or as a cookie. `given` is the one that a page gets. */
function demandToken(front, tokens) {
  front.answer = ({ url, headers }) => {
    if (url === '/token') return { status: 200, body: tokens.given, unnoted: true };
    const token = headers.authorization?.replace('Bearer ', '') ?? /token=(\w+)/.exec(headers.cookie)?.[1];
    return token === tokens.good ? undefined : { status: 401 };
  };
}

/** A tab that has followed a stream for a while, with the token `one`. */
async function signedIn({ world, source }, tokens) {
  await world.node();
  demandToken(world.front, tokens);
  await world.cookie('token', 'one');
  world.front.stops.push(AFTER_TEN);
  const tab = await world.tab(source, '/api/stream/a?n=60&rate=20', { signsIn: true });
  await tab.seen(10);
  return tab;
}

/** The token expires, and the page has another one in time. */
export async function tokenRenewed({ world, source }) {
  const tokens = { good: 'one' };
  const tab = await signedIn({ world, source }, tokens);
  tokens.good = 'two';
  await tab.evaluate((token) => signIn(token), 'two');
  world.front.drop();
  await tab.ends('completed');
  tab.isWhole(60);
  deepStrictEqual(statuses(world.front), [200, 200]);
}

/** The token expires, and the page notices by the 401. */
export async function unauthorized({ world, source }) {
  const tokens = { good: 'one', given: 'two' };
  const tab = await signedIn({ world, source }, tokens);
  tokens.good = 'two';
  world.front.drop();
  // `EventSource` does not say what the status was. It is over, so the page has to begin anew.
  if (source === 'native') await beginAgain(tab);
  await tab.said('end');
  tab.isWhole(60);
  deepStrictEqual(statuses(world.front), [200, 401, 200]);
}

/** The token expires, and there is no other one until the user has signed in again. */
export async function signedOut({ world, source }) {
  const tokens = { good: 'one', given: 'one' };
  const tab = await signedIn({ world, source }, tokens);
  tokens.good = 'two';
  world.front.drop();
  await beginAgain(tab);
  await tab.said('end');
  tab.isWhole(60);
  deepStrictEqual(statuses(world.front), [200, 401, 200]);
}

/** The source gives up, the user signs in, and the page goes on from where it was. */
async function beginAgain(tab) {
  await tab.ends('gaveup');
  await tab.evaluate((token) => {
    signIn(token);
    source.again();
  }, 'two');
}

/** At its end a source is done. An `EventSource` has to be closed, or else asks once more and is told so by 204. */
export async function theEnd({ world, source }) {
  await world.node();
  const tab = await world.tab(source, '/api/stream/a?n=5&rate=0', { stays: true });
  await tab.ends('completed');
  tab.isWhole(5);
  if (source === 'native') await tab.said('gaveup');
  deepStrictEqual(statuses(world.front), source === 'native' ? [200, 204] : [200]);
}

/** A stream that has ended meanwhile is delivered by recovery alone: its own route might do the work again. */
export async function recoveryFirst({ world, source }) {
  const node = await world.node();
  await (await node.fetch('/api/stream/a?n=20&rate=0')).text();
  const { events } = await (await node.fetch('/api/stream/a/recover?limit=10')).json();
  const options = { recover: '/api/stream/a/recover', lastEventId: events[9].id };
  const tab = await world.tab(source, '/api/stream/a?n=20&rate=0', { options });
  await tab.ends('completed');
  tab.isWhole(20, 10);
  const paths = world.front.requests.entries.map(({ path }) => path.split('?')[0]);
  deepStrictEqual([...new Set(paths)], ['/api/stream/a/recover']);
}

export async function unusableCursor({ world, source }) {
  await world.node();
  const tab = await world.tab(source, '/api/stream/a?n=20&rate=0&last_event_id=nonsense');
  await tab.ends('completed');
  const [gap, ...more] = tab.all('gap');
  deepStrictEqual([gap.after, more], [null, []], 'one word of it');
  const { entries } = tab.lines;
  ok(entries.indexOf(gap) < entries.indexOf(tab.events[0]), 'before the first event');
  tab.forget((line) => line === gap);
  tab.isWhole(20);
}
