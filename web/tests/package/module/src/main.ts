// A page that uses all of the module, under the strictest settings. What must not compile says so.
import {
  EventStreamParser,
  ResilientEventSource,
  ResilientEventSourceError,
  type FailureReason,
  type GapDetail,
  type ParsedEvent,
  type ResilientEventSourceOptions,
  type SourceState,
  type TerminalEvent,
} from 'resilient-sse';

const options: ResilientEventSourceOptions = {
  headers: async ({ unauthorized }) => ({ authorization: `Bearer ${await token(unauthorized)}` }),
  method: 'POST',
  body: { question: 'why?', tags: ['a'] },
  lastEventId: 'e1-1',
  recover: new URL('https://example.test/answers/42/recover'),
  terminal: ({ type, data }) => type === 'done' || data === '[DONE]',
  maxAttempts: Infinity,
  minDelay: 250,
  maxDelay: 30_000,
  heartbeat: 15,
  maxEventBytes: 1 << 20,
  storage: 'answer-42',
  fetch: (url, init) => fetch(url, { ...init, credentials: 'include' }),
  signal: AbortSignal.timeout(60_000),
};

const source = new ResilientEventSource('/answers/42', options);

source.addEventListener('open', (event) => show(event.type));
source.addEventListener('message', (event) => show(event.data.toUpperCase(), event.lastEventId));
source.addEventListener('token', ({ data }: MessageEvent<string>) => show(data.length));
source.addEventListener('token', { handleEvent: ({ data }) => show(data.length) });
source.addEventListener('connected', ({ detail }) => show(detail.streamId));
source.addEventListener('gap', ({ detail }) => showGap(detail), { once: true });
source.addEventListener('restart', ({ detail: { epoch } }) => show(epoch?.length));
source.addEventListener('statechange', ({ detail: { state, previous, delay, error } }) => {
  const seconds: number | null = delay === null ? null : delay / 1000;
  show(state satisfies SourceState, previous, seconds, error?.reason satisfies FailureReason | undefined);
});
const listener = (event: MessageEvent<string>): void => show(event.data);
source.addEventListener('completed', listener);
source.removeEventListener('completed', listener);

// @ts-expect-error a state has no `data`
source.addEventListener('statechange', (event) => show(event.data));
// @ts-expect-error there is no such option
new ResilientEventSource('/answers/42', { retries: 3 });
// @ts-expect-error a number is no cursor
new ResilientEventSource('/answers/42', { lastEventId: 7 });
// @ts-expect-error it is read only
source.lastEventId = '';
// @ts-expect-error there is no such state
if (source.state === 'reconnecting') show();

export async function read(): Promise<TerminalEvent> {
  for await (const event of source) {
    const text: string = event.data;
    show(event.type, text);
  }
  try {
    return await source.finished;
  } catch (error) {
    if (error instanceof ResilientEventSourceError) show(error.reason, error.status, error.retryAfter, error.cause);
    throw error;
  }
}

export function parse(chunks: Uint8Array[]): ParsedEvent[] {
  const parser = new EventStreamParser({ lastEventId: source.lastEventId, maxEventBytes: 1000 });
  const events = chunks.flatMap((chunk) => [...parser.push(chunk)]);
  show(parser.lastEventId, parser.retry);
  return events;
}

function showGap({ after, resumesAt, missed }: GapDetail): void {
  show(after ?? 'the beginning', resumesAt ?? 'the end', missed ?? 'some');
}

async function token(isRefused: boolean): Promise<string> {
  return isRefused ? 'new' : 'old';
}

function show(...values: unknown[]): void {
  document.querySelector('main')?.append(...values.map(String));
}

void read();
show(source.url, source.attempts, source.streamId, source.error);
source.close();
