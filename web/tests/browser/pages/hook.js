// The React hook, in a component that says what it is given in each render.
import { createElement, StrictMode, useEffect } from 'react';
import { createRoot } from 'react-dom/client';
import { useResilientSSE } from 'resilient-sse/react';
import { headers } from '/token.js';

const TERMINAL = ['completed', 'failed', 'cancelled', 'orphaned', 'expired'];

export function watch({ url, options = {}, signsIn }, report, reportEvent) {
  let shown = { status: 'none', events: [], gap: null };

  /** Reports what is new since the last render. */
  function note(stream) {
    const { status, events, gap, error } = stream;
    if (gap && gap !== shown.gap) report({ what: 'gap', ...gap });
    const goesOn = shown.events.length === 0 || shown.events[0] === events[0];
    if (!goesOn) report({ what: 'restart' });
    for (const event of events.slice(goesOn ? shown.events.length : 0)) reportEvent(event);
    if (status !== shown.status) {
      report({ what: 'state', state: status });
      if (status === 'connected') report({ what: 'open' });
      if (TERMINAL.includes(status)) report({ what: 'end', name: status });
      if (status === 'error') report({ what: 'gaveup', name: 'gaveup', reason: error.reason, message: error.message });
    }
    shown = stream;
  }

  function Watcher() {
    const stream = useResilientSSE(url, signsIn ? { ...options, headers } : options);
    useEffect(() => note(stream), [stream]);
    return createElement('p', null, stream.status);
  }

  createRoot(document.querySelector('#root')).render(createElement(StrictMode, null, createElement(Watcher)));
  return { again: () => shown.reconnect(), stop: () => shown.stop() };
}
