// Every source of events through every fault, in a real browser and against real servers.
import { after, before, describe, test } from 'node:test';
import { Browser } from './harness/browser.mjs';
import { Redis } from './harness/redis.mjs';
import { World } from './harness/world.mjs';
import * as answers from './faults/answers.mjs';
import * as network from './faults/network.mjs';
import * as nodes from './faults/nodes.mjs';
import * as pages from './faults/pages.mjs';

const SOURCES = ['native', 'module'];

const FAULTS = {
  'the server is killed and started again': nodes.killedAndStarted,
  'the server is killed, and the work runs again': nodes.killedAndRunAgain,
  'the producer is orphaned': nodes.orphaned,
  'a node drains, the other one goes on': nodes.drained,
  'cut in the middle of an event': network.cutInAnEvent,
  'cut in the middle of a character': network.cutInACharacter,
  'a character in two parts': network.characterInTwoParts,
  'offline and online': network.offlineAndOnline,
  'hidden and shown': network.hiddenAndShown,
  'silence': network.silence,
  'completion while away': network.completionWhileAway,
  'reload': pages.reload,
  'two tabs': pages.twoTabs,
  'stop from another tab': pages.stopFromAnotherTab,
  '404': answers.notFound,
  'each status': answers.eachStatus,
  'a token that is renewed in time': answers.tokenRenewed,
  '401, then a new token': answers.unauthorized,
  '401, and nobody is signed in': answers.signedOut,
  'an unusable cursor': answers.unusableCursor,
};

const shared = {};
before(async () => {
  [shared.redis, shared.browser] = await Promise.all([Redis.start(), Browser.start()]);
});
after(async () => {
  await shared.browser?.stop();
  await shared.redis?.stop();
});

describe('matrix', { concurrency: 4 }, () => {
  for (const source of SOURCES) {
    for (const [fault, run] of Object.entries(FAULTS)) {
      test(`${source}: ${fault}`, async (context) => run({ world: await World.open(context, shared), source }));
    }
  }
});
