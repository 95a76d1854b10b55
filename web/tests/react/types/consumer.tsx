/** A strict project that uses the hook: `tsc` must accept each use, and refuse what is marked as an error. */
import { useState } from 'react';
import { useResilientSSE, type ResilientConversation, type Status, type UseResilientSSEOptions } from '../../../react.js';
import type { ResilientEventSourceError, TerminalEvent } from '../../../resilient-sse.js';

interface Token {
  n: number;
  text: string;
}

/** Holds only where both types are the same. */
function same<A, B>(..._: [A] extends [B] ? ([B] extends [A] ? [] : [never]) : [never]) {}

export function Text({ url }: { url: string | URL | null }) {
  const answer = useResilientSSE(url);
  same<typeof answer.data, string | null>();
  same<typeof answer.status, Status>();
  same<typeof answer.error, ResilientEventSourceError | null>();
  answer.events.map((event) => event.data.toUpperCase());
  // @ts-expect-error: only a conversation has turns
  answer.send({});
  // @ts-expect-error: the events are shared by components
  answer.events.push({ type: 'message', data: '', lastEventId: '' });
  const { missed, resumesAt } = answer.gap ?? { missed: null, resumesAt: null };
  return (
    <button onClick={answer.stop} onDoubleClick={answer.reconnect}>
      {answer.error?.reason === 'attempts' ? answer.error.message : answer.data}
      {missed} {resumesAt} {answer.lastEventId}
    </button>
  );
}

export function Parsed() {
  const inferred = useResilientSSE('/a', { parse: (data) => JSON.parse(data) as Token, keep: 10 });
  same<typeof inferred.data, Token | null>();
  same<(typeof inferred.events)[number]['data'], Token>();

  const explicit = useResilientSSE<Token>('/a', { parse: JSON.parse });
  same<typeof explicit.data, Token | null>();

  // @ts-expect-error: without `parse` the data is text
  useResilientSSE<Token>('/a', { keep: 10 });
  return null;
}

export function Folded() {
  const text = useResilientSSE('/a', { reduce: (text, { data }) => text + data, initial: '' });
  same<typeof text.data, string>();

  const tokens = useResilientSSE('/a', {
    parse: (data) => JSON.parse(data) as Token,
    reduce: (tokens, { data }) => [...tokens, data],
    initial: [] as Token[],
  });
  same<typeof tokens.data, Token[]>();

  const sum = useResilientSSE<Token, number>('/a', { parse: JSON.parse, reduce: (sum, { data }) => sum + data.n, initial: 0 });
  same<typeof sum.data, number>();

  // @ts-expect-error: the state is a number, not text
  useResilientSSE('/a', { reduce: (sum: number, { data }) => sum + data, initial: 0 });
  // @ts-expect-error: `reduce` needs a state to begin with
  useResilientSSE('/a', { reduce: (text: string, { data }: { data: string }) => text + data });
  return null;
}

export function Chat({ id }: { id: string }) {
  const [turns, setTurns] = useState<string[]>([]);
  const chat = useResilientSSE(`/api/chat/${id}/stream`, { conversation: true, reduce: (text, { data }) => text + data, initial: '' });
  same<typeof chat, ResilientConversation<string, string>>();
  const events = useResilientSSE(`/api/chat/${id}`, { conversation: { send: '/api/turns' }, stop: (id) => `/api/stream/${id}` });
  same<typeof events.data, string | null>();

  async function ask(question: string) {
    setTurns([...turns, chat.data, question]);
    const end: TerminalEvent = await chat.send({ question });
    const isStopped: boolean = await chat.stop();
    return `${end.type} ${isStopped}`;
  }
  return <p onClick={() => void ask('?')}>{chat.data}</p>;
}

export function Everything() {
  const options: UseResilientSSEOptions<Token> & { parse: (data: string) => Token } = {
    headers: async ({ unauthorized }) => ({ authorization: unauthorized ? 'new' : 'old' }),
    method: 'POST',
    body: { question: 1 },
    lastEventId: 'e1-1',
    recover: '/a/recover',
    terminal: ['done'],
    maxAttempts: Infinity,
    minDelay: 1,
    maxDelay: 2,
    heartbeat: 15,
    maxEventBytes: 1024,
    storage: 'a',
    fetch,
    signal: new AbortController().signal,
    parse: JSON.parse,
    keep: 5,
    stop: { url: '/a/cancel', method: 'POST' },
  };
  useResilientSSE('/a', options);
  useResilientSSE(undefined, { ...options, stop: false });
  // @ts-expect-error: no such option
  useResilientSSE('/a', { maxAttempt: 3 });
  // @ts-expect-error: no URL at all
  useResilientSSE();
  return null;
}
