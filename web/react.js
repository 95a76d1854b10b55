'use client';

import { useEffect, useState, useSyncExternalStore } from 'react';
import { ResilientEventSource } from './resilient-sse.js';

/**
 * The React hook `useResilientSSE`. Its types, and what it promises, are in `react.d.ts`.
 *
 * From top to bottom: the hook; what one component sees ({@link View}); the connection that components share
 * ({@link Connection}); requests and small helpers.
 *
 * @module resilient-sse/react
 */

/**
 * @import { GapDetail, ResilientEventSourceError, SourceState, StreamEvent, TerminalEvent } from './resilient-sse.js'
 * @import { Conversation, Fold, ResilientConversation, ResilientSSE, SSEEvent, Status, UseResilientSSEOptions } from './react.d.ts'
 *
 * @typedef {UseResilientSSEOptions<any> & Partial<Fold<any, any> & Conversation>} Options
 * @typedef {ResilientSSE<any, any> & Partial<ResilientConversation<any, any>>} Result
 *
 * @typedef {object} Run how the request stands that a connection follows now
 * @property {number} turn counts the runs of a connection
 * @property {number} start the number of the run's first event; events are numbered across all runs
 * @property {Status} status
 * @property {ResilientEventSourceError | null} error
 * @property {string | null} lastEventId
 * @property {GapDetail | null} gap
 *
 * @typedef {Run & { version: number, end: number }} Published a run as components see it: its events before number `end`
 *
 * @typedef {object} Folded what a component has made of the events of a run
 * @property {Connection} connection
 * @property {number} turn
 * @property {number} position the number of the next event
 * @property {unknown} data
 * @property {readonly SSEEvent<unknown>[]} events
 * @property {GapDetail | null} gap the events that were no longer kept when the component mounted
 *
 * @typedef {object} Request
 * @property {'stream' | 'resume' | 'turn'} kind a stream by itself, what runs in a conversation, or a new turn of it
 * @property {string | URL} url
 * @property {string} [method]
 * @property {Options['body']} [body]
 * @property {string} [idempotencyKey] one for all attempts, those that `reconnect` makes included
 */

/** How many events are kept, unless the option `keep` says otherwise. */
const KEEP = 1000;
/** After how many attempts without an event a source gives up, unless `maxAttempts` says otherwise. */
const MAX_ATTEMPTS = 3;
/** How long a render waits for an animation frame, in milliseconds. A hidden tab has none. */
const FRAME_LIMIT = 100;
/** How long `stop` waits for the terminal event of a stream that was stopped, in milliseconds. */
const STOP_PATIENCE = 1000;

/** The options that make a connection what it is. The others may change without a reconnect. */
const IDENTITY = /** @type {const} */ ([
  'conversation', 'method', 'body', 'headers', 'lastEventId', 'recover', 'terminal', 'maxAttempts', 'minDelay', 'maxDelay',
  'heartbeat', 'maxEventBytes', 'storage', 'fetch', 'signal',
]);

const TERMINAL = /** @type {const} */ (['completed', 'failed', 'cancelled', 'orphaned', 'expired']);

/**
 * @param {string | URL | null | undefined} url
 * @param {Options} [options]
 * @returns {Result}
 */
export function useResilientSSE(url, options = {}) {
  const key = keyOf(url, options);
  let [view, setView] = useState(() => new View(key, url, options));
  if (view.key !== key) {
    view = new View(key, url, options);
    setView(view);
  }
  // Inline functions are new in every render. The latest ones are called; a new one is no reason to reconnect.
  useEffect(() => view.use(options));
  return useSyncExternalStore(view.subscribe, view.read, view.readOnServer);
}

// ----------------------------------------------------------------------------------------------------------- View

/**
 * What one component sees of a connection: its published events, folded by the component's own `reduce`.
 *
 * React reads a view while it renders, also in renders that it throws away, so reading opens nothing. Subscribing opens
 * the connection: React does that after a commit, and only in a browser.
 */
class View {
  /** @type {Folded | null} */
  folded = null;
  /** @type {Connection | null} */
  #connection = null;
  #isUnmounted = false;
  #version = -1;
  /** @type {Result} */
  #result;
  /** @type {Result} */
  #blank;

  /**
   * @param {string | null} key
   * @param {string | URL | null | undefined} url
   * @param {Options} options
   */
  constructor(key, url, options) {
    this.key = key;
    this.url = String(url);
    this.options = options;
    if (key !== null && options.conversation) turnUrl(this.url, options.conversation); // a mistake shows at once
    const run = newRun(0, 0, key === null ? 'idle' : 'connecting');
    this.#blank = this.#result = this.#show(run, { data: this.#initial, events: [], gap: null });
  }

  /** @param {Options} options Those of the latest render. */
  use(options) {
    this.options = options;
    if (this.#connection) this.#connection.options = options;
  }

  /** @param {() => void} changed */
  subscribe = (changed) => {
    if (this.key === null) return () => {};
    const connection = Connection.of(this.key, this.url, this.options);
    const leave = connection.join(this, changed);
    this.#connection = connection;
    this.#isUnmounted = false;
    return () => {
      this.#connection = null;
      this.#isUnmounted = true;
      leave();
    };
  };

  /** Returns what the component sees now: the same object until something else is published. */
  read = () => {
    const connection = this.#connection ?? Connection.existing(this.key);
    if (!connection) return this.#blank;
    const { published } = connection;
    if (this.folded?.connection !== connection || this.#version !== published.version) {
      this.folded = this.#fold(connection);
      this.#result = this.#show(published, this.folded);
      this.#version = published.version;
    }
    return this.#result;
  };

  readOnServer = () => this.#blank;

  /** @param {Options['body']} [body] */
  send = (body) => handled(this.#ask((connection) => connection.send(body)) ?? Promise.reject(notConnected()));
  stop = () => handled(this.#ask((connection) => connection.stop()) ?? Promise.resolve(false));
  reconnect = () => void this.#ask((connection) => connection.reconnect());

  /**
   * Calls the connection, if there is one. An effect of a child runs before those of its parent, and may call a function of
   * the parent's hook before the parent has subscribed: the connection is opened for it then, and the parent joins it.
   * @template T
   * @param {(connection: Connection) => T} call
   * @returns {T | undefined}
   */
  #ask(call) {
    if (this.#connection) return call(this.#connection);
    if (this.key === null || this.#isUnmounted) return undefined;
    const connection = Connection.of(this.key, this.url, this.options);
    const leave = connection.join(this, () => {});
    try {
      return call(connection);
    } finally {
      leave();
    }
  }

  get #initial() {
    return this.options.reduce ? this.options.initial : null;
  }

  /**
   * Folds the events that were published since the last time.
   * @param {Connection} connection
   * @returns {Folded}
   */
  #fold(connection) {
    const { turn, end } = connection.published;
    const { reduce, parse, keep = KEEP } = this.options;
    const last = this.folded;
    const goesOn = last?.connection === connection && last.turn === turn && last.position >= connection.firstKept;
    let { data, events, position, gap } = goesOn ? last : this.#begin(connection);
    const fresh = connection.events(position, end).map((event) => (parse ? { ...event, data: parse(event.data) } : event));
    if (reduce) {
      for (const event of fresh) data = reduce(data, event);
    } else if (fresh.length > 0) {
      data = fresh[fresh.length - 1].data;
      events = lastOf([...events, ...fresh], keep);
    }
    return { connection, turn, position: end, data, events, gap };
  }

  /**
   * Begins with the run's first event. Where that is no longer kept, a component that folds takes over the state of another one
   * that folds by the very same function; without such a one, a gap says what its state lacks.
   * @param {Connection} connection
   * @returns {Folded}
   */
  #begin(connection) {
    const { turn, start } = connection.published;
    const { firstKept } = connection;
    /** @type {Folded} */
    const begun = { connection, turn, position: Math.max(start, firstKept), data: this.#initial, events: [], gap: null };
    if (firstKept <= start || !this.options.reduce) return begun;
    for (const { folded, options } of connection.views) {
      const isOfRun = folded?.connection === connection && folded.turn === turn && folded.position >= firstKept;
      if (isOfRun && foldsAlike(options, this.options)) return folded;
    }
    const [first] = connection.events(firstKept, firstKept + 1);
    begun.gap = { after: null, resumesAt: first?.lastEventId || null, missed: firstKept - start };
    return begun;
  }

  /**
   * @param {Run} run
   * @param {Pick<Folded, 'data' | 'events' | 'gap'>} folded
   * @returns {Result}
   */
  #show({ status, error, lastEventId, gap }, { data, events, gap: missed }) {
    const { stop, reconnect, send } = this;
    const result = { status, data, events, error, lastEventId, gap: gap ?? missed, stop, reconnect };
    return this.options.conversation ? { ...result, send } : result;
  }
}

// ----------------------------------------------------------------------------------------------------- Connection

/** A connection that is shared by the components which ask for the same URL with the same options. */
class Connection {
  /** @type {Map<string, Connection>} */
  static #all = new Map();

  /** The options of the component that was rendered last. Its functions are called. */
  options;
  /** @type {Published} */
  published;
  /** The number of the first event that is still kept. */
  firstKept = 0;

  #key;
  #url;
  /** @type {Map<View, () => void>} */
  #views = new Map();
  /** @type {SSEEvent[]} */
  #kept = [];
  /** @type {Run} */
  #run;
  /** The request of the mount: the stream itself, or what runs in the conversation. @type {Request} */
  #first;
  /** @type {Request} */
  #request;
  /** @type {ResilientEventSource | null} */
  #source = null;
  /** The cursor that the source began after: the run may have brought no event yet. */
  #cursor = '';
  /** Is resolved when the source is done with. */
  #followed = Promise.resolve();
  /** Whether the run has had a connection, or an attempt that failed: the next one is a reconnect. */
  #isKnown = false;
  /** Whether no event has come since the last gap. */
  #isGapOpen = false;
  /** Whether the last response cannot be resumed. */
  #isUnrecorded = false;
  /** @type {(() => void) | null} */
  #cancelFrame = null;

  /**
   * @param {string} key
   * @param {string} url
   * @param {Options} options
   */
  constructor(key, url, options) {
    this.#key = key;
    this.#url = url;
    this.options = options;
    this.#run = newRun(0, 0, 'connecting');
    this.published = { ...this.#run, version: 0, end: 0 };
    this.#request = this.#first = firstRequest(url, options);
    this.#open(this.#first, options.lastEventId);
  }

  /** @param {string | null} key */
  static existing(key) {
    return key === null ? undefined : Connection.#all.get(key);
  }

  /**
   * @param {string} key
   * @param {string} url
   * @param {Options} options
   */
  static of(key, url, options) {
    const connection = Connection.#all.get(key) ?? new Connection(key, url, options);
    Connection.#all.set(key, connection);
    return connection;
  }

  /**
   * @param {View} view
   * @param {() => void} changed Is called after each publication.
   * @returns {() => void} Leaves the connection. It is closed when nobody is left.
   */
  join(view, changed) {
    this.#views.set(view, changed);
    return () => {
      this.#views.delete(view);
      // Not at once: in strict mode, and where one component takes the place of another, somebody joins within this task.
      queueMicrotask(() => {
        if (this.#views.size === 0) this.#close();
      });
    };
  }

  get views() {
    return this.#views.keys();
  }

  /**
   * @param {number} from
   * @param {number} to
   */
  events(from, to) {
    return this.#kept.slice(from - this.firstKept, to - this.firstKept);
  }

  /**
   * Begins the next turn of the conversation.
   * @param {Options['body']} body
   * @returns {Promise<TerminalEvent>}
   */
  async send(body) {
    const { finished } = this.#open(nextTurn(this.#url, this.options, body));
    this.#begin();
    await this.#followed;
    return finished;
  }

  /** Goes on after the cursor if the run has not ended, and else begins with the first request again. */
  reconnect() {
    const isRefused = this.#request.kind === 'turn' && this.#run.error?.status === 409;
    if (this.#isOver || isRefused) {
      this.#open(this.#first, '');
      this.#begin();
    } else {
      this.#open(this.#request, this.#run.lastEventId ?? this.#cursor);
      // What cannot be resumed comes again from its beginning.
      if (this.#isUnrecorded && !this.#run.lastEventId) this.#begin();
      else this.#set({ status: 'reconnecting', error: null });
    }
  }

  /** Asks the server to stop the stream, then closes. Returns whether the server has stopped one. */
  async stop() {
    const source = this.#source;
    if (!source || this.#isOver) return false;
    let isStopped = false;
    const hasGivenUp = this.#run.status === 'error';
    if (this.options.stop !== false) {
      const isEarly = !this.#isKnown && !hasGivenUp;
      isStopped = await this.#askToStop(source);
      if (isEarly) {
        // The request to stop may have overtaken the one that starts the stream, and have met none or the turn before.
        await Promise.race([isOpen(source), this.#followed]);
        if (this.#source === source && !this.#isOver) isStopped = (await this.#askToStop(source)) || isStopped;
      }
      await atMost(STOP_PATIENCE, this.#followed);
    }
    // Nothing is stopped, and nothing was connected: the error still says how things are.
    if (hasGivenUp && !isStopped) return false;
    if (this.#source === source && !this.#isOver) {
      source.close();
      this.#finish({ status: 'cancelled', error: null });
    }
    return isStopped;
  }

  /**
   * Sends the request that stops the stream. Returns whether there was a stream to stop.
   * @param {ResilientEventSource} source
   */
  async #askToStop(source) {
    const { url, method } = stopTarget(this.#url, this.options, source.streamId);
    let response;
    for (const unauthorized of [false, true]) {
      const headers = await headersOf(this.options, { unauthorized });
      // `keepalive`: the request outlives the page that sends it.
      response = await this.#fetch(url, { method, headers, keepalive: true });
      if (response.status !== 401) break;
    }
    if (response?.ok) return true;
    if (response?.status === 404) return false;
    throw new Error(`useResilientSSE: ${method} ${url} was answered with status ${response?.status}, so nothing is stopped`);
  }

  get #isOver() {
    const { status } = this.#run;
    return status === 'idle' || isTerminal(status);
  }

  /** @param {StreamEvent} event */
  #isTerminal(event) {
    const { terminal } = this.options;
    return typeof terminal === 'function' && terminal(event);
  }

  /** @param {Parameters<typeof globalThis.fetch>} request */
  #fetch(...request) {
    return (this.options.fetch ?? globalThis.fetch)(...request);
  }

  /**
   * Sends a request, in place of the one that is followed.
   * @param {Request} request
   * @param {string} [cursor]
   */
  #open(request, cursor) {
    const { terminal, storage } = this.options;
    if (request.kind === 'stream') storeKey(storage, request.idempotencyKey);
    const source = new ResilientEventSource(request.url, {
      ...sourceOptions(this.options, request),
      lastEventId: cursor,
      headers: (context) => headersOf(this.options, context, request),
      fetch: async (...request) => {
        const response = await this.#fetch(...request);
        if (response.ok) this.#isUnrecorded = response.headers.get('x-stream-recorded') === 'false';
        return response;
      },
      terminal: typeof terminal === 'function' ? (event) => this.#isTerminal(event) : terminal,
    });
    this.#source?.close();
    this.#source = source;
    this.#cursor = source.lastEventId;
    this.#request = request;
    this.#followed = this.#follow(source);
    return source;
  }

  /** @param {ResilientEventSource} source */
  async #follow(source) {
    const isCurrent = () => this.#source === source;
    source.addEventListener('statechange', () => {
      if (isCurrent()) this.#enter(source.state);
    });
    try {
      for await (const event of source) {
        if (!isCurrent()) return;
        this.#take(event);
      }
      const { type } = await source.finished;
      if (isCurrent()) this.#finish({ status: endedAs(type, this.#request.kind) });
    } catch (error) {
      if (!isCurrent() || this.#isOver) return;
      const isClosed = source.state === 'closed';
      this.#finish(isClosed ? { status: 'idle' } : { status: 'error', error: /** @type {ResilientEventSourceError} */ (error) });
    }
  }

  /** @param {SourceState} state */
  #enter(state) {
    if (state === 'open') {
      this.#isKnown = true;
      this.#set({ status: 'connected' });
    } else if (state === 'waiting') {
      this.#isKnown = true;
      this.#set({ status: 'reconnecting' });
    } else if (state === 'connecting') {
      this.#set({ status: this.#isKnown ? 'reconnecting' : 'connecting' });
    }
  }

  /** @param {MessageEvent<string> & { detail?: unknown }} event An event of the stream, or a notice, which has a `detail`. */
  #take({ type, data, lastEventId, detail }) {
    if (detail !== undefined && type === 'gap') {
      this.#isGapOpen = true;
      this.#set({ gap: /** @type {GapDetail} */ (detail) });
    } else if (detail !== undefined && type === 'restart') {
      // The work began anew: what came before may be repeated or contradicted.
      // The server tells a gap before the restart: it is of the new run if that does not come from its first event on.
      const { gap, status } = this.#run;
      const isOfNewRun = this.#isGapOpen && gap?.resumesAt != null && !/-1$/.test(gap.resumesAt);
      this.#run = newRun(this.#run.turn + 1, this.#end, status);
      this.#set({ gap: isOfNewRun ? gap : null });
    } else {
      this.#isGapOpen = false;
      this.#kept.push({ type, data, lastEventId });
      this.#set({ lastEventId: lastEventId || null });
    }
  }

  /** Begins another run, and shows that in the same render as what the caller changes along with it. */
  #begin() {
    this.#run = newRun(this.#run.turn + 1, this.#end, 'connecting');
    this.#isKnown = false;
    this.#publish();
  }

  /**
   * Shows how the run has ended, without waiting for a frame: a hidden tab may wait long.
   * @param {Partial<Run>} end
   */
  #finish(end) {
    Object.assign(this.#run, end);
    this.#publish();
  }

  /** The number of the next event. */
  get #end() {
    return this.firstKept + this.#kept.length;
  }

  /** @param {Partial<Run>} change */
  #set(change) {
    Object.assign(this.#run, change);
    this.#change();
  }

  /** Has everything that changes until the next frame rendered at once. */
  #change() {
    this.#cancelFrame ??= nextFrame(() => this.#publish());
  }

  #publish() {
    this.#cancelFrame?.();
    this.#cancelFrame = null;
    this.published = { ...this.#run, version: this.published.version + 1, end: this.#end };
    for (const changed of this.#views.values()) changed();
    this.#trim();
  }

  /** Lets go of the events of earlier runs, and of those that are too many. */
  #trim() {
    // One at least: without `reduce` it is what a component shows that mounts now.
    const keep = Math.max(1, ...Array.from(this.views, ({ options }) => options.keep ?? KEEP));
    const firstKept = Math.max(this.firstKept, this.#run.start, this.#end - keep);
    this.#kept.splice(0, firstKept - this.firstKept);
    this.firstKept = firstKept;
  }

  #close() {
    if (Connection.#all.get(this.#key) === this) Connection.#all.delete(this.#key);
    this.#source?.close();
    this.#source = null;
    this.#cancelFrame?.();
  }
}

// ------------------------------------------------------------------------------------------------------- Requests

/**
 * The request that a connection begins with.
 * @param {string} url
 * @param {Options} options
 * @returns {Request}
 */
function firstRequest(url, { conversation, method, body, storage }) {
  if (conversation) return { kind: 'resume', url };
  /** @type {Request} */
  const request = { kind: 'stream', url, method: method ?? (body == null ? 'GET' : 'POST'), body };
  // With a `storage` a reloaded page repeats the key of the page before.
  if (!/^(get|head)$/i.test(request.method ?? '')) request.idempotencyKey = storedKey(storage) || randomId();
  return request;
}

/**
 * The key of a POST that an event source has stored.
 * @param {string | undefined} storage
 */
function storedKey(storage) {
  if (storage === undefined) return '';
  try {
    return globalThis.sessionStorage?.getItem(`${storage}:idempotency-key`) ?? '';
  } catch {
    return '';
  }
}

/**
 * Stores the key of a POST where its event source looks for one. A source before it has removed the key, if the server refused
 * an attempt or if the stream has ended.
 * @param {string | undefined} storage
 * @param {string | undefined} key
 */
function storeKey(storage, key) {
  if (storage === undefined || key === undefined) return;
  try {
    globalThis.sessionStorage?.setItem(`${storage}:idempotency-key`, key);
  } catch {
    // Storage that is full or forbidden: a reload begins anew.
  }
}

/**
 * The request that posts a turn of a conversation.
 * @param {string} url
 * @param {Options} options
 * @param {Options['body']} body
 * @returns {Request}
 */
function nextTurn(url, { conversation }, body) {
  return { kind: 'turn', url: turnUrl(url, conversation), method: 'POST', body, idempotencyKey: randomId() };
}

/**
 * Where the turns of a conversation are posted.
 * @param {string} url
 * @param {Options['conversation']} conversation
 */
function turnUrl(url, conversation) {
  const chosen = typeof conversation === 'object' ? conversation.send : undefined;
  if (chosen !== undefined) return chosen;
  const posted = url.replace(/\/stream(?=[?#]|$)/, '');
  if (posted !== url) return posted;
  throw new TypeError(`useResilientSSE: ${url} does not end in /stream, so say \`conversation: { send: URL }\``);
}

/**
 * @param {string} url
 * @param {Options} options
 * @param {string | null} streamId
 * @returns {{ url: string | URL, method: string }}
 */
function stopTarget(url, { stop, conversation }, streamId) {
  const chosen = typeof stop === 'function' ? stop(streamId) : stop;
  const target = typeof chosen === 'string' || chosen instanceof URL ? { url: chosen } : chosen || {};
  // The conversation may have gone on to another turn, in another tab.
  const own = conversation && streamId ? `${url}${url.includes('?') ? '&' : '?'}stream=${encodeURIComponent(streamId)}` : url;
  return { url: target.url ?? own, method: target.method ?? 'DELETE' };
}

/**
 * @param {Options} options
 * @param {{ unauthorized: boolean }} context
 * @param {Request} [request]
 */
async function headersOf({ headers: given }, context, request) {
  const headers = new Headers(typeof given === 'function' ? await given(context) : given);
  const key = request?.idempotencyKey;
  // Each turn needs a key of its own, whatever the options say.
  if (key !== undefined && (request?.kind === 'turn' || !headers.has('idempotency-key'))) headers.set('idempotency-key', key);
  return headers;
}

/**
 * @param {Options} options
 * @param {Request} request
 */
function sourceOptions(options, { method, body }) {
  const { maxAttempts = MAX_ATTEMPTS, minDelay, maxDelay, heartbeat, maxEventBytes, signal, recover, storage } = options;
  const source = { maxAttempts, minDelay, maxDelay, heartbeat, maxEventBytes, signal, method, body };
  // Recovery and a stored cursor belong to one stream, and a conversation is many.
  return options.conversation ? source : { ...source, recover, storage };
}

// -------------------------------------------------------------------------------------------------------- Helpers

/**
 * The name of a connection: equal for equal options, in whatever objects they come.
 * @param {string | URL | null | undefined} url
 * @param {Options} options
 */
function keyOf(url, options) {
  if (url === null || url === undefined) return null;
  return JSON.stringify([String(url), ...IDENTITY.map((name) => options[name])], (_, value) => portable(value));
}

/** @param {any} value */
function portable(value) {
  if (typeof value === 'function') return 'function';
  if (typeof value === 'number') return String(value); // JSON knows no Infinity
  if (typeof value !== 'object' || value === null) return value;
  if (Symbol.iterator in value) return [...value];
  const prototype = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return Object.fromEntries(Object.entries(value).sort());
  if (!identities.has(value)) identities.set(value, (lastIdentity += 1));
  return identities.get(value);
}

/** Numbers of objects that are told apart by identity alone, such as an `AbortSignal`. @type {WeakMap<object, number>} */
const identities = new WeakMap();
let lastIdentity = 0;

/**
 * @param {number} turn
 * @param {number} start
 * @param {Status} status
 * @returns {Run}
 */
function newRun(turn, start, status) {
  return { turn, start, status, error: null, lastEventId: null, gap: null };
}

/**
 * How a run has ended, by the name of its terminal event. Formats of other servers have names of their own, such as
 * `response.failed`.
 * @param {string} type
 * @param {Request['kind']} kind
 * @returns {Status}
 */
function endedAs(type, kind) {
  if (type === 'ended' && kind === 'resume') return 'idle';
  const name = type.slice(type.lastIndexOf('.') + 1);
  return TERMINAL.find((status) => status === name) ?? (name === 'error' ? 'failed' : 'completed');
}

/** @param {ResilientEventSource} source */
async function isOpen(source) {
  if (source.state !== 'open') await new Promise((opened) => source.addEventListener('open', opened));
}

/** @param {Status} status */
function isTerminal(status) {
  return TERMINAL.some((terminal) => terminal === status);
}

/**
 * @param {Options} one
 * @param {Options} other
 */
function foldsAlike(one, other) {
  return one.reduce === other.reduce && one.parse === other.parse && Object.is(one.initial, other.initial);
}

/**
 * Calls back at the next animation frame, but no later than `FRAME_LIMIT`. Returns what calls it off.
 * @param {() => void} callback
 */
function nextFrame(callback) {
  const frame = globalThis.requestAnimationFrame?.(callback);
  const timer = setTimeout(callback, FRAME_LIMIT);
  return () => {
    clearTimeout(timer);
    if (frame !== undefined) cancelAnimationFrame(frame);
  };
}

/**
 * Waits for a promise, but not for long.
 * @param {number} limit In milliseconds.
 * @param {Promise<void>} promise
 */
async function atMost(limit, promise) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  await Promise.race([promise, new Promise((resolve) => (timer = setTimeout(resolve, limit)))]);
  clearTimeout(timer);
}

/**
 * A promise whose rejection may be left alone: `error` tells the same.
 * @template T
 * @param {Promise<T>} promise
 */
function handled(promise) {
  promise.catch(() => {});
  return promise;
}

/**
 * @template T
 * @param {readonly T[]} list
 * @param {number} count
 */
function lastOf(list, count) {
  return count > 0 ? list.slice(-count) : [];
}

/** `crypto.randomUUID` exists on secure pages only. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function notConnected() {
  return new Error('useResilientSSE: nothing is connected that a turn could be sent with');
}
