// Every source of events through every fault, in a real browser and against real servers.
import { after, before, describe, test } from 'node:test';
import { Browser } from './harness/browser.mjs';
import { Redis } from './harness/redis.mjs';
import { World } from './harness/world.mjs';
import * as answers from './faults/answers.mjs';
import * as network from './faults/network.mjs';
import * as nodes from './faults/nodes.mjs';
import * as pages from './faults/pages.mjs';

const ALL = ['native', 'module', 'hook'];
/** What an `EventSource` cannot do. */
const OURS = ['module', 'hook'];

/** Sources × fault. */
const CASES = [
  [ALL, 'the server is killed and started again', nodes.killedAndStarted],
  [ALL, 'the server is killed, and the work runs again', nodes.killedAndRunAgain],
  [ALL, 'the producer is orphaned', nodes.orphaned],
  [ALL, 'a node drains, the other one goes on', nodes.drained],
  [[...ALL, 'hook-react-18'], 'cut in the middle of an event', network.cutInAnEvent],
  [ALL, 'cut in the middle of a character', network.cutInACharacter],
  [ALL, 'a character in two parts', network.characterInTwoParts],
  [OURS, 'a POST that is cut', network.cutPost],
  [ALL, 'offline and online', network.offlineAndOnline],
  [ALL, 'hidden and shown', network.hiddenAndShown],
  [ALL, 'silence', network.silence],
  [ALL, 'completion while away', network.completionWhileAway],
  [OURS, 'recovery first', answers.recoveryFirst],
  [ALL, 'reload', pages.reload],
  [ALL, 'two tabs', pages.twoTabs],
  [ALL, 'stop from another tab', pages.stopFromAnotherTab],
  [ALL, 'the end', answers.theEnd],
  [ALL, '404', answers.notFound],
  [ALL, 'each status', answers.eachStatus],
  [ALL, 'a token that is renewed in time', answers.tokenRenewed],
  [ALL, '401, then a new token', answers.unauthorized],
  [ALL, '401, and nobody is signed in', answers.signedOut],
  [ALL, 'an unusable cursor', answers.unusableCursor],
];

const shared = {};
before(async () => {
  [shared.redis, shared.browser] = await Promise.all([Redis.start(), Browser.start()]);
});
after(async () => {
  await shared.browser?.stop();
  await shared.redis?.stop();
});

// They wait for most of their time.
describe('matrix', { concurrency: 6 }, () => {
  for (const [sources, fault, run] of CASES) {
    for (const source of sources) {
      test(`${source}: ${fault}`, async (context) => run({ world: await World.open(context, shared), source }));
    }
  }
});
