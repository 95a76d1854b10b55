import { ResilientEventSource } from '/resilient-sse.js';

/** What the terminal events say, in words. */
const ENDS = {
  completed: 'Completed: the whole answer is here.',
  cancelled: 'Stopped: somebody asked the server to.',
  failed: 'Failed: the work ended without an answer.',
  orphaned: 'Orphaned: the node that did the work is gone.',
  expired: 'Expired: nothing had been heard of the work for too long.',
  ended: 'Ended: the server has nothing more to say.',
};

/** The states in which it is of interest that the page is offline. */
const NOT_OPEN = new Set(['connecting', 'waiting']);

/** Recovery's pages hold no more events than this. */
const PAGE = 10_000;

/**
 * Follows a stream to its end, and notes in the run what arrives.
 *
 * @param {import('./run.js').Run} run
 * @param {import('./nodes.js').Nodes} nodes
 * @returns {ResilientEventSource}
 */
export function follow(run, nodes) {
  const { id: _, ...plan } = run.plan;
  const { path } = run;
  /** The ids of the events that were recorded before the connection was asked for: what comes of them is a replay. */
  let recorded = new Set();
  let resuming = false;
  let uncertain = false;

  const source = new ResilientEventSource(`${path}?${new URLSearchParams(plan)}`, {
    lastEventId: run.cursor,
    fetch: async (target, init) => {
      const isNew = run.isOwn && run.requests === 0;
      run.requests += 1;
      recorded = isNew ? new Set() : await recordedAfter(run.cursor, path, nodes, init?.signal);
      return nodes.fetch(target, init);
    },
  });

  run.state('connecting');
  source.addEventListener('statechange', () => {
    if (source.state === 'waiting' && run.states.at(-1)?.state === 'open') run.happened('cut', 'The connection broke.');
    run.state(isOffline(nodes) && NOT_OPEN.has(source.state) ? 'offline' : source.state);
  });
  source.addEventListener('open', () => {
    const again = recorded.size === 1 ? '1 event' : `${recorded.size} events`;
    if (resuming || run.tokens.length > 0) run.happened('open', `Connected again: ${again} to catch up on.`);
    else run.happened('open', recorded.size > 0 ? `Connected: ${again} to catch up on.` : 'Connected.');
    resuming = true;
  });
  source.addEventListener('gap', () => {
    uncertain = true;
  });
  source.addEventListener('restart', () => {
    run.forget(0);
    // After a gap it only says that the cursor was of another run.
    if (!uncertain) run.happened('restart', 'The work began anew: what there was is thrown away.');
  });
  source.addEventListener('message', (event) => {
    const { s, type, data } = JSON.parse(event.data);
    // In other voices than the default one the server's own words have no name either.
    if (type !== 'token') return;
    if (uncertain) afterGap(run, s);
    uncertain = false;
    run.cursor = event.lastEventId;
    run.token(s, data.text, recorded.has(event.lastEventId));
  });
  source.finished.then(
    ({ type, data }) => {
      const tokens = type === 'completed' ? JSON.parse(data).data?.tokens : undefined;
      if (uncertain) afterGap(run, tokens ?? run.tokens.length);
      run.ended(type, ENDS[type] ?? `Ended: ${type}.`, tokens);
    },
    (error) => {
      if (source.state === 'gaveup') run.ended('gaveup', `Gave up: ${error.message}.`);
    },
  );
  return source;
}

/** The server has said that it cannot continue exactly. The number of the next token, or of all, shows where it goes on. */
function afterGap(run, s) {
  const known = run.tokens.length;
  if (s > known) {
    run.lost.push({ from: known, to: s - 1, at: run.now });
    run.happened('gap', `A gap: ${s - known} events are lost, and the server says so.`);
  } else {
    run.forget(s);
    run.happened('gap', `A gap: the server cannot go on after the cursor, and begins again at event ${s}.`);
  }
}

function isOffline(nodes) {
  return nodes.offline || !navigator.onLine;
}

/** The ids of the events that the server holds beyond a cursor. */
async function recordedAfter(cursor, path, nodes, signal) {
  const query = new URLSearchParams({ events: 'true', limit: String(PAGE), ...(cursor && { after: cursor }) });
  const response = await nodes.fetch(`${path}/recover?${query}`, { signal });
  if (!response.ok) return new Set();
  const { events = [] } = await response.json();
  return new Set(events.map((event) => event.id));
}
