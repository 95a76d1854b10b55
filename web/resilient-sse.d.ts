/**
 * Server-sent events that survive disconnects: an event source over `fetch`, for servers that use the Rust crate
 * `resilient-sse`, and for any other server that sends `text/event-stream`.
 */

/** What {@link ResilientEventSource} can be told. Each option may be left out. */
export interface ResilientEventSourceOptions {
  /**
   * Request headers, or a function that returns them and is called for each request.
   *
   * After status 401 the function is called once more, with `unauthorized: true`. If its headers differ from those that were refused,
   * the request is repeated at once. Another 401 is final.
   */
  headers?: HeadersInit | ((context: { unauthorized: boolean }) => HeadersInit | Promise<HeadersInit>) | undefined;
  /**
   * Default: `GET`, or `POST` where there is a `body`. All attempts of a source that does not GET carry the same
   * `Idempotency-Key`, unless `headers` sets one.
   */
  method?: string | undefined;
  /** Is sent with each attempt, so it cannot be a `ReadableStream`. A plain object or an array is sent as JSON. */
  body?: BodyInit | Record<string, unknown> | readonly unknown[] | null | undefined;
  /** The cursor to begin after. It goes before the one that `storage` holds. */
  lastEventId?: string | undefined;
  /**
   * The URL of the stream's recovery. It is asked before the first request, and after each attempt that brought no event.
   *
   * The rest of a stream that has ended is then delivered from there, without a request to the source's own URL, where the work
   * might be done again. In any other case (running, interrupted, not found) the source connects.
   */
  recover?: string | URL | undefined;
  /**
   * The events that end the stream: names, or a function. Default: `completed`, `failed`, `cancelled`, `orphaned` and `expired`.
   *
   * A name also means the `type` in the JSON of an event without a name. The id of an event says if a resilient-sse server
   * takes it for the stream's end: such an event is terminal in any case, and one that is not is terminal only by its own name.
   */
  terminal?: string | Iterable<string> | ((event: StreamEvent) => boolean) | undefined;
  /**
   * The number of attempts without an event after which the source gives up. Default: 10. `Infinity` suits a feed that may be silent for
   * days. The source does not give up while the browser is offline, and the count begins anew if the page is seen again or the
   * network is back during a wait.
   */
  maxAttempts?: number | undefined;
  /** The shortest wait before an attempt, in milliseconds. Default: 250. The first wait is at most 16 times as long. */
  minDelay?: number | undefined;
  /**
   * The longest wait that the source chooses by itself, in milliseconds. Default: 30,000. The server may ask for a longer one by
   * `retry:` and `Retry-After`.
   */
  maxDelay?: number | undefined;
  /**
   * The interval of the server's heartbeats in **seconds**, like the response header `X-Stream-Heartbeat`, which this replaces. A
   * connection that is silent for 2.5 intervals is given up. 0: never. Without this option and the header: never.
   */
  heartbeat?: number | undefined;
  /** The number of bytes of one event that are held at most. Default: 8 MiB. A larger event is a final failure. */
  maxEventBytes?: number | undefined;
  /**
   * Keeps the cursor in `sessionStorage` under this key until the stream has ended, so that a reloaded page continues from
   * where it was. If loops iterate over the source, it is kept until each of them has been given the end. Each stream needs a
   * key of its own. The key of a POST is kept beside it, as `<storage>:idempotency-key`.
   */
  storage?: string | undefined;
  /**
   * Is called instead of the global `fetch`. Cookies of another origin, for example:
   * `(url, init) => fetch(url, { ...init, credentials: 'include' })`.
   */
  fetch?: typeof globalThis.fetch | undefined;
  /** Closes the source when it is aborted. */
  signal?: AbortSignal | undefined;
}

/**
 * - `connecting`: a request is on its way.
 * - `open`: a response is being read.
 * - `waiting`: the connection is lost, and the next attempt is scheduled.
 * - `ended`: the stream is over, and all of it was delivered.
 * - `closed`: `close()` was called, or the `signal` was aborted.
 * - `gaveup`: the source will not try again. Its `error` says why.
 */
export type SourceState = 'connecting' | 'open' | 'waiting' | 'ended' | 'closed' | 'gaveup';

/**
 * Why an attempt failed, or why a source is over.
 *
 * The source tries again after
 * - `network`: there was no response, or it broke off;
 * - `timeout`: nothing came for 2.5 heartbeats;
 * - `unfinished`: the response ended without a terminal event;
 * - `headers`: the `headers` function failed;
 * - `status` 429 and 5xx.
 *
 * It gives up after
 * - any other `status`;
 * - `content-type`: the response is no event stream;
 * - `recover`: the recovery URL does not answer as recovery does;
 * - `event-too-large`: an event is larger than `maxEventBytes`;
 * - `terminal`: the `terminal` function threw;
 * - `gap`: events are lost, and the server cannot go on after them;
 * - `attempts`: too many attempts brought no event. The error's `cause` is the last failure.
 *
 * `closed` is how `finished` is rejected if the source is closed.
 */
export type FailureReason =
  | 'network'
  | 'timeout'
  | 'unfinished'
  | 'headers'
  | 'status'
  | 'content-type'
  | 'recover'
  | 'event-too-large'
  | 'terminal'
  | 'gap'
  | 'attempts'
  | 'closed';

/** Why an attempt failed, or why a source is over. */
export class ResilientEventSourceError extends Error {
  constructor(reason: FailureReason, message: string, more?: { cause?: unknown; status?: number; retryAfter?: number });
  readonly reason: FailureReason;
  /** The status of the response that was refused. */
  readonly status: number | undefined;
  /** How many milliseconds the server asked to wait (`Retry-After`). */
  readonly retryAfter: number | undefined;
  /** What it was made of: the error of `fetch`, or the last failure where the reason is `attempts`. */
  cause?: unknown;
}

/** An event as it stands on the wire. `type` is its SSE name, or `message` where it has none. */
export interface StreamEvent {
  type: string;
  data: string;
  /** The cursor after this event. */
  lastEventId: string;
}

/**
 * The end of a stream. `type` is the event's SSE name; where it has none, the `type` of its JSON; otherwise `message`. An error in the
 * words of OpenAI's API has the name of the state that it stands for.
 *
 * Status 204 says that the client has everything, but not how the stream ended. Then `type` is `ended` and `data` is
 * empty, unless the `recover` URL knows the end. Status 204 also answers a conversation in which nothing runs.
 */
export interface TerminalEvent extends StreamEvent {}

/** Events that are lost. */
export interface GapDetail {
  /** The id of the last event before them. */
  after: string | null;
  /** The id of the first event behind them. */
  resumesAt: string | null;
  /** How many they are; null where the server does not know. */
  missed: number | null;
}

/** The work began anew: what was delivered before may be repeated or contradicted. */
export interface RestartDetail {
  /** The run of the work, where the server says it. */
  epoch: string | null;
}

/** A response of a recorded stream began. */
export interface ConnectedDetail {
  streamId: string;
}

/** The source's state has changed. */
export interface StateChangeDetail {
  state: SourceState;
  previous: SourceState;
  /** In how many milliseconds the next attempt begins; null in any state but `waiting`. */
  delay: number | null;
  /** The last failure; null if an event came since. */
  error: ResilientEventSourceError | null;
}

/** What the server itself says in a stream. `data` is the JSON of `detail`, as it stands on the wire if it stood there. */
export interface NoticeEvent<Detail> extends MessageEvent<string> {
  readonly detail: Detail;
}

/** What a {@link ResilientEventSource} dispatches. Any other name is that of an event of the stream. */
export interface ResilientEventMap {
  open: Event;
  statechange: CustomEvent<StateChangeDetail>;
  connected: NoticeEvent<ConnectedDetail>;
  gap: NoticeEvent<GapDetail>;
  restart: NoticeEvent<RestartDetail>;
  message: MessageEvent<string>;
  completed: MessageEvent<string>;
  failed: MessageEvent<string>;
  cancelled: MessageEvent<string>;
  orphaned: MessageEvent<string>;
  expired: MessageEvent<string>;
}

type Listener<E> = ((event: E) => unknown) | { handleEvent(event: E): unknown };

/**
 * An event source that finds its way back.
 *
 * It dispatches each event of the stream under its SSE name (`message` where it has none) as a `MessageEvent`. It also dispatches `open`,
 * `connected`, `gap`, `restart` and `statechange`. If the stream's own events have such names, both kinds arrive: those of
 * the source are no `MessageEvent`s (`open`, `statechange`), or have a `detail` (the others).
 *
 * It connects once the code that made it has run, so listeners that are added at once miss nothing.
 *
 * ```js
 * const source = new ResilientEventSource('/answers/42');
 * source.addEventListener('message', (event) => show(JSON.parse(event.data)));
 * const { type } = await source.finished; // `completed`, `failed`, …
 * ```
 */
export class ResilientEventSource extends EventTarget implements AsyncIterable<MessageEvent<string>> {
  /** @throws RangeError, TypeError for options that cannot work. */
  constructor(url: string | URL, options?: ResilientEventSourceOptions);

  /** The URL, resolved against the page's. */
  readonly url: string;
  readonly state: SourceState;
  /** The cursor: the id of the last event that was delivered, or the one to begin after. Empty where there is none. */
  readonly lastEventId: string;
  /** The number of attempts that have begun since the last event, the running one included. */
  readonly attempts: number;
  /** The stream's name, once the server has said it. A host's routes for stopping and recovery ask for it. */
  readonly streamId: string | null;
  /** The last failure; null if an event came since. */
  readonly error: ResilientEventSourceError | null;
  /**
   * The stream's end. Rejected with a {@link ResilientEventSourceError} if the source gives up or is closed. A rejection that nobody
   * handles is not reported.
   */
  readonly finished: Promise<TerminalEvent>;

  /** Closes the connection for good. This does not stop the server's work. */
  close(): void;

  /**
   * Iterates over the stream's events from now on, in order. The notices `gap` and `restart` stand in their places, and the terminal event
   * comes last. If the source gives up the iterator throws; if it is closed the iterator ends. Leaving the loop early closes the source.
   *
   * The iterator holds up to 256 events, or 1 Mi characters of data, that the loop has not taken. Then the source stops reading, for
   * its listeners and other iterators too, and the server waits for it. Nothing is dropped: after a long wait the server may cut the
   * connection, and the source resumes from its cursor.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<MessageEvent<string>>;

  addEventListener<K extends keyof ResilientEventMap>(
    type: K,
    listener: Listener<ResilientEventMap[K]> | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: Listener<MessageEvent<string>> | null, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof ResilientEventMap>(
    type: K,
    listener: Listener<ResilientEventMap[K]> | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(type: string, listener: Listener<MessageEvent<string>> | null, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/** An event as its block says it. */
export interface ParsedEvent extends StreamEvent {
  /** The id that stands in the event's own block. `lastEventId` may be of an earlier block. */
  id?: string | undefined;
  /** The parser's `lastEventId` before the event's block. Blocks without data count, too. */
  previousEventId: string;
}

/**
 * Parses `text/event-stream` (WHATWG HTML § 9.2.5 and § 9.2.6) in chunks that may end anywhere.
 *
 * An incomplete block at the stream's end is no event, and its id does not count.
 *
 * ```js
 * const parser = new EventStreamParser();
 * for await (const chunk of response.body) {
 *   for (const event of parser.push(chunk)) show(event);
 * }
 * ```
 */
export class EventStreamParser {
  /** `maxEventBytes`: the bytes of one event that are held at most. Default: no limit. */
  constructor(options?: { lastEventId?: string; maxEventBytes?: number });
  /** The id of the last complete block that had one, with or without data: the cursor to resume with. */
  readonly lastEventId: string;
  /** The reconnect delay that the stream has asked for, in milliseconds. */
  readonly retry: number | null;
  /**
   * Takes a chunk and yields the events that it completes. All of them must be taken before the next chunk is pushed.
   * @throws ResilientEventSourceError `event-too-large`
   */
  push(chunk: Uint8Array): Generator<ParsedEvent, void, undefined>;
}
