/** A React hook over {@link ResilientEventSource}, for React 18 and 19. */

import type {
  GapDetail,
  ResilientEventSourceError,
  ResilientEventSourceOptions,
  TerminalEvent,
} from './resilient-sse.js';

/** How a stream has ended. An end never changes again. */
export type TerminalStatus = 'completed' | 'failed' | 'cancelled' | 'orphaned' | 'expired';

/**
 * - `idle`: nothing runs in this conversation (status 204), or there is no URL, or the `signal` was aborted.
 * - `connecting`: the first request is on its way. Also what a server renders.
 * - `connected`: events are being read.
 * - `reconnecting`: the connection is lost, and is tried again.
 * - `completed`, `failed`, `cancelled`, `orphaned`, `expired`: the stream has ended, and all of it was delivered. `cancelled` is
 *   also what `stop()` ends with.
 * - `error`: the source gave up. `error` says why, and `reconnect()` tries again.
 *
 * A terminal event with another name counts as `failed` if it is called `error`, and as `completed` otherwise. Of a name such as
 * `response.failed` the last part counts.
 */
export type Status = 'idle' | 'connecting' | 'connected' | 'reconnecting' | 'error' | TerminalStatus;

/** An event of the stream. */
export interface SSEEvent<T = string> {
  /** The SSE name, or `message` where the event has none. */
  readonly type: string;
  /** The data: text, or what `parse` made of it. */
  readonly data: T;
  /** The cursor after this event. */
  readonly lastEventId: string;
}

/** What {@link useResilientSSE} returns. It is the same object until something in it changes. */
export interface ResilientSSE<T = string, Data = T | null> {
  readonly status: Status;
  /** What `reduce` has made of the events; without `reduce` the data of the latest event, or null. */
  readonly data: Data;
  /** The latest events, oldest first, at most `keep` of them. Empty where `reduce` is given. */
  readonly events: readonly SSEEvent<T>[];
  /** Why the source gave up (status `error`), else null. Failures that are tried again do not show here. */
  readonly error: ResilientEventSourceError | null;
  /** The cursor: the id of the latest event, or null. */
  readonly lastEventId: string | null;
  /**
   * The events that were lost last, or null. What `data` holds then is not the whole answer.
   *
   * Also set where a component mounts after more than `keep` events, and its `reduce` has not seen the first ones. Define
   * `reduce` outside of the component, so that all components fold by the same function: then the latecomer takes over
   * the state of the others.
   */
  readonly gap: GapDetail | null;
  /**
   * Asks the server to stop the stream (see the option `stop`), then closes the connection. The status becomes that of the stream's
   * end, which is `cancelled` unless another end came first.
   *
   * Resolves to whether the server has stopped a stream: false where it had none to stop (404), where the stream has ended already, and
   * with `stop: false`. Rejected if the server refuses or cannot be reached; then the stream runs on, and stays connected. In the status
   * `error`, where nothing is connected, the status changes only if the server has stopped a stream.
   *
   * Unmounting is no stop: the server goes on with its work, and a component that mounts again follows it.
   */
  readonly stop: () => Promise<boolean>;
  /**
   * Connects again: after the cursor if the stream has not ended (status `error`, or a connection that seems stuck), and otherwise from
   * the beginning, with the state `initial`. A stream that the server does not record (`X-Stream-Recorded: false`) has no cursor, unless
   * its events have ids of their own: it begins anew, too. In a conversation it asks what runs, unless a turn is under way: then the same
   * turn is tried again, with the same `Idempotency-Key`.
   */
  readonly reconnect: () => void;
}

/** What {@link useResilientSSE} returns for a conversation. */
export interface ResilientConversation<T = string, Data = T | null> extends ResilientSSE<T, Data> {
  /**
   * POSTs the next turn and follows it. `data`, `events`, `lastEventId` and `gap` begin anew, at once. All attempts of the turn carry one
   * `Idempotency-Key`, so it is not begun twice. An object or an array is sent as JSON.
   *
   * Resolves to the turn's terminal event. Rejected where the source gives up (the status is `error` then: 409 if the server
   * refuses a second turn while one runs), and where it is closed: by another turn, by an unmount, or by `stop()` if the stream says
   * nothing of its end. A rejection that nobody handles is not reported.
   */
  readonly send: (body?: ResilientEventSourceOptions['body']) => Promise<TerminalEvent>;
}

/** Where the turns of a conversation are posted. */
export interface ConversationOptions {
  /** The URL for the POST of a turn. Default: the hook's URL without its last part, `/stream`. */
  send?: string | URL | undefined;
}

/** The request that stops a stream. */
export interface StopTarget {
  /** Default: the hook's URL; for a conversation with the query parameter `stream`, which names the stream that is meant. */
  url?: string | URL | undefined;
  /** Default: `DELETE`. */
  method?: string | undefined;
}

/** The options of {@link ResilientEventSource} and those of the hook. `reduce` and `initial` go together. */
export interface UseResilientSSEOptions<T = string> extends ResilientEventSourceOptions {
  /** The number of attempts without an event after which the source gives up. Default: 3. */
  maxAttempts?: number | undefined;
  /** Makes the data of each event. Default: its text. It must not change anything, as `reduce`. */
  parse?: ((data: string) => T) | undefined;
  /**
   * How many events `events` holds at most, and how many are kept for components that mount later. Default: 1,000. With
   * `reduce` nobody needs them but those components: 0 suits events that are large.
   */
  keep?: number | undefined;
  /**
   * The request of `stop()`: a URL, a URL and a method, or a function that returns one of these for the stream's name, which is null
   * where the server has not said it. `false`: `stop()` closes the connection only. The options' `headers` and `fetch` are used.
   */
  stop?: false | string | URL | StopTarget | ((streamId: string | null) => string | URL | StopTarget) | undefined;
}

/** Folds events into a state, in the place of keeping them. */
export interface Fold<T, S> {
  /**
   * Returns the state after an event. As a reducer of React's it must not change anything: neither the state that it is given nor
   * things outside.
   */
  reduce: (state: S, event: SSEEvent<T>) => S;
  /** The state that each run of the stream begins with: also a turn of a conversation, and the new run after a restart. */
  initial: S;
}

/** Options for a conversation. `method`, `body`, `recover` and `storage` are of no use there: they concern one stream. */
export interface Conversation {
  conversation: true | ConversationOptions;
}

/** `parse` is required where events have other data than text. */
type Parsed<T> = string extends T ? unknown : { parse: (data: string) => T };

type Url = string | URL | null | undefined;

/**
 * Follows an event stream, through reloads, lost connections and restarts of the server, and renders with it.
 *
 * The answer to a question, as it is written:
 *
 * ```jsx
 * import { useResilientSSE } from 'resilient-sse/react';
 *
 * const append = (text, event) => (event.type === 'message' ? text + JSON.parse(event.data).data.text : text);
 *
 * export function Answer({ id }) {
 *   const { status, data, error, gap, stop, reconnect } = useResilientSSE(`/api/stream/${id}`, { reduce: append, initial: '' });
 *   return (
 *     <article>
 *       <p>{data}</p>
 *       {gap && <p>A part of this answer is lost.</p>}
 *       {status === 'connected' && <button onClick={stop}>Stop</button>}
 *       {status === 'error' && <button onClick={reconnect}>{error.message}. Try again</button>}
 *     </article>
 *   );
 * }
 * ```
 *
 * A chat. The page shows a turn that runs already, also one that was begun before a reload; `send` begins the next one:
 *
 * ```jsx
 * import { useState } from 'react';
 * import { useResilientSSE } from 'resilient-sse/react';
 *
 * const append = (text, event) => (event.type === 'message' ? text + JSON.parse(event.data).data.text : text);
 *
 * export function Chat({ id }) {
 *   const [turns, setTurns] = useState([]);
 *   const chat = useResilientSSE(`/api/chat/${id}/stream`, { conversation: true, reduce: append, initial: '' });
 *   const runs = ['connecting', 'connected', 'reconnecting'].includes(chat.status);
 *
 *   function ask(event) {
 *     event.preventDefault();
 *     const question = new FormData(event.target).get('question');
 *     setTurns([...turns, chat.data, question].filter(Boolean));
 *     chat.send({ question });
 *   }
 *
 *   return (
 *     <form onSubmit={ask}>
 *       {turns.map((text, index) => <p key={index}>{text}</p>)}
 *       <p>{chat.data}</p>
 *       {chat.status === 'error' && <p role="alert">{chat.error.message}</p>}
 *       <input name="question" required />
 *       {runs ? <button type="button" onClick={chat.stop}>Stop</button> : <button>Send</button>}
 *     </form>
 *   );
 * }
 * ```
 *
 * - The connection is opened after the first commit, and never on a server, which renders the status `connecting`. Without a URL
 *   (null or undefined) nothing is opened, and the status is `idle`.
 * - Components that ask for the same URL with the same options share one connection. It closes when the last one unmounts.
 *   Strict mode opens one connection too.
 * - Another URL is another connection, and begins with the state `initial`. So are other options, compared by what they say: objects and
 *   functions may be written inline. Of functions the latest are called, and whether there is one is all that is compared. Put a token
 *   that expires into a `headers` function: another token in a `headers` object is another connection. Objects of a class, such as an
 *   `AbortSignal` or a `Blob`, are compared by identity.
 * - Events are rendered once per animation frame, however many they are; in a hidden tab after 100 ms, or when the browser lets timers run.
 * - After a `restart` the work began anew: `data` and `events` do, too. `gap` is set if the beginning of the new work is lost.
 */
export function useResilientSSE<T = string, S = unknown>(
  url: Url,
  options: UseResilientSSEOptions<T> & Parsed<T> & Fold<T, S> & Conversation,
): ResilientConversation<T, S>;
/** Follows an event stream and folds its events into a state. */
export function useResilientSSE<T = string, S = unknown>(
  url: Url,
  options: UseResilientSSEOptions<T> & Parsed<T> & Fold<T, S>,
): ResilientSSE<T, S>;
/** Follows what runs in a conversation, and begins its next turns. */
export function useResilientSSE<T = string>(
  url: Url,
  options: UseResilientSSEOptions<T> & Parsed<T> & Conversation,
): ResilientConversation<T>;
/** Follows an event stream and keeps its latest events. */
export function useResilientSSE<T = string>(url: Url, options: UseResilientSSEOptions<T> & Parsed<T>): ResilientSSE<T>;
export function useResilientSSE(url: Url, options?: UseResilientSSEOptions): ResilientSSE;
