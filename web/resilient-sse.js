/**
 * Server-sent events that survive disconnects: an event source over `fetch`, for servers that use the Rust crate
 * `resilient-sse`, and for any other server that sends `text/event-stream`.
 *
 * From top to bottom: the source ({@link ResilientEventSource}), its policy (when to try again, when to give up), the words
 * that the server itself says in a stream, the parser of the wire format ({@link EventStreamParser}), and small helpers. What the
 * options mean, and what users see, is described in `resilient-sse.d.ts`.
 *
 * @module resilient-sse
 */

/** @import * as api from './resilient-sse.d.ts' */

/**
 * What recovery answers, of which all but the `status` may be missing.
 * @typedef {{ status: string, reason?: string | null, terminalEventType?: string, terminalEventData?: unknown, missing?: number | null,
 *   events?: { id: string, type: string, data: string, json?: unknown }[], next?: string | null }} RecoveryAnswer
 */

// --------------------------------------------------------------------------------------------------------- Errors

/** Why a source has lost its connection or given up. */
export class ResilientEventSourceError extends Error {
  /**
   * @param {api.FailureReason} reason
   * @param {string} message
   * @param {{ cause?: unknown, status?: number, retryAfter?: number }} [more]
   */
  constructor(reason, message, more = {}) {
    super(message, 'cause' in more ? { cause: more.cause } : undefined);
    this.name = 'ResilientEventSourceError';
    /** What happened. */
    this.reason = reason;
    /** The response's status, where that is the reason. @type {number | undefined} */
    this.status = more.status;
    /** How many milliseconds the server asked to wait (`Retry-After`). @type {number | undefined} */
    this.retryAfter = more.retryAfter;
  }
}

// --------------------------------------------------------------------------------------------------------- Source

/** `EventTarget`, with the types of the events that a source dispatches. */
const TypedEventTarget = /** @type {new () => Pick<api.ResilientEventSource, keyof EventTarget>} */ (EventTarget);

/**
 * An event source that finds its way back.
 * @implements {api.ResilientEventSource}
 */
export class ResilientEventSource extends TypedEventTarget {
  #policy;
  #requests;
  #isTerminal;
  #storage;
  /** @type {AbortSignal | undefined} */ #signal;

  /** @type {api.SourceState} */ #state = 'connecting';
  /** @type {ResilientEventSourceError | null} */ #error = null;
  #cursor = '';
  /** The id of the last event that was delivered, until a restart is told: another run than this one is news. */ #known = '';
  /** @type {string | null} */ #streamId = null;

  #attempts = 0;
  /** Whether the last attempt brought no event. */
  #fruitless = true;
  /**
   * The terminal event, once it has come.
   * @type {api.TerminalEvent | null}
   */
  #last = null;
  /** Whether recovery has said that the stream is over: the rest comes from there. */
  #hasEnded = false;
  /** When the last attempt began, in milliseconds. */
  #triedAt = 0;
  /** When the page was seen again, or the network was back, without a wait to cut short. In milliseconds. */
  #wokenAt = -Infinity;
  /** The `retry:` that the server said last, in milliseconds. @type {number | null} */ #retry = null;

  /** Ends the attempt that runs. @type {AbortController | null} */ #connection = null;
  #watchdog = new Watchdog((limit) => this.#connection?.abort(silent(limit)));
  /** The heartbeat's interval in seconds, once the server has said it. */ #heartbeat = 0;
  /** Whether this response's voice has words for notices. */ #saysNotices = false;
  /** Whether events of a response that is not recorded were delivered: the next response begins anew. */ #unrecorded = false;
  /** The wait for the next attempt. @type {Pause | null} */ #pause = null;

  /** Whether the storage holds what a reload shall find. It is not written any more. */ #isStored = false;

  /** @type {Set<Mailbox>} */ #mailboxes = new Set();
  /** @type {Promise<api.TerminalEvent>} */ #finished;
  /** @type {(event: api.TerminalEvent) => void} */ #resolve = () => {};
  /** @type {(error: ResilientEventSourceError) => void} */ #reject = () => {};

  /**
   * @param {string | URL} url
   * @param {api.ResilientEventSourceOptions} [options]
   */
  constructor(url, options = {}) {
    super();
    this.#policy = policy(options);
    this.#storage = new CursorStorage(options.storage);
    this.#requests = new Requests(url, options, this.#storage);
    this.#isTerminal = terminalRule(options.terminal);
    this.#cursor = options.lastEventId ?? this.#storage.cursor;
    this.#known = this.#cursor;
    this.#signal = options.signal;
    this.#finished = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // A page that does not look at `finished` has not forgotten to handle an error.
    this.#finished.catch(() => {});

    this.#signal?.addEventListener('abort', this.#abort);
    globalThis.document?.addEventListener?.('visibilitychange', this.#wake);
    globalThis.addEventListener?.('online', this.#wake);
    if (this.#signal?.aborted) this.#abort();
    // A source that is closed at once, as React's strict mode does, sends no request.
    else queueMicrotask(() => void this.#run());
  }

  /** The URL, resolved. */
  get url() {
    return this.#requests.url;
  }

  /** What the source does now. */
  get state() {
    return this.#state;
  }

  /** The cursor: the id of the last event that was delivered, or the one to begin after. Empty if there is none. */
  get lastEventId() {
    return this.#cursor;
  }

  /** How many attempts have begun since the last event, the one that runs included. */
  get attempts() {
    return this.#attempts;
  }

  /** The name of the stream, once the server has said it. Stop and recovery are asked with it. */
  get streamId() {
    return this.#streamId;
  }

  /** The last failure, or null if an event has come since. */
  get error() {
    return this.#error;
  }

  /**
   * The terminal event. It is rejected with a {@link ResilientEventSourceError} where the source gives up or is closed.
   * A rejection that nobody looks at is not reported as unhandled.
   */
  get finished() {
    return this.#finished;
  }

  /** Closes the connection for good. The server's work goes on: this is no stop. */
  close() {
    this.#close(undefined);
  }

  /**
   * Iterates over the stream's events from now on.
   * @returns {AsyncIterableIterator<MessageEvent<string>>}
   */
  [Symbol.asyncIterator]() {
    const mailbox = new Mailbox(this.#cursor, () => this.#persist());
    if (this.#isOver) mailbox.end(this.#state === 'gaveup' ? this.#error : null);
    else this.#mailboxes.add(mailbox);
    return {
      next: () => mailbox.take(),
      return: async () => {
        this.close();
        mailbox.clear();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  // ---------------------------------------------------------------------------------- Attempts, one after the other

  async #run() {
    while (!this.#isOver) {
      const failure = await this.#attempt();
      if (this.#isOver) return;
      this.#error = failure;
      if (isFinal(failure)) return this.#giveUp(failure);
      if (this.#attempts >= this.#policy.maxAttempts && !isOffline()) {
        const message = `gave up after ${this.#attempts} attempts without an event: ${failure.message}`;
        return this.#giveUp(new ResilientEventSourceError('attempts', message, { cause: failure }));
      }
      await this.#wait(failure);
      this.#enter('connecting');
    }
  }

  /**
   * Connects once and reads until the connection is over. Returns why it is, which is of no interest if the source is over too.
   * @returns {Promise<ResilientEventSourceError>}
   */
  async #attempt() {
    const asksRecovery = this.#requests.canRecover && (this.#fruitless || this.#hasEnded);
    this.#attempts += 1;
    this.#fruitless = true;
    this.#triedAt = Date.now();
    const connection = new AbortController();
    this.#connection = connection;
    try {
      const answer = asksRecovery ? await this.#askRecovery() : null;
      this.#hasEnded = answer !== null && hasEnded(answer);
      if (answer && this.#hasEnded) await this.#conclude(answer);
      else await this.#connect();
      return unfinished();
    } catch (error) {
      return asFailure(connection.signal.aborted ? connection.signal.reason : error);
    } finally {
      this.#watchdog.rest();
      connection.abort();
      this.#connection = null;
    }
  }

  /**
   * Waits before the next attempt.
   * @param {ResilientEventSourceError} failure
   */
  async #wait({ retryAfter }) {
    // A page that was frozen, on a device that slept, learns only once it is seen again that its connection was lost.
    const isBelated = retryAfter === undefined && Date.now() - this.#wokenAt < WAKE_PATIENCE;
    this.#wokenAt = -Infinity;
    const delay = isBelated ? this.#untilSpaced() : reconnectDelay(this.#policy, this.#attempts, retryAfter ?? this.#retry);
    this.#enter('waiting', delay);
    if (this.#isOver) return;
    // A server that said `Retry-After` is not asked earlier because a page is looked at.
    this.#pause = new Pause(delay, { mayShorten: retryAfter === undefined });
    await this.#pause.over;
    this.#pause = null;
  }

  /** The page is seen again, or the network is back. */
  #wake = (/** @type {Event} */ { type }) => {
    if (type === 'visibilitychange' && globalThis.document?.visibilityState === 'hidden') return;
    if (this.#pause?.mayShorten) {
      // The failures of before say nothing about now. But however often this is called, attempts are a second apart.
      this.#attempts = 0;
      this.#pause.shorten(this.#untilSpaced());
      return;
    }
    this.#wokenAt = Date.now();
    this.#watchdog.look();
  };

  /** In how many milliseconds an attempt may begin for which only the page or the network calls. */
  #untilSpaced() {
    return Math.max(0, this.#triedAt + WAKE_SPACING - Date.now());
  }

  // ---------------------------------------------------------------------------------------------------- Connections

  /** The signal of the attempt that runs. */
  get #cut() {
    return /** @type {AbortController} */ (this.#connection).signal;
  }

  /** Asks for the stream on its own route, and delivers it. */
  async #connect() {
    this.#watchForHead(!this.#requests.mayBeginLate || this.#cursor !== '');
    const response = await this.#requests.stream(this.#cursor, this.#cut);
    if (response.status !== 204) return this.#follow(response);
    // The stream is over, and all of it was delivered. Recovery may know how it ended.
    const answer = this.#requests.canRecover ? await this.#askRecovery() : null;
    if (answer && hasEnded(answer)) this.#endAs(answer);
    else this.#end({ type: 'ended', data: '', lastEventId: this.#cursor });
  }

  /** @param {boolean} isPrompt Whether the server answers such a request at once, so that a connection that is dead already is noticed. */
  #watchForHead(isPrompt) {
    if (isPrompt && this.#patience > 0) this.#watchdog.watch(Math.max(this.#patience, HEAD_PATIENCE));
  }

  /**
   * Delivers a response. Returns where it ends cleanly.
   * @param {Response} response
   */
  async #follow(response) {
    const failure = refusal(response);
    if (failure) {
      discard(response);
      throw failure;
    }
    this.#heartbeat = Number(response.headers.get('x-stream-heartbeat')) || this.#heartbeat;
    this.#streamId = response.headers.get('x-stream-id') ?? this.#streamId;
    this.#saysNotices = false;
    const isRecorded = response.headers.get('x-stream-recorded') !== 'false';
    this.#enter('open');
    if (!this.#isOver) this.dispatchEvent(new Event('open'));
    if (this.#isOver) return discard(response);
    if (this.#unrecorded) this.#notice('restart', { epoch: null });
    this.#unrecorded = false;
    await this.#read(response, isRecorded);
  }

  /**
   * @param {Response} response
   * @param {boolean} isRecorded
   */
  async #read(response, isRecorded) {
    const reader = response.body?.getReader();
    if (!reader) return;
    const signal = this.#cut;
    const cancel = () => void reader.cancel().catch(() => {});
    signal.addEventListener('abort', cancel, { once: true });
    const parser = new EventStreamParser({ lastEventId: this.#cursor, maxEventBytes: this.#policy.maxEventBytes });
    try {
      while (!this.#isOver) {
        this.#watchdog.watch(this.#patience);
        const { done, value } = await reader.read();
        signal.throwIfAborted();
        if (done) return;
        // Nobody expects bytes while nobody reads: the watchdog rests until the iterators have room.
        this.#watchdog.rest();
        for (const event of parser.push(value)) {
          for (const mailbox of this.#mailboxes) await mailbox.room();
          // A listener, or somebody meanwhile, may have closed the source.
          signal.throwIfAborted();
          this.#receive(event, isRecorded);
        }
        // Blocks without data may hold an id or a delay, too.
        this.#cursor = parser.lastEventId;
        this.#persist();
      }
    } finally {
      this.#retry = parser.retry ?? this.#retry;
      cancel();
    }
  }

  // ---------------------------------------------------------------------------------------------------- Recovery

  /**
   * Asks how the stream stands. Null: it is not known there, or recovery does not know the cursor; the stream's own route decides.
   * @param {{ limit?: number, after?: string }} [page]
   * @returns {Promise<RecoveryAnswer | null>}
   */
  async #askRecovery({ limit = 1, after = this.#cursor } = {}) {
    this.#watchdog.watch(HEAD_PATIENCE);
    const query = { limit: String(limit), ...(after && { after }) };
    const response = await this.#requests.recovery('application/json', this.#cursor, this.#cut, query);
    const isUnknown = response.status === 404 || response.status === 400;
    const failure = isUnknown ? null : refusal(response, 'application/json');
    if (isUnknown || failure) {
      discard(response);
      if (failure?.reason === 'content-type') throw notRecovery(failure.message);
      if (failure) throw failure;
      return null;
    }
    const answer = parseObject(await untilCut(response.text(), this.#cut));
    this.#watchdog.rest();
    if (typeof answer?.status !== 'string') throw notRecovery('its JSON has no `status`');
    return /** @type {any} */ (answer);
  }

  /**
   * Delivers the rest of a stream that has ended, from recovery alone: the stream's own route might do the work again.
   *
   * Recovery follows a stream where it is asked for an event stream. That tells events apart that its JSON does not: those with a name, and
   * those whose payload has a `type`.
   * @param {RecoveryAnswer} answer
   */
  async #conclude(answer) {
    let failure = unfinished();
    try {
      this.#watchForHead(true);
      const response = await this.#requests.recovery('text/event-stream', this.#cursor, this.#cut);
      if (response.status !== 204) await this.#follow(response);
    } catch (error) {
      failure = asFailure(error);
      if (this.#cut.aborted || failure.retryAfter !== undefined) throw failure;
      if (failure.reason === 'content-type') return this.#concludeFromJson(answer);
    }
    if (this.#isOver) return;
    // Some voices have no word for some ends: the response is empty or breaks off. Recovery says whether that was all.
    const rest = await this.#askRecovery();
    if (!rest || !hasEnded(rest) || rest.events?.length !== 0) throw failure;
    if (rest.missing !== 0) this.#gap(this.#cursor, null, rest.missing);
    if (!this.#isOver) this.#endAs(rest);
  }

  /**
   * The same for a recovery that speaks JSON only.
   * @param {RecoveryAnswer} answer
   */
  async #concludeFromJson(answer) {
    // `missing` counts what is lost, so holes between ids need not be counted again.
    this.#saysNotices = true;
    for (let after = this.#cursor; ; ) {
      const page = await this.#askRecovery({ limit: RECOVERY_PAGE, after });
      if (!page) throw unfinished();
      if (page.missing !== 0 && page.missing !== undefined) this.#gap(after, page.events?.[0]?.id ?? null, page.missing);
      for (const { id, type, data, json } of page.events ?? []) {
        for (const mailbox of this.#mailboxes) await mailbox.room();
        if (this.#isOver) return;
        const name = /** @type {{ type?: unknown } | null} */ (json)?.type === type ? 'message' : type;
        const event = { type: name, data, lastEventId: id, previousEventId: this.#cursor, id };
        this.#heedIds(event, { countsHoles: false });
        this.#receive(event, true);
      }
      this.#persist();
      if (!page.next || page.next === after || this.#isOver) break;
      after = page.next;
    }
    if (!this.#isOver) this.#endAs(answer);
  }

  /**
   * Delivers the terminal event as recovery tells it.
   * @param {RecoveryAnswer} answer
   */
  #endAs(answer) {
    const type = answer.terminalEventType ?? answer.status;
    const { terminalEventData: value = { reason: answer.reason ?? null } } = answer;
    const data = typeof value === 'string' ? value : JSON.stringify(value);
    this.#last = { type, data, lastEventId: this.#cursor };
    this.#deliver(new MessageEvent(type, this.#last), { isLast: true });
    this.#end(this.#last);
  }

  // ------------------------------------------------------------------------------------------------------- Events

  /**
   * Takes an event as it came over the wire.
   * @param {api.ParsedEvent} event
   * @param {boolean} isRecorded
   */
  #receive(event, isRecorded) {
    const notice = event.id === undefined ? readNotice(event) : null;
    if (notice && (notice.name !== 'error' || isRecorded)) return this.#heed(notice, event);
    // Before the cursor moves: if the host's function throws, the event is not lost.
    const ends = notice !== null || this.#isTerminal(event);
    if (!this.#saysNotices) this.#heedIds(event);
    if (this.#isOver) return;
    this.#cursor = event.lastEventId;
    this.#known = event.id ?? this.#known;
    this.#attempts = 0;
    this.#fruitless = false;
    this.#error = null;
    this.#unrecorded ||= !isRecorded && event.id === undefined;
    if (ends) this.#last = { ...wireEvent(event), type: terminalType(event) };
    this.#deliver(new MessageEvent(event.type, event), { isLast: ends });
    if (this.#last) this.#end(this.#last);
  }

  /**
   * Takes what the server itself says.
   * @param {Notice} notice
   * @param {api.ParsedEvent} event
   */
  #heed(notice, { data }) {
    if (notice.name === 'error') return this.#heedError(notice.code);
    this.#saysNotices = true;
    if (notice.name !== 'connected') return this.#notice(notice.name, notice.detail, data);
    this.#streamId = notice.detail.streamId;
    this.dispatchEvent(new NoticeEvent('connected', notice.detail, this.#cursor, data));
  }

  /**
   * Takes an error in the voice `openai`, which has no other word. The response breaks off after it.
   * @param {string} code
   */
  #heedError(code) {
    if (code === 'gap') {
      if (!this.#cursor) throw new ResilientEventSourceError('gap', 'events are lost, and the server cannot go on after them');
      this.#gap(this.#cursor, null, null);
    }
    if (code === 'gap' || code === 'restart') {
      // After this cursor the server would break off for ever.
      this.#cursor = '';
      this.#notice('restart', { epoch: null });
    }
    throw unfinished();
  }

  /**
   * Takes what the ids say, where there are no words for it: another run has another epoch, and lost events leave a hole. Blocks without
   * data have ids, too, so a hole is counted from the block before, and a run is compared with that of the event before.
   * @param {api.ParsedEvent} event
   * @param {{ countsHoles: boolean }} [options]
   */
  #heedIds({ id, previousEventId }, { countsHoles } = { countsHoles: true }) {
    const [known, before, now] = [readId(this.#known), readId(previousEventId), readId(id)];
    if (!before || !now || now.isEnd || before.stream !== now.stream) return;
    const isSameRun = before.epoch === now.epoch;
    const lost = now.seq - 1 - (isSameRun ? before.seq : 0);
    if (lost > 0 && countsHoles) this.#gap(previousEventId, id ?? null, isSameRun ? lost : null);
    if (known?.stream === now.stream && known.epoch !== now.epoch) this.#notice('restart', { epoch: now.epoch });
  }

  /**
   * @param {string} after
   * @param {string | null} resumesAt
   * @param {number | null | undefined} missed
   */
  #gap(after, resumesAt, missed = null) {
    this.#notice('gap', { after: after || null, resumesAt, missed });
  }

  /**
   * @param {'gap' | 'restart'} name
   * @param {api.GapDetail | api.RestartDetail} detail
   * @param {string} [data] As it stands on the wire, if it does.
   */
  #notice(name, detail, data = JSON.stringify(detail)) {
    if (name === 'restart') this.#known = '';
    if (!this.#isOver) this.#deliver(new NoticeEvent(name, detail, this.#cursor, data));
  }

  /**
   * @param {MessageEvent<string>} event
   * @param {{ isLast: boolean }} [place] Whether the stream ends with it.
   */
  #deliver(event, place) {
    for (const mailbox of this.#mailboxes) mailbox.push(event, place);
    this.dispatchEvent(event);
  }

  /**
   * Keeps the cursor of the last event that everybody who iterates is done with.
   * @param {{ isEnd?: boolean }} [now] Whether the stream has ended. Nothing is kept then once everybody has been given its end.
   */
  #persist({ isEnd = this.#state === 'ended' } = {}) {
    if (this.#isStored) return;
    let cursor = this.#cursor;
    let most = 0;
    for (const mailbox of this.#mailboxes) {
      if (mailbox.behind > most) [most, cursor] = [mailbox.behind, mailbox.cursor];
    }
    this.#isStored = isEnd && most === 0;
    if (this.#isStored) this.#storage.clear();
    else this.#storage.cursor = cursor;
  }

  // ---------------------------------------------------------------------------------------------------- Life and end

  get #isOver() {
    return this.#state === 'ended' || this.#state === 'closed' || this.#state === 'gaveup';
  }

  /** How long a connection may be silent, in milliseconds. 0: for ever. */
  get #patience() {
    return (this.#policy.heartbeat ?? this.#heartbeat) * 1000 * HEARTBEATS;
  }

  /**
   * @param {api.SourceState} state
   * @param {number | null} [delay]
   */
  #enter(state, delay = null) {
    if (this.#isOver) return;
    const previous = this.#state;
    this.#state = state;
    const detail = { state, previous, delay, error: this.#error };
    this.dispatchEvent(new CustomEvent('statechange', { detail }));
  }

  /** @param {api.TerminalEvent} event */
  #end(event) {
    if (this.#isOver) return;
    this.#persist({ isEnd: true });
    this.#error = null;
    this.#resolve(event);
    this.#stop('ended');
  }

  /** @param {ResilientEventSourceError} error */
  #giveUp(error) {
    this.#persist();
    // What the server refuses it will refuse after a reload, too, unless somebody has logged in meanwhile.
    if (error.status !== undefined && error.status !== 401 && error.status !== 403) this.#storage.clear();
    this.#error = error;
    this.#reject(error);
    this.#stop('gaveup');
  }

  #abort = () => this.#close(this.#signal?.reason);

  /** @param {unknown} cause */
  #close(cause) {
    if (this.#isOver) return;
    // A listener that closes the source at the terminal event has everything.
    if (this.#last) return this.#end(this.#last);
    this.#persist();
    this.#reject(new ResilientEventSourceError('closed', 'the source was closed', cause === undefined ? {} : { cause }));
    this.#stop('closed');
  }

  /**
   * Lets go of everything: nothing of the source lives on in timers, listeners or readers.
   * @param {'ended' | 'closed' | 'gaveup'} state
   */
  #stop(state) {
    // The storage may belong to another source from now on. Only loops that are behind the stream's end still write there.
    this.#isStored ||= state !== 'ended';
    this.#signal?.removeEventListener('abort', this.#abort);
    globalThis.document?.removeEventListener?.('visibilitychange', this.#wake);
    globalThis.removeEventListener?.('online', this.#wake);
    this.#enter(state);
    this.#connection?.abort();
    this.#pause?.end();
    for (const mailbox of this.#mailboxes) mailbox.end(state === 'gaveup' ? this.#error : null);
    if (this.#isStored) this.#mailboxes.clear();
  }
}

// --------------------------------------------------------------------------------------------------------- Policy

/** A connection that was silent for so many heartbeats is dead. */
const HEARTBEATS = 2.5;
/** How long a GET's response head, or recovery's answer, may take at least, in milliseconds. A server takes up to 2 s. */
const HEAD_PATIENCE = 10_000;
/** How far apart attempts are at least that begin because a page is seen again or the network is back, in milliseconds. */
const WAKE_SPACING = 1000;
/** A connection that fails so soon after a page is seen again or the network is back was lost before, in milliseconds. */
const WAKE_PATIENCE = 5000;
/** The first wait is at most so many times `minDelay`: 4 s by default, so that clients which were cut together come back apart. */
const FIRST_SPREAD = 16;
/** The longest time that `setTimeout` knows. It takes a longer one for none. */
const MAX_TIMER = 2 ** 31 - 1;
/** How many events a page of recovery has, in a recovery that speaks JSON only. */
const RECOVERY_PAGE = 1000;
/** What cannot be mended by trying again. */
const FINAL = new Set(['content-type', 'recover', 'event-too-large', 'terminal', 'gap']);
/** What ends a stream, unless the option `terminal` says otherwise. */
const TERMINAL = ['completed', 'failed', 'cancelled', 'orphaned', 'expired'];

/**
 * The numbers of the options, checked.
 * @param {api.ResilientEventSourceOptions} options
 */
function policy({ maxAttempts = 10, minDelay = 250, maxDelay = 30_000, maxEventBytes = 8 << 20, heartbeat }) {
  for (const [name, value] of Object.entries({ maxAttempts, minDelay, maxDelay, maxEventBytes, heartbeat: heartbeat ?? 0 })) {
    if (typeof value !== 'number' || !(value >= 0)) throw new RangeError(`${name}: ${value} is not a number from 0 on`);
  }
  return { maxAttempts, minDelay, maxDelay: Math.max(minDelay, maxDelay), maxEventBytes, heartbeat };
}

/**
 * How long to wait before the next attempt, in milliseconds: any time between a floor and a ceiling, so that clients which were cut
 * together come back spread out. The ceiling doubles with each attempt.
 * @param {{ minDelay: number, maxDelay: number }} policy
 * @param {number} attempts How many attempts brought no event: the last one of them has just failed.
 * @param {number | null} asked What the server asked for by `retry:` or `Retry-After`. The wait is never shorter, and up to half as
 *   long again, since a server may ask all its clients for the same.
 */
function reconnectDelay({ minDelay, maxDelay }, attempts, asked) {
  const floor = Math.min(Math.max(minDelay, asked ?? 0), MAX_TIMER);
  const backoff = Math.min(maxDelay, (minDelay || 250) * FIRST_SPREAD * 2 ** Math.min(Math.max(attempts - 1, 0), 32));
  const ceiling = Math.max(backoff, asked === null ? 0 : floor * 1.5);
  return Math.min(floor + Math.random() * Math.max(0, ceiling - floor), MAX_TIMER);
}

/**
 * Whether trying again cannot help.
 * @param {ResilientEventSourceError} failure
 */
function isFinal({ reason, status = 0 }) {
  if (reason === 'status') return status !== 429 && status < 500;
  return FINAL.has(reason);
}

/**
 * Why a response is of no use, if it is not.
 * @param {Response} response
 * @param {string} [wanted] Its media type.
 */
function refusal(response, wanted = 'text/event-stream') {
  const { status, headers } = response;
  if (!response.ok) {
    const retryAfter = readRetryAfter(headers.get('retry-after'));
    const more = { status, ...(retryAfter === undefined ? {} : { retryAfter }) };
    return new ResilientEventSourceError('status', `the server answered with status ${status}`, more);
  }
  const type = headers.get('content-type') ?? 'none';
  if (mediaType(type) === wanted) return null;
  return new ResilientEventSourceError('content-type', `the response's content type is ${type}, not ${wanted}`);
}

/** @param {string} type */
function mediaType(type) {
  return type.replace(/;.*/, '').trim().toLowerCase();
}

/**
 * `Retry-After` in milliseconds: it holds seconds or a date (RFC 9110 § 10.2.3).
 * @param {string | null} value
 */
function readRetryAfter(value) {
  if (value === null) return undefined;
  if (/^\s*\d+\s*$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

/**
 * Tells terminal events from others.
 *
 * The id of a resilient-sse server says whether an event is the end. Where there is none, a name may also stand in the payload.
 * @param {api.ResilientEventSourceOptions['terminal']} terminal
 * @returns {(event: api.ParsedEvent) => boolean}
 */
function terminalRule(terminal = TERMINAL) {
  if (typeof terminal === 'function') return (event) => readId(event.id)?.isEnd === true || ask(terminal, event);
  const names = new Set(typeof terminal === 'string' ? [terminal] : terminal);
  return (event) => {
    const id = readId(event.id);
    if (id?.isEnd || names.has(event.type)) return true;
    return !id && event.type === 'message' && names.has(payloadType(event.data) ?? '');
  };
}

/**
 * @param {(event: api.StreamEvent) => boolean} terminal
 * @param {api.ParsedEvent} event
 */
function ask(terminal, event) {
  try {
    return terminal(wireEvent(event));
  } catch (error) {
    throw new ResilientEventSourceError('terminal', `the function \`terminal\` threw: ${text(error)}`, { cause: error });
  }
}

/** @param {RecoveryAnswer} answer */
function hasEnded({ status, terminalEventType }) {
  return TERMINAL.includes(status) || terminalEventType !== undefined;
}

function isOffline() {
  return globalThis.navigator?.onLine === false;
}

// ------------------------------------------------------------------------------------------- What the server itself says

/**
 * An event that the server itself added: `connected`, `gap` or `restart`. `detail` is its data.
 * @template D
 * @extends {MessageEvent<string>}
 */
class NoticeEvent extends MessageEvent {
  /**
   * @param {string} type
   * @param {D} detail
   * @param {string} lastEventId
   * @param {string} data
   */
  constructor(type, detail, lastEventId, data) {
    super(type, { data, lastEventId });
    /** What the notice says. */
    this.detail = detail;
  }
}

/**
 * @typedef {{ name: 'connected', detail: api.ConnectedDetail } | { name: 'gap', detail: api.GapDetail }
 *   | { name: 'restart', detail: api.RestartDetail } | { name: 'error', code: string }} Notice
 */

/**
 * Reads a notice, in any voice: a named event, an unnamed one with the name in its JSON, or an error as OpenAI's clients know it. A notice
 * has no id, and exactly these fields, so an event of the stream is not taken for one.
 * @param {api.ParsedEvent} event
 * @returns {Notice | null}
 */
function readNotice({ type, data }) {
  if (data.length > 1024 || !['message', 'connected', 'gap', 'restart'].includes(type)) return null;
  const json = parseObject(data);
  if (!json) return null;
  const { type: name = type, ...detail } = json;
  if (type !== 'message' && name !== type) return null;
  const fields = Object.keys(detail).sort().join();
  if (name === 'connected' && fields === 'streamId') return { name, detail: /** @type {any} */ (detail) };
  if (name === 'gap' && fields === 'after,missed,resumesAt') return { name, detail: /** @type {any} */ (detail) };
  if (name === 'restart' && fields === 'epoch') return { name, detail: /** @type {any} */ (detail) };
  const error = /** @type {any} */ (json.error);
  if (fields === 'error' && error?.type === 'stream_error' && typeof error.code === 'string') return { name: 'error', code: error.code };
  return null;
}

/**
 * The name under which a terminal event is known.
 * @param {api.ParsedEvent} event
 */
function terminalType({ type, data }) {
  if (type !== 'message') return type;
  const json = parseObject(data);
  if (typeof json?.type === 'string') return json.type;
  const error = /** @type {any} */ (json?.error);
  if (error?.type !== 'stream_error') return type;
  return ENDS.get(error.code) ?? 'failed';
}

/** How a stream has ended, by the code in which the voice `openai` says it. */
const ENDS = new Map([
  ['stopped', 'cancelled'],
  ['replaced', 'cancelled'],
  ['disconnected', 'cancelled'],
  ['cancelled', 'cancelled'],
  ['node_lost', 'orphaned'],
  ['orphaned', 'orphaned'],
  ['lifetime', 'expired'],
  ['expired', 'expired'],
]);

/**
 * Takes an id of a resilient-sse server apart: `e<epoch>-<seq>`, with the stream's name in front where the server made that up. The
 * seqs of a run count from 1 without a hole; 0 is the stream's end.
 * @param {string | undefined} id
 */
function readId(id = '') {
  const [, stream = '', epoch = '', digits] = /^(?:(.+)\.)?e(\d+)-(\d+)$/.exec(id) ?? [];
  const seq = Number(digits);
  return digits === undefined ? null : { stream, epoch, seq, isEnd: seq === 0 };
}

// -------------------------------------------------------------------------------------------------------- Requests

/**
 * A request to send. `headers` are those that the host's own go before.
 * @typedef {{ url: string, method: string, body?: BodyInit | null, accept: string, cursor: string, signal: AbortSignal,
 *   headers: Record<string, string> }} OneRequest
 */

/** Sends requests: for the stream on its own route, and to its recovery. */
class Requests {
  /** The stream's URL, resolved. */ url;
  /** @type {string | null} */ #recoverUrl;
  #options;
  #method;
  #body;
  #idempotencyKey = '';

  /**
   * @param {string | URL} url
   * @param {api.ResilientEventSourceOptions} options
   * @param {CursorStorage} storage
   */
  constructor(url, options, storage) {
    const { recover, body, method = body == null ? 'GET' : 'POST' } = options;
    this.url = resolve(url);
    this.#recoverUrl = recover === undefined ? null : resolve(recover);
    this.#options = options;
    this.#method = method.toUpperCase();
    this.#body = requestBody(body);
    if (this.#method === 'GET' || this.#method === 'HEAD') return;
    this.#idempotencyKey = storage.idempotencyKey || randomId();
    storage.idempotencyKey = this.#idempotencyKey;
  }

  /** Whether there is a recovery to ask. */
  get canRecover() {
    return this.#recoverUrl !== null;
  }

  /** Whether the server may take its time to answer: it answers a GET within 2 s, but a POST once the work has begun to answer. */
  get mayBeginLate() {
    return this.#method !== 'GET';
  }

  /**
   * Asks for the stream.
   * @param {string} cursor
   * @param {AbortSignal} signal
   */
  stream(cursor, signal) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (this.#idempotencyKey) headers['idempotency-key'] = this.#idempotencyKey;
    if (isJson(this.#options.body)) headers['content-type'] = 'application/json';
    const request = { method: this.#method, body: this.#body, cursor, signal };
    return this.#send({ ...request, url: this.url, accept: 'text/event-stream', headers });
  }

  /**
   * Asks recovery: a GET without a body, whatever the stream's own request is.
   * @param {string} accept
   * @param {string} cursor
   * @param {AbortSignal} signal
   * @param {Record<string, string>} [query]
   */
  recovery(accept, cursor, signal, query = {}) {
    const url = withQuery(this.#recoverUrl ?? '', query);
    return this.#send({ url, method: 'GET', accept, cursor, signal, headers: {} });
  }

  /**
   * Sends a request; once more with new headers if the first ones are refused as unauthorized.
   * @param {OneRequest} request
   */
  async #send(request) {
    const first = await this.#headers(request, false);
    const response = await this.#fetch(request, first);
    if (response.status !== 401 || typeof this.#options.headers !== 'function') return response;
    // Nobody reads what it says, whatever becomes of the new headers.
    discard(response);
    const renewed = await this.#headers(request, true);
    return isSame(first, renewed) ? response : this.#fetch(request, renewed);
  }

  /**
   * @param {OneRequest} request
   * @param {boolean} unauthorized
   */
  async #headers({ accept, cursor, signal, headers: defaults }, unauthorized) {
    const { headers: given } = this.#options;
    let headers;
    try {
      headers = new Headers(typeof given === 'function' ? await untilCut(given({ unauthorized }), signal) : given);
    } catch (error) {
      throw new ResilientEventSourceError('headers', `the request's headers cannot be had: ${text(error)}`, { cause: error });
    }
    for (const [name, value] of Object.entries(defaults)) if (!headers.has(name)) headers.set(name, value);
    headers.set('accept', accept);
    if (cursor) headers.set('last-event-id', headerValue(cursor));
    return headers;
  }

  /**
   * @param {OneRequest} request
   * @param {Headers} headers
   */
  #fetch({ url, method, body = null, signal }, headers) {
    const fetch = this.#options.fetch ?? globalThis.fetch;
    const response = Promise.resolve(fetch(url, { method, headers, body, signal, cache: 'no-store' }));
    // A fetch that does not heed its signal may answer late: then nobody reads the response.
    response.then((late) => signal.aborted && discard(late), () => {});
    return untilCut(response, signal);
  }
}

// --------------------------------------------------------------------------------------------------------- Timers

/** Notices that a connection is silent for too long. */
class Watchdog {
  #bark;
  #limit = 0;
  #deadline = Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /** @param {(limit: number) => void} bark */
  constructor(bark) {
    this.#bark = bark;
  }

  /**
   * Barks after so many milliseconds, counted from now. 0: never.
   * @param {number} limit
   */
  watch(limit) {
    this.rest();
    if (limit <= 0) return;
    this.#limit = limit;
    this.#deadline = Date.now() + limit;
    this.#timer = setTimeout(() => this.#bark(limit), Math.min(limit, MAX_TIMER));
  }

  rest() {
    clearTimeout(this.#timer);
    this.#deadline = Infinity;
  }

  /** Barks if the time has passed unnoticed: timers stand still while a device sleeps. */
  look() {
    if (Date.now() > this.#deadline) this.#bark(this.#limit);
  }
}

/** A wait that can be shortened once, if at all. */
class Pause {
  /** Settles when the wait is over. @type {Promise<void>} */ over;
  mayShorten;
  /** Ends the wait. */ end = () => {};
  /** @type {ReturnType<typeof setTimeout>} */ #timer;

  /**
   * @param {number} delay In milliseconds.
   * @param {{ mayShorten: boolean }} options
   */
  constructor(delay, { mayShorten }) {
    this.mayShorten = mayShorten;
    this.over = new Promise((resolve) => {
      this.end = () => {
        clearTimeout(this.#timer);
        resolve();
      };
    });
    this.#timer = setTimeout(this.end, delay);
  }

  /** @param {number} delay In milliseconds, from now. */
  shorten(delay) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.end, delay);
    this.mayShorten = false;
  }
}

// --------------------------------------------------------------------------------------------------------- Parser

/**
 * Parses `text/event-stream` (WHATWG HTML § 9.2.5 and § 9.2.6), in chunks that may end anywhere.
 *
 * ```js
 * const parser = new EventStreamParser();
 * for await (const chunk of response.body) {
 *   for (const event of parser.push(chunk)) show(event);
 * }
 * ```
 *
 * An incomplete block at the stream's end is no event, and its id does not count.
 */
export class EventStreamParser {
  /** The id of the last complete block that had one, with or without data: the cursor to resume with. */
  lastEventId;
  /** The reconnect delay that the stream has asked for, in milliseconds. @type {number | null} */
  retry = null;

  #maxEventBytes;
  /** Replaces what is no UTF-8, joins characters that are split between chunks, and drops a leading byte order mark. */
  #decoder = new TextDecoder();
  /** The beginning of a line that has not ended, and its bytes. */
  #line = '';
  #lineBytes = 0;
  /** Whether the last chunk may have ended in the middle of a character. */
  #endsAmidCharacter = false;
  /** Whether the last line ended with a CR at the end of its chunk: an LF that follows belongs to it. */
  #afterCr = false;

  // The block so far.
  #type = '';
  /** @type {string | null} */ #data = null;
  /** @type {string | undefined} */ #id;
  /** The bytes of its lines, comments and line ends apart. */
  #blockBytes = 0;

  /** @param {{ lastEventId?: string, maxEventBytes?: number }} [options] The bytes of an event that are held at most. Default: no limit. */
  constructor({ lastEventId = '', maxEventBytes = Infinity } = {}) {
    this.lastEventId = lastEventId;
    this.#maxEventBytes = maxEventBytes;
  }

  /**
   * Takes a chunk of bytes and yields the events that it completes. All of them have to be taken before the next chunk is given.
   * @param {Uint8Array} chunk
   * @returns {Generator<api.ParsedEvent, void, undefined>}
   * @throws {ResilientEventSourceError} `event-too-large`
   */
  *push(chunk) {
    const text = this.#decoder.decode(chunk, { stream: true });
    // Most chunks are ASCII, where nothing has to be counted: as many characters as bytes, none of them begun in the chunk before.
    const count = chunk.length === text.length && !this.#endsAmidCharacter ? lengthOf : byteLength;
    if (chunk.length > 0) this.#endsAmidCharacter = Number(chunk.at(-1)) > 0x7f;
    let start = 0;
    let cr = text.indexOf('\r');
    let lf = text.indexOf('\n');
    if (this.#afterCr && text !== '') {
      this.#afterCr = false;
      if (lf === 0) [start, lf] = [1, text.indexOf('\n', 1)];
    }
    while (cr !== -1 || lf !== -1) {
      const end = cr === -1 || (lf !== -1 && lf < cr) ? lf : cr;
      this.#extend(text.slice(start, end), count);
      start = end + 1;
      if (end === cr) {
        if (lf === start) start += 1;
        else if (start === text.length) this.#afterCr = true;
        cr = text.indexOf('\r', start);
      }
      if (lf !== -1 && lf < start) lf = text.indexOf('\n', start);
      const event = this.#endLine();
      if (event) yield event;
    }
    this.#extend(text.slice(start), count);
  }

  /**
   * Adds to the line. It is put together only once it ends, however many chunks it comes in.
   * @param {string} more
   * @param {(text: string) => number} count
   */
  #extend(more, count) {
    this.#line += more;
    this.#lineBytes += count(more);
    if (this.#blockBytes + this.#lineBytes <= this.#maxEventBytes) return;
    throw new ResilientEventSourceError('event-too-large', `an event is larger than maxEventBytes, ${this.#maxEventBytes} bytes`);
  }

  /** @returns {api.ParsedEvent | null} The event that the line completes. */
  #endLine() {
    const [line, bytes] = [this.#line, this.#lineBytes];
    this.#line = '';
    this.#lineBytes = 0;
    if (line === '') return this.#endBlock();
    if (line.startsWith(':')) return null;
    this.#blockBytes += bytes;
    this.#field(line);
    return null;
  }

  /** @param {string} line */
  #field(line) {
    const colon = line.indexOf(':');
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    switch (name) {
      case 'data':
        this.#data = this.#data === null ? value : `${this.#data}\n${value}`;
        break;
      case 'event':
        this.#type = value;
        break;
      case 'id':
        if (!value.includes('\0')) this.#id = value;
        break;
      case 'retry':
        if (/^[0-9]+$/.test(value)) this.retry = Number(value);
        break;
    }
  }

  /** @returns {api.ParsedEvent | null} */
  #endBlock() {
    const [type, data, id, previousEventId] = [this.#type, this.#data, this.#id, this.lastEventId];
    this.#type = '';
    this.#data = null;
    this.#id = undefined;
    this.#blockBytes = 0;
    this.lastEventId = id ?? this.lastEventId;
    return data === null ? null : { type: type || 'message', data, lastEventId: this.lastEventId, previousEventId, id };
  }
}

// -------------------------------------------------------------------------------------------------------- Iterator

/** What an iterator of a source holds: events that its loop has not taken, bounded. */
class Mailbox {
  static #MAX_EVENTS = 256;
  static #MAX_LENGTH = 1 << 20;

  /** The cursor of the last event that the loop is done with. It is done with one when it asks for the next. */
  cursor;
  #onProgress;
  /** @type {MessageEvent<string>[]} */ #events = [];
  #length = 0;
  /** The event that the loop works on. @type {MessageEvent<string> | null} */ #taken = null;
  /** The event that the stream has ended with. @type {MessageEvent<string> | null} */ #last = null;
  #isOver = false;
  /** @type {ResilientEventSourceError | null} */ #error = null;
  /** Loops that wait for an event. @type {{ resolve: (result: IteratorResult<MessageEvent<string>>) => void, reject: (error: unknown) => void }[]} */
  #takers = [];
  /** The source, where it waits for room. @type {(() => void) | null} */ #onRoom = null;

  /**
   * @param {string} cursor
   * @param {() => void} onProgress
   */
  constructor(cursor, onProgress) {
    this.cursor = cursor;
    this.#onProgress = onProgress;
  }

  /** How many events the loop is not done with. */
  get behind() {
    return this.#events.length + (this.#taken ? 1 : 0);
  }

  /** Waits until there is room for another event. @returns {Promise<void> | undefined} */
  room() {
    const isFull = this.#events.length >= Mailbox.#MAX_EVENTS || this.#length >= Mailbox.#MAX_LENGTH;
    if (!isFull || this.#isOver) return undefined;
    return new Promise((resolve) => (this.#onRoom = resolve));
  }

  /**
   * @param {MessageEvent<string>} event
   * @param {{ isLast: boolean }} [place] Whether the stream ends with it.
   */
  push(event, { isLast } = { isLast: false }) {
    if (isLast) this.#last = event;
    const taker = this.#takers.shift();
    if (taker) {
      this.#begin(event);
      taker.resolve({ done: false, value: event });
      return;
    }
    this.#events.push(event);
    this.#length += event.data.length;
  }

  /** @returns {Promise<IteratorResult<MessageEvent<string>, undefined>>} */
  async take() {
    if (this.#taken) {
      this.cursor = this.#taken.lastEventId;
      this.#taken = null;
    }
    const event = this.#events.shift();
    if (event) {
      this.#begin(event);
      this.#length -= event.data.length;
      this.#giveRoom();
    }
    this.#onProgress();
    if (event) return { done: false, value: event };
    if (!this.#isOver) return new Promise((resolve, reject) => this.#takers.push({ resolve, reject }));
    const error = this.#error;
    this.#error = null;
    if (error) throw error;
    return { done: true, value: undefined };
  }

  /**
   * Nothing more comes. What is held can still be taken.
   * @param {ResilientEventSourceError | null} error
   */
  end(error) {
    this.#isOver = true;
    const [first, ...others] = this.#takers.splice(0);
    if (first && error) first.reject(error);
    else if (first) first.resolve({ done: true, value: undefined });
    for (const taker of others) taker.resolve({ done: true, value: undefined });
    this.#error = first ? null : error;
    this.#giveRoom();
  }

  /** The loop was left. */
  clear() {
    this.#events = [];
    this.#error = null;
  }

  /**
   * The loop works on an event from now on. It is done with the last one at once: whoever is given that may begin the next stream.
   * @param {MessageEvent<string>} event
   */
  #begin(event) {
    this.#taken = event === this.#last ? null : event;
  }

  #giveRoom() {
    this.#onRoom?.();
    this.#onRoom = null;
  }
}

// --------------------------------------------------------------------------------------------------------- Storage

/** The cursor in `sessionStorage`. Storage that is full, forbidden or missing is as good as none. */
class CursorStorage {
  #key;

  /** @param {string | undefined} key */
  constructor(key) {
    this.#key = key;
  }

  get cursor() {
    return this.#get(this.#key);
  }

  set cursor(cursor) {
    this.#set(this.#key, cursor);
  }

  /** A page that is reloaded repeats its POST: with the same key it joins the stream that runs. */
  get idempotencyKey() {
    return this.#get(this.#key && `${this.#key}:idempotency-key`);
  }

  set idempotencyKey(key) {
    this.#set(this.#key && `${this.#key}:idempotency-key`, key);
  }

  clear() {
    this.cursor = '';
    this.idempotencyKey = '';
  }

  /** @param {string | undefined} key */
  #get(key) {
    if (key === undefined) return '';
    try {
      return globalThis.sessionStorage?.getItem(key) ?? '';
    } catch {
      return '';
    }
  }

  /**
   * @param {string | undefined} key
   * @param {string} value
   */
  #set(key, value) {
    if (key === undefined) return;
    try {
      if (value) globalThis.sessionStorage?.setItem(key, value);
      else globalThis.sessionStorage?.removeItem(key);
    } catch {
      // The page goes on, and a reload begins anew.
    }
  }
}

// --------------------------------------------------------------------------------------------------------- Helpers

/**
 * What an attempt failed with, as one of our errors.
 * @param {unknown} error
 */
function asFailure(error) {
  if (error instanceof ResilientEventSourceError) return error;
  return new ResilientEventSourceError('network', `the connection failed: ${text(error)}`, { cause: error });
}

/**
 * Waits for a promise, but no longer than the attempt lasts whose signal this is.
 * @template T
 * @param {T | PromiseLike<T>} promise
 * @param {AbortSignal} signal
 * @returns {Promise<T>}
 */
function untilCut(promise, signal) {
  return new Promise((resolve, reject) => {
    const cut = () => reject(signal.reason);
    const settled = () => signal.removeEventListener('abort', cut);
    Promise.resolve(promise).then(resolve, reject).finally(settled);
    if (signal.aborted) cut();
    else signal.addEventListener('abort', cut, { once: true });
  });
}

function unfinished() {
  return new ResilientEventSourceError('unfinished', "the response ended without the stream's terminal event");
}

/** @param {number} milliseconds */
function silent(milliseconds) {
  return new ResilientEventSourceError('timeout', `nothing came for ${milliseconds / 1000} s`);
}

/** @param {string} why */
function notRecovery(why) {
  return new ResilientEventSourceError('recover', `the recovery URL does not answer as recovery does: ${why}`);
}

/** @param {unknown} error */
function text(error) {
  return error instanceof Error ? error.message : String(error);
}

/** @param {api.ParsedEvent} event @returns {api.StreamEvent} */
function wireEvent({ type, data, lastEventId }) {
  return { type, data, lastEventId };
}

/**
 * @param {string} data
 * @returns {Record<string, unknown> | null} The object that this JSON holds, if it holds one.
 */
function parseObject(data) {
  if (!/^\s*\{/.test(data)) return null;
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}

/** @param {string} data */
function payloadType(data) {
  const type = parseObject(data)?.type;
  return typeof type === 'string' ? type : null;
}

/** Resolves a URL against the page's, if there is a page. @param {string | URL} url */
function resolve(url) {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  return base === undefined ? String(url) : String(new URL(url, base));
}

/**
 * @param {string} url
 * @param {Record<string, string>} parameters
 */
function withQuery(url, parameters) {
  const address = url.replace(/#.*/, '');
  const query = new URLSearchParams(parameters).toString();
  return query ? `${address}${address.includes('?') ? '&' : '?'}${query}` : address;
}

/**
 * An id as a header's value, which fetch takes for bytes: UTF-8, as an `EventSource` sends it.
 * @param {string} id
 */
function headerValue(id) {
  return Array.from(new TextEncoder().encode(id), (byte) => String.fromCharCode(byte)).join('');
}

/** @param {string} text */
function lengthOf(text) {
  return text.length;
}

/** @param {string} text */
function byteLength(text) {
  return new TextEncoder().encode(text).length;
}

/** `crypto.randomUUID` exists on secure pages only. */
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * @param {Headers} one
 * @param {Headers} other
 */
function isSame(one, other) {
  return JSON.stringify([...one]) === JSON.stringify([...other]);
}

/** @param {Response} response */
function discard(response) {
  response.body?.cancel().catch(() => {});
}

/** @param {api.ResilientEventSourceOptions['body']} body */
function requestBody(body = null) {
  if (isJson(body)) return JSON.stringify(body);
  if (body instanceof ReadableStream) throw new TypeError('body: a ReadableStream can be sent only once');
  return body;
}

/**
 * @param {api.ResilientEventSourceOptions['body']} body
 * @returns {body is Record<string, unknown> | readonly unknown[]}
 */
function isJson(body) {
  const prototype = typeof body === 'object' && body !== null ? Object.getPrototypeOf(body) : undefined;
  return Array.isArray(body) || prototype === Object.prototype || prototype === null;
}
