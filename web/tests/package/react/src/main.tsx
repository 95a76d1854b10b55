// A page that uses the hook, under the strictest settings.
import { createRoot } from 'react-dom/client';
import { useResilientSSE, type SSEEvent } from 'resilient-sse/react';

interface Token {
  text: string;
}

function append(text: string, { type, data }: SSEEvent): string {
  return type === 'message' ? text + (JSON.parse(data) as Token).text : text;
}

function Answer({ id }: { id: string }) {
  const { status, data, error, gap, stop, reconnect } = useResilientSSE(`/answers/${id}`, { reduce: append, initial: '' });
  const text: string = data;
  return (
    <article aria-busy={status === 'connected'}>
      {text}
      {gap && <p>{gap.missed ?? 'Some'} events are lost</p>}
      {error ? <button onClick={reconnect}>{error.message}</button> : <button onClick={stop}>Stop</button>}
    </article>
  );
}

// @ts-expect-error there is no such option
export const wrong = () => useResilientSSE('/answers/42', { retries: 3 });

const root = document.getElementById('root');
if (root) createRoot(root).render(<Answer id="42" />);
